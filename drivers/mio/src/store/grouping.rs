//! Puts rows of one message together: equal sender and equal data, compared octet by octet.

use std::collections::{HashMap, HashSet};
use std::ops::{ControlFlow, Range};

use bytes::Bytes;
use cmail_delivery::outbox::{DATA_CHUNK_OCTETS, MailId, Row};
use rusqlite::{Connection, MAIN_DB};

use super::database::octets;
use super::failures::add_own_failures;
use super::pool::Pool;
use super::rows::{self, Found};
use super::stamps::{Stamp, StampList};

/// How much is read of messages that turn out to be different, before no more are compared: messages that differ only far behind
/// would hold up all others each time that some of them are claimed.
const DIFFERENT_LIMIT_OCTETS: usize = 32 * 1024 * 1024;

/// How much may come together.
pub(super) struct Limits {
    /// Most groups; there is one in any case.
    pub(super) groups: usize,
    /// Most rows of one group.
    pub(super) recipients: usize,
    /// Most octets of all groups' heads together; the first group's is read in any case.
    pub(super) budget_octets: usize,
    /// Messages up to this size are read whole, of larger ones the first [`DATA_CHUNK_OCTETS`].
    pub(super) whole_octets: u64,
}

/// Rows of one message.
pub(super) struct Group {
    /// At least one.
    pub(super) rows: Vec<Row>,
    pub(super) data_octets: u64,
    /// The message or its beginning.
    pub(super) head: Bytes,
}

/// The rows that exist, in the order of their ids' first appearance.
pub(super) struct Grouped {
    pub(super) groups: Vec<Group>,
    /// Those that went beyond the limits.
    pub(super) left_over: Vec<MailId>,
    /// Of all rows in groups.
    pub(super) stamps: StampList,
}

/// Groups rows. To be called within a read transaction.
pub(super) fn group(connection: &Connection, ids: &[MailId], limits: &Limits) -> rusqlite::Result<Grouped> {
    let mut grouper = Grouper {
        connection,
        limits,
        groups: Vec::new(),
        open: HashMap::new(),
        head_octets: 0,
        different_octets: 0,
        stamps: Vec::with_capacity(ids.len()),
    };
    let mut left_over = Vec::new();
    let mut seen = HashSet::new();
    let mut texts = rows::texts();
    for id in ids {
        // A row that is named twice is still one recipient.
        if !seen.insert(*id) {
            continue;
        }
        if let Some(found) = rows::row(connection, *id, grouper.room(), &mut texts)?
            && !grouper.add(found)?
        {
            left_over.push(*id);
        }
    }
    Ok(Grouped { groups: grouper.groups, left_over, stamps: grouper.stamps })
}

/// What can be known of a message without reading it.
type Outline = (Option<Bytes>, u64);

struct Grouper<'a> {
    connection: &'a Connection,
    limits: &'a Limits,
    groups: Vec<Group>,
    /// Groups that take more rows. Those of one outline are compared one by one: messages that are not equal
    /// differ early, mostly, and all heads together keep to the budget.
    open: HashMap<Outline, Vec<usize>>,
    head_octets: usize,
    /// How much behind the heads was equal of messages that were different.
    different_octets: usize,
    stamps: StampList,
}

impl Grouper<'_> {
    /// How long a message may be to be read whole.
    fn room(&self) -> usize {
        let whole = usize::try_from(self.limits.whole_octets).unwrap_or(usize::MAX);
        if self.groups.is_empty() {
            return whole;
        }
        if self.groups.len() >= self.limits.groups {
            return 0;
        }
        whole.min(self.limits.budget_octets.saturating_sub(self.head_octets))
    }

    /// Adds a row to the group of its message, or to a new one. False if the limits have no room for that.
    fn add(&mut self, found: Found) -> rusqlite::Result<bool> {
        let Found { mut row, submission, data } = found;
        let head_length = self.head_length(row.data_octets);
        let has_room = self.groups.is_empty()
            || (self.groups.len() < self.limits.groups
                && self.head_octets.saturating_add(head_length) <= self.limits.budget_octets);
        let outline = (row.sender.clone(), row.data_octets);
        // Without room, only a row that may belong to a group is worth reading.
        if !has_room && !self.open.contains_key(&outline) {
            return Ok(false);
        }
        let head = match data {
            Some(data) if data.len() == head_length => data,
            Some(_) | None => read(self.connection, row.id, row.data_octets, 0, head_length)?,
        };
        add_own_failures(self.connection, &mut row)?;
        let stamp = Stamp::of(&row, submission.as_deref(), &head);
        let candidates = self.open.entry(outline).or_default();
        for (position, index) in candidates.iter().enumerate() {
            let Some(group) = self.groups.get_mut(*index) else { continue };
            let Some(first) = group.rows.first().map(|first| first.id) else { continue };
            if group.head != head || self.different_octets > DIFFERENT_LIMIT_OCTETS {
                continue;
            }
            if let Some(difference) =
                tail_difference(self.connection, first, row.id, row.data_octets, head.len())?
            {
                self.different_octets += difference.saturating_sub(head.len());
                continue;
            }
            self.stamps.push((row.id, stamp));
            group.rows.push(row);
            if group.rows.len() >= self.limits.recipients {
                candidates.swap_remove(position);
            }
            return Ok(true);
        }
        if has_room {
            if self.limits.recipients > 1 {
                candidates.push(self.groups.len());
            }
            self.head_octets = self.head_octets.saturating_add(head.len());
            self.stamps.push((row.id, stamp));
            self.groups.push(Group { data_octets: row.data_octets, rows: vec![row], head });
        }
        Ok(has_room)
    }

    fn head_length(&self, data_octets: u64) -> usize {
        let is_whole = data_octets <= self.limits.whole_octets;
        let limit = if is_whole { data_octets } else { data_octets.min(DATA_CHUNK_OCTETS as u64) };
        usize::try_from(limit).unwrap_or(usize::MAX)
    }
}

