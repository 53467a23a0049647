use std::os::unix::fs::MetadataExt;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use super::super::database::check;
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
    assert_eq!(names("PRAGMA journal_mode"), ["wal"]);
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

#[test]
fn nothing_but_the_database_is_left_and_it_is_its_owners_alone() {
    let (directory, path) = new_database();
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    let metadata = fs::metadata(&path).unwrap();
    assert_eq!((metadata.mode() & 0o777, metadata.nlink()), (0o600, 1));
}

#[test]
fn a_new_database_belongs_to_whom_it_should() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("master.db3");
    // Only root may give a file away; others still may give it to themselves.
    let (user, group) = if Uid::effective().is_root() {
        (Uid::from_raw(65_534), Gid::from_raw(65_533))
    } else {
        (Uid::effective(), Gid::effective())
    };
    initdb(&path, Some((user, group))).unwrap();
    let metadata = fs::metadata(&path).unwrap();
    assert_eq!((metadata.uid(), metadata.gid()), (user.as_raw(), group.as_raw()));
    // SQLite gives what it keeps beside the database the same owner.
    let connection = open(&path);
    connection.execute("INSERT INTO outbox (mail_envelopeto) VALUES ('r')", []).unwrap();
    for suffix in ["-wal", "-shm"] {
        let metadata = fs::metadata(with_suffix(&path, suffix)).unwrap();
        assert_eq!(
            (metadata.uid(), metadata.gid(), metadata.mode() & 0o777),
            (user.as_raw(), group.as_raw(), 0o600)
        );
    }
}

#[test]
fn what_exists_is_left_as_it_is() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("master.db3");
    for content in ["", "something"] {
        fs::write(&path, content).unwrap();
        let text = initdb(&path, None).unwrap_err().to_string();
        assert!(text.contains("master.db3 exists already"), "{text}");
        assert_eq!(fs::read_to_string(&path).unwrap(), content);
    }
    fs::remove_file(&path).unwrap();
    std::os::unix::fs::symlink("nowhere", &path).unwrap();
    assert!(matches!(initdb(&path, None), Err(InitError::Exists(_))));
    assert!(!directory.path().join("nowhere").exists());
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
}

#[test]
fn the_journal_of_an_earlier_database_is_not_played_into_the_new_one() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("master.db3");
    for suffix in ["-wal", "-journal", "-shm"] {
        let leftover = with_suffix(&path, suffix);
        fs::write(&leftover, "x").unwrap();
        assert!(matches!(initdb(&path, None), Err(InitError::Leftover(found)) if found == leftover));
        fs::remove_file(&leftover).unwrap();
    }
    assert!(!path.exists());
}

#[test]
fn a_directory_that_does_not_exist_is_an_error_that_says_so() {
    let directory = tempfile::tempdir().unwrap();
    let text = initdb(&directory.path().join("none").join("master.db3"), None).unwrap_err().to_string();
    assert!(text.contains("master.db3 cannot be created") && text.contains("No such file"), "{text}");
}

#[test]
fn what_a_killed_run_has_left_is_not_in_the_way() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("master.db3");
    let left = with_suffix(&path, &format!(".initdb-{}-0", std::process::id()));
    fs::create_dir(&left).unwrap();
    fs::write(left.join("database"), "half").unwrap();
    initdb(&path, None).unwrap();
    check(&path).unwrap();
}

#[test]
fn of_several_at_once_one_creates_the_database() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("master.db3");
    let barrier = Barrier::new(4);
    let created = thread::scope(|scope| {
        let runs: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    barrier.wait();
                    initdb(&path, None)
                })
            })
            .collect();
        runs.into_iter().map(|run| run.join().unwrap()).filter(Result::is_ok).count()
    });
    assert_eq!(created, 1);
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    check(&path).unwrap();
}

/// Whenever it is looked at, a run has made nothing yet or everything: a kill is such a moment.
#[test]
fn the_name_never_belongs_to_half_a_database() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("master.db3");
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let observer = scope.spawn(|| {
            while !is_over.load(Ordering::Acquire) {
                if let Ok(octets) = fs::read(&path) {
                    let elsewhere = tempfile::tempdir().unwrap();
                    let copy = elsewhere.path().join("copy.db3");
                    fs::write(&copy, octets).unwrap();
                    check(&copy).unwrap();
                    return;
                }
            }
            panic!("it never appeared");
        });
        initdb(&path, None).unwrap();
        while !observer.is_finished() && path.exists() {
            thread::yield_now();
        }
        is_over.store(true, Ordering::Release);
        observer.join().unwrap();
    });
}
