//! Servers that do not answer, and servers that many destinations have in common.

use super::*;

const HOUR: Duration = Duration::from_secs(3600);

/// Many domains that all have their mail at one address.
fn hosted(world: &mut World, domains: usize, mails: usize, at: &str) {
    for number in 0..domains {
        world.domain(&format!("d{number}.example"), at);
        for text in 0..mails {
            world.mail(SENDER, &format!("a@d{number}.example"), &format!("{text}"));
        }
    }
}

fn attempts_at(world: &World, remote: &str) -> usize {
    let remote = world::address(remote);
    world.attempts.iter().filter(|(_, to)| *to == remote).count()
}

#[test]
fn many_domains_do_not_exceed_the_connections_that_one_host_is_given() {
    let mut settings = settings();
    settings.policy.host_concurrency = 4;
    let mut world = World::with(settings, Mode::Daemon);
    hosted(&mut world, 25, 40, "192.0.2.1");
    world.run();
    let server = world.server("192.0.2.1");
    assert_eq!((server.most_open, server.accepted.len()), (4, 1000));
}

#[test]
fn everybody_gets_a_turn_at_a_host_that_many_have_in_common() {
    let mut settings = settings();
    settings.policy.host_concurrency = 2;
    let mut world = World::with(settings, Mode::Daemon);
    hosted(&mut world, 2, 1000, "192.0.2.1");
    world.domain("small.example", "192.0.2.1");
    world.input(Input::OutboxChanged);
    world.run_for(Duration::from_millis(300));
    world.mail(SENDER, "a@small.example", "x");
    world.input(Input::OutboxChanged);
    let is_taken = |world: &World| {
        world.servers[&world::address("192.0.2.1")]
            .accepted
            .iter()
            .any(|message| message.to == ["a@small.example"])
    };
    let before = world.server("192.0.2.1").accepted.len();
    while !is_taken(&world) {
        world.run_for(Duration::from_millis(10));
        assert!(world.server("192.0.2.1").accepted.len() < before + 400);
    }
    world.run();
    assert!(world.outbox.mails.is_empty());
}

#[test]
fn an_idle_connection_makes_room_at_its_host() {
    let mut settings = Settings { policy: Policy { idle: HOUR, ..settings().policy }, ..settings() };
    settings.policy.host_concurrency = 1;
    let mut world = World::with(settings, Mode::Daemon);
    for number in 0..3 {
        world.domain(&format!("d{number}.example"), "192.0.2.1");
        world.mail(SENDER, &format!("a@d{number}.example"), "x");
        world.input(Input::OutboxChanged);
        world.run_for(Duration::from_secs(1));
    }
    let server = world.server("192.0.2.1");
    assert_eq!((server.most_open, server.connections, server.accepted.len()), (1, 3, 3));
}

#[test]
fn a_thousand_domains_with_one_dead_host_wait_for_it_together() {
    let mut world = World::new();
    hosted(&mut world, 1000, 10, "192.0.2.1");
    world.server("192.0.2.1").usual = Behaviour::connect(Connect::Silent);
    world.domain("live.example", "192.0.2.2");
    world.mail(SENDER, "a@live.example", "x");
    world.input(Input::OutboxChanged);
    world.run_for(Duration::from_secs(2));
    assert_eq!(world.server("192.0.2.2").accepted.len(), 1, "it delays nobody else");
    assert!(world.server("192.0.2.1").most_open <= 20);
    world.run_for(Duration::from_secs(33));
    let failed = world.outbox.mails.values().filter(|mail| mail.faillog.len() == 1).count();
    assert_eq!(failed, 10_000, "30 s are enough for all of them");
    assert!(attempts_at(&world, "192.0.2.1") <= 20);
    // An hour later all are tried again.
    world.run_for(HOUR + Duration::from_secs(40));
    let failed = world.outbox.mails.values().filter(|mail| mail.faillog.len() == 2).count();
    assert_eq!(failed, 10_000);
    assert!(attempts_at(&world, "192.0.2.1") <= 41, "{}", attempts_at(&world, "192.0.2.1"));
}

#[test]
fn a_host_that_is_known_to_be_dead_is_tried_after_all_others() {
    let mut world = World::new();
    for domain in ["a.example", "b.example"] {
        world.exchange(domain, 10, "dead.example", "192.0.2.1").usual = Behaviour::connect(Connect::Silent);
        world.exchange(domain, 20, "backup.example", "192.0.2.2");
    }
    world.mail(SENDER, "a@a.example", "x");
    world.run();
    let begin = world.now.monotonic;
    world.mail(SENDER, "a@b.example", "x");
    world.input(Input::OutboxChanged);
    world.run_for(Duration::from_secs(1));
    assert_eq!(world.server("192.0.2.2").accepted.len(), 2, "without any wait");
    assert!(world.attempts.iter().all(|(at, to)| *at < begin || *to != world::address("192.0.2.1")));
}

