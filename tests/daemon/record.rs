//! The directive `record`: what it writes replays, and holds nothing that it must not.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::support::tls::Identity;
use crate::support::{Action, Gate, Mail, Script, SmtpServer, World, tool};

const USER: &str = "secretive-user";
const PASSWORD: &str = "open: Sesame@99";
const TEXT: &str = "Subject: utterly private\r\n\r\n.hidden words\r\nbare\nend";

/// A world that records, with a server for `target.test`.
struct Recording {
    world: World,
    server: SmtpServer,
    directory: PathBuf,
}

impl Recording {
    fn of(script: Script) -> Self {
        let mut world = World::new();
        let server = SmtpServer::start(script);
        world.set("portprio", server.port()).set("announce", "client.real.test");
        world.route("target.test", &server);
        let directory = world.path("records");
        std::fs::create_dir(&directory).unwrap();
        world.set("record", directory.display());
        Self { world, server, directory }
    }

    /// One pass over these mails, and the only record of it.
    fn after(&self, mails: &[Mail]) -> String {
        for mail in mails {
            self.world.insert(mail);
        }
        assert_eq!(self.world.run(&["deliver", "target.test"]).code(), Some(0));
        self.only()
    }

    /// One pass over a mail that goes to the server as a relay, and the only record of it.
    fn after_handoff(&self, credentials: &str, mode: &str) -> String {
        let remote = format!("{credentials}{}:{}{mode}", self.server.ip(), self.server.port());
        self.world.insert(&mail("bob@elsewhere.real.test").remote(&remote));
        assert_eq!(self.world.run(&["handoff", &remote]).code(), Some(0));
        self.only()
    }

    /// The only record, which replays with the same lines and discloses nothing.
    fn only(&self) -> String {
        let mut records = self.all();
        assert_eq!(records.len(), 1, "{records:#?}");
        let record = records.remove(0);
        assert_replays(&record);
        record
    }

    /// All records, in the order of their names.
    fn all(&self) -> Vec<String> {
        let mut paths: Vec<PathBuf> =
            std::fs::read_dir(&self.directory).unwrap().map(|entry| entry.unwrap().path()).collect();
        paths.sort();
        paths.iter().map(|path| std::fs::read_to_string(path).unwrap()).collect()
    }
}

fn assert_replays(record: &str) {
    let forbidden = [
        USER,
        PASSWORD,
        "Sesame",
        "private",
        "hidden",
        "target",
        "real.test",
        "alice",
        "bob",
        "carol",
        "127.",
    ];
    for forbidden in forbidden {
        assert!(!record.contains(forbidden), "{forbidden:?} is in\n{record}");
    }
    match cmail_delivery_sim::replay(record) {
        Ok(replayed) => assert_eq!(replayed, record, "it replays otherwise"),
        Err(error) => panic!("{error}\n{record}"),
    }
}

#[track_caller]
fn assert_lines(record: &str, lines: &[&str]) {
    for line in lines {
        assert!(record.lines().any(|found| found.starts_with(line)), "{line:?} is not in\n{record}");
    }
}

fn mail(to: &str) -> Mail {
    Mail::to(to).from("alice@real.test").data(TEXT)
}

#[test]
fn a_delivery_is_a_record_that_replays() {
    let script = Script::new()
        .keywords(["SIZE 100000", "8BITMIME"])
        .once("GREETING", "220 mx.target.test ESMTP at your service, [127.0.0.9]")
        .once("RCPT", "250 2.1.5 bob@target.test ok, bob");
    let record = Recording::of(script).after(&[mail("bob@target.test")]);
    assert_lines(
        &record,
        &["C+ 192.0.2.1:", "C: EHLO mail.example.org", "C: MAIL FROM:<u", "= 1 deleted", "C-"],
    );
    let echo = "S: 250 2.1.5 u2@example.net ok, u2";
    assert!(record.contains(echo) || record.contains(&echo.replace("u2", "u1")), "{record}");
}

