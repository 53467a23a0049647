//! Orders of the administrator: the table `dispatch_orders`. Reads which mail an order is about, part by part, and carries it out.
//!
//! An order that is done, or that cannot be understood, has a result. Until then its row tells how far it is done: `next_mail` is the
//! first mail that was not looked at, `last_mail` the last one that the order is about, and `under_way` the mail that was left for later.
//! An order whose time is still to come was given in advance: so a hold ends by itself.

mod work;

use cmail_delivery::order::{
    CarriedOut, ORDER_PART_LIMIT, OrderEffect, OrderId, OrderPart, OrderPlace, OrderStep,
};
use cmail_delivery::outbox::{Cursor, MailId, Row};
use cmail_delivery::schedule::RetryTerms;
use cmail_delivery::time::{UnixMillis, UnixTime};
use rusqlite::{Connection, OptionalExtension as _, Transaction, params};

use self::work::Work;
use super::error::trouble;
use super::failures::row_with_failures;
use super::forgotten::{self, ForgottenAddress};
use super::holds;
use super::ledger::Ledger;
use super::order_task::{Act, Scope, WrongOrder};
use super::own_table::{if_present, or_created};
use super::rows;
use super::selected::{Standing, select, select_readable};
use super::stuck;
use crate::selection::Selection;

/// The table. `who` is a user name with its number.
pub(super) const CREATE: &str = "
CREATE TABLE IF NOT EXISTS dispatch_orders (
    order_id INTEGER PRIMARY KEY AUTOINCREMENT,
    at_ms INTEGER NOT NULL,
    who TEXT NOT NULL,
    verb TEXT NOT NULL,
    scope TEXT NOT NULL,
    argument TEXT,
    reason TEXT,
    done_ms INTEGER,
    result TEXT,
    last_mail INTEGER,
    next_mail INTEGER,
    mails INTEGER NOT NULL DEFAULT 0,
    gone INTEGER NOT NULL DEFAULT 0,
    under_way TEXT
);
CREATE INDEX IF NOT EXISTS dispatch_orders_open ON dispatch_orders (order_id) WHERE done_ms IS NULL;
";

const SELECT_OPEN: &str = "SELECT order_id, at_ms, who, verb, scope, argument, reason, last_mail, next_mail, mails, gone, under_way \
     FROM dispatch_orders WHERE done_ms IS NULL";

/// A row of the table.
struct Order {
    number: OrderId,
    at: UnixMillis,
    who: String,
    task: Result<(Act, Scope), WrongOrder>,
    scope: String,
    reason: Option<String>,
    /// Whether no step of it is recorded.
    is_new: bool,
    last: MailId,
    place: OrderPlace,
    mails: u64,
    gone: u64,
    under_way: Vec<MailId>,
}

impl Order {
    /// Converts the columns of `SELECT_OPEN`. A row with values of other types is an order that cannot be carried out.
    fn from_row(connection: &Connection, row: &rusqlite::Row<'_>) -> rusqlite::Result<Self> {
        match Self::try_from_row(connection, row) {
            Err(
                error @ (rusqlite::Error::InvalidColumnType(..)
                | rusqlite::Error::FromSqlConversionFailure(..)
                | rusqlite::Error::IntegralValueOutOfRange(..)
                | rusqlite::Error::Utf8Error(..)),
            ) => Ok(Self {
                number: OrderId(row.get(0)?),
                at: UnixMillis::default(),
                who: "?".to_owned(),
                task: Err(WrongOrder::Row(error.to_string())),
                scope: String::new(),
                reason: None,
                is_new: true,
                last: MailId(0),
                place: OrderPlace::End,
                mails: 0,
                gone: 0,
                under_way: Vec::new(),
            }),
            order => order,
        }
    }

