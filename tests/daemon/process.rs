//! The process: signals, crashes, pid file, log file, one instance, one-shot modes, privileges (contract, 1, 2 and 4).

use crate::support::{Action, Daemon, Gate, Mail, Script, World, wait_for_file, wait_until_gone};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, Uid, User, chown};
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(7);

/// A process that is not our child; it is killed when the test ends.
struct Stray(Pid);

impl Drop for Stray {
    fn drop(&mut self) {
        let _ = kill(self.0, Signal::SIGKILL);
    }
}

#[test]
fn sigterm_and_sigint_end_an_idle_daemon_well() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let (world, _server) = World::with_server(Script::new());
        world.insert(&Mail::to("a@example.org"));
        let mut daemon = world.start();
        world.database.wait_until_empty();
        daemon.signal(signal);
        assert_eq!(daemon.wait_for_exit(LIMIT).code(), Some(0));
    }
}

#[test]
fn sigterm_abandons_what_is_stuck_without_recording_a_failure() {
    for verb in ["GREETING", "EHLO", "MAIL", "RCPT", "DATA", "."] {
        let (world, server) = World::with_server(Script::new().lenient().always(verb, Action::Stall));
        let id = world.insert(&Mail::to("a@example.org"));
        let daemon = world.start();
        server.wait("it is stuck", |records| {
            records.connections.iter().any(|connection| match verb {
                "GREETING" => true,
                "." => !records.messages.is_empty(),
                verb => connection.count(verb) > 0,
            })
        });
        daemon.terminate();
        assert_eq!(world.database.ids(), [id], "{verb}");
        assert!(world.database.failures().is_empty(), "{verb}: {:?}", world.database.failures());
    }
}

#[test]
fn sigterm_in_the_middle_of_the_data_abandons_it() {
    let take = Action::TakeData(1000, Box::new(Action::After(Gate::new(), Box::new(Action::Close))));
    let (world, server) = World::with_server(Script::new().lenient().always("DATA", take));
    let id = world.insert(&Mail::to("a@example.org").data("0123456789\r\n".repeat(1_000_000)));
    let daemon = world.start();
    server.wait("data flows", |records| {
        records
            .connections
            .iter()
            .any(|connection| connection.lines.iter().any(|line| line.text.len() == 1000))
    });
    daemon.terminate();
    assert_eq!(world.database.ids(), [id]);
    assert!(world.database.failures().is_empty());
}

#[test]
fn sigterm_during_a_connection_attempt_or_a_lookup_ends_in_time() {
    let world = World::new();
    world.dns.behave("example.org", crate::support::Behaviour::Drop);
    let id = world.insert(&Mail::to("a@example.org"));
    let daemon = world.start();
    world.dns.wait_for("example.org");
    daemon.terminate();
    assert_eq!(world.database.ids(), [id]);
    assert!(world.database.failures().is_empty());
}

#[test]
fn sigterm_lets_a_message_finish_that_the_server_takes_in_time_and_says_quit() {
    let gate = Gate::new();
    let slow = Action::After(gate.clone(), Box::new("250 ok".into()));
    let (mut world, server) = World::with_server(Script::new().once(".", slow));
    world.set("destination_concurrency", 1);
    world.database.insert_all(&["1", "2", "3"].map(|n| Mail::to(&format!("{n}@example.org")).data(n)));
    let mut daemon = world.start();
    server.wait("the data has arrived", |records| !records.messages.is_empty());
    daemon.signal(Signal::SIGTERM);
    daemon.wait_for_signal_taken();
    gate.open();
    assert_eq!(daemon.wait_for_exit(LIMIT).code(), Some(0));
    let records = server.wait_until_closed();
    assert_eq!(
        records.connections[0].verbs().last().map(String::as_str),
        Some("QUIT"),
        "{}",
        records.transcript()
    );
    // What the server took is gone; what was not begun stays, and nothing is a failure.
    assert_eq!(records.accepted().len() + world.database.ids().len(), 3);
    assert!(records.accepted().len() < 3, "new transactions were started after SIGTERM");
    assert!(world.database.failures().is_empty());
}