#[test]
fn recipients_of_one_message_and_several_messages_are_one_record() {
    let script = Script::new()
        .keywords(["SIZE"])
        .once("RCPT", "250 ok")
        .once("RCPT", "550 5.1.1 <carol@target.test>: carol is unknown at target.test")
        .once(".", "451 4.3.0 try later, alice@real.test");
    let mails = [
        mail("bob@target.test"),
        mail("carol@target.test"),
        mail("bob@target.test").data("8 bit: \u{e4}\n."),
    ];
    let record = Recording::of(script).after(&mails);
    assert_lines(&record, &["= 1 deferred \"451 4.3.0", "= 2 failed \"550 5.1.1 <u", "= 3 deleted"]);
}

#[test]
fn a_refusal_by_all_candidates_is_one_record_of_the_pass() {
    let recording = Recording::of(Script::new().always("GREETING", "554 mx.target.test has no service"));
    let second = SmtpServer::start_beside(Script::new().always("EHLO", "421 come back"), &recording.server);
    recording.world.mx("target.test", 20, "mx2.target.test", &second);
    recording.world.dns.mx("target.test", 30, "dead.target.test");
    recording.world.dns.a("dead.target.test", crate::support::unique_loopback().into());
    let record = recording.after(&[mail("bob@target.test"), mail("carol@target.test")]);
    assert_lines(
        &record,
        &[
            "C+ 192.0.2.1:",
            "C+ 192.0.2.2:",
            "C+ 192.0.2.3:",
            "! refused Connection refused",
            "= 1 deferred \"421",
        ],
    );
}

#[test]
fn padding_is_the_same_in_the_replay() {
    let identity = Identity::self_signed(&["x.real.test"]);
    let mut recording = Recording::of(Script::new().implicit_tls(&identity));
    recording.world.set("tls_padding", 1000);
    let record = recording.after_handoff("", "/tls");
    assert_lines(
        &record,
        &["@ set tls_padding 1000", "@ session ", "! tls-unverified", "C^ 192.0.2.1", "= 1 deleted"],
    );
}

#[test]
fn starttls_is_recorded_with_what_was_said_before_and_after() {
    let identity = Identity::self_signed(&["x.real.test"]);
    let script = Script::new().starttls(&identity).keywords_in_tls(["SIZE 4711"]);
    let record = Recording::of(script).after_handoff("", "/starttls");
    assert_lines(
        &record,
        &["S: 250 STARTTLS", "C: STARTTLS", "! tls-unverified", "S: 250 SIZE 4711", "= 1 deleted"],
    );
}

#[test]
fn what_is_needed_of_tls_is_recorded_and_decides_in_the_replay_too() {
    let identity = Identity::self_signed(&["x.real.test"]);
    let other = Identity::self_signed(&["x.real.test"]);
    for (pinned, lines) in [
        (&identity, ["! tls-unverified pinned", "= 1 deleted"]),
        (&other, ["! tls-unverified not-pinned", "= 1 deferred "]),
    ] {
        let mut recording = Recording::of(Script::new().starttls(&identity));
        let ports = format!("{0}@starttls {0}", recording.server.port());
        recording.world.set("portprio", ports);
        let line = format!(".test pin min=1.3 sni=sni.real.test spki={}", pinned.pin());
        recording.world.set("tls_policy", line);
        let record = recording.after(&[mail("bob@target.test")]);
        assert_lines(&record, &lines);
        assert_lines(&record, &["@ set tls_policy pin min=1.3"]);
    }
}

#[test]
fn what_tlsa_records_need_is_recorded_and_decides_in_the_replay_too() {
    let (identity, other) = (Identity::self_signed(&["a.example"]), Identity::self_signed(&["a.example"]));
    for (named, level, expected) in [
        (&identity, "dane", ["! tls-unverified dane-ee", "= 1 deleted"]),
        (&identity, "dane-only", ["! tls-unverified dane-ee", "= 1 deleted"]),
        (&other, "dane", ["! tls-unverified dane-mismatch", "= 1 deferred "]),
    ] {
        let mut recording = Recording::of(Script::new().starttls(&identity));
        let port = recording.server.port();
        recording.world.dns.sign();
        recording.world.dns.tlsa("mx.target.test", port, [3, 1, 1], &named.pin());
        recording.world.set("portprio", format!("{port}@starttls {port}"));
        recording.world.set("tls_policy", format!("* {level}"));
        let record = recording.after(&[mail("bob@target.test")]);
        assert_lines(&record, &["@ tlsa "]);
        assert_lines(&record, &[&format!("@ set tls_policy {level}")]);
        assert_lines(&record, &expected);
    }
}

