//! Answers one request after the other; scans and commits.

use std::collections::HashSet;
use std::ops::ControlFlow;

use bytes::Bytes;
use cmail_delivery::address::Domain;
use cmail_delivery::dkim::{SignedMail, Signing, SigningRules};
use cmail_delivery::flight::Uncertain;
use cmail_delivery::order::{OrderId, OrderPlace, OrderStep};
use cmail_delivery::outbox::{
    Claimed, Commit, Committed, Cursor, MailId, Scanned, StoreError, StoreReply, StoreRequest, StoreTrouble,
};
use cmail_delivery::schedule::RetryTerms;
use cmail_delivery::sts::StoredPolicy;
use rusqlite::{Connection, TransactionBehavior};

use super::busy::{allow_interruption, forbid_interruption};
use super::commit::{compose_bounces, record};
use super::database::{Database, LargeMessages};
use super::error::{advice, trouble};
use super::fingerprints::Compared;
use super::flights;
use super::line_notes::LineNotes;
use super::messages;
use super::orders;
use super::policies;
use super::read_ahead::{Follows, ReadJob, ReadOutput};
use super::scan::{self, Scan};
use super::stuck;

impl Database {
    /// Answers a request. If that fails, nothing has changed, and the next request may succeed.
    pub(crate) fn answer(&mut self, request: StoreRequest) -> Result<StoreReply, StoreError> {
        if !self.is_in_transaction() {
            self.ensure_open()?;
        }
        let (task, answer) = match request {
            StoreRequest::Scan { after, limit } => ("read the outbox of", self.scan(after, limit)),
            StoreRequest::Claim { ids, transactions, recipients, signing } => {
                ("read mail from", self.claim(&ids, transactions, recipients, signing.as_ref()))
            }
            StoreRequest::ReadData { id, offset, limit } => {
                ("read mail data from", self.read_data(id, offset, limit))
            }
            StoreRequest::Commit(commit) => ("record deliveries in", self.commit(commit)),
            StoreRequest::Recall { ids } => ("read mail from", self.recall(&ids)),
            StoreRequest::Recover { uncertain } => {
                ("find out which mail may have arrived already from", self.recover(uncertain))
            }
            StoreRequest::ReadOrders { known, terms } => {
                ("read the orders in", self.read_orders(&known, &terms))
            }
            StoreRequest::CarryOut(step) => ("carry out an order in", self.carry_out(&step)),
            StoreRequest::ReadFailed { ids, original_limit_octets } => {
                ("read failed mail from", self.read_failed(&ids, original_limit_octets))
            }
            StoreRequest::ReadPolicy(domain) => {
                ("read an MTA-STS policy from", self.read_policy(&domain).map(StoreReply::Policy))
            }
            StoreRequest::ReadStalePolicies { now, limit } => {
                let found =
                    self.in_read_transaction(|database| policies::stale(&database.connection, now, limit));
                ("read MTA-STS policies from", found.map(StoreReply::StalePolicies))
            }
        };
        answer.map_err(|error| self.failed(task, &error))
    }

    /// Forgets mail that was claimed, and is given up without a verdict.
    pub(super) fn release(&mut self, ids: Vec<MailId>) {
        self.fingerprints.forget(ids);
    }

    /// Reads mail data, and hands over all parts but the last one as soon as they are read. If that fails, the next attempt
    /// may succeed.
    pub(super) fn run_read_job(
        &mut self,
        job: ReadJob,
        hand_over: &mut dyn FnMut(ReadOutput) -> ControlFlow<()>,
    ) -> Result<ReadOutput, StoreError> {
        self.ensure_open()?;
        let output = self.in_read_transaction(|database| {
            if database.has_other_data(job.id)? {
                return Ok(ReadOutput { chunks: Vec::new(), follows: Follows::EndOfData });
            }
            messages::run_read_job(&database.connection, &database.large.pool, job, hand_over)
        });
        output.map_err(|error| self.failed("read mail data from", &error))
    }

    fn scan(&mut self, after: Cursor, limit: u32) -> rusqlite::Result<StoreReply> {
        self.in_read_transaction(|database| {
            let (mut found, mut taken) = (Scan::default(), Vec::new());
            if let Some(first) = after.next_id() {
                found = scan::scan(&database.connection, first, limit, database.additions.is_indexed)?;
                if stuck::exists(&database.connection)? {
                    let last = match found.next {
                        Some(Cursor::After(last)) => last,
                        Some(Cursor::BeforeFirst) | None => MailId(i64::MAX),
                    };
                    taken = stuck::between(&database.connection, first, last)?;
                }
            }
            let Scan { rows, unreadable, next } = found;
            Ok(StoreReply::Scanned(Scanned {
                rows,
                taken,
                unreadable,
                next,
                data_version: database.see_version()?,
            }))
        })
    }

