//! One-shot passes come to an end, whatever happens.

use super::*;

fn deliver(domain: &str) -> Mode {
    Mode::Deliver(Selection::Domain(NextHop::Domain(Domain::parse(domain).unwrap())))
}

fn handoff(remote: &str) -> Mode {
    Mode::Deliver(Selection::Remote(remote.as_bytes().into()))
}

fn world(mode: Mode) -> World {
    World::with(settings(), mode)
}

#[test]
fn a_pass_over_nothing_ends() {
    for mode in [deliver("example.org"), handoff("x"), Mode::GenerateBounces] {
        let mut world = world(mode);
        world.mail(SENDER, "a@other.example", "x");
        world.run();
        assert!(world.drained_at.is_some());
        assert_eq!(world.outbox.mails.len(), 1);
    }
}

#[test]
fn deliver_is_about_one_domain_and_makes_no_bounces() {
    let mut world = world(deliver("example.org"));
    let server = world.domain("example.org", "192.0.2.1");
    server.usual = Behaviour::on("RCPT TO:<bad@", "550 no").and("RCPT TO:<later@", "450 later");
    world.domain("example.net", "192.0.2.2");
    let good = world.mail(SENDER, "a@EXAMPLE.org", "x");
    let bad = world.mail(SENDER, "bad@example.org", "x");
    let later = world.mail(SENDER, "later@example.org", "x");
    let other = world.mail(SENDER, "a@example.net", "x");
    let relayed = world.mail_by(Some("192.0.2.2"), SENDER, "a@example.org", "x");
    let waiting = world.mail(SENDER, "a@example.org", "x");
    world.failed_before(waiting, 1, 100, false);
    let given_up = world.mail(SENDER, "a@example.org", "x");
    world.failed_before(given_up, 5, 10_000, false);
    world.run();
    assert!(world.drained_at.is_some());
    assert_eq!(world.outbox.deleted, [good]);
    let left: Vec<i64> = world.outbox.mails.keys().collect();
    assert_eq!(left, [bad, later, other, relayed, waiting, given_up]);
    assert_eq!((world.failures(bad).len(), world.failures(later).len()), (1, 1));
    assert!(world.outbox.replaced.is_empty() && world.server("192.0.2.2").connections == 0);
}

#[test]
fn handoff_is_about_exactly_one_remote() {
    let mut world = world(handoff("192.0.2.1:25"));
    world.server("192.0.2.1");
    let wanted = world.mail_by(Some("192.0.2.1:25"), SENDER, "a@example.org", "x");
    world.mail_by(Some("192.0.2.1"), SENDER, "a@example.org", "x");
    world.run();
    assert!(world.drained_at.is_some());
    assert_eq!(world.outbox.deleted, [wanted]);
}

#[test]
fn a_pass_over_a_malformed_remote_records_one_failure() {
    let mut world = world(handoff("what is this"));
    let id = world.mail_by(Some("what is this"), SENDER, "a@example.org", "x");
    world.run();
    assert!(world.drained_at.is_some());
    assert_eq!(world.failures(id).len(), 1);
}

#[test]
fn genbounces_makes_bounces_and_sends_nothing() {
    let mut world = world(Mode::GenerateBounces);
    world.domain("example.org", "192.0.2.1");
    world.domain("origin.example", "192.0.2.2");
    let due = world.mail(SENDER, "a@example.org", "x");
    let given_up = world.mail(SENDER, "b@example.org", "x");
    world.failed_before(given_up, 5, 10, false);
    world.run();
    assert!(world.drained_at.is_some());
    assert_eq!(world.outbox.replaced, [given_up]);
    assert!(world.outbox.mails.contains_key(&due));
    assert_eq!(world.outbox.mails.len(), 2);
    assert!(world.attempts.is_empty());
}

#[test]
fn a_pass_ends_when_nothing_can_be_reached() {
    let mut no_dns = world(deliver("example.org"));
    no_dns.dns_is_dead = true;
    let mut refused = world(deliver("example.org"));
    refused.domain("example.org", "192.0.2.1").usual = Behaviour::connect(Connect::Refused);
    for mut world in [no_dns, refused] {
        let id = world.mail(SENDER, "a@example.org", "x");
        world.run();
        assert!(world.drained_at.is_some());
        assert_eq!(world.failures(id).len(), 1);
    }
}

#[test]
fn a_pass_ends_without_a_failure_when_this_machine_is_in_trouble() {
    let mut world = world(deliver("example.org"));
    world.domain("example.org", "192.0.2.1").usual = Behaviour::connect(Connect::Local);
    let id = world.mail(SENDER, "a@example.org", "x");
    world.run();
    assert!(world.drained_at.is_some());
    assert!(world.failures(id).is_empty());
}

#[test]
fn a_pass_ends_when_the_database_keeps_failing() {
    for interval_s in [1, 10] {
        for (mode, kinds) in [
            (deliver("example.org"), &["scan", "claim", "commit", "data"][..]),
            (Mode::GenerateBounces, &["scan", "failed", "commit"][..]),
        ] {
            for kind in kinds {
                let mut settings = settings();
                settings.interval = Duration::from_secs(interval_s);
                let mut world = World::with(settings, mode.clone());
                world.domain("example.org", "192.0.2.1");
                world.mail(SENDER, "a@example.org", &"x".repeat(100_000));
                let given_up = world.mail(SENDER, "b@example.org", "x");
                world.failed_before(given_up, 5, 10, false);
                world.outbox.failing.insert(kind, u32::MAX);
                world.run();
                assert!(world.drained_at.is_some());
                let seconds = world.now.monotonic.as_micros() / 1_000_000;
                assert!(seconds < 120, "{kind} {seconds}");
            }
        }
    }
}

#[test]
fn a_pass_with_a_slow_rate_takes_its_time_and_ends() {
    let mut settings = settings();
    settings.policy.rate_limit = Some(RateLimit { transactions: 2, per: Duration::from_secs(60) });
    let mut world = World::with(settings, deliver("example.org"));
    world.domain("example.org", "192.0.2.1");
    for text in 0..5 {
        world.mail(SENDER, "a@example.org", &format!("{text}"));
    }
    world.run();
    assert!(world.drained_at.is_some() && world.outbox.mails.is_empty());
}
