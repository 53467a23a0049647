//! Conversations as they are said, and `top`, by the control socket.

use std::io::{BufRead as _, BufReader};

use serde_json::{Value, json};

use crate::control::connect;
use crate::documentation;
use crate::support::{Action, Mail, Script, SocketClient, World, tool};

/// A `trace` as a child process, whose lines are waited for.
struct Trace {
    child: std::process::Child,
    lines: BufReader<std::process::ChildStdout>,
}

impl Trace {
    /// Begins to watch. Returns when the daemon knows of it.
    fn begin(world: &World, words: &[&str]) -> Self {
        let mut command = tool::command();
        command.arg("--config").arg(world.path("dispatchd.conf")).arg("trace").args(words);
        command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap());
        let mut first = String::new();
        lines.read_line(&mut first).unwrap();
        assert_eq!(first, "(each line is shown as it is said; Ctrl-C ends this)\n");
        Self { child, lines }
    }

    /// Returns the lines up to one that holds this text, without their times.
    fn until(&mut self, text: &str) -> Vec<String> {
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            assert!(self.lines.read_line(&mut line).unwrap() > 0, "{text:?} is not told, but {lines:#?}");
            assert!(line.as_bytes()[2] == b':' && line.as_bytes()[8] == b'.', "{line}");
            let is_last = line.contains(text);
            lines.push(line[13..].trim_end().to_owned());
            if is_last {
                return lines;
            }
        }
    }
}

