//! What passes between the core and the database: rows, and requests that are answered later.
//!
//! The core never sees SQL. It asks, with a [`RequestId`] of its own, and the driver answers every request once, with a
//! [`StoreReply`] or a [`StoreError`], and in the order in which they were asked: what an answer says of a row that a
//! later answer has overtaken is no longer so, and mail would be tried too early. Only [`StoreReply::Data`], which says
//! nothing of a row, may come earlier. [`MemoryOutbox`](crate::MemoryOutbox) does all that in memory.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;

use bytes::Bytes;
use thiserror::Error;

use crate::attempt::Attempt;
use crate::rng::Seed;
use crate::time::UnixTime;
use crate::wording::faillog_text;

/// Most recipients of one transaction, so that no server has to refuse some (RFC 5321 section 4.5.3.1.8).
pub const TRANSACTION_RECIPIENT_LIMIT: usize = 100;

/// Longest piece of mail data that is read at once. A message up to this size comes whole with its claim.
pub const DATA_CHUNK_OCTETS: usize = 64 * 1024;

/// Mail data that one claim may bring at most; its first message comes in any case.
pub const CLAIM_BUDGET_OCTETS: usize = 256 * 1024;

/// What one request for failed mail may bring at most of originals, and as much of failure texts; its first message comes in any case.
pub const FAILED_BUDGET_OCTETS: usize = 1024 * 1024;

/// Most octets of an original that are read to find its header section, where it does not come back whole.
pub const HEADER_LIMIT_OCTETS: usize = 1024 * 1024;

/// Returns whether what stands in `mail_envelopefrom` is the null reverse-path, with white space around it or not.
pub fn is_null_path(sender: &[u8]) -> bool {
    matches!(sender.trim_ascii(), b"" | b"<>")
}

/// The key of a row of the outbox: one recipient of one message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MailId(pub i64);

impl fmt::Display for MailId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A place in the outbox from which a scan goes on. It is no id, because every 64-bit number may be that of a mail.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Cursor {
    /// Before the first row, whatever its id.
    #[default]
    BeforeFirst,
    /// Directly after this id.
    After(MailId),
}

impl Cursor {
    /// The lowest id that may follow; nothing follows the highest of all.
    pub fn next_id(self) -> Option<MailId> {
        match self {
            Self::BeforeFirst => Some(MailId(i64::MIN)),
            Self::After(id) => id.0.checked_add(1).map(MailId),
        }
    }
}

/// A row of the view `outbound`, without its data. Texts are octets: nothing is known of them yet. Those of rows that are
/// read together may share their memory.
#[derive(Clone, PartialEq, Eq)]
pub struct Row {
    /// `mail_id`.
    pub id: MailId,
    /// `mail_remote`, if it is not NULL.
    pub remote: Option<Bytes>,
    /// `mail_envelopefrom`; nothing if it is NULL or [the null reverse-path](is_null_path).
    pub sender: Option<Bytes>,
    /// `mail_envelopeto`.
    pub recipient: Bytes,
    /// Length of `mail_data` in octets; 0 if it is NULL.
    pub data_octets: u64,
    /// `mail_failcount`.
    pub fail_count: u32,
    /// `mail_lasttry`: 0 if there was none.
    pub last_try: UnixTime,
    /// True if `mail_fatality` is above 0.
    pub fatal: bool,
}

impl fmt::Debug for Row {
    /// Leaves out what stands in `mail_remote`: there may be a password in it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Row")
            .field("id", &self.id)
            .field("remote", &self.remote.as_ref().map(|_| "hidden"))
            .field("sender", &self.sender)
            .field("recipient", &self.recipient)
            .field("data_octets", &self.data_octets)
            .field("fail_count", &self.fail_count)
            .field("last_try", &self.last_try)
            .field("fatal", &self.fatal)
            .finish()
    }
}

/// Names a request until it is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

