//! The contract between the core and the database: rows, and requests that are answered later.
//!
//! The core never sees SQL. It sends requests, each with a new [`RequestId`]. The driver answers each exactly once, with a
//! [`StoreReply`] or a [`StoreError`], and in the order of the requests: an older answer about a row must not overtake a newer
//! one, because mail would then be tried too early. Only [`StoreReply::Data`], which says nothing about a row, may come earlier.
//! [`MemoryOutbox`](crate::MemoryOutbox) does all of this in memory.
//!
//! # What is held
//!
//! A [claim](StoreRequest::Claim), a [recall](StoreRequest::Recall) and a [request for failed mail](StoreRequest::ReadFailed) make the
//! database hold each mail that its answer returns, but not what the answer calls left over or unreadable, nor what it does not name.
//! For held mail the database remembers what the row was, may read its data ahead, and returns it to no other dispatcher. Each hold
//! ends exactly once:
//!
//! - by the answer to a [`Commit`] that is about the mail. If that answer says that the mail is [refused](Committed::refused), the mail
//!   stays held, because the verdict is tried again and must be about the same mail; or
//! - by an [`Output::Release`](crate::io::Output::Release), which gives the mail up without a verdict: its connection has ended, its
//!   transaction was not begun, it now goes elsewhere, or the program ends.
//!
//! The core does not ask for mail again before that, and it releases mail before it makes a request for the same mail. So a database that
//! acts on both in their order never drops by a release what a later claim holds. A release has no answer, because nothing depends on it.
//! A database that several dispatchers share holds mail by a lease, and a release ends the lease early. Such a lease needs a time limit
//! as well, because a dispatcher may be killed, or may end while the database fails, before it has released its mail.

mod replacement;

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use bytes::Bytes;
use thiserror::Error;

pub use self::replacement::{BounceOrder, NewBounce, Replacement};
use crate::address::Domain;
use crate::attempt::{Acceptance, Attempt, AttemptFacts, Failure};
use crate::delay_warning::DelayWarnings;
use crate::dkim::{SignMark, Signing, Unsigned, UnsignedField};
use crate::dsn::{DsnWishes, MessageWishes};
use crate::failure_pattern::LastFailure;
use crate::flight::{FlightMark, FoundFlight, Uncertain};
use crate::hold::Hold;
pub use crate::ids::{MailId, RequestId};
pub use crate::notice::{NewNotice, Reported, Warned};
use crate::order::{CarriedOut, OrderId, OrderPart, OrderPlace, OrderStep};
use crate::relay_report::RelayReports;
use crate::schedule::RetryTerms;
use crate::sts::{StalePolicy, StoredPolicy};
use crate::time::UnixTime;
use crate::wording::faillog_text;

/// Most recipients of one transaction. Servers must accept this many (RFC 5321 section 4.5.3.1.8).
pub const TRANSACTION_RECIPIENT_LIMIT: usize = 100;

/// Longest piece of mail data that is read at once. A message up to this size comes whole with its claim.
pub const DATA_CHUNK_OCTETS: usize = 64 * 1024;

/// Most octets of mail data in the answer to one claim. The first message may exceed it.
pub const CLAIM_BUDGET_OCTETS: usize = 256 * 1024;

/// Most octets of originals in the answer to one request for failed mail, and as many of failure texts. The first message may
/// exceed it.
pub const FAILED_BUDGET_OCTETS: usize = 1024 * 1024;

/// Most octets of an original that are read to find its header section, if it is not returned whole.
pub const HEADER_LIMIT_OCTETS: usize = 1024 * 1024;

/// The time for which a policy is fetched again and again after mail last went by it.
pub const POLICY_USE_SECONDS: i64 = 90 * 24 * 60 * 60;

/// Most seconds that a policy should become old before it is fetched again.
pub const POLICY_AGE_SECONDS: i64 = 24 * 60 * 60;

/// Returns whether the value of `mail_envelopefrom` is the null reverse-path, with or without white space around it.
pub fn is_null_path(sender: &[u8]) -> bool {
    matches!(sender.trim_ascii(), b"" | b"<>")
}

