//! An outbox in memory that answers every [`StoreRequest`] as [`outbox`](crate::outbox) specifies: for examples, tests and
//! simulations, and for programs that keep their mail themselves. Its mail is lost when the process ends.
//!
//! ```
//! use cmail_delivery::memory_outbox::{Mail, MemoryOutbox};
//! use cmail_delivery::outbox::{Cursor, Scanned, StoreReply, StoreRequest};
//! use cmail_delivery::time::UnixTime;
//!
//! let mut outbox = MemoryOutbox::new();
//! let mail = Mail::new("alice@example.org", "bob@example.net", "Subject: hello\n\nhello\n", UnixTime(1_700_000_000));
//! let id = outbox.insert(mail)?;
//! // What a dispatcher asks first; `Input::Store` takes the answer to it.
//! let answer = outbox.answer(StoreRequest::Scan { after: Cursor::BeforeFirst, limit: 100 })?;
//! assert!(matches!(answer, StoreReply::Scanned(Scanned { rows, .. }) if rows[0].id == id));
//! # Ok::<(), cmail_delivery::outbox::StoreError>(())
//! ```

mod commit;
mod flight_book;
mod order_book;
mod read;
#[cfg(test)]
mod tests;

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use bytes::Bytes;

pub use self::flight_book::FlightBook;
pub use self::order_book::{GivenOrder, OrderBook};
use crate::address::Domain;
use crate::dsn::DsnWishes;
use crate::failure_pattern::LastFailure;
use crate::flight::{FoundFlight, Uncertain};
use crate::hold::{Hold, HoldId};
use crate::order::{CarriedOut, OrderId, OrderStep};
use crate::outbox::{
    CLAIM_BUDGET_OCTETS, FAILED_BUDGET_OCTETS, FailState, FaillogRow, MailId, PolicyNote, Row, StoreError,
    StoreReply, StoreRequest, StoreTrouble, is_null_path,
};
use crate::shown::shortened_octets;
use crate::sts::{StalePolicy, StoredPolicy};
use crate::time::UnixTime;

/// A row of the outbox with its faillog.
#[derive(Clone, PartialEq, Eq)]
pub struct Mail {
    /// `mail_remote`: the relay; `None` if the mail goes by the MX of its recipient's domain.
    pub remote: Option<Bytes>,
    /// `mail_envelopefrom`; `None` is the null reverse-path.
    pub sender: Option<Bytes>,
    /// `mail_envelopeto`.
    pub recipient: Bytes,
    /// `mail_submission`.
    pub submission: UnixTime,
    /// `mail_data`.
    pub data: Bytes,
    /// Its failed attempts, oldest first.
    pub faillog: Vec<FaillogRow>,
    /// The last one that was recorded, and its time. It counts only as long as it is the latest one of the faillog: of others, their
    /// [text tells](LastFailure::of_text).
    pub last_failure: Option<(UnixTime, LastFailure)>,
    /// What is known of its holds.
    pub hold: Hold,
    /// What its sender wants to be told of it.
    pub wishes: DsnWishes,
}

impl Mail {
    /// Returns mail that goes by MX and was never tried. An empty sender is the null reverse-path.
    pub fn new(sender: &str, recipient: &str, data: impl Into<Bytes>, submission: UnixTime) -> Self {
        let octets = |text: &str| Bytes::copy_from_slice(text.as_bytes());
        Self {
            remote: None,
            sender: Some(octets(sender)).filter(|sender| !is_null_path(sender)),
            recipient: octets(recipient),
            submission,
            data: data.into(),
            faillog: Vec::new(),
            last_failure: None,
            hold: Hold::default(),
            wishes: DsnWishes::default(),
        }
    }

    /// Returns the reverse-path; `None` is the null path, however it is written.
    fn reverse_path(&self) -> Option<&Bytes> {
        self.sender.as_ref().filter(|sender| !is_null_path(sender))
    }

    /// Returns the summary of its faillog.
    pub fn fail_state(&self, id: MailId) -> FailState {
        FailState {
            id,
            fail_count: u32::try_from(self.faillog.len()).unwrap_or(u32::MAX),
            last_try: self.faillog.iter().map(|attempt| attempt.time).max().unwrap_or_default(),
            fatal: self.faillog.iter().any(|attempt| attempt.fatal),
        }
    }