#[test]
fn a_handshake_that_the_server_drops_is_recorded_with_its_second_try() {
    let identity = Identity::self_signed(&["x.real.test"]);
    let script =
        Script::new().starttls(&identity).always("STARTTLS", Action::ReplyThenClose("220 go".into()));
    let record = Recording::of(script).after_handoff("", "/starttls");
    assert_lines(&record, &["! eof", "= 1 deferred \"Failed to connect or negotiate"]);
    assert_eq!(record.matches("! eof").count(), 2, "with all groups, and with classic ones: {record}");
}

#[test]
fn every_mechanism_of_auth_replays_without_the_secret() {
    for mechanism in ["PLAIN", "LOGIN", "CRAM-MD5", "SCRAM-SHA-256"] {
        let script = Script::new().auth(mechanism, USER, PASSWORD);
        let record = Recording::of(script).after_handoff(&format!("{USER}:{PASSWORD}@"), "");
        assert_lines(
            &record,
            &["@ remote user1:secret99@192.0.2.1:", &format!("C: AUTH {mechanism}"), "= 1 deleted"],
        );
    }
}

#[test]
fn a_server_that_does_not_know_the_password_is_none_in_the_replay_either() {
    let script = Script::new().auth("SCRAM-SHA-256", USER, PASSWORD).scram_lies().lenient();
    let record = Recording::of(script).after_handoff(&format!("{USER}:{PASSWORD}@"), "");
    assert_lines(&record, &["C: *", "= 1 deferred "]);
}

#[test]
fn an_echo_of_the_credentials_is_masked() {
    use base64::Engine as _;
    let token = base64::engine::general_purpose::STANDARD.encode(format!("\0{USER}\0{PASSWORD}"));
    let echo = format!("535 5.7.8 {USER} rejected: AUTH PLAIN {token} {PASSWORD}");
    let script = Script::new().auth("PLAIN", USER, PASSWORD).always("AUTH", Action::Reply(echo));
    let record = Recording::of(script).after_handoff(&format!("{USER}:{PASSWORD}@"), "");
    assert!(!record.contains(&token), "{record}");
    assert_lines(
        &record,
        &["S: 535 5.7.8 *** rejected: AUTH PLAIN *** ***", "= 1 deferred \"535 5.7.8 *** rejected"],
    );
}

#[test]
fn a_connection_that_is_lost_is_recorded_as_lost() {
    let script = Script::new().once(".", Action::Close);
    let record = Recording::of(script).after(&[mail("bob@target.test")]);
    assert_lines(&record, &["C. ", "! eof", "= 1 deferred \"delivery uncertain"]);
}

#[test]
fn a_reply_in_the_middle_of_the_message_is_recorded_with_how_much_was_taken() {
    let take = Action::TakeData(1000, Box::new(Action::ReplyThenClose("552 5.3.4 too much".into())));
    let recording = Recording::of(Script::new().lenient().once("DATA", take));
    let record = recording.after(&[mail("bob@target.test").data("0123456789\r\n".repeat(1_000_000))]);
    assert_lines(&record, &["! takes ", "C. "]);
}

#[test]
fn what_was_read_together_is_read_together_in_the_replay() {
    let both = Action::Raw(b"220 mx.target.test ESMTP\r\n250 too early\r\n".to_vec());
    let record =
        Recording::of(Script::new().lenient().always("GREETING", both)).after(&[mail("bob@target.test")]);
    assert_lines(
        &record,
        &["@ reads fixed", "S| \"220 mx1.example.net ESMTP\\r\\n250 too early\\r\\n\"", "= 1 deferred"],
    );
}

