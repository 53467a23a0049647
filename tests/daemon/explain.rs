//! What the operator's tool finds out: what happens next to mail, and what would become of it. With a daemon and without one.

use std::io::Write as _;
use std::os::unix::net::UnixStream;

use serde_json::{Value, json};

use crate::support::smtp_records::Records;
use crate::support::tls::Identity;
use crate::support::{Action, Mail, Script, SmtpServer, World, tool};

fn of_kind<'a>(records: &'a [Value], kind: &str) -> Vec<&'a Value> {
    records.iter().filter(|record| record["kind"] == kind).collect()
}

/// Runs the tool, whatever comes of it, and returns the exit status, the records and what it has complained of.
fn ask(world: &World, words: &[&str]) -> (i32, Vec<Value>, String) {
    let words: Vec<&str> = ["--json"].iter().chain(words).copied().collect();
    let finished = tool::run(world, &words);
    let records = finished.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    (finished.code().unwrap(), records, finished.stderr)
}

/// What was found out by a probe.
fn verdict(records: &[Value]) -> &Value {
    let last = records.last().unwrap();
    assert_eq!(last["kind"], "verdict", "{records:?}");
    last
}

fn said(records: &[Value]) -> Vec<&str> {
    of_kind(records, "step").iter().map(|step| step["text"].as_str().unwrap()).collect()
}

fn has_heard(records: &Records, verb: &str) -> bool {
    records.connections.iter().any(|one| one.verbs().iter().any(|heard| heard == verb))
}

#[test]
fn explain_tells_what_a_destination_does_and_its_servers_in_order() {
    let (mut world, server) = World::with_server(Script::new().always("RCPT", Action::Stall));
    world.mx("example.org", 20, "backup.example.org", &server);
    world.set("destination_concurrency", 3).set("ratelimit", "5/min");
    let id = world.insert(&Mail::to("a@example.org"));
    let daemon = world.start();
    server.wait("RCPT was said", |records| has_heard(records, "RCPT"));
    let records = tool::records(&world, &["explain", "example.org"]);
    let [explanation] = of_kind(&records, "explanation")[..] else { panic!("{records:?}") };
    assert_eq!(
        (&explanation["next_hop"], &explanation["waits_for"]),
        (&json!("example.org"), &json!("server"))
    );
    assert_eq!((&explanation["connections"], &explanation["connections_max"]), (&json!(1), &json!(3)));
    assert_eq!((&explanation["claimed"], &explanation["ratelimit"]), (&json!(1), &json!("5/min")));
    let hosts: Vec<&Value> =
        of_kind(&records, "candidate").iter().map(|candidate| &candidate["host"]).collect();
    assert_eq!(hosts, [&json!("mx.example.org"), &json!("backup.example.org")]);
    let text = tool::output(&world, &["explain", &id.to_string()]);
    let address = server.address();
    for told in [
        format!("mail {id}\n"),
        "  state        ready: it was not tried yet\n".to_owned(),
        format!(
            "  now          it is being sent to mx.example.org [{}]:{}, on connection ",
            address.ip(),
            address.port()
        ),
        "example.org\n  now          is under way to mx.example.org".to_owned(),
        "  mail         1 being sent\n".to_owned(),
        "  connections  1 of 3; 1 of 500 to all destinations\n".to_owned(),
        "  MX           10 mx.example.org, 20 backup.example.org\n".to_owned(),
        format!(
            "    1  mx.example.org [{}]:{}, without TLS, 1 of 6 connections\n",
            address.ip(),
            address.port()
        ),
    ] {
        assert!(text.contains(&told), "{told:?} in {text}");
    }
    daemon.kill();
}

#[test]
fn explain_names_the_line_that_decides_each_key() {
    let (mut world, server) = World::with_server(Script::new());
    world.set("destination_concurrency", 3).set("ratelimit", "5/min");
    world
        .add("destination", "example.org concurrency 2 padding 4")
        .add("destination", "mx:mx.example.org host_concurrency 7")
        .add("destination", "other.example via relay.lan:2525");
    let daemon = world.start();
    daemon.wait_until_ready(&world);
    let config = world.config_text();
    let number = |pattern: &str| {
        let found = config.lines().position(|line| line.starts_with(&format!("destination {pattern} ")));
        found.unwrap() + 1
    };
    let decision = |key: &str, value: &str, pattern: &str| json!({ "key": key, "value": value, "line": number(pattern), "destination": pattern });
    let records = tool::records(&world, &["explain", "example.org"]);
    let of_hop = [decision("concurrency", "2", "example.org"), decision("padding", "4", "example.org")];
    assert_eq!(of_kind(&records, "explanation")[0]["decided"], json!(of_hop), "ratelimit is global");
    let of_host = of_kind(&records, "candidate")[0]["decided"].as_array().unwrap();
    assert!(of_host.contains(&decision("host_concurrency", "7", "mx:mx.example.org")), "{of_host:?}");
    assert!(of_hop.iter().all(|decision| of_host.contains(decision)), "{of_host:?}");
    let text = tool::output(&world, &["explain", "example.org"]);
    let by =
        |pattern: &str| format!("by line {} of the configuration (destination {pattern})", number(pattern));
    for told in [
        format!("  concurrency  2, {}\n", by("example.org")),
        "  ratelimit    5/min, global; ".to_owned(),
        format!("  padding      4, {}\n", by("example.org")),
        format!("       ports global; host_concurrency {}\n", by("mx:mx.example.org")),
    ] {
        assert!(text.contains(&told), "{told:?} in {text}");
    }
    let told = tool::records(&world, &["explain", "other.example"]);
    let via = &of_kind(&told, "explanation")[0]["decided"][0];
    assert_eq!((&via["key"], &via["line"]), (&json!("via"), &json!(number("other.example"))));
    daemon.terminate();
    drop(server);
}

