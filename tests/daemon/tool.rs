//! The operator's tool, `cmail-admin-queue`, on the real database: what it shows, and that it changes nothing.

use crate::support::{Mail, Script, World, tool};
use serde_json::json;
use std::io::Read;
use std::process::Stdio;

/// Words that a test passes.
fn words(text: &str) -> Vec<&str> {
    text.split_whitespace().collect()
}

/// What waits, since when, for when, and why.
#[test]
fn list_shows_what_waits_and_why() {
    for journal_mode in ["delete", "wal"] {
        let mut world = World::in_journal_mode(journal_mode);
        world.set("retries", 3).set("retryinterval", "1h");
        let fresh = world.insert(&Mail::to("a@example.org").data("x"));
        let waiting = world.insert(&Mail::to("b@example.org"));
        world.database.insert_failure(
            waiting,
            "451 4.7.1 try later\n(mx.example.org [192.0.2.1]:25, in reply to RCPT TO)",
            false,
            600,
        );
        let given_up = world.insert(&Mail::to("c@example.net").null_sender());
        world.database.insert_failure(given_up, "550 5.1.1 no such user", true, 600);
        let mails = tool::records(&world, &["list"]);
        assert_eq!(mails.len(), 3, "{mails:?}");
        let [first, second, third] = &mails[..] else { panic!("{mails:?}") };
        assert_eq!(
            (&first["mail_id"], &first["place"], &first["octets"]),
            (&json!(fresh), &json!("ready"), &json!(1))
        );
        assert_eq!(
            (&first["tries"], &first["text"], &first["last_ms"]),
            (&json!(0), &json!(null), &json!(null))
        );
        assert_eq!(
            (&second["mail_id"], &second["place"], &second["tries"]),
            (&json!(waiting), &json!("waiting"), &json!(1))
        );
        assert_eq!((&second["code"], &second["status"]), (&json!(451), &json!("4.7.1")));
        assert_eq!(second["sender"], "sender@client.example");
        assert_eq!(second["next_hop"], "example.org");
        // The daemon waits strictly longer than the interval.
        let last_ms = second["last_ms"].as_i64().unwrap();
        assert_eq!(second["next_ms"].as_i64().unwrap(), last_ms + 3_601_000);
        assert_eq!(
            (&third["mail_id"], &third["place"], &third["sender"]),
            (&json!(given_up), &json!("given_up"), &json!(null))
        );
        assert_eq!(third["next_ms"], json!(null));

        let text = tool::output(&world, &["list"]);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 4, "{text}");
        assert!(lines[1].contains(" now ") && lines[1].contains("a@example.org"), "{text}");
        assert!(lines[2].contains(" in 50m ") || lines[2].contains(" in 49m "), "{text}");
        assert!(
            lines[2].ends_with("451 4.7.1 try later / (mx.example.org [192.0.2.1]:25, in reply to RCPT TO)"),
            "{text}"
        );
        assert!(lines[3].contains(" given up ") && lines[3].contains(" <> "), "{text}");
        let selected = tool::records(&world, &words("list --domain EXAMPLE.org --place waiting"));
        assert_eq!(selected.len(), 1);
        assert_eq!(tool::records(&world, &words("list --limit 2")).len(), 2);
    }
}

/// The tool needs no lock, disturbs no daemon, and adds nothing to a database.
#[test]
fn list_works_beside_the_daemon_and_changes_nothing() {
    let (world, _server) = World::with_server(Script::new().always("RCPT", "450 4.2.0 later"));
    let id = world.insert(&Mail::to("a@example.org"));
    let before = std::fs::read(world.database.path()).unwrap();
    assert_eq!(tool::records(&world, &["list"])[0]["place"], "ready");
    assert_eq!(std::fs::read(world.database.path()).unwrap(), before);
    let daemon = world.start();
    world.database.wait_for_failure(id);
    let mails = tool::records(&world, &["list"]);
    assert_eq!((&mails[0]["place"], &mails[0]["status"]), (&json!("waiting"), &json!("4.2.0")));
    daemon.terminate();
    assert_eq!(tool::records(&world, &["list"]), mails);
}

/// Exit 0 if something was found, 2 if nothing fits, 1 if it failed, 64 if it was asked wrongly.
#[test]
fn the_exit_status_says_how_it_went() {
    let world = World::new();
    assert_eq!(tool::run(&world, &["list"]).code(), Some(2));
    world.insert(&Mail::to("a@example.org"));
    assert_eq!(tool::run(&world, &["list"]).code(), Some(0));
    let nothing = tool::run(&world, &words("list --domain example.net"));
    assert_eq!((nothing.code(), &*nothing.stdout, &*nothing.stderr), (Some(2), "", ""));
    for wrong in [
        "",
        "lst",
        "list x",
        "list --older 2w",
        "list --place nowhere",
        "--verbosity 9 list",
        "list --domain a..b",
    ] {
        let finished = tool::run(&world, &words(wrong));
        assert_eq!((finished.code(), &*finished.stdout), (Some(64), ""), "{wrong}: {}", finished.stderr);
        assert!(!finished.stderr.is_empty(), "{wrong}");
    }
    for help in ["--help", "list --help", "--version"] {
        let finished = tool::run(&world, &words(help));
        assert_eq!((finished.code(), &*finished.stderr), (Some(0), ""), "{help}");
    }
    let missing = tool::run(&world, &words("--dbpath /nonexistent/master.db3 list"));
    assert_eq!(missing.code(), Some(1));
    assert!(missing.stderr.contains("/nonexistent/master.db3"), "{}", missing.stderr);
}