#[test]
fn a_closed_port_costs_its_timeout_once_and_not_for_each_domain() {
    let mut settings = settings();
    settings.policy.ports =
        [Port { number: 465, tls: TlsMode::Implicit }, Port { number: 25, tls: TlsMode::Plain }].into();
    let mut world = World::with(settings, Mode::Daemon);
    hosted(&mut world, 5, 1, "192.0.2.1");
    world.server("192.0.2.1:465").usual = Behaviour::connect(Connect::Silent);
    world.run();
    assert_eq!(world.server("192.0.2.1").accepted.len(), 5);
    for number in 0..5 {
        world.mail(SENDER, &format!("b@d{number}.example"), "x");
        let begin = world.now.monotonic;
        world.input(Input::OutboxChanged);
        world.run_for(Duration::from_millis(100));
        assert_eq!(world.now.monotonic, begin + Duration::from_millis(100));
    }
    assert_eq!(world.server("192.0.2.1").accepted.len(), 10, "the port that is open comes first now");
    assert!(attempts_at(&world, "192.0.2.1:465") <= 5);
}

#[test]
fn a_host_that_is_all_there_is_gets_a_new_attempt_in_each_pass() {
    let mut world = World::with(
        Settings {
            schedule: Schedule { retry_interval_s: 1, retries: 100, ..Schedule::default() },
            ..settings()
        },
        Mode::Daemon,
    );
    world.domain("example.org", "192.0.2.1").usual = Behaviour::connect(Connect::Refused);
    let id = world.mail(SENDER, "a@example.org", "x");
    world.input(Input::OutboxChanged);
    world.run_for(Duration::from_secs(9));
    let failures = world.failures(id).len();
    assert!(failures >= 3, "{failures}");
    assert_eq!(attempts_at(&world, "192.0.2.1"), failures, "no failure without an attempt");
    world.server("192.0.2.1").usual = Behaviour::default();
    world.run_for(Duration::from_secs(3));
    assert!(world.outbox.mails.is_empty(), "nothing is left out for being known to be dead");
}

#[test]
fn a_failure_counts_only_for_passes_that_began_before_the_attempt() {
    let mut world = World::new();
    hosted(&mut world, 1, 1, "192.0.2.1");
    world.server("192.0.2.1").usual = Behaviour::connect(Connect::Silent);
    world.run();
    // A probe is under way when others come along.
    world.domain("probe.example", "192.0.2.1");
    world.mail(SENDER, "a@probe.example", "x");
    world.input(Input::OutboxChanged);
    world.run_for(Duration::from_secs(10));
    let late: Vec<i64> = (0..5)
        .map(|number| {
            world.domain(&format!("late{number}.example"), "192.0.2.1");
            world.mail(SENDER, &format!("a@late{number}.example"), "x")
        })
        .collect();
    world.input(Input::OutboxChanged);
    let attempts = attempts_at(&world, "192.0.2.1");
    world.run_for(Duration::from_secs(21));
    assert!(late.iter().all(|&id| world.failures(id).is_empty()), "the probe began before them");
    assert_eq!(attempts_at(&world, "192.0.2.1"), attempts + 1, "one of them tries for all");
    world.run_for(Duration::from_secs(30));
    assert!(late.iter().all(|&id| world.failures(id).len() == 1));
    assert_eq!(attempts_at(&world, "192.0.2.1"), attempts + 1);
}

#[test]
fn all_go_on_together_when_a_dead_host_has_come_back() {
    let mut world = World::new();
    world.domain("first.example", "192.0.2.1").usual = Behaviour::connect(Connect::Refused);
    world.mail(SENDER, "a@first.example", "x");
    world.run();
    world.server("192.0.2.1").usual = Behaviour::default();
    hosted(&mut world, 50, 1, "192.0.2.1");
    world.input(Input::OutboxChanged);
    world.run_for(Duration::from_secs(2));
    assert_eq!(world.server("192.0.2.1").accepted.len(), 50);
}

#[test]
fn a_greeting_that_never_comes_is_remembered_too() {
    let mut world = World::new();
    for domain in ["a.example", "b.example"] {
        world.exchange(domain, 10, "mute.example", "192.0.2.1").usual = Behaviour::on("greeting", "hang");
        world.exchange(domain, 20, "backup.example", "192.0.2.2");
    }
    world.mail(SENDER, "a@a.example", "x");
    world.run();
    world.mail(SENDER, "a@b.example", "x");
    world.input(Input::OutboxChanged);
    world.run_for(Duration::from_secs(1));
    assert_eq!(world.server("192.0.2.2").accepted.len(), 2);
}

#[test]
fn the_administrators_wish_to_try_everything_forgives_dead_hosts() {
    let mut world = World::new();
    world.exchange("example.org", 10, "first.example", "192.0.2.1").next =
        [Behaviour::connect(Connect::Refused)].into();
    world.exchange("example.org", 20, "backup.example", "192.0.2.2");
    for text in ["a", "b"] {
        world.mail(SENDER, "a@example.org", text);
        world.run();
    }
    assert_eq!(world.server("192.0.2.2").accepted.len(), 2);
    world.input(Input::TryNow);
    world.mail(SENDER, "a@example.org", "c");
    world.run();
    assert_eq!(world.server("192.0.2.1").accepted.len(), 1);
}