/// A position in the outbox from which a scan continues. It is not an id, because every 64-bit number may be the id of a mail.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Cursor {
    /// Before the first row, whatever its id.
    #[default]
    BeforeFirst,
    /// Directly after this id.
    After(MailId),
}

impl Cursor {
    /// Returns the lowest id that may follow, or `None` after the highest of all.
    pub fn next_id(self) -> Option<MailId> {
        match self {
            Self::BeforeFirst => Some(MailId(i64::MIN)),
            Self::After(id) => id.0.checked_add(1).map(MailId),
        }
    }
}

/// A row of the view `outbound`, without its data. Texts are octets that are not yet parsed. Those of rows that are read together
/// may share their memory.
#[derive(Clone, PartialEq, Eq)]
pub struct Row {
    /// `mail_id`.
    pub id: MailId,
    /// `mail_remote`, if it is not NULL.
    pub remote: Option<Bytes>,
    /// `mail_envelopefrom`; `None` if it is NULL or [the null reverse-path](is_null_path).
    pub sender: Option<Bytes>,
    /// `mail_envelopeto`.
    pub recipient: Bytes,
    /// `mail_submission`; 0 if it is NULL.
    pub submission: UnixTime,
    /// Length of `mail_data` in octets; 0 if it is NULL.
    pub data_octets: u64,
    /// `mail_failcount`.
    pub fail_count: u32,
    /// `mail_lasttry`; 0 if the mail was never tried.
    pub last_try: UnixTime,
    /// True if `mail_fatality` is above 0.
    pub fatal: bool,
    /// The latest failure, if there is one: as it was recorded, or [as its text tells](LastFailure::of_text).
    pub last_failure: Option<LastFailure>,
    /// What is known of its holds.
    pub hold: Hold,
    /// What its sender wants to be told of it.
    pub wishes: DsnWishes,
}

impl Row {
    /// Returns a copy that shares no memory with rows that were read together, which would stay as long as one of them is kept.
    pub(crate) fn detached(&self) -> Self {
        let copy = |text: &Option<Bytes>| text.as_deref().map(Bytes::copy_from_slice);
        Self {
            remote: copy(&self.remote),
            sender: copy(&self.sender),
            recipient: Bytes::copy_from_slice(&self.recipient),
            wishes: self.wishes.clone(),
            ..*self
        }
    }
}

impl fmt::Debug for Row {
    /// Leaves out `mail_remote`, which may contain a password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Row")
            .field("id", &self.id)
            .field("remote", &self.remote.as_ref().map(|_| "hidden"))
            .field("sender", &self.sender)
            .field("recipient", &self.recipient)
            .field("submission", &self.submission)
            .field("data_octets", &self.data_octets)
            .field("fail_count", &self.fail_count)
            .field("last_try", &self.last_try)
            .field("fatal", &self.fatal)
            .field("last_failure", &self.last_failure)
            .field("hold", &self.hold)
            .field("wishes", &self.wishes)
            .finish()
    }
}

