//! A master database as the other programs of the suite see it: schema 9, written here by independent SQL.

use super::PATIENCE;
use rusqlite::{Connection, OptionalExtension, params};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The tables a delivering daemon needs, word for word from the contract (section 3).
const SCHEMA: &str = "
CREATE TABLE meta (key TEXT PRIMARY KEY NOT NULL UNIQUE, value TEXT);
INSERT INTO meta (key, value) VALUES ('schema_version', '9');
CREATE TABLE users (user_name TEXT NOT NULL UNIQUE, user_authdata TEXT, user_database TEXT,
    user_alias TEXT REFERENCES users (user_name) ON DELETE SET NULL ON UPDATE CASCADE);
CREATE TABLE outbox (
    mail_id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL UNIQUE,
    mail_remote TEXT,
    mail_envelopefrom TEXT,
    mail_envelopeto TEXT NOT NULL,
    mail_submission INTEGER NOT NULL DEFAULT (strftime('%s','now')),
    mail_submitter TEXT,
    mail_data TEXT);
CREATE TABLE faillog (
    fail_mail INTEGER NOT NULL REFERENCES outbox (mail_id) ON DELETE CASCADE ON UPDATE CASCADE,
    fail_message TEXT,
    fail_time TEXT NOT NULL DEFAULT (strftime('%s','now')),
    fail_fatal BOOLEAN NOT NULL DEFAULT (0));
CREATE VIEW outbound AS
    SELECT mail_id, mail_remote, mail_envelopefrom, mail_envelopeto, mail_submission, mail_submitter, mail_data,
        COALESCE(failures, 0) AS mail_failcount,
        COALESCE(last, 0) AS mail_lasttry,
        COALESCE(fatal, 0) AS mail_fatality
    FROM outbox LEFT JOIN (
        SELECT fail_mail, COUNT(fail_mail) AS failures, MAX(fail_time) AS last, SUM(fail_fatal) AS fatal
        FROM faillog GROUP BY fail_mail) ON fail_mail = mail_id;
";

/// A mail to insert.
#[derive(Clone, Debug)]
pub(crate) struct Mail {
    pub(crate) remote: Option<String>,
    pub(crate) from: Option<String>,
    pub(crate) to: Vec<u8>,
    pub(crate) data: Option<Vec<u8>>,
    pub(crate) submission: Option<i64>,
}

impl Mail {
    pub(crate) fn to(recipient: &str) -> Self {
        Self {
            remote: None,
            from: Some("sender@client.example".to_owned()),
            to: recipient.as_bytes().to_vec(),
            data: Some(b"Subject: test\r\nMessage-ID: <1@client.example>\r\n\r\nhello\r\n".to_vec()),
            submission: None,
        }
    }

    pub(crate) fn raw_recipient(mut self, recipient: &[u8]) -> Self {
        self.to = recipient.to_vec();
        self
    }

    pub(crate) fn from(mut self, sender: &str) -> Self {
        self.from = Some(sender.to_owned());
        self
    }

    pub(crate) fn null_sender(mut self) -> Self {
        self.from = None;
        self
    }

    pub(crate) fn remote(mut self, remote: &str) -> Self {
        self.remote = Some(remote.to_owned());
        self
    }

    pub(crate) fn data(mut self, data: impl AsRef<[u8]>) -> Self {
        self.data = Some(data.as_ref().to_vec());
        self
    }

    pub(crate) fn no_data(mut self) -> Self {
        self.data = None;
        self
    }
}

/// A row of `outbox`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) id: i64,
    pub(crate) remote: Option<String>,
    pub(crate) from: Option<String>,
    pub(crate) to: String,
    pub(crate) data: Option<Vec<u8>>,
}

/// A row of `faillog`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) mail: i64,
    pub(crate) text: String,
    pub(crate) fatal: bool,
    pub(crate) time: i64,
}

/// A database and its place.
pub(crate) struct Database {
    path: PathBuf,
    pub(crate) connection: Connection,
}

impl Database {
    /// With a rollback journal, as the suite's own script and `initdb` make them.
    pub(crate) fn create(path: &Path) -> Self {
        Self::create_in_mode(path, "delete")
    }

