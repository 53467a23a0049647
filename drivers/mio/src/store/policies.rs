//! The MTA-STS policies of domains: the table `dispatch_sts`.
//!
//! The table is created when the first policy is stored. No verdict hangs on it: if it cannot be written, policies are used from memory, and
//! the daemon says so once. A row that cannot be read counts as absent.

use cmail_delivery::address::Domain;
use cmail_delivery::outbox::{POLICY_AGE_SECONDS, POLICY_USE_SECONDS, PolicyNote, StoreTrouble};
use cmail_delivery::sts::{POLICY_LIMIT_OCTETS, PolicyId, StalePolicy, StoredPolicy};
use cmail_delivery::time::UnixTime;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, OptionalExtension as _, Row, params};

use super::error::{advice, trouble};
use super::own_table::{if_present, or_created};
use super::rows::{AsText, octets};
use super::verdicts::within_savepoint;

/// The table. `sts_policy` is the policy as it was fetched: so one parser reads it then and later.
const CREATE: &str = "CREATE TABLE IF NOT EXISTS dispatch_sts (
    sts_domain TEXT PRIMARY KEY NOT NULL,
    sts_id TEXT NOT NULL,
    sts_policy TEXT NOT NULL,
    sts_fetched INTEGER NOT NULL,
    sts_expires INTEGER NOT NULL,
    sts_used INTEGER NOT NULL) WITHOUT ROWID";

const PUT: &str = "INSERT INTO dispatch_sts (sts_domain, sts_id, sts_policy, sts_fetched, sts_expires, sts_used) \
    VALUES (?1, ?2, ?3, ?4, ?5, ?6) ON CONFLICT (sts_domain) DO UPDATE SET sts_id = excluded.sts_id, \
    sts_policy = excluded.sts_policy, sts_fetched = excluded.sts_fetched, sts_expires = excluded.sts_expires, sts_used = excluded.sts_used";

const USE: &str = "UPDATE dispatch_sts SET sts_used = max(sts_used, ?2) WHERE sts_domain = ?1";

const SELECT: &str = "SELECT sts_domain, sts_id, sts_policy, sts_fetched, sts_expires, sts_used FROM dispatch_sts WHERE sts_domain = ?1";

/// As [`StoredPolicy::is_stale`] has it.
const SELECT_STALE: &str = "SELECT sts_domain, sts_expires - sts_fetched FROM dispatch_sts \
    WHERE sts_used > ?1 - ?2 AND sts_expires > ?1 \
    AND (sts_fetched > ?1 OR ?1 - sts_fetched >= min(?3, sts_expires - sts_fetched) / 2) ORDER BY sts_fetched LIMIT ?4";

/// Deletes some of what has expired long ago: a clock that is set wrong for a while must not make policies be forgotten.
const PRUNE: &str = "DELETE FROM dispatch_sts WHERE sts_domain IN \
    (SELECT sts_domain FROM dispatch_sts WHERE sts_expires < ?1 ORDER BY sts_expires LIMIT 100)";

/// The time after which a policy that has expired is deleted.
const KEPT_SECONDS: i64 = 30 * 24 * 60 * 60;

/// The table of one connection to the database.
#[derive(Debug, Default)]
pub(super) struct PolicyTable {
    /// Whether it could not be written the last time.
    is_in_trouble: bool,
}

impl PolicyTable {
    /// Stores what is to be noted of policies, and returns whether it could. Fails only if the transaction is lost.
    pub(super) fn note(&mut self, transaction: &Connection, notes: &[PolicyNote]) -> rusqlite::Result<bool> {
        if notes.is_empty() {
            return Ok(true);
        }
        let put = || notes.iter().try_for_each(|note| put(transaction, note));
        let Err(error) = within_savepoint(transaction, put) else {
            if std::mem::take(&mut self.is_in_trouble) {
                log::info!("the table dispatch_sts is written again");
            }
            return Ok(true);
        };
        self.tell(transaction, &error);
        // SQLite ends the transaction after some errors: without it, nothing may be written.
        if transaction.is_autocommit() { Err(error) } else { Ok(false) }
    }

