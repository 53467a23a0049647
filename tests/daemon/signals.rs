//! What each signal does, and that no other one ends the daemon (contract, 4).

use crate::support::{Daemon, Mail, Script, World};
use nix::sys::signal::Signal;

/// A daemon whose only mail, of which the server wants nothing, has failed once and is not due for an hour.
fn deferred() -> (World, crate::support::SmtpServer, i64, Daemon) {
    let (mut world, server) = World::with_server(Script::new().always("RCPT", "450 4.2.0 later"));
    world.set("retries", 2);
    let id = world.insert(&Mail::to("a@example.org"));
    let daemon = world.start();
    world.database.wait_for_failure(id);
    (world, server, id, daemon)
}

#[test]
fn sigusr2_tries_everything_now_whatever_its_last_attempt_was() {
    let (mut world, server) = World::with_server(Script::new().once("RCPT", "450 4.2.0 later"));
    world.set("interval", 3600);
    let id = world.insert(&Mail::to("a@example.org"));
    let daemon = world.start();
    world.database.wait_for_failure(id);
    daemon.signal(Signal::SIGUSR2);
    server.wait_for_messages(1);
    world.database.wait_until_empty();
    daemon.terminate();
}

#[test]
fn an_early_attempt_that_fails_temporarily_leaves_only_a_line() {
    let (world, server, id, daemon) = deferred();
    for orders in 1..=4 {
        daemon.signal(Signal::SIGUSR2);
        let log = daemon.wait_for_outputs("which does not count", orders);
        assert!(log.contains(&format!("mail {id} to <a@example.org>")), "{log}");
        assert_eq!(world.database.failures_of(id).len(), 1);
    }
    assert_eq!(server.records().count("RCPT"), 5);
    assert!(world.database.bounces().is_empty() && world.database.row(id).is_some());
    daemon.terminate();
    assert_eq!(world.database.failures_of(id).len(), 1);
}

#[test]
fn sighup_tries_nothing_early_and_costs_no_attempt() {
    let (world, server, id, daemon) = deferred();
    for rotations in 1..=5 {
        daemon.signal(Signal::SIGHUP);
        daemon.wait_for_outputs(
            "asked to reread the configuration, resolv.conf, hosts and the trusted certificates",
            rotations,
        );
    }
    // Mail that comes after it is tried, so that the signals have had their effect.
    let next = world.insert(&Mail::to("b@example.org"));
    world.database.wait_for_failure(next);
    assert_eq!(server.records().count("RCPT"), 2);
    assert_eq!(world.database.failures_of(id).len(), 1);
    daemon.terminate();
}

#[test]
fn sigusr1_reopens_the_log_file_and_does_nothing_else() {
    let (mut world, server) = World::with_server(Script::new().always("RCPT", "450 4.2.0 later"));
    world.set("logfile", world.path("log").display());
    let id = world.insert(&Mail::to("a@example.org"));
    let daemon = world.start();
    world.database.wait_for_failure(id);
    std::fs::rename(world.path("log"), world.path("log.old")).unwrap();
    daemon.signal(Signal::SIGUSR1);
    world.database.wait("there is a new log", |_| world.path("log").exists());
    let next = world.insert(&Mail::to("b@example.org"));
    world.database.wait_for_failure(next);
    daemon.terminate();
    assert_eq!(server.records().count("RCPT"), 2);
    assert!(std::fs::read_to_string(world.path("log")).unwrap().contains("b@example.org"));
}

#[test]
fn no_other_signal_ends_the_daemon_or_goes_without_a_line() {
    let (mut world, _server) = World::with_server(Script::new());
    world.set("verbosity", 0);
    let mut daemon = world.start();
    daemon.wait_until_ready(&world);
    // What has a meaning, and what says that the program is broken or stops it. 32 and 33 belong to the C library.
    let with_meaning = [1, 2, 9, 10, 12, 15];
    let broken_or_stopped = [4, 6, 7, 8, 11, 19, 20, 21, 22, 32, 33];
    // Ignored in silence: a broken pipe, a child, to go on, urgent data, the size of files and of a window.
    let silent = [13, 17, 18, 23, 25, 28];
    for number in
        (1..=64).filter(|number| !with_meaning.contains(number) && !broken_or_stopped.contains(number))
    {
        daemon.signal_by_number(number);
        if !silent.contains(&number) {
            let name =
                Signal::try_from(number).map_or(format!("signal {number}"), |signal| signal.to_string());
            daemon.wait_for_output(&format!("{name} from process"));
        }
    }
    daemon.wait_until_ready(&world);
    assert!(daemon.is_running());
    daemon.terminate();
}

#[test]
fn a_log_file_at_the_limit_of_file_sizes_holds_up_nothing() {
    const LIMIT: u64 = 1 << 20;
    let (mut world, server) = World::with_server(Script::new());
    std::fs::File::create(world.path("log")).unwrap().set_len(LIMIT).unwrap();
    world.set("logfile", world.path("log").display());
    world.insert(&Mail::to("a@example.org"));
    let daemon = Daemon::spawn_with_file_size(LIMIT, &world.write_config(), &["nodetach", "nodrop"]);
    server.wait_for_messages(1);
    world.database.wait_until_empty();
    daemon.terminate();
}

#[test]
fn a_database_at_the_limit_of_file_sizes_loses_and_doubles_nothing() {
    let mut world = World::in_journal_mode("delete");
    let server = crate::support::SmtpServer::start(Script::new());
    world.set("portprio", server.port());
    world.route("example.org", &server);
    // What the first page says of them changes when rows are deleted.
    let large = "x".repeat(70) + "\r\n";
    world.insert(&Mail::to("a@example.org").data(large.repeat(1000)));
    let daemon = Daemon::spawn_with_file_size(2048, &world.write_config(), &["nodetach", "nodrop"]);
    server.wait_for_messages(1);
    daemon.wait_for_output("cannot record what became of mail, trying again");
    assert_eq!(world.database.ids().len(), 1);
    daemon.lift_file_size_limit();
    world.database.wait_until_empty();
    daemon.terminate();
    assert_eq!(server.records().delivered_to().len(), 1);
}
