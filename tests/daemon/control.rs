//! The socket by which the operator's tool asks the daemon: what it answers, who may ask, and that asking costs nobody else anything.

use std::io::{BufRead as _, BufReader, Read, Write};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::{Action, Daemon, Mail, PATIENCE, Script, World, skip, tool};

fn socket(world: &World) -> PathBuf {
    let path = world.database.path().canonicalize().unwrap();
    format!("{}.dispatch-control", path.display()).into()
}

/// A client of the socket.
struct Client(BufReader<UnixStream>);

impl Client {
    fn of(world: &World) -> Self {
        let stream = UnixStream::connect(socket(world)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self(BufReader::new(stream))
    }

    fn send(&mut self, octets: impl AsRef<[u8]>) {
        self.0.get_mut().write_all(octets.as_ref()).unwrap();
    }

    /// Returns the next record; nothing at the end of the connection.
    fn record(&mut self) -> Option<Value> {
        let mut line = String::new();
        (self.0.read_line(&mut line).unwrap() > 0).then(|| serde_json::from_str(&line).unwrap())
    }

    fn kind(&mut self) -> String {
        self.record().map_or("closed".to_owned(), |record| record["kind"].as_str().unwrap().to_owned())
    }
}

#[test]
fn status_tells_on_one_screen_how_everything_stands() {
    for journal_mode in ["delete", "wal"] {
        let mut world = World::in_journal_mode(journal_mode);
        world.set("destination_concurrency", 1).set("announce", "mail.example.org");
        let server = crate::support::SmtpServer::start(Script::new().always("RCPT", "450 4.2.0 later"));
        world.set("portprio", server.port());
        world.route("example.org", &server);
        let id = world.insert(&Mail::to("a@example.org"));
        let daemon = world.start();
        world.database.wait_for_failure(id);
        let status = &tool::records(&world, &["status"])[0];
        assert_eq!((&status["kind"], &status["pid"]), (&json!("status"), &json!(daemon.pid())));
        let path = world.database.path().canonicalize().unwrap();
        assert_eq!(status["database"], json!(path));
        assert_eq!(status["queue"]["places"]["waiting"], 1);
        // It waits for what only the database knows.
        assert!(status["queue"]["oldest_s"].is_u64(), "{status}");
        assert_eq!(
            (&status["attempts"]["deferred"], &status["connections"]["max"]),
            (&json!(1), &json!(500))
        );
        assert_eq!((&status["store_errors"], &status["log_lines_lost"]), (&json!(0), &json!(0)));
        assert_eq!(
            (&status["reload"]["taken"], &status["reload"]["at_ms"]),
            (&json!(true), &status["start_ms"])
        );
        let text = tool::output(&world, &["status"]);
        assert!(text.lines().count() <= 24 && text.lines().all(|line| line.len() <= 110), "{text}");
        for told in [
            format!(", process {}, since 20", daemon.pid()),
            format!("database      {}\n", path.display()),
            "queue         1 mail: 1 waiting; the oldest is ".to_owned(),
            "attempts      0 delivered, 1 deferred, 0 failed, 0 uncertain since the start\n".to_owned(),
            " of 500: ".to_owned(),
            "hosts         no host is unreachable\n".to_owned(),
            "failures      1 since the start (1 ".to_owned(),
            "cmail-admin-queue list --place waiting\n".to_owned(),
            "configuration read at the start: taken\n".to_owned(),
            "0 verdicts not recorded yet, 0 errors since the start\n".to_owned(),
            "0 lines lost since the start\n".to_owned(),
        ] {
            assert!(text.contains(&told), "{told:?} in {text}");
        }
        daemon.terminate();
    }
}

#[test]
fn hosts_in_trouble_are_named_with_the_reason() {
    let (world, server) = World::with_server(Script::new());
    let address = format!("{}:{}", server.ip(), server.port());
    drop(server);
    let id = world.insert(&Mail::to("a@example.org"));
    let daemon = world.start();
    world.database.wait_for_failure(id);
    let text = tool::output(&world, &["status"]);
    assert!(text.contains(&format!("in trouble    {address}: ")) && text.contains("refused"), "{text}");
    daemon.terminate();
}

#[test]
fn reload_waits_for_the_outcome_and_says_what_has_changed_or_what_is_wrong() {
    let mut world = World::new();
    let daemon = world.start();
    daemon.wait_until_ready(&world);
    let file = world.path("dispatchd.conf").display().to_string();
    let output = tool::output(&world, &["reload"]);
    assert_eq!(output, format!("{file} was read again, and nothing changes\n"));
    let pid_file = world.path("pid");
    world.set("retries", 7).set("pidfile", pid_file.display());
    let finished = tool::run(&world, &["reload"]);
    assert_eq!(finished.code(), Some(0), "{finished:?}");
    assert_eq!(
        finished.stdout,
        format!("retries is 7 now, it was 5\n{file} was read again: 1 directive has changed\n")
    );
    let restart = "takes effect after a restart; until then it is none";
    assert!(finished.stderr.contains(": pidfile: ") && finished.stderr.contains(restart), "{finished:?}");
    world.set("retries", "many").add("interval", "often").unset("pidfile");
    let finished = tool::run(&world, &["reload"]);
    assert_eq!((finished.code(), &*finished.stdout), (Some(1), ""), "{finished:?}");
    let lines: Vec<&str> = world.config_text().leak().lines().collect();
    for (directive, line) in [("retries", "retries many"), ("interval", "interval often")] {
        let number = lines.iter().position(|found| *found == line).unwrap() + 1;
        let told = format!("cmail-admin-queue: {file}:{number}: {directive}: ");
        assert!(finished.stderr.contains(&told), "{told} in {}", finished.stderr);
    }
    assert!(
        finished.stderr.contains("is not taken (errors: 2); the configuration from before"),
        "{finished:?}"
    );
    let log = daemon.wait_for_output("is not taken (errors: 2); the one from before stays in force");
    assert!(log.contains("asked to reread the configuration"), "{log}");
    world.set("retries", 9).unset("interval");
    let status = &tool::records(&world, &["status"])[0];
    assert_eq!(status["reload"]["taken"], false);
    assert!(tool::output(&world, &["status"]).contains(": NOT TAKEN; the one from before is in force"));
    let record = &tool::records(&world, &["reload"])[0];
    assert_eq!((&record["taken"], &record["error_count"]), (&json!(true), &json!(0)));
    let change = json!({ "directive": "retries", "before": "7", "after": "9" });
    assert!(record["changes"].as_array().unwrap().contains(&change), "{record}");
    daemon.terminate();
}

/// All that were asked for are told, each of a reading that began after the request.
#[test]
fn many_reloads_at_once_are_all_answered() {
    let world = World::new();
    let daemon = world.start();
    daemon.wait_until_ready(&world);
    let mut clients: Vec<Client> = (0..10).map(|_| Client::of(&world)).collect();
    for client in &mut clients {
        client.send("reload\nreload\n");
    }
    for client in &mut clients {
        let kinds: Vec<String> = (0..4).map(|_| client.kind()).collect();
        assert_eq!(kinds, ["reload", "end", "reload", "end"]);
    }
    daemon.terminate();
}

#[test]
fn the_socket_is_its_users_alone_and_is_replaced_after_a_kill() {
    let world = World::new();
    let path = socket(&world);
    for _ in 0..2 {
        let daemon = world.start();
        daemon.wait_until_ready(&world);
        let found = std::fs::symlink_metadata(&path).unwrap();
        assert!(found.file_type().is_socket());
        assert_eq!(found.mode() & 0o7777, 0o600);
        assert_eq!(tool::run(&world, &["status"]).code(), Some(0));
        daemon.kill();
        assert!(path.exists());
        let finished = tool::run(&world, &["status"]);
        assert_eq!(finished.code(), Some(1));
        assert!(finished.stderr.contains("no daemon works on the database"), "{}", finished.stderr);
    }
    let daemon = world.start();
    daemon.wait_until_ready(&world);
    daemon.terminate();
    assert!(!path.exists());
}

#[test]
fn a_socket_whose_file_is_removed_is_made_anew_by_a_reload() {
    let mut world = World::new();
    let submit = world.path("submit");
    world.set("submit", submit.display());
    let daemon = world.start();
    daemon.wait_until_ready(&world);
    let control = socket(&world);
    // Who is connected stays so.
    let mut client = Client::of(&world);
    for path in [&control, &submit] {
        std::fs::remove_file(path).unwrap();
    }
    // Whether the configuration can be used does not matter for it.
    std::fs::write(world.path("dispatchd.conf"), "no directive\n").unwrap();
    daemon.signal(nix::sys::signal::Signal::SIGHUP);
    for path in [&control, &submit] {
        daemon.wait_for_output(&format!("the socket {} was gone, and is made anew", path.display()));
    }
    world.write_config();
    assert_eq!(std::fs::symlink_metadata(&control).unwrap().mode() & 0o7777, 0o600);
    assert_eq!(tool::run(&world, &["status"]).code(), Some(0));
    UnixStream::connect(&submit).unwrap();
    client.send("status\n");
    assert_eq!((client.kind(), client.kind()), ("status".to_owned(), "end".to_owned()));
    daemon.terminate();
    assert!(!control.exists() && !submit.exists());
}

#[test]
fn a_removed_socket_whose_path_is_taken_is_told() {
    let world = World::new();
    let daemon = world.start();
    daemon.wait_until_ready(&world);
    let path = socket(&world);
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, "a file").unwrap();
    daemon.signal(nix::sys::signal::Signal::SIGHUP);
    daemon.wait_for_output(&format!(
        "the socket {} is gone, so nobody can connect, and it cannot be made anew",
        path.display()
    ));
    daemon.terminate();
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "a file");
}