#[test]
fn a_daemon_killed_in_the_middle_of_anything_loses_nothing() {
    // RFC 5321 section 6.1.
    for verb in ["GREETING", "RCPT", "DATA", "."] {
        let (world, server) = World::with_server(Script::new().lenient().once(verb, Action::Stall));
        world.database.insert_all(&["a", "b", "c"].map(|user| Mail::to(&format!("{user}@example.org"))));
        let daemon = world.start();
        server.wait("it is under way", |records| match verb {
            "GREETING" => !records.connections.is_empty(),
            "." => !records.messages.is_empty(),
            verb => records.count(verb) > 0,
        });
        daemon.kill();
        let daemon = world.start();
        world.database.wait_until_empty();
        daemon.terminate();
        assert_eq!(
            server.records().delivered_to(),
            ["a@example.org", "b@example.org", "c@example.org"],
            "{verb}"
        );
    }
}

#[test]
fn a_daemon_killed_again_and_again_delivers_everything_in_the_end() {
    let (world, server) = World::with_server(Script::new());
    let mails: Vec<Mail> =
        (0..60).map(|n| Mail::to(&format!("u{n}@example.org")).data(n.to_string())).collect();
    world.database.insert_all(&mails);
    for round in 1..=4 {
        let daemon = world.start();
        server.wait("some went out", |records| records.accepted().len() >= round * 10);
        daemon.kill();
    }
    let daemon = world.start();
    world.database.wait_until_empty();
    daemon.terminate();
    let distinct: std::collections::BTreeSet<String> = server.records().delivered_to().into_iter().collect();
    assert_eq!(distinct.len(), 60);
}

#[test]
fn a_second_instance_names_the_pid_of_the_first_and_touches_nothing() {
    let mut world = World::new();
    world.set("pidfile", world.path("pid").display());
    let mut first = world.start();
    let pid = format!("{}\n", first.pid());
    wait_for_file(&world.path("pid"), |text| text == pid);
    for words in [&[][..], &["deliver", "example.org"], &["handoff", "relay.example"], &["genbounces"]] {
        let second = world.run(words);
        assert_eq!(second.code(), Some(1), "{words:?}");
        assert!(second.stderr.contains(pid.trim()), "{words:?}: {}", second.stderr);
        assert_eq!(std::fs::read_to_string(world.path("pid")).unwrap(), pid);
    }
    assert_eq!(Daemon::run(&world.write_config(), &["check"]).code(), Some(0), "check is excepted");
    assert!(first.is_running());
    first.terminate();
    assert_eq!(world.run(&["genbounces"]).code(), Some(0));
}

#[test]
fn the_database_is_what_may_have_only_one_process_by_whatever_name_it_is_reached() {
    let mut world = World::new();
    let first = world.start();
    first.wait_until_ready(&world);
    std::os::unix::fs::symlink(world.database.path(), world.path("alias.db3")).unwrap();
    world.set("database", world.path("alias.db3").display());
    let second = world.run(&["genbounces"]);
    assert_eq!(second.code(), Some(1), "{}", second.stderr);
    first.terminate();
}

#[test]
fn daemons_of_different_databases_do_not_disturb_each_other() {
    let (one, other) = (World::with_server(Script::new()), World::with_server(Script::new()));
    let daemons = [one.0.start(), other.0.start()];
    for (world, server) in [&one, &other] {
        world.insert(&Mail::to("a@example.org"));
        world.database.wait_until_empty();
        assert_eq!(server.records().accepted().len(), 1);
    }
    daemons.into_iter().for_each(|daemon| drop(daemon.terminate()));
}

#[test]
fn a_holder_that_was_killed_does_not_block() {
    let mut world = World::new();
    world.set("pidfile", world.path("pid").display());
    let first = world.start();
    first.wait_until_ready(&world);
    first.kill();
    assert_eq!(world.run(&["genbounces"]).code(), Some(0));
    let second = world.start();
    let pid = format!("{}\n", second.pid());
    wait_for_file(&world.path("pid"), |text| text == pid);
    second.terminate();
}

