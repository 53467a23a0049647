//! Other programs delete or change mail while the daemon works on it: their change wins (contract, section 4).

use crate::support::dns_server::Behaviour;
use crate::support::smtp_server::SmtpServer;
use crate::support::{Action, Gate, Mail, Script, World};
use std::collections::BTreeSet;

#[test]
fn a_mail_changed_by_somebody_else_before_its_turn_goes_to_the_new_recipient() {
    let (mut world, server) = World::with_server(Script::new().once("RCPT", "450 4.2.0 later"));
    world.set("retryinterval", 1);
    let id = world.insert(&Mail::to("old@example.org"));
    let daemon = world.start();
    world.database.wait_for_failure(id);
    let update =
        "UPDATE outbox SET mail_envelopeto = 'new@example.org', mail_data = 'new' WHERE mail_id = ?1";
    world.database.connection.execute(update, [id]).unwrap();
    world.database.wait_until_empty();
    let records = server.records();
    assert_eq!(records.delivered_to(), ["new@example.org"]);
    assert_eq!(records.accepted()[0].data, b"new\r\n");
    daemon.terminate();
}

#[test]
fn a_mail_deleted_while_its_failure_is_recorded_harms_nobody() {
    let gate = Gate::new();
    let slow = Action::After(gate.clone(), Box::new("451 later".into()));
    let (world, server) = World::with_server(Script::new().once(".", slow));
    let id = world.insert(&Mail::to("a@example.org"));
    let mut daemon = world.start();
    server.wait("the data has arrived", |records| !records.messages.is_empty());
    world.database.connection.execute("DELETE FROM outbox WHERE mail_id = ?1", [id]).unwrap();
    gate.open();
    world.insert(&Mail::to("b@example.org"));
    world.database.wait_until_empty();
    assert!(daemon.is_running());
    assert!(world.database.failures().is_empty());
    daemon.terminate();
}

#[test]
fn other_mail_that_takes_the_place_of_one_that_is_being_sent_is_sent_as_well() {
    let gate = Gate::new();
    let slow = Action::After(gate.clone(), Box::new("250 taken".into()));
    let (world, server) = World::with_server(Script::new().once(".", slow));
    let id = world.insert(&Mail::to("a@example.org"));
    let daemon = world.start();
    server.wait("the data has arrived", |records| !records.messages.is_empty());
    let replace =
        "REPLACE INTO outbox (mail_id, mail_envelopeto, mail_data) VALUES (?1, 'b@example.org', 'new')";
    world.database.connection.execute(replace, [id]).unwrap();
    gate.open();
    world.database.wait_until_empty();
    let records = server.records();
    assert_eq!(records.delivered_to(), ["a@example.org", "b@example.org"]);
    assert_eq!(records.accepted()[1].data, b"new\r\n");
    daemon.terminate();
}

#[test]
fn mail_that_is_redirected_while_it_is_refused_goes_to_its_new_server() {
    let gate = Gate::new();
    let slow = Action::After(gate.clone(), Box::new("550 no".into()));
    let (world, server) = World::with_server(Script::new().once(".", slow));
    let relay = SmtpServer::start(Script::new());
    let id = world.insert(&Mail::to("a@example.org").from("s@example.net"));
    let daemon = world.start();
    server.wait("the data has arrived", |records| !records.messages.is_empty());
    let redirect = "UPDATE outbox SET mail_remote = ?2 WHERE mail_id = ?1";
    world.database.connection.execute(redirect, (id, relay.address().to_string())).unwrap();
    gate.open();
    world.database.wait_until_empty();
    assert_eq!(relay.records().delivered_to(), ["a@example.org"], "it was not bounced either");
    let output = daemon.terminate();
    assert!(output.contains("was changed by another program"), "{output}");
}

/// A mail whose domain is found not to exist; meanwhile another program has changed it, which is noticed at the next look only.
fn mail_that_is_changed_while_its_domain_fails(journal_mode: &str, change: &str) {
    let mut world = World::in_journal_mode(journal_mode);
    let server = SmtpServer::start(Script::new());
    world.set("portprio", server.port()).set("interval", 60).set("retries", 1);
    world.route("example.net", &server);
    let gate = Gate::new();
    world.dns.behave("example.org", Behaviour::Delayed(gate.clone()));
    let [id, _] =
        ["a", "b"].map(|name| world.insert(&Mail::to(&format!("{name}@example.org")).from("s@example.net")));
    let daemon = world.start();
    daemon.wait_until_ready(&world);
    // Known mail is scanned again only when another program has written, and not before three quarters of an interval.
    world.insert(&Mail::to("first@example.net"));
    server.wait_for_messages(1);
    world.dns.wait_for("example.org");
    let change = change.replace("RELAY", &server.address().to_string());
    world
        .database
        .connection
        .execute(&format!("UPDATE outbox SET {change} WHERE mail_id = ?1"), [id])
        .unwrap();
    gate.open();
    world.database.wait("all mail is dealt with", |database| database.ids().is_empty());
    let records = server.records();
    let changed = if change.contains("mail_envelopeto") { "new@example.net" } else { "a@example.org" };
    let to: BTreeSet<String> = records.delivered_to().into_iter().collect();
    assert_eq!(
        to,
        ["first@example.net", "s@example.net", changed].map(String::from).into(),
        "{journal_mode} {change}"
    );
    let bounces: Vec<_> =
        records.accepted().into_iter().filter(|message| message.to() == ["s@example.net"]).collect();
    assert_eq!(bounces.len(), 1, "{journal_mode} {change}");
    let text = String::from_utf8_lossy(&bounces[0].data).into_owned();
    assert!(text.contains("b@example.org") && !text.contains("a@example.org"), "{text}");
    let output = daemon.terminate();
    assert!(!output.contains(&format!("mail {id} to <a@example.org> failed")), "{output}");
}

#[test]
fn mail_that_is_given_another_recipient_while_its_domain_fails_goes_there() {
    for journal_mode in ["delete", "wal"] {
        mail_that_is_changed_while_its_domain_fails(journal_mode, "mail_envelopeto = 'new@example.net'");
    }
}

#[test]
fn mail_that_is_given_another_server_while_its_domain_fails_goes_there() {
    for journal_mode in ["delete", "wal"] {
        mail_that_is_changed_while_its_domain_fails(journal_mode, "mail_remote = 'RELAY'");
    }
}