    /// Tells that policies cannot be stored, once.
    pub(super) fn tell(&mut self, connection: &Connection, error: &rusqlite::Error) {
        // A lock is held for a while, and what is not stored now is stored later.
        if trouble(connection, error) == StoreTrouble::Busy
            || std::mem::replace(&mut self.is_in_trouble, true)
        {
            return;
        }
        log::warn!(
            "cannot write the table dispatch_sts: {error}; MTA-STS policies are used from memory, and are not known any more after a \
             restart; {}",
            advice(connection, error)
        );
    }
}

/// Returns the policy of a domain, if there is one that can be read.
pub(super) fn read(connection: &Connection, domain: &Domain) -> rusqlite::Result<Option<StoredPolicy>> {
    let read = || {
        let mut statement = connection.prepare_cached(SELECT)?;
        statement.query_row([domain.as_str()], stored).optional()
    };
    Ok(if_present(read)?.flatten().flatten())
}

/// Returns the policies that are to be fetched again.
pub(super) fn stale(
    connection: &Connection,
    now: UnixTime,
    limit: u32,
) -> rusqlite::Result<Vec<StalePolicy>> {
    let read = || {
        let mut statement = connection.prepare_cached(SELECT_STALE)?;
        let mut rows = statement.query(params![now.0, POLICY_USE_SECONDS, POLICY_AGE_SECONDS, limit])?;
        let mut found = Vec::new();
        while let Some(row) = rows.next()? {
            if let (Some(domain), Some(seconds)) = (domain(row, 0)?, integer(row, 1)?) {
                let seconds = u64::try_from(seconds).unwrap_or(0);
                found.push(StalePolicy { domain, max_age: std::time::Duration::from_secs(seconds) });
            }
        }
        Ok(found)
    };
    Ok(if_present(read)?.unwrap_or_default())
}

fn put(transaction: &Connection, note: &PolicyNote) -> rusqlite::Result<()> {
    match note {
        PolicyNote::Fetched(stored) => {
            let StoredPolicy { domain, id, text, fetched, expires, used } = stored;
            let values = params![domain.as_str(), id.as_str(), AsText(text), fetched.0, expires.0, used.0];
            or_created(transaction, CREATE, || transaction.prepare_cached(PUT)?.execute(values))?;
            let long_ago = fetched.0.saturating_sub(KEPT_SECONDS);
            transaction.prepare_cached(PRUNE)?.execute([long_ago]).map(drop)
        }
        // Without the row there is nothing to note.
        PolicyNote::Used(domain, at) => {
            let values = params![domain.as_str(), at.0];
            if_present(|| transaction.prepare_cached(USE)?.execute(values)).map(drop)
        }
    }
}

/// Reads a row; `None` if it holds what is no policy.
fn stored(row: &Row<'_>) -> rusqlite::Result<Option<StoredPolicy>> {
    let text = octets(row.get_ref(2)?).filter(|text| text.len() <= POLICY_LIMIT_OCTETS);
    let (Some(domain), Some(text)) = (domain(row, 0)?, text) else { return Ok(None) };
    let id = octets(row.get_ref(1)?).and_then(|id| PolicyId::parse(std::str::from_utf8(&id).ok()?));
    let times = (integer(row, 3)?, integer(row, 4)?, integer(row, 5)?);
    let (Some(id), (Some(fetched), Some(expires), Some(used))) = (id, times) else { return Ok(None) };
    let (fetched, expires, used) = (UnixTime(fetched), UnixTime(expires), UnixTime(used));
    Ok(Some(StoredPolicy { domain, id, text: text.into_owned().into(), fetched, expires, used }))
}

fn domain(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<Domain>> {
    let text = octets(row.get_ref(column)?);
    Ok(text.and_then(|text| Domain::parse(std::str::from_utf8(&text).ok()?).ok()))
}

fn integer(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<i64>> {
    Ok(if let ValueRef::Integer(number) = row.get_ref(column)? { Some(number) } else { None })
}

#[cfg(test)]
mod tests;
