//! SIGHUP reads the configuration again: all of it or nothing (contract, 4).

use nix::sys::signal::Signal;

use crate::support::{Daemon, Mail, Script, SmtpServer, World};

/// Writes the configuration as it is now, and lets the daemon read it.
fn reload(world: &World, daemon: &Daemon) {
    world.write_config();
    daemon.signal(Signal::SIGHUP);
}

#[test]
fn another_limit_of_a_destination_holds_under_load() {
    let (mut world, server) = World::with_server(Script::new());
    world.set("destination_concurrency", 1).set("ratelimit", "10/s");
    for number in 0..600 {
        world.insert(&Mail::to(&format!("r{number}@example.org")).data(format!("{number}")));
    }
    let daemon = world.start();
    server.wait_for_messages(5);
    assert_eq!(server.records().connections.len(), 1);
    world.set("destination_concurrency", 4).unset("ratelimit");
    reload(&world, &daemon);
    daemon.wait_for_output("destination_concurrency is 4 now, it was 1");
    daemon.wait_for_output("ratelimit is none now, it was 10/s");
    server.wait_for_messages(600);
    world.database.wait_until_empty();
    let log = daemon.terminate();
    assert!(log.contains("host_concurrency is 8 now, it was 2"), "{log}");
    let records = server.records();
    assert_eq!(records.delivered_to().len(), 600);
    assert!((2..=4).contains(&records.connections.len()), "{}", records.connections.len());
}

#[test]
fn a_wrong_file_changes_nothing_and_every_error_is_told() {
    let (mut world, server) = World::with_server(Script::new().always("RCPT", "450 4.2.0 later"));
    world.set("retries", 1);
    let daemon = world.start();
    daemon.wait_until_ready(&world);
    world
        .set("retries", 5)
        .add("interval", "often")
        .add("tls_trustfile", "/nonexistent/trust")
        .add("retry", 3);
    reload(&world, &daemon);
    let log = daemon.wait_for_output("is not taken (errors: 3); the one from before stays in force");
    let file = world.path("dispatchd.conf").display().to_string();
    let lines = world.config_text();
    let line_of = |start: &str| {
        let found = lines.lines().enumerate().filter(|(_, line)| line.starts_with(start));
        found.last().unwrap().0 + 1
    };
    for directive in ["interval often", "tls_trustfile", "retry 3"] {
        let name = directive.split(' ').next().unwrap();
        assert!(log.contains(&format!("{file}:{}: {name}: ", line_of(directive))), "{name}: {log}");
    }
    assert!(!log.contains("retries is"), "{log}");
    // One attempt is all, as before.
    let id = world.insert(&Mail::to("a@example.org"));
    world.database.wait("it is bounced", |database| database.row(id).is_none());
    assert_eq!(server.records().count("RCPT"), 1);
    std::fs::remove_file(world.path("dispatchd.conf")).unwrap();
    daemon.signal(Signal::SIGHUP);
    daemon.wait_for_output("the configuration file cannot be read");
    daemon.terminate();
}

#[test]
fn what_holds_after_a_restart_is_told_with_its_line_and_does_not_change() {
    let (mut world, server) = World::with_server(Script::new());
    let daemon = world.start();
    daemon.wait_until_ready(&world);
    let (database, other) = (world.database.path().display().to_string(), world.path("other.db3"));
    world.set("database", other.display()).set("retries", 7);
    world.set("pidfile", world.path("pid").display());
    let line = world.config_text().lines().position(|line| line.starts_with("database")).unwrap() + 1;
    let file = world.path("dispatchd.conf").display().to_string();
    for times in 1..=2 {
        reload(&world, &daemon);
        let warning = format!(
            "{file}:{line}: database: {} takes effect after a restart; until then it is {database}",
            other.display()
        );
        daemon.wait_for_outputs(&warning, times);
        daemon.wait_for_outputs("was read again", times);
    }
    let log = daemon.wait_for_output("and nothing changes");
    assert_eq!(log.matches("retries is 7 now, it was 5").count(), 1, "{log}");
    world.insert(&Mail::to("a@example.org"));
    server.wait_for_messages(1);
    assert!(!other.exists() && !world.path("pid").exists());
    daemon.terminate();
}

#[test]
fn the_level_of_the_log_changes_and_back() {
    let (mut world, server) = World::with_server(Script::new());
    world.set("verbosity", 1);
    let daemon = world.start();
    let deliver = |world: &World, messages: usize| {
        world.insert(&Mail::to("a@example.org").data(format!("{messages}")));
        server.wait_for_messages(messages);
        world.database.wait_until_empty();
    };
    deliver(&world, 1);
    assert!(!daemon.stderr().contains("connecting to"), "{}", daemon.stderr());
    world.set("verbosity", 4).set("connection_idle", 0);
    reload(&world, &daemon);
    daemon.wait_for_output("verbosity is 4 now, it was 1");
    deliver(&world, 2);
    daemon.wait_for_output("connecting to");
    daemon.terminate();
}

#[test]
fn other_ports_and_another_local_address_are_used_for_the_next_connection() {
    let (mut world, server) = World::with_server(Script::new());
    let other = SmtpServer::start_at(Script::new(), (server.ip(), 0).into());
    world.set("connection_idle", 300);
    let daemon = world.start();
    world.insert(&Mail::to("a@example.org"));
    server.wait_for_messages(1);
    world.database.wait_until_empty();
    world.set("portprio", other.port()).set("bind", "127.0.0.77");
    reload(&world, &daemon);
    server.wait_until_closed();
    world.insert(&Mail::to("b@example.org"));
    let records = other.wait_for_messages(1);
    assert_eq!(records.connections[0].peer.ip().to_string(), "127.0.0.77");
    daemon.terminate();
}

#[test]
fn a_path_that_is_relative_begins_where_the_daemon_was_started() {
    let (mut world, _server) = World::with_server(Script::new());
    world.set("database", "master.db3").set("logfile", "log");
    world.write_config();
    let started = Daemon::run_in(world.directory(), std::path::Path::new("dispatchd.conf"), &["nodrop"]);
    assert_eq!(started.code(), Some(0), "{}", started.stderr);
    let log = || std::fs::read_to_string(world.path("log")).unwrap();
    world
        .database
        .wait("the start is logged", |_| world.path("log").exists() && log().contains("as process "));
    let pid = log().split("as process ").nth(1).unwrap().split_whitespace().next().unwrap().to_owned();
    let signal = |signal: &str| {
        let status = std::process::Command::new("kill").args([signal, &pid]).status().unwrap();
        assert!(status.success());
    };
    signal("-HUP");
    world.database.wait("the file is read", |_| log().contains("and nothing changes"));
    assert!(!log().contains("after a restart"), "{}", log());
    signal("-TERM");
    world.database.wait("the daemon ends", |_| log().contains("cmail-dispatchd ends"));
}