/// `--dbpath` comes first, then the variable, then the configuration.
#[test]
fn the_database_is_named_in_three_ways() {
    let [by_option, by_variable, by_config] =
        ["o@example.org", "v@example.org", "c@example.org"].map(|recipient| {
            let world = World::new();
            world.insert(&Mail::to(recipient));
            world
        });
    let listed = |variable: bool, option: bool| {
        let mut command = tool::command();
        command.args(["--json", "list", "--config"]).arg(by_config.write_config());
        if variable {
            command.env("CMAIL_MASTER_DB", by_variable.database.path());
        }
        if option {
            command.arg("--dbpath").arg(by_option.database.path());
        }
        let finished = tool::finish(command, b"");
        serde_json::from_str::<serde_json::Value>(&finished.stdout).unwrap()["recipient"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    assert_eq!(listed(false, false), "c@example.org");
    assert_eq!(listed(true, false), "v@example.org");
    assert_eq!(listed(true, true), "o@example.org");
    assert_eq!(listed(false, true), "o@example.org");
    let mut without = tool::command();
    without.args(["--config", "/nonexistent.conf", "list"]);
    let finished = tool::finish(without, b"");
    assert_eq!(finished.code(), Some(1));
    assert!(
        finished.stderr.contains("--dbpath") && finished.stderr.contains("/nonexistent.conf"),
        "{}",
        finished.stderr
    );
    // Without a configuration the rules of the defaults are taken, which is told.
    let mut without = tool::command();
    without.args(["--config", "/nonexistent.conf", "list", "--dbpath"]).arg(by_option.database.path());
    let finished = tool::finish(without, b"");
    assert_eq!(finished.code(), Some(0));
    assert!(finished.stderr.contains("by the defaults"), "{}", finished.stderr);
}

/// Whatever others have stored, a terminal gets no control character, and no password.
#[test]
fn nothing_stored_controls_the_terminal_or_betrays_a_password() {
    let world = World::new();
    let mail = Mail::to("x")
        .raw_recipient(b"a\x1b[2J\r\nforged@example.org\x9b\xff")
        .from("\u{9b}31m\u{7}@client.example");
    let id = world.insert(&mail.remote("user:Secret-Word@relay.lan:25"));
    world.database.insert_failure(id, "450 \u{1b}]0;title\u{7}\r\nforged", false, 10);
    world.insert(&Mail::to("b@example.org").remote("user:Secret-Word@relay.lan:0"));
    for words in [&["list"][..], &["--json", "list"]] {
        let shown = tool::output(&world, words);
        assert!(!shown.chars().any(|character| character.is_control() && character != '\n'), "{shown:?}");
        assert!(!shown.contains("Secret-Word"), "{shown}");
        assert!(shown.contains("relay.lan:25") || words.len() > 1, "{shown}");
    }
    assert_eq!(tool::output(&world, &["list"]).lines().count(), 3);
}

/// A database that another program keeps locked is waited for, then the program is named.
#[test]
fn a_locked_database_is_told() {
    let world = World::in_journal_mode("delete");
    world.insert(&Mail::to("a@example.org"));
    world.database.connection.execute_batch("BEGIN EXCLUSIVE").unwrap();
    let finished = tool::run(&world, &["list"]);
    world.database.connection.execute_batch("ROLLBACK").unwrap();
    assert_eq!((finished.code(), &*finished.stdout), (Some(1), ""));
    let expected = format!("is locked by process {} (", std::process::id());
    assert!(
        finished.stderr.contains(&expected) && finished.stderr.contains("; try again"),
        "{}",
        finished.stderr
    );
    assert!(finished.took.as_secs() >= 5, "{:?}", finished.took);
}

/// A reader that has seen enough ends it without a word.
#[test]
fn a_closed_pipe_ends_it_quietly() {
    let world = World::new();
    world
        .database
        .connection
        .execute_batch(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 30000)
             INSERT INTO outbox (mail_envelopeto) SELECT 'x' || i || '@example.org' FROM n",
        )
        .unwrap();
    let mut command = tool::command();
    command.arg("list").arg("--dbpath").arg(world.database.path()).arg("--config").arg(world.write_config());
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut first = [0; 100];
    child.stdout.take().unwrap().read_exact(&mut first).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), &*String::from_utf8_lossy(&output.stderr)), (Some(0), ""));
}
