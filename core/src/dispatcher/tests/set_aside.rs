//! Mail for which the database can do nothing, though it does it for other mail.

use hickory_proto::op::ResponseCode;

use super::*;

const MINUTE: Duration = Duration::from_secs(60);

fn world() -> World {
    let mut world = World::new();
    world.domain("example.org", "192.0.2.1");
    world.domain("origin.example", "192.0.2.2");
    world
}

/// Returns how often the notes say that something is set aside, and for how many minutes each time.
fn pauses(world: &World) -> Vec<u64> {
    let said = world.notes();
    let said = said.split("trying again in ").skip(1);
    said.filter_map(|rest| rest.split(" min").next()?.parse().ok()).collect()
}

#[test]
fn taken_mail_that_cannot_be_deleted_is_not_sent_again_and_its_deletion_is_tried_again_ever_less_often() {
    for notes_taken in [true, false] {
        let mut world = world();
        world.outbox.notes_taken = notes_taken;
        let poisoned = world.mail(SENDER, "a@example.org", "x");
        world.outbox.poisoned.insert(poisoned);
        for number in 0..5 {
            world.mail(SENDER, "b@example.org", &format!("{number}"));
        }
        world.run_for(MINUTE * 400);
        assert_eq!(world.outbox.mails.len(), 1);
        assert_eq!(world.server("192.0.2.1").accepted.len(), 6, "each once");
        assert_eq!(pauses(&world), [1, 2, 4, 8, 16, 32, 60, 60, 60, 60, 60, 60]);
        world.outbox.poisoned.clear();
        world.run_for(MINUTE * 61);
        assert!(world.outbox.mails.is_empty());
        assert_eq!(world.server("192.0.2.1").accepted.len(), 6);
        assert_eq!(world.outbox.taken(), 0);
    }
}

#[test]
fn taken_mail_that_is_noted_is_not_sent_after_a_restart_either() {
    let mut world = world();
    let id = world.mail(SENDER, "a@example.org", "x");
    world.outbox.notes_taken = true;
    world.outbox.take(id);
    world.outbox.poisoned.insert(id);
    world.run_for(MINUTE * 10);
    assert!(world.server("192.0.2.1").accepted.is_empty());
    assert_eq!(pauses(&world), [1, 2, 4, 8]);
    world.outbox.poisoned.clear();
    world.input(Input::TryNow);
    world.run_for(Duration::from_secs(5));
    assert!(world.outbox.mails.is_empty(), "an order to try now is one to delete it now");
}

/// What was noted is neither sent again nor does it cost the mail that another program has put in its place.
#[test]
fn mail_in_the_place_of_what_was_taken_before_a_restart_is_sent_and_not_deleted() {
    let mut world = world();
    let id = world.mail(SENDER, "a@example.org", "x");
    world.outbox.notes_taken = true;
    world.outbox.take(id);
    world.outbox.poisoned.insert(id);
    world.run_for(MINUTE * 10);
    assert_eq!(pauses(&world), [1, 2, 4, 8]);
    let mut other = world.outbox.mails[&id].clone();
    other.recipient = "b@example.org".into();
    world.outbox.mails.insert(id, other);
    world.outbox.poisoned.clear();
    world.outbox.data_version += 1;
    // Its last attempt is not long ago, and meanwhile what was set aside would have been deleted.
    world.failed_before(id, 1, 0, false);
    world.input(Input::OutboxChanged);
    world.run_for(MINUTE * 40);
    assert!(world.outbox.mails.contains_key(&id), "{}", world.notes());
    assert!(world.server("192.0.2.1").accepted.is_empty());
    world.run_for(MINUTE * 100);
    assert_eq!(world.server("192.0.2.1").accepted.len(), 1);
    assert_eq!(world.outbox.deleted, [id]);
}

/// A scan does not return what was taken, so it ends before the highest id. The mail that replaces it fails all the same.
#[test]
fn mail_in_the_place_of_the_last_taken_before_a_restart_fails_with_its_next_hop() {
    let mut world = world();
    world.exchanges.insert("null.example".into(), vec![(0, String::new())]);
    let earlier = world.mail(SENDER, "a@example.org", "x");
    let id = world.mail(SENDER, "a@example.org", "y");
    world.outbox.notes_taken = true;
    world.outbox.take(id);
    world.outbox.poisoned.insert(id);
    world.run_for(MINUTE);
    assert_eq!(world.outbox.deleted, [earlier]);
    let mut other = world.outbox.mails[&id].clone();
    other.recipient = "b@null.example".into();
    world.outbox.mails.insert(id, other);
    world.outbox.poisoned.clear();
    world.run_for(MINUTE * 3);
    let failed = world.events.iter().filter(|event| matches!(event, Event::Failed { .. })).count();
    assert_eq!(failed, 1, "{}", world.notes());
    assert_eq!(world.server("192.0.2.2").accepted.len(), 1, "the bounce");
}

#[test]
fn mail_whose_failure_cannot_be_recorded_is_not_tried_in_a_loop_and_harms_no_other() {
    let mut world = World::with(
        Settings { schedule: Schedule { retry_interval_s: 0, ..Schedule::default() }, ..settings() },
        Mode::Daemon,
    );
    world.domain("example.org", "192.0.2.1").usual = Behaviour::on("RCPT TO:<bad@", "450 no");
    let bad = world.mail(SENDER, "bad@example.org", "x");
    world.outbox.poisoned.insert(bad);
    let good = world.mail(SENDER, "good@example.org", "y");
    world.run_for(MINUTE * 60);
    assert_eq!(world.outbox.deleted, [good]);
    let attempts = world.events.iter().filter(|event| matches!(event, Event::Failed { .. })).count();
    assert!((2..8).contains(&attempts), "{attempts}");
    world.outbox.poisoned.clear();
    world.run_for(MINUTE * 61);
    assert!(!world.outbox.mails.contains_key(&bad) || !world.failures(bad).is_empty());
}