#[test]
fn who_may_not_connect_is_told_who_may() {
    if !nix::unistd::Uid::effective().is_root() {
        return skip("only root can become another user");
    }
    let world = World::new();
    std::fs::set_permissions(world.directory(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let copy = world.path("cmail-admin-queue");
    std::fs::copy(tool::PROGRAM, &copy).unwrap();
    let daemon = world.start();
    daemon.wait_until_ready(&world);
    let mut command = std::process::Command::new(&copy);
    command.arg("--config").arg(world.path("dispatchd.conf")).arg("status").uid(65534).gid(65534);
    let finished = tool::finish(command, b"");
    assert_eq!(finished.code(), Some(1), "{finished:?}");
    let told = format!(
        "you may not ask the daemon: only the user root and root may connect to {}",
        socket(&world).display()
    );
    assert!(finished.stderr.contains(&told), "{}", finished.stderr);
    daemon.terminate();
}

#[test]
fn the_directive_moves_the_socket_or_leaves_it_away() {
    let mut world = World::new();
    let beside = socket(&world);
    world.set("control", world.path("elsewhere").display());
    let daemon = world.start();
    daemon.wait_until_ready(&world);
    assert!(world.path("elsewhere").exists() && !beside.exists());
    assert_eq!(tool::run(&world, &["status"]).code(), Some(0));
    // Another place is one of the next start.
    world.set("control", "off");
    world.write_config();
    daemon.signal(nix::sys::signal::Signal::SIGHUP);
    daemon.wait_for_output(": control: off takes effect after a restart; until then it is ");
    assert!(world.path("elsewhere").exists());
    daemon.terminate();
    let daemon = world.start();
    daemon.wait_until_ready(&world);
    assert!(!world.path("elsewhere").exists() && !beside.exists());
    let finished = tool::run(&world, &["status"]);
    assert_eq!(finished.code(), Some(1));
    assert!(finished.stderr.contains("the configuration says `control off`"), "{}", finished.stderr);
    // Whose configuration is not known is asked beside its database.
    let mut command = tool::command();
    command.args(["--config", "/nonexistent", "status", "--dbpath"]).arg(world.database.path());
    let finished = tool::finish(command, b"");
    assert_eq!(finished.code(), Some(1));
    assert!(finished.stderr.contains(&format!("process {}", daemon.pid())), "{}", finished.stderr);
    assert!(finished.stderr.contains("cannot be asked at "), "{}", finished.stderr);
    daemon.terminate();
}

#[test]
fn a_socket_that_cannot_be_made_stops_no_mail() {
    let (mut world, server) = World::with_server(Script::new());
    std::fs::write(world.path("a file"), "of somebody").unwrap();
    let long = world.path(&"x".repeat(108));
    let places = [
        (world.path("a file"), "remove what is in the way"),
        (world.path("missing/socket"), "change the directive control"),
        (long, "and the system allows 107; name a shorter one with the directive control"),
    ];
    for (number, (place, why)) in places.into_iter().enumerate() {
        world.set("control", place.display());
        let checked = world.run(&["check"]);
        assert_eq!(checked.code(), Some(0), "{}", checked.stderr);
        let warning = format!(
            "cmail-admin-queue cannot ask the daemon, which works all the same: the socket {} ",
            place.display()
        );
        assert!(checked.stderr.contains(&format!("warning: {warning}")), "{}", checked.stderr);
        let daemon = world.start();
        world.insert(&Mail::to("a@example.org").data(format!("{number}")));
        server.wait_for_messages(number + 1);
        let log = daemon.terminate();
        assert!(log.contains(&warning) && log.contains(why), "{log}");
        let finished = tool::run(&world, &["status"]);
        assert_eq!(finished.code(), Some(1), "{finished:?}");
    }
    assert_eq!(std::fs::read_to_string(world.path("a file")).unwrap(), "of somebody");
}

#[test]
fn clients_that_are_silent_slow_or_hostile_cost_nobody_else_anything() {
    let (world, server) = World::with_server(Script::new());
    let daemon = world.start();
    daemon.wait_until_ready(&world);
    let silent: Vec<Client> = (0..100).map(|_| Client::of(&world)).collect();
    let mut dribbling = Client::of(&world);
    dribbling.send("stat");
    for (hostile, told) in [
        (&b"\x16\x03\x01\n"[..], "does not know this request"),
        (b"%zz\n", "this is no request"),
        (b"GET / HTTP/1.1\r\n\r\n", "does not know this request"),
        (b"reload now\n", "reload takes no further words"),
    ] {
        let mut client = Client::of(&world);
        client.send(hostile);
        let record = client.record().unwrap();
        assert_eq!(record["kind"], "error");
        assert!(record["text"].as_str().unwrap().contains(told), "{record}");
        // It may ask better.
        client.send("status\n");
        assert!(["status", "error"].contains(&&*client.kind()));
    }
    let mut endless = Client::of(&world);
    endless.send("x".repeat(4097));
    let record = endless.record().unwrap();
    assert!(record["text"].as_str().unwrap().contains("at most 4096 octets"), "{record}");
    assert_eq!(endless.kind(), "closed");
    // One asks all the time and reads nothing.
    let flooding = UnixStream::connect(socket(&world)).unwrap();
    flooding.set_nonblocking(true).unwrap();
    let flood = "status\n".repeat(10_000);
    let mut written = 0;
    while let Ok(count) = (&flooding).write(flood.as_bytes()) {
        written += count;
        assert!(written < 100_000_000, "the daemon reads all that it is sent");
    }
    let asked = Instant::now();
    assert_eq!(tool::run(&world, &["status"]).code(), Some(0));
    world.insert(&Mail::to("a@example.org"));
    server.wait_for_messages(1);
    assert!(asked.elapsed() < Duration::from_secs(5), "{:?}", asked.elapsed());
    drop((silent, dribbling, flooding));
    daemon.terminate();
}

#[test]
fn who_sends_nothing_more_still_gets_the_answer() {
    let world = World::new();
    let daemon = world.start();
    daemon.wait_until_ready(&world);
    let mut client = Client::of(&world);
    client.send("status\nreload\n");
    client.0.get_mut().shutdown(std::net::Shutdown::Write).unwrap();
    let kinds: Vec<String> = (0..5).map(|_| client.kind()).collect();
    assert_eq!(kinds, ["status", "end", "reload", "end", "closed"]);
    daemon.terminate();
}

/// It stays where it was when it has started.
#[test]
fn a_daemon_is_asked_also_after_its_place_was_edited() {
    let mut world = World::new();
    let daemon = world.start();
    daemon.wait_until_ready(&world);
    for place in [world.path("another").display().to_string(), "off".to_owned()] {
        let text = tool::run(world.set("control", place), &["reload"]);
        assert_eq!(text.code(), Some(0), "{text:?}");
    }
    daemon.terminate();
    world.set("control", world.path("one").display());
    let daemon = world.start();
    daemon.wait_until_ready(&world);
    for place in [world.path("another").display().to_string(), "off".to_owned()] {
        let told = tool::run(world.set("control", place), &["reload"]);
        assert_eq!(told.code(), Some(1), "{told:?}");
        assert!(told.stderr.contains("SIGHUP lets it read") && told.stderr.contains("restart"), "{told:?}");
    }
    daemon.terminate();
}

/// What answers there may be another program, or one that hangs.
#[test]
fn a_daemon_that_is_none_or_says_nothing_is_told() {
    let mut world = World::new();
    let path = world.path("posing");
    world.set("control", path.display());
    let listener = UnixListener::bind(&path).unwrap();
    let answered = |answer: &'static [u8]| {
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let (mut stream, _) = listener.accept().unwrap();
                let _ = stream.read(&mut [0; 100]);
                let _ = stream.write_all(answer);
            });
            tool::run(&world, &["status"])
        })
    };
    for (answer, told) in [
        (&b"220 mail.example.org ESMTP\n"[..], "is no daemon: it has said \"220 mail"),
        (b"\xff\n", "is no daemon"),
        (b"{}\n", "is no daemon"),
        (b"", "the daemon has ended before it has answered"),
        (b"{\"kind\":\"error\",\"text\":\"no\\u001b[2J\"}\n", "the daemon: no"),
    ] {
        let finished = answered(answer);
        assert_eq!(finished.code(), Some(1), "{finished:?}");
        assert!(finished.stderr.contains(told) && !finished.stderr.contains('\u{1b}'), "{finished:?}");
    }
}