/// What the core asks of the database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreRequest {
    /// The rows that follow `after`, in ascending order of ids, at most `limit` of them. Answer: [`StoreReply::Scanned`].
    Scan {
        /// Where to begin.
        after: Cursor,
        /// Most rows to return.
        limit: u32,
    },
    /// These rows as they are now, with their messages' data up to [`CLAIM_BUDGET_OCTETS`], grouped into
    /// transactions: rows of equal sender and equal data go together, up to [`TRANSACTION_RECIPIENT_LIMIT`].
    /// Answer: [`StoreReply::Claimed`].
    Claim {
        /// The rows, in the order in which they should go; all have the same next hop.
        ids: Vec<MailId>,
        /// Most transactions to return.
        transactions: usize,
    },
    /// A piece of one mail's data. Answer: [`StoreReply::Data`].
    ReadData {
        /// Whose data.
        id: MailId,
        /// Where to begin, in octets.
        offset: u64,
        /// Most octets to return.
        limit: u32,
    },
    /// Makes verdicts durable, in one database transaction, but for those on mail that is not what it was when it was claimed,
    /// recalled, or read for a bounce: of that nothing is recorded, because somebody has put other mail in its place, or has sent it
    /// elsewhere. What was delivered is other mail if its sender, its recipient, its submission or its data are other ones,
    /// as far as the database remembers them; what has failed, also if its `mail_remote` is. Answer: [`StoreReply::Committed`].
    Commit(Commit),
    /// Everything that bounces of these rows need, grouped by message: equal sender and equal data. The originals
    /// together keep to [`FAILED_BUDGET_OCTETS`], and so do the failure texts, but the first message comes in any case. Answer:
    /// [`StoreReply::Failed`].
    ReadFailed {
        /// The rows.
        ids: Vec<MailId>,
        /// Originals up to this size are wanted whole, of larger ones what
        /// [`needed_octets`](crate::bounce::needed_octets) says, for the header section.
        original_limit_octets: u64,
    },
    /// These rows as they are now, without their data, because they are about to fail without having been claimed: their next hop has
    /// failed as a whole, or they lead nowhere. Answer: [`StoreReply::Recalled`].
    Recall {
        /// The rows.
        ids: Vec<MailId>,
    },
}

impl StoreRequest {
    /// Returns whether nothing changes by it.
    pub fn only_reads(&self) -> bool {
        match self {
            Self::Scan { .. }
            | Self::Claim { .. }
            | Self::ReadData { .. }
            | Self::ReadFailed { .. }
            | Self::Recall { .. } => true,
            Self::Commit(_) => false,
        }
    }
}

/// Verdicts to be made durable together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Commit {
    /// Mail that servers have taken responsibility for: its rows are deleted.
    pub delivered: Vec<DeliveredMail>,
    /// Attempts that failed: a faillog row each, unless the mail is gone.
    pub failed: Vec<FailedAttempt>,
    /// Mail that is given up.
    pub replaced: Vec<Replacement>,
}

impl Commit {
    /// Returns whether there is nothing to be done.
    pub fn is_empty(&self) -> bool {
        self.delivered.is_empty() && self.failed.is_empty() && self.replaced.is_empty()
    }

    /// All mail that it is about, one after the other in its three lists.
    pub fn ids(&self) -> impl Iterator<Item = MailId> {
        let delivered = self.delivered.iter().map(|mail| mail.id);
        let failed = self.failed.iter().map(|failed| failed.id);
        let replaced = self.replaced.iter().flat_map(|replacement| replacement.originals.iter().copied());
        delivered.chain(failed).chain(replaced)
    }
}

/// A row to be deleted, because a server has taken its mail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeliveredMail {
    /// The row.
    pub id: MailId,
    /// How it was delivered; nothing if only the deletion is tried again that another process could not do.
    pub attempt: Option<Attempt>,
}

impl From<MailId> for DeliveredMail {
    fn from(id: MailId) -> Self {
        Self { id, attempt: None }
    }
}