/// A request of the core to the database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreRequest {
    /// The rows that follow `after`, in ascending order of ids, at most `limit` of them. Answer: [`StoreReply::Scanned`].
    Scan {
        /// Where the scan begins.
        after: Cursor,
        /// Most rows to return.
        limit: u32,
    },
    /// These rows as they are now, with the data of their messages up to [`CLAIM_BUDGET_OCTETS`], grouped into transactions: rows
    /// with equal sender, data and [`MessageWishes`] share one, up to `recipients`. Answer: [`StoreReply::Claimed`].
    Claim {
        /// The rows, in the order in which they should be sent. All have the same next hop.
        ids: Vec<MailId>,
        /// Most transactions to return.
        transactions: usize,
        /// Most recipients of one transaction, from 1 to [`TRANSACTION_RECIPIENT_LIMIT`].
        recipients: usize,
        /// How they are signed, if any may be: [`ClaimedTransaction::to_sign`].
        signing: Option<Signing>,
    },
    /// A piece of one mail's data. Answer: [`StoreReply::Data`].
    ReadData {
        /// The mail.
        id: MailId,
        /// The first octet.
        offset: u64,
        /// Most octets to return.
        limit: u32,
    },
    /// Makes verdicts durable in one database transaction. Verdicts on mail that has changed since it was claimed, recalled, or
    /// read for a bounce are not recorded, because another program has replaced or redirected it. Delivered mail has changed if
    /// its sender, recipient, submission or data are different, as far as the database remembers them; failed mail also if its
    /// `mail_remote` is. Answer: [`StoreReply::Committed`].
    Commit(Commit),
    /// All that bounces of these rows need, grouped by message: equal sender, data and [`MessageWishes`]. The originals together keep to
    /// [`FAILED_BUDGET_OCTETS`], and so do the failure texts, but the first message is always included. Answer:
    /// [`StoreReply::Failed`].
    ReadFailed {
        /// The rows.
        ids: Vec<MailId>,
        /// Originals up to this size are returned whole. Of larger ones, [`needed_octets`](crate::bounce::needed_octets) tells
        /// how much is returned, for the header section.
        original_limit_octets: u64,
    },
    /// These rows as they are now, without their data, because they are about to fail without having been claimed: their next hop
    /// has failed as a whole, or they are unroutable. Answer: [`StoreReply::Recalled`].
    Recall {
        /// The rows.
        ids: Vec<MailId>,
    },
    /// The [flights](crate::flight) that earlier runs have left behind. Their mail may have arrived already. It is held if that is wanted,
    /// which ends them; else they stay until their mail has left the outbox. Asked once, before everything else. Answer:
    /// [`StoreReply::Recovered`].
    Recover {
        /// What is done with such mail.
        uncertain: Uncertain,
    },
    /// A part of the first order that is not done. The database may note the lines of `terms` that hold mail, and give orders that release
    /// what lines have held that are gone. Answer: [`StoreReply::Orders`].
    ReadOrders {
        /// Orders that are known: each is read from its place, and is left out if all of its mail was looked at.
        known: Vec<(OrderId, OrderPlace)>,
        /// The time and the rules.
        terms: RetryTerms,
    },
    /// The MTA-STS policy of a domain. Without a place for policies there is none. Answer: [`StoreReply::Policy`].
    ReadPolicy(Domain),
    /// Some policies that are to be fetched again: those that are half as old as they may become, a day at most, and have been used in the
    /// [last time](POLICY_USE_SECONDS); and those that were fetched in the future. Answer: [`StoreReply::StalePolicies`].
    ReadStalePolicies {
        /// The time.
        now: UnixTime,
        /// Most policies to return, the oldest first.
        limit: u32,
    },
    /// Carries out a step of an order, and records how far it is done, in one database transaction. It is separate from a commit, so
    /// that an order that fails never costs a verdict. Answer: [`StoreReply::CarriedOut`].
    CarryOut(OrderStep),
}

impl StoreRequest {
    /// Returns whether the request changes nothing in the database.
    pub fn only_reads(&self) -> bool {
        match self {
            Self::Scan { .. }
            | Self::Claim { .. }
            | Self::ReadData { .. }
            | Self::ReadFailed { .. }
            | Self::ReadPolicy(_)
            | Self::ReadStalePolicies { .. }
            | Self::Recall { .. } => true,
            // It may note which lines hold mail.
            Self::ReadOrders { .. } | Self::Commit(_) | Self::CarryOut(_) | Self::Recover { .. } => false,
        }
    }
}

/// Verdicts that are committed together. There may be none: where nothing is left of a commit that has failed, an empty one repeats it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Commit {
    /// Mail that servers have taken responsibility for. Its rows are deleted.
    pub delivered: Vec<DeliveredMail>,
    /// Failed attempts. Each that counts becomes a faillog row, unless its mail is gone.
    pub failed: Vec<FailedAttempt>,
    /// Mail that is given up.
    pub replaced: Vec<Replacement>,
    /// Which failed attempts make the mail late, and what its sender is told then; `None` if that is not wanted. A warning that cannot be
    /// made costs nothing else.
    pub warnings: Option<Box<DelayWarnings>>,
    /// How the senders of delivered mail are told of it, where that is [wanted](DeliveredMail::is_reported). A report that cannot be made
    /// costs nothing else.
    pub reports: Option<Box<RelayReports>>,
    /// What is noted of [flights](crate::flight). If nothing can be noted, that costs nothing else.
    pub flights: Vec<FlightMark>,
    /// The mark of the bounces, warnings and reports that it makes. If it cannot be stored, that costs nothing else.
    pub own_mark: SignMark,
    /// What is noted of MTA-STS policies, in the order in which it was found out. If it cannot be stored, that costs nothing else.
    pub policies: Vec<PolicyNote>,
}