#[test]
fn an_interrupted_conversation_is_recorded_too() {
    let recording = Recording::of(Script::new().lenient().once("RCPT", Action::Silence));
    recording.world.insert(&mail("bob@target.test"));
    let daemon = recording.world.start();
    recording.server.wait("RCPT", |records| records.count("RCPT") == 1);
    daemon.terminate();
    let record = recording.only();
    assert_lines(&record, &["! drain", "! stall", "? 4s", "C-"]);
}

#[test]
fn a_record_that_becomes_too_long_ends_where_it_still_replays() {
    let line = format!("250-{}\r\n", "x".repeat(1000));
    let long = format!("{}250 2.1.0 ok", line.repeat(50));
    let mut recording = Recording::of(Script::new().always("MAIL", Action::Reply(long)));
    recording.world.set("destination_concurrency", 1);
    let mails: Vec<Mail> =
        (0..30).map(|number| mail("bob@target.test").data(format!("message {number}"))).collect();
    let record = recording.after(&mails);
    assert_lines(&record, &["= 15 deleted", "# The record ends here, because it has become too long."]);
    assert!(recording.world.database.outbox().is_empty());
}

#[test]
fn connections_at_the_same_time_have_records_of_their_own() {
    let (first, second) = (Gate::new(), Gate::new());
    let script = Script::new()
        .once(".", Action::After(first.clone(), Box::new(Action::Close)))
        .once(".", Action::After(second.clone(), Box::new("250 ok".into())));
    let recording = Recording::of(script);
    let daemon = recording.world.start();
    let lost = recording.world.insert(&mail("bob@target.test"));
    recording.server.wait("the first message", |records| records.count("DATA") == 1);
    // It waits, so that a second connection is worth it.
    let taken = recording.world.insert(&mail("carol@target.test"));
    recording.server.wait("the second message", |records| records.count("DATA") == 2);
    first.open();
    recording.world.database.wait_for_failure(lost);
    second.open();
    recording.world.database.wait("the second is delivered", |database| database.row(taken).is_none());
    daemon.terminate();
    let records = recording.all();
    assert_eq!(records.len(), 2, "{records:#?}");
    records.iter().for_each(|record| assert_replays(record));
    assert_lines(&records.concat(), &["# The connection ends here", "= 1 deleted"]);
}

/// What the daemon records of these mails, one after the other, with a server that behaves like this.
fn recorded_by_the_daemon(script: Script, mails: &[Mail]) -> (Recording, Vec<String>) {
    let recording = Recording::of(script);
    let daemon = recording.world.start();
    for mail in mails {
        let id = recording.world.insert(mail);
        recording.world.database.wait("the mail is decided", |database| {
            database.row(id).is_none() || !database.failures_of(id).is_empty()
        });
    }
    recording.server.wait_until_closed();
    daemon.terminate();
    let records = recording.all();
    records.iter().for_each(|record| assert_replays(record));
    (recording, records)
}

#[test]
fn a_connection_that_ends_after_it_was_idle_replays() {
    let script = Script::new().keywords(["PIPELINING", "SIZE"]);
    let (_, records) = recorded_by_the_daemon(script, &[mail("bob@target.test")]);
    assert_lines(&records[0], &["= 1 deleted", "C: QUIT", "S: 221", "C-"]);
    assert!(!records[0].contains("\n+ "), "an idle connection is no silence: {}", records[0]);
}

#[test]
fn failures_that_the_daemon_records_replay() {
    let refused = Script::new().always("RCPT", "550 5.1.1 <bob@target.test> unknown");
    let deferred = Script::new().always(".", "451 4.3.0 later");
    for script in [refused, deferred] {
        let (_, records) = recorded_by_the_daemon(script, &[mail("bob@target.test")]);
        assert_lines(&records[0], &["= 1 ", "C: QUIT"]);
    }
}

