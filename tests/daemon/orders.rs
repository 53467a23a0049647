//! Orders by the operator's tool, with the real daemon and without it.

use crate::support::{Action, Gate, Mail, Script, World, tool};
use serde_json::json;

const MODES: [&str; 2] = ["delete", "wal"];

/// A world in which mail to example.org goes to a server.
fn world(journal_mode: &str, script: Script) -> (World, crate::support::SmtpServer) {
    let mut world = World::in_journal_mode(journal_mode);
    let server = crate::support::SmtpServer::start(script);
    world.set("portprio", server.port());
    world.route("example.org", &server);
    (world, server)
}

/// Gives an order, which must be done, and returns what is told.
fn order(world: &World, words: &str) -> String {
    let words: Vec<&str> = words.split(' ').collect();
    tool::output(world, &words).trim_end().to_owned()
}

#[test]
fn held_mail_stays_across_kills_until_it_is_released() {
    for mode in MODES {
        let (mut world, server) = world(mode, Script::new());
        world.set("interval", 1);
        let held = world.insert(&Mail::to("a@example.org").data("held"));
        world.database.insert_failure(held, "451 later", false, 100_000);
        assert_eq!(order(&world, &format!("hold {held} --reason audit")), "order 1: 1 mail is held");
        for _ in 0..2 {
            let daemon = world.start();
            let other = world.insert(&Mail::to("b@example.org").data("other"));
            world.database.wait("other mail is delivered", |database| database.row(other).is_none());
            daemon.kill();
        }
        assert_eq!(server.records().messages.len(), 2, "{mode}");
        let listed = tool::records(&world, &["list", "--place", "held"]);
        assert_eq!((&listed[0]["mail_id"], &listed[0]["place"]), (&json!(held), &json!("held")));
        let daemon = world.start();
        daemon.wait_until_ready(&world);
        assert_eq!(order(&world, &format!("release {held}")), "order 2: 1 mail is released");
        world.database.wait_until_empty();
        daemon.terminate();
    }
}

#[test]
fn an_order_that_was_written_while_no_daemon_ran_comes_before_all_mail() {
    for mode in MODES {
        let (mut world, server) = world(mode, Script::new());
        world.route("example.net", &server);
        world.set("interval", 1);
        let daemon = world.start();
        daemon.wait_until_ready(&world);
        daemon.terminate();
        for number in 0..50 {
            world.insert(&Mail::to(&format!("r{number}@example.org")));
        }
        let other = world.insert(&Mail::to("other@example.net"));
        let given = "INSERT INTO dispatch_orders (at_ms, who, verb, scope) VALUES (0, 'somebody', 'drop', '{\"domain\":\"example.org\"}')";
        world.database.another().execute(given, []).unwrap();
        let daemon = world.start();
        world.database.wait("other mail is delivered", |database| database.row(other).is_none());
        world.database.wait_until_empty();
        daemon.terminate();
        assert_eq!((server.records().messages.len(), server.records().count("RCPT")), (1, 1), "{mode}");
    }
}

#[test]
fn an_order_by_domain_is_done_by_the_daemon_and_by_nobody_twice() {
    for mode in MODES {
        let (mut world, server) = world(mode, Script::new().always("RCPT", "450 4.2.0 later"));
        world.set("retryinterval", 3600);
        for number in 0..20 {
            world.insert(&Mail::to(&format!("r{number}@example.org")));
        }
        let daemon = world.start();
        world.database.wait("all mail has failed", |database| database.failures().len() == 20);
        let refused = tool::run(&world, &["drop", "--domain", "example.org"]);
        assert_eq!(refused.code(), Some(1), "{}", refused.stderr);
        assert!(refused.stderr.contains("drop is about 20 mails"), "{}", refused.stderr);
        assert!(refused.stderr.contains("nothing was changed; add --yes"), "{}", refused.stderr);
        assert_eq!(order(&world, "retry --domain example.org --yes"), "order 1: 20 mails are tried now");
        daemon.wait_for_outputs("which does not count", 20);
        assert_eq!(server.records().count("RCPT"), 40);
        assert_eq!(world.database.failures().len(), 20, "early attempts do not count");
        world.database.wait("early attempts are in the ledger", |database| {
            let count = "SELECT count(*) FROM dispatch_attempts WHERE result = 'deferred'";
            database.another().query_row(count, [], |row| row.get(0)) == Ok(40)
        });
        assert_eq!(tool::records(&world, &["history", "--result", "deferred"]).len(), 40);
        let late = world.insert(&Mail::to("late@example.net"));
        assert_eq!(order(&world, "drop --domain example.org --yes"), "order 2: 20 mails are deleted");
        let removed = tool::records(&world, &["history", "--result", "removed"]);
        assert_eq!(removed.len(), 20);
        assert!(removed.iter().all(|entry| entry["mail_id"] != json!(late)), "{removed:?}");
        assert!(world.database.outbox().iter().all(|row| !row.to.ends_with("example.org")));
        assert!(removed[0]["why"].as_str().unwrap().starts_with("order 2 of "), "{removed:?}");
        daemon.kill();
        let daemon = world.start();
        daemon.wait_until_ready(&world);
        let orders: i64 = world
            .database
            .another()
            .query_row("SELECT count(*) FROM dispatch_orders WHERE done_ms IS NULL", [], |row| row.get(0))
            .unwrap();
        assert_eq!(orders, 0);
        daemon.terminate();
    }
}

