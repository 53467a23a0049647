//! Mail that is signed as it leaves (DKIM).

use nix::sys::signal::Signal;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use crate::support::{Behaviour, Mail, Script, World, tool};

const ED25519: &str = include_str!("../../drivers/mio/src/dkim/ed25519.pem");
const RSA: &str = include_str!("../../drivers/mio/src/dkim/rsa-pkcs1.pem");
const TEXT: &str = "From: A <sender@client.example>\nTo: b@example.org\nSubject: x\n\nhello\n.\n";

/// Writes a key that only the daemon can read.
fn key(world: &World, name: &str, pem: &str) -> PathBuf {
    let path = world.path(name);
    fs::write(&path, pem).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    path
}

fn mark(world: &World, id: i64, number: i64) {
    let connection = &world.database.connection;
    connection
        .execute_batch(
            "CREATE TABLE IF NOT EXISTS dispatch_envelope (mail_id INTEGER PRIMARY KEY NOT NULL, notify TEXT, orcpt TEXT, ret TEXT, envid TEXT, sign INTEGER)",
        )
        .unwrap();
    connection
        .execute("INSERT INTO dispatch_envelope (mail_id, sign) VALUES (?1, ?2)", [id, number])
        .unwrap();
}

fn signatures(data: &[u8]) -> usize {
    String::from_utf8_lossy(data).matches("DKIM-Signature: ").count()
}

#[test]
fn mail_that_is_marked_gets_a_signature_by_each_key_of_its_authors_domain() {
    let (mut world, server) = World::with_server(Script::new().always("EHLO", "250-mx\r\n250 SIZE"));
    let (first, second) = (key(&world, "first", ED25519), key(&world, "second", RSA));
    world.add("dkim_key", format!("client.example first {}", first.display()));
    world.add("dkim_key", format!("client.example second {}", second.display()));
    let id = world.insert(&Mail::to("a@example.org").data(TEXT));
    world.insert(&Mail::to("b@example.org").data(TEXT));
    mark(&world, id, 1);
    let daemon = world.start();
    world.database.wait_until_empty();
    daemon.terminate();
    let records = server.records();
    for message in records.accepted() {
        let is_marked = message.to() == ["a@example.org"];
        assert_eq!(signatures(&message.data), if is_marked { 2 } else { 0 });
        assert!(message.data.ends_with(b"\r\n\r\nhello\r\n.\r\n"), "{}", message.data.escape_ascii());
    }
    assert_eq!(records.accepted().len(), 2);
}

#[test]
fn a_table_from_before_marks_stays_of_use_and_bounces_are_marked_in_it() {
    let (mut world, server) = World::with_server(Script::new().always("RCPT", "550 5.1.1 no such user"));
    let path = key(&world, "key", ED25519);
    world.add("dkim_key", format!("client.example s {}", path.display()));
    world
        .database
        .connection
        .execute_batch(
            "CREATE TABLE dispatch_envelope (mail_id INTEGER PRIMARY KEY NOT NULL REFERENCES outbox (mail_id) ON DELETE CASCADE, notify TEXT, orcpt TEXT, ret TEXT, envid TEXT)",
        )
        .unwrap();
    let id = world.insert(&Mail::to("a@example.org").from("a@origin.example").data(TEXT));
    world
        .database
        .connection
        .execute("INSERT INTO dispatch_envelope (mail_id, ret) VALUES (?1, 'HDRS')", [id])
        .unwrap();
    let sender = crate::support::SmtpServer::start_beside(Script::new(), &server);
    world.route("origin.example", &sender);
    let daemon = world.start();
    world.database.wait_until_empty();
    let log = daemon.terminate();
    assert_eq!(server.records().accepted().len(), 0);
    let records = sender.records();
    let bounce = records.accepted()[0];
    assert!(bounce.data.starts_with(b"DKIM-Signature: v=1; a=ed25519-sha256;"), "{log}");
    assert!(String::from_utf8_lossy(&bounce.data).contains("text/rfc822-headers"), "RET is still read");
}

