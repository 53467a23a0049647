//! Connections that are kept without work.

use super::*;

fn world(connection_idle_s: u64) -> World {
    let idle = Duration::from_secs(connection_idle_s);
    World::with(Settings { policy: Policy { idle, ..settings().policy }, ..settings() }, Mode::Daemon)
}

/// Mails come one by one, at this distance.
fn trickle(world: &mut World, count: usize, distance: Duration) {
    for number in 0..count {
        world.mail(SENDER, "a@example.org", &format!("{number}"));
        world.input(Input::OutboxChanged);
        world.run_for(distance);
    }
}

#[test]
fn mails_that_come_one_by_one_go_over_one_connection() {
    let mut world = world(5);
    world.domain("example.org", "192.0.2.1");
    trickle(&mut world, 10, Duration::from_secs(4));
    let server = world.server("192.0.2.1");
    assert_eq!((server.connections, server.accepted.len(), server.count("QUIT")), (1, 10, 0));
    world.run_for(Duration::from_secs(2));
    let server = world.server("192.0.2.1");
    assert_eq!((server.count("QUIT"), server.open.len()), (1, 0), "5 s after the last mail");
    world.assert_clean();
}

#[test]
fn a_connection_is_not_kept_where_that_is_not_wanted() {
    let mut world = world(0);
    world.domain("example.org", "192.0.2.1");
    trickle(&mut world, 2, Duration::from_secs(1));
    let server = world.server("192.0.2.1");
    assert_eq!((server.connections, server.count("QUIT")), (2, 2));
}

#[test]
fn a_single_pass_keeps_no_connection() {
    let hop = NextHop::Domain(Domain::parse("example.org").unwrap());
    let mut world = World::with(settings(), Mode::Deliver(Selection::Domain(hop)));
    world.domain("example.org", "192.0.2.1");
    world.mail(SENDER, "a@example.org", "x");
    let begin = world.now.monotonic;
    world.run();
    assert!(world.drained_at.unwrap().saturating_duration_since(begin) < Duration::from_secs(1));
    assert_eq!(world.server("192.0.2.1").count("QUIT"), 1);
}

#[test]
fn a_drain_ends_idle_connections_at_once() {
    let mut world = world(300);
    world.domain("example.org", "192.0.2.1");
    trickle(&mut world, 1, Duration::from_secs(1));
    assert_eq!(world.server("192.0.2.1").open.len(), 1);
    let begin = world.now.monotonic;
    world.input(Input::Drain);
    world.run();
    assert!(world.drained_at.unwrap().saturating_duration_since(begin) < Duration::from_millis(100));
    assert_eq!(world.server("192.0.2.1").count("QUIT"), 1);
}

#[test]
fn an_idle_connection_makes_room_for_another_destination() {
    let mut settings =
        Settings { policy: Policy { idle: Duration::from_secs(300), ..settings().policy }, ..settings() };
    settings.concurrency = 2;
    let mut world = World::with(settings, Mode::Daemon);
    for number in 1..=4 {
        world.domain(&format!("d{number}.example"), &format!("192.0.2.{number}"));
    }
    for number in 1..=4 {
        world.mail(SENDER, &format!("a@d{number}.example"), "x");
        world.input(Input::OutboxChanged);
        world.run_for(Duration::from_millis(500));
        assert_eq!(world.outbox.deleted.len(), number, "it does not wait for long");
    }
    assert!(world.most_open <= 2);
    let open = |at: &str| world.servers[&world::address(at)].open.len();
    assert_eq!(
        ["192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.2.4"].map(open),
        [0, 0, 1, 1],
        "the oldest went"
    );
}

#[test]
fn mail_that_has_an_idle_connection_takes_no_other_ones_place() {
    let mut settings =
        Settings { policy: Policy { idle: Duration::from_secs(300), ..settings().policy }, ..settings() };
    settings.concurrency = 2;
    let mut world = World::with(settings, Mode::Daemon);
    for number in 1..=2 {
        world.domain(&format!("d{number}.example"), &format!("192.0.2.{number}"));
    }
    for number in [1, 2, 2, 1, 2, 1, 2, 1] {
        world.mail(SENDER, &format!("a@d{number}.example"), "x");
        world.input(Input::OutboxChanged);
        world.run_for(Duration::from_millis(500));
    }
    assert_eq!(world.outbox.deleted.len(), 8);
    let connections = |at: &str| world.servers[&world::address(at)].connections;
    assert_eq!(["192.0.2.1", "192.0.2.2"].map(connections), [1, 1]);
}

#[test]
fn a_server_that_ends_an_idle_connection_harms_no_mail() {
    for farewell in ["250 ok\r\n421 4.4.2 idle", "250 ok\r\n250 what?"] {
        let mut world = world(300);
        world.domain("example.org", "192.0.2.1").usual = Behaviour::on(".", farewell);
        trickle(&mut world, 2, Duration::from_secs(1));
        let server = world.server("192.0.2.1");
        assert_eq!((server.connections, server.accepted.len()), (2, 2), "{farewell}");
        assert_eq!(world.outbox.deleted.len(), 2);
        world.assert_clean();
    }
}

#[test]
fn a_connection_that_is_lost_when_it_is_needed_again_is_made_anew_in_the_same_pass() {
    for ending in ["drop", "421 4.4.2 too late"] {
        let mut world = world(300);
        world.exchange("example.org", 20, "backup.example", "192.0.2.9");
        let server = world.domain("example.org", "192.0.2.1");
        server.usual = Behaviour::default().times("MAIL", "250 ok", 1).and("MAIL", ending);
        trickle(&mut world, 3, Duration::from_secs(1));
        let server = world.server("192.0.2.1");
        assert_eq!((server.connections, server.accepted.len()), (3, 3), "{ending}");
        assert_eq!(world.server("192.0.2.9").connections, 0, "it is not the server's fault");
        assert!(world.outbox.mails.is_empty());
    }
}

#[test]
fn mail_fails_only_after_each_server_was_tried_for_it() {
    let mut world = world(300);
    let first = world.exchange("example.org", 10, "first.example", "192.0.2.1");
    // The port is tried with and without STARTTLS.
    first.next = vec![Behaviour::on("greeting", "451 not now"); 2].into();
    let backup = world.exchange("example.org", 20, "backup.example", "192.0.2.2");
    backup.usual = Behaviour::default().times("MAIL", "250 ok", 1).and("MAIL", "drop");
    backup.next.push_back(backup.usual.clone());
    backup.usual = Behaviour::on("greeting", "554 gone");
    trickle(&mut world, 2, Duration::from_secs(1));
    assert_eq!(world.server("192.0.2.2").accepted.len(), 1);
    assert_eq!(world.server("192.0.2.1").accepted.len(), 1, "what was before says nothing of now");
    assert!(world.outbox.mails.is_empty());
}

#[test]
fn a_preferred_server_that_is_back_gets_its_mail_again() {
    let mut world = world(300);
    let first = world.exchange("example.org", 10, "first.example", "192.0.2.1");
    // The port is tried with and without STARTTLS.
    first.next = vec![Behaviour::on("greeting", "451 not now"); 2].into();
    world.exchange("example.org", 20, "backup.example", "192.0.2.2");
    trickle(&mut world, 12, Duration::from_secs(60));
    assert!(world.server("192.0.2.1").accepted.len() >= 5, "the backup is not kept for ever");
    assert!(world.server("192.0.2.2").accepted.len() >= 3, "but for a while");
}
