//! What the refusals of a candidate are about: its connections, or the mail.
//!
//! Some servers take so many messages on a connection, and refuse each further one until there is a new connection. Others refuse
//! one mail in the same words. Which it is only a new connection shows: the mail that was refused goes first there, and until it is
//! answered no other connection is opened. A connection that has taken nothing has nothing to be tired of, so what it refuses is
//! the mail. And a server that refuses one mail after the other is left alone.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use crate::io::ConnectionId;
use crate::outbox::MailId;
use crate::session::RefusalKind;

/// After so many mails in a row that were refused, or connections that came to nothing, a candidate is left alone for the pass.
const REFUSALS_LIMIT: u32 = 3;

/// What is known of the connections to one candidate in one pass.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    merits: BTreeMap<ConnectionId, Merit>,
    front: Front,
    /// The connection on which a mail went first that another had refused, and that mail.
    retrial: Option<(ConnectionId, MailId)>,
    /// The connection that has refused such a mail again: if it takes another, the refusal was about the mail.
    repeated_on: Option<ConnectionId>,
    /// True if that has happened, so that refusals are taken at their word.
    are_believed: bool,
    /// True if the candidate has taken mail in this pass.
    has_taken: bool,
    /// How many mails were refused, or connections came to nothing, since it has taken one.
    in_a_row: u32,
    /// The mail that was counted last.
    counted: Option<MailId>,
}

/// What a connection has been good for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
enum Merit {
    #[default]
    Nothing,
    /// It has decided mail, and taken none.
    Decided,
    /// It has taken a message.
    Taken,
}

/// The mail that goes first on the next connection.
#[derive(Debug, Default, PartialEq, Eq)]
enum Front {
    #[default]
    Empty,
    /// It waits for a connection.
    Waiting(Vec<MailId>),
    /// This connection is for it, which has got it as soon as there is none here.
    Opened(ConnectionId, Vec<MailId>),
}

/// What follows from a refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ruling {
    /// It is the verdict of the mail.
    Verdict,
    /// It decides nothing: the connection is left, and the mail is to go first on another.
    Leave,
}

impl Refusals {
    /// A connection to the candidate is being made.
    pub(super) fn open(&mut self, connection: ConnectionId) {
        self.merits.insert(connection, Merit::Nothing);
        self.front = match core::mem::take(&mut self.front) {
            Front::Waiting(ids) => {
                self.retrial = ids.first().map(|&id| (connection, id));
                Front::Opened(connection, ids)
            }
            front @ (Front::Empty | Front::Opened(..)) => front,
        };
    }

    /// A connection has taken a message.
    pub(super) fn take(&mut self, connection: ConnectionId) {
        self.answer(connection, Merit::Taken);
        self.are_believed |= self.repeated_on.take_if(|on| *on == connection).is_some();
        self.has_taken = true;
        if !self.are_too_many() {
            self.in_a_row = 0;
            self.counted = None;
        }
    }

    /// A connection has decided a mail by a reply that is about it.
    pub(super) fn decide(&mut self, connection: ConnectionId) {
        self.answer(connection, Merit::Decided);
    }

    /// A connection has refused a mail in a way that may be about the connection. Says what follows.
    pub(super) fn refuse(&mut self, connection: ConnectionId, mail: MailId, kind: RefusalKind) -> Ruling {
        let merit = self.answer(connection, Merit::Nothing);
        let ruling = match (kind, merit) {
            (RefusalKind::Closing, _) | (RefusalKind::OutOfStep, Merit::Decided | Merit::Taken) => {
                Ruling::Leave
            }
            (RefusalKind::NotNow, Merit::Taken) if !self.are_believed => Ruling::Leave,
            (RefusalKind::NotNow | RefusalKind::OutOfStep | RefusalKind::ClosingAtEnd, _) => Ruling::Verdict,
        };
        // One that comes while another mail is being tried again, or ends a connection that came to nothing, counts there.
        let counts = match ruling {
            Ruling::Verdict => {
                self.answer(connection, Merit::Decided);
                self.repeated_on =
                    self.repeated_on.or(self.is_retrial(connection, mail).then_some(connection));
                true
            }
            Ruling::Leave => !self.is_retrying() && merit > Merit::Nothing,
        };
        if counts && self.counted != Some(mail) {
            self.counted = Some(mail);
            self.in_a_row = self.in_a_row.saturating_add(1);
        }
        ruling
    }