#[test]
fn what_a_user_submits_is_marked_if_its_author_is_of_a_domain_with_a_key() {
    let (mut world, server) = World::with_server(Script::new());
    let path = key(&world, "key", ED25519);
    world.add("dkim_key", format!("client.example s {}", path.display()));
    for from in ["a@client.example", "a@elsewhere.example"] {
        let mut command = std::process::Command::new(tool::PROGRAM);
        command.env_remove("CMAIL_MASTER_DB").arg("--config").arg(world.write_config());
        command.args(["submit", "-f", from, "b@example.org"]);
        let finished = tool::finish(command, format!("From: {from}\nSubject: x\n\nhello\n").as_bytes());
        assert_eq!(finished.code(), Some(0), "{}", finished.stderr);
    }
    let daemon = world.start();
    world.database.wait_until_empty();
    daemon.terminate();
    let records = server.records();
    let mut found: Vec<_> =
        records.accepted().iter().map(|message| (message.from(), signatures(&message.data))).collect();
    found.sort();
    assert_eq!(found, [("a@client.example".to_owned(), 1), ("a@elsewhere.example".to_owned(), 0)]);
}

#[test]
fn a_key_that_cannot_be_used_is_an_error_at_the_start_and_at_a_reload() {
    let (mut world, server) = World::with_server(Script::new());
    let path = key(&world, "key", "no key");
    world.set("dkim_sign", "from").add("dkim_key", format!("client.example s {}", path.display()));
    let finished = world.run(&["check"]);
    let named = format!("the key file {} cannot be used: it holds no private key", path.display());
    assert!(finished.code() == Some(1) && finished.stderr.contains(&named), "{}", finished.stderr);
    key(&world, "key", ED25519);
    let daemon = world.start();
    daemon.wait_until_ready(&world);
    key(&world, "key", "broken again");
    daemon.signal(Signal::SIGHUP);
    daemon.wait_for_output(&named);
    // The key from before signs on.
    world.insert(&Mail::to("a@example.org").data(TEXT));
    server.wait_for_messages(1);
    key(&world, "key", RSA);
    daemon.signal(Signal::SIGHUP);
    daemon.wait_for_output("dkim_key is");
    world.insert(&Mail::to("b@example.org").data(TEXT));
    server.wait_for_messages(2);
    world.database.wait_until_empty();
    daemon.terminate();
    let records = server.records();
    let texts = records.accepted();
    let has = |index: usize, text: &str| String::from_utf8_lossy(&texts[index].data).contains(text);
    assert!(has(0, "a=ed25519-sha256") && has(1, "a=rsa-sha256"));
}

#[test]
fn a_key_is_made_once_and_its_record_printed_in_short_strings() {
    let world = World::new();
    for (words, kind, strings) in [(&[][..], "k=ed25519", 1), (&["--rsa"], "k=rsa", 2)] {
        let path = world.path(kind);
        let run = |verb: &str, more: &[&str]| {
            let mut command = std::process::Command::new(tool::PROGRAM);
            command.env_remove("CMAIL_MASTER_DB").arg("--config").arg(world.write_config());
            command.args(["dkim", verb, "client.example", "s1"]).arg(&path).args(more);
            tool::finish(command, b"")
        };
        let made = run("make", words);
        assert_eq!(made.code(), Some(0), "{}", made.stderr);
        assert!(
            made.stdout.starts_with("s1._domainkey.client.example. IN TXT ( \"v=DKIM1; "),
            "{}",
            made.stdout
        );
        assert!(made.stdout.contains(kind));
        let lengths: Vec<usize> = made.stdout.split('"').skip(1).step_by(2).map(str::len).collect();
        assert!(lengths.len() == strings && lengths.iter().all(|length| *length <= 255), "{lengths:?}");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(run("record", &[]).stdout, made.stdout);
        let again = run("make", words);
        assert!(again.code() == Some(1) && again.stderr.contains("cannot be written"), "{}", again.stderr);
    }
}

#[test]
fn records_are_checked_against_the_dns_over_udp_and_tcp() {
    let mut world = World::new();
    let keys =
        [("long", RSA), ("short", ED25519), ("other", ED25519), ("gone", ED25519), ("broken", ED25519)];
    for (selector, pem) in keys {
        let path = key(&world, &format!("{selector}.pem"), pem);
        world.add("dkim_key", format!("client.example {selector} {}", path.display()));
    }
    let name = |selector: &str| format!("{selector}._domainkey.client.example");
    for selector in ["long", "short"] {
        let path = world.path(&format!("{selector}.pem"));
        let record =
            tool::output(&world, &["dkim", "record", "client.example", selector, path.to_str().unwrap()]);
        let strings: Vec<&str> = record.split('"').skip(1).step_by(2).collect();
        world.dns.txt(&name(selector), &strings);
    }
    world.dns.behave(&name("long"), Behaviour::Truncate);
    world.dns.txt(&name("other"), &["v=DKIM1; k=ed25519; p=11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo="]);
    world.dns.behave(&name("broken"), Behaviour::ServFail);
    let finished = tool::run(&world, &["dkim", "check"]);
    assert_eq!(finished.code(), Some(1), "{}{}", finished.stdout, finished.stderr);
    let found =
        |selector: &str| finished.stdout.lines().find(|line| line.starts_with(&name(selector))).unwrap();
    for selector in ["long", "short"] {
        assert!(found(selector).ends_with("its record is published"), "{}", finished.stdout);
    }
    assert!(found("gone").contains("there is no record of a key"), "{}", finished.stdout);
    assert!(!found("other").contains("is published"), "{}", finished.stdout);
    assert!(found("broken").contains("SERVFAIL"), "{}", finished.stdout);
}