/// Where two messages of `data_octets` differ from `offset` on, to the chunk, if they do. Memory does not grow with their size.
fn tail_difference(
    connection: &Connection,
    left: MailId,
    right: MailId,
    data_octets: u64,
    offset: usize,
) -> rusqlite::Result<Option<usize>> {
    let end = usize::try_from(data_octets).unwrap_or(usize::MAX);
    if offset >= end {
        return Ok(None);
    }
    if end <= DATA_CHUNK_OCTETS {
        let left = read(connection, left, data_octets, offset, end)?;
        let is_equal = left == read(connection, right, data_octets, offset, end)?;
        return Ok((!is_equal).then_some(offset));
    }
    let left = open_data(connection, left)?;
    let right = open_data(connection, right)?;
    let mut buffers = [vec![0; DATA_CHUNK_OCTETS], vec![0; DATA_CHUNK_OCTETS]];
    let [left_buffer, right_buffer] = &mut buffers;
    let mut offset = offset;
    while offset < end {
        let count = left.read_at(left_buffer, offset)?;
        if count == 0
            || right.read_at(right_buffer, offset)? != count
            || left_buffer.get(..count) != right_buffer.get(..count)
        {
            return Ok(Some(offset));
        }
        offset += count;
    }
    Ok(None)
}

/// At most `limit` octets from `offset` on of a mail's data, which is known to be `data_octets` long.
pub(super) fn read(
    connection: &Connection,
    id: MailId,
    data_octets: u64,
    offset: usize,
    limit: usize,
) -> rusqlite::Result<Bytes> {
    let end = usize::try_from(data_octets).unwrap_or(usize::MAX);
    let count = end.saturating_sub(offset).min(limit);
    if count == 0 {
        return Ok(Bytes::new());
    }
    // A small value stands in the row itself, or nearly so, and this way it may be of any type.
    if end <= DATA_CHUNK_OCTETS {
        let mut statement = connection.prepare_cached("SELECT mail_data FROM outbox WHERE mail_id = ?1")?;
        return statement.query_row([id.0], |row| {
            let data = octets(row.get_ref(0)?).unwrap_or_default();
            Ok(Bytes::copy_from_slice(data.get(offset..offset + count).unwrap_or_default()))
        });
    }
    let mut buffer = vec![0; count];
    open_data(connection, id)?.read_at_exact(&mut buffer, offset)?;
    Ok(buffer.into())
}

/// Gives the octets of a range of a mail's data, which is known to be `data_octets` long, to `take` in chunks, until it says
/// that it wants no more.
pub(super) fn read_chunks(
    connection: &Connection,
    pool: &Pool,
    id: MailId,
    data_octets: u64,
    range: Range<u64>,
    take: &mut dyn FnMut(Bytes) -> ControlFlow<()>,
) -> rusqlite::Result<()> {
    let position = |octets: u64| usize::try_from(octets).unwrap_or(usize::MAX);
    let (begin, end) = (position(range.start), position(range.end));
    if begin >= end {
        return Ok(());
    }
    if position(data_octets) <= DATA_CHUNK_OCTETS {
        // There is nothing more to be read, whatever it says.
        let _ = take(read(connection, id, data_octets, begin, end - begin)?);
        return Ok(());
    }
    let data = open_data(connection, id)?;
    // SQLite would find the way from page to page itself, but takes each of them into its cache for that. What is read goes
    // past the cache, and costs a quarter.
    let mut skipped = pool.take();
    for offset in (0..begin).step_by(DATA_CHUNK_OCTETS) {
        let count = DATA_CHUNK_OCTETS.min(begin - offset);
        data.read_at_exact(skipped.first_mut(count), offset)?;
    }
    drop(skipped);
    for offset in (begin..end).step_by(DATA_CHUNK_OCTETS) {
        let count = DATA_CHUNK_OCTETS.min(end - offset);
        let mut chunk = pool.take();
        data.read_at_exact(chunk.first_mut(count), offset)?;
        if take(chunk.into_bytes(count)).is_break() {
            break;
        }
    }
    Ok(())
}

fn open_data(connection: &Connection, id: MailId) -> rusqlite::Result<rusqlite::blob::Blob<'_>> {
    connection.blob_open(MAIN_DB, c"outbox", c"mail_data", id.0, true)
}
