//! The operator's tool, `cmail-admin-queue`, on the real database: what it shows, and that it changes nothing.

use crate::support::{Action, Mail, Script, World, tool};
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

/// A server that has an answer for each recipient, and a world in which each was tried once.
fn world_with_a_past() -> (World, [i64; 3]) {
    let script = Script::new().always(".", "250 2.0.0 Ok: queued as 4bX1Yz2Qk9z1").when(|command| {
        let of = |name: &str| command.line.contains(&format!("RCPT TO:<{name}@"));
        let refused = of("never").then(|| Action::reply("550 5.1.1 no such user"));
        refused.or_else(|| of("later").then(|| Action::reply("451 4.7.1 later")))
    });
    let (world, _server) = World::with_server(script);
    let ids = ["ok", "later", "never"].map(|name| {
        world.insert(
            &Mail::to(&format!("{name}@example.org"))
                .data(format!("Message-ID: <{name}@client.example>\r\n\r\nx\r\n")),
        )
    });
    let daemon = world.start();
    world.database.wait_for_failure(ids[1]);
    world.database.wait("the others have left", |database| {
        database.row(ids[0]).is_none() && database.row(ids[2]).is_none()
    });
    daemon.terminate();
    (world, ids)
}

/// All of a mail: before its first attempt, while it waits, and when it is gone.
#[test]
fn show_tells_the_life_of_a_mail() {
    let (world, [ok, later, never]) = world_with_a_past();
    let shown = tool::output(&world, &["show", &later.to_string()]);
    for part in [
        "waiting: it is tried again in",
        "1 attempt has failed; by retryinterval, 1h between attempts, and retries, at most 5 attempts",
        "later@example.org",
        "Message-ID   later@client.example",
        "deferred by mx.example.org [",
        "451 4.7.1 later",
        "conversation with mx.example.org",
        " > RCPT TO:<later@example.org>",
        " < 451 4.7.1 later",
    ] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    // The faillog has the same failure, which is shown once.
    assert!(!shown.contains("only the faillog"), "{shown}");
    let gone = tool::output(&world, &["show", &ok.to_string()]);
    for part in [
        "it has left the outbox",
        "delivered to mx.example.org",
        "queued as 4bX1Yz2Qk9z1",
        "ok@client.example",
    ] {
        assert!(gone.contains(part), "{part}: {gone}");
    }
    let records = tool::records(&world, &["show", &never.to_string()]);
    let kinds: Vec<_> =
        records.iter().map(|record| (record["kind"].as_str().unwrap(), record["result"].as_str())).collect();
    assert_eq!(kinds, [("attempt", Some("failed")), ("attempt", Some("bounced")), ("connection", None)]);
    let unknown = tool::run(&world, &["show", "4711"]);
    assert_eq!((unknown.code(), &*unknown.stdout), (Some(2), ""));
    assert!(unknown.stderr.contains("4711"), "{}", unknown.stderr);
}

/// The line that decides is named, and it decides as the daemon does.
#[test]
fn show_names_the_line_that_decides() {
    let mut world = World::new();
    world.set("retry", "* 4.7.1 10m until 5d");
    let line = world.config_text().lines().position(|line| line.starts_with("retry ")).unwrap() + 1;
    let id = world.insert(&Mail::to("a@example.org"));
    world.database.insert_failure(id, "451 4.7.1 later", false, 60);
    let shown = tool::output(&world, &["show", &id.to_string()]);
    assert!(
        shown.contains(&format!("by line {line} of the configuration (retry), which gives up after 5d")),
        "{shown}"
    );
    assert!(
        shown.contains("it is tried again in 8m") || shown.contains("it is tried again in 9m"),
        "{shown}"
    );
    assert_eq!(tool::records(&world, &["list"])[0]["retry_line"], line);
}