    /// An order that does not say up to which mail it is about is about all that there is.
    fn try_from_row(connection: &Connection, row: &rusqlite::Row<'_>) -> rusqlite::Result<Self> {
        let scope: String = row.get(4)?;
        let act = Act::parse(&row.get::<_, String>(3)?, row.get(5)?);
        let task = act.and_then(|act| act.about(Scope::parse(&scope)?));
        let last = match row.get::<_, Option<i64>>(7)? {
            // It is about no mail, but about all entries that it comes to.
            _ if matches!(task, Ok((Act::Forget, _))) => i64::MAX,
            Some(last) => last,
            None => connection
                .prepare_cached("SELECT coalesce(max(mail_id), 0) FROM outbox")?
                .query_row([], |row| row.get(0))?,
        };
        let next_mail: Option<i64> = row.get(8)?;
        let place = match next_mail {
            None => OrderPlace::At(Cursor::BeforeFirst),
            Some(next) if next > last => OrderPlace::End,
            Some(next) => OrderPlace::At(
                next.checked_sub(1).map_or(Cursor::BeforeFirst, |id| Cursor::After(MailId(id))),
            ),
        };
        let under_way: Option<String> = row.get(11)?;
        let under_way: Vec<i64> =
            under_way.and_then(|ids| serde_json::from_str(&ids).ok()).unwrap_or_default();
        Ok(Self {
            number: OrderId(row.get(0)?),
            at: UnixMillis(row.get(1)?),
            who: row.get(2)?,
            task,
            scope,
            reason: row.get(6)?,
            is_new: next_mail.is_none(),
            last: MailId(last),
            place,
            mails: row.get::<_, i64>(9)?.try_into().unwrap_or(0),
            gone: row.get::<_, i64>(10)?.try_into().unwrap_or(0),
            under_way: under_way.into_iter().map(MailId).collect(),
        })
    }

    /// Names the order, as the ledger does.
    fn name(&self) -> String {
        let who = self.who.split_once(" (").map_or(&*self.who, |(name, _)| name);
        format!("order {} of {who}", self.number)
    }

    /// Returns by what its mail is selected: as if it were carried out when it was given.
    fn standing<'a>(&self, terms: &'a RetryTerms) -> Standing<'a> {
        Standing { rules: terms.rules(), now: UnixTime(self.at.0.div_euclid(1000)) }
    }
}

/// Reads a part of the first order that is not done, except for those of which everything is known. To be called within a transaction.
pub(super) fn read(
    connection: &Connection,
    known: &[(OrderId, OrderPlace)],
    terms: &RetryTerms,
    is_faillog_indexed: bool,
) -> rusqlite::Result<Option<OrderPart>> {
    let Some((order, place)) = if_present(|| next_order(connection, known, terms))?.flatten() else {
        return Ok(None);
    };
    part(connection, order, place, terms, is_faillog_indexed).map(Some)
}

/// Returns the first order that is not done, except for those of which everything is known, and up to where its mail is known.
fn next_order(
    connection: &Connection,
    known: &[(OrderId, OrderPlace)],
    terms: &RetryTerms,
) -> rusqlite::Result<Option<(Order, Option<OrderPlace>)>> {
    let mut statement =
        connection.prepare_cached(&format!("{SELECT_OPEN} AND at_ms <= ?1 ORDER BY order_id"))?;
    let mut found = statement.query([UnixMillis::from(terms.now).0.saturating_add(999)])?;
    while let Some(row) = found.next()? {
        let order = Order::from_row(connection, row)?;
        let place = known.iter().find(|(number, _)| *number == order.number).map(|&(_, place)| place);
        if place != Some(OrderPlace::End) {
            return Ok(Some((order, place)));
        }
    }
    Ok(None)
}

fn part(
    connection: &Connection,
    order: Order,
    place: Option<OrderPlace>,
    terms: &RetryTerms,
    is_faillog_indexed: bool,
) -> rusqlite::Result<OrderPart> {
    if let Ok((Act::Forget, _)) = &order.task {
        let next = match place.unwrap_or(order.place) {
            OrderPlace::At(after) => forgotten::end_of_part(connection, after)?,
            OrderPlace::End => OrderPlace::End,
        };
        let (mails, under_way) = (Vec::new(), Vec::new());
        return Ok(OrderPart { order: order.number, effect: OrderEffect::NoMail, mails, under_way, next });
    }
    let standing = order.standing(terms);
    let effect = match &order.task {
        Ok((act, _)) => act.effect(),
        Err(_) => OrderEffect::Change,
    };
    let (mut mails, mut next) = (Vec::new(), OrderPlace::End);
    if let (Ok((_, scope)), OrderPlace::At(after)) = (&order.task, place.unwrap_or(order.place)) {
        (mails, next) = meant(connection, scope, standing, after, is_faillog_indexed)?;
        mails.retain(|id| *id <= order.last);
        if matches!(next, OrderPlace::At(Cursor::After(id)) if id >= order.last) {
            next = OrderPlace::End;
        }
    }
    Ok(OrderPart { order: order.number, effect, mails, under_way: order.under_way, next })
}

