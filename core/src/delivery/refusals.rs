//! Decides whether the refusals of a candidate concern its connections or the mail.
//!
//! Some servers take a limited number of messages on a connection, and refuse each further one until there is a new connection.
//! Others refuse one mail in the same words. Only a new connection shows which it is: the refused mail goes first there, and
//! until it is answered no other connection is opened. A connection that has taken nothing has not reached a limit, so what it
//! refuses is the mail. And a server that refuses one mail after the other is left alone.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use crate::io::ConnectionId;
use crate::outbox::MailId;
use crate::session::RefusalKind;

/// After this many consecutive refused mails, or useless connections, a candidate is left alone for the pass.
const REFUSALS_LIMIT: u32 = 3;

/// What is known of the connections to one candidate in one pass.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    merits: BTreeMap<ConnectionId, Merit>,
    front: Front,
    /// The connection on which a refused mail goes first, and that mail.
    retrial: Option<(ConnectionId, MailId)>,
    /// The connection that has refused such a mail again. If it takes another, the refusal concerned the mail.
    repeated_on: Option<ConnectionId>,
    /// True if that has happened, so that refusals are the verdict of the mail from then on.
    are_believed: bool,
    /// True if the candidate has taken mail in this pass.
    has_taken: bool,
    /// The number of refused mails and useless connections since the candidate has taken a mail.
    in_a_row: u32,
    /// The mail that was counted last.
    counted: Option<MailId>,
}

/// The achievements of a connection.
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
    /// This connection is for it. The list is empty once the connection has received the mail.
    Opened(ConnectionId, Vec<MailId>),
}

/// The consequence of a refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ruling {
    /// It is the verdict of the mail.
    Verdict,
    /// It decides nothing. The connection is left, and the mail goes first on another.
    Leave,
}

impl Refusals {
    /// Records that a connection to the candidate is being made.
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

    /// Records that a connection has taken a message.
    pub(super) fn take(&mut self, connection: ConnectionId) {
        self.answer(connection, Merit::Taken);
        self.are_believed |= self.repeated_on.take_if(|on| *on == connection).is_some();
        self.has_taken = true;
        if !self.are_too_many() {
            self.in_a_row = 0;
            self.counted = None;
        }
    }

    /// Records that a connection has decided a mail by a reply that concerns it.
    pub(super) fn decide(&mut self, connection: ConnectionId) {
        self.answer(connection, Merit::Decided);
    }

    /// Records that a connection has refused a mail in a way that may concern the connection. Returns the consequence.
    pub(super) fn refuse(&mut self, connection: ConnectionId, mail: MailId, kind: RefusalKind) -> Ruling {
        let merit = self.answer(connection, Merit::Nothing);
        let ruling = match (kind, merit) {
            (RefusalKind::Closing, _) | (RefusalKind::OutOfStep, Merit::Decided | Merit::Taken) => {
                Ruling::Leave
            }
            (RefusalKind::NotNow, Merit::Taken) if !self.are_believed => Ruling::Leave,
            (RefusalKind::NotNow | RefusalKind::OutOfStep | RefusalKind::ClosingAtEnd, _) => Ruling::Verdict,
        };
        // A refusal while another mail is being retried, or one that ends a useless connection, is counted there.
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

    /// Lets this mail go first on the next connection. Returns it if other mail already does.
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

    /// Returns the mail that is to go first on another connection.
    pub(super) fn first(&self) -> &[MailId] {
        match &self.front {
            Front::Empty => &[],
            Front::Waiting(ids) | Front::Opened(_, ids) => ids,
        }
    }

    /// Takes back the mail that was to go first.
    pub(super) fn take_back(&mut self) -> Vec<MailId> {
        match core::mem::take(&mut self.front) {
            Front::Empty => Vec::new(),
            Front::Waiting(ids) | Front::Opened(_, ids) => ids,
        }
    }

    /// Takes back mail that was to go first but has not begun on its connection. Returns the mail that was not.
    pub(super) fn return_first(&mut self, connection: ConnectionId, ids: Vec<MailId>) -> Vec<MailId> {
        match &mut self.front {
            Front::Opened(opened, first) if *opened == connection && first.is_empty() => {
                *first = ids;
                Vec::new()
            }
            Front::Empty | Front::Waiting(_) | Front::Opened(..) => ids,
        }
    }

    /// Forgets a connection that has ended. Mail that was to go first there waits for another. Returns whether the connection was
    /// useless.
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

    /// Counts the last connection, which was lost and useless.
    pub(super) fn lose(&mut self) {
        self.in_a_row = self.in_a_row.saturating_add(1);
    }

    /// Begins another pass over the same connections.
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

    /// Records that a connection has answered its first mail, and has at least this merit. Returns the merit that it had before.
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