    pub(crate) fn create_in_mode(path: &Path, journal_mode: &str) -> Self {
        let connection = Connection::open(path).unwrap();
        connection.busy_timeout(PATIENCE).unwrap();
        connection.pragma_update(None, "journal_mode", journal_mode).unwrap();
        connection.execute_batch(SCHEMA).unwrap();
        connection.pragma_update(None, "foreign_keys", true).unwrap();
        Self { path: path.to_owned(), connection }
    }

    /// Lets another program write.
    pub(crate) fn execute(&self, sql: &str) {
        self.another().execute_batch(sql).unwrap();
    }

    /// The first column of what another program reads.
    pub(crate) fn texts(&self, sql: &str) -> Vec<String> {
        let connection = self.another();
        let mut statement = connection.prepare(sql).unwrap();
        statement.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
    }

    /// The names of all tables.
    pub(crate) fn tables(&self) -> Vec<String> {
        self.texts("SELECT name FROM sqlite_schema WHERE type = 'table'")
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// A further connection, for a writer of its own.
    pub(crate) fn another(&self) -> Connection {
        let connection = Connection::open(&self.path).unwrap();
        connection.busy_timeout(PATIENCE).unwrap();
        connection.pragma_update(None, "foreign_keys", true).unwrap();
        connection
    }

    pub(crate) fn insert(&self, mail: &Mail) -> i64 {
        insert(&self.connection, mail)
    }

    /// All or nothing, so that the daemon sees the mails at once.
    pub(crate) fn insert_all(&self, mails: &[Mail]) -> Vec<i64> {
        self.connection.execute_batch("BEGIN IMMEDIATE").unwrap();
        let ids = mails.iter().map(|mail| self.insert(mail)).collect();
        self.connection.execute_batch("COMMIT").unwrap();
        ids
    }

    /// Records a failure as an earlier run would have, so many seconds ago.
    pub(crate) fn insert_failure(&self, mail: i64, text: &str, fatal: bool, seconds_ago: i64) {
        self.connection
            .execute(
                "INSERT INTO faillog (fail_mail, fail_message, fail_time, fail_fatal)
                 VALUES (?1, ?2, strftime('%s','now') - ?3, ?4)",
                params![mail, text, seconds_ago, fatal],
            )
            .unwrap();
    }

    /// Leaves the database as a program does that is killed in the middle of a transaction: the data of all mails are
    /// overwritten, and only the rollback journal knows what they were. There have to be enough of them for SQLite to
    /// write before the end. After this, only the program that is to roll it back may open the database.
    pub(crate) fn tear(&self) {
        const HOT: [u8; 8] = [0xd9, 0xd5, 0x05, 0xf9, 0x20, 0xa1, 0x63, 0xd7];
        let mut journal = self.path.clone().into_os_string();
        journal.push("-journal");
        let before = std::fs::read(&self.path).unwrap();
        let overwrite = "BEGIN IMMEDIATE; UPDATE outbox SET mail_data = CAST(zeroblob(50000) AS TEXT)";
        self.connection.execute_batch(&format!("PRAGMA cache_size = 1; {overwrite}")).unwrap();
        let torn = [self.path.as_os_str(), &journal].map(|name| std::fs::read(name).unwrap());
        self.connection.execute_batch("ROLLBACK").unwrap();
        assert!(torn[0] != before && torn[1].starts_with(&HOT), "SQLite has written nothing yet");
        std::fs::write(&self.path, &torn[0]).unwrap();
        std::fs::write(&journal, &torn[1]).unwrap();
    }

    pub(crate) fn outbox(&self) -> Vec<Row> {
        let mut statement = self
            .connection
            .prepare(
                "SELECT mail_id, mail_remote, mail_envelopefrom, CAST(mail_envelopeto AS BLOB),
                        CAST(mail_data AS BLOB)
                 FROM outbox ORDER BY mail_id",
            )
            .unwrap();
        let rows = statement.query_map([], |row| {
            let to: Vec<u8> = row.get(3)?;
            let to = String::from_utf8_lossy(&to).into_owned();
            Ok(Row { id: row.get(0)?, remote: row.get(1)?, from: row.get(2)?, to, data: row.get(4)? })
        });
        rows.unwrap().map(Result::unwrap).collect()
    }

    pub(crate) fn ids(&self) -> Vec<i64> {
        self.outbox().iter().map(|row| row.id).collect()
    }

    pub(crate) fn failures(&self) -> Vec<Failure> {
        let mut statement = self
            .connection
            .prepare(
                "SELECT fail_mail, CAST(fail_message AS BLOB), fail_fatal, CAST(fail_time AS INTEGER)
                 FROM faillog ORDER BY rowid",
            )
            .unwrap();
        let rows = statement.query_map([], |row| {
            let text: Option<Vec<u8>> = row.get(1)?;
            let text = String::from_utf8_lossy(&text.unwrap_or_default()).into_owned();
            Ok(Failure { mail: row.get(0)?, text, fatal: row.get(2)?, time: row.get(3)? })
        });
        rows.unwrap().map(Result::unwrap).collect()
    }

    pub(crate) fn failures_of(&self, mail: i64) -> Vec<Failure> {
        self.failures().into_iter().filter(|failure| failure.mail == mail).collect()
    }

    pub(crate) fn row(&self, mail: i64) -> Option<Row> {
        self.outbox().into_iter().find(|row| row.id == mail)
    }

    /// Rows with a null sender that were not there before: bounces.
    pub(crate) fn bounces(&self) -> Vec<Row> {
        self.outbox().into_iter().filter(|row| row.from.as_deref().unwrap_or("").is_empty()).collect()
    }

    /// Blocks until the condition holds. The database belongs to another process too, so this asks again
    /// and again: the one polling loop of the bench.
    pub(crate) fn wait(&self, what: &str, condition: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + PATIENCE * 2;
        while !condition(self) {
            assert!(
                Instant::now() < deadline,
                "waited in vain until {what}; outbox {:?}, faillog {:?}",
                self.outbox().iter().map(|row| (row.id, row.to.clone())).collect::<Vec<_>>(),
                self.failures()
            );
            std::thread::park_timeout(Duration::from_millis(20));
        }
    }

    pub(crate) fn wait_until_empty(&self) {
        self.wait("the outbox is empty", |database| database.ids().is_empty());
    }

    /// Blocks until the mail has so many failures, and returns them.
    pub(crate) fn wait_for_failures(&self, mail: i64, count: usize) -> Vec<Failure> {
        self.wait(&format!("mail {mail} has {count} failures"), |db| db.failures_of(mail).len() >= count);
        self.failures_of(mail)
    }

    pub(crate) fn wait_for_failure(&self, mail: i64) -> Failure {
        self.wait_for_failures(mail, 1).remove(0)
    }

    /// Blocks until there are so many bounces, and returns them.
    pub(crate) fn wait_for_bounces(&self, count: usize) -> Vec<Row> {
        self.wait(&format!("there are {count} bounces"), |db| db.bounces().len() >= count);
        self.bounces()
    }

    pub(crate) fn schema_version(&self) -> Option<String> {
        self.connection
            .query_row("SELECT value FROM meta WHERE key = 'schema_version'", [], |row| row.get(0))
            .optional()
            .unwrap()
    }

    pub(crate) fn journal_mode(&self) -> String {
        self.another().query_row("PRAGMA journal_mode", [], |row| row.get(0)).unwrap()
    }
}

pub(crate) fn insert(connection: &Connection, mail: &Mail) -> i64 {
    // Octets are bound as a BLOB and become TEXT unchanged, NUL included.
    connection
        .execute(
            "INSERT INTO outbox (mail_remote, mail_envelopefrom, mail_envelopeto, mail_data, mail_submission)
             VALUES (?1, ?2, CAST(?3 AS TEXT), CAST(?4 AS TEXT), COALESCE(?5, strftime('%s','now')))",
            params![mail.remote, mail.from, mail.to, mail.data, mail.submission],
        )
        .unwrap();
    connection.last_insert_rowid()
}