impl Drop for Trace {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Returns a client that watches.
fn watching(world: &World, request: &str) -> SocketClient {
    let mut client = connect(world);
    client.send(request);
    let record = client.record().unwrap();
    assert_eq!(record["kind"], "watching");
    assert_eq!(tool::fields_of(&record), tool::documented_fields()["watching"]);
    client
}

#[test]
fn trace_shows_a_conversation_with_times_mail_and_host() {
    let (mut world, server) = World::with_server(Script::new().always("RCPT", "250 2.1.5 Ok"));
    world.set("verbosity", 1).set("connection_idle", 0);
    let daemon = world.start();
    daemon.wait_until_ready(&world);
    let mut trace = Trace::begin(&world, &["example.org"]);
    let id = world.insert(&Mail::to("bob@example.org").data("Subject: x\r\n\r\nthe text\r\n"));
    let lines = trace.until("* closed");
    let said: Vec<&str> =
        lines.iter().map(|line| line.split("mx.example.org").nth(1).unwrap().trim()).collect();
    for line in
        ["* connecting", "* connected", "< 250 2.1.5 Ok", "> RCPT TO:<bob@example.org>", "> DATA", "> QUIT"]
    {
        assert!(said.contains(&line), "{line} in {lines:#?}");
    }
    let about = |text: &str| lines.iter().find(|line| line.contains(text)).unwrap();
    assert!(about("RCPT TO:").contains(&format!("mail {id} ")), "{lines:#?}");
    assert!(about("250 2.1.5").contains(&format!("mail {id} ")), "{lines:#?}");
    assert!(about("octets of mail data]").contains(&format!("mail {id} ")), "{lines:#?}");
    assert!(!lines.iter().any(|line| line.contains("the text")), "{lines:#?}");
    // The sample of the documentation has these columns: numbers end at a place, names and marks begin at one.
    let columns =
        |line: &str| line.split_once("mx.example.org").map(|(before, rest)| (before.len(), rest.to_owned()));
    for sample in documentation::blocks("docs/queue.md", "## The operator's tool", "text").remove(0).lines() {
        let sample = columns(&sample[13..]);
        assert!(lines.iter().any(|line| columns(line) == sample), "{sample:?} in {lines:#?}");
    }
    // What is watched is not in the log.
    let log = daemon.stderr();
    assert!(!log.contains("RCPT TO:<bob@example.org>\n") && !log.contains("> RCPT"), "{log}");
    drop(trace);
    server.wait_for_messages(1);
    daemon.terminate();
}

#[test]
fn trace_is_about_its_destination_and_shows_data_only_if_it_is_asked_to() {
    let (world, _server) = World::with_server(Script::new());
    let daemon = world.start();
    daemon.wait_until_ready(&world);
    let mut client = watching(&world, "trace example.org data\n");
    world.insert(&Mail::to("a@example.net"));
    let id = world.insert(&Mail::to("a@example.org").data("Subject: s\r\n\r\nlast words\r\n"));
    let mut records = Vec::new();
    loop {
        let record = client.record().unwrap();
        let is_last = record["from"] == "server"
            && record["mail_id"] == id
            && records.iter().any(|record: &Value| record["text"] == ".");
        records.push(record);
        if is_last {
            break;
        }
    }
    assert!(records.iter().all(|record| record["next_hop"] == "example.org"), "{records:?}");
    assert_eq!(tool::fields_of(&records[0]), tool::documented_fields()["said"]);
    assert!(
        records.iter().any(|record| record["text"] == "last words" && record["mail_id"] == id),
        "{records:?}"
    );
    // A destination without a server is told too.
    let mut other = watching(&world, "trace *\n");
    world.insert(&Mail::to("b@example.net"));
    let is_about_it = |record: &Value| record["next_hop"] == "example.net";
    // The bounce of the first mail is told too, and may come before.
    let told = std::iter::from_fn(|| other.record()).find(is_about_it).unwrap();
    assert_eq!((&told["from"], &told["host"]), (&json!("remark"), &json!(null)));
    assert!(told["text"].as_str().unwrap().contains("does not exist"), "{told}");
    for wrong in ["a..b", "user:secret@relay.lan"] {
        let finished = tool::run(&world, &["trace", wrong]);
        assert_eq!(finished.code(), Some(1));
        assert!(finished.stderr.contains("is no destination"), "{}", finished.stderr);
    }
    daemon.terminate();
}

#[test]
fn trace_shows_no_password() {
    let mut world = World::new();
    let server = crate::support::SmtpServer::start(Script::new().auth("PLAIN", "user", "Secret-Word"));
    world.set("auth_insecure", "yes");
    let daemon = world.start();
    daemon.wait_until_ready(&world);
    let mut client = watching(&world, "trace *\n");
    let remote = format!("user:Secret-Word@{}:{}", server.ip(), server.port());
    world.insert(&Mail::to("a@example.com").remote(&remote));
    let mut told = String::new();
    while !told.contains("250 2.0.0") && !told.contains("RCPT TO:<a@example.com>") {
        assert!(client.0.read_line(&mut told).unwrap() > 0);
    }
    assert!(told.contains("AUTH PLAIN"), "{told}");
    use base64::Engine as _;
    let secret = base64::engine::general_purpose::STANDARD.encode("\0user\0Secret-Word");
    assert!(!told.contains("Secret-Word") && !told.contains(&secret), "{told}");
    daemon.terminate();
}

/// One who watches and does not read costs nothing but lines, and is told how many.
#[test]
fn who_watches_without_reading_loses_lines_and_holds_up_no_mail() {
    let (world, server) = World::with_server(Script::new());
    let daemon = world.start();
    daemon.wait_until_ready(&world);
    let mut client = watching(&world, "trace example.org data\n");
    let data = "x".repeat(70) + "\r\n";
    for number in 0..20 {
        world.insert(&Mail::to("a@example.org").data(format!("{number}\r\n{}", data.repeat(2000))));
    }
    server.wait_for_messages(20);
    let mut records = 0;
    let lost = loop {
        let record = client.record().unwrap();
        records += 1;
        if record["kind"] == "dropped" {
            assert_eq!(tool::fields_of(&record), tool::documented_fields()["dropped"]);
            break record["lines"].as_u64().unwrap();
        }
        assert!(records < 100_000, "nothing is dropped");
        // What was dropped is told with the next line.
        if records % 1000 == 0 {
            world.insert(&Mail::to("a@example.org").data(format!("more {records}")));
        }
    };
    assert!(lost > 0);
    daemon.terminate();
}

#[test]
fn top_prints_lines_where_there_is_no_terminal() {
    let (world, server) = World::with_server(Script::new().always("DATA", Action::Stall));
    let daemon = world.start();
    daemon.wait_until_ready(&world);
    world.insert(&Mail::to("a@example.org"));
    server.wait("DATA", |records| records.count("DATA") == 1);
    let text = tool::output(&world, &["--limit", "2", "--utc", "top"]);
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 3, "{text}");
    assert!(lines[0].starts_with("TIME ") && lines[0].contains(" DELIVERED/s "), "{text}");
    // The probe has failed once, before the first look.
    let columns: Vec<&str> = lines[2].split_whitespace().collect();
    assert_eq!(columns[2..6], ["0.0", "0.0", "0.0", "0.0"], "{text}");
    assert_eq!(columns[6..9], ["1", "1", "1"], "{text}");
    let slowest = format!("{}:{} ", server.ip(), server.port());
    assert!(lines[2].contains(&slowest) && lines[2].ends_with("s DATA"), "{text}");
    let records = tool::records(&world, &["--limit", "1", "top"]);
    assert_eq!((records.len(), &records[0]["kind"]), (1, &json!("status")));
    assert_eq!(records[0]["slow"][0]["waits_for"], "DATA");
    daemon.kill();
}
