//! The socket by which the operator's tool asks the daemon: what it answers, who may ask, and that asking costs nobody else anything.

use std::io::{Read, Write};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::{Action, Daemon, Mail, Script, SocketClient, World, skip, tool};

pub(crate) fn socket(world: &World) -> PathBuf {
    let path = world.database.path().canonicalize().unwrap();
    format!("{}.dispatch-control", path.display()).into()
}

pub(crate) fn connect(world: &World) -> SocketClient {
    SocketClient::connect(&socket(world))
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
    let mut clients: Vec<SocketClient> = (0..10).map(|_| connect(&world)).collect();
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
    let mut client = connect(&world);
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
    let silent: Vec<SocketClient> = (0..100).map(|_| connect(&world)).collect();
    let mut dribbling = connect(&world);
    dribbling.send("stat");
    for (hostile, told) in [
        (&b"\x16\x03\x01\n"[..], "does not know this request"),
        (b"%zz\n", "this is no request"),
        (b"GET / HTTP/1.1\r\n\r\n", "does not know this request"),
        (b"reload now\n", "reload takes no further words"),
    ] {
        let mut client = connect(&world);
        client.send(hostile);
        let record = client.record().unwrap();
        assert_eq!(record["kind"], "error");
        assert!(record["text"].as_str().unwrap().contains(told), "{record}");
        // It may ask better.
        client.send("status\n");
        assert!(["status", "error"].contains(&&*client.kind()));
    }
    let mut endless = connect(&world);
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
    let mut client = connect(&world);
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
