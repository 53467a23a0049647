//! The ledger of attempts: what was tried for each mail, what came of it, how long it took and what was said. It outlives the mail.
//!
//! The rows of an outcome are written in the transaction that records it. No decision hangs on them: if they cannot be
//! written, the outcome is recorded without them, and the daemon says so once.

mod fate;

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use cmail_delivery::attempt::{AttemptFacts, AttemptKind, Server};
use cmail_delivery::command::CommandName;
use cmail_delivery::course::{Conversation, Course};
use cmail_delivery::one_line::Octets;
use cmail_delivery::outbox::MailId;
use cmail_delivery::remote_id::remote_id;
use cmail_delivery::shown::truncated;
use cmail_delivery::time::{UnixMillis, UnixTime};
use cmail_delivery::wording::retry_line;
use rusqlite::{Connection, OptionalExtension as _, params};

pub(super) use self::fate::Fate;
use super::error::advice;
use super::rows::octets;
use super::run::{Run, connection_key};

/// The tables, for people too. Nothing refers to the outbox, so that deleting mail costs no more than before. A further index on a
/// recipient or an identifier would cost half of the rate, because each row would change another page.
pub(super) const CREATE: &str = "
CREATE TABLE IF NOT EXISTS dispatch_connections (
    connection_id INTEGER PRIMARY KEY,
    opened_ms INTEGER NOT NULL,
    next_hop TEXT NOT NULL,
    host TEXT NOT NULL,
    address TEXT NOT NULL,
    port INTEGER NOT NULL,
    tls_version TEXT,
    tls_cipher TEXT,
    tls_group TEXT,
    tls_peer TEXT,
    auth TEXT,
    greeting TEXT,
    extensions TEXT,
    lookup_ms INTEGER,
    connect_ms INTEGER,
    tls_ms INTEGER,
    negotiate_ms INTEGER,
    transcript TEXT
);
CREATE TABLE IF NOT EXISTS dispatch_attempts (
    attempt_id INTEGER PRIMARY KEY,
    mail_id INTEGER NOT NULL,
    at_ms INTEGER NOT NULL,
    result TEXT NOT NULL,
    kind TEXT,
    connection_id INTEGER,
    transaction_no INTEGER,
    sender TEXT,
    recipient TEXT NOT NULL,
    message_id TEXT,
    octets INTEGER,
    submitted INTEGER,
    code INTEGER,
    status TEXT,
    command TEXT,
    text TEXT,
    remote_id TEXT,
    a_ms INTEGER,
    b_ms INTEGER,
    c_ms INTEGER,
    d_ms INTEGER,
    why TEXT
);
CREATE INDEX IF NOT EXISTS dispatch_attempts_mail ON dispatch_attempts (mail_id);
CREATE VIEW IF NOT EXISTS dispatch_history AS
    SELECT * FROM dispatch_attempts LEFT JOIN dispatch_connections USING (connection_id);
";

/// Most octets that are kept of the reply by which a server takes a mail.
const ACCEPTANCE_LIMIT_OCTETS: usize = 200;

/// Most rows that are deleted in one transaction: it takes a few milliseconds, and others wait for it.
const PRUNE_LIMIT_ROWS: i64 = 1000;

/// So many new rows later, old ones are deleted.
const PRUNE_INTERVAL_ROWS: i64 = 500;

/// How long a connection is kept after its attempts: so long it may have carried mail before the oldest attempt that is left.
const CONNECTION_SPAN_MS: i64 = 60 * 60 * 1000;

/// Most connections that are known to be in the table.
const KNOWN_CONNECTIONS_LIMIT: usize = 20_000;

/// How long the ledger is left alone after it could not be written.
const TROUBLE_PAUSE: Duration = Duration::from_secs(60);

/// Which attempts the ledger has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Entries {
    /// None: the tables are neither created nor written.
    #[default]
    Off,
    /// Those that were no success, and every end of a mail that was not delivered.
    Failures,
    /// All.
    All,
}

impl fmt::Display for Entries {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Off => "off",
            Self::Failures => "failures",
            Self::All => "all",
        })
    }
}