#[test]
fn explain_tells_what_is_needed_of_tls_and_by_what() {
    let needs = |line: &str, records: &[[u8; 3]], are_mx_secure: bool| {
        let (mut world, server) = World::with_server(Script::new());
        world.dns.sign();
        if !are_mx_secure {
            world.dns.leave_unsigned("example.org");
        }
        world.set("portprio", format!("{}@starttls", server.port())).set("tls_policy", line);
        for parameters in records {
            world.dns.tlsa("mx.example.org", server.port(), *parameters, &"5a".repeat(32));
        }
        let daemon = world.start();
        daemon.wait_until_ready(&world);
        let told = tool::records(&world, &["explain", "example.org"]);
        let candidate = of_kind(&told, "candidate")[0].clone();
        let text = tool::output(&world, &["explain", "example.org"]);
        daemon.terminate();
        let server = text.lines().find(|line| line.contains("mx.example.org [")).unwrap().to_owned();
        (json!([candidate["needs"], candidate["needs_by"]]), server)
    };
    let (none, usual, unusable): (&[_], &[_], &[_]) = (&[], &[[3, 1, 1]], &[[1, 1, 1]]);
    for (line, records, are_mx_secure, expected, told) in [
        ("* may", none, true, [None, None], "STARTTLS, 0 of"),
        ("* none", none, true, [Some("no_tls"), Some("tls_policy")], "TLS is never tried (tls_policy), 0 of"),
        (
            "* encrypt",
            none,
            true,
            [Some("encryption"), Some("tls_policy")],
            "in plain text (tls_policy), 0 of",
        ),
        ("* dane", none, true, [None, None], "STARTTLS, 0 of"),
        ("* dane", usual, true, [Some("dane"), Some("dane")], "must match TLSA records (DANE), 0 of"),
        (
            "* dane",
            usual,
            false,
            [Some("dane"), Some("dane_insecure_mx")],
            "(DANE, but DNSSEC does not vouch for",
        ),
        (
            "* dane",
            unusable,
            true,
            [Some("encryption"), Some("dane")],
            "in plain text (DANE: its TLSA records",
        ),
    ] {
        let (found, text) = needs(line, records, are_mx_secure);
        assert_eq!(found, json!(expected), "{line} {records:?}");
        assert!(text.contains(told), "{line} {records:?}: {text}");
    }
}

#[test]
fn explain_tells_what_is_remembered_of_a_host_and_for_how_long() {
    let mut world = World::new();
    let server = SmtpServer::start(Script::new());
    world.set("portprio", server.port()).set("interval", 1);
    world.mx("example.org", 20, "up.example.org", &server);
    // Nothing listens there.
    world.dns.mx("example.org", 10, "down.example.org");
    world.dns.a("down.example.org", "127.0.0.77".parse().unwrap());
    let id = world.insert(&Mail::to("a@example.org"));
    let daemon = world.start();
    world.database.wait("the mail is delivered", |database| database.row(id).is_none());
    let records = tool::records(&world, &["explain", "example.org"]);
    let candidates = of_kind(&records, "candidate");
    let hosts: Vec<&Value> = candidates.iter().map(|candidate| &candidate["host"]).collect();
    assert_eq!(hosts, [&json!("up.example.org"), &json!("down.example.org")], "it is tried last now");
    let trouble = candidates[1];
    let [since, until] = ["trouble_since_ms", "trouble_until_ms"].map(|name| trouble[name].as_i64().unwrap());
    assert!((59_000..=61_000).contains(&(until - since)), "{trouble}");
    let text = tool::output(&world, &["explain", "example.org"]);
    assert!(text.contains("in trouble since 20") && text.contains("; tried last until 20"), "{text}");
    daemon.terminate();
    // Without the daemon its memory is gone, and that is told.
    let finished = tool::run(&world, &["explain", "example.org"]);
    assert_eq!(finished.code(), Some(0));
    assert!(finished.stderr.contains("no daemon works on the database"), "{}", finished.stderr);
    assert!(finished.stderr.contains("is not known"), "{}", finished.stderr);
    let place = |host: &str| finished.stdout.find(&format!("{host} [")).unwrap();
    assert!(place("down.example.org") < place("up.example.org"), "{}", finished.stdout);
}

