//! What a refusal is about: the mail, the connection, or the channel (contract, section 5).

use crate::support::smtp_server::SmtpServer;
use crate::support::tls::Identity;
use crate::support::{Action, Mail, Script, World};
use std::collections::HashMap;
use std::sync::Mutex;

#[test]
fn a_demand_of_tls_is_temporary_and_the_text_says_why_there_was_none() {
    for command in ["MAIL", "RCPT", "DATA", "."] {
        let script = Script::new()
            .starttls(&Identity::self_signed(&["mx.example.org"]))
            .always("STARTTLS", "454 4.7.0 TLS not available for the moment")
            .always(command, "530 5.7.0 Must issue STARTTLS");
        let (mut world, server) = World::with_server(script);
        world.set("portprio", format!("{0}@starttls {0}", server.port()));
        let failure = world.failure_after_a_pass(&Mail::to("a@example.org"));
        assert!(!failure.fatal, "{failure:?}");
        for text in ["454 4.7.0 TLS not available for the moment", "530 5.7.0 Must issue STARTTLS"] {
            assert!(failure.text.contains(text), "{failure:?}");
        }
    }
}

/// A server that answers so many commands of a verb on each connection, and each further one so.
fn limited(keywords: &'static str, verb: &'static str, limit: usize, refusal: &'static str) -> Script {
    let seen: Mutex<HashMap<usize, usize>> = Mutex::default();
    Script::new().keywords([keywords]).when(move |command| {
        if command.verb != verb {
            return None;
        }
        let mut seen = seen.lock().unwrap();
        let count = seen.entry(command.connection).or_default();
        *count += 1;
        (*count > limit).then(|| match refusal.starts_with("421") {
            true => Action::ReplyThenClose(refusal.into()),
            false => refusal.into(),
        })
    })
}

fn insert_mails(world: &World, count: usize) {
    let mails: Vec<Mail> = (0..count)
        .map(|number| Mail::to(&format!("a{number}@example.org")).data(number.to_string()))
        .collect();
    world.database.insert_all(&mails);
}

#[test]
fn a_limit_of_messages_on_a_connection_costs_no_mail_a_row() {
    for (verb, refusal) in [
        // Stalwart's default, and OpenSMTPD's limits of a session.
        ("DATA", "451 4.4.5 Maximum number of messages per session exceeded"),
        ("MAIL", "452 4.5.3 Too many messages sent"),
        ("RCPT", "452 4.5.3 Too many recipients"),
        ("RCPT", "421 4.7.0 Error: too many errors"),
    ] {
        for keywords in ["PIPELINING", "8BITMIME"] {
            let (world, server) = World::with_server(limited(keywords, verb, 10, refusal));
            insert_mails(&world, 150);
            assert_eq!(world.run(&["deliver", "example.org"]).code(), Some(0));
            let records = server.records();
            assert_eq!(records.accepted().len(), 150, "{verb} {refusal}");
            assert!(world.database.ids().is_empty() && world.database.failures().is_empty());
            // Fifteen would do, one after the other.
            let connections = records.connections.len();
            assert!(connections <= 25, "{verb} {refusal}: {connections} connections");
        }
    }
}

#[test]
fn what_a_connection_that_has_taken_nothing_refuses_is_the_verdict() {
    let (world, server) = World::with_server(Script::new().once("MAIL", "451 4.7.500 Server busy"));
    let failure = world.failure_after_a_pass(&Mail::to("a@example.org"));
    assert!(!failure.fatal && failure.text.starts_with("451 4.7.500"), "{failure:?}");
    assert_eq!(server.records().connections.len(), 1);
}

#[test]
fn a_mail_that_is_refused_on_a_new_connection_too_is_charged_and_no_other() {
    let script = Script::new().when(|command| {
        let is_bad = command.verb == "MAIL" && command.line.contains("<bad");
        is_bad.then(|| "451 4.7.1 not from you".into())
    });
    let (mut world, server) = World::with_server(script);
    world.set("destination_concurrency", 1);
    let mail = |number: usize| Mail::to("a@example.org").data(number.to_string());
    let senders = ["a", "bad1", "b", "c", "bad2", "d", "bad3"].map(|name| format!("{name}@client.example"));
    let mails: Vec<Mail> =
        senders.iter().enumerate().map(|(number, sender)| mail(number).from(sender)).collect();
    let ids = world.database.insert_all(&mails);
    world.run(&["deliver", "example.org"]);
    assert_eq!(server.records().accepted().len(), 4);
    for (id, sender) in ids.iter().zip(&senders) {
        assert_eq!(world.database.failures_of(*id).len(), usize::from(sender.starts_with("bad")), "{sender}");
    }
    assert_eq!(
        server.records().connections.len(),
        2,
        "one more, to find out: {}",
        server.records().transcript()
    );
}

