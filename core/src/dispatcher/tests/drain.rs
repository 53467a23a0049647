//! Coming to an end.

use super::*;

/// Asks for the drain after `before` and returns how long it took.
fn drain_after(world: &mut World, before: Duration) -> Duration {
    world.input(Input::OutboxChanged);
    world.run_for(before);
    let begin = world.now.monotonic;
    world.input(Input::Drain);
    world.run_for(Duration::from_secs(6));
    let end = world.drained_at.expect("the drain must come to its end");
    assert_eq!(world.dispatcher.poll_timeout(), None);
    world.assert_clean();
    end.saturating_duration_since(begin)
}

#[test]
fn an_idle_dispatcher_is_drained_at_once() {
    let mut world = World::new();
    world.run();
    assert_eq!(drain_after(&mut world, Duration::ZERO), Duration::ZERO);
}

#[test]
fn a_drain_ends_everything_in_every_phase_without_recording_failures() {
    for command in ["greeting", "EHLO", "MAIL", "RCPT", "DATA", "."] {
        let mut world = World::new();
        world.domain("example.org", "192.0.2.1").usual = Behaviour::on(command, "hang");
        for number in 0..5 {
            world.mail(SENDER, "a@example.org", &format!("{number}"));
        }
        let took = drain_after(&mut world, Duration::from_secs(1));
        assert!(took <= Duration::from_secs(5), "{command}: {took:?}");
        assert_eq!(world.outbox.mails.len(), 5);
        assert!(world.outbox.mails.values().all(|mail| mail.faillog.is_empty()), "{command}");
    }
}

#[test]
fn a_running_transaction_is_finished_and_said_good_bye_to() {
    let mut world = World::new();
    world.domain("example.org", "192.0.2.1");
    for number in 0..500 {
        world.mail(SENDER, "a@example.org", &format!("{number}"));
    }
    drain_after(&mut world, Duration::from_millis(50));
    let server = world.server("192.0.2.1");
    let (taken, connections, quits) = (server.accepted.len(), server.connections, server.count("QUIT"));
    assert!(taken > 0 && taken < 500, "{taken}");
    assert_eq!(u32::try_from(quits).unwrap(), connections);
    assert_eq!(world.outbox.deleted.len(), taken);
    assert_eq!(world.outbox.mails.len(), 500 - taken);
}

#[test]
fn lookups_and_connections_that_are_only_begun_are_dropped_at_once() {
    let mut world = World::new();
    world.dns_is_dead = true;
    world.mail(SENDER, "a@example.org", "x");
    world.server("192.0.2.9").usual = Behaviour::connect(Connect::Silent);
    world.mail(SENDER, "a@[192.0.2.9]", "x");
    assert_eq!(drain_after(&mut world, Duration::from_secs(1)), Duration::ZERO);
}

#[test]
fn work_that_is_claimed_when_the_drain_comes_is_not_begun() {
    let mut world = World::new();
    world.slow.insert("claim", Duration::from_millis(100));
    world.domain("example.org", "192.0.2.1");
    world.mail(SENDER, "a@example.org", "x");
    drain_after(&mut world, Duration::from_millis(50));
    let server = world.server("192.0.2.1");
    assert_eq!((server.count("MAIL"), server.count("QUIT")), (0, 1));
}

#[test]
fn verdicts_are_recorded_before_the_end() {
    let mut world = World::new();
    world.slow.insert("commit", Duration::from_secs(2));
    world.domain("example.org", "192.0.2.1");
    let id = world.mail(SENDER, "a@example.org", "x");
    let took = drain_after(&mut world, Duration::from_millis(100));
    assert!(took > Duration::from_secs(1));
    assert_eq!(world.outbox.deleted, [id]);
}

#[test]
fn a_database_that_does_not_answer_holds_nobody_for_more_than_5_seconds() {
    let mut world = World::new();
    world.slow.insert("commit", Duration::from_secs(4));
    world.outbox.failing.insert("commit", 1000);
    world.domain("example.org", "192.0.2.1");
    let id = world.mail(SENDER, "a@example.org", "x");
    let took = drain_after(&mut world, Duration::from_millis(100));
    // What is left of the 5 s is for the driver.
    assert_eq!(took, Duration::from_millis(4750));
    assert!(world.timeouts < 100);
    let named = format!("the database has not recorded it; those still in it will be sent again: {id}");
    assert!(world.notes().contains(&named), "{}", world.notes());
}

#[test]
fn a_database_that_comes_to_itself_late_still_records_what_was_delivered() {
    let mut world = World::new();
    world.outbox.failing.insert("commit", 14);
    world.domain("example.org", "192.0.2.1");
    let id = world.mail(SENDER, "a@example.org", "x");
    let took = drain_after(&mut world, Duration::from_millis(100));
    assert!(took < Duration::from_millis(4750), "{took:?}");
    assert_eq!(world.outbox.deleted, [id]);
}