/// What is noted of the MTA-STS policy of a domain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PolicyNote {
    /// This is the policy from now on.
    Fetched(StoredPolicy),
    /// Mail goes by the policy of this domain at this time.
    Used(Domain, UnixTime),
}

impl Commit {
    /// Returns whether the commit is empty.
    pub fn is_empty(&self) -> bool {
        self.has_no_verdict() && self.flights.is_empty() && self.policies.is_empty()
    }

    /// Returns whether nothing is to be recorded of any mail.
    pub fn has_no_verdict(&self) -> bool {
        self.delivered.is_empty() && self.failed.is_empty() && self.replaced.is_empty()
    }

    /// Returns the mail that this process has claimed: all but what an earlier process has delivered and could not delete.
    pub fn claims(&self) -> impl Iterator<Item = MailId> {
        let delivered = self.delivered.iter().filter(|mail| mail.attempt.is_some()).map(|mail| mail.id);
        delivered.chain(self.undelivered())
    }

    /// Returns the facts of the attempts that the commit records.
    pub fn attempts(&self) -> impl Iterator<Item = AttemptFacts<'_>> {
        let delivered = self.delivered.iter().filter_map(|mail| Some(mail.attempt.as_ref()?.facts()));
        delivered.chain(self.failed.iter().map(|failed| failed.attempt.facts()))
    }

    /// Returns all mail that the commit concerns, in the order of the three lists.
    pub fn ids(&self) -> impl Iterator<Item = MailId> {
        self.delivered.iter().map(|mail| mail.id).chain(self.undelivered())
    }

    fn undelivered(&self) -> impl Iterator<Item = MailId> {
        let failed = self.failed.iter().map(|failed| failed.id);
        failed.chain(self.replaced.iter().flat_map(|replacement| replacement.originals.iter().copied()))
    }
}

/// A row to delete, because a server has taken its mail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeliveredMail {
    /// The row.
    pub id: MailId,
    /// The attempt that delivered it; `None` if this only repeats a deletion in which an earlier process failed.
    pub attempt: Option<Attempt<Acceptance>>,
    /// True if its sender is told, who wants to know of the delivery, and the server offers no DSN (RFC 3461 section 5.2.2).
    pub is_reported: bool,
}

impl From<MailId> for DeliveredMail {
    fn from(id: MailId) -> Self {
        Self { id, attempt: None, is_reported: false }
    }
}

/// A failed attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailedAttempt {
    /// `fail_mail`.
    pub id: MailId,
    /// `fail_time` is its time, `fail_fatal` [whether it has failed permanently](Attempt::is_fatal), and `fail_message` the
    /// [`faillog_text`] of its failure.
    pub attempt: Attempt<Failure>,
    /// What it changes about the mail.
    pub charge: Charge,
    /// The line of the configuration that says when the mail is tried next, if one does.
    pub line: Option<u32>,
}

/// What a failed attempt changes about its mail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Charge {
    /// It counts, and becomes a faillog row.
    Counts,
    /// It does not count, because the administrator has ordered it before its time. Only the ledger tells of it.
    Early,
    /// The mail may have arrived nevertheless, and is held until the administrator decides. The attempt does not count, so that mail
    /// that is released is tried, and not given up. Only if the mail cannot be held, it counts.
    Holds,
}

impl FailedAttempt {
    /// `fail_message`.
    pub fn text(&self) -> String {
        faillog_text(&self.attempt.result)
    }
}

