//! Limits, and who comes when they are reached.

use super::*;

#[test]
fn a_dead_destination_does_not_delay_another() {
    let mut world = World::new();
    for number in 1..=50 {
        world.domain(&format!("dead{number}.example"), &format!("192.0.3.{number}")).usual =
            Behaviour::connect(Connect::Silent);
        for _ in 0..20 {
            world.mail(SENDER, &format!("a@dead{number}.example"), "x");
        }
    }
    world.domain("live.example", "192.0.2.1");
    world.mail(SENDER, "a@live.example", "x");
    world.input(Input::OutboxChanged);
    world.run_for(Duration::from_secs(1));
    assert_eq!(world.server("192.0.2.1").accepted.len(), 1);
    world.run();
}

#[test]
fn failures_are_recorded_in_turn_where_the_database_is_slow() {
    let mut settings = settings();
    (settings.schedule.retries, settings.schedule.retry_interval_s, settings.interval) =
        (1000, 1, Duration::from_secs(1));
    let mut world = World::with(settings, Mode::Daemon);
    let mut dead = Vec::new();
    for number in 1..=30 {
        world.domain(&format!("dead{number}.example"), &format!("192.0.3.{number}")).usual =
            Behaviour::connect(Connect::Refused);
        dead.push(world.mail(SENDER, &format!("a@dead{number}.example"), "x"));
    }
    world.slow.insert("recall", Duration::from_secs(10));
    world.input(Input::OutboxChanged);
    world.run_for(Duration::from_secs(500));
    let unroutable = world.mail("", "nobody", "x");
    world.input(Input::OutboxChanged);
    world.run_for(Duration::from_secs(500));
    let attempts: Vec<usize> = dead.iter().map(|&id| world.failures(id).len()).collect();
    let (least, most) = (attempts.iter().min().unwrap(), attempts.iter().max().unwrap());
    assert!(*least >= 2 && most - least <= 1, "{attempts:?}");
    assert!(!world.outbox.mails.contains_key(&unroutable));
}

#[test]
fn the_limits_of_connections_are_never_exceeded() {
    let mut settings = settings();
    (settings.concurrency, settings.policy.concurrency) = (7, 3);
    let mut world = World::with(settings, Mode::Daemon);
    for number in 1..=5 {
        // Each answer to the end of data takes so long that further connections seem worth it.
        world.domain(&format!("d{number}.example"), &format!("192.0.2.{number}"));
        for text in 0..300 {
            world.mail(SENDER, &format!("a@d{number}.example"), &format!("{text}"));
        }
    }
    world.run();
    assert_eq!(world.outbox.deleted.len(), 1500);
    assert!(world.most_open <= 7, "{}", world.most_open);
    assert!(world.servers.values().all(|server| server.most_open <= 3));
    assert!(world.servers.values().any(|server| server.most_open > 1));
}

#[test]
fn everybody_gets_a_connection_when_they_are_scarce() {
    let mut settings = settings();
    settings.concurrency = 1;
    let mut world = World::with(settings, Mode::Daemon);
    world.domain("big.example", "192.0.2.1");
    world.domain("small.example", "192.0.2.2");
    for text in 0..1000 {
        world.mail(SENDER, "a@big.example", &format!("{text}"));
    }
    world.mail(SENDER, "a@small.example", "x");
    world.input(Input::OutboxChanged);
    while world.server("192.0.2.2").accepted.is_empty() {
        world.run_for(Duration::from_millis(10));
        assert!(world.server("192.0.2.1").accepted.len() <= 200);
    }
    world.run();
    assert!(world.outbox.mails.is_empty());
}

#[test]
fn a_few_mails_go_over_one_connection_and_a_backlog_over_several() {
    let mut world = World::new();
    world.domain("few.example", "192.0.2.1");
    world.domain("many.example", "192.0.2.2");
    for text in 0..4 {
        world.mail(SENDER, "a@few.example", &format!("{text}"));
    }
    for text in 0..2000 {
        world.mail(SENDER, "a@many.example", &format!("{text}"));
    }
    world.run();
    assert_eq!(world.server("192.0.2.1").connections, 1);
    assert_eq!(world.server("192.0.2.2").most_open, 10);
}

#[test]
fn nobody_looks_for_further_connections_while_no_mail_waits() {
    let mut world = World::new();
    world.domain("example.org", "192.0.2.1").usual = Behaviour::on("MAIL", "hang");
    world.mail(SENDER, "a@example.org", "x");
    world.input(Input::OutboxChanged);
    world.run_for(Duration::from_secs(100));
    assert!(world.timeouts < 20, "{}", world.timeouts);
    world.run();
}

