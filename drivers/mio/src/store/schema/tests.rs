use std::path::PathBuf;

use rusqlite::OpenFlags;

use super::super::database::check;
use super::super::initdb;
use super::*;

fn open(path: &Path) -> Connection {
    Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE).unwrap()
}

/// Name, type, NOT NULL, default, position in the primary key: as `pragma table_info` shows them.
fn columns(connection: &Connection, table: &str) -> Vec<String> {
    connection
        .prepare("SELECT name, type, \"notnull\", dflt_value, pk FROM pragma_table_info(?1)")
        .unwrap()
        .query_map([table], |row| {
            let mut line = format!("{} {}", row.get::<_, String>(0)?, row.get::<_, String>(1)?);
            if row.get(2)? {
                line += " NOT NULL";
            }
            if let Some(default) = row.get::<_, Option<String>>(3)? {
                line += &format!(" DEFAULT {default}");
            }
            if row.get(4)? {
                line += " KEY";
            }
            Ok(line)
        })
        .unwrap()
        .collect::<Result<_, _>>()
        .unwrap()
}

/// `CONTRACT.md` section 3.
const EXPECTED: &[(&str, &[&str])] = &[
    (
        "outbox",
        &[
            "mail_id INTEGER NOT NULL KEY",
            "mail_remote TEXT",
            "mail_envelopefrom TEXT",
            "mail_envelopeto TEXT NOT NULL",
            "mail_submission INTEGER NOT NULL DEFAULT strftime('%s', 'now')",
            "mail_submitter TEXT",
            "mail_data TEXT",
        ],
    ),
    (
        "faillog",
        &[
            "fail_mail INTEGER NOT NULL",
            "fail_message TEXT",
            "fail_time TEXT NOT NULL DEFAULT strftime('%s', 'now')",
            "fail_fatal BOOLEAN NOT NULL DEFAULT 0",
        ],
    ),
    ("users", &["user_name TEXT NOT NULL", "user_authdata TEXT", "user_database TEXT", "user_alias TEXT"]),
    (
        "addresses",
        &[
            "address_expression TEXT NOT NULL",
            "address_order INTEGER NOT NULL KEY",
            "address_router TEXT NOT NULL DEFAULT 'drop'",
            "address_route TEXT",
        ],
    ),
    (
        "mailbox",
        &[
            "mail_id INTEGER NOT NULL KEY",
            "mail_user TEXT NOT NULL",
            "mail_read BOOLEAN NOT NULL DEFAULT 0",
            "mail_ident TEXT",
            "mail_envelopeto TEXT NOT NULL",
            "mail_envelopefrom TEXT NOT NULL",
            "mail_submission TEXT NOT NULL DEFAULT strftime('%s', 'now')",
            "mail_submitter TEXT",
            "mail_proto TEXT NOT NULL DEFAULT 'smtp'",
            "mail_data BLOB",
        ],
    ),
    ("meta", &["key TEXT NOT NULL KEY", "value TEXT"]),
    (
        "smtpd",
        &["smtpd_user TEXT NOT NULL KEY", "smtpd_router TEXT NOT NULL DEFAULT 'drop'", "smtpd_route TEXT"],
    ),
    ("popd", &["pop_user TEXT NOT NULL KEY", "pop_lock BOOLEAN NOT NULL DEFAULT 0"]),
    ("api_access", &["api_user TEXT NOT NULL", "api_permission TEXT NOT NULL"]),
    ("api_address_delegates", &["api_user TEXT NOT NULL", "api_expression TEXT NOT NULL"]),
    ("api_user_delegates", &["api_user TEXT NOT NULL", "api_delegate TEXT NOT NULL"]),
];

/// Child and parent column, ON UPDATE, ON DELETE.
const REFERENCES: &[(&str, &[&str])] = &[
    ("faillog", &["fail_mail outbox.mail_id CASCADE CASCADE"]),
    ("users", &["user_alias users.user_name CASCADE SET NULL"]),
    ("mailbox", &["mail_user users.user_name CASCADE CASCADE"]),
    ("smtpd", &["smtpd_user users.user_name CASCADE CASCADE"]),
    ("popd", &["pop_user users.user_name CASCADE CASCADE"]),
    ("api_access", &["api_user users.user_name CASCADE CASCADE"]),
    ("api_address_delegates", &["api_user users.user_name CASCADE CASCADE"]),
    (
        "api_user_delegates",
        &["api_delegate users.user_name CASCADE CASCADE", "api_user users.user_name CASCADE CASCADE"],
    ),
];

