//! Values of any length in the database: none of them costs memory, or holds up other mail.

use std::time::{Duration, Instant};

use rusqlite::params;

use crate::support::{Daemon, Database, Mail, Script, World};

/// Far beyond everything that a program of the suite writes.
const LONG_OCTETS: i64 = 100_000_000;

/// Address space for the daemon, in KiB: with one value of that length in memory it would not do.
const MEMORY_KIB: u32 = 250_000;

fn set_long(world: &World, table: &str, key: &str, column: &str, mail: i64) {
    let sql = format!(
        "UPDATE {table} SET {column} = CAST('9' || replace(hex(zeroblob(?1 / 2)), '0', 'x') AS TEXT) WHERE {key} = ?2"
    );
    world.database.connection.execute(&sql, params![LONG_OCTETS, mail]).unwrap();
}

fn long_mail(world: &World, column: &str) -> i64 {
    // It is not due before its value is there.
    world.database.connection.execute_batch("BEGIN IMMEDIATE").unwrap();
    let mail = world.insert(&Mail::to(&format!("{}@example.org", column.replace('_', "."))));
    set_long(world, "outbox", "mail_id", column, mail);
    world.database.connection.execute_batch("COMMIT").unwrap();
    mail
}

fn long_failure(world: &World, column: &str, failures: usize) -> i64 {
    world.database.connection.execute_batch("BEGIN IMMEDIATE").unwrap();
    let mail = world.insert(&Mail::to(&format!("{}@example.org", column.replace('_', "."))));
    for _ in 0..failures {
        world.database.insert_failure(mail, "450 later", false, 10_000);
    }
    set_long(world, "faillog", "fail_mail", column, mail);
    world.database.connection.execute_batch("COMMIT").unwrap();
    mail
}

fn exists(database: &Database, mail: i64) -> bool {
    let mut statement = database.connection.prepare("SELECT 1 FROM outbox WHERE mail_id = ?1").unwrap();
    statement.exists([mail]).unwrap()
}

fn bounces(database: &Database) -> Vec<String> {
    let sql = "SELECT mail_data FROM outbox WHERE mail_envelopefrom IS NULL";
    let mut statement = database.connection.prepare(sql).unwrap();
    statement.query_map([], |row| row.get(0)).unwrap().collect::<Result<_, _>>().unwrap()
}

#[test]
fn a_value_of_100_mb_in_any_column_costs_no_memory_and_holds_up_no_other_mail() {
    let (mut world, server) = World::with_server(Script::new());
    let recipient = long_mail(&world, "mail_envelopeto");
    let sender = long_mail(&world, "mail_envelopefrom");
    let remote = long_mail(&world, "mail_remote");
    let harmless = ["mail_submission", "mail_submitter"].map(|column| long_mail(&world, column));
    let returned = long_mail(&world, "mail_data");
    world.database.insert_failure(returned, "550 no", true, 9_000);
    let given_up = long_failure(&world, "fail_message", 1);
    world.set("retries", 2);
    let tried = ["fail_time", "fail_fatal"].map(|column| long_failure(&world, column, 1));
    world.database.insert_failure(given_up, "450 later", false, 9_000);
    let usual = world.insert(&Mail::to("usual@example.org"));

    let daemon = Daemon::spawn_with_memory(MEMORY_KIB, &world.write_config(), &["nodetach", "nodrop"]);
    for mail in [&[usual][..], &harmless, &tried, &[recipient, sender, returned, given_up]].concat() {
        world.database.wait("the mail is gone", |database| !exists(database, mail));
    }
    world.database.wait_for_failure(remote);
    let failure = world.database.failures_of(remote).remove(0);
    assert!(
        failure.text.contains("malformed remote specification: it is longer than 2048 octets"),
        "{}",
        failure.text
    );
    assert!(!failure.fatal);

    let names = ["fail.fatal", "fail.time", "mail.submission", "mail.submitter", "usual"];
    assert_eq!(server.records().delivered_to(), names.map(|name| format!("{name}@example.org")));
    let bounces: Vec<String> = bounces(&world.database);
    let text = bounces.concat();
    assert_eq!(bounces.len(), 3, "{text}");
    assert!(text.contains("the address is longer than 1000 octets") && text.contains("9xxxx"));
    assert!(text.len() < 100_000, "texts are cut: {}", text.len());

    let log = daemon.terminate();
    let dropped =
        format!("mail {sender} to <mail.envelopefrom@example.org> given up and deleted without a bounce");
    assert!(log.contains(&dropped), "{log}");
    assert!(log.lines().all(|line| line.len() < 1000), "a line shows a whole value");
}

#[test]
fn what_others_change_in_a_long_queue_is_seen_within_one_interval() {
    let (mut world, server) = World::with_server(Script::new());
    world.set("interval", 10);
    let changed = world.insert(&Mail::to("changed@example.org"));
    let deleted = world.insert(&Mail::to("deleted@example.org"));
    // As many as would take minutes if one slice were looked at in each interval, all of them not yet due again.
    world
        .database
        .connection
        .execute_batch(
            "BEGIN IMMEDIATE;
             WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20000)
             INSERT INTO outbox (mail_envelopefrom, mail_envelopeto, mail_data)
             SELECT 's@client.example', 'u' || i || '@example.org', 'text ' || i FROM n;
             INSERT INTO faillog (fail_mail, fail_message) SELECT mail_id, '450 later' FROM outbox;
             COMMIT",
        )
        .unwrap();
    let daemon = world.start();
    daemon.wait_until_ready(&world);
    let began = Instant::now();
    world.database.connection.execute("DELETE FROM faillog WHERE fail_mail = ?1", [changed]).unwrap();
    world.database.connection.execute("DELETE FROM outbox WHERE mail_id = ?1", [deleted]).unwrap();
    let below = "INSERT INTO outbox (mail_id, mail_envelopefrom, mail_envelopeto, mail_data)
                 VALUES (-7, 's@client.example', 'below@example.org', 'text')";
    world.database.connection.execute_batch(below).unwrap();
    for mail in [changed, -7] {
        world.database.wait("the changed mail is delivered", |database| !exists(database, mail));
    }
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    assert_eq!(server.records().delivered_to(), ["below@example.org", "changed@example.org"]);
}