/// The answer to a [`StoreRequest`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreReply {
    /// To [`StoreRequest::Scan`].
    Scanned(Scanned),
    /// To [`StoreRequest::Claim`].
    Claimed(Claimed),
    /// To [`StoreRequest::ReadData`]. Empty if the mail is gone, or shorter.
    Data(Bytes),
    /// To [`StoreRequest::Commit`].
    Committed(Committed),
    /// To [`StoreRequest::ReadFailed`]. A requested row that is not in it does not exist.
    Failed {
        /// The messages, in the order of the request.
        messages: Vec<FailedMessage>,
        /// Rows that exist, but exceed the budget.
        left_over: Vec<MailId>,
        /// Rows that cannot be read.
        unreadable: Vec<Refused>,
    },
    /// To [`StoreRequest::Recall`]. A requested row that is not in it does not exist, or was taken by a server.
    Recalled {
        /// The rows, in the order of the request.
        rows: Vec<Row>,
        /// Rows that cannot be read.
        unreadable: Vec<Refused>,
    },
    /// To [`StoreRequest::Recover`].
    Recovered(Vec<FoundFlight>),
    /// To [`StoreRequest::ReadOrders`]; `None` if there is no such order.
    Orders(Option<OrderPart>),
    /// To [`StoreRequest::CarryOut`].
    CarriedOut(CarriedOut),
    /// To [`StoreRequest::ReadPolicy`]; `None` if there is none.
    Policy(Option<StoredPolicy>),
    /// To [`StoreRequest::ReadStalePolicies`].
    StalePolicies(Vec<StalePolicy>),
}

/// Rows of the outbox, as they are now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scanned {
    /// The rows in ascending order of ids, without those in `taken` and `unreadable`.
    pub rows: Vec<Row>,
    /// Mail that servers have taken, and that could not be deleted (the table `dispatch_stuck`). It is not to be sent again.
    pub taken: Vec<MailId>,
    /// Rows that cannot be read: one entry for a sequence of ids, with the lowest.
    pub unreadable: Vec<Refused>,
    /// Where the next scan continues, after this one began; `None` if no rows follow.
    pub next: Option<Cursor>,
    /// A number that changes whenever another process has written to the database (`PRAGMA data_version`).
    pub data_version: i64,
}

/// The answer to a claim. A requested row that is not in it does not exist, or was taken by a server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Claimed {
    /// The transactions, in the order in which they should be sent.
    pub transactions: Vec<ClaimedTransaction>,
    /// Rows that exist, but exceed the number of transactions, or whose data exceed the budget.
    pub left_over: Vec<LeftOver>,
    /// Rows that cannot be read.
    pub unreadable: Vec<Refused>,
}

/// The answer to a commit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Committed {
    /// Each failed mail that still exists, as it is now.
    pub failed: Vec<Row>,
    /// The remaining originals of replacements that were not done, because one of their originals was gone or changed.
    pub not_replaced: Vec<MailId>,
    /// Mail for which nothing was recorded, because it was changed: its row as it is now.
    pub changed: Vec<Row>,
    /// The rows of each replacement's bounce, in the order of the replacements. Empty if it has no bounce, or was not done.
    pub bounces: Vec<Vec<MailId>>,
    /// Mail for which the database can record nothing. Each is reported by itself; of a replacement, those originals that prevent
    /// it. Everything else was recorded.
    pub refused: Vec<Refused>,
    /// Those of them that were delivered, but could not even be noted in `dispatch_stuck`.
    pub not_noted: Vec<MailId>,
    /// The warnings that were made.
    pub warned: Vec<Warned>,
    /// The reports that were made.
    pub reported: Vec<Reported>,
    /// True if the flights could not be noted: mail is sent without.
    pub is_unmarked: bool,
    /// True if what is to be noted of policies could not be stored.
    pub lacks_policies: bool,
}

impl Claimed {
    /// Returns whether some of it is to be signed.
    pub fn is_to_be_signed(&self) -> bool {
        self.transactions
            .iter()
            .any(|transaction| transaction.to_sign.as_ref().is_ok_and(|fields| !fields.is_empty()))
    }

    /// Returns the mail that it lays hold of.
    pub fn ids(&self) -> impl Iterator<Item = MailId> {
        self.rows().map(|row| row.id)
    }

    /// Returns the rows of that mail.
    pub fn rows(&self) -> impl Iterator<Item = &Row> {
        self.transactions.iter().flat_map(|transaction| &transaction.rows)
    }
}