#[test]
fn explain_says_of_waiting_mail_until_when_and_by_which_rule_and_why_a_domain_leads_nowhere() {
    let (mut world, _server) = World::with_server(Script::new().always("RCPT", "450 4.2.0 later"));
    world.set("retryinterval", "1h");
    let id = world.insert(&Mail::to("a@example.org"));
    let daemon = world.start();
    world.database.wait_for_failure(id);
    let (_, records, _) = ask(&world, &["explain", &id.to_string()]);
    let explanation = of_kind(&records, "explanation")[0];
    let mail = of_kind(&records, "mail")[0];
    assert_eq!(explanation["mail_waits_for"], "time");
    assert_eq!(explanation["mail_until_ms"], mail["next_ms"]);
    assert_eq!((&explanation["waiting"], &explanation["next_ms"]), (&json!(1), &mail["next_ms"]));
    let text = tool::output(&world, &["explain", &id.to_string()]);
    assert!(text.contains("by retryinterval, 1h between attempts"), "{text}");
    world.dns.null_mx("null.example");
    let (code, records, _) = ask(&world, &["explain", "null.example"]);
    assert_eq!((code, of_kind(&records, "candidate").len()), (0, 0));
    assert!(records[0]["problem"].as_str().unwrap().contains("null MX"), "{records:?}");
    assert_eq!(ask(&world, &["explain", "4711"]).0, 2, "no such mail");
    assert_eq!(ask(&world, &["explain", "a..b"]).0, 64);
    daemon.terminate();
}

/// With and without a daemon, by the same code.
fn both(world: &World, words: &[&str], check: impl Fn(i32, &[Value], bool)) {
    let (code, records, stderr) = ask(world, words);
    assert!(stderr.contains("no daemon works on the database"), "{stderr}");
    check(code, &records, false);
    let daemon = world.start();
    daemon.wait_until_ready(world);
    let (code, records, stderr) = ask(world, words);
    assert_eq!(stderr, "");
    check(code, &records, true);
    daemon.terminate();
}

#[test]
fn a_probe_asks_for_the_recipient_and_sends_nothing() {
    let (world, server) = World::with_server(Script::new().keywords(["PIPELINING", "SIZE 1000"]));
    both(&world, &["probe", "bob@example.org", "--sender", "alice@client.example"], |code, records, _| {
        let verdict = verdict(records);
        assert_eq!((code, &verdict["verdict"], &verdict["code"]), (0, &json!("accepted"), &json!(250)));
        assert_eq!(verdict["host"], "mx.example.org");
        for line in ["MAIL FROM:<alice@client.example>", "RCPT TO:<bob@example.org>", "RSET", "QUIT"] {
            assert!(said(records).contains(&line), "{line}: {records:?}");
        }
    });
    let records = server.records();
    assert!(records.accepted().is_empty());
    let commands = records.connections.iter().flat_map(|connection| connection.commands());
    assert!(!commands.clone().any(|command| command.starts_with("DATA")), "{records:?}");
    // Nothing of it is in the database.
    assert!(world.database.outbox().is_empty() && world.database.failures().is_empty());
    let attempts = "SELECT count(*) FROM dispatch_attempts WHERE recipient = 'bob@example.org'";
    let count = world.database.another().query_row(attempts, [], |row| row.get(0));
    assert_eq!(count, Ok(0));
}

#[test]
fn a_probe_tells_the_failure_that_mail_would_have() {
    for (verb, reply, expected, failure) in [
        ("RCPT", "550 5.1.1 no such user", "failed", "recipient"),
        ("RCPT", "450 4.2.0 later", "deferred", "recipient"),
        ("MAIL", "553 5.1.8 who are you", "failed", "sender"),
        ("GREETING", "554 go away", "failed", "greeting"),
    ] {
        let (world, _server) = World::with_server(Script::new().always(verb, reply));
        let (code, records, _) = ask(&world, &["probe", "bob@example.org"]);
        let verdict = verdict(&records);
        assert_eq!((code, &verdict["verdict"]), (1, &json!(expected)), "{verdict}");
        assert_eq!(
            (&verdict["failure"], &verdict["code"]),
            (&json!(failure), &json!(reply[..3].parse::<u16>().unwrap()))
        );
        let finished = tool::run(&world, &["probe", "bob@example.org"]);
        assert!(finished.stdout.contains(&format!(" < {reply}\n")), "{}", finished.stdout);
        let last = finished.stdout.lines().last().unwrap();
        assert!(last.starts_with("mail would fail ") && last.contains(reply), "{last}");
    }
    let world = World::new();
    world.dns.null_mx("null.example");
    let (code, records, _) = ask(&world, &["probe", "bob@null.example"]);
    assert_eq!((code, &verdict(&records)["failure"]), (1, &json!("dns")));
}