/// How much of an address the ledger has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Addresses {
    /// All of it.
    #[default]
    Full,
    /// What stands after the last `@`.
    Domain,
    /// Nothing.
    None,
}

impl fmt::Display for Addresses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full => "full",
            Self::Domain => "domain",
            Self::None => "none",
        })
    }
}

/// What the ledger has, and for how long.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct LedgerSettings {
    pub(crate) entries: Entries,
    pub(crate) addresses: Addresses,
    pub(crate) keep: Retention,
}

/// For how long entries are kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Retention {
    /// How old an entry gets.
    pub(crate) age: Duration,
    /// How many attempts there are at most.
    pub(crate) rows: u32,
}

/// The ledger of one connection to the database.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    settings: LedgerSettings,
    pub(super) run: Run,
    /// True if the tables are known to exist.
    is_created: bool,
    /// Connections that are in the table, each with the length of its transcript there.
    known_connections: HashMap<i64, usize>,
    /// How many attempts were written since old ones were deleted last.
    new_rows: i64,
    /// When the ledger could not be written.
    trouble_since: Option<Instant>,
}

/// A mail as it stands in the outbox.
#[derive(Default)]
struct Mail {
    sender: Option<String>,
    recipient: Option<String>,
    octets: Option<i64>,
    submitted: Option<i64>,
}

impl Ledger {
    pub(super) fn new(settings: LedgerSettings) -> Self {
        // The first commit deletes what has become too old meanwhile.
        Self { settings, new_rows: PRUNE_INTERVAL_ROWS, ..Self::default() }
    }

    /// Returns a ledger of the same settings for another connection to the database.
    pub(super) fn renewed(&self) -> Self {
        Self { run: self.run.renewed(), ..Self::new(self.settings) }
    }

    /// Forgets what is known of the tables: a transaction that wrote to them was rolled back.
    pub(super) fn forget(&mut self) {
        self.run.forget();
        self.is_created = false;
        self.known_connections.clear();
    }

    /// Adds an attempt on a mail that was submitted then, and the line of the configuration that says when it is tried next, if they are
    /// known. To be called before the mail is deleted, within the same transaction. Fails only if that is lost.
    pub(super) fn add_attempt(
        &mut self,
        connection: &Connection,
        id: MailId,
        attempt: &AttemptFacts<'_>,
        submission: Option<UnixTime>,
        line: Option<u32>,
        text: impl FnOnce() -> String,
    ) -> rusqlite::Result<()> {
        let fate = if attempt.kind == AttemptKind::Delivered {
            Fate::Delivered
        } else if attempt.kind == AttemptKind::Uncertain {
            Fate::Uncertain
        } else if attempt.is_fatal {
            Fate::Failed
        } else {
            Fate::Deferred
        };
        let is_wanted = match self.settings.entries {
            Entries::Off => false,
            Entries::Failures => fate != Fate::Delivered,
            Entries::All => true,
        };
        if !is_wanted {
            return Ok(());
        }
        self.write(connection, |ledger, run| {
            let number = match attempt.course.zip(attempt.server) {
                Some((course, server)) => Some(ledger.add_connection(connection, run, server, course)?),
                None => None,
            };
            let mut text = text();
            if fate == Fate::Delivered {
                text = truncated(&text, ACCEPTANCE_LIMIT_OCTETS);
            }
            ledger.insert_attempt(connection, id, (attempt, submission, line), fate, number, &text)
        })
    }

    /// Adds the end of a mail that is no attempt, with the order or the line of the configuration that has caused it, if one has. To be called before the mail is
    /// deleted.
    pub(super) fn add_end(
        &mut self,
        connection: &Connection,
        id: MailId,
        fate: Fate,
        why: Option<&str>,
    ) -> rusqlite::Result<()> {
        if self.settings.entries == Entries::Off {
            return Ok(());
        }
        self.write(connection, |ledger, _| ledger.insert_end(connection, id, fate, why))
    }