/// A database without a ledger, as the older daemon leaves it, is looked at as well.
#[test]
fn show_and_history_do_without_a_ledger() {
    let world = World::new();
    let id = world.insert(&Mail::to("a@example.org"));
    world.database.insert_failure(id, "450 4.2.0 old", false, 600);
    let shown = tool::output(&world, &["show", &id.to_string()]);
    assert!(shown.contains("only the faillog") && shown.contains("deferred: 450 4.2.0 old"), "{shown}");
    assert_eq!(tool::run(&world, &["history"]).code(), Some(2));
}

/// What was tried is found by each of its names, the newest last.
#[test]
fn history_is_found_by_each_name() {
    let (world, [ok, later, never]) = world_with_a_past();
    let results = |words: &str| -> Vec<(i64, String)> {
        let records = tool::records(&world, &words.split_whitespace().collect::<Vec<_>>());
        let result = |record: &serde_json::Value| record["result"].as_str().unwrap().to_owned();
        records.iter().map(|record| (record["mail_id"].as_i64().unwrap(), result(record))).collect()
    };
    let named = |id: i64, result: &str| (id, result.to_owned());
    for found_by in [
        "--recipient ok@example.org",
        "--message-id <ok@client.example>",
        "--remote-id 4bX1Yz2Qk9z1",
        "--result delivered",
        "--status 2",
    ] {
        assert_eq!(results(&format!("history {found_by}")), [named(ok, "delivered")], "{found_by}");
    }
    assert_eq!(results(&format!("history {never}")), [named(never, "failed"), named(never, "bounced")]);
    assert_eq!(results("history --status 4.7 --since 1h"), [named(later, "deferred")]);
    let all = results("history --domain example.org");
    assert_eq!(all.len(), 4);
    assert_eq!(results("history --domain example.org --limit 2"), all[2..]);
    assert_eq!(tool::run(&world, &words("history --since 2999-01-01")).code(), Some(2));
    let text = tool::output(&world, &words("history --utc --status 5"));
    assert!(text.contains("+00:00 mail ") && text.contains("failed by mx.example.org ["), "{text}");
    assert_eq!(tool::run(&world, &words("history --place waiting")).code(), Some(64));
}

/// As many rows as destinations, as many mails in each as wait for it.
#[test]
fn summary_counts_each_mail_once() {
    let world = World::new();
    for recipient in ["a@example.org", "b@EXAMPLE.org", "c@example.net"] {
        world.insert(&Mail::to(recipient).from("x@client.example"));
    }
    let old = world
        .insert(&Mail::to("d@example.net").from("y@client.example").remote("user:Secret-Word@relay.lan:25"));
    world
        .database
        .connection
        .execute("UPDATE outbox SET mail_submission = mail_submission - 7200 WHERE mail_id = ?1", [old])
        .unwrap();
    world.database.insert_failure(old, "450 4.2.0 later", false, 10);
    let rows = |words: &str| -> Vec<(Option<String>, i64)> {
        let records = tool::records(&world, &words.split_whitespace().collect::<Vec<_>>());
        for record in &records {
            let ages: i64 =
                record["ages"].as_array().unwrap().iter().map(|count| count.as_i64().unwrap()).sum();
            assert_eq!(json!(ages), record["mails"]);
        }
        records
            .iter()
            .map(|record| (record["name"].as_str().map(str::to_owned), record["mails"].as_i64().unwrap()))
            .collect()
    };
    let row = |name: &str, mails| (Some(name.to_owned()), mails);
    assert_eq!(rows("summary"), [(None, 4), row("example.net", 2), row("example.org", 2)]);
    assert_eq!(
        rows("summary --by sender"),
        [(None, 4), row("x@client.example", 3), row("y@client.example", 1)]
    );
    assert_eq!(rows("summary --by remote"), [(None, 4), row("by MX", 3), row("relay.lan:25", 1)]);
    assert_eq!(rows("summary --by status"), [(None, 4), row("not tried yet", 3), row("4.2.0", 1)]);
    assert_eq!(rows("summary --deferred"), [(None, 1), row("example.net", 1)]);
    assert_eq!(rows("summary --limit 1"), [(None, 4), row("example.net", 2)]);
    assert_eq!(tool::records(&world, &["summary"])[0]["ages"], json!([3, 0, 0, 1, 0, 0, 0]));
    let text = tool::output(&world, &["summary"]);
    assert_eq!(
        text.lines().map(|line| line.split_whitespace().last().unwrap()).collect::<Vec<_>>(),
        ["DOMAIN", "TOTAL", "example.net", "example.org"]
    );
}

