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
    /// Whether that has happened, so that refusals are taken at their word.
    are_believed: bool,
    /// Whether the candidate has taken mail in this pass.
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

    /// Whether mail waits for a connection of its own.
    pub(super) fn is_waiting(&self) -> bool {
        matches!(self.front, Front::Waiting(_))
    }

    /// Whether a mail that was refused goes first on a new connection, and is not answered yet.
    pub(super) fn is_retrying(&self) -> bool {
        self.front != Front::Empty
    }

    /// Whether the candidate has taken mail in this pass.
    pub(super) fn has_taken(&self) -> bool {
        self.has_taken
    }

    /// Whether the candidate is left alone for the rest of the pass.
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
mod tests {
    use super::*;
    use RefusalKind::{Closing, ClosingAtEnd, NotNow, OutOfStep};
    use proptest::prelude::*;

    const FIRST: ConnectionId = ConnectionId(0);
    const SECOND: ConnectionId = ConnectionId(2);
    const KINDS: [RefusalKind; 4] = [NotNow, OutOfStep, Closing, ClosingAtEnd];

    fn with_connection(lead: impl FnOnce(&mut Refusals)) -> Refusals {
        let mut refusals = Refusals::default();
        refusals.open(FIRST);
        lead(&mut refusals);
        refusals
    }

    #[test]
    fn what_follows_hangs_on_what_the_connection_was_good_for() {
        let rulings =
            |lead: fn(&mut Refusals)| KINDS.map(|kind| with_connection(lead).refuse(FIRST, MailId(1), kind));
        let (verdict, leave) = (Ruling::Verdict, Ruling::Leave);
        assert_eq!(rulings(|_| ()), [verdict, verdict, leave, verdict], "nothing");
        assert_eq!(rulings(|refusals| refusals.decide(FIRST)), [verdict, leave, leave, verdict], "refusals");
        assert_eq!(rulings(|refusals| refusals.take(FIRST)), [leave, leave, leave, verdict], "a message");
    }

    /// Mail 1 is refused by a connection that has taken another, and goes first on a second one.
    fn retry() -> Refusals {
        let mut refusals = with_connection(|refusals| refusals.take(FIRST));
        assert_eq!(refusals.refuse(FIRST, MailId(1), NotNow), Ruling::Leave);
        assert_eq!(refusals.put_first([MailId(1)].into()), []);
        assert!(refusals.is_waiting());
        refusals.open(SECOND);
        assert_eq!(refusals.take_first(SECOND), [MailId(1)]);
        assert!(refusals.is_retrying() && !refusals.is_waiting());
        refusals
    }

    #[test]
    fn a_new_connection_that_takes_the_mail_shows_that_it_was_the_connection() {
        let mut refusals = retry();
        refusals.take(SECOND);
        assert!(!refusals.is_retrying());
        assert_eq!(refusals.refuse(SECOND, MailId(2), NotNow), Ruling::Leave);
    }

    #[test]
    fn a_new_connection_that_refuses_the_mail_and_takes_another_shows_that_it_was_the_mail() {
        let mut refusals = retry();
        assert_eq!(refusals.refuse(SECOND, MailId(1), NotNow), Ruling::Verdict);
        refusals.take(SECOND);
        assert_eq!(refusals.refuse(SECOND, MailId(2), NotNow), Ruling::Verdict);
        // What closes the connection or has lost the thread is no word about the mail.
        assert_eq!(refusals.refuse(SECOND, MailId(2), OutOfStep), Ruling::Leave);
    }

    #[test]
    fn what_another_connection_takes_shows_nothing() {
        let mut refusals = retry();
        assert_eq!(refusals.refuse(SECOND, MailId(1), NotNow), Ruling::Verdict);
        refusals.take(FIRST);
        assert_eq!(refusals.refuse(FIRST, MailId(2), NotNow), Ruling::Leave);
    }