#[test]
fn mail_under_way_is_done_when_its_attempt_has_ended() {
    for mode in MODES {
        let gate = Gate::new();
        let script =
            Script::new().once("DATA", Action::After(gate.clone(), Box::new("451 4.3.0 later".into())));
        let (world, server) = world(mode, script);
        let id = world.insert(&Mail::to("a@example.org"));
        let daemon = world.start();
        server.wait("DATA", |records| records.count("DATA") == 1);
        let told = order(&world, &format!("drop {id}"));
        assert_eq!(told, "order 1 stands: the daemon has not come to its end yet, and will; see its log");
        assert_eq!(world.database.ids(), [id]);
        gate.open();
        daemon.wait_for_output("order 1 of ");
        world.database.wait_until_empty();
        assert!(server.records().messages.is_empty());
        daemon.terminate();
    }
}

#[test]
fn mail_that_is_to_fail_is_bounced_with_the_reason() {
    let (world, _server) = world("delete", Script::new());
    let id = world.insert(&Mail::to("a@nowhere.example"));
    order(&world, &format!("hold {id}"));
    let daemon = world.start();
    daemon.wait_until_ready(&world);
    let told = tool::output(&world, &["fail", &id.to_string(), "--reason", "the customer has moved"]);
    assert_eq!(told, "order 2: 1 mail is given up\n");
    let bounces = world.database.wait_for_bounces(1);
    let bounce = String::from_utf8_lossy(bounces[0].data.as_deref().unwrap_or_default()).into_owned();
    assert!(bounce.contains("the customer has moved"), "{bounce}");
    let bounced = tool::records(&world, &["history", "--result", "bounced"]);
    assert!(bounced[0]["why"].as_str().unwrap().starts_with("order 2 of "), "{bounced:?}");
    daemon.terminate();
}

#[test]
fn a_rule_holds_what_comes_later_and_redirected_mail_goes_elsewhere() {
    for mode in MODES {
        let (mut world, server) = world(mode, Script::new());
        world.set("interval", 1);
        let daemon = world.start();
        daemon.wait_until_ready(&world);
        let told = order(&world, "hold --destination elsewhere.example");
        assert_eq!(told, "order 1: 0 mails are held, and what comes later");
        let held = world.insert(&Mail::to("a@elsewhere.example").data("held"));
        let free = world.insert(&Mail::to("b@example.org").data("free"));
        world.database.wait("other mail goes", |database| database.row(free).is_none());
        let place = tool::records(&world, &["list"])[0]["place"].clone();
        assert_eq!((world.database.failures_of(held).len(), place), (0, json!("held")));
        order(&world, &format!("redirect {held} --remote {}", server.address()));
        // It is no longer what the rule is about.
        world.database.wait_until_empty();
        assert_eq!(server.records().messages.len(), 2);
        order(&world, "release --destination elsewhere.example");
        daemon.terminate();
    }
}