    /// These are to go first on the next connection. Returns them if others are.
    pub(super) fn put_first(&mut self, ids: Vec<MailId>) -> Vec<MailId> {
        if self.is_retrying() {
            return ids;
        }
        self.front = Front::Waiting(ids);
        Vec::new()
    }

    /// Takes the mail that goes first on this connection.
    pub(super) fn take_first(&mut self, connection: ConnectionId) -> Vec<MailId> {
        match &mut self.front {
            Front::Opened(opened, ids) if *opened == connection => core::mem::take(ids),
            Front::Empty | Front::Waiting(_) | Front::Opened(..) => Vec::new(),
        }
    }

    /// Returns what is to go first on another connection.
    pub(super) fn first(&self) -> &[MailId] {
        match &self.front {
            Front::Empty => &[],
            Front::Waiting(ids) | Front::Opened(_, ids) => ids,
        }
    }

    /// Takes back what was to go first.
    pub(super) fn take_back(&mut self) -> Vec<MailId> {
        match core::mem::take(&mut self.front) {
            Front::Empty => Vec::new(),
            Front::Waiting(ids) | Front::Opened(_, ids) => ids,
        }
    }

    /// A connection that has got mail to go first gives it back, as it has not begun. Returns what others are waiting for.
    pub(super) fn return_first(&mut self, connection: ConnectionId, ids: Vec<MailId>) -> Vec<MailId> {
        match &mut self.front {
            Front::Opened(opened, first) if *opened == connection && first.is_empty() => {
                *first = ids;
                Vec::new()
            }
            Front::Empty | Front::Waiting(_) | Front::Opened(..) => ids,
        }
    }

    /// A connection has ended: what was to go first there waits for another. Says whether it was good for nothing.
    pub(super) fn end(&mut self, connection: ConnectionId) -> bool {
        let ids = self.take_first(connection);
        let merit = self.answer(connection, Merit::Nothing);
        if !ids.is_empty() {
            self.front = Front::Waiting(ids);
        }
        self.repeated_on.take_if(|on| *on == connection);
        self.merits.remove(&connection);
        merit == Merit::Nothing
    }

    /// The last connection was lost, and was good for nothing.
    pub(super) fn lose(&mut self) {
        self.in_a_row = self.in_a_row.saturating_add(1);
    }

    /// What is done from now on is another pass, over the same connections.
    pub(super) fn begin_pass(&mut self) {
        *self = Self { merits: core::mem::take(&mut self.merits), ..Self::default() };
    }

    /// Returns whether mail waits for a connection of its own.
    pub(super) fn is_waiting(&self) -> bool {
        matches!(self.front, Front::Waiting(_))
    }

    /// Returns whether a mail that was refused goes first on a new connection, and is not answered yet.
    pub(super) fn is_retrying(&self) -> bool {
        self.front != Front::Empty
    }

    /// Returns whether the candidate has taken mail in this pass.
    pub(super) fn has_taken(&self) -> bool {
        self.has_taken
    }

    /// Returns whether the candidate is left alone for the rest of the pass.
    pub(super) fn are_too_many(&self) -> bool {
        self.in_a_row >= REFUSALS_LIMIT
    }

    fn is_retrial(&self, connection: ConnectionId, mail: MailId) -> bool {
        self.retrial == Some((connection, mail))
    }

    /// A connection has answered what it was given first, and has at least this merit. Returns the merit that it had.
    fn answer(&mut self, connection: ConnectionId, merit: Merit) -> Merit {
        if matches!(&self.front, Front::Opened(opened, ids) if *opened == connection && ids.is_empty()) {
            self.front = Front::Empty;
        }
        let found = self.merits.entry(connection).or_default();
        core::mem::replace(found, merit.max(*found))
    }
}

#[cfg(test)]
mod tests;
