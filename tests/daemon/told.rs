//! What the log and the single passes tell the administrator of mail (contract, sections 1 and 4).

use crate::support::tls::Identity;
use crate::support::{Action, Mail, Script, World};

/// The lines of a log that `grep` finds.
fn grep(log: &str, what: &str) -> Vec<String> {
    let lines = log.lines().filter(|line| line.contains(what));
    lines.map(|line| line.split_once(' ').unwrap().1.to_owned()).collect()
}

#[test]
fn mail_that_did_not_get_to_a_server_is_found_by_its_recipient_and_so_is_its_bounce() {
    let mut world = World::new();
    world.set("verbosity", 1).set("bounce_copy", "copy@client.example");
    let bob = world.insert(&Mail::to("bob@missing.example"));
    let daemon = world.start();
    world.database.wait("the bounce is there", |database| database.row(bob).is_none());
    daemon.wait_for_output(" given up, ");
    let log = daemon.terminate();
    let found = grep(&log, "bob@");
    assert_eq!(found.len(), 2, "{found:#?}");
    let failed = format!("WARN  mail {bob} to <bob@missing.example> failed permanently: Failed to resolve");
    assert!(found[0].starts_with(&failed), "{found:#?}");
    let bounced = format!(
        "INFO  mail {bob} to <bob@missing.example> given up, bounce {} goes to <sender@client.example>, \
         bounce {} goes to <copy@client.example>",
        bob + 1,
        bob + 2
    );
    assert_eq!(found[1], bounced);
    assert_eq!(world.database.ids(), [bob + 1, bob + 2]);
}

#[test]
fn a_delivery_says_over_which_tls_it_went() {
    let identity = Identity::self_signed(&["mx.example.org"]);
    let (mut world, server) = World::with_server(Script::new().starttls(&identity));
    world.set("portprio", format!("{}@starttls", server.port()));
    world.insert(&Mail::to("a@example.org"));
    let finished = world.run(&["deliver", "example.org"]);
    let found = grep(&finished.stderr, " delivered to ");
    let expected = format!(
        "delivered to mx.example.org [{}]:{} over TLSv1.3 (certificate not verified): 250",
        server.ip(),
        server.port()
    );
    assert!(found.len() == 1 && found[0].contains(&expected), "{found:#?}");
}

#[test]
fn mail_that_goes_in_plain_text_after_a_failed_handshake_is_a_warning_with_the_reason() {
    let identity = Identity::self_signed(&["mx.example.org"]);
    let script = Script::new().starttls(&identity).always("STARTTLS", "454 4.7.0 TLS is \"out\"");
    let (mut world, server) = World::with_server(script);
    world.set("portprio", format!("{0}@starttls {0}", server.port())).set("verbosity", 0);
    for data in ["1", "2", "3"] {
        world.insert(&Mail::to("a@example.org").data(data));
    }
    let finished = world.run(&["deliver", "example.org"]);
    let expected = format!(
        "WARN  mx.example.org [{}]:{}: mail goes in plain text: 454 4.7.0 TLS is \"out\" in reply to STARTTLS",
        server.ip(),
        server.port()
    );
    assert_eq!(grep(&finished.stderr, "plain text"), [expected]);
    assert_eq!(server.records().accepted().len(), 3);
}

#[test]
fn single_passes_say_what_they_have_done() {
    let refuse = |code: &'static str| Action::Reply(code.to_owned());
    let script = Script::new().when(move |command| match command.line {
        line if line.contains("later@") => Some(refuse("450 4.2.1 later")),
        line if line.contains("never@") => Some(refuse("550 5.1.1 never")),
        _ => None,
    });
    let (mut world, _server) = World::with_server(script);
    world.set("verbosity", 0);
    for to in ["a", "b", "later", "never"] {
        world.insert(&Mail::to(&format!("{to}@example.org")).data(to));
    }
    let finished = world.run(&["deliver", "example.org"]);
    assert_eq!((finished.code(), &*finished.stdout), (Some(0), "delivered 2, failed 1, deferred 1\n"));
    let finished = world.run(&["genbounces"]);
    assert_eq!((finished.code(), &*finished.stdout), (Some(0), "bounced 1, dropped 0\n"));
    let finished = world.run(&["handoff", "relay.example"]);
    assert_eq!((finished.code(), &*finished.stdout), (Some(0), "delivered 0, failed 0, deferred 0\n"));
}
