//! Carries an order out on one mail after the other.

use cmail_delivery::attempt::AttemptKind;
use cmail_delivery::hold::{HoldId, HoldState};
use cmail_delivery::outbox::{Cursor, MailId, Row};
use cmail_delivery::schedule::{RetryState, RetryTerms};
use cmail_delivery::time::UnixMillis;
use cmail_delivery::wording::given_up_by_order;
use rusqlite::{Transaction, params};

use super::{Order, existing};
use crate::selection::Selection;
use crate::store::commit::delete;
use crate::store::error::{advice, trouble};
use crate::store::holds::{self, RELEASED};
use crate::store::ledger::{Fate, Ledger};
use crate::store::order_task::{Act, Scope};
use crate::store::own_table::if_present;
use crate::store::selected::{Standing, select};
use crate::store::verdicts::within_savepoint;

/// An order that is being carried out.
pub(super) struct Work<'a> {
    pub(super) transaction: &'a Transaction<'a>,
    pub(super) order: &'a Order,
    pub(super) act: &'a Act,
    pub(super) scope: &'a Scope,
    /// The selection of the scope, without its ids.
    pub(super) narrowed: Selection,
    pub(super) terms: &'a RetryTerms,
    pub(super) is_faillog_indexed: bool,
}

impl Work<'_> {
    /// Carries the order out on a mail, if it still is about it. What another program prevents is told, and costs no other mail.
    pub(super) fn try_on(&self, id: MailId, ledger: &mut Ledger) -> rusqlite::Result<bool> {
        let connection = self.transaction;
        let error = match within_savepoint(connection, || self.carry_out_on(id, ledger)) {
            Ok(is_changed) => return Ok(is_changed),
            Err(error) => error,
        };
        if connection.is_autocommit() || !trouble(connection, &error).is_about_a_row() {
            return Err(error);
        }
        ledger.forget();
        let advice = advice(connection, &error);
        log::error!("{} cannot be carried out on mail {id}: {error}; {advice}", self.order.name());
        Ok(false)
    }

    /// Returns a mail as it is now. One that cannot be read is found by the next scan.
    pub(super) fn look_at(&self, id: MailId) -> rusqlite::Result<Option<Row>> {
        match existing(self.transaction, id) {
            Err(error) if trouble(self.transaction, &error).is_about_a_row() => Ok(None),
            found => found,
        }
    }

    fn carry_out_on(&self, id: MailId, ledger: &mut Ledger) -> rusqlite::Result<bool> {
        let connection = self.transaction;
        let Some(row) = existing(connection, id)?.filter(|row| self.is_about(row)) else { return Ok(false) };
        if !self.is_meant(&row)? {
            return Ok(false);
        }
        match self.act {
            Act::Retry { anew: false } => {}
            Act::Retry { anew: true } => {
                connection.prepare_cached("DELETE FROM faillog WHERE fail_mail = ?1")?.execute([id.0])?;
            }
            Act::Hold { until } => self.hold(id, *until)?,
            Act::Release { .. } => self.release(&row)?,
            Act::Fail => {
                self.release(&row)?;
                self.give_up(&row)?;
            }
            // It is about no mail.
            Act::Forget => {}
            Act::Drop => {
                ledger.add_end(connection, id, Fate::Removed, Some(&self.order.name()))?;
                delete(connection, id)?;
                holds::set(connection, id, None)?;
            }
            Act::Redirect { remote } => {
                let count = connection
                    .prepare_cached("UPDATE outbox SET mail_remote = ?2 WHERE mail_id = ?1")?
                    .execute(params![id.0, remote])?;
                if count == 0 {
                    return Err(rusqlite::Error::StatementChangedRows(0));
                }
            }
        }
        Ok(true)
    }

    /// Returns whether the state of a mail is one that the order can change.
    fn is_about(&self, row: &Row) -> bool {
        match self.act {
            Act::Retry { anew: false } => {
                let standing = Standing { rules: self.terms.rules(), now: self.terms.now };
                matches!(standing.of(row), RetryState::Due | RetryState::NotBefore(_))
            }
            Act::Retry { anew: true } => !self.is_held(row),
            // Where a rule has ended, only what nothing else holds has become free.
            Act::Release { .. } if matches!(self.scope, Scope::Rule(_)) => {
                row.hold.state == HoldState::Unset && !self.is_held(row)
            }
            Act::Release { .. } => self.is_held(row),
            Act::Hold { .. } | Act::Fail | Act::Drop | Act::Redirect { .. } => true,
            Act::Forget => false,
        }
    }

    fn is_held(&self, row: &Row) -> bool {
        self.terms.rules().held_by(row).is_some()
    }

    /// Returns whether a mail is in the scope: it was when the order was read, but another program may have changed it since.
    fn is_meant(&self, row: &Row) -> rusqlite::Result<bool> {
        match self.scope {
            Scope::Hold { hold } => {
                let select = "SELECT 1 FROM dispatch_state WHERE mail_id = ?1 AND hold_id = ?2";
                let found =
                    if_present(|| self.transaction.prepare_cached(select)?.exists(params![row.id.0, hold]))?;
                Ok(found.unwrap_or(false))
            }
            Scope::Rule(rule) => Ok(rule.fits(row)),
            Scope::Address(_) => Ok(false),
            Scope::Mails(selection) => {
                if row.id > self.order.last
                    || !(selection.ids.is_empty() || selection.ids.contains(&row.id.0))
                {
                    return Ok(false);
                }
                let selection = Selection { ids: vec![row.id.0], ..self.narrowed.clone() };
                let standing = self.order.standing(self.terms);
                let place = (Cursor::BeforeFirst, 1);
                let found = select(self.transaction, &selection, standing, place, self.is_faillog_indexed)?;
                Ok(!found.mails.is_empty())
            }
        }
    }

    /// Holds a mail, unless it is held for as long already.
    fn hold(&self, id: MailId, until: Option<UnixMillis>) -> rusqlite::Result<()> {
        let lasts_longer = match holds::until(self.transaction, id)? {
            None => false,
            Some(None) => true,
            Some(Some(other)) => until.is_some_and(|until| other >= until.0),
        };
        if lasts_longer { Ok(()) } else { holds::set(self.transaction, id, Some(self.order.number.0)) }
    }

    /// Ends the hold of a mail. If the order names the mail, no rule and no line holds it any more either; if it names a hold or a rule,
    /// only that ends.
    fn release(&self, row: &Row) -> rusqlite::Result<()> {
        let was_held = matches!(self.scope, Scope::Rule(_)) || self.is_held(row);
        match self.scope {
            Scope::Rule(_) => holds::clear_ended(self.transaction, row.id)?,
            Scope::Hold { .. } => holds::set(self.transaction, row.id, None)?,
            Scope::Address(_) => {}
            Scope::Mails(_) => {
                let is_ruled = holds::rules(self.transaction)?.iter().any(|(_, rule)| rule.fits(row))
                    || self.terms.rules().has_hold_line_about(row);
                holds::set(self.transaction, row.id, is_ruled.then_some(RELEASED))?;
            }
        }
        if was_held { holds::note_release(self.transaction, row.id, self.terms.now.into()) } else { Ok(()) }
    }

    fn give_up(&self, row: &Row) -> rusqlite::Result<()> {
        let id = row.id;
        let mut text = given_up_by_order(&self.order.name(), self.order.reason.as_deref());
        // Its sender should not send it once more without asking.
        let is_held_for_doubt = row.hold.state == HoldState::Held(HoldId::UNCERTAIN);
        let has_failed_so = row.last_failure.is_some_and(|failure| failure.kind == AttemptKind::Uncertain);
        if is_held_for_doubt || has_failed_so {
            text.push_str("; it may have arrived already, because a server was given all of it and its answer is not known");
        }
        let count = self
            .transaction
            .prepare_cached(
                "INSERT INTO faillog (fail_mail, fail_message, fail_time, fail_fatal) VALUES (?1, ?2, CAST(?3 AS TEXT), 1)",
            )?
            .execute(params![id.0, text, self.terms.now.0])?;
        // A trigger of another program may suppress the statement without an error.
        if count == 0 { Err(rusqlite::Error::StatementChangedRows(0)) } else { Ok(()) }
    }
}