    /// Adds that a mail may have arrived already, since its last flight began then, unless that stands there since.
    pub(super) fn add_doubt(
        &mut self,
        connection: &Connection,
        id: MailId,
        since: UnixMillis,
        why: &str,
    ) -> rusqlite::Result<()> {
        if self.settings.entries == Entries::Off {
            return Ok(());
        }
        self.write(connection, |ledger, _| {
            let is_known = connection
                .prepare_cached(
                    "SELECT 1 FROM dispatch_attempts WHERE mail_id = ?1 AND result = 'uncertain' AND at_ms >= ?2",
                )?
                .exists(params![id.0, since.0])?;
            if is_known { Ok(()) } else { ledger.insert_end(connection, id, Fate::Uncertain, Some(why)) }
        })
    }

    fn insert_end(
        &mut self,
        connection: &Connection,
        id: MailId,
        fate: Fate,
        why: Option<&str>,
    ) -> rusqlite::Result<()> {
        let Some(mail) = mail(connection, id)? else { return Ok(()) };
        let mut statement = connection.prepare_cached(
                "INSERT INTO dispatch_attempts (mail_id, at_ms, result, sender, recipient, octets, submitted, why) \
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
            )?;
        statement.execute(params![
            id.0,
            now().0,
            fate.as_str(),
            mail.sender.map(|sender| self.shown(&sender).to_owned()),
            self.shown(&mail.recipient.unwrap_or_default()),
            mail.octets,
            mail.submitted,
            why,
        ])?;
        self.new_rows += 1;
        Ok(())
    }

    /// Deletes entries that are too old or too many, a limited number of them. Fails only if the transaction is lost.
    pub(super) fn prune(&mut self, connection: &Connection) -> rusqlite::Result<()> {
        if self.settings.entries == Entries::Off {
            return Ok(());
        }
        self.write(connection, |ledger, _| {
            ledger.new_rows = 0;
            let oldest_ms = ledger.oldest().0;
            connection
                .prepare_cached(
                    "DELETE FROM dispatch_attempts WHERE attempt_id IN \
                     (SELECT attempt_id FROM dispatch_attempts ORDER BY attempt_id LIMIT ?1) AND \
                     (at_ms < ?2 OR attempt_id <= (SELECT max(attempt_id) FROM dispatch_attempts) - ?3)",
                )?
                .execute(params![PRUNE_LIMIT_ROWS, oldest_ms, ledger.settings.keep.rows])?;
            connection
                .prepare_cached(
                    "DELETE FROM dispatch_connections WHERE connection_id IN \
                     (SELECT connection_id FROM dispatch_connections ORDER BY connection_id LIMIT ?1) AND opened_ms < \
                     ifnull((SELECT at_ms FROM dispatch_attempts ORDER BY attempt_id LIMIT 1), ?2) - ?3",
                )?
                .execute(params![PRUNE_LIMIT_ROWS, oldest_ms, CONNECTION_SPAN_MS])?;
            Ok(())
        })
    }

    /// Returns when the oldest entries that are kept were written, also if none is.
    pub(super) fn oldest(&self) -> UnixMillis {
        let age_ms = i64::try_from(self.settings.keep.age.as_millis()).unwrap_or(i64::MAX);
        UnixMillis(now().0.saturating_sub(age_ms))
    }

    /// Returns whether it is time to delete old entries.
    pub(super) fn wants_pruning(&self) -> bool {
        self.new_rows >= PRUNE_INTERVAL_ROWS
    }

    /// Writes to the tables, unless they are in trouble. Trouble is logged when it begins and when it ends.
    fn write(
        &mut self,
        connection: &Connection,
        act: impl FnOnce(&mut Self, i64) -> rusqlite::Result<()>,
    ) -> rusqlite::Result<()> {
        if self.trouble_since.is_some_and(|since| since.elapsed() < TROUBLE_PAUSE) {
            return Ok(());
        }
        let result = self.begin_run(connection).and_then(|run| act(self, run));
        let Err(error) = result else {
            if self.trouble_since.take().is_some() {
                log::info!("the ledger of attempts is written again");
            }
            return Ok(());
        };
        self.forget();
        if self.trouble_since.replace(Instant::now()).is_none() {
            log::warn!(
                "cannot write the ledger of attempts (the tables dispatch_attempts and dispatch_connections): {error}; mail is \
                 delivered without it; {}",
                advice(connection, &error)
            );
        }
        // SQLite ends the transaction after some errors: without it, nothing may be written.
        if connection.is_autocommit() { Err(error) } else { Ok(()) }
    }