/// Returns the mail of a scope that follows a place, and how far mail was looked at.
fn meant(
    connection: &Connection,
    scope: &Scope,
    standing: Standing<'_>,
    after: Cursor,
    is_faillog_indexed: bool,
) -> rusqlite::Result<(Vec<MailId>, OrderPlace)> {
    let all = Selection::default();
    let selection = match scope {
        Scope::Hold { hold } => return of_hold(connection, *hold, after),
        Scope::Address(_) => return Ok((Vec::new(), OrderPlace::End)),
        Scope::Rule(_) => &all,
        Scope::Mails(selection) => selection,
    };
    let part = (after, ORDER_PART_LIMIT);
    let batch = match select(connection, selection, standing, part, is_faillog_indexed) {
        // A damaged page costs only the mail on it.
        Err(error) if trouble(connection, &error).is_about_a_row() => {
            select_readable(connection, selection, standing, part, is_faillog_indexed)?
        }
        batch => batch?,
    };
    let fits = |row: &Row| match scope {
        Scope::Rule(rule) => rule.fits(row),
        Scope::Hold { .. } | Scope::Mails(_) | Scope::Address(_) => true,
    };
    let mails = batch.mails.iter().filter(|mail| fits(&mail.row)).map(|mail| mail.row.id);
    Ok((mails.collect(), batch.next.map_or(OrderPlace::End, OrderPlace::At)))
}

fn of_hold(connection: &Connection, hold: i64, after: Cursor) -> rusqlite::Result<(Vec<MailId>, OrderPlace)> {
    let Some(first) = after.next_id() else { return Ok((Vec::new(), OrderPlace::End)) };
    let select =
        "SELECT mail_id FROM dispatch_state WHERE mail_id >= ?1 AND hold_id = ?2 ORDER BY mail_id LIMIT ?3";
    let limit = i64::try_from(ORDER_PART_LIMIT).unwrap_or(i64::MAX);
    let found = if_present(|| {
        connection
            .prepare_cached(select)?
            .query_map(params![first.0, hold, limit], |row| row.get(0).map(MailId))?
            .collect::<rusqlite::Result<Vec<_>>>()
    })?;
    let mails = found.unwrap_or_default();
    let next = match mails.last() {
        Some(&last) if mails.len() == ORDER_PART_LIMIT => OrderPlace::At(Cursor::After(last)),
        Some(_) | None => OrderPlace::End,
    };
    Ok((mails, next))
}