/// A faillog row to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailedAttempt {
    /// `fail_mail`.
    pub id: MailId,
    /// `fail_time` is when it was decided, `fail_fatal` [whether it has failed for good](Attempt::is_fatal), and `fail_message` what
    /// [`faillog_text`] makes of the failure.
    pub attempt: Attempt,
}

impl FailedAttempt {
    /// `fail_message`.
    pub fn text(&self) -> String {
        self.attempt.result.as_ref().err().map(faillog_text).unwrap_or_default()
    }
}

/// Mail that is deleted, in the same transaction in which its bounce, if there is one, is inserted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replacement {
    /// The rows to delete. If one of them is gone meanwhile, nothing of this replacement is done.
    pub originals: Vec<MailId>,
    /// The bounce.
    pub bounce: Option<NewBounce>,
}

/// A bounce to be inserted: null sender, `mail_remote` NULL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewBounce {
    /// One row for each.
    pub recipients: Vec<Bytes>,
    /// What `mail_data` of all of them is composed of.
    pub order: BounceOrder,
}

/// What [`bounce::compose_ordered`](crate::bounce::compose_ordered) makes a bounce of: the thread of the database calls it,
/// because that takes as long as the original is large.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BounceOrder {
    /// The name of this host.
    pub announce: Arc<str>,
    /// The address in From.
    pub bounce_from: Arc<str>,
    /// Originals up to this size come back whole.
    pub return_limit_octets: u64,
    /// What has failed: at least one mail, and all with a sender.
    pub message: FailedMessage,
    /// When that was found.
    pub now: UnixTime,
    /// What everything random in it comes from.
    pub seed: Seed,
}

/// The answer to a [`StoreRequest`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreReply {
    /// To [`StoreRequest::Scan`].
    Scanned(Scanned),
    /// To [`StoreRequest::Claim`].
    Claimed(Claimed),
    /// To [`StoreRequest::ReadData`]: empty if the mail is gone, or ends before.
    Data(Bytes),
    /// To [`StoreRequest::Commit`].
    Committed(Committed),
    /// To [`StoreRequest::ReadFailed`]. A row that was asked for and is not here does not exist.
    Failed {
        /// In the order in which they were asked for.
        messages: Vec<FailedMessage>,
        /// Rows that exist, but went beyond the budget.
        left_over: Vec<MailId>,
        /// Rows that cannot be read.
        unreadable: Vec<Refused>,
    },
    /// To [`StoreRequest::Recall`]. A row that was asked for and is not here does not exist, or was taken by a server.
    Recalled {
        /// In the order in which they were asked for.
        rows: Vec<Row>,
        /// Rows that cannot be read.
        unreadable: Vec<Refused>,
    },
}

/// Rows of the outbox, as they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scanned {
    /// In ascending order of ids, without those in `taken` and `unreadable`.
    pub rows: Vec<Row>,
    /// Mail that servers have taken, and that could not be deleted (the table `dispatch_stuck`): it is not to be sent again.
    pub taken: Vec<MailId>,
    /// Rows that cannot be read: one for all of a sequence of ids, with the lowest.
    pub unreadable: Vec<Refused>,
    /// Where the scan goes on, behind where it began; nothing if there are no rows after these.
    pub next: Option<Cursor>,
    /// Changes whenever another process has written to the database (`PRAGMA data_version`).
    pub data_version: i64,
}

/// What has become of a claim. A row that was asked for and is not here does not exist, or was taken by a server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Claimed {
    /// In the order in which they should go.
    pub transactions: Vec<ClaimedTransaction>,
    /// Rows that exist, but went beyond the number of transactions, or their data beyond the budget.
    pub left_over: Vec<LeftOver>,
    /// Rows that cannot be read.
    pub unreadable: Vec<Refused>,
}