    /// Returns the row that a scan reports.
    pub fn row(&self, id: MailId) -> Row {
        let FailState { fail_count, last_try, fatal, .. } = self.fail_state(id);
        Row {
            id,
            remote: self.remote.clone(),
            sender: self.reverse_path().cloned(),
            recipient: self.recipient.clone(),
            submission: self.submission,
            data_octets: self.data.len() as u64,
            fail_count,
            last_try,
            fatal,
            last_failure: self.faillog.last().map(|failed| match self.last_failure {
                Some((at, failure)) if at == last_try => failure,
                Some(_) | None => LastFailure::of_text(&failed.text),
            }),
            hold: self.hold,
            wishes: self.wishes.clone(),
        }
    }
}

impl fmt::Debug for Mail {
    /// Leaves out the message and `mail_remote`, which may contain a password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mail")
            .field("remote", &self.remote.as_ref().map(|_| "hidden"))
            .field("sender", &self.sender)
            .field("recipient", &self.recipient)
            .field("submission", &self.submission)
            .field("data_octets", &self.data.len())
            .field("faillog", &self.faillog)
            .field("hold", &self.hold)
            .finish()
    }
}

/// A defect of one row, as damage or a trigger of another program causes it in a database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flaw {
    /// It cannot be read. A scan only finds that it exists.
    Unreadable,
    /// A scan reads it, and nothing else can: not the message either.
    DataUnreadable,
    /// Nothing can be recorded for it. If a server takes it, that is noted beside it, and it is not handed out again.
    Unrecordable,
    /// Nothing can be recorded for it, nor noted beside it.
    Unnotable,
}

impl Flaw {
    /// Returns whether a mail with this flaw can be claimed, recalled, and read for a bounce.
    fn is_readable(self) -> bool {
        matches!(self, Self::Unrecordable | Self::Unnotable)
    }
}

/// An outbox in memory.
///
/// Calls other than [`answer`](Self::answer) stand for other programs that write to a database at any time. Report them to the
/// dispatcher by [`Input::OutboxChanged`](crate::io::Input::OutboxChanged), or let it find them within
/// [`interval`](crate::settings::Settings::interval).
#[derive(Clone, Debug, Default)]
pub struct MemoryOutbox {
    mails: BTreeMap<MailId, Stored>,
    /// The highest id that was ever given, so that ids are not reused.
    highest: i64,
    data_version: i64,
    /// The contents of mail, apart from its faillog, when it was claimed, recalled, or read for a bounce, as long as it is held.
    held: BTreeMap<MailId, Mail>,
    /// The contents of mail that servers have taken and that could not be deleted, apart from its faillog.
    taken: BTreeMap<MailId, Mail>,
    orders: OrderBook,
    flights: FlightBook,
    policies: BTreeMap<Domain, StoredPolicy>,
    budget_octets: Option<usize>,
}

#[derive(Clone, Debug)]
struct Stored {
    mail: Mail,
    flaw: Option<Flaw>,
}

impl MemoryOutbox {
    /// Returns an empty outbox.
    pub fn new() -> Self {
        Self::default()
    }

    /// Answers a request. A request that fails has no effect.
    pub fn answer(&mut self, request: StoreRequest) -> Result<StoreReply, StoreError> {
        Ok(match request {
            StoreRequest::Scan { after, limit } => self.scan(after, limit),
            StoreRequest::Claim { ids, transactions, recipients, signing } => {
                self.claim(&ids, transactions, recipients, signing.as_ref())
            }
            StoreRequest::ReadData { id, offset, limit } => {
                StoreReply::Data(self.read_data(id, offset, limit)?)
            }
            StoreRequest::Commit(commit) => self.commit(commit),
            StoreRequest::ReadFailed { ids, original_limit_octets } => {
                self.read_failed(&ids, original_limit_octets)
            }
            StoreRequest::Recall { ids } => self.recall(&ids),
            StoreRequest::Recover { uncertain } => StoreReply::Recovered(self.recover(uncertain)),
            StoreRequest::ReadOrders { known, .. } => {
                StoreReply::Orders(self.orders.read(&known, |id| self.mails.contains_key(id)))
            }
            StoreRequest::CarryOut(step) => StoreReply::CarriedOut(self.carry_out(&step)),
            StoreRequest::ReadPolicy(domain) => StoreReply::Policy(self.policies.get(&domain).cloned()),
            StoreRequest::ReadStalePolicies { now, limit } => {
                StoreReply::StalePolicies(self.stale_policies(now, limit))
            }
        })
    }