/// Carries out a step, and records it.
pub(super) fn carry_out(
    transaction: &Transaction<'_>,
    step: &OrderStep,
    ledger: &mut Ledger,
    is_faillog_indexed: bool,
) -> rusqlite::Result<CarriedOut> {
    let found = if_present(|| {
        transaction
            .prepare_cached(&format!("{SELECT_OPEN} AND order_id = ?1"))?
            .query_row([step.order.0], |row| Order::from_row(transaction, row))
            .optional()
    })?;
    let Some(order) = found.flatten() else {
        let rows = step.mails.iter().filter_map(|id| existing(transaction, *id).transpose());
        return Ok(CarriedOut { rows: rows.collect::<rusqlite::Result<_>>()?, ..CarriedOut::default() });
    };
    let is_taken = order.is_new && is_number_taken(transaction, &order)?;
    let task = if is_taken { &Err(WrongOrder::NumberTaken(order.number)) } else { &order.task };
    let (act, scope) = match task {
        Ok(task) => task,
        Err(wrong) => {
            let result = format!("nothing was done: {wrong}");
            record(transaction, &order, step, 0, Some(&result))?;
            let result = Some(told(&order, &result));
            return Ok(CarriedOut { is_open: true, result, ..CarriedOut::default() });
        }
    };
    if let Scope::Address(address) = scope {
        return forget(transaction, &order, address, step);
    }
    if begin(transaction, &order, act, scope)? == Beginning::Futile {
        let result = act.result(0, 0);
        record(transaction, &order, step, 0, Some(&result))?;
        let rows = step.mails.iter().filter_map(|id| existing(transaction, *id).transpose());
        let rows = rows.collect::<rusqlite::Result<_>>()?;
        return Ok(CarriedOut { rows, result: Some(told(&order, &result)), ..CarriedOut::default() });
    }
    let narrowed = match scope {
        Scope::Mails(selection) => Selection { ids: Vec::new(), ..selection.clone() },
        Scope::Hold { .. } | Scope::Rule(_) | Scope::Address(_) => Selection::default(),
    };
    let work =
        Work { transaction, order: &order, act, scope, narrowed, terms: &step.terms, is_faillog_indexed };
    let (mut rows, mut done) = (Vec::with_capacity(step.mails.len()), Vec::new());
    for &id in &step.mails {
        if work.try_on(id, ledger)? {
            done.push(id);
        }
        rows.extend(work.look_at(id)?);
    }
    let changed = done.len() as u64;
    let (mails, gone) = (order.mails + changed, order.gone + step.gone.len() as u64);
    let mut result = step.is_last().then(|| act.result(mails, gone));
    if let (Some(result), Scope::Rule(_), Act::Hold { .. }) = (&mut result, scope, act) {
        result.push_str(", and what comes later");
    }
    record(transaction, &order, step, changed, result.as_deref())?;
    if result.is_some() {
        end(transaction, act, scope)?;
    }
    let result = result.map(|result| told(&order, &result));
    Ok(CarriedOut { rows, done, is_open: true, result })
}

/// Carries out a step of an order to forget an address, and records it. Its last step blanks the order itself.
fn forget(
    transaction: &Connection,
    order: &Order,
    address: &ForgottenAddress,
    step: &OrderStep,
) -> rusqlite::Result<CarriedOut> {
    let rows = forgotten::blank_part(transaction, address, (order.place, step.next))?;
    let result = step.is_last().then(|| Act::Forget.result(order.mails + rows, 0));
    record(transaction, order, step, rows, result.as_deref())?;
    if result.is_some() {
        forgotten::blank_orders(transaction, address)?;
    }
    let result = result.map(|result| told(order, &result));
    Ok(CarriedOut { is_open: true, result, ..CarriedOut::default() })
}

fn told(order: &Order, result: &str) -> String {
    format!("{}: {result}", order.name())
}

fn existing(connection: &Connection, id: MailId) -> rusqlite::Result<Option<Row>> {
    if stuck::exists(connection)? && stuck::contains(connection, id)? {
        return Ok(None);
    }
    row_with_failures(connection, id, &mut rows::texts())
}

/// Returns whether somebody has made a hold by hand that has the number of one that an order is about to make.
fn is_number_taken(connection: &Connection, order: &Order) -> rusqlite::Result<bool> {
    let makes_hold = matches!(order.task, Ok((Act::Hold { .. }, _)));
    let select = "SELECT 1 FROM dispatch_holds WHERE hold_id = ?1";
    let found = if_present(|| connection.prepare_cached(select)?.exists([order.number.0]))?;
    Ok(makes_hold && found.unwrap_or(false))
}

/// Whether there is anything to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Beginning {
    /// There may be.
    Made,
    /// The rule that is to end is not there.
    Futile,
}