#[test]
fn the_pid_file_holds_the_pid_also_in_the_foreground_and_goes_at_a_clean_exit() {
    let mut world = World::new();
    world.set("pidfile", world.path("pid").display());
    let daemon = world.start();
    let pid = format!("{}\n", daemon.pid());
    wait_for_file(&world.path("pid"), |text| text == pid);
    daemon.terminate();
    assert!(!world.path("pid").exists());
}

#[test]
fn one_shot_modes_write_no_pid_file_and_stay_in_the_foreground() {
    let (mut world, server) = World::with_server(Script::new());
    world.set("pidfile", world.path("pid").display());
    world.set("logfile", world.path("log").display());
    world.insert(&Mail::to("a@example.org"));
    let finished = Daemon::run(&world.write_config(), &["nodrop", "deliver", "example.org"]);
    assert_eq!(finished.code(), Some(0));
    // When it came back, the work was done: it had not gone to the background.
    assert_eq!(server.records().accepted().len(), 1);
    assert!(world.database.ids().is_empty());
    assert!(!world.path("pid").exists());
}

#[test]
fn without_a_log_file_the_daemon_stays_in_the_foreground() {
    let (world, server) = World::with_server(Script::new());
    let mut daemon = Daemon::spawn(&world.write_config(), &["nodrop"]);
    world.insert(&Mail::to("a@example.org"));
    server.wait_for_messages(1);
    world.database.wait_until_empty();
    assert!(daemon.is_running());
    daemon.terminate();
}

#[test]
fn with_a_log_file_the_daemon_detaches_and_the_pid_file_names_the_daemon() {
    let (mut world, server) = World::with_server(Script::new());
    world.set("pidfile", world.path("pid").display());
    world.set("logfile", world.path("log").display());
    let finished = Daemon::run(&world.write_config(), &["nodrop"]);
    assert_eq!(finished.code(), Some(0), "{}", finished.stderr);
    let pid = wait_for_file(&world.path("pid"), |text| text.ends_with('\n'));
    let stray = Stray(Pid::from_raw(pid.trim().parse().unwrap()));
    world.insert(&Mail::to("a@example.org"));
    server.wait_for_messages(1);
    world.database.wait_until_empty();
    assert!(kill(stray.0, None).is_ok());
    // A session of its own: no terminal's hangup reaches it.
    assert_ne!(nix::unistd::getsid(Some(stray.0)).unwrap(), nix::unistd::getsid(None).unwrap());
    assert!(!std::fs::read_to_string(world.path("log")).unwrap().is_empty());
    kill(stray.0, Signal::SIGTERM).unwrap();
    wait_until_gone(stray.0);
    assert!(!world.path("pid").exists());
}

#[test]
fn a_relative_path_still_means_the_same_after_detaching() {
    let (mut world, server) = World::with_server(Script::new());
    world.set("pidfile", world.path("pid").display());
    world.set("logfile", world.path("log").display());
    world.set("database", "master.db3");
    let config = world.write_config();
    let finished = Daemon::run_in(world.directory(), &config, &["nodrop"]);
    assert_eq!(finished.code(), Some(0), "{}", finished.stderr);
    let pid = wait_for_file(&world.path("pid"), |text| text.ends_with('\n'));
    let _stray = Stray(Pid::from_raw(pid.trim().parse().unwrap()));
    world.insert(&Mail::to("a@example.org"));
    server.wait_for_messages(1);
    world.database.wait_until_empty();
}

#[test]
fn sighup_reopens_the_log_file() {
    let (mut world, _server) = World::with_server(Script::new());
    world.set("logfile", world.path("log").display());
    let daemon = world.start();
    world.insert(&Mail::to("a@example.org"));
    world.database.wait_until_empty();
    wait_for_file(&world.path("log"), |text| !text.is_empty());
    std::fs::rename(world.path("log"), world.path("log.old")).unwrap();
    daemon.signal(Signal::SIGHUP);
    wait_for_file(&world.path("log"), |_| world.path("log").exists());
    world.insert(&Mail::to("b@example.org"));
    world.database.wait_until_empty();
    wait_for_file(&world.path("log"), |text| !text.is_empty());
    daemon.terminate();
}

