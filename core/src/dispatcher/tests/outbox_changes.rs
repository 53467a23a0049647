//! What happens to claimed mail while others write to the outbox, and while others could do it.

use super::*;
use crate::io::Input;

/// Runs until the server has taken this many messages.
fn run_until_accepted(world: &mut World, address: &str, count: usize) {
    for _ in 0..10_000 {
        if world.server(address).accepted.len() >= count {
            return;
        }
        world.run_for(Duration::from_millis(1));
    }
    panic!("the server did not take {count} messages");
}

#[test]
fn claimed_mail_that_somebody_deletes_is_not_sent() {
    let mut world = World::new();
    world.domain("example.org", "192.0.2.1");
    for number in 100..130 {
        world.mail(&format!("s{number}@origin.example"), "a@example.org", "x");
    }
    run_until_accepted(&mut world, "192.0.2.1", 1);
    world.outbox.mails.clear();
    world.outbox.data_version += 1;
    world.input(Input::OutboxChanged);
    world.run();
    let server = world.server("192.0.2.1");
    // One is taken, and each connection may have begun another.
    assert!(server.accepted.len() <= 1 + server.most_open, "{}", server.accepted.len());
}

#[test]
fn claimed_mail_that_somebody_redirects_goes_to_the_new_recipient() {
    let mut world = World::new();
    world.domain("example.org", "192.0.2.1");
    world.domain("example.net", "192.0.2.2");
    for number in 100..130 {
        world.mail(&format!("s{number}@origin.example"), "a@example.org", "x");
    }
    run_until_accepted(&mut world, "192.0.2.1", 1);
    for mail in world.outbox.mails.values_mut() {
        mail.recipient = "b@example.net".into();
    }
    world.outbox.data_version += 1;
    world.input(Input::OutboxChanged);
    world.run();
    let kept = world.server("192.0.2.1").accepted.len();
    let begun = 1 + world.server("192.0.2.1").most_open;
    assert!(kept <= begun, "{kept}");
    assert_eq!(world.server("192.0.2.2").accepted.len(), 30 - kept);
}

#[test]
fn a_storm_of_changes_keeps_nothing_from_being_sent() {
    let mut world = World::new();
    world.domain("example.org", "192.0.2.1");
    for number in 100..130 {
        world.mail(&format!("s{number}@origin.example"), "a@example.org", "x");
    }
    for _ in 0..5_000 {
        world.run_for(Duration::from_millis(1));
        world.outbox.data_version += 1;
        world.input(Input::OutboxChanged);
    }
    world.run();
    assert_eq!(world.server("192.0.2.1").accepted.len(), 30);
}

#[test]
fn mail_that_only_looks_alike_does_not_wait_behind_one_stuck_message() {
    let mut world = World::new();
    let server = world.domain("example.org", "192.0.2.1");
    server.next.push_back(Behaviour::on(".", "hang"));
    // One sender and one length: to the index it looks like one message.
    for number in 100..112 {
        world.mail(SENDER, "a@example.org", &format!("{number}"));
    }
    world.run_for(Duration::from_secs(60));
    assert!(world.server("192.0.2.1").accepted.len() >= 10, "{}", world.server("192.0.2.1").accepted.len());
}

#[test]
fn what_could_not_be_recorded_at_the_end_is_named() {
    let mut world = World::new();
    world.outbox.failing.insert("commit", 1000);
    world.domain("example.org", "192.0.2.1");
    let id = world.mail(SENDER, "a@example.org", "x");
    world.run_for(Duration::from_secs(1));
    world.input(Input::Drain);
    world.run_for(Duration::from_secs(10));
    let notes = world.notes();
    assert!(notes.contains(&format!("will be sent again: {id}")), "{notes}");
}