    fn claim(
        &mut self,
        ids: &[MailId],
        limit: usize,
        recipients: usize,
        signing: Option<&Signing>,
    ) -> rusqlite::Result<StoreReply> {
        let signing = signing.filter(|signing| self.may_sign_by(&signing.rules));
        self.in_read_transaction(|database| {
            let ids = database.untaken(ids)?;
            let version = database.version()?;
            database.large.turn_to(version);
            let read = |database: &mut Self, ids: &[MailId]| {
                let Self { connection, large, .. } = database;
                messages::claim(connection, large, ids, limit, recipients, signing)
            };
            let ((transactions, left_over, fingerprints), unreadable) =
                database.read_apart(&ids, Self::read_all, read)?;
            database.fingerprints.put_all(fingerprints, version);
            Ok(StoreReply::Claimed(Claimed { transactions, left_over, unreadable }))
        })
    }

    /// Returns whether mail may be signed. Where ids of mail are used again, a mark may be that of a mail that is gone, so that
    /// somebody else's mail would be signed.
    fn may_sign_by(&mut self, rules: &SigningRules) -> bool {
        if self.additions.has_unique_ids || rules.mail == SignedMail::All {
            return true;
        }
        if !std::mem::replace(&mut self.additions.has_told_of_marks, true) {
            log::warn!(
                "the outbox of the database {} uses ids of mail again, because its mail_id is not AUTOINCREMENT: a mark in dispatch_envelope may be \
                 that of another mail, so nothing is signed (DKIM); move the mail to a database that `initdb` makes",
                self.path().display()
            );
        }
        false
    }

    fn read_data(&mut self, id: MailId, offset: u64, limit: u32) -> rusqlite::Result<StoreReply> {
        self.in_read_transaction(|database| {
            let octets = match database.has_other_data(id)? {
                true => Bytes::new(),
                false => messages::read_data(&database.connection, &database.large.pool, id, offset, limit)?,
            };
            Ok(StoreReply::Data(octets))
        })
    }

    fn read_failed(&mut self, ids: &[MailId], original_limit_octets: u64) -> rusqlite::Result<StoreReply> {
        self.in_read_transaction(|database| {
            let version = database.version()?;
            database.large.turn_to(version);
            let read = |database: &mut Self, ids: &[MailId]| {
                let Self { connection, large: LargeMessages { pool, digests, .. }, .. } = database;
                messages::read_failed(connection, pool, digests, ids, original_limit_octets)
            };
            let ((messages, left_over, fingerprints), unreadable) =
                database.read_apart(ids, Self::read_all, read)?;
            database.fingerprints.put_all(fingerprints, version);
            Ok(StoreReply::Failed { messages, left_over, unreadable })
        })
    }

    fn recall(&mut self, ids: &[MailId]) -> rusqlite::Result<StoreReply> {
        self.in_read_transaction(|database| {
            let ids = database.untaken(ids)?;
            let version = database.version()?;
            let try_one = |database: &Self, id| messages::recall(&database.connection, &[id]).map(drop);
            let read = |database: &mut Self, ids: &[MailId]| messages::recall(&database.connection, ids);
            let ((rows, fingerprints), unreadable) = database.read_apart(&ids, try_one, read)?;
            database.fingerprints.put_all(fingerprints, version);
            Ok(StoreReply::Recalled { rows, unreadable })
        })
    }

    fn read_orders(
        &mut self,
        known: &[(OrderId, OrderPlace)],
        terms: &RetryTerms,
    ) -> rusqlite::Result<StoreReply> {
        if let Err(error) = self.note_hold_lines(terms)
            && trouble(&self.connection, &error) != StoreTrouble::Busy
        {
            // It is told once: the lines count as noted from here on.
            log::warn!(
                "cannot note in the table dispatch_meta which hold lines there are: {error}; {}",
                advice(&self.connection, &error)
            );
            self.line_notes.committed(terms.rules().hold_lines);
        }
        self.in_read_transaction(|database| {
            orders::read(&database.connection, known, terms, database.additions.is_indexed)
                .map(StoreReply::Orders)
        })
    }

    /// Notes the lines that hold mail, if they are others than before.
    fn note_hold_lines(&mut self, terms: &RetryTerms) -> rusqlite::Result<()> {
        let lines = terms.rules().hold_lines;
        if !self.additions.has_order_tables || !self.line_notes.are_outdated(lines) {
            return Ok(());
        }
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        LineNotes::write(&transaction, terms)?;
        transaction.commit()?;
        self.line_notes.committed(lines);
        Ok(())
    }

    fn read_policy(&mut self, domain: &Domain) -> rusqlite::Result<Option<StoredPolicy>> {
        self.in_read_transaction(|database| policies::read(&database.connection, domain))
    }

