//! What is tried because the administrator wants it, and how long mail rests in any case.

use super::*;

impl World {
    /// Returns what followed from the failed attempts of a mail.
    pub(super) fn kinds(&self, id: i64) -> Vec<FailureKind> {
        let kinds = self.events.iter().filter_map(|event| {
            let Event::Failed { id: of, kind, .. } = event else { return None };
            (*of == MailId(id)).then_some(*kind)
        });
        kinds.collect()
    }
}

#[test]
fn an_order_tries_everything_that_is_not_given_up() {
    let mut world = World::new();
    world.domain("example.org", "192.0.2.1");
    let waiting = world.mail(SENDER, "a@example.org", "x");
    world.failed_before(waiting, 4, 10, false);
    world.run();
    assert_eq!(world.outbox.deleted, []);
    world.input(Input::TryNow);
    // A look at the outbox does not undo the order.
    world.run();
    assert_eq!(world.outbox.deleted, [waiting]);
}

#[test]
fn an_early_attempt_that_fails_temporarily_leaves_no_row_and_changes_no_time() {
    let mut world = World::with_brief_connections();
    world.domain("example.org", "192.0.2.1").usual = Behaviour::on("RCPT", "450 4.2.0 later");
    let id = world.mail(SENDER, "a@example.org", "x");
    world.failed_before(id, 4, 1000, false);
    world.run();
    for orders in 1..=10 {
        world.input(Input::TryNow);
        world.run_for(Duration::from_secs(60));
        assert_eq!((world.kinds(id).len(), world.failures(id).len()), (orders, 4));
    }
    assert!(world.kinds(id).iter().all(|kind| *kind == FailureKind::Early));
    assert!(
        world.notes().contains("before its time, which does not count: 450 4.2.0 later"),
        "{}",
        world.notes()
    );
    world.run_for(Duration::from_secs(3600 - 1000 - 600 - 1));
    assert_eq!(world.failures(id).len(), 4, "its time has not come");
    world.run_for(Duration::from_secs(4));
    assert_eq!(world.outbox.replaced[0], id, "the fifth attempt was the last: it is bounced");
}

#[test]
fn a_whole_next_hop_that_fails_early_leaves_no_rows() {
    let mut world = World::with_brief_connections();
    world.exchange("example.org", 10, "mx.example.org", "192.0.2.1").usual =
        Behaviour::connect(Connect::Refused);
    let early = world.mail(SENDER, "a@example.org", "x");
    world.failed_before(early, 1, 10, false);
    world.run();
    let fresh = world.mail(SENDER, "b@example.org", "y");
    world.input(Input::TryNow);
    world.run();
    assert_eq!((world.failures(early).len(), world.failures(fresh).len()), (1, 1));
    assert_eq!(
        (world.kinds(early), world.kinds(fresh)),
        (vec![FailureKind::Early], vec![FailureKind::Temporary])
    );
}

#[test]
fn an_early_attempt_that_fails_for_good_is_recorded() {
    let mut world = World::with_brief_connections();
    world.domain("example.org", "192.0.2.1").usual = Behaviour::on("RCPT", "550 5.1.1 no");
    let id = world.mail(SENDER, "a@example.org", "x");
    world.failed_before(id, 1, 10, false);
    world.run();
    world.input(Input::TryNow);
    world.run();
    assert_eq!(world.kinds(id), [FailureKind::Permanent]);
    assert_eq!(world.outbox.replaced[0], id);
}

#[test]
fn a_malformed_remote_that_is_tried_early_leaves_no_row() {
    let mut world = World::new();
    let id = world.mail_by(Some("host:0"), SENDER, "a@example.org", "x");
    world.failed_before(id, 1, 10, false);
    world.run();
    world.input(Input::TryNow);
    world.run();
    assert_eq!((world.kinds(id), world.failures(id).len()), (vec![FailureKind::Early], 1));
}

#[test]
fn what_fails_although_it_was_due_counts_whatever_was_ordered() {
    let mut world = World::with_brief_connections();
    world.domain("example.org", "192.0.2.1").usual = Behaviour::on("RCPT", "450 4.2.0 later");
    let due = world.mail(SENDER, "a@example.org", "x");
    world.failed_before(due, 1, 3601, false);
    let new = world.mail(SENDER, "b@example.org", "y");
    world.input(Input::TryNow);
    world.run();
    assert_eq!((world.failures(due).len(), world.failures(new).len()), (2, 1));
}