#[test]
fn mail_that_cannot_be_read_is_not_charged_with_the_failure_of_its_next_hop() {
    let mut world = world();
    world.broken_names.insert("broken.example".into(), ResponseCode::ServFail);
    let [unreadable, failed] = [0; 2].map(|_| world.mail(SENDER, "a@broken.example", "x"));
    world.outbox.unreadable.insert(unreadable);
    world.run_for(MINUTE * 2);
    assert_eq!((world.failures(unreadable).len(), world.failures(failed).len()), (0, 1));
    assert_eq!(pauses(&world), [1, 2]);
    world.outbox.unreadable.clear();
    world.run_for(MINUTE * 4);
    assert_eq!(world.failures(unreadable).len(), 1);
}

#[test]
fn mail_on_a_damaged_page_is_looked_for_ever_less_often_and_sent_when_the_page_is_mended() {
    let mut world = world();
    let ids: Vec<i64> =
        (0..5).map(|number| world.mail(SENDER, "a@example.org", &format!("{number}"))).collect();
    world.outbox.lost.insert(ids[2]);
    world.run_for(MINUTE * 10);
    assert_eq!(world.outbox.deleted.len(), 4);
    assert_eq!(pauses(&world), [1, 2, 4, 8]);
    // Other programs write all the time, which brings a look and a walk, but nothing new about that page.
    for number in 0..30 {
        world.mail(SENDER, "b@example.org", &format!("{number}"));
        world.input(Input::OutboxChanged);
        world.run_for(Duration::from_secs(10));
    }
    assert_eq!(world.outbox.deleted.len(), 34);
    assert_eq!(pauses(&world), [1, 2, 4, 8]);
    world.outbox.lost.clear();
    world.run_for(MINUTE * 16);
    assert!(world.outbox.mails.is_empty(), "{}", world.notes());
}

#[test]
fn known_mail_that_comes_to_stand_on_a_damaged_page_is_not_forgotten_and_stops_no_other() {
    let mut world = world();
    world.server("192.0.2.1").usual = Behaviour::on("RCPT", "450 later");
    let ids = [0; 3].map(|_| world.mail(SENDER, "a@example.org", "x"));
    world.run_for(MINUTE);
    world.outbox.lost.insert(ids[1]);
    world.server("192.0.2.1").usual = Behaviour::default();
    world.outbox.data_version += 1;
    world.run_for(MINUTE * 70);
    assert_eq!(world.outbox.deleted, [ids[0], ids[2]]);
    world.outbox.lost.clear();
    world.run_for(MINUTE * 61);
    assert!(world.outbox.mails.is_empty(), "{}", world.notes());
}

#[test]
fn a_fatal_failure_that_cannot_be_recorded_is_not_sent_again() {
    let mut world = world();
    world.server("192.0.2.1").usual = Behaviour::on("RCPT", "550 no");
    let id = world.mail(SENDER, "a@example.org", "x");
    world.outbox.poisoned.insert(id);
    world.run_for(MINUTE * 600);
    let attempts = world.events.iter().filter(|event| matches!(event, Event::Failed { .. })).count();
    assert_eq!(attempts, 1);
    world.outbox.poisoned.clear();
    world.run_for(MINUTE * 61);
    assert_eq!(world.server("192.0.2.2").accepted.len(), 1, "the bounce");
}

#[test]
fn mail_that_cannot_be_bounced_stops_no_other_bounce() {
    let mut world = world();
    let ids: Vec<i64> =
        (0..20).map(|number| world.mail(SENDER, "a@example.org", &format!("{number}"))).collect();
    for &id in &ids {
        world.failed_before(id, 1, 10, true);
    }
    world.outbox.poisoned.extend(&ids[..10]);
    world.run_for(MINUTE);
    assert_eq!(world.server("192.0.2.2").accepted.len(), 10);
    assert_eq!(world.outbox.mails.len(), 10);
    world.outbox.poisoned.clear();
    world.run_for(MINUTE * 2);
    assert_eq!(world.server("192.0.2.2").accepted.len(), 20);
}

#[test]
fn mail_that_cannot_be_read_costs_only_itself() {
    let mut world = world();
    let ids: Vec<i64> =
        (0..10).map(|number| world.mail(SENDER, "a@example.org", &format!("{number}"))).collect();
    world.outbox.unreadable.insert(ids[3]);
    world.run_for(MINUTE * 5);
    assert_eq!(world.server("192.0.2.1").accepted.len(), 9);
    assert_eq!(pauses(&world), [1, 2, 4]);
    world.outbox.unreadable.clear();
    world.run_for(MINUTE * 4);
    assert!(world.outbox.mails.is_empty());
}

#[test]
fn a_single_pass_ends_whatever_the_database_refuses() {
    let mode = Mode::Deliver(Selection::Domain(NextHop::Domain(Domain::parse("example.org").unwrap())));
    let mut world = World::with(settings(), mode);
    world.domain("example.org", "192.0.2.1");
    let ids: Vec<i64> =
        (0..3).map(|number| world.mail(SENDER, "a@example.org", &format!("{number}"))).collect();
    world.outbox.poisoned.insert(ids[0]);
    world.outbox.unreadable.insert(ids[1]);
    world.run_for(Duration::from_secs(30));
    assert!(world.drained_at.is_some());
    assert_eq!(world.outbox.deleted, [ids[2]]);
}