    fn recover(&mut self, uncertain: Uncertain) -> rusqlite::Result<StoreReply> {
        // Mostly there is nothing to write, and so no lock to wait for.
        if self.in_read_transaction(|database| flights::left_behind(&database.connection))?.is_empty() {
            return Ok(StoreReply::Recovered(Vec::new()));
        }
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let found = flights::recover(&transaction, uncertain, &mut self.ledger)
            .and_then(|found| transaction.commit().map(|()| found));
        if found.is_err() {
            self.ledger.forget();
        }
        match found {
            // A trigger of another program: mail must not wait for ever because of it.
            Err(error) if trouble(&self.connection, &error).is_about_a_row() => {
                flights::say_kept(&self.connection, &error);
                self.in_read_transaction(|database| flights::found_only(&database.connection))
            }
            found => found,
        }
        .map(StoreReply::Recovered)
    }

    /// Names the mail that may have arrived already, where nothing else is done with it: it is sent again.
    pub(crate) fn tell_doubts(&mut self) {
        // It is told and no more, so it is left out where the database is locked.
        for found in
            self.in_read_transaction(|database| flights::found_only(&database.connection)).unwrap_or_default()
        {
            log::warn!("{found}; uncertain is off, so it is not held");
        }
    }

    fn carry_out(&mut self, step: &OrderStep) -> rusqlite::Result<StoreReply> {
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let carried_out = orders::carry_out(&transaction, step, &mut self.ledger, self.additions.is_indexed)
            .and_then(|carried_out| transaction.commit().map(|()| carried_out));
        if carried_out.is_err() {
            self.ledger.forget();
        }
        carried_out.map(StoreReply::CarriedOut)
    }

    /// Reads everything of a mail, to find out whether it can be read.
    fn read_all(&self, id: MailId) -> rusqlite::Result<()> {
        messages::read_all(&self.connection, &self.large.pool, id)
    }

    /// Returns the ids without mail that a server has taken.
    fn untaken(&self, ids: &[MailId]) -> rusqlite::Result<Vec<MailId>> {
        if !stuck::exists(&self.connection)? {
            return Ok(ids.to_vec());
        }
        let untaken = |id: &MailId| match stuck::contains(&self.connection, *id) {
            Ok(true) => None,
            Ok(false) => Some(Ok(*id)),
            Err(error) => Some(Err(error)),
        };
        ids.iter().filter_map(untaken).collect()
    }

    /// Returns whether the row of a claimed message holds other data now.
    fn has_other_data(&self, id: MailId) -> rusqlite::Result<bool> {
        Ok(self.fingerprints.changed(&self.connection, id, Compared::Message, self.version()?)?.is_some())
    }

    /// Runs `read` on one state of the database. Cancelling the token interrupts it, because a read loses nothing.
    fn in_read_transaction<T>(
        &mut self,
        read: impl FnOnce(&mut Self) -> rusqlite::Result<T>,
    ) -> rusqlite::Result<T> {
        if self.is_in_transaction() {
            return read(self);
        }
        let answer = self.begin_read().and_then(|()| read(self));
        let end = self.end_read();
        let answer = answer?;
        end.map(|()| answer)
    }

    /// Begins a transaction that all reads share until [`end_shared_read`](Self::end_shared_read). If that fails, each request
    /// reports its own error.
    pub(super) fn begin_shared_read(&mut self) {
        if self.ensure_open().is_ok() && self.begin_read().is_err() {
            self.end_shared_read();
        }
    }

    /// Ends the transaction of [`begin_shared_read`](Self::begin_shared_read), if it is still open.
    pub(super) fn end_shared_read(&mut self) {
        if let Err(error) = self.end_read() {
            log::warn!("cannot end a read of the database {}: {error}", self.path().display());
        }
    }

    fn begin_read(&mut self) -> rusqlite::Result<()> {
        let cancel = self.cancel_token();
        allow_interruption(&mut self.connection, &cancel)?;
        self.connection.execute_batch("BEGIN DEFERRED")
    }

    /// Rolls back, because a read transaction has nothing to lose. SQLite may have ended it already, after an error.
    fn end_read(&mut self) -> rusqlite::Result<()> {
        forbid_interruption(&mut self.connection)?;
        if self.is_in_transaction() { self.connection.execute_batch("ROLLBACK") } else { Ok(()) }
    }

    fn is_in_transaction(&self) -> bool {
        !self.connection.is_autocommit()
    }

