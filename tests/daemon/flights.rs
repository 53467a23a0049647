//! Mail that may have arrived already, because the daemon was killed or the connection was lost behind the message (the table
//! `dispatch_flights`, the directive `uncertain`).

use serde_json::Value;

use crate::support::smtp_server::SmtpServer;
use crate::support::{Action, Database, Mail, Script, World, tool};

/// A world in which the server has got a mail whole and has not answered when the daemon is killed.
fn killed_behind_the_message(uncertain: &str, journal_mode: &str) -> (World, SmtpServer, i64) {
    killed_with(Script::new().once(".", Action::Stall), uncertain, journal_mode)
}

fn killed_with(script: Script, uncertain: &str, journal_mode: &str) -> (World, SmtpServer, i64) {
    let mut world = World::in_journal_mode(journal_mode);
    let server = SmtpServer::start(script);
    world.set("portprio", server.port()).set("uncertain", uncertain).set("verbosity", 1);
    world.route("example.org", &server);
    let id = world.insert(&Mail::to("a@example.org"));
    let daemon = world.start();
    server.wait("the message is there", |records| records.messages.len() == 1);
    assert_eq!(noted(&world.database), [id]);
    daemon.kill();
    server.wait_until_closed();
    (world, server, id)
}

/// The mail that is noted as about to be sent.
fn noted(database: &Database) -> Vec<i64> {
    let connection = database.another();
    let mut statement =
        connection.prepare("SELECT value FROM dispatch_flights, json_each(mails) ORDER BY value").unwrap();
    let ids = statement.query_map([], |row| row.get(0)).unwrap();
    ids.map(Result::unwrap).collect()
}

/// The mail that is held because it is in doubt.
fn held(database: &Database) -> Vec<i64> {
    let connection = database.another();
    let mut statement = connection.prepare("SELECT mail_id FROM dispatch_state WHERE hold_id = -1").unwrap();
    let ids = statement.query_map([], |row| row.get(0)).unwrap();
    ids.map(Result::unwrap).collect()
}

/// How often the ledger says that a mail is in doubt.
fn doubts(database: &Database) -> i64 {
    let count = "SELECT count(*) FROM dispatch_attempts WHERE result = 'uncertain'";
    database.another().query_row(count, [], |row| row.get(0)).unwrap()
}

#[test]
fn mail_that_was_on_its_way_at_a_kill_is_named_and_sent_again() {
    for mode in ["delete", "wal"] {
        let (world, server, id) = killed_behind_the_message("retry", mode);
        let other = world.insert(&Mail::to("b@example.org"));
        let daemon = world.start();
        let named = format!("1 mail to example.org at {} may have arrived already", server.address());
        let output = daemon.wait_for_output(&named);
        assert!(output.contains(&format!("before it knew the answer: {id}; sent again")), "{output}");
        world.database.wait_until_empty();
        assert_eq!(server.records().delivered_to(), ["a@example.org", "b@example.org"], "{other}");
        world.database.wait("the note is gone", |database| noted(database).is_empty());
        assert_eq!(doubts(&world.database), 1);
        daemon.terminate();
    }
}

#[test]
fn kills_in_a_row_name_the_mail_each_time() {
    let stalls = (0..3).fold(Script::new(), |script, _| script.once(".", Action::Stall));
    let (world, server, id) = killed_with(stalls, "retry", "delete");
    for messages in [2, 3] {
        let daemon = world.start();
        daemon.wait_for_output(&format!("before it knew the answer: {id};"));
        server.wait("the message is there again", |records| records.messages.len() == messages);
        daemon.kill();
    }
    let daemon = world.start();
    daemon.wait_for_output(&format!("before it knew the answer: {id};"));
    world.database.wait_until_empty();
    daemon.terminate();
    assert_eq!((doubts(&world.database), noted(&world.database)), (3, vec![]));
}