/// Makes the hold to which mail will belong, or ends a rule.
fn begin(transaction: &Connection, order: &Order, act: &Act, scope: &Scope) -> rusqlite::Result<Beginning> {
    let made = |()| Beginning::Made;
    match act {
        Act::Hold { .. } if !order.is_new => Ok(Beginning::Made),
        Act::Hold { until } => {
            give_end(transaction, order, *until, scope)?;
            make_hold(transaction, order, *until).map(made)
        }
        Act::Release { hold } if matches!(scope, Scope::Rule(_)) => {
            let delete = "DELETE FROM dispatch_holds WHERE CASE WHEN json_valid(scope) THEN lower(json(scope)) END = lower(json(?1)) \
                AND (?2 IS NULL OR hold_id = ?2)";
            let ended =
                if_present(|| transaction.prepare_cached(delete)?.execute(params![order.scope, hold]))?;
            if *act == Act::LINE_ENDED {
                return Ok(Beginning::Made);
            }
            // Later steps are about the mail of a rule that the first one has ended.
            let is_futile = order.is_new && ended.unwrap_or(0) == 0;
            Ok(if is_futile { Beginning::Futile } else { Beginning::Made })
        }
        Act::Retry { .. }
        | Act::Release { .. }
        | Act::Fail
        | Act::Drop
        | Act::Redirect { .. }
        | Act::Forget => Ok(Beginning::Made),
    }
}

fn make_hold(transaction: &Connection, order: &Order, until: Option<UnixMillis>) -> rusqlite::Result<()> {
    let insert = "INSERT INTO dispatch_holds (hold_id, scope, since_ms, until_ms, who, reason) \
        VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
    let Order { number, scope, at, who, reason, .. } = order;
    or_created(transaction, holds::CREATE, || {
        let until = until.map(|until| until.0);
        transaction
            .prepare_cached(insert)?
            .execute(params![number.0, scope, at.0, until, who, reason])
            .map(drop)
    })
}

/// Gives the order in advance by which a hold ends.
fn give_end(
    transaction: &Connection,
    order: &Order,
    until: Option<UnixMillis>,
    scope: &Scope,
) -> rusqlite::Result<()> {
    let Some(until) = until else { return Ok(()) };
    let (scope, hold) = match scope {
        Scope::Rule(_) => (order.scope.clone(), Some(order.number.0.to_string())),
        Scope::Hold { .. } | Scope::Mails(_) | Scope::Address(_) => {
            (Scope::Hold { hold: order.number.0 }.to_json(), None)
        }
    };
    transaction
        .prepare_cached(
            "INSERT INTO dispatch_orders (at_ms, who, verb, scope, argument, reason) VALUES (?1, ?2, 'release', ?3, ?4, ?5)",
        )?
        .execute(params![until.0, order.who, scope, hold, format!("the end of hold {}", order.number)])
        .map(drop)
}

/// Ends the hold that was released.
fn end(transaction: &Connection, act: &Act, scope: &Scope) -> rusqlite::Result<()> {
    match (act, scope) {
        (Act::Release { .. }, Scope::Hold { hold }) => {
            let delete = "DELETE FROM dispatch_holds WHERE hold_id = ?1";
            if_present(|| transaction.prepare_cached(delete)?.execute([hold])).map(drop)
        }
        (Act::Release { .. } | Act::Fail | Act::Drop, _) => holds::end_empty_uncertain(transaction),
        _ => Ok(()),
    }
}

/// Records how far an order is done.
fn record(
    transaction: &Connection,
    order: &Order,
    step: &OrderStep,
    changed: u64,
    result: Option<&str>,
) -> rusqlite::Result<()> {
    let next = match step.next {
        OrderPlace::At(cursor) => cursor.next_id().map_or(i64::MAX, |id| id.0),
        OrderPlace::End => order.last.0.saturating_add(1),
    };
    let ids: Vec<i64> = step.under_way.iter().map(|id| id.0).collect();
    let under_way = (!ids.is_empty()).then(|| serde_json::to_string(&ids).unwrap_or_default());
    let done = result.map(|_| UnixMillis::from(step.terms.now).0);
    transaction
        .prepare_cached(
            "UPDATE dispatch_orders SET last_mail = ?2, next_mail = ?3, mails = mails + ?4, gone = gone + ?5, under_way = ?6, \
             done_ms = ?7, result = ?8 WHERE order_id = ?1",
        )?
        .execute(params![
            order.number.0,
            order.last.0,
            next,
            i64::try_from(changed).unwrap_or(i64::MAX),
            i64::try_from(step.gone.len()).unwrap_or(i64::MAX),
            under_way,
            done,
            result
        ])
        .map(drop)
}

#[cfg(test)]
mod tests;
