//! Schema 9: how it is created, and how it is recognized.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::unistd::{Gid, Uid, fchown};
use rusqlite::{Connection, OpenFlags, OptionalExtension};

use super::database::octets;
use super::error::{InitError, OpenError};

/// The whole of schema 9, which belongs to all cmail programs together.
const SCHEMA: &str = "
CREATE TABLE meta (
    key TEXT PRIMARY KEY NOT NULL UNIQUE,
    value TEXT
);
CREATE TABLE users (
    user_name TEXT NOT NULL UNIQUE,
    user_authdata TEXT,
    user_database TEXT,
    user_alias TEXT REFERENCES users (user_name) ON DELETE SET NULL ON UPDATE CASCADE
);
CREATE TABLE addresses (
    address_expression TEXT NOT NULL,
    address_order INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL UNIQUE,
    address_router TEXT NOT NULL DEFAULT 'drop',
    address_route TEXT
);
CREATE INDEX idx_addr_router ON addresses (address_router, address_route);
CREATE TABLE mailbox (
    mail_id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL UNIQUE,
    mail_user TEXT NOT NULL REFERENCES users (user_name) ON DELETE CASCADE ON UPDATE CASCADE,
    mail_read BOOLEAN NOT NULL DEFAULT 0,
    mail_ident TEXT,
    mail_envelopeto TEXT NOT NULL,
    mail_envelopefrom TEXT NOT NULL,
    mail_submission TEXT NOT NULL DEFAULT (strftime('%s', 'now')),
    mail_submitter TEXT,
    mail_proto TEXT NOT NULL DEFAULT 'smtp',
    mail_data BLOB
);
CREATE TABLE outbox (
    mail_id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL UNIQUE,
    mail_remote TEXT,
    mail_envelopefrom TEXT,
    mail_envelopeto TEXT NOT NULL,
    mail_submission INTEGER NOT NULL DEFAULT (strftime('%s', 'now')),
    mail_submitter TEXT,
    mail_data TEXT
);
CREATE TABLE faillog (
    fail_mail INTEGER NOT NULL REFERENCES outbox (mail_id) ON DELETE CASCADE ON UPDATE CASCADE,
    fail_message TEXT,
    fail_time TEXT NOT NULL DEFAULT (strftime('%s', 'now')),
    fail_fatal BOOLEAN NOT NULL DEFAULT 0
);
CREATE VIEW outbound AS
    SELECT
        mail_id, mail_remote, mail_envelopefrom, mail_envelopeto, mail_submission, mail_submitter, mail_data,
        count(fail_mail) AS mail_failcount,
        coalesce(max(fail_time), 0) AS mail_lasttry,
        coalesce(sum(fail_fatal), 0) AS mail_fatality
    FROM outbox LEFT JOIN faillog ON fail_mail = mail_id
    GROUP BY mail_id;
CREATE TABLE smtpd (
    smtpd_user TEXT PRIMARY KEY NOT NULL REFERENCES users (user_name) ON DELETE CASCADE ON UPDATE CASCADE,
    smtpd_router TEXT NOT NULL DEFAULT 'drop',
    smtpd_route TEXT
);
CREATE TABLE popd (
    pop_user TEXT PRIMARY KEY NOT NULL UNIQUE REFERENCES users (user_name) ON DELETE CASCADE ON UPDATE CASCADE,
    pop_lock BOOLEAN NOT NULL DEFAULT 0
);
CREATE TABLE api_access (
    api_user TEXT NOT NULL REFERENCES users (user_name) ON DELETE CASCADE ON UPDATE CASCADE,
    api_permission TEXT NOT NULL,
    UNIQUE (api_user, api_permission) ON CONFLICT FAIL
);
CREATE TABLE api_address_delegates (
    api_user TEXT NOT NULL REFERENCES users (user_name) ON DELETE CASCADE ON UPDATE CASCADE,
    api_expression TEXT NOT NULL,
    UNIQUE (api_user, api_expression) ON CONFLICT FAIL
);
CREATE TABLE api_user_delegates (
    api_user TEXT NOT NULL REFERENCES users (user_name) ON DELETE CASCADE ON UPDATE CASCADE,
    api_delegate TEXT NOT NULL REFERENCES users (user_name) ON DELETE CASCADE ON UPDATE CASCADE,
    UNIQUE (api_user, api_delegate) ON CONFLICT FAIL
);
INSERT INTO meta (key, value) VALUES ('schema_version', '9');
";

/// What the daemon needs of it: tables or views, each with columns.
const NEEDED: [(&str, &[&str]); 4] = [
    ("meta", &["key", "value"]),
    ("outbox", &OUTBOX_COLUMNS),
    ("faillog", &["fail_mail", "fail_message", "fail_time", "fail_fatal"]),
    (
        "outbound",
        &[
            "mail_id",
            "mail_remote",
            "mail_envelopefrom",
            "mail_envelopeto",
            "mail_submission",
            "mail_submitter",
            "mail_data",
            "mail_failcount",
            "mail_lasttry",
            "mail_fatality",
        ],
    ),
];

const OUTBOX_COLUMNS: [&str; 7] = [
    "mail_id",
    "mail_remote",
    "mail_envelopefrom",
    "mail_envelopeto",
    "mail_submission",
    "mail_submitter",
    "mail_data",
];

/// Only its owner may read and write a new database: it holds everybody's mail. SQLite gives the files that it keeps
/// beside it the same rights and the same owner.
const DATABASE_MODE: u32 = 0o600;