fn new_database() -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("master.db3");
    initdb(&path, None).unwrap();
    (directory, path)
}

#[test]
fn a_new_database_has_the_whole_of_schema_9() {
    let (_directory, path) = new_database();
    let connection = open(&path);
    for (table, expected) in EXPECTED {
        assert_eq!(columns(&connection, table), *expected, "{table}");
    }
    let names = |sql: &str| -> Vec<String> {
        connection
            .prepare(sql)
            .unwrap()
            .query_map([], |row| row.get(0))
            .unwrap()
            .map(Result::unwrap)
            .collect()
    };
    let mut tables: Vec<_> = EXPECTED.iter().map(|(table, _)| (*table).to_owned()).collect();
    tables.sort();
    let of_type = |kind: &str| {
        names(&format!(
            "SELECT name FROM sqlite_schema WHERE type = '{kind}' AND name NOT LIKE 'sqlite_%' ORDER BY name"
        ))
    };
    assert_eq!(of_type("table"), tables);
    assert_eq!(of_type("view"), ["outbound"]);
    assert_eq!(of_type("index"), ["idx_addr_router"]);
    assert_eq!(
        names("SELECT name FROM pragma_index_info('idx_addr_router')"),
        ["address_router", "address_route"]
    );
    assert_eq!(names("SELECT key || '=' || value FROM meta"), ["schema_version=9"]);
    assert_eq!(names("PRAGMA journal_mode"), ["delete"]);
    for (table, expected) in REFERENCES {
        let found = names(&format!(
            "SELECT \"from\" || ' ' || \"table\" || '.' || \"to\" || ' ' || on_update || ' ' || on_delete \
             FROM pragma_foreign_key_list('{table}') ORDER BY 1"
        ));
        assert_eq!(found, *expected, "{table}");
    }
    check(&path).unwrap();
}

#[test]
fn ids_are_never_used_twice() {
    let (_directory, path) = new_database();
    let connection = open(&path);
    for expected in 1..4 {
        connection.execute("INSERT INTO outbox (mail_envelopeto) VALUES ('r')", []).unwrap();
        assert_eq!(connection.last_insert_rowid(), expected);
        connection.execute("DELETE FROM outbox", []).unwrap();
    }
}

#[test]
fn pairs_of_the_api_tables_are_unique() {
    let (_directory, path) = new_database();
    let connection = open(&path);
    connection.execute("INSERT INTO users (user_name) VALUES ('u')", []).unwrap();
    for table in ["api_access", "api_address_delegates", "api_user_delegates"] {
        let insert = format!("INSERT INTO {table} VALUES ('u', 'u')");
        connection.execute(&insert, []).unwrap();
        assert!(connection.execute(&insert, []).is_err(), "{table}");
    }
}

#[test]
fn the_view_counts_the_failures_of_each_mail() {
    let (_directory, path) = new_database();
    let connection = open(&path);
    connection
        .execute_batch(
            "INSERT INTO outbox (mail_envelopeto, mail_data) VALUES ('a', 'x'), ('b', 'y'); \
             INSERT INTO faillog (fail_mail, fail_time, fail_fatal) VALUES (1, '5', 0), (1, '7', 1), (1, '6', 1)",
        )
        .unwrap();
    let rows: Vec<(i64, i64, String, i64)> = connection
        .prepare("SELECT mail_id, mail_failcount, CAST(mail_lasttry AS TEXT), mail_fatality FROM outbound")
        .unwrap()
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)))
        .unwrap()
        .collect::<Result<_, _>>()
        .unwrap();
    assert_eq!(rows, [(1, 3, "7".to_owned(), 2), (2, 0, "0".to_owned(), 0)]);
    assert_eq!(columns_of(&connection, "outbound").unwrap(), NEEDED[3].1);
}