#[test]
fn each_key_that_cannot_be_used_is_named_where_records_are_checked() {
    let mut world = World::new();
    for name in ["one.pem", "two.pem"] {
        let path = world.path(name);
        world.add("dkim_key", format!("client.example {name} {}", path.display()));
    }
    let finished = tool::run(&world, &["dkim", "check"]);
    assert_eq!((finished.code(), &*finished.stdout), (Some(1), ""));
    for name in ["one.pem", "two.pem"] {
        let named = format!("the key file {} cannot be used", world.path(name).display());
        assert!(finished.stderr.contains(&named), "{}", finished.stderr);
    }
}

#[test]
fn explain_tells_of_signatures_without_reading_any_key() {
    let (mut world, _server) = World::with_server(Script::new());
    world.add("dkim_key", format!("client.example one {}", world.path("none").display()));
    let (good, other, unmarked) = (
        world.insert(&Mail::to("a@example.org").data(TEXT)),
        world.insert(&Mail::to("b@example.org").data("From: a@elsewhere.example\n\nx\n")),
        world.insert(&Mail::to("c@example.org").data(TEXT)),
    );
    mark(&world, good, 1);
    mark(&world, other, 1);
    for (id, told) in [
        (good, "  signature    of client.example, by the key of one\n"),
        (
            other,
            "  signature    none (DKIM): there is no key of the domain elsewhere.example of its author\n",
        ),
        (unmarked, ""),
    ] {
        let finished = tool::run(&world, &["explain", &id.to_string()]);
        assert_eq!(finished.code(), Some(0), "{}{}", finished.stdout, finished.stderr);
        assert!(finished.stdout.contains(told), "{}", finished.stdout);
        assert_eq!(finished.stdout.contains("signature"), !told.is_empty(), "{}", finished.stdout);
        assert!(finished.stdout.contains("mx.example.org"), "{}", finished.stdout);
    }
}

#[test]
fn mail_that_is_marked_and_leaves_unsigned_is_named_in_the_log_with_the_reason() {
    let (mut world, server) = World::with_server(Script::new());
    let path = key(&world, "key", ED25519);
    world.add("dkim_key", format!("client.example s {}", path.display())).set("verbosity", 3);
    let id =
        world.insert(&Mail::to("a@example.org").data("From: a@client.example (<b@evil.example>)\n\nx\n"));
    mark(&world, id, 1);
    let daemon = world.start();
    world.database.wait_until_empty();
    let log = daemon.terminate();
    assert_eq!(signatures(&server.records().accepted()[0].data), 0);
    let told = format!("mail {id} leaves without a signature (DKIM): its From: can be read in several ways");
    assert_eq!(log.matches(&told).count(), 1, "{log}");
}

#[test]
fn keys_that_change_again_and_again_cost_no_mail_an_attempt() {
    const COUNT: usize = 60;
    let (mut world, server) = World::with_server(Script::new());
    let path = key(&world, "key", ED25519);
    world.set("dkim_sign", "from").add("dkim_key", format!("client.example s {}", path.display()));
    let daemon = world.start();
    daemon.wait_until_ready(&world);
    for number in 0..COUNT {
        world.insert(&Mail::to("a@example.org").data(format!("{TEXT}{number}\n")));
        key(&world, "key", if number % 2 == 0 { RSA } else { ED25519 });
        daemon.signal(Signal::SIGHUP);
    }
    world.database.wait_until_empty();
    let log = daemon.terminate();
    let records = server.records();
    assert_eq!(records.accepted().len(), COUNT);
    assert!(records.accepted().iter().all(|message| signatures(&message.data) == 1), "{log}");
    assert!(!log.contains("could not be signed"), "{log}");
}
