//! What senders want to be told of their mail (RFC 3461): the table `dispatch_envelope`.

use rusqlite::params;
use serde_json::json;

use crate::support::{Mail, Script, World, tool};

/// Notify, orcpt, ret and envid.
type Wishes<'a> = [Option<&'a str>; 4];

/// Creates the tables, as a daemon does that is started.
fn with_tables(world: &World) {
    let daemon = world.start();
    daemon.wait_until_ready(world);
    daemon.terminate();
    let sql = "SELECT count(*) FROM sqlite_schema WHERE name = 'dispatch_envelope'";
    let tables: i64 = world.database.connection.query_row(sql, [], |row| row.get(0)).unwrap();
    assert_eq!(tables, 1);
}

/// Inserts a mail and what its sender wants, in one transaction.
fn insert(world: &World, mail: &Mail, wishes: Wishes<'_>) -> i64 {
    let connection = &world.database.connection;
    connection.execute_batch("BEGIN IMMEDIATE").unwrap();
    let id = world.insert(mail);
    let [notify, orcpt, ret, envid] = wishes;
    connection
        .execute(
            "INSERT INTO dispatch_envelope (mail_id, notify, orcpt, ret, envid) VALUES (?1, ?2, ?3, ?4, ?5)",
            params![id, notify, orcpt, ret, envid],
        )
        .unwrap();
    connection.execute_batch("COMMIT").unwrap();
    id
}

/// The data of the mails in the outbox that have no sender.
fn notices(world: &World) -> Vec<String> {
    let own = world.database.outbox().into_iter().filter(|row| row.from.is_none());
    own.map(|row| String::from_utf8(row.data.unwrap()).unwrap()).collect()
}

fn assert_lines(text: &str, lines: &[&str]) {
    for line in lines {
        assert!(text.lines().any(|found| found == *line), "{line:?} is missing in\n{text}");
    }
}

#[test]
fn what_the_sender_wants_is_passed_on_where_the_server_offers_it() {
    let (world, server) = World::with_server(Script::new().keywords(["PIPELINING", "DSN"]));
    with_tables(&world);
    let wishes = [Some("success,delay"), Some("rfc822;was+a@example.org"), Some("full"), Some("my id")];
    insert(&world, &Mail::to("a@example.org"), wishes);
    let _daemon = world.start();
    world.database.wait_until_empty();
    let commands = server.records().connections[0].commands();
    let has = |line: &str| commands.iter().any(|found| found == line);
    assert!(commands.iter().any(|line| line.ends_with(" RET=FULL ENVID=my+20id")), "{commands:?}");
    assert!(
        has("RCPT TO:<a@example.org> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;was+2Ba@example.org"),
        "{commands:?}"
    );
}

#[test]
fn a_delivery_to_a_server_without_dsn_is_reported_by_the_daemon() {
    let (world, server) = World::with_server(Script::new());
    with_tables(&world);
    let wishes = [Some("success"), Some("rfc822;was@example.org"), Some("full"), Some("my id")];
    let id = insert(&world, &Mail::to("a@example.org"), wishes);
    let daemon = world.start();
    server.wait_for_messages(1);
    daemon.wait_for_output("tells its sender, because the server offers no DSN");
    let notices = notices(&world);
    assert_eq!(notices.len(), 1);
    assert_lines(
        &notices[0],
        &[
            "Original-Envelope-Id: my id",
            "Original-Recipient: rfc822; was@example.org",
            "Final-Recipient: rfc822; a@example.org",
            "Action: relayed",
            "Status: 2.0.0",
            "Remote-MTA: dns; mx.example.org",
        ],
    );
    assert!(!notices[0].contains("\nhello"), "only the headers are returned:\n{}", notices[0]);
    let results: Vec<String> = {
        let sql = "SELECT result FROM dispatch_attempts WHERE mail_id = ?1 ORDER BY attempt_id";
        let mut statement = world.database.connection.prepare(sql).unwrap();
        statement.query_map([id], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
    };
    assert_eq!(results, ["delivered", "relayed"]);
}

#[test]
fn who_wants_no_bounce_gets_none_and_the_log_and_the_ledger_say_so() {
    let script = Script::new().when(|c| (c.verb == "RCPT").then(|| "550 5.1.1 no such user".into()));
    let (world, _server) = World::with_server(script);
    with_tables(&world);
    let id = insert(&world, &Mail::to("a@example.org"), [Some("never"), None, None, None]);
    let wanted = insert(&world, &Mail::to("b@example.org"), [Some("failure"), None, Some("hdrs"), Some("x")]);
    let daemon = world.start();
    daemon.wait_for_output(&format!("mail {id} to <a@example.org> given up and deleted without a bounce"));
    daemon.wait_for_output(&format!("mail {wanted} to <b@example.org> given up, bounce "));
    let notices = notices(&world);
    assert_eq!(notices.len(), 1, "{notices:?}");
    assert_lines(
        &notices[0],
        &["Original-Envelope-Id: x", "Action: failed", "Content-Type: text/rfc822-headers"],
    );
    assert!(!notices[0].contains("a@example.org"), "{}", notices[0]);
    let why: String = world
        .database
        .connection
        .query_row(
            "SELECT why FROM dispatch_attempts WHERE mail_id = ?1 AND result = 'dropped'",
            [id],
            |row| row.get(0),
        )
        .unwrap();
    assert_eq!(why, "its sender wants no bounce (NOTIFY=NEVER)");
}

#[test]
fn a_value_that_cannot_be_read_is_a_warning_and_counts_as_absent() {
    let (world, server) = World::with_server(Script::new().keywords(["DSN"]));
    with_tables(&world);
    let long = "x".repeat(101);
    let id = insert(&world, &Mail::to("a@example.org"), [Some("sometimes"), None, Some("hdrs"), Some(&long)]);
    let daemon = world.start();
    world.database.wait_until_empty();
    for column in ["notify", "envid"] {
        daemon
            .wait_for_output(&format!("what dispatch_envelope.{column} says of mail {id} counts as absent"));
    }
    let commands = server.records().connections[0].commands();
    assert!(commands.iter().any(|line| line.ends_with(" RET=HDRS")), "{commands:?}");
    assert!(commands.iter().any(|line| line == "RCPT TO:<a@example.org>"), "{commands:?}");
}

#[test]
fn mail_that_is_given_up_for_its_age_says_also_that_its_sender_wants_no_bounce() {
    let (mut world, _server) = World::with_server(Script::new().always("RCPT", "450 4.2.0 later"));
    with_tables(&world);
    world.add("retry", "example.org * 1s until 1s");
    let id = insert(&world, &Mail::to("a@example.org"), [Some("never"), None, None, None]);
    let daemon = world.start();
    daemon.wait_for_output("given up and deleted without a bounce, because its sender wants none (NOTIFY)");
    assert_eq!(notices(&world), Vec::<String>::new());
    let ends = tool::records(&world, &["history", "--result", "expired"]);
    assert_eq!((ends.len(), &ends[0]["mail_id"]), (1, &json!(id)));
    let line = world.config_text().lines().position(|line| line.starts_with("retry ")).unwrap() + 1;
    let why = format!("retry line {line}; its sender wants no bounce (NOTIFY=NEVER)");
    assert_eq!(ends[0]["why"], json!(why));
}
