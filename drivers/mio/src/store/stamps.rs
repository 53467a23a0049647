//! What mail was when it was claimed, so that what becomes of it is not recorded for another.
//!
//! Nobody locks a row while a server is waited for. Another program may change it meanwhile, or put other mail in its place, or
//! another file in the place of the database.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use bytes::BytesMut;
use cmail_delivery::outbox::{Commit, MailId, Row};
use rusqlite::Connection;

use super::requests;

/// How much mail is remembered: more than is ever worked on.
const LIMIT: usize = 65_536;

/// What of a row is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// Sender, recipient and length: what was sent.
    Message,
    /// Also where it was to be sent.
    MessageAndRemote,
}

/// Of mail that was claimed, or read for a bounce, and of which nothing was recorded since.
#[derive(Debug, Default)]
pub(super) struct Stamps(BTreeMap<MailId, Stamp>);

#[derive(Clone, Copy, Debug)]
struct Stamp {
    /// The version of the database.
    version: i64,
    message: u64,
    remote: u64,
}

impl Stamps {
    /// Remembers rows as they were in a version of the database.
    pub(super) fn put_all<'a>(&mut self, rows: impl IntoIterator<Item = &'a Row>, version: i64) {
        for row in rows {
            self.0.insert(row.id, Stamp::of(row, version));
        }
        while self.0.len() > LIMIT {
            self.0.pop_first();
        }
    }

    /// The row as it is now, if it is not what it was. To be called within a transaction, of which this is the version. Where
    /// nobody else has written, this costs nothing.
    pub(super) fn changed(
        &self,
        connection: &Connection,
        id: MailId,
        part: Part,
        version: i64,
    ) -> rusqlite::Result<Option<Row>> {
        let Some(before) = self.0.get(&id).filter(|stamp| stamp.version != version) else { return Ok(None) };
        let row = requests::row(connection, id, 0, &mut BytesMut::new())?.map(|(row, _)| row);
        Ok(row.filter(|row| {
            let now = Stamp::of(row, version);
            now.message != before.message || (part == Part::MessageAndRemote && now.remote != before.remote)
        }))
    }

    /// Forgets what something was recorded of.
    pub(super) fn forget(&mut self, commit: &Commit) {
        let failed = commit.failed.iter().map(|attempt| &attempt.id);
        let replaced = commit.replaced.iter().flat_map(|replacement| &replacement.originals);
        for id in commit.delivered.iter().chain(failed).chain(replaced) {
            self.0.remove(id);
        }
    }
}

impl Stamp {
    fn of(row: &Row, version: i64) -> Self {
        let message = digest(&(&row.sender, &row.recipient, row.data_octets));
        Self { version, message, remote: digest(&row.remote) }
    }
}

fn digest(value: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}
