//! Settings that change while mail is under way.

use super::*;
use crate::outbox::FaillogRow;

/// A world in which nothing is slow, with mail for one destination.
fn world(settings: Settings, mails: usize) -> World {
    let mut world = World::with(settings, Mode::Daemon);
    world.domain("example.org", "192.0.2.1");
    for text in 0..mails {
        world.mail(SENDER, "a@example.org", &format!("{text}"));
    }
    world.input(Input::OutboxChanged);
    world
}

/// The administrator changes something.
fn change(world: &mut World, change: impl FnOnce(&mut Settings)) {
    let mut settings = world.dispatcher.books.config.settings.clone();
    change(&mut settings);
    world.input(Input::Settings(Box::new(settings)));
}

/// Runs until so many connections are open.
fn run_until_open(world: &mut World, connections: usize) {
    for _ in 0..100_000 {
        if world.server("192.0.2.1").open.len() == connections {
            return;
        }
        world.run_for(Duration::from_millis(1));
    }
    panic!("there are never {connections} connections, but {}", world.server("192.0.2.1").open.len());
}

/// Runs for a while, and returns how many connections were open at most.
fn most_open_within(world: &mut World, span: Duration) -> usize {
    let server = world.server("192.0.2.1");
    server.most_open = server.open.len();
    world.run_for(span);
    world.server("192.0.2.1").most_open
}

#[test]
fn a_lowered_limit_of_connections_ends_as_many_as_are_too_many() {
    for lower in [
        (|settings| settings.concurrency = 3) as fn(&mut Settings),
        |settings| settings.policy.host_concurrency = 3,
        |settings| settings.policy.concurrency = 3,
    ] {
        let mut world = world(settings(), 8_000);
        run_until_open(&mut world, 10);
        change(&mut world, lower);
        run_until_open(&mut world, 3);
        assert_eq!(most_open_within(&mut world, Duration::from_secs(2)), 3);
        let server = world.server("192.0.2.1");
        assert!(server.count("QUIT") >= 7, "each ends politely");
        world.run();
        assert_eq!(world.outbox.deleted.len(), 8_000);
        assert!(!world.events.iter().any(|event| matches!(event, Event::Failed { .. })));
    }
}

#[test]
fn a_lowered_limit_spares_the_connections_that_it_leaves() {
    for lower in [(|settings| settings.concurrency = 6) as fn(&mut Settings), |settings| {
        settings.policy.host_concurrency = 6
    }] {
        let mut world = world(settings(), 8_000);
        run_until_open(&mut world, 10);
        let before = world.server("192.0.2.1").connections;
        change(&mut world, lower);
        run_until_open(&mut world, 6);
        world.run_for(Duration::from_secs(1));
        assert_eq!(world.server("192.0.2.1").connections, before, "none was opened anew");
    }
}

#[test]
fn a_lowered_limit_ends_connections_without_work_at_once() {
    for lower in [
        (|settings| settings.concurrency = 2) as fn(&mut Settings),
        |settings| settings.policy.host_concurrency = 2,
        |settings| settings.policy.concurrency = 2,
    ] {
        let mut world = world(
            Settings { policy: Policy { idle: Duration::from_secs(600), ..settings().policy }, ..settings() },
            5000,
        );
        run_until_open(&mut world, 10);
        world.run_for(Duration::from_secs(30));
        assert_eq!((world.outbox.mails.len(), world.server("192.0.2.1").open.len()), (0, 10));
        change(&mut world, lower);
        world.run_for(Duration::from_millis(100));
        assert_eq!(world.server("192.0.2.1").open.len(), 2);
    }
}

#[test]
fn a_connection_rests_no_longer_than_is_configured_now() {
    let mut world = world(
        Settings { policy: Policy { idle: Duration::from_secs(600), ..settings().policy }, ..settings() },
        1,
    );
    world.run_for(Duration::from_secs(100));
    assert_eq!(world.server("192.0.2.1").open.len(), 1);
    change(&mut world, |settings| settings.policy.idle = Duration::from_secs(5));
    world.run_for(Duration::from_secs(4));
    assert_eq!(world.server("192.0.2.1").open.len(), 1);
    world.run_for(Duration::from_secs(2));
    assert_eq!(world.server("192.0.2.1").open.len(), 0);
}

#[test]
fn a_raised_limit_lets_those_in_who_wait() {
    for (before, raise) in [
        (
            Settings { concurrency: 1, ..settings() },
            (|settings| settings.concurrency = 5) as fn(&mut Settings),
        ),
        (
            Settings { policy: Policy { host_concurrency: 1, ..settings().policy }, ..settings() },
            |settings| settings.policy.host_concurrency = 5,
        ),
        (Settings { policy: Policy { concurrency: 1, ..settings().policy }, ..settings() }, |settings| {
            settings.policy.concurrency = 5
        }),
    ] {
        let mut world = world(before, 8_000);
        assert_eq!(most_open_within(&mut world, Duration::from_secs(2)), 1);
        change(&mut world, raise);
        run_until_open(&mut world, 5);
    }
}

