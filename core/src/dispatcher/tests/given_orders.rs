//! Orders of the administrator that are rows of the database.

use super::*;
use crate::order::{ORDER_PART_LIMIT, OrderVerb};

/// All mail of the outbox.
fn all(world: &World) -> Vec<i64> {
    world.outbox.mails.keys().collect()
}

#[test]
fn held_mail_is_neither_tried_nor_given_up_until_it_is_released() {
    let mut world = World::new();
    world.domain("example.org", "192.0.2.1");
    let waits = world.mail(SENDER, "a@example.org", "x");
    world.failed_before(waits, 4, 10, false);
    let failed = world.mail(SENDER, "b@example.org", "y");
    world.failed_before(failed, 4, 10, false);
    let ids = all(&world);
    let hold = world.outbox.order(OrderVerb::Hold, ids.clone());
    world.run();
    assert_eq!(world.outbox.result(hold), Some("2 mails are held"));
    world.failed_before(failed, 1, 10, true);
    world.input(Input::TryNow);
    world.run_for(Duration::from_secs(20_000));
    world.run();
    assert_eq!((world.attempts.len(), world.outbox.mails.len()), (0, 2));
    let release = world.outbox.order(OrderVerb::Release, ids);
    world.run();
    assert_eq!(world.outbox.result(release), Some("2 mails are released"));
    assert_eq!((&*world.outbox.deleted, world.outbox.replaced[0]), (&[waits][..], failed));
}

#[test]
fn a_hold_outlasts_the_dispatcher() {
    let mut world = World::new();
    world.domain("example.org", "192.0.2.1");
    let id = world.mail(SENDER, "a@example.org", "x");
    world.outbox.order(OrderVerb::Hold, [id]);
    world.run();
    world.restart();
    world.run_for(Duration::from_secs(20_000));
    assert_eq!((world.attempts.len(), world.outbox.mails[&id].hold.is_held()), (0, true));
}

#[test]
fn an_order_comes_to_mail_under_way_when_its_attempt_has_ended() {
    let mut world = World::with_brief_connections();
    let slow = Behaviour::on("RCPT", "450 4.2.0 later");
    world.domain("example.org", "192.0.2.1").usual = slow;
    let id = world.mail(SENDER, "a@example.org", "x");
    world.slow.insert("commit", Duration::from_secs(10));
    world.input(Input::OutboxChanged);
    world.run_for(Duration::from_secs(5));
    let drop = world.outbox.order(OrderVerb::Drop, [id]);
    let later = world.outbox.order(OrderVerb::Hold, [id]);
    world.input(Input::OutboxChanged);
    world.run_for(Duration::from_secs(4));
    assert_eq!((world.outbox.result(drop), world.outbox.mails.len()), (None, 1), "it is under way");
    world.run_for(Duration::from_secs(5));
    assert_eq!((world.outbox.result(drop), world.outbox.mails.len()), (Some("1 mail is deleted"), 0));
    let gone = "0 mails are held; 1 other was delivered or given up meanwhile";
    assert_eq!(world.outbox.result(later), Some(gone));
    world.run();
}

#[test]
fn an_order_tells_what_was_delivered_before_it_came_to_it() {
    let mut world = World::with_brief_connections();
    world.domain("example.org", "192.0.2.1");
    let id = world.mail(SENDER, "a@example.org", "x");
    world.slow.insert("claim", Duration::from_secs(10));
    world.input(Input::OutboxChanged);
    world.run_for(Duration::from_secs(5));
    let order = world.outbox.order(OrderVerb::Drop, [id]);
    world.run();
    let gone = "0 mails are deleted; 1 other was delivered or given up meanwhile";
    assert_eq!((world.outbox.result(order), &*world.outbox.deleted), (Some(gone), &[id][..]));
}

#[test]
fn an_order_to_try_now_is_as_the_one_about_everything() {
    let mut world = World::with_brief_connections();
    world.domain("example.org", "192.0.2.1").usual = Behaviour::on("RCPT", "450 4.2.0 later");
    let (wanted, other) =
        (world.mail(SENDER, "a@example.org", "x"), world.mail(SENDER, "b@example.org", "y"));
    for id in [wanted, other] {
        world.failed_before(id, 1, 10, false);
    }
    world.run();
    let order = world.outbox.order(OrderVerb::Retry, [wanted]);
    world.run();
    assert_eq!(world.outbox.result(order), Some("1 mail is tried now"));
    assert_eq!((world.kinds(wanted), world.kinds(other)), (vec![FailureKind::Early], vec![]));
    assert_eq!(world.failures(wanted).len(), 1, "it does not count");
    let order = world.outbox.order(OrderVerb::RetryAnew, [wanted]);
    world.run();
    world.run_for(Duration::from_secs(2));
    assert!(world.outbox.result(order).is_some());
    assert_eq!(world.kinds(wanted), [FailureKind::Early, FailureKind::Temporary]);
    assert_eq!(world.failures(wanted).len(), 1, "it has begun anew");
}

#[test]
fn mail_that_is_to_fail_is_bounced() {
    let mut world = World::new();
    world.dns_is_dead = true;
    let id = world.mail(SENDER, "a@example.org", "x");
    world.outbox.order(OrderVerb::Hold, [id]);
    let order = world.outbox.order(OrderVerb::Fail, [id]);
    world.run_for(Duration::from_secs(1));
    assert_eq!(
        (world.outbox.result(order), &*world.outbox.replaced),
        (Some("1 mail is given up"), &[id][..])
    );
}