    /// Keeps an MTA-STS policy instead of any other of its domain.
    pub fn put_policy(&mut self, policy: StoredPolicy) {
        self.policies.insert(policy.domain.clone(), policy);
    }

    /// Forgets the MTA-STS policy of a domain. Returns it.
    pub fn remove_policy(&mut self, domain: &Domain) -> Option<StoredPolicy> {
        self.policies.remove(domain)
    }

    /// Returns the MTA-STS policies that are kept.
    pub fn policies(&self) -> impl Iterator<Item = &StoredPolicy> {
        self.policies.values()
    }

    fn stale_policies(&self, now: UnixTime, limit: u32) -> Vec<StalePolicy> {
        let mut stale: Vec<&StoredPolicy> =
            self.policies.values().filter(|stored| stored.is_stale(now)).collect();
        stale.sort_by_key(|stored| stored.fetched);
        stale.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
        let told =
            |stored: &StoredPolicy| StalePolicy { domain: stored.domain.clone(), max_age: stored.max_age() };
        stale.into_iter().map(told).collect()
    }

    fn note_policies(&mut self, notes: Vec<PolicyNote>) {
        for note in notes {
            match note {
                PolicyNote::Fetched(stored) => self.put_policy(stored),
                PolicyNote::Used(domain, at) => {
                    if let Some(stored) = self.policies.get_mut(&domain) {
                        stored.used = stored.used.max(at);
                    }
                }
            }
        }
    }

    /// Carries out an [`Output::Release`](crate::io::Output::Release). Mail that is not held stays as it is.
    pub fn release(&mut self, ids: &[MailId]) {
        for id in ids {
            self.held.remove(id);
        }
    }

    /// Returns the mail that is [held](crate::outbox#what-is-held), in ascending order of ids.
    pub fn held(&self) -> impl Iterator<Item = MailId> {
        self.held.keys().copied()
    }

    /// Returns whether a mail is held.
    pub fn is_held(&self, id: MailId) -> bool {
        self.held.contains_key(&id)
    }

    /// Returns a held mail as it was when it was read, without its faillog.
    pub fn held_mail(&self, id: MailId) -> Option<&Mail> {
        self.held.get(&id)
    }

    /// Releases all mail, because the dispatcher that held it has ended.
    pub fn release_all(&mut self) {
        self.held.clear();
    }

    /// Asserts that a request may be made, given what is [held](crate::outbox#what-is-held): to be called by tests, fuzzers and
    /// simulators before the request is answered.
    ///
    /// # Panics
    ///
    /// If the request asks for mail that is held already, or records a verdict on mail that is not.
    #[track_caller]
    pub fn check(&self, request: &StoreRequest) {
        let mut seen = BTreeSet::new();
        match request {
            StoreRequest::Claim { ids, .. }
            | StoreRequest::Recall { ids }
            | StoreRequest::ReadFailed { ids, .. } => {
                for id in ids {
                    assert!(!self.held.contains_key(id), "mail {id} is asked for, and held already");
                    assert!(seen.insert(*id), "mail {id} is asked for twice");
                }
            }
            StoreRequest::Commit(commit) => {
                for id in commit.claims() {
                    assert!(self.held.contains_key(&id), "a verdict on mail {id}, which is not held");
                    assert!(seen.insert(id), "two verdicts on mail {id}");
                }
            }
            StoreRequest::CarryOut(step) => {
                for id in &step.mails {
                    assert!(
                        !self.held.contains_key(id),
                        "an order is carried out on mail {id}, which is held"
                    );
                    assert!(seen.insert(*id), "an order is carried out on mail {id} twice in one step");
                }
            }
            StoreRequest::Scan { .. }
            | StoreRequest::ReadData { .. }
            | StoreRequest::ReadOrders { .. }
            | StoreRequest::ReadPolicy(_)
            | StoreRequest::ReadStalePolicies { .. }
            | StoreRequest::Recover { .. } => {}
        }
    }

