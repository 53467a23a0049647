//! The master database as another program of the mail suite sees it: mail is put into it here, and what the daemon does to
//! it is watched.

use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use cmail_dispatchd::engine;
use rusqlite::Connection;

use crate::Result;

/// How often the outbox is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// The daemon deletes the faillog of a mail together with the mail, and a bounce when it is delivered. Triggers keep a copy
/// of both. Tables that begin with `dispatch_` disturb no program of the suite.
const NOTEBOOK: &str = "
CREATE TABLE dispatch_demo_faillog (mail INTEGER, message TEXT, fatal BOOLEAN);
CREATE TABLE dispatch_demo_bounce (mail INTEGER, recipient TEXT, data TEXT);
CREATE TRIGGER dispatch_demo_failed AFTER INSERT ON faillog BEGIN
    INSERT INTO dispatch_demo_faillog VALUES (new.fail_mail, new.fail_message, new.fail_fatal);
END;
CREATE TRIGGER dispatch_demo_bounced AFTER INSERT ON outbox WHEN coalesce(new.mail_envelopefrom, '') = '' BEGIN
    INSERT INTO dispatch_demo_bounce VALUES (new.mail_id, new.mail_envelopeto, new.mail_data);
END;
";

/// A failed attempt, as the daemon has recorded it.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    /// Which mail.
    pub(crate) mail: i64,
    /// Why it failed.
    pub(crate) message: String,
    /// Whether it makes no sense to try again.
    pub(crate) fatal: bool,
}

/// A bounce, as the daemon has queued it.
#[derive(Clone, Debug)]
pub(crate) struct Bounce {
    /// Its number in the outbox.
    pub(crate) mail: i64,
    /// Whom it goes to.
    pub(crate) recipient: String,
    /// The whole text.
    pub(crate) data: String,
}

/// A connection to the master database.
#[derive(Debug)]
pub(crate) struct Outbox {
    connection: Connection,
}

impl Outbox {
    /// Creates the database, as the word `initdb` of the command line does, and opens it.
    pub(crate) fn create(path: &Path) -> Result<Self> {
        engine::create_database(path, None)?;
        let connection = Connection::open(path)?;
        connection.execute_batch(NOTEBOOK)?;
        Ok(Self { connection })
    }

    /// Queues a mail for one recipient, as every program of the suite does; returns its number.
    pub(crate) fn queue(
        &self,
        remote: Option<&str>,
        sender: &str,
        recipient: &str,
        data: &str,
    ) -> Result<i64> {
        self.connection.execute(
            "INSERT INTO outbox (mail_remote, mail_envelopefrom, mail_envelopeto, mail_submitter, mail_data)
             VALUES (?1, ?2, ?3, 'demo', ?4)",
            (remote, sender, recipient, data),
        )?;
        Ok(self.connection.last_insert_rowid())
    }

    /// Waits until the outbox is empty; false if it is not in time.
    pub(crate) fn wait_until_empty(&self, patience: Duration) -> Result<bool> {
        let began = Instant::now();
        while self.number("SELECT count(*) FROM outbox")? > 0 {
            if began.elapsed() > patience {
                return Ok(false);
            }
            thread::sleep(LOOK_EVERY);
        }
        Ok(true)
    }

    /// Whether the mail is still there.
    pub(crate) fn holds(&self, mail: i64) -> Result<bool> {
        let count: i64 =
            self.connection
                .query_row("SELECT count(*) FROM outbox WHERE mail_id = ?1", [mail], |row| row.get(0))?;
        Ok(count > 0)
    }

    /// How many rows are left in `faillog`.
    pub(crate) fn faillog_rows(&self) -> Result<i64> {
        self.number("SELECT count(*) FROM faillog")
    }

    /// Every attempt that has failed, in the order in which that was recorded.
    pub(crate) fn failures(&self) -> Result<Vec<Failure>> {
        let mut statement = self
            .connection
            .prepare("SELECT mail, CAST(message AS TEXT), fatal FROM dispatch_demo_faillog ORDER BY rowid")?;
        let rows = statement.query_map([], |row| {
            Ok(Failure { mail: row.get(0)?, message: row.get(1)?, fatal: row.get(2)? })
        })?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }

    /// Every bounce that was made.
    pub(crate) fn bounces(&self) -> Result<Vec<Bounce>> {
        let mut statement = self
            .connection
            .prepare("SELECT mail, recipient, CAST(data AS TEXT) FROM dispatch_demo_bounce ORDER BY rowid")?;
        let rows = statement.query_map([], |row| {
            Ok(Bounce { mail: row.get(0)?, recipient: row.get(1)?, data: row.get(2)? })
        })?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }

    fn number(&self, sql: &str) -> Result<i64> {
        Ok(self.connection.query_row(sql, [], |row| row.get(0))?)
    }
}
