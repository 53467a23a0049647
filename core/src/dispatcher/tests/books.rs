use super::*;
use crate::outbox::RequestId;
use crate::queue::QueueState;

/// A world whose database is asked for a mail, and has not answered.
fn claiming() -> (World, i64) {
    let mut world = World::new();
    world.domain("example.org", "192.0.2.1");
    let id = world.mail(SENDER, "a@example.org", "x");
    world.slow.insert("claim", Duration::from_secs(100));
    world.input(Input::OutboxChanged);
    world.run_for(Duration::from_secs(1));
    world.dispatcher.check();
    assert!(world.dispatcher.books.queue.find(MailId(id)).unwrap().is_claimed());
    (world, id)
}

#[test]
#[should_panic(expected = "claims that are not answered")]
fn a_claim_that_nobody_waits_for_is_noticed() {
    let (mut world, _) = claiming();
    for number in 0..100 {
        world.dispatcher.books.store.requests.close(RequestId(number));
    }
    world.dispatcher.check();
}

#[test]
#[should_panic(expected = "is worked on, but is")]
fn mail_that_is_taken_from_who_works_on_it_is_noticed() {
    let (mut world, id) = claiming();
    world.dispatcher.books.queue.set_state(MailId(id), QueueState::SetAside);
    world.dispatcher.check();
}

#[test]
#[should_panic(expected = "mail is forgotten that somebody has taken")]
fn mail_that_nobody_works_on_is_noticed() {
    let (mut world, _) = claiming();
    let other = world.mail(SENDER, "b@example.com", "y");
    world.failed_before(other, 1, 10, false);
    world.input(Input::OutboxChanged);
    world.run_for(Duration::from_millis(50));
    assert!(world.dispatcher.books.queue.set_state(MailId(other), QueueState::Claimed).is_some());
    world.dispatcher.check();
}

#[test]
fn a_next_hop_whose_mail_only_waits_has_no_destination() {
    let mut world = World::new();
    for number in 0..300 {
        let id = world.mail(SENDER, &format!("a@example{number}.org"), "x");
        world.failed_before(id, 1, 10, false);
    }
    world.input(Input::OutboxChanged);
    world.run_for(Duration::from_secs(1));
    assert_eq!((world.dispatcher.indexed(), world.dispatcher.deliveries.size()), (300, 0));
    // When it has failed again, there is nothing to be known of it any more.
    world.dns_is_dead = true;
    world.run_for(Duration::from_secs(3600 + 1200));
    assert_eq!((world.dispatcher.indexed(), world.dispatcher.deliveries.size()), (300, 0));
    assert!(world.outbox.mails.values().all(|mail| mail.faillog.len() == 2));
}