#[test]
fn mail_that_was_on_its_way_at_a_kill_is_held_until_it_is_released() {
    let (world, server, id) = killed_behind_the_message("hold", "delete");
    let other = world.insert(&Mail::to("b@example.org"));
    let daemon = world.start();
    daemon.wait_for_output(&format!("before it knew the answer: {id}; held"));
    world.database.wait("the other one is delivered", |database| !database.ids().contains(&other));
    assert_eq!((world.database.ids(), noted(&world.database)), (vec![id], vec![]));
    let held = world.insert(&Mail::to("c@example.org").remote("relay.example:25"));
    tool::output(&world, &["hold", &held.to_string()]);
    let listed = |place: &str| {
        let listed = tool::run(&world, &["--json", "list", "--place", place]).stdout;
        let records = listed.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        records.map(|record| record["mail_id"].as_i64().unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(
        (listed("held"), listed("uncertain")),
        (vec![id, held], vec![id]),
        "the other one is in no doubt"
    );
    tool::output(&world, &["release", "--place", "uncertain", "--yes"]);
    world.database.wait("the mail is delivered", |database| !database.ids().contains(&id));
    assert_eq!((listed("held"), listed("uncertain")), (vec![held], vec![]));
    daemon.terminate();
    assert_eq!(server.records().delivered_to(), ["a@example.org", "b@example.org"]);
}

#[test]
fn mail_whose_connection_is_lost_behind_the_message_is_held_if_that_is_wanted() {
    let (mut world, server) = World::with_server(Script::new().once(".", Action::Close));
    world.set("uncertain", "hold").set("retryinterval", 0).set("interval", 1);
    let id = world.insert(&Mail::to("a@example.org"));
    let daemon = world.start();
    daemon.wait_for_output(&format!(
        "mail {id} to <a@example.org> failed temporarily, and is held until released, failed or dropped: delivery uncertain"
    ));
    world.database.wait("the mail is held", |database| held(database) == [id]);
    let later = world.insert(&Mail::to("b@example.org"));
    world.database.wait("the later one is delivered", |database| !database.ids().contains(&later));
    assert_eq!((world.database.ids(), world.database.failures_of(id).len()), (vec![id], 0));
    daemon.terminate();
    assert_eq!(server.records().delivered_to(), ["b@example.org"]);
}

#[test]
fn mail_that_is_released_from_doubt_is_sent_at_once_whatever_its_count() {
    for (name, value) in [("retries", "1"), ("retries", "9"), ("retry", "* * 1h until 1s")] {
        let (mut world, server) = World::with_server(Script::new().once(".", Action::Close));
        world.set("uncertain", "hold").set("retryinterval", 3600).set("interval", 1).set(name, value);
        let id = world.insert(&Mail::to("a@example.org"));
        let daemon = world.start();
        daemon.wait_for_output("is held until released, failed or dropped");
        world.database.wait("the mail is held", |database| held(database) == [id]);
        let listed = tool::output(&world, &["list", "--place", "held"]);
        assert!(listed.contains("a@example.org"), "{listed}");
        tool::output(&world, &["release", &id.to_string()]);
        world.database.wait_until_empty();
        daemon.terminate();
        assert_eq!(server.records().delivered_to(), ["a@example.org"], "{name} {value}");
    }
}

#[test]
fn a_table_of_holds_that_is_dropped_under_the_daemon_stops_no_mail() {
    let (world, server) = World::with_server(Script::new());
    let daemon = world.start();
    for name in ["a", "b"] {
        world.insert(&Mail::to(&format!("{name}@example.org")));
        world.database.wait_until_empty();
        world.database.connection.execute_batch("DROP TABLE IF EXISTS dispatch_holds").unwrap();
    }
    daemon.terminate();
    assert_eq!(server.records().delivered_to(), ["a@example.org", "b@example.org"]);
}

#[test]
fn a_pass_finds_mail_in_doubt_too() {
    let (world, server, id) = killed_behind_the_message("retry", "delete");
    let finished = world.run(&["deliver", "example.org"]);
    assert!(finished.stderr.contains(&format!("before it knew the answer: {id};")), "{}", finished.stderr);
    assert_eq!(server.records().delivered_to(), ["a@example.org"]);
    assert_eq!(noted(&world.database), Vec::<i64>::new());
}

#[test]
fn nothing_is_noted_unless_that_is_wanted() {
    let (world, _server) = World::with_server(Script::new());
    world.insert(&Mail::to("a@example.org"));
    let daemon = world.start();
    world.database.wait_until_empty();
    daemon.terminate();
    let table = "SELECT count(*) FROM sqlite_schema WHERE name = 'dispatch_flights'";
    assert_eq!(world.database.another().query_row(table, [], |row| row.get(0)), Ok(0));
}

#[test]
fn a_table_that_another_program_has_changed_stops_no_mail() {
    let (mut world, server) = World::with_server(Script::new());
    world.set("uncertain", "retry");
    world.database.connection.execute_batch("CREATE TABLE dispatch_flights (flight_id INTEGER)").unwrap();
    for name in ["a", "b", "c"] {
        world.insert(&Mail::to(&format!("{name}@example.org")));
    }
    let daemon = world.start();
    world.database.wait_until_empty();
    let output = daemon.terminate();
    assert_eq!(output.matches("cannot write the table dispatch_flights").count(), 1, "{output}");
    assert_eq!(server.records().delivered_to().len(), 3);
}

#[test]
fn mail_in_doubt_is_named_also_by_a_start_that_does_nothing_about_it() {
    let (mut world, server, id) = killed_behind_the_message("hold", "delete");
    world.set("uncertain", "off");
    let daemon = world.start();
    daemon.wait_for_output(&format!(
        "may have arrived already, because the program ended before it knew the answer: {id}; "
    ));
    daemon.wait_for_output("uncertain is off");
    world.database.wait_until_empty();
    daemon.terminate();
    assert_eq!(server.records().delivered_to().last().map(String::as_str), Some("a@example.org"));
}

#[test]
fn a_trigger_on_the_table_of_flights_makes_no_mail_wait() {
    for raise in ["ABORT", "ROLLBACK"] {
        let (world, _server, id) = killed_behind_the_message("hold", "delete");
        let trigger = format!(
            "CREATE TRIGGER keep BEFORE DELETE ON dispatch_flights BEGIN SELECT RAISE({raise}, 'kept'); END"
        );
        world.database.another().execute_batch(&trigger).unwrap();
        let daemon = world.start();
        daemon.wait_for_output(&format!("because the program ended before it knew the answer: {id}; "));
        daemon.wait_for_output("cannot change the table dispatch_flights: kept");
        let other = world.insert(&Mail::to("later@example.org"));
        world.database.wait("other mail goes", |database| database.row(other).is_none());
        daemon.terminate();
    }
}

#[test]
fn the_bounce_of_mail_in_doubt_says_that_it_may_have_arrived() {
    let (mut world, _server) = World::with_server(Script::new().once(".", Action::Close));
    world.set("uncertain", "hold").set("interval", 1);
    let id = world.insert(&Mail::to("a@example.org"));
    let daemon = world.start();
    daemon.wait_for_output("is held until released, failed or dropped");
    world.database.wait("the mail is held", |database| held(database) == [id]);
    tool::output(&world, &["fail", &id.to_string(), "--reason", "it takes too long"]);
    let bounce = &world.database.wait_for_bounces(1)[0];
    daemon.terminate();
    let text = String::from_utf8_lossy(bounce.data.as_deref().unwrap_or_default())
        .replace("\r\n", " ")
        .replace('\n', " ");
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(text.contains("it may have arrived already"), "{text}");
}
