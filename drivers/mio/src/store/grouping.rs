//! Groups rows of one message: equal sender and equal data, and the same wishes of their senders for the message. The first chunk is compared octet by octet, larger messages also
//! by their digests.

use std::collections::{HashMap, HashSet};

use bytes::Bytes;
use cmail_delivery::bounce::needed_octets;
use cmail_delivery::dsn::MessageWishes;
use cmail_delivery::outbox::{DATA_CHUNK_OCTETS, LeftOver, MailId, Row};
use rusqlite::Connection;

use super::blob::read;
use super::digests::{Digest, Digests};
use super::failures::add_own_failures;
use super::fingerprints::{Fingerprint, FingerprintList, digest};
use super::pool::Pool;
use super::rows::{self, Found};

/// How much one request reads to compare messages, besides their first chunks. That takes a tenth of a second, during which
/// other requests wait; messages beyond that are left to another request.
const COMPARED_LIMIT_OCTETS: u64 = 64 * 1024 * 1024;

/// The limits of grouping.
pub(super) struct Limits {
    /// Most groups; one is always made.
    pub(super) groups: usize,
    /// Most rows of one group.
    pub(super) recipients: usize,
    /// Most octets of all groups' heads together; the first group's is always read.
    pub(super) budget_octets: usize,
    /// Messages up to this size are read whole; of larger ones the first [`DATA_CHUNK_OCTETS`].
    pub(super) whole_octets: u64,
    /// Whether to read more of larger ones, up to the end of their header section.
    pub(super) wants_header: bool,
}

/// Rows of one message.
pub(super) struct Group {
    /// At least one.
    pub(super) rows: Vec<Row>,
    pub(super) data_octets: u64,
    /// The message or its beginning.
    pub(super) head: Bytes,
}

/// The result of grouping. Rows are in the order in which their ids appear first; missing rows are left out.
pub(super) struct Grouped {
    pub(super) groups: Vec<Group>,
    /// Rows that exceeded the limits.
    pub(super) left_over: Vec<LeftOver>,
    /// Whether some of them may belong to the groups, but were not compared any more.
    pub(super) is_partly_compared: bool,
    /// Of all rows in groups.
    pub(super) fingerprints: FingerprintList,
}

/// Groups rows. To be called within a read transaction.
pub(super) fn group(
    connection: &Connection,
    pool: &Pool,
    digests: &mut Digests,
    ids: &[MailId],
    limits: &Limits,
) -> rusqlite::Result<Grouped> {
    let mut grouper = Grouper {
        connection,
        pool,
        digests,
        limits,
        groups: Vec::new(),
        open: HashMap::new(),
        head_octets: 0,
        is_partly_compared: false,
        compared_octets: 0,
        fingerprints: Vec::with_capacity(ids.len()),
    };
    let mut left_over = Vec::new();
    let mut seen = HashSet::new();
    let mut texts = rows::texts();
    for id in ids {
        // An id that is given twice is still one recipient.
        if !seen.insert(*id) {
            continue;
        }
        if let Some(found) = rows::row(connection, *id, grouper.room(), &mut texts)? {
            left_over.extend(grouper.add(found)?);
        }
    }
    let Grouper { groups, is_partly_compared, fingerprints, .. } = grouper;
    Ok(Grouped { groups, left_over, is_partly_compared, fingerprints })
}

/// What is known of a message without reading its data: sender, what the sender wants, and length.
type Outline = (Option<Bytes>, MessageWishes, u64);

/// Whether a message belongs to a group.
enum Fit {
    /// It belongs to the group at this index.
    Group(usize),
    NoGroup,
    /// This request has no budget left to find out.
    Unknown,
}

struct Grouper<'a> {
    connection: &'a Connection,
    pool: &'a Pool,
    digests: &'a mut Digests,
    limits: &'a Limits,
    groups: Vec<Group>,
    /// Groups with room for more rows. Those of one outline are compared one by one: different messages usually differ early,
    /// and all heads together keep to the budget.
    open: HashMap<Outline, Vec<usize>>,
    head_octets: usize,
    is_partly_compared: bool,
    compared_octets: u64,
    fingerprints: FingerprintList,
}