#[test]
fn without_a_daemon_the_tool_does_it_and_leaves_what_needs_one() {
    for mode in MODES {
        let (world, _server) = world(mode, Script::new());
        let (first, second) =
            (world.insert(&Mail::to("a@example.org")), world.insert(&Mail::to("b@example.org")));
        world.database.insert_failure(second, "451 later", false, 10);
        let stands = "order 1 stands: no daemon runs; it is carried out when one starts";
        assert_eq!(order(&world, &format!("retry {second}")), stands);
        assert_eq!(order(&world, &format!("drop {first}")), "order 2: 1 mail is deleted");
        assert_eq!(world.database.ids(), [second]);
        let daemon = world.start();
        world.database.wait_until_empty();
        daemon.terminate();
    }
}

#[test]
fn a_wrong_or_empty_order_changes_nothing() {
    let (world, _server) = world("delete", Script::new());
    let id = world.insert(&Mail::to("a@example.org"));
    for (words, code, told) in [
        (&["drop"][..], 64, "say which mail"),
        (&["drop", "--all", "--domain", "example.org"], 64, "--all is about all mail"),
        (&["redirect", "1"], 64, "--remote"),
        (&["hold", "1", "--until", "2001-01-01"], 64, "a time that has passed"),
        (&["drop", "99"], 2, ""),
        (&["hold", "--destination", "example.org", "1"], 64, "stand alone"),
    ] {
        let finished = tool::run(&world, words);
        assert_eq!(finished.code(), Some(code), "{words:?}: {}", finished.stderr);
        assert!(finished.stderr.contains(told), "{words:?}: {}", finished.stderr);
    }
    assert_eq!(world.database.ids(), [id]);
}

#[test]
fn a_look_makes_no_tables_and_a_hold_with_an_end_ends() {
    let (mut world, server) = world("delete", Script::new());
    world.set("interval", 1);
    let id = world.insert(&Mail::to("a@example.org"));
    tool::output(&world, &["list"]);
    let tables: i64 = world
        .database
        .another()
        .query_row("SELECT count(*) FROM sqlite_schema WHERE name LIKE 'dispatch_%'", [], |row| row.get(0))
        .unwrap();
    assert_eq!(tables, 0);
    order(&world, &format!("hold {id} --until 2s"));
    let daemon = world.start();
    server.wait_for_messages(1);
    world.database.wait_until_empty();
    daemon.terminate();
}

/// What is held, by whom, and how much; also where another program has written there.
#[test]
fn holds_lists_each_hold_with_its_mail() {
    for mode in MODES {
        let (world, _server) = world(mode, Script::new());
        assert_eq!(tool::run(&world, &["holds"]).code(), Some(2));
        let ids: Vec<i64> = ["a@example.org", "b@example.org", "c@example.net"]
            .iter()
            .map(|to| world.insert(&Mail::to(to).from("s@client.example")))
            .collect();
        order(&world, &format!("hold {} --reason ask", ids[2]));
        order(&world, "hold --destination example.org --until 2d --yes");
        let holds = tool::records(&world, &["holds"]);
        assert_eq!(holds.len(), 2, "{holds:?}");
        assert_eq!(tool::fields_of(&holds[0]), tool::documented_fields()["hold"]);
        assert_eq!(
            (&holds[0]["reason"], &holds[0]["mails"], &holds[0]["rule"]),
            (&json!("ask"), &json!(1), &json!(false))
        );
        assert_eq!(holds[0]["scope"], json!({ "ids": [ids[2]] }));
        assert_eq!((&holds[1]["mails"], &holds[1]["rule"]), (&json!(2), &json!(true)));
        assert_eq!(holds[1]["scope"], json!({ "destination": "example.org" }));
        assert!(holds[1]["until_ms"].as_i64() > holds[1]["since_ms"].as_i64(), "{}", holds[1]);
        // A mail that is let go by name is held by its rule no more.
        order(&world, &format!("release {}", ids[0]));
        world
            .database
            .connection
            .execute("INSERT INTO dispatch_holds (scope, since_ms) VALUES ('no JSON', 'never')", [])
            .unwrap();
        let text = tool::output(&world, &["holds"]);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 3, "{text}");
        assert!(lines[0].starts_with("hold 1: 1 mail; ") && lines[0].ends_with("; reason: ask"), "{text}");
        assert!(lines[1].starts_with("hold 2: 1 mail, and what comes later; "), "{text}");
        assert!(lines[2].contains("0 mails; no JSON; "), "{text}");
    }
}