#[test]
fn a_probe_tells_of_tls_and_takes_one_host_and_port() {
    let identity = Identity::self_signed(&["mx.example.org"]);
    let server = SmtpServer::start(Script::new().starttls(&identity));
    let mut world = World::new();
    world.set("portprio", "1");
    let host = format!("{}:{}/starttls", server.ip(), server.port());
    let (code, records, _) = ask(&world, &["probe", "bob@example.org", "--host", &host]);
    let found = verdict(&records);
    assert_eq!((code, &found["verdict"]), (0, &json!("accepted")), "{records:?}");
    assert!(found["tls"].as_str().unwrap().contains("TLSv1.3"), "{found}");
    assert!(said(&records).iter().any(|text| text.starts_with("inside TLSv1.3")), "{records:?}");
    let port = format!("{}@starttls", server.port());
    let words = ["probe", "bob@example.org", "--host", &server.ip().to_string(), "--port", &port];
    assert_eq!(ask(&world, &words).0, 0);
    // Only connected to.
    let (code, records, _) = ask(&world, &["probe", &host]);
    assert_eq!((code, &verdict(&records)["verdict"]), (0, &json!("reached")));
}

#[test]
fn a_probe_proves_the_password_of_a_relay_and_shows_it_nowhere() {
    for (password, code) in [("s3cret", 0), ("wr0ng", 1)] {
        let server = SmtpServer::start(Script::new().auth("PLAIN", "mailer", "s3cret"));
        let world = World::new();
        let host = format!("mailer:{password}@{}:{}", server.ip(), server.port());
        let finished = tool::run(&world, &["probe", "bob@example.org", "--host", &host]);
        assert_eq!(finished.code(), Some(code), "{}{}", finished.stdout, finished.stderr);
        assert!(
            !finished.stdout.contains(password) && !finished.stderr.contains(password),
            "{}",
            finished.stdout
        );
        assert!(finished.stdout.contains("> AUTH PLAIN"), "{}", finished.stdout);
    }
}

#[test]
fn a_probe_needs_no_database_and_no_configuration() {
    let (world, server) = World::with_server(Script::new());
    let config = world.path("bare.conf");
    let lines =
        format!("announce client.example\nportprio {}\nresolver {}\n", server.port(), world.dns.address());
    std::fs::write(&config, lines).unwrap();
    let mut command = tool::command();
    command.arg("--config").arg(&config).args(["probe", "bob@example.org"]);
    let finished = tool::finish(command, b"");
    assert_eq!(finished.code(), Some(0), "{}{}", finished.stdout, finished.stderr);
    assert!(finished.stderr.contains("no database is named"), "{}", finished.stderr);
}

#[test]
fn a_probe_of_a_silent_server_holds_up_nobody_and_ends_with_the_daemon() {
    let (world, server) = World::with_server(Script::new().once("MAIL", Action::Stall));
    let daemon = world.start();
    daemon.wait_until_ready(&world);
    let config = world.write_config();
    let probe = std::thread::spawn(move || {
        let mut command = tool::command();
        command.arg("--config").arg(config).args(["--json", "probe", "bob@example.org"]);
        tool::finish(command, b"")
    });
    server.wait("MAIL was said", |records| has_heard(records, "MAIL"));
    let id = world.insert(&Mail::to("a@example.org"));
    world.database.wait("mail goes on", |database| database.row(id).is_none());
    assert_eq!(tool::records(&world, &["status"])[0]["connections"]["busy"], 1);
    daemon.terminate();
    let finished = probe.join().unwrap();
    assert_eq!(finished.code(), Some(1), "{}", finished.stderr);
}

/// The tool is ended by Ctrl-C while a server is silent, which may last for five minutes.
#[test]
fn a_probe_ends_at_once_when_nobody_waits_for_it_any_more() {
    let (world, server) = World::with_server(Script::new().always("EHLO", Action::Stall));
    let daemon = world.start();
    daemon.wait_until_ready(&world);
    let path = world.database.path().canonicalize().unwrap();
    let mut client = UnixStream::connect(format!("{}.dispatch-control", path.display())).unwrap();
    client.write_all(b"probe bob@example.org   \n").unwrap();
    server.wait("the server is silent", |records| {
        records.connections.iter().any(|connection| !connection.lines.is_empty())
    });
    drop(client);
    server.wait_until_closed();
    daemon.terminate();
}