/// Programs rely on the list of fields, so it is what is printed.
#[test]
fn each_field_of_json_is_documented() {
    let (world, [_, later, _]) = world_with_a_past();
    let old = world.insert(&Mail::to("a@example.org"));
    world.database.insert_failure(old, "450 4.2.0 old", false, 600);
    let mut printed = std::collections::BTreeMap::new();
    let daemon = world.start();
    daemon.wait_until_ready(&world);
    for words in [
        vec!["status".to_owned()],
        vec!["reload".to_owned()],
        vec!["explain".to_owned(), "[127.0.0.1]".to_owned()],
        vec!["probe".to_owned(), "[127.0.0.1]".to_owned()],
        vec!["show".to_owned(), later.to_string(), old.to_string()],
        vec!["summary".to_owned()],
        vec!["drop".to_owned(), old.to_string()],
    ] {
        // Nobody listens where the probe goes, so it ends with 1.
        let words: Vec<&str> = ["--json"].into_iter().chain(words.iter().map(String::as_str)).collect();
        for line in tool::run(&world, &words).stdout.lines() {
            let record: serde_json::Value = serde_json::from_str(line).unwrap();
            let fields: Vec<String> = record.as_object().unwrap().keys().cloned().collect();
            assert_eq!(record["v"], 1);
            let fields: Vec<String> =
                fields.into_iter().filter(|name| name != "v" && name != "kind").collect();
            printed.insert(record["kind"].as_str().unwrap().to_owned(), fields);
        }
    }
    daemon.terminate();
    // The others are looked at where they are made.
    let mut documented = tool::documented_fields();
    documented.retain(|kind, _| !["said", "watching", "dropped", "hold", "replay"].contains(&&**kind));
    assert_eq!(printed, documented);
}

/// A password that is typed where none belongs does not come back.
#[test]
fn a_mistyped_password_is_not_shown() {
    let world = World::new();
    for words in [["list", "--remote", "user:secret@relay.lan"], ["list", "--limit", "user:secret@relay.lan"]]
    {
        let finished = tool::run(&world, &words);
        assert_eq!(finished.code(), Some(64));
        assert!(
            finished.stderr.contains(words[1]) && !finished.stderr.contains("secret"),
            "{}",
            finished.stderr
        );
    }
}

/// What turns the direction of a text, or ends a line, is shown as an escape; names that differ only late are not one.
#[test]
fn stored_text_cannot_pose_as_another() {
    let world = World::new();
    let long = "x".repeat(220);
    for end in ["1", "2"] {
        world.insert(&Mail::to("a@example.org").from(&format!("{long}{end}@client.example")));
    }
    let id = world.insert(&Mail::to("a\u{202e}gro@example.org").from("b\u{2066}@client.example"));
    world.database.insert_failure(id, "450 \u{2028}no \u{200f}x", false, 600);
    for words in [&["list"][..], &["list", "--json"], &["summary", "--by", "sender", "--json"]] {
        let shown = tool::output(&world, words);
        assert!(!shown.contains(['\u{202e}', '\u{2066}', '\u{2028}', '\u{200f}']), "{shown}");
        assert!(shown.contains("2066"), "{shown}");
    }
    let counted = tool::records(&world, &["summary", "--by", "sender"]);
    let names: Vec<&str> = counted.iter().filter_map(|row| row["name"].as_str()).collect();
    assert!(names.contains(&&*format!("{long}2@client.example")), "{names:?}");
}