#[test]
fn the_log_file_is_appended_to() {
    let mut world = World::new();
    std::fs::write(world.path("log"), "what was there before\n").unwrap();
    world.set("logfile", world.path("log").display());
    let daemon = world.start();
    daemon.wait_until_ready(&world);
    wait_for_file(&world.path("log"), |text| text.lines().count() > 1);
    daemon.terminate();
    assert!(std::fs::read_to_string(world.path("log")).unwrap().starts_with("what was there before\n"));
}

#[test]
fn message_content_is_logged_at_the_highest_verbosity_only() {
    for verbosity in [0, 3] {
        let (mut world, _server) = World::with_server(Script::new().once("RCPT", "450 4.2.0 later"));
        world.set("verbosity", verbosity).set("retryinterval", 0);
        world.insert(&Mail::to("a@example.org").data("Subject: confidential\r\n\r\nthe private text\r\n"));
        let daemon = world.start();
        world.database.wait_until_empty();
        let log = daemon.terminate();
        assert!(!log.contains("private text") && !log.contains("confidential"), "{log}");
    }
}

#[test]
fn another_schema_version_or_no_database_is_an_error_that_names_initdb() {
    let mut world = World::new();
    world.set("logfile", world.path("log").display());
    world.database.connection.execute("UPDATE meta SET value = '8'", []).unwrap();
    let finished = world.run(&[]);
    assert_eq!(finished.code(), Some(1));
    assert!(finished.stderr.contains('8') && finished.stderr.contains("initdb"), "{}", finished.stderr);
    world.database.connection.execute("DELETE FROM meta", []).unwrap();
    assert_eq!(world.run(&[]).code(), Some(1));
    world.set("database", world.path("missing.db3").display());
    let finished = world.run(&[]);
    assert_eq!(finished.code(), Some(1));
    assert!(
        finished.stderr.contains("missing.db3") && finished.stderr.contains("initdb"),
        "{}",
        finished.stderr
    );
    assert!(!world.path("missing.db3").exists(), "a missing database is not created");
    std::fs::write(world.path("missing.db3"), "this is no database, but some text of some length\n").unwrap();
    assert_eq!(world.run(&[]).code(), Some(1));
}

#[test]
fn running_out_of_descriptors_is_no_failure_of_the_mail() {
    let (mut world, server) = World::with_server(Script::new());
    world.set("concurrency", 100).set("destination_concurrency", 100);
    let mails: Vec<Mail> =
        (0..80).map(|n| Mail::to(&format!("u{n}@example.org")).data(n.to_string())).collect();
    world.database.insert_all(&mails);
    let daemon = Daemon::spawn_with_descriptors(74, &world.write_config(), &["nodetach", "nodrop"]);
    world.database.wait_until_empty();
    assert!(world.database.failures().is_empty());
    assert_eq!(server.records().accepted().len(), 80);
    let log = daemon.terminate();
    let limit = "allows 74 open files, so there are at most 6 connections at once, not the 100";
    assert_eq!(log.matches(limit).count(), 1, "{log}");
    assert!(!log.contains("has to wait"), "more connections than descriptors: {log}");
}

#[test]
fn privileges_are_dropped_to_the_configured_user_with_its_groups() {
    if !Uid::effective().is_root() {
        crate::support::skip("dropping privileges needs root");
        return;
    }
    let Some(user) = User::from_name("nobody").unwrap() else {
        crate::support::skip("there is no user nobody");
        return;
    };
    let (mut world, server) = World::with_server(Script::new());
    for entry in std::fs::read_dir(world.directory()).unwrap() {
        chown(&entry.unwrap().path(), Some(user.uid), Some(user.gid)).unwrap();
    }
    chown(world.directory(), Some(user.uid), Some(user.gid)).unwrap();
    world.set("user", "nobody");
    let daemon = Daemon::spawn(&world.write_config(), &["nodetach"]);
    world.insert(&Mail::to("a@example.org"));
    server.wait_for_messages(1);
    world.database.wait_until_empty();
    let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.pid())).unwrap();
    let field = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().skip(1).map(|id| id.parse::<u32>().unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(field("Uid:"), [user.uid.as_raw(); 4]);
    assert_eq!(field("Gid:"), [user.gid.as_raw(); 4]);
    assert!(!field("Groups:").contains(&0), "root's supplementary groups are kept: {status}");
    daemon.terminate();
}

