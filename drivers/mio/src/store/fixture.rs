//! Databases in temporary directories, for tests.

use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cmail_delivery::attempt::{Attempt, Failure, Server};
use cmail_delivery::command::CommandName;
use cmail_delivery::dsn::DsnWishes;
use cmail_delivery::hold::Hold;
use cmail_delivery::next_hop::Host;
use cmail_delivery::outbox::{
    BounceOrder, Charge, DeliveredMail, FailedAttempt, FailedMail, FailedMessage, MailId, NewBounce, Row,
    StoreError, StoreReply, StoreRequest,
};
use cmail_delivery::reply::{Reply, ReplyCode};
use cmail_delivery::rng::Seed;
use cmail_delivery::time::UnixTime;
use nix::unistd::{Uid, setfsuid};
use rusqlite::{Connection, Params};
use tempfile::TempDir;

use super::busy::CancelToken;
use super::database_file::DatabaseFile;
use super::error::OpenError;
use super::{Database, initdb};

/// A new database of schema 9, seen by the store and by another program.
pub(super) struct Fixture {
    pub(super) directory: TempDir,
    pub(super) path: PathBuf,
    pub(super) database: Database,
    /// The other program.
    pub(super) other: Connection,
}

impl Fixture {
    pub(super) fn new() -> Self {
        Self::with_journal_mode("WAL")
    }

    pub(super) fn with_journal_mode(mode: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("master.db3");
        initdb(&path, None).unwrap();
        let other = Connection::open(&path).unwrap();
        let found: String =
            other.pragma_update_and_check(None, "journal_mode", mode, |row| row.get(0)).unwrap();
        assert_eq!(found, mode.to_lowercase());
        other.pragma_update(None, "foreign_keys", true).unwrap();
        let mut database = open(&path, Duration::ZERO).unwrap();
        database.ensure_index().unwrap();
        Self { directory, path, database, other }
    }

    /// Lets the other program write.
    pub(super) fn execute(&self, sql: &str, params: impl Params) {
        self.other.execute(sql, params).unwrap();
    }

    /// Lets the other program try to write.
    pub(super) fn execute_ignoring_errors(&self, sql: &str) {
        let _ = self.other.execute_batch(sql);
    }

    /// Lets the other program queue a mail, with its data as text.
    pub(super) fn mail(&self, sender: Option<&str>, recipient: &str, data: &[u8]) -> MailId {
        self.execute(
            "INSERT INTO outbox (mail_envelopefrom, mail_envelopeto, mail_data) VALUES (?1, ?2, CAST(?3 AS TEXT))",
            (sender, recipient, data),
        );
        MailId(self.other.last_insert_rowid())
    }

    /// Returns a number that the other program reads.
    pub(super) fn number(&self, sql: &str) -> i64 {
        self.other.query_row(sql, [], |row| row.get(0)).unwrap()
    }

    pub(super) fn try_answer(&mut self, request: StoreRequest) -> Result<StoreReply, StoreError> {
        self.database.answer(request)
    }

    pub(super) fn answer(&mut self, request: StoreRequest) -> StoreReply {
        self.try_answer(request).unwrap()
    }
}

/// The size of a page in octets.
pub(super) fn page_octets(fixture: &Fixture) -> usize {
    usize::try_from(fixture.number("PRAGMA page_size")).unwrap()
}

/// The pages in which a text stands.
pub(super) fn pages_with(fixture: &Fixture, text: &str) -> Vec<usize> {
    let octets = std::fs::read(&fixture.path).unwrap();
    let pages = octets.chunks(page_octets(fixture)).enumerate();
    let has_text = |page: &[u8]| page.windows(text.len()).any(|found| found == text.as_bytes());
    pages.filter(|(_, page)| has_text(page)).map(|(number, _)| number).collect()
}

/// Damages pages.
pub(super) fn overwrite(fixture: &Fixture, pages: &[usize]) {
    let octets = page_octets(fixture);
    let file = std::fs::OpenOptions::new().write(true).open(&fixture.path).unwrap();
    for page in pages {
        file.write_all_at(&vec![0xff; octets], (page * octets) as u64).unwrap();
    }
    // What is cached is read again.
    let counter = 24_u64;
    let mut version = [0; 4];
    std::fs::File::open(&fixture.path).unwrap().read_exact_at(&mut version, counter).unwrap();
    file.write_all_at(&u32::from_be_bytes(version).wrapping_add(1).to_be_bytes(), counter).unwrap();
}

/// Opens a database that waits at most `busy_timeout` for locks.
pub(super) fn open(path: &Path, busy_timeout: Duration) -> Result<Database, OpenError> {
    Database::open_with(Arc::new(DatabaseFile::open(path)?), busy_timeout, CancelToken::default())
}

/// Runs `test` in a thread without rights to other users' files, even if the process runs as root.
pub(super) fn without_privileges(test: impl FnOnce() + Send) {
    std::thread::scope(|scope| {
        scope.spawn(|| {
            if Uid::effective().is_root() {
                setfsuid(Uid::from_raw(65_534));
            }
            test();
        });
    });
}

/// An attempt that a server has refused by these words.
pub(super) fn refused(id: MailId, words: &str, time: UnixTime, fatal: bool) -> FailedAttempt {
    let (host, address) = (Host::Address([192, 0, 2, 1].into()), ([192, 0, 2, 1], 25).into());
    let server = Arc::new(Server { host, address, tls: None });
    let code = ReplyCode::new(if fatal { 550 } else { 450 }).unwrap();
    let reply = Reply::new(code, vec![words.as_bytes().into()]);
    let failure = Failure::Refused { server, reply, command: CommandName::Rcpt, fatal };
    FailedAttempt {
        id,
        attempt: Attempt {
            at: time,
            recipient: cmail_delivery::shown::ShownAddress::default(),
            course: None,
            result: failure,
        },
        charge: Charge::Counts,
        line: None,
    }
}

/// Mail that was delivered.
pub(super) fn delivered(ids: &[MailId]) -> Vec<DeliveredMail> {
    ids.iter().copied().map(DeliveredMail::from).collect()
}

/// A bounce of a message with any octets in it.
pub(super) fn bounce_to(recipients: &[&'static str]) -> NewBounce {
    let row = Row {
        id: MailId(1),
        remote: None,
        sender: Some(Bytes::from_static(b"s@example.net")),
        recipient: Bytes::from_static(b"r@example.org"),
        submission: UnixTime(0),
        data_octets: 15,
        fail_count: 1,
        last_try: UnixTime(0),
        fatal: true,
        last_failure: None,
        hold: Hold::default(),
        wishes: DsnWishes::default(),
    };
    let message = FailedMessage {
        mails: vec![FailedMail { row, attempts: Vec::new() }],
        data_octets: 15,
        original: Bytes::from_static(b"x \0 \xff\r\n\r\n.\r\n.."),
    };
    let order = BounceOrder {
        announce: "mail.example.org".into(),
        bounce_from: "postmaster@mail.example.org".into(),
        return_limit_octets: 100,
        message,
        now: UnixTime(0),
        seed: Seed([7; 32]),
    };
    NewBounce { recipients: recipients.iter().map(|recipient| Bytes::from(*recipient)).collect(), order }
}