#[test]
fn a_destination_that_waits_for_its_host_is_let_in_by_a_higher_limit() {
    let mut world = World::with(
        Settings { policy: Policy { host_concurrency: 1, ..settings().policy }, ..settings() },
        Mode::Daemon,
    );
    world.domain("one.example", "192.0.2.1").usual = Behaviour::on("DATA", "hang");
    world.domain("two.example", "192.0.2.1");
    world.mail(SENDER, "a@one.example", "x");
    world.mail(SENDER, "a@two.example", "x");
    world.input(Input::OutboxChanged);
    world.run_for(Duration::from_secs(5));
    assert_eq!(world.server("192.0.2.1").connections, 1);
    change(&mut world, |settings| settings.policy.host_concurrency = 2);
    world.run_for(Duration::from_secs(1));
    assert_eq!(world.server("192.0.2.1").connections, 2);
}

#[test]
fn mail_that_waits_goes_by_the_new_retry_interval_and_is_not_tried_early() {
    let settings =
        Settings { schedule: Schedule { retry_interval_s: 3600, ..Schedule::default() }, ..settings() };
    let mut world = World::with(settings, Mode::Daemon);
    world.domain("example.org", "192.0.2.1");
    let id = world.mail(SENDER, "a@example.org", "x");
    world.failed_before(id, 1, 100, false);
    world.input(Input::OutboxChanged);
    world.run_for(Duration::from_secs(30));
    assert_eq!(world.server("192.0.2.1").connections, 0);
    // It is 130 s old.
    change(&mut world, |settings| settings.schedule.retry_interval_s = 200);
    world.run_for(Duration::from_secs(60));
    assert_eq!(world.server("192.0.2.1").connections, 0, "not before its time");
    world.run_for(Duration::from_secs(15));
    assert_eq!(world.server("192.0.2.1").accepted.len(), 1);
}

#[test]
fn mail_whose_time_comes_by_the_old_rule_waits_for_the_new_one() {
    let mut world = World::with(
        Settings { schedule: Schedule { retry_interval_s: 10, ..Schedule::default() }, ..settings() },
        Mode::Daemon,
    );
    world.domain("example.org", "192.0.2.1");
    let id = world.mail(SENDER, "a@example.org", "x");
    world.failed_before(id, 1, 5, false);
    world.input(Input::OutboxChanged);
    world.run_for(Duration::from_secs(1));
    change(&mut world, |settings| settings.schedule.retry_interval_s = 100);
    world.run_for(Duration::from_secs(90));
    assert_eq!(world.server("192.0.2.1").accepted.len(), 0);
    world.run_for(Duration::from_secs(10));
    assert_eq!(world.server("192.0.2.1").accepted.len(), 1);
}

#[test]
fn lowered_retries_give_up_mail_that_waits_and_raised_ones_try_it_again() {
    for (before, after, is_given_up) in [(5, 2, true), (2, 5, false)] {
        let settings = Settings {
            schedule: Schedule { retries: before, retry_interval_s: 1000, ..Schedule::default() },
            interval: Duration::from_secs(10),
            ..settings()
        };
        let mut world = World::with(settings, Mode::Daemon);
        world.domain("example.org", "192.0.2.1");
        // It cannot be bounced yet where it is given up already.
        world.slow.insert("failed", Duration::from_secs(60));
        let id = world.mail(SENDER, "a@example.org", "x");
        world.failed_before(id, 3, 2000 * i64::from(!is_given_up) + 100, false);
        world.input(Input::OutboxChanged);
        world.run_for(Duration::from_secs(30));
        assert!(world.outbox.mails.contains_key(&id));
        change(&mut world, |settings| settings.schedule.retries = after);
        world.run_for(Duration::from_secs(200));
        assert_eq!(world.outbox.replaced.contains(&id), is_given_up);
        assert_eq!(world.server("192.0.2.1").accepted.len(), usize::from(!is_given_up));
    }
}

#[test]
fn a_shorter_interval_of_looks_begins_at_once() {
    let mut world = world(Settings { interval: Duration::from_secs(86_400), ..settings() }, 1);
    world.run_for(Duration::from_secs(60));
    world.mail(SENDER, "b@example.org", "y");
    world.run_for(Duration::from_secs(60));
    assert_eq!(world.server("192.0.2.1").accepted.len(), 1, "nobody has told of it");
    change(&mut world, |settings| settings.interval = Duration::from_secs(10));
    world.run_for(Duration::from_secs(11));
    assert_eq!(world.server("192.0.2.1").accepted.len(), 2);
}

