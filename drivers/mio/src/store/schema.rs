//! Schema 9: its definition, and a check for it.

use std::path::Path;

use cmail_delivery::one_line::OneLine;
use rusqlite::{Connection, OptionalExtension};

use super::error::OpenError;
use super::rows::{number, octets};

/// The whole of schema 9, which all cmail programs share.
pub(super) const SCHEMA: &str = "
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

/// The part that the daemon needs: tables or views, each with columns.
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

const SELECT_VERSION: &str = concat!("SELECT ", number!("value"), " FROM meta WHERE key = 'schema_version'");

/// Checks that this is a master database of schema 9, with everything that the daemon needs.
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
        .query_row(SELECT_VERSION, [], |row| {
            let value = octets(row.get_ref(0)?).unwrap_or_default();
            Ok(String::from_utf8_lossy(&value).trim().to_owned())
        })
        .optional()
        .map_err(failed)?;
    match version.as_deref() {
        Some("9") => {}
        Some(other) => return wrong(format!("its `meta` says schema version `{}`", OneLine(other))),
        None => return wrong("its `meta` has no key `schema_version`".to_owned()),
    }
    // Mail data is read as it is stored, and must be the octets that other programs see.
    let encoding: String =
        connection.pragma_query_value(None, "encoding", |row| row.get(0)).map_err(failed)?;
    if encoding == "UTF-8" { Ok(()) } else { wrong(format!("its texts are encoded in {encoding}")) }
}

/// Returns the names of the columns of a table or view; empty if it does not exist.
fn columns_of(connection: &Connection, table: &str) -> rusqlite::Result<Vec<String>> {
    connection
        .prepare("SELECT name FROM pragma_table_info(?1)")?
        .query_map([table], |row| row.get(0))?
        .collect()
}

#[cfg(test)]
mod tests;