#[test]
fn very_much_mail_is_deleted_in_steps_between_which_other_mail_is_delivered() {
    let mut world = World::new();
    world.domain("example.org", "192.0.2.1");
    let unwanted: Vec<i64> = (0..10 * ORDER_PART_LIMIT)
        .map(|_| {
            let id = world.mail(SENDER, "a@example.net", "x");
            world.failed_before(id, 1, 10, false);
            id
        })
        .collect();
    world.run();
    world.slow.insert("step", Duration::from_secs(1));
    let order = world.outbox.order(OrderVerb::Drop, unwanted.clone());
    world.input(Input::OutboxChanged);
    world.run_for(Duration::from_secs(2));
    let wanted = world.mail(SENDER, "b@example.org", "y");
    world.input(Input::OutboxChanged);
    world.run_for(Duration::from_secs(2));
    assert_eq!((world.outbox.result(order), &*world.outbox.deleted), (None, &[wanted][..]));
    world.run();
    assert_eq!(world.outbox.result(order), Some("5000 mails are deleted"));
    assert!(world.outbox.mails.is_empty());
}

#[test]
fn an_order_goes_on_after_a_crash_without_counting_anything_twice() {
    let mut world = World::new();
    let ids: Vec<i64> = (0..5 * ORDER_PART_LIMIT)
        .map(|_| {
            let id = world.mail(SENDER, "a@example.org", "x");
            world.failed_before(id, 1, 10, false);
            id
        })
        .collect();
    world.slow.insert("step", Duration::from_secs(1));
    let order = world.outbox.order(OrderVerb::Hold, ids);
    world.input(Input::OutboxChanged);
    for _ in 0..3 {
        world.run_for(Duration::from_millis(1500));
        world.restart();
    }
    world.run();
    assert_eq!(world.outbox.result(order), Some("2500 mails are held"));
    assert!(world.outbox.mails.values().all(|mail| mail.hold.is_held()));
}

#[test]
fn an_order_that_the_database_refuses_holds_nothing_up_and_is_tried_again() {
    let mut world = World::new();
    world.domain("example.org", "192.0.2.1");
    let (held, other) = (world.mail(SENDER, "a@example.org", "x"), world.mail(SENDER, "b@example.org", "y"));
    world.failed_before(held, 1, 10, false);
    world.failed_before(other, 1, 10, false);
    world.run();
    world.outbox.failing.insert("step", 1);
    let order = world.outbox.order(OrderVerb::Hold, [held]);
    world.input(Input::OutboxChanged);
    world.run_for(Duration::from_secs(1));
    assert_eq!(world.outbox.result(order), None);
    assert!(world.notes().contains("cannot carry out an order, trying again: the database is locked"));
    world.input(Input::TryNow);
    world.run_for(Duration::from_secs(30));
    assert!(world.outbox.result(order).is_some());
    assert_eq!(world.outbox.deleted.len() + world.outbox.mails.len(), 2);
}

#[test]
fn orders_are_carried_out_without_a_daemon_but_for_those_to_try_now() {
    let mut world = World::with(settings(), Mode::CarryOutOrders);
    let (waits, other) = (world.mail(SENDER, "a@example.org", "x"), world.mail(SENDER, "b@example.org", "y"));
    let retry = world.outbox.order(OrderVerb::Retry, [waits]);
    let hold = world.outbox.order(OrderVerb::Hold, [waits]);
    let drop = world.outbox.order(OrderVerb::Drop, [other]);
    world.run();
    assert_eq!(world.outbox.result(retry), None, "it stands");
    assert_eq!(world.outbox.result(hold), Some("1 mail is held"));
    assert_eq!(world.outbox.result(drop), Some("1 mail is deleted"));
    assert_eq!((world.attempts.len(), world.outbox.mails.len()), (0, 1));
}

#[test]
fn no_mail_is_begun_before_the_orders_that_were_given_before_the_start() {
    let mut world = World::new();
    world.domain("example.org", "192.0.2.1");
    for number in 0..2 * ORDER_PART_LIMIT + 500 {
        world.mail(SENDER, &format!("r{number}@example.org"), "x");
    }
    let failed = world.mail(SENDER, "b@example.org", "y");
    world.failed_before(failed, 1, 10, true);
    world.slow.insert("step", Duration::from_secs(5));
    let ids = all(&world);
    // The one to try mail now comes first, and must not be taken for the end.
    let retry = world.outbox.order(OrderVerb::Retry, ids.clone());
    let hold = world.outbox.order(OrderVerb::Hold, ids);
    world.run();
    assert!(world.outbox.result(retry).is_some());
    assert_eq!(world.outbox.result(hold), Some("1501 mails are held"));
    assert_eq!((world.attempts.len(), world.outbox.replaced.len()), (0, 0));
}

#[test]
fn a_locked_database_does_not_make_the_orders_of_before_the_start_come_too_late() {
    let mut world = World::new();
    world.domain("example.org", "192.0.2.1");
    let id = world.mail(SENDER, "a@example.org", "x");
    world.outbox.failing.insert("orders", 3);
    let hold = world.outbox.order(OrderVerb::Hold, [id]);
    world.run_for(Duration::from_secs(10));
    assert_eq!((world.outbox.result(hold), world.attempts.len()), (Some("1 mail is held"), 0));
}

#[test]
fn orders_of_before_the_start_that_cannot_be_read_hold_up_no_mail() {
    for trouble in [StoreTrouble::Other, StoreTrouble::Damaged, StoreTrouble::Impossible, StoreTrouble::Full]
    {
        let mut world = World::new();
        world.domain("example.org", "192.0.2.1");
        let id = world.mail(SENDER, "a@example.org", "x");
        world.outbox.trouble = Some(trouble);
        world.outbox.failing.insert("orders", u32::MAX);
        world.run_for(Duration::from_secs(10));
        assert_eq!(world.outbox.deleted, [id], "{trouble:?}");
    }
}