    /// Asserts that a release is about held mail only.
    ///
    /// # Panics
    ///
    /// If it is not.
    #[track_caller]
    pub fn check_release(&self, ids: &[MailId]) {
        let mut seen = BTreeSet::new();
        for id in ids {
            assert!(self.held.contains_key(id), "mail {id} is released, and not held");
            assert!(seen.insert(id), "mail {id} is released twice");
        }
    }

    /// Adds mail after all other. Fails if no higher id is left.
    pub fn insert(&mut self, mail: Mail) -> Result<MailId, StoreError> {
        if !self.has_ids(1) {
            let text = "no mail can be added to the outbox in memory, because its ids are used up".into();
            return Err(StoreError { trouble: StoreTrouble::Impossible, text });
        }
        self.data_version += 1;
        Ok(self.add(mail))
    }

    /// Stores mail under this id. Returns the mail that it replaces.
    pub fn put(&mut self, id: MailId, mail: Mail) -> Option<Mail> {
        self.data_version += 1;
        self.highest = self.highest.max(id.0);
        let before = self.mails.insert(id, Stored { mail, flaw: None });
        before.map(|stored| stored.mail)
    }

    /// Removes and returns mail.
    pub fn remove(&mut self, id: MailId) -> Option<Mail> {
        self.data_version += 1;
        self.mails.remove(&id).map(|stored| stored.mail)
    }

    /// Returns a mail for changes.
    pub fn mail_mut(&mut self, id: MailId) -> Option<&mut Mail> {
        self.data_version += 1;
        self.mails.get_mut(&id).map(|stored| &mut stored.mail)
    }

    /// Gives mail a flaw, or removes its flaw. Returns whether the mail exists.
    pub fn set_flaw(&mut self, id: MailId, flaw: Option<Flaw>) -> bool {
        let Some(stored) = self.mails.get_mut(&id) else { return false };
        stored.flaw = flaw;
        true
    }

    /// Returns the flaw of a mail.
    pub fn flaw(&self, id: MailId) -> Option<Flaw> {
        self.mails.get(&id).and_then(|stored| stored.flaw)
    }

    /// Removes all flaws.
    pub fn clear_flaws(&mut self) {
        self.mails.values_mut().for_each(|stored| stored.flaw = None);
    }

    /// Limits the mail data of one answer to this many octets, beside its first message. The limits of [`outbox`](crate::outbox)
    /// are higher; with this, a test reaches them with small messages.
    pub fn set_budget(&mut self, octets: usize) {
        self.budget_octets = Some(octets);
    }

    /// Gives an order, as an administrator does.
    pub fn order(&mut self, order: GivenOrder) -> OrderId {
        self.data_version += 1;
        self.orders.give(order)
    }

    /// Returns the orders that were given.
    pub fn orders(&self) -> &OrderBook {
        &self.orders
    }

    /// Returns the flights that are noted.
    pub fn flights(&self) -> &FlightBook {
        &self.flights
    }

    /// Forgets the flights that are noted, as a disk may that loses power.
    pub fn forget_flights(&mut self) {
        self.flights.clear();
    }

    /// Returns what earlier runs have left behind, and holds its mail if that is wanted.
    fn recover(&mut self, uncertain: Uncertain) -> Vec<FoundFlight> {
        let (mails, taken) = (&self.mails, &self.taken);
        let is_left = |id| mails.get(&id).is_some_and(|stored| !is_taken(taken, id, &stored.mail));
        let mut found = self.flights.begin_run(is_left);
        if uncertain == Uncertain::Hold {
            found.iter_mut().for_each(|flight| flight.is_held = true);
            for id in found.iter().flat_map(|flight| &flight.mails) {
                if let Some(stored) = self.mails.get_mut(id) {
                    stored.mail.hold = stored.mail.hold.by(HoldId::UNCERTAIN);
                }
            }
            self.flights.clear();
        }
        found
    }

    /// Returns the mail that a step would change, if its order were carried out on it now.
    pub fn changed_by(&self, step: &OrderStep) -> Vec<MailId> {
        let Some(order) = self.orders.find(step.order).filter(|order| order.result.is_none()) else {
            return Vec::new();
        };
        let is_changed = |id: &&MailId| {
            let is_sound = self.mails.get(*id).is_some_and(|stored| stored.flaw.is_none());
            is_sound && !self.is_taken(**id) && order.mails.contains(*id)
        };
        step.mails.iter().filter(is_changed).copied().collect()
    }