#[test]
fn a_single_pass_is_named_if_it_is_what_works_on_the_database() {
    let (world, server) = World::with_server(Script::new().always("DATA", Action::Stall));
    world.insert(&Mail::to("a@example.org"));
    let pass = Daemon::spawn(&world.write_config(), &["nodetach", "nodrop", "deliver", "example.org"]);
    server.wait("DATA", |records| records.count("DATA") == 1);
    let finished = tool::run(&world, &["reload"]);
    assert_eq!(finished.code(), Some(1));
    let told = format!("process {} (cmail-dispatchd) works on the database ", pass.pid());
    assert!(finished.stderr.contains(&told), "{}", finished.stderr);
    assert!(finished.stderr.contains("it makes a single pass"), "{}", finished.stderr);
    pass.kill();
}

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
fn watching(world: &World, request: &str) -> Client {
    let mut client = Client::of(world);
    client.send(request);
    let record = client.record().unwrap();
    assert_eq!(record["kind"], "watching");
    assert_eq!(tool::fields_of(&record), tool::documented_fields()["watching"]);
    client
}

#[test]
fn trace_shows_a_conversation_with_times_mail_and_host() {
    let (mut world, server) = World::with_server(Script::new().always("RCPT", "250 2.1.5 fine"));
    world.set("verbosity", 1).set("connection_idle", 0);
    let daemon = world.start();
    daemon.wait_until_ready(&world);
    let mut trace = Trace::begin(&world, &["example.org"]);
    let id = world.insert(&Mail::to("bob@example.org").data("Subject: x\r\n\r\nthe text\r\n"));
    let lines = trace.until("* closed");
    let said: Vec<&str> =
        lines.iter().map(|line| line.split("mx.example.org").nth(1).unwrap().trim()).collect();
    for line in
        ["* connecting", "* connected", "< 250 2.1.5 fine", "> RCPT TO:<bob@example.org>", "> DATA", "> QUIT"]
    {
        assert!(said.contains(&line), "{line} in {lines:#?}");
    }
    let about = |text: &str| lines.iter().find(|line| line.contains(text)).unwrap();
    assert!(about("RCPT TO:").contains(&format!("mail {id} ")), "{lines:#?}");
    assert!(about("250 2.1.5").contains(&format!("mail {id} ")), "{lines:#?}");
    assert!(about("octets of mail data]").contains(&format!("mail {id} ")), "{lines:#?}");
    assert!(!lines.iter().any(|line| line.contains("the text")), "{lines:#?}");
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
    let told = other.record().unwrap();
    assert_eq!(
        (&told["next_hop"], &told["from"], &told["host"]),
        (&json!("example.net"), &json!("remark"), &json!(null))
    );
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