    /// Makes sure that the tables exist, and returns the number of this run.
    fn begin_run(&mut self, connection: &Connection) -> rusqlite::Result<i64> {
        let run = self.run.count(connection)?;
        if self.is_created {
            return Ok(run);
        }
        let is_new =
            !connection.prepare("SELECT 1 FROM sqlite_schema WHERE name = 'dispatch_attempts'")?.exists([])?;
        connection.execute_batch(CREATE)?;
        add_why(connection)?;
        if is_new {
            log::info!(
                "attempts are recorded in the table dispatch_attempts from now on: addresses, server, reply and times, but no content; \
                 `ledger off` ends that"
            );
        }
        self.is_created = true;
        Ok(run)
    }

    /// Makes sure that a conversation is in the table, with its transcript. Returns its key.
    fn add_connection(
        &mut self,
        connection: &Connection,
        run: i64,
        server: &Server,
        course: &Course,
    ) -> rusqlite::Result<i64> {
        let key = connection_key(run, course.conversation.connection);
        if self.known_connections.len() > KNOWN_CONNECTIONS_LIMIT {
            self.known_connections.clear();
        }
        if let Entry::Vacant(unknown) = self.known_connections.entry(key) {
            insert_connection(connection, key, server, &course.conversation)?;
            unknown.insert(0);
        }
        // All recipients of a transaction tell the same one, and so does all mail of a next hop that has failed.
        if let Some(transcript) = &course.transcript
            && self.known_connections.insert(key, transcript.len()) != Some(transcript.len())
        {
            connection
                .prepare_cached("UPDATE dispatch_connections SET transcript = ?2 WHERE connection_id = ?1")?
                .execute(params![key, transcript])?;
        }
        Ok(key)
    }

    fn insert_attempt(
        &mut self,
        connection: &Connection,
        id: MailId,
        (attempt, submission, line): (&AttemptFacts<'_>, Option<UnixTime>, Option<u32>),
        fate: Fate,
        connection_id: Option<i64>,
        text: &str,
    ) -> rusqlite::Result<()> {
        let course = attempt.course;
        let transaction = course.and_then(|course| course.transaction.as_ref());
        // What was sent is known from the transaction: the row may be other mail now.
        let unsent = if transaction.is_none() { mail(connection, id)? } else { None };
        let (sender, octets) = match transaction {
            Some(sent) => (sent.sender.as_deref(), i64::try_from(sent.data_octets).ok()),
            None => (
                unsent.as_ref().and_then(|mail| mail.sender.as_deref()),
                unsent.as_ref().and_then(|mail| mail.octets),
            ),
        };
        let submitted = submission.map(|time| time.0).filter(|seconds| *seconds != 0);
        let at = course.map_or_else(|| attempt.at.into(), |course| course.ended);
        let millis = |span: Duration| i64::try_from(span.as_millis()).unwrap_or(i64::MAX);
        let claim = transaction.map(|transaction| millis(transaction.claim));
        let setup = course.map(|course| millis(course.setup()));
        let transfer = transaction.map(|transaction| millis(transaction.transfer));
        let known = [claim, setup, transfer].into_iter().flatten().fold(0, i64::saturating_add);
        let waited = submitted.map(|submitted| {
            at.0.saturating_sub(UnixMillis::from(UnixTime(submitted)).0).saturating_sub(known).max(0)
        });
        let (reply, command) = attempt.reply.unzip();
        let mut statement = connection.prepare_cached(
            "INSERT INTO dispatch_attempts (mail_id, at_ms, result, kind, connection_id, transaction_no, sender, recipient, \
             message_id, octets, submitted, code, status, command, text, remote_id, a_ms, b_ms, c_ms, d_ms, why) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, ?21)",
        )?;
        statement.execute(params![
            id.0,
            at.0,
            fate.as_str(),
            attempt.kind.name(),
            connection_id,
            course.map(|_| transaction.map_or(0, |transaction| transaction.number)),
            sender.map(|sender| self.shown(sender)),
            self.shown(attempt.recipient.as_str()),
            transaction.and_then(|transaction| transaction.message_id.as_deref()),
            octets,
            submitted,
            reply.map(|reply| reply.code().as_u16()),
            attempt.status.map(|status| status.to_string()),
            command.map(CommandName::name),
            text,
            if fate == Fate::Delivered { remote_id(text) } else { None },
            waited,
            claim,
            setup,
            transfer,
            line.map(retry_line),
        ])?;
        self.new_rows += 1;
        Ok(())
    }

    /// Returns as much of an address as the ledger may have.
    fn shown<'a>(&self, address: &'a str) -> &'a str {
        match self.settings.addresses {
            Addresses::Full => address,
            Addresses::Domain => address.rsplit_once('@').map_or("", |(_, domain)| domain),
            Addresses::None => "",
        }
    }
}

