//! Files of the database that are removed or replaced under the running daemon (contract, section 4).

use crate::support::smtp_server::SmtpServer;
use crate::support::{Database, Mail, Script, World};
use nix::sys::signal::Signal;
use rusqlite::Connection;
use std::fs;
use std::time::Duration;

/// A world with a server for `example.org`, and these mails in the database itself, not in a log of it.
fn world(journal_mode: &str, script: Script, mails: &[Mail]) -> (World, SmtpServer) {
    let mut world = World::in_journal_mode(journal_mode);
    let server = SmtpServer::start(script);
    world.set("portprio", server.port());
    world.route("example.org", &server);
    world.database.insert_all(mails);
    if journal_mode == "wal" {
        world.database.connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
    }
    (world, server)
}

/// Closes the bench's connection, which would use the lost files as well.
fn close(database: &mut Database) {
    database.connection = Connection::open_in_memory().unwrap();
}

fn open_again(database: &mut Database) {
    database.connection = database.another();
}

fn remove_log(world: &World) {
    for suffix in ["-wal", "-shm"] {
        fs::remove_file(world.path(&format!("master.db3{suffix}"))).unwrap();
    }
}

#[test]
fn a_log_that_is_removed_is_noticed_and_nothing_is_sent_twice_or_overlooked() {
    let mails = ["a@example.org", "b@example.org"].map(Mail::to);
    let (mut world, server) = world("wal", Script::new().once("RCPT", "450 4.2.0 later"), &mails);
    world.set("destination_concurrency", 1);
    let daemon = world.start();
    server.wait_for_messages(1);
    world.database.wait("one is delivered, one has failed", |database| {
        (database.ids().len(), database.failures().len()) == (1, 1)
    });
    close(&mut world.database);
    remove_log(&world);
    daemon.wait_for_output("master.db3-wal was removed or replaced while the daemon used it");
    open_again(&mut world.database);
    world.insert(&Mail::to("c@example.org"));
    server.wait_for_messages(2);
    world.database.wait("what was recorded is recorded again", |database| {
        (database.ids().len(), database.failures().len()) == (1, 1)
    });
    daemon.terminate();
    let daemon = world.start();
    world.insert(&Mail::to("d@example.org"));
    server.wait_for_messages(3);
    world.database.wait("the last one is delivered", |database| database.ids().len() == 1);
    daemon.terminate();
    let mut delivered = server.records().delivered_to();
    delivered.retain(|recipient| recipient != "c@example.org" && recipient != "d@example.org");
    assert_eq!(delivered.len(), 1, "{delivered:?}");
    assert_eq!(server.records().accepted().len(), 3);
}

#[test]
fn a_log_that_is_removed_just_before_the_end_costs_no_verdict() {
    let (mut world, server) = world("wal", Script::new(), &[Mail::to("a@example.org")]);
    world.set("interval", 3600);
    let mut daemon = world.start();
    server.wait_for_messages(1);
    world.database.wait_until_empty();
    close(&mut world.database);
    // Stopped, the daemon learns of both at the same time.
    daemon.signal(Signal::SIGSTOP);
    remove_log(&world);
    daemon.signal(Signal::SIGTERM);
    daemon.signal(Signal::SIGCONT);
    assert_eq!(daemon.wait_for_exit(Duration::from_secs(7)).code(), Some(0));
    open_again(&mut world.database);
    assert!(world.database.ids().is_empty(), "the mail is there again");
}

#[test]
fn a_database_that_is_removed_and_comes_back_is_worked_on_again() {
    for journal_mode in ["wal", "delete"] {
        let (mut world, server) = world(journal_mode, Script::new(), &[Mail::to("a@example.org")]);
        let daemon = world.start();
        server.wait_for_messages(1);
        world.database.wait_until_empty();
        close(&mut world.database);
        let (path, away) = (world.path("master.db3"), world.path("away.db3"));
        fs::rename(&path, &away).unwrap();
        daemon.wait_for_output("master.db3 was removed or replaced while the daemon used it");
        if journal_mode == "wal" {
            // What stands only there belongs to the file that was moved away.
            remove_log(&world);
        }
        // Another file with the same content, as of the last time that it was complete.
        fs::copy(&away, &path).unwrap();
        open_again(&mut world.database);
        world.insert(&Mail::to("b@example.org"));
        server.wait_for_messages(2);
        world.database.wait_until_empty();
        // The new file is locked under all its names, as the old one was.
        fs::hard_link(&path, world.path("link.db3")).unwrap();
        let link = world.path("link.db3").display().to_string();
        world.set("database", link);
        let second = world.run(&["genbounces"]);
        assert!(second.stderr.contains(&format!("process {} works on", daemon.pid())), "{}", second.stderr);
        let output = daemon.terminate();
        assert_eq!(output.matches("was removed or replaced").count(), 1, "{output}");
        assert_eq!(server.records().delivered_to(), ["a@example.org", "b@example.org"], "{journal_mode}");
    }
}
