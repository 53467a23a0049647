//! A machine that is in trouble or stands still: no mail is lost, doubled or taken for failed by that (contract, 4).

use crate::support::shim::Shim;
use crate::support::{Action, Daemon, Gate, Mail, PATIENCE, Script, SmtpServer, World};
use nix::sys::signal::Signal;
use std::time::{Duration, Instant};

/// Longer than any timeout of a conversation.
const STOP_S: i64 = 3600;

/// Blocks until SIGSTOP has stopped the process.
fn wait_until_stopped(daemon: &Daemon) {
    let deadline = Instant::now() + PATIENCE;
    let is_stopped = || {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", daemon.pid())).unwrap();
        stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('T'))
    };
    while !is_stopped() {
        assert!(Instant::now() < deadline, "the daemon does not stop");
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

#[test]
fn a_disk_that_hangs_does_not_hold_up_the_end_and_what_is_not_recorded_is_named() {
    let gate = Gate::new();
    let (world, server) =
        World::with_server(Script::new().once(".", Action::After(gate.clone(), Box::new("250 ok".into()))));
    let Some(shim) = Shim::build(world.directory()) else { return };
    let id = world.insert(&Mail::to("a@example.org"));
    let mut daemon = Daemon::spawn_with_shim(&shim, &world.write_config(), &["nodetach", "nodrop"]);
    server.wait("the data has arrived", |records| !records.messages.is_empty());
    shim.let_disk_hang();
    gate.open();
    daemon.wait_for_output("delivered to");
    let asked = Instant::now();
    daemon.signal(Signal::SIGTERM);
    let status = daemon.wait_for_exit(PATIENCE);
    let took = asked.elapsed();
    // What the system needs to start and end a process comes on top of the contract's five seconds.
    assert!(took < Duration::from_millis(5500), "it took {took:?}");
    assert_eq!(status.code(), Some(1));
    let told = daemon.wait_for_output("the database does not answer");
    let loss = "the database has not recorded it; those still in it will be sent again";
    assert!(
        told.lines().any(|line| line.contains(loss) && line.ends_with(&format!(": {id} to <a@example.org>"))),
        "{told}"
    );
}

#[test]
fn replies_that_come_while_the_process_is_stopped_are_not_taken_for_timed_out() {
    const COUNT: usize = 400;
    let gate = Gate::new();
    let script = Script::new().always(".", Action::After(gate.clone(), Box::new("250 ok".into())));
    let mut world = World::new();
    let Some(shim) = Shim::build(world.directory()) else { return };
    let server = SmtpServer::start_at(script, "0.0.0.0:0".parse().unwrap());
    world.set("concurrency", 1000);
    // Each is a destination of its own.
    let remote = |n: usize| format!("127.77.{}.{}:{}", n / 250, n % 250 + 1, server.port());
    let mails: Vec<Mail> =
        (0..COUNT).map(|n| Mail::to(&format!("{n}@example.org")).remote(&remote(n))).collect();
    world.database.insert_all(&mails);
    let daemon = Daemon::spawn_with_shim(&shim, &world.write_config(), &["nodetach", "nodrop"]);
    server.wait("all messages have arrived", |records| records.messages.len() == COUNT);
    daemon.signal(Signal::SIGSTOP);
    wait_until_stopped(&daemon);
    gate.open();
    server.wait("all are taken", |records| records.accepted().len() == COUNT);
    shim.leap(STOP_S);
    daemon.signal(Signal::SIGCONT);
    world.database.wait_until_empty();
    let log = daemon.terminate();
    assert!(!log.contains("failed temporarily"), "{log}");
    assert_eq!(server.records().accepted().len(), COUNT, "mail was sent twice");
}