/// Creates a database of schema 9 in WAL mode.
///
/// The file appears under its name complete or not at all: it is made in a directory of its own beside that name,
/// and then linked there, which fails if the name is taken meanwhile. A run that is killed leaves at most that
/// directory behind.
pub(crate) fn initdb(path: &Path, owner: Option<(Uid, Gid)>) -> Result<(), InitError> {
    refuse_existing(path)?;
    let failed = |action| {
        move |source: io::Error| {
            if source.kind() == io::ErrorKind::AlreadyExists {
                InitError::Exists(path.to_path_buf())
            } else {
                InitError::Io { path: path.to_path_buf(), action, source }
            }
        }
    };
    let workshop = Workshop::new(path).map_err(failed("create a directory beside it"))?;
    let draft = workshop.0.join("database");
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(DATABASE_MODE)
        .open(&draft)
        .map_err(failed("create a file beside it"))?;
    create_schema(&draft)
        .map_err(|error| InitError::Sqlite { path: path.to_path_buf(), text: error.to_string() })?;
    let file = File::open(&draft).map_err(failed("open it"))?;
    file.set_permissions(Permissions::from_mode(DATABASE_MODE)).map_err(failed("set its rights"))?;
    if let Some((user, group)) = owner {
        fchown(&file, Some(user), Some(group)).map_err(|errno| failed("set its owner")(errno.into()))?;
    }
    file.sync_all().map_err(failed("write it to the disk"))?;
    // The name appears here, or was taken by somebody else and stays theirs.
    fs::hard_link(&draft, path).map_err(failed("give it its name"))?;
    drop(workshop);
    File::open(directory_of(path))
        .and_then(|directory| directory.sync_all())
        .map_err(failed("write its directory to the disk"))
}

/// Refuses a name that is taken, also by what an earlier database has left: SQLite would play a stale journal into
/// the new file.
fn refuse_existing(path: &Path) -> Result<(), InitError> {
    if fs::symlink_metadata(path).is_ok() {
        return Err(InitError::Exists(path.to_path_buf()));
    }
    for suffix in ["-wal", "-journal", "-shm"] {
        let leftover = with_suffix(path, suffix);
        if fs::symlink_metadata(&leftover).is_ok() {
            return Err(InitError::Leftover(leftover));
        }
    }
    Ok(())
}

/// Fills an empty file. The connection is closed in the end, so that everything is in the file itself.
fn create_schema(path: &Path) -> rusqlite::Result<()> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection = Connection::open_with_flags(path, flags)?;
    connection.pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get::<_, String>(0))?;
    let transaction = connection.transaction()?;
    transaction.execute_batch(SCHEMA)?;
    transaction.commit()?;
    connection.close().map_err(|(_, error)| error)
}

/// A directory that goes away again, with what is left in it.
struct Workshop(PathBuf);

impl Workshop {
    /// Creates one beside `path`, under a name that nobody else uses.
    fn new(path: &Path) -> io::Result<Self> {
        let mut attempt = 0u32;
        loop {
            let name = with_suffix(path, &format!(".initdb-{}-{attempt}", std::process::id()));
            match DirBuilder::new().mode(0o700).create(&name) {
                Ok(()) => return Ok(Self(name)),
                // Left by a process of the same id that was killed.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists && attempt < 1000 => attempt += 1,
                Err(error) => return Err(error),
            }
        }
    }
}

impl Drop for Workshop {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            log::warn!("cannot remove the directory {}: {error}", self.0.display());
        }
    }
}

/// `path` with something appended to its last component.
pub(super) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// The directory in which the file `path` lies.
pub(super) fn directory_of(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Whether this is a master database of schema 9, with everything that is needed of it.
pub(super) fn verify(connection: &Connection, path: &Path) -> Result<(), OpenError> {
    let failed = |error: rusqlite::Error| OpenError::from_sqlite(path, &error);
    let wrong = |found: String| Err(OpenError::WrongSchema { path: path.to_path_buf(), found });
    for (table, columns) in NEEDED {
        let found = columns_of(connection, table).map_err(failed)?;
        if found.is_empty() {
            return wrong(format!("it has no table or view `{table}`"));
        }
        if let Some(missing) = columns.iter().find(|name| !found.iter().any(|column| column == *name)) {
            return wrong(format!("its `{table}` has no column `{missing}`"));
        }
    }
    let version = connection
        .query_row("SELECT value FROM meta WHERE key = 'schema_version'", [], |row| {
            let value = octets(row.get_ref(0)?).unwrap_or_default();
            Ok(String::from_utf8_lossy(&value).trim().to_owned())
        })
        .optional()
        .map_err(failed)?;
    match version.as_deref() {
        Some("9") => {}
        Some(other) => return wrong(format!("its `meta` says schema version `{}`", other.escape_debug())),
        None => return wrong("its `meta` has no key `schema_version`".to_owned()),
    }
    // Mail data is read as it is stored, and must be the octets that other programs see.
    let encoding: String =
        connection.pragma_query_value(None, "encoding", |row| row.get(0)).map_err(failed)?;
    if encoding == "UTF-8" { Ok(()) } else { wrong(format!("its texts are encoded in {encoding}")) }
}

/// The names of the columns of a table or view; none if there is no such thing.
fn columns_of(connection: &Connection, table: &str) -> rusqlite::Result<Vec<String>> {
    connection
        .prepare("SELECT name FROM pragma_table_info(?1)")?
        .query_map([table], |row| row.get(0))?
        .collect()
}

#[cfg(test)]
#[path = "schema_tests.rs"]
mod tests;
