//! Reads mail data, of which any range can be read without the rest.

use std::ops::{ControlFlow, Range};

use bytes::Bytes;
use cmail_delivery::outbox::{DATA_CHUNK_OCTETS, MailId};
use rusqlite::{Connection, MAIN_DB};

use super::pool::Pool;
use super::rows::octets;

/// Reads at most `limit` octets from `offset` on of a mail's data, which is known to be `data_octets` long.
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
    // A small value is in or near the row itself, and this way it may be of any type.
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

/// Reads a range of a mail's data, which is known to be `data_octets` long, and passes it to `take` in chunks, until that
/// breaks.
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
        // There is nothing more to read, even if `take` continues.
        let _ = take(read(connection, id, data_octets, begin, end - begin)?);
        return Ok(());
    }
    let data = open_data(connection, id)?;
    // SQLite could skip to the range itself, but would take each page into its cache for that. Reads bypass the cache, and
    // cost a quarter.
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

/// Opens a mail's data for reading.
pub(super) fn open_data(connection: &Connection, id: MailId) -> rusqlite::Result<rusqlite::blob::Blob<'_>> {
    connection.blob_open(MAIN_DB, c"outbox", c"mail_data", id.0, true)
}