    #[test]
    fn only_one_mail_goes_first() {
        let mut refusals = retry();
        refusals.open(FIRST);
        refusals.take(FIRST);
        assert_eq!(refusals.refuse(FIRST, MailId(2), NotNow), Ruling::Leave);
        assert_eq!(refusals.put_first([MailId(2)].into()), [MailId(2)]);
    }

    #[test]
    fn mail_that_a_connection_has_not_begun_goes_first_on_the_next() {
        let mut refusals = retry();
        assert_eq!(refusals.return_first(FIRST, [MailId(7)].into()), [MailId(7)], "it was not for this one");
        assert_eq!(refusals.return_first(SECOND, [MailId(1)].into()), []);
        assert!(refusals.end(SECOND), "it was good for nothing");
        assert!(refusals.is_waiting());
        refusals.open(FIRST);
        assert_eq!(refusals.take_first(FIRST), [MailId(1)]);
    }

    #[test]
    fn three_mails_in_a_row_are_too_many_and_the_same_one_is_one() {
        let mut refusals = retry();
        for (mail, are_too_many) in [(1, false), (1, false), (2, false), (3, true)] {
            assert_eq!(refusals.refuse(SECOND, MailId(mail), NotNow), Ruling::Verdict);
            assert_eq!(refusals.are_too_many(), are_too_many, "mail {mail}");
        }
        refusals.take(SECOND);
        assert!(refusals.are_too_many(), "that stays so for the pass");
    }

    #[test]
    fn a_connection_that_came_to_nothing_counts_once() {
        let mut refusals = retry();
        // By 421, before it has decided anything.
        assert_eq!(refusals.refuse(SECOND, MailId(1), Closing), Ruling::Leave);
        assert!(refusals.end(SECOND));
        refusals.lose();
        assert!(!refusals.are_too_many(), "the mail, and a connection");
        refusals.lose();
        assert!(refusals.are_too_many());
    }

    #[test]
    fn what_is_taken_between_ends_the_row() {
        let mut refusals = with_connection(|_| ());
        for mail in 1..10 {
            refusals.refuse(FIRST, MailId(mail), NotNow);
            if mail % 2 == 0 {
                refusals.take(FIRST);
            }
        }
        assert!(!refusals.are_too_many());
    }

    #[test]
    fn another_pass_knows_only_what_its_connections_were_good_for() {
        let mut refusals = retry();
        refusals.take_back();
        refusals.begin_pass();
        assert!(!refusals.has_taken() && !refusals.is_retrying() && !refusals.are_too_many());
        assert_eq!(refusals.refuse(FIRST, MailId(1), NotNow), Ruling::Leave);
    }

    proptest! {
        /// Whatever happens, what goes first comes back once.
        #[test]
        fn no_mail_is_forgotten(steps in prop::collection::vec((0..7_u8, 0..3_u64, 0..4_usize), 0..60)) {
            let mut refusals = Refusals::default();
            let (mut held, mut mail) = (Vec::new(), 0);
            let give_back = |held: &mut Vec<MailId>, ids: Vec<MailId>| {
                held.retain(|id| !ids.contains(id));
            };
            for (step, connection, kind) in steps {
                let connection = ConnectionId(connection * 2);
                match step {
                    0 => refusals.open(connection),
                    1 => refusals.take(connection),
                    2 => refusals.decide(connection),
                    3 => {
                        mail += 1;
                        if refusals.refuse(connection, MailId(mail), KINDS[kind]) == Ruling::Leave {
                            held.push(MailId(mail));
                            let back = refusals.put_first([MailId(mail)].into());
                            give_back(&mut held, back);
                        }
                    }
                    4 => {
                        let ids = refusals.take_first(connection);
                        give_back(&mut held, ids);
                    }
                    5 => {
                        refusals.end(connection);
                    }
                    _ => {
                        let ids = refusals.take_back();
                        give_back(&mut held, ids);
                    }
                }
            }
            let ids = refusals.take_back();
            give_back(&mut held, ids);
            prop_assert_eq!(held, []);
        }
    }
}