#[test]
fn an_order_reaches_mail_whose_failure_is_just_being_recorded() {
    let mut world = World::with_brief_connections();
    world.domain("example.org", "192.0.2.1").usual = Behaviour::on("RCPT", "450 4.2.0 later");
    let id = world.mail(SENDER, "a@example.org", "x");
    world.slow.insert("commit", Duration::from_secs(10));
    world.input(Input::OutboxChanged);
    world.run_for(Duration::from_secs(5));
    assert_eq!(world.failures(id).len(), 1, "it is recorded, but the answer is still to come");
    world.input(Input::TryNow);
    world.run_for(Duration::from_secs(60));
    assert_eq!(world.kinds(id), [FailureKind::Temporary, FailureKind::Early]);
    world.run();
    assert_eq!(world.failures(id).len(), 1);
    world.run_for(Duration::from_secs(3600));
    assert_eq!(world.failures(id).len(), 2, "it is tried again in its time");
}

#[test]
fn an_order_about_very_much_mail_reaches_all_of_it() {
    let mut world = World::new();
    world.dns_is_dead = true;
    for _ in 0..25_000 {
        let id = world.mail(SENDER, "a@example.org", "x");
        world.failed_before(id, 1, 10, false);
    }
    world.run();
    world.input(Input::TryNow);
    world.run();
    let early = |event: &&Event| matches!(event, Event::Failed { kind: FailureKind::Early, .. });
    assert_eq!(world.events.iter().filter(early).count(), 25_000);
    assert!(world.outbox.mails.values().all(|mail| mail.faillog.len() == 1));
}

#[test]
fn mail_rests_for_a_second_whatever_is_ordered() {
    let mut world = World::with_brief_connections();
    world.domain("example.org", "192.0.2.1").usual = Behaviour::on("RCPT", "450 4.2.0 later");
    let id = world.mail(SENDER, "a@example.org", "x");
    world.failed_before(id, 1, 10, false);
    world.run();
    for _ in 0..100 {
        world.input(Input::TryNow);
        world.run_for(Duration::from_millis(100));
    }
    let attempts = world.kinds(id).len();
    assert!((5..=10).contains(&attempts), "{attempts} attempts in ten seconds");
}

#[test]
fn mail_rests_whatever_becomes_of_its_faillog() {
    let mut world = World::with_brief_connections();
    world.domain("example.org", "192.0.2.1").usual = Behaviour::on("RCPT", "450 4.2.0 later");
    let id = world.mail(SENDER, "a@example.org", "x");
    world.input(Input::OutboxChanged);
    for _ in 0..600 {
        world.run_for(Duration::from_millis(100));
        world.outbox.mails.get_mut(&id).unwrap().faillog.clear();
        world.outbox.data_version += 1;
        world.input(Input::OutboxChanged);
    }
    let attempts = world.kinds(id).len();
    assert!((3..=7).contains(&attempts), "{attempts} attempts in a minute, with an interval of 10 seconds");
}

#[test]
fn mail_that_is_changed_during_its_attempt_rests() {
    let mut world = World::with_brief_connections();
    world.domain("example.org", "192.0.2.1");
    let id = world.mail(SENDER, "a@example.org", "x");
    world.outbox.is_meddled_with = true;
    world.input(Input::OutboxChanged);
    world.run_for(Duration::from_secs(60));
    let sent = world.server("192.0.2.1").accepted.len();
    assert!((3..=7).contains(&sent), "mail {id} was sent {sent} times in a minute");
}

#[test]
fn mail_that_another_program_holds_is_not_tried() {
    let mut world = World::new();
    world.domain("example.org", "192.0.2.1").usual = Behaviour::connect(Connect::Silent);
    let first = world.mail(SENDER, "a@example.org", "x");
    world.input(Input::OutboxChanged);
    world.run_for(Duration::from_secs(1));
    let held = world.mail(SENDER, "b@example.org", "y");
    world.input(Input::OutboxChanged);
    world.run_for(Duration::from_secs(1));
    world.failed_before(held, 1, 0, false);
    world.outbox.data_version += 1;
    world.run();
    assert_eq!((world.failures(first).len(), world.failures(held).len()), (1, 1));
}