impl Committed {
    /// Adds the answer to a further part of the commit.
    pub fn append(&mut self, mut more: Self) {
        self.failed.append(&mut more.failed);
        self.not_replaced.append(&mut more.not_replaced);
        self.changed.append(&mut more.changed);
        self.bounces.append(&mut more.bounces);
        self.refused.append(&mut more.refused);
        self.not_noted.append(&mut more.not_noted);
        self.warned.append(&mut more.warned);
        self.reported.append(&mut more.reported);
        self.is_unmarked |= more.is_unmarked;
        self.lacks_policies |= more.lacks_policies;
    }
}

/// A mail for which the database cannot do what was requested, although it can for others. An immediate retry would not help.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// The mail.
    pub id: MailId,
    /// A sentence: what happened to which mail and why, in the database's words, and what to do about it.
    pub text: String,
}

/// The number of failures of a mail, as the database has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FailState {
    /// The mail.
    pub id: MailId,
    /// The number of its faillog rows.
    pub fail_count: u32,
    /// Its latest `fail_time`.
    pub last_try: UnixTime,
    /// True if one of them is fatal.
    pub fatal: bool,
}

/// One message with those of its recipients that share a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimedTransaction {
    /// One row for each recipient: at least one, with equal sender, data and [`MessageWishes`].
    pub rows: Vec<Row>,
    /// Length of the message in octets, as it is stored.
    pub data_octets: u64,
    /// The message, or its first [`DATA_CHUNK_OCTETS`] if it is longer.
    pub head: Bytes,
    /// The fields of its signatures; none if it was not to be signed, and the reason if it leaves unsigned all the same.
    pub to_sign: Result<Vec<UnsignedField>, Unsigned>,
}

/// A row that was claimed together with others, and is returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeftOver {
    /// The row.
    pub id: MailId,
    /// A number that rows of equal sender and data share, and others hardly ever do. Present if the data were read. Mail that
    /// only looked like one message is claimed separately from then on, so that it is not read and compared each time.
    pub message: Option<u64>,
}

/// A message with those of its recipients that are given up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailedMessage {
    /// One entry for each recipient: at least one, with equal sender, data and [`MessageWishes`].
    pub mails: Vec<FailedMail>,
    /// Length of the message in octets, as it is stored.
    pub data_octets: u64,
    /// The message, or its beginning if it is longer than was requested.
    pub original: Bytes,
}

impl FailedMessage {
    /// Returns what its sender wants of reports about it, if it has a recipient.
    pub fn wishes(&self) -> Option<&MessageWishes> {
        Some(&self.mails.first()?.row.wishes.message)
    }

    /// Returns the mail that it lays hold of.
    pub fn ids(&self) -> impl Iterator<Item = MailId> {
        self.mails.iter().map(|mail| mail.row.id)
    }
}

/// A recipient that is given up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailedMail {
    /// Its row.
    pub row: Row,
    /// Its faillog, oldest first.
    pub attempts: Vec<FaillogRow>,
}

/// A row of the faillog.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FaillogRow {
    /// `fail_time`.
    pub time: UnixTime,
    /// `fail_message`; empty if it is NULL.
    pub text: Box<[u8]>,
    /// `fail_fatal`.
    pub fatal: bool,
}

/// The kind of trouble that the database has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreTrouble {
    /// Another process has locked the database.
    Busy,
    /// The disk is full.
    Full,
    /// A part of the database cannot be read. Other parts may be readable.
    Damaged,
    /// The request is impossible for this row, because of its content or because of a constraint or trigger of another program.
    /// It may succeed for other rows.
    Impossible,
    /// Any other trouble: the database is read-only, cannot be opened, or its disk fails.
    Other,
}

impl StoreTrouble {
    /// Returns whether the trouble concerns a row, so that the same request may succeed for others.
    pub fn is_about_a_row(self) -> bool {
        matches!(self, Self::Damaged | Self::Impossible)
    }
}

/// A failed request. Nothing of it was done.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("{text}")]
pub struct StoreError {
    /// The kind of trouble.
    pub trouble: StoreTrouble,
    /// A sentence: what happened, where, and what to do about it.
    pub text: String,
}

#[cfg(test)]
mod tests;