#[test]
fn a_record_ends_where_further_mail_comes_on_an_idle_connection() {
    for script in [Script::new(), Script::new().keywords(["PIPELINING"])] {
        let mails = [mail("bob@target.test"), mail("carol@target.test").data("another")];
        let recording = Recording::of(script);
        let daemon = recording.world.start();
        let first = recording.world.insert(&mails[0]);
        recording.world.database.wait("the first is delivered", |database| database.row(first).is_none());
        // The connection is idle for longer than it takes to ask the database.
        let idle_since = Instant::now();
        while idle_since.elapsed() < Duration::from_millis(200) {
            daemon.wait_until_ready(&recording.world);
        }
        let second = recording.world.insert(&mails[1]);
        recording.world.database.wait("the second is delivered", |database| database.row(second).is_none());
        daemon.terminate();
        let record = recording.only();
        assert_lines(&record, &["= 1 deleted", "C: QUIT", "# The connection was kept for further mail here"]);
    }
}

#[test]
fn a_record_ends_where_a_server_closes_an_idle_connection() {
    let script = Script::new().once(".", Action::ReplyThenClose("250 ok".into()));
    let (_, records) = recorded_by_the_daemon(script, &[mail("bob@target.test")]);
    assert_lines(&records[0], &["= 1 deleted"]);
}

#[test]
fn an_unusable_directory_is_an_error_at_the_start_and_of_check() {
    let mut world = World::new();
    let missing = world.path("missing");
    world.set("record", missing.display());
    for words in [&["check"][..], &["deliver", "target.test"]] {
        let finished = world.run(words);
        assert_eq!(finished.code(), Some(1));
        let text = "of the directive record cannot be used: No such file or directory";
        assert!(finished.stderr.contains(text), "{}", finished.stderr);
    }
}

#[test]
fn a_directory_that_goes_away_costs_one_warning_and_no_mail() {
    let recording = Recording::of(Script::new());
    let daemon = recording.world.start();
    recording.world.insert(&mail("bob@target.test"));
    recording.world.database.wait_until_empty();
    std::fs::rename(&recording.directory, recording.world.path("elsewhere")).unwrap();
    for _ in 0..2 {
        recording.world.insert(&mail("bob@target.test"));
        recording.world.database.wait_until_empty();
    }
    let log = daemon.terminate();
    assert_eq!(log.matches("nothing is recorded until that is possible").count(), 1, "{log}");
}

/// The operator's tool shows a record, and says whether it goes today as it is written.
#[test]
fn the_tool_replays_a_record() {
    let recording = Recording::of(Script::new().always("RCPT", "550 5.1.1 no such user"));
    let record = recording.after(&[mail("bob@target.test")]);
    let write = |name: &str, text: &str| {
        let path = recording.world.path(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let replay = |paths: &[&PathBuf], options: &[&str]| {
        // It needs neither a configuration nor a database.
        let mut command = tool::command();
        command.args(["--config", "/nonexistent"]).args(options).arg("replay").args(paths);
        tool::finish(command, b"")
    };
    let (good, other, none) = (
        write("good", &record),
        write("other", &record.replace("550 5.1.1", "450 4.2.0")),
        write("none", "x\n"),
    );
    let finished = replay(&[&good], &[]);
    assert_eq!(finished.code(), Some(0), "{finished:?}");
    assert!(finished.stdout.starts_with(&record), "{finished:?}");
    assert!(
        finished.stdout.ends_with(&format!("{}: it goes as it is written\n", good.display())),
        "{finished:?}"
    );
    let finished = replay(&[&other, &none], &[]);
    assert_eq!(finished.code(), Some(1), "{finished:?}");
    assert!(finished.stdout.contains("it goes otherwise than it is written, from line "), "{finished:?}");
    assert!(
        finished.stderr.contains("none: line 1") && finished.stderr.contains("2 records go otherwise"),
        "{finished:?}"
    );
    let finished = replay(&[&good], &["--json"]);
    let printed: serde_json::Value = serde_json::from_str(&finished.stdout).unwrap();
    assert_eq!(tool::fields_of(&printed), tool::documented_fields()["replay"]);
    assert_eq!((&printed["as_written"], &printed["observed"]), (&true.into(), &record.into()));
}