#[test]
fn nodrop_keeps_the_privileges() {
    if !Uid::effective().is_root() {
        crate::support::skip("keeping privileges is only visible for root");
        return;
    }
    let mut world = World::new();
    world.set("user", "nobody");
    let daemon = world.start();
    daemon.wait_until_ready(&world);
    let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.pid())).unwrap();
    assert!(status.lines().any(|line| line.starts_with("Uid:\t0\t0\t0\t0")), "{status}");
    daemon.terminate();
}

#[test]
fn sigterm_ends_a_one_shot_mode_in_time_without_a_failure() {
    let (world, server) = World::with_server(Script::new().lenient().always("RCPT", Action::Stall));
    let id = world.insert(&Mail::to("a@example.org"));
    let mut daemon = Daemon::spawn(&world.write_config(), &["nodrop", "deliver", "example.org"]);
    server.wait("it is stuck", |records| records.count("RCPT") == 1);
    daemon.signal(Signal::SIGTERM);
    assert_eq!(daemon.wait_for_exit(LIMIT).code(), Some(0));
    assert_eq!(world.database.ids(), [id]);
    assert!(world.database.failures().is_empty());
}

#[test]
fn mail_is_delivered_although_nobody_reads_standard_error_or_the_disk_of_the_log_is_full() {
    let (mut world, server) = World::with_server(Script::new());
    world.insert(&Mail::to("a@example.org"));
    let mut daemon = Daemon::spawn_unheard(&world.write_config(), &["nodetach", "nodrop"]);
    world.database.wait_until_empty();
    assert!(daemon.is_running());
    daemon.terminate();
    world.set("logfile", "/dev/full");
    world.insert(&Mail::to("b@example.org"));
    let daemon = world.start();
    world.database.wait_until_empty();
    daemon.terminate();
    assert_eq!(server.records().accepted().len(), 2);
}

#[test]
fn what_cannot_be_removed_or_reopened_after_dropping_privileges_is_emptied_or_kept() {
    let user = User::from_name("nobody").unwrap();
    let (true, Some(user)) = (Uid::effective().is_root(), user) else {
        crate::support::skip("dropping privileges needs root and a user nobody");
        return;
    };
    let (mut world, _server) = World::with_server(Script::new());
    for entry in std::fs::read_dir(world.directory()).unwrap() {
        chown(&entry.unwrap().path(), Some(user.uid), Some(user.gid)).unwrap();
    }
    chown(world.directory(), Some(user.uid), Some(user.gid)).unwrap();
    let locked = world.path("only-root");
    std::fs::create_dir(&locked).unwrap();
    world.set("user", "nobody");
    world.set("pidfile", locked.join("pid").display());
    world.set("logfile", locked.join("log").display());
    let daemon = Daemon::spawn(&world.write_config(), &["nodetach"]);
    let pid = format!("{}\n", daemon.pid());
    wait_for_file(&locked.join("pid"), |text| text == pid);
    std::fs::rename(locked.join("log"), locked.join("log.old")).unwrap();
    world.insert(&Mail::to("a@example.org"));
    world.database.wait_until_empty();
    daemon.signal(Signal::SIGHUP);
    wait_for_file(&locked.join("log.old"), |text| text.to_lowercase().contains("warn"));
    world.insert(&Mail::to("b@example.org"));
    world.database.wait_until_empty();
    daemon.terminate();
    let left = std::fs::read_to_string(locked.join("pid"));
    assert!(left.is_err() || left.is_ok_and(|text| text.is_empty()));
}