/// Adds the column to a table that was created without it.
fn add_why(connection: &Connection) -> rusqlite::Result<()> {
    let has_why = connection
        .prepare("SELECT 1 FROM pragma_table_info('dispatch_attempts') WHERE name = 'why'")?
        .exists([])?;
    if has_why {
        Ok(())
    } else {
        connection.execute_batch("ALTER TABLE dispatch_attempts ADD COLUMN why TEXT")
    }
}

fn insert_connection(
    connection: &Connection,
    key: i64,
    server: &Server,
    conversation: &Conversation,
) -> rusqlite::Result<()> {
    let millis = |span: Option<Duration>| span.and_then(|span| i64::try_from(span.as_millis()).ok());
    let setup = conversation.setup;
    connection
        .prepare_cached(
            "INSERT OR IGNORE INTO dispatch_connections (connection_id, opened_ms, next_hop, host, address, port, tls_version, \
             tls_cipher, tls_group, tls_peer, auth, greeting, extensions, lookup_ms, connect_ms, tls_ms, negotiate_ms) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17)",
        )?
        .execute(params![
            key,
            conversation.opened.0,
            conversation.next_hop,
            server.host.to_string(),
            server.address.ip().to_string(),
            server.address.port(),
            server.tls.as_ref().map(|tls| tls.version.to_string()),
            server.tls.as_ref().and_then(|tls| tls.cipher_suite),
            server.tls.as_ref().and_then(|tls| tls.group),
            server.tls.as_ref().map(|tls| tls.proved.name()),
            conversation.mechanism.map(|mechanism| mechanism.name()),
            conversation.greeting,
            conversation.extensions,
            millis(setup.lookup),
            millis(setup.connect),
            millis(setup.tls),
            millis(setup.negotiation),
        ])
        .map(drop)
}

/// Reads what the ledger has of a mail. Values that are too long for what they mean are not read: other programs may put anything
/// there.
fn mail(connection: &Connection, id: MailId) -> rusqlite::Result<Option<Mail>> {
    connection
        .prepare_cached(
            "SELECT iif(octet_length(mail_envelopefrom) <= 1000, mail_envelopefrom, NULL), \
             iif(octet_length(mail_envelopeto) <= 1000, mail_envelopeto, NULL), octet_length(mail_data), \
             iif(octet_length(mail_submission) <= 30, CAST(mail_submission AS INTEGER), NULL) \
             FROM outbox WHERE mail_id = ?1",
        )?
        .query_row([id.0], |row| {
            let text = |column| {
                row.get_ref(column).map(|value| octets(value).map(|octets| Octets(&octets).to_string()))
            };
            Ok(Mail { sender: text(0)?, recipient: text(1)?, octets: row.get(2)?, submitted: row.get(3)? })
        })
        .optional()
}

pub(super) fn now() -> UnixMillis {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    UnixMillis(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}