impl Grouper<'_> {
    /// Returns how long a message may be to be read together with its row.
    fn room(&self) -> usize {
        let whole = usize::try_from(self.limits.whole_octets).unwrap_or(usize::MAX).min(DATA_CHUNK_OCTETS);
        if self.groups.is_empty() {
            return whole;
        }
        if self.groups.len() >= self.limits.groups {
            return 0;
        }
        whole.min(self.limits.budget_octets.saturating_sub(self.head_octets))
    }

    /// Adds a row to the group of its message, or to a new one. Returns the row if the limits leave no room for it.
    fn add(&mut self, found: Found) -> rusqlite::Result<Option<LeftOver>> {
        let Found { mut row, submission, data, unreadable_wishes } = found;
        let head_length = self.head_length(row.data_octets);
        let has_room = self.groups.is_empty()
            || (self.groups.len() < self.limits.groups
                && self.head_octets.saturating_add(head_length) <= self.limits.budget_octets);
        let outline = (row.sender.clone(), row.wishes.message.clone(), row.data_octets);
        for (column, error) in unreadable_wishes {
            log::warn!("what dispatch_envelope.{column} says of mail {} counts as absent: {error}", row.id);
        }
        // Without room for a new group, only a row that may belong to an existing one is worth reading.
        let id = row.id;
        if !has_room && !self.open.contains_key(&outline) {
            return Ok(Some(LeftOver { id, message: None }));
        }
        let first_length = head_length.min(DATA_CHUNK_OCTETS);
        let first = match data {
            Some(data) if data.len() == first_length => data,
            Some(_) | None => read(self.connection, row.id, row.data_octets, 0, first_length)?,
        };
        let fingerprint = Fingerprint::of(&row, submission.as_deref(), Some(&first));
        let left_over = LeftOver { id, message: Some(digest(&(&outline, &first))) };
        match self.find(&outline, row.id, &first)? {
            Fit::Group(index) => {
                add_own_failures(self.connection, &mut row)?;
                self.fingerprints.push((row.id, fingerprint));
                self.join(index, &outline, row);
                return Ok(None);
            }
            Fit::NoGroup if has_room => {}
            Fit::NoGroup => return Ok(Some(left_over)),
            Fit::Unknown => {
                self.is_partly_compared = true;
                return Ok(Some(left_over));
            }
        }
        let head_length = match self.limits.wants_header {
            true => self.needed_length(&first, row.data_octets),
            false => head_length,
        };
        if !self.groups.is_empty() && self.head_octets.saturating_add(head_length) > self.limits.budget_octets
        {
            return Ok(Some(left_over));
        }
        let head = match head_length > first_length {
            true => read(self.connection, row.id, row.data_octets, 0, head_length)?,
            false => first,
        };
        add_own_failures(self.connection, &mut row)?;
        if self.limits.recipients > 1 {
            self.open.entry(outline).or_default().push(self.groups.len());
        }
        self.head_octets = self.head_octets.saturating_add(head.len());
        self.fingerprints.push((row.id, fingerprint));
        self.groups.push(Group { data_octets: row.data_octets, rows: vec![row], head });
        Ok(None)
    }

    /// Adds a row to the group of its message.
    fn join(&mut self, index: usize, outline: &Outline, row: Row) {
        let Some(group) = self.groups.get_mut(index) else { return };
        group.rows.push(row);
        if group.rows.len() >= self.limits.recipients
            && let Some(open) = self.open.get_mut(outline)
        {
            open.retain(|other| *other != index);
        }
    }

    /// Finds the group of a message that begins with `first`.
    fn find(&mut self, outline: &Outline, id: MailId, first: &Bytes) -> rusqlite::Result<Fit> {
        let candidates = self.open.get(outline).cloned().unwrap_or_default();
        let (_, _, data_octets) = outline;
        for index in candidates {
            let Some(group) = self.groups.get(index) else { continue };
            let Some(leader) = group.rows.first().map(|leader| leader.id) else { continue };
            if !group.head.starts_with(first) {
                continue;
            }
            if first.len() as u64 == *data_octets {
                return Ok(Fit::Group(index));
            }
            // Messages that are too long to be compared get a group each.
            if *data_octets > COMPARED_LIMIT_OCTETS {
                continue;
            }
            let (leader, own) = (self.digest(leader, *data_octets)?, self.digest(id, *data_octets)?);
            match (leader, own) {
                (Some(leader), Some(own)) if leader == own => return Ok(Fit::Group(index)),
                (Some(_), Some(_)) => {}
                (None, _) | (_, None) => return Ok(Fit::Unknown),
            }
        }
        Ok(Fit::NoGroup)
    }

    /// Returns the digest of a message, if it is known or there is budget to read it.
    fn digest(&mut self, id: MailId, data_octets: u64) -> rusqlite::Result<Option<Digest>> {
        if let Some(known) = self.digests.get(id) {
            return Ok(Some(known));
        }
        if !self.take_budget(data_octets) {
            return Ok(None);
        }
        self.digests.read(self.connection, self.pool, id).map(Some)
    }

    /// Takes octets from the budget for comparing, and returns whether it had so many.
    fn take_budget(&mut self, octets: u64) -> bool {
        let compared_octets = self.compared_octets.saturating_add(octets);
        let may = compared_octets <= COMPARED_LIMIT_OCTETS;
        if may {
            self.compared_octets = compared_octets;
        }
        may
    }

    /// Returns how much is needed of a message that begins with `first`.
    fn needed_length(&self, first: &[u8], data_octets: u64) -> usize {
        let needed = needed_octets(first, data_octets, self.limits.whole_octets);
        usize::try_from(needed).unwrap_or(usize::MAX)
    }

    /// Returns how much of a message is read where its beginning is enough.
    fn head_length(&self, data_octets: u64) -> usize {
        let is_whole = data_octets <= self.limits.whole_octets;
        let limit = if is_whole { data_octets } else { data_octets.min(DATA_CHUNK_OCTETS as u64) };
        usize::try_from(limit).unwrap_or(usize::MAX)
    }
}