#[test]
fn a_destination_that_accepts_and_never_answers_holds_at_most_its_share() {
    for hangs_at in ["greeting", "EHLO", "MAIL", "DATA", "."] {
        let mut settings = settings();
        (settings.concurrency, settings.policy.concurrency) = (10, 4);
        let mut world = World::with(settings, Mode::Daemon);
        world.domain("mute.example", "192.0.2.1").usual = Behaviour::on(hangs_at, "hang");
        world.domain("live.example", "192.0.2.2");
        for text in 0..500 {
            world.mail(SENDER, "a@mute.example", &format!("{text}"));
            world.mail(SENDER, "a@live.example", &format!("{text}"));
        }
        world.input(Input::OutboxChanged);
        world.run_for(Duration::from_secs(10));
        assert_eq!(world.server("192.0.2.2").accepted.len(), 500, "mute at {hangs_at}");
        assert!(world.server("192.0.2.1").most_open <= 4, "mute at {hangs_at}");
    }
}

#[test]
fn a_long_queue_for_a_dead_destination_costs_the_others_nothing() {
    let mut world = World::new();
    world.domain("dead.example", "192.0.2.1").usual = Behaviour::connect(Connect::Silent);
    world.domain("live.example", "192.0.2.2");
    for _ in 0..50_000 {
        world.mail(SENDER, "a@dead.example", "x");
    }
    world.mail(SENDER, "a@live.example", "x");
    world.input(Input::OutboxChanged);
    world.run_for(Duration::from_secs(1));
    assert_eq!(world.server("192.0.2.2").accepted.len(), 1);
    let open = world.dispatcher.books.store.requests.len();
    assert!(open <= 2, "nothing is read for mail that goes nowhere: {open}");
    // The failures of all are recorded, and meanwhile others get their mail too.
    world.run_for(Duration::from_millis(29_100));
    world.mail(SENDER, "b@live.example", "x");
    world.input(Input::OutboxChanged);
    world.run_for(Duration::from_secs(1));
    assert_eq!(world.server("192.0.2.2").accepted.len(), 2);
    world.run_for(Duration::from_secs(30));
    let failed = world.outbox.mails.values().filter(|mail| mail.faillog.len() == 1).count();
    assert_eq!(failed, 50_000);
    assert_eq!(world.server("192.0.2.1").connections, 1, "one attempt for all of them");
}

#[test]
fn the_rate_limit_paces_each_destination_on_its_own() {
    let mut settings = settings();
    settings.policy.rate_limit = Some(RateLimit { transactions: 10, per: Duration::from_secs(1) });
    let mut world = World::with(settings, Mode::Daemon);
    world.domain("a.example", "192.0.2.1");
    world.domain("b.example", "192.0.2.2");
    for text in 0..60 {
        world.mail(SENDER, "a@a.example", &format!("{text}"));
    }
    for text in 0..10 {
        world.mail(SENDER, "a@b.example", &format!("{text}"));
    }
    world.input(Input::OutboxChanged);
    world.run_for(Duration::from_secs(1));
    assert_eq!(world.server("192.0.2.2").accepted.len(), 10);
    let taken = world.server("192.0.2.1").accepted.len();
    assert!((17..=20).contains(&taken), "{taken}");
    world.run_for(Duration::from_secs(5));
    assert_eq!(world.server("192.0.2.1").accepted.len(), 60);
    world.run();
}

#[test]
fn a_slow_rate_keeps_no_connection_open() {
    let mut settings = settings();
    settings.policy.rate_limit = Some(RateLimit { transactions: 2, per: Duration::from_secs(60) });
    let mut world = World::with(settings, Mode::Daemon);
    world.domain("a.example", "192.0.2.1");
    for text in 0..5 {
        world.mail(SENDER, "a@a.example", &format!("{text}"));
    }
    world.input(Input::OutboxChanged);
    world.run_for(Duration::from_secs(29));
    let server = world.server("192.0.2.1");
    assert_eq!((server.accepted.len(), server.open.len()), (1, 0));
    world.run_for(Duration::from_secs(100));
    assert_eq!(world.outbox.deleted.len(), 5);
    assert!(world.timeouts < 1000);
}

#[test]
fn a_connection_that_ends_while_the_rate_holds_it_back_harms_no_other() {
    let mut settings = settings();
    settings.policy.rate_limit = Some(RateLimit { transactions: 1, per: Duration::from_secs(1) });
    let mut world = World::with(settings, Mode::Daemon);
    let server = world.domain("a.example", "192.0.2.1");
    // The reply to the end of data is followed by a good-bye.
    server.usual = Behaviour::on(".", "250 ok\r\n421 enough");
    for text in 0..5 {
        world.mail(SENDER, "a@a.example", &format!("{text}"));
    }
    world.run();
    assert_eq!(world.outbox.deleted.len(), 5);
    let last = world.now.monotonic.as_micros();
    assert!(last < 8_000_000, "no turn is wasted: {last}");
}