#[test]
fn recipients_behind_the_eleventh_refusal_of_cmail_smtpd_are_delivered() {
    const LAST: &str = "500 Too many failed commands";
    for says_it_at_once in [true, false] {
        let refused: Mutex<HashMap<usize, usize>> = Mutex::default();
        let script = Script::new().lenient().when(move |command| {
            let mut refused = refused.lock().unwrap();
            let count = refused.entry(command.connection).or_default();
            if command.verb != "RCPT" {
                return None;
            }
            if *count > 10 {
                return Some(Action::ReplyThenClose(LAST.into()));
            }
            if !command.line.contains("<bad") {
                return None;
            }
            *count += 1;
            let unknown = "551 unknown recipient";
            Some(if *count > 10 && says_it_at_once {
                Action::ReplyThenClose(format!("{unknown}\r\n{LAST}"))
            } else {
                unknown.into()
            })
        });
        let (world, server) = World::with_server(script);
        let bad = (0..11).map(|number| format!("bad{number:02}@example.org"));
        let good = (0..5).map(|number| format!("good{number}@example.org"));
        let ids = world.database.insert_all(&bad.chain(good).map(|to| Mail::to(&to)).collect::<Vec<_>>());
        world.run(&["deliver", "example.org"]);
        let (bad, good) = ids.split_at(11);
        for &id in bad {
            let failures = world.database.failures_of(id);
            assert!(
                failures.len() == 1 && failures[0].fatal && failures[0].text.starts_with("551"),
                "{failures:?}"
            );
        }
        assert!(good.iter().all(|&id| world.database.row(id).is_none()), "{}", server.records().transcript());
        assert_eq!(server.records().delivered_to().len(), 5);
        assert_eq!(server.records().connections.len(), 2, "{}", server.records().transcript());
    }
}

#[test]
fn recipients_of_a_message_are_not_charged_for_those_that_were_too_many() {
    // Fifty recipients of a message, and twenty errors on a connection.
    let counts: Mutex<HashMap<usize, (usize, usize)>> = Mutex::default();
    let script = Script::new().keywords(["PIPELINING"]).lenient().when(move |command| {
        let mut counts = counts.lock().unwrap();
        let (recipients, errors) = counts.entry(command.connection).or_default();
        match command.verb {
            "MAIL" => *recipients = 0,
            "RCPT" if *errors >= 20 => {
                return Some(Action::ReplyThenClose("421 4.7.0 Error: too many errors".into()));
            }
            "RCPT" if *recipients >= 50 => {
                *errors += 1;
                return Some("452 4.5.3 Error: too many recipients".into());
            }
            "RCPT" => *recipients += 1,
            _ => {}
        }
        None
    });
    let (world, server) = World::with_server(script);
    let mails: Vec<Mail> = (0..300).map(|number| Mail::to(&format!("a{number}@example.org"))).collect();
    world.database.insert_all(&mails);
    world.run(&["deliver", "example.org"]);
    assert_eq!(world.database.failures(), [], "{}", server.records().transcript());
    assert_eq!(server.records().delivered_to().len(), 300);
}

/// A server that takes so many messages, and none after that.
fn satisfied_by(limit: usize) -> Script {
    let taken: Mutex<usize> = Mutex::default();
    Script::new().when(move |command| {
        let mut taken = taken.lock().unwrap();
        if command.verb == "MAIL" && *taken >= limit {
            return Some("450 4.7.1 more than enough for an hour".into());
        }
        *taken += usize::from(command.verb == ".");
        None
    })
}

fn world_of_twenty(limit: usize) -> (World, SmtpServer) {
    let (mut world, server) = World::with_server(satisfied_by(limit));
    world.set("destination_concurrency", 1);
    insert_mails(&world, 20);
    (world, server)
}

#[test]
fn a_server_that_has_had_enough_gets_a_pause_and_no_mail_is_charged_for_it() {
    let (mut world, server) = world_of_twenty(5);
    world.set("retryinterval", 3600);
    let daemon = world.start();
    daemon.wait_for_output(
        "has to wait, without a failed attempt: its server takes no more for now: 450 4.7.1",
    );
    let records = server.wait_until_closed();
    assert_eq!((records.accepted().len(), records.connections.len()), (5, 2), "{}", records.transcript());
    // The log may tell of the pause before the failures are recorded.
    world.database.wait("failures are recorded", |database| database.failures().len() >= 3);
    daemon.terminate();
    assert_eq!(world.database.failures().len(), 3, "only the mails that the new connection refused failed");
    assert_eq!(world.database.ids().len(), 15);
}

#[test]
fn after_the_pause_the_rest_is_tried() {
    let (mut world, _server) = world_of_twenty(5);
    // The pause is no longer than that.
    world.set("retryinterval", 1).set("retries", 1000);
    let daemon = world.start();
    daemon.wait_for_output("its server takes no more for now");
    // The next pass takes nothing, so that it charges all that is left.
    world.database.wait("everybody is charged", |database| database.failures().len() >= 15);
    daemon.terminate();
}

#[test]
fn a_single_pass_leaves_the_rest_as_it_is() {
    let (world, server) = world_of_twenty(5);
    let finished = world.run(&["deliver", "example.org"]);
    assert_eq!(finished.code(), Some(0), "{}", finished.stderr);
    assert_eq!(server.records().connections.len(), 2);
    assert_eq!((world.database.ids().len(), world.database.failures().len()), (15, 3));
}