    /// Carries out a step of an order.
    fn carry_out(&mut self, step: &OrderStep) -> CarriedOut {
        let done = self.changed_by(step);
        let order = self.orders.find(step.order).filter(|order| order.result.is_none());
        let is_open = order.is_some();
        if let Some(order) = order {
            for id in &done {
                let Some(stored) = self.mails.get_mut(id) else { continue };
                match order.carry_out(step, *id, stored.mail.clone()) {
                    Some(mail) => stored.mail = mail,
                    None => drop(self.mails.remove(id)),
                }
            }
        }
        let is_reported = |id: &&MailId| !self.is_taken(**id) && self.is_readable(**id);
        let rows = step.mails.iter().filter(is_reported);
        let rows = rows.filter_map(|id| Some(self.mail(*id)?.row(*id))).collect();
        let result = if is_open { self.orders.record(step, done.len() as u64) } else { None };
        CarriedOut { rows, done, is_open, result }
    }

    /// Returns a mail.
    pub fn mail(&self, id: MailId) -> Option<&Mail> {
        self.mails.get(&id).map(|stored| &stored.mail)
    }

    /// Returns all mail, in ascending order of ids, including mail that was taken and could not be deleted.
    pub fn mails(&self) -> impl Iterator<Item = (MailId, &Mail)> {
        self.mails.iter().map(|(&id, stored)| (id, &stored.mail))
    }

    /// Returns the mail that servers have taken and that could not be deleted.
    pub fn taken(&self) -> impl Iterator<Item = MailId> {
        self.mails.keys().copied().filter(|id| self.is_taken(*id))
    }

    /// Returns whether a server has taken a mail, and it could not be deleted.
    pub fn is_taken(&self, id: MailId) -> bool {
        self.mail(id).is_some_and(|mail| is_taken(&self.taken, id, mail))
    }

    /// Returns whether all of a mail can be read.
    fn is_readable(&self, id: MailId) -> bool {
        self.flaw(id).is_none_or(Flaw::is_readable)
    }

    /// Returns the number of mails.
    pub fn len(&self) -> usize {
        self.mails.len()
    }

    /// Returns whether there is no mail.
    pub fn is_empty(&self) -> bool {
        self.mails.is_empty()
    }

    /// Returns whether this many mails can be added.
    fn has_ids(&self, count: usize) -> bool {
        u64::try_from(count).is_ok_and(|count| count <= self.highest.abs_diff(i64::MAX))
    }

    /// Adds mail. An id must be left.
    fn add(&mut self, mail: Mail) -> MailId {
        self.highest = self.highest.saturating_add(1);
        let id = MailId(self.highest);
        self.mails.insert(id, Stored { mail, flaw: None });
        id
    }

    fn claim_budget(&self) -> usize {
        self.budget_octets.unwrap_or(CLAIM_BUDGET_OCTETS)
    }

    fn failed_budget(&self) -> usize {
        self.budget_octets.unwrap_or(FAILED_BUDGET_OCTETS)
    }
}

/// Returns whether a note that a server has taken a mail is about this one.
fn is_taken(taken: &BTreeMap<MailId, Mail>, id: MailId, mail: &Mail) -> bool {
    taken.get(&id).is_some_and(|taken| is_same_mail(taken, mail))
}

/// Returns the contents of a mail apart from its faillog.
fn contents(mail: &Mail) -> Mail {
    Mail { faillog: Vec::new(), last_failure: None, ..mail.clone() }
}

/// Returns the name of a mail in a text.
fn named(id: MailId, mail: &Mail) -> String {
    format!("mail {id} to <{}>", shortened_octets(&mail.recipient))
}

/// Returns whether two rows have the same message.
fn is_same_message(one: &Mail, other: &Mail) -> bool {
    one.reverse_path() == other.reverse_path() && one.submission == other.submission && one.data == other.data
}

/// Returns whether two rows have the same message for the same recipient.
fn is_same_mail(one: &Mail, other: &Mail) -> bool {
    is_same_message(one, other) && one.recipient == other.recipient
}