    fn commit(&mut self, mut commit: Commit) -> rusqlite::Result<StoreReply> {
        if commit.is_empty() {
            return Ok(StoreReply::Committed(Committed::default()));
        }
        if commit.has_no_verdict() && commit.flights.is_empty() {
            let lacks_policies = !self.store_policies(&commit);
            return Ok(StoreReply::Committed(Committed { lacks_policies, ..Committed::default() }));
        }
        let recorded = match self.commit_together(&commit) {
            Ok(recorded) => recorded,
            Err(error) => self.commit_otherwise(&mut commit, error)?,
        };
        commit.flights.clear();
        if commit.has_no_verdict() {
            return Ok(StoreReply::Committed(recorded));
        }
        let refused: HashSet<MailId> = recorded.refused.iter().map(|refused| refused.id).collect();
        let decided: Vec<MailId> = commit.ids().filter(|id| !refused.contains(id)).collect();
        commit.delivered.retain(|mail| !refused.contains(&mail.id));
        commit.failed.retain(|attempt| !refused.contains(&attempt.id));
        commit.replaced.retain(|replacement| !replacement.originals.iter().any(|id| refused.contains(id)));
        let fingerprints = self.fingerprints.take(&commit);
        self.remember(commit, fingerprints);
        // Also of mail whose bounce others keep from being made: it is read again.
        self.fingerprints.forget(decided);
        Ok(StoreReply::Committed(recorded))
    }

    /// Stores policies, and returns whether it could. No lock is waited for, since other mail would wait meanwhile.
    fn store_policies(&mut self, commit: &Commit) -> bool {
        match self.without_waiting(|database| database.commit_together(commit)) {
            Ok(Committed { lacks_policies, .. }) => !lacks_policies,
            Err(error) => {
                self.ledger.forget();
                self.notes.policies.tell(&self.connection, &error);
                false
            }
        }
    }

    /// Records what could not be recorded together: without what is to be noted of flights and policies, which may be in the way, or apart.
    fn commit_otherwise(
        &mut self,
        commit: &mut Commit,
        error: rusqlite::Error,
    ) -> rusqlite::Result<Committed> {
        self.ledger.forget();
        let trouble = trouble(&self.connection, &error);
        let is_about_a_row = trouble.is_about_a_row();
        // There may be room to delete mail, and none to note more.
        let is_full = trouble == StoreTrouble::Full && !commit.has_no_verdict();
        let has_notes = !commit.flights.is_empty() || !commit.policies.is_empty();
        if has_notes && (is_about_a_row || is_full) {
            let flights = std::mem::take(&mut commit.flights);
            let policies = std::mem::take(&mut commit.policies);
            let (is_unmarked, lacks_policies) = (!flights.is_empty(), !policies.is_empty());
            match self.commit_together(commit) {
                Ok(recorded) => return Ok(Committed { is_unmarked, lacks_policies, ..recorded }),
                Err(error) if !is_about_a_row => return Err(error),
                // A verdict is in the way.
                Err(_) => {
                    self.ledger.forget();
                    commit.flights = flights;
                    commit.policies = policies;
                }
            }
        }
        if is_about_a_row { self.commit_apart(commit) } else { Err(error) }
    }

    /// Deletes entries of the ledger that are too old or too many, orders that are done for as long, and what is known of mail that is
    /// gone; a limited number of them. Without success they are deleted later.
    pub(super) fn prune(&mut self) {
        if self.ensure_open().is_err() {
            return;
        }
        let Self { connection, ledger, pruner, additions, .. } = self;
        let mut within_transaction = |act: &mut dyn FnMut(&Connection) -> rusqlite::Result<()>| {
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            act(&transaction)?;
            transaction.commit()
        };
        let pruned = within_transaction(&mut |connection| ledger.prune(connection));
        if pruned.is_err() {
            ledger.forget();
        }
        let oldest = ledger.oldest();
        // Its tables may be in trouble that does not concern the ledger.
        let pruned = pruned.and(if additions.has_order_tables {
            within_transaction(&mut |connection| pruner.prune(connection, oldest))
        } else {
            Ok(())
        });
        if let Err(error) = pruned {
            log::debug!("cannot delete what is old in the database {}: {error}", self.path().display());
        }
    }

    pub(super) fn commit_together(&mut self, commit: &Commit) -> rusqlite::Result<Committed> {
        // Before the database is locked, because large originals take time.
        let bounces = compose_bounces(commit);
        let version = self.version;
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let version = version.within(&transaction)?;
        let mut recorded =
            record(&transaction, commit, bounces, &self.fingerprints, version, &mut self.ledger)?;
        recorded.is_unmarked = !self.notes.flights.note(&transaction, &commit.flights, &mut self.ledger)?;
        recorded.lacks_policies = !self.notes.policies.note(&transaction, &commit.policies)?;
        if self.ledger.wants_pruning() {
            self.ledger.prune(&transaction)?;
        }
        transaction.commit()?;
        Ok(recorded)
    }
}

#[cfg(test)]
mod tests;