/// What has become of a commit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Committed {
    /// Of each failed attempt whose mail still exists, how it stands now.
    pub failed: Vec<FailState>,
    /// Originals of replacements that were not done, because one of them was gone, or was changed; these still exist.
    pub not_replaced: Vec<MailId>,
    /// Mail of which nothing was recorded, because it was changed, as it is now.
    pub changed: Vec<Row>,
    /// For each replacement, in their order, the rows of its bounce; none where there is no bounce, or where it was not done.
    pub bounces: Vec<Vec<MailId>>,
    /// Mail for which the database can record nothing, each on its own: of a replacement, those originals that keep it from
    /// being done. The rest was recorded.
    pub refused: Vec<Refused>,
    /// Those of them that were delivered, but could not even be noted in `dispatch_stuck`.
    pub not_noted: Vec<MailId>,
}

impl Committed {
    /// Adds what has become of a further part of the commit.
    pub fn append(&mut self, mut more: Self) {
        self.failed.append(&mut more.failed);
        self.not_replaced.append(&mut more.not_replaced);
        self.changed.append(&mut more.changed);
        self.bounces.append(&mut more.bounces);
        self.refused.append(&mut more.refused);
        self.not_noted.append(&mut more.not_noted);
    }
}

/// One mail for which the database cannot do what was asked, though it does it for others. Trying it again at once would not help.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// The mail.
    pub id: MailId,
    /// What happened to which mail and why, in the database's words, and what to do about it, as a sentence.
    pub text: String,
}

/// How often a mail has failed, as the database says.
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

/// One message and those of its recipients that share a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimedTransaction {
    /// One for each recipient: at least one, equal in sender and data.
    pub rows: Vec<Row>,
    /// Length of the message in octets, as it is stored.
    pub data_octets: u64,
    /// The message, or its first [`DATA_CHUNK_OCTETS`] if it is longer.
    pub head: Bytes,
}

/// A row that was claimed together with others, and comes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeftOver {
    /// Which one.
    pub id: MailId,
    /// A number that rows of equal sender and data have in common, and others hardly ever, if the data were read: mail that only
    /// looked like one message is claimed apart from then on, so that it is not read and compared each time.
    pub message: Option<u64>,
}

/// A message and those of its recipients that are given up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailedMessage {
    /// One for each recipient: at least one, equal in sender and data.
    pub mails: Vec<FailedMail>,
    /// Length of the message in octets, as it is stored.
    pub data_octets: u64,
    /// The message, or its beginning if it is longer than was asked for.
    pub original: Bytes,
}

/// A recipient that is given up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailedMail {
    /// Its row.
    pub row: Row,
    /// `mail_submission`.
    pub submission: UnixTime,
    /// Its faillog, oldest first.
    pub attempts: Vec<FaillogRow>,
}

/// A row of the faillog, as it is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FaillogRow {
    /// `fail_time`.
    pub time: UnixTime,
    /// `fail_message`; empty if it is NULL.
    pub text: Box<[u8]>,
    /// `fail_fatal`.
    pub fatal: bool,
}

/// What keeps the database from doing what was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreTrouble {
    /// Another process keeps it locked.
    Busy,
    /// Its disk is full.
    Full,
    /// A part of it cannot be read. Other parts may be.
    Damaged,
    /// What was asked can never be done for this row, because of its content or of what other programs have laid down. For other rows
    /// it can be.
    Impossible,
    /// Anything else: it is read-only, its disk fails, it cannot be opened.
    Other,
}

impl StoreTrouble {
    /// Returns whether it is about a row, so that the same may be done for others.
    pub fn is_about_a_row(self) -> bool {
        matches!(self, Self::Damaged | Self::Impossible)
    }
}

/// The database could not do what was asked. Nothing of the request was done.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("{text}")]
pub struct StoreError {
    /// What kept it from that.
    pub trouble: StoreTrouble,
    /// What happened, where, and what to do about it, as a sentence.
    pub text: String,
}

#[cfg(test)]
mod tests;