#[test]
fn other_ports_are_used_from_the_next_message_on() {
    let mut world =
        world(Settings { policy: Policy { concurrency: 1, ..settings().policy }, ..settings() }, 2000);
    run_until_open(&mut world, 1);
    world.run_for(Duration::from_millis(200));
    world.server("192.0.2.1:2525");
    change(&mut world, |settings| {
        settings.policy.ports = [Port { number: 2525, tls: TlsMode::Plain }].into()
    });
    world.run_for(Duration::from_millis(100));
    assert!(world.server("192.0.2.1").open.is_empty());
    let taken = world.server("192.0.2.1").accepted.len();
    assert!((1..2000).contains(&taken), "{taken}");
    world.run();
    assert_eq!(world.server("192.0.2.1:2525").accepted.len(), 2000 - taken);
    assert!(!world.events.iter().any(|event| matches!(event, Event::Failed { .. })));
}

#[test]
fn another_name_is_announced_at_once_and_in_bounces() {
    let mut world = world(settings(), 1);
    world.run_for(Duration::from_secs(1));
    change(&mut world, |settings| {
        settings.announce = "new.example".into();
        settings.bounces.from = "help@new.example".into();
    });
    world.domain("example.net", "192.0.2.2").usual = Behaviour::on("RCPT", "550 no");
    world.domain("sender.example", "192.0.2.3");
    world.mail("s@sender.example", "a@example.org", "second");
    world.mail("s@sender.example", "a@example.net", "third");
    world.run();
    assert_eq!(
        world.server("192.0.2.1").count("EHLO new.example"),
        1,
        "{:?}",
        world.server("192.0.2.1").commands
    );
    let bounce = &world.server("192.0.2.3").accepted[0].data;
    assert!(
        bounce.contains("help@new.example") && bounce.contains("Reporting-MTA: dns; new.example"),
        "{bounce}"
    );
}

#[test]
fn a_rate_limit_that_is_lifted_keeps_nobody_waiting() {
    let hour = RateLimit { transactions: 1, per: Duration::from_secs(3600) };
    for after in [None, Some(RateLimit { transactions: 100, per: Duration::from_secs(1) })] {
        let mut world = world(
            Settings { policy: Policy { rate_limit: Some(hour), ..settings().policy }, ..settings() },
            5,
        );
        world.run_for(Duration::from_secs(60));
        assert_eq!(world.server("192.0.2.1").accepted.len(), 1);
        change(&mut world, |settings| settings.policy.rate_limit = after);
        world.run_for(Duration::from_secs(1));
        assert_eq!(world.server("192.0.2.1").accepted.len(), 5);
    }
}

#[test]
fn a_pause_for_a_server_lasts_no_longer_than_the_new_retry_interval() {
    let mut world = world(settings(), 0);
    let server = world.server("192.0.2.1");
    server.next.push_back(Behaviour::default().times("MAIL", "250 ok", 1).and("MAIL", "421 enough"));
    server.usual = Behaviour::on("MAIL", "421 enough");
    for text in 0..50 {
        world.mail(SENDER, "a@example.org", &format!("{text}"));
    }
    world.input(Input::OutboxChanged);
    world.run_for(Duration::from_secs(20));
    let connections = world.server("192.0.2.1").connections;
    world.run_for(Duration::from_secs(10));
    assert_eq!(world.server("192.0.2.1").connections, connections, "it is left alone for a minute");
    change(&mut world, |settings| settings.schedule.retry_interval_s = 5);
    world.run_for(Duration::from_secs(7));
    assert!(world.server("192.0.2.1").connections > connections);
}

#[test]
fn an_order_to_change_nothing_changes_nothing() {
    let mut world = world(settings(), 5000);
    run_until_open(&mut world, 10);
    let commands = world.server("192.0.2.1").count("QUIT");
    change(&mut world, |_| {});
    world.run_for(Duration::from_millis(200));
    assert_eq!(world.server("192.0.2.1").count("QUIT"), commands);
    world.run();
    assert_eq!(world.outbox.deleted.len(), 5000);
}

#[test]
fn a_verdict_that_is_under_way_counts_by_the_rules_that_hold_when_it_is_recorded() {
    let mut world = World::with(
        Settings { schedule: Schedule { retries: 1, ..Schedule::default() }, ..settings() },
        Mode::Daemon,
    );
    world.domain("example.org", "192.0.2.1").usual = Behaviour::on("RCPT", "450 later");
    world.slow.insert("commit", Duration::from_secs(5));
    let id = world.mail(SENDER, "a@example.org", "x");
    world.input(Input::OutboxChanged);
    world.run_for(Duration::from_secs(2));
    change(&mut world, |settings| settings.schedule.retries = 2);
    world.run_for(Duration::from_secs(30));
    let attempts: &[FaillogRow] = &world.outbox.mails[&id].faillog;
    assert_eq!(attempts.len(), 1, "it is not given up");
}
