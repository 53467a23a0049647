//! What the database holds is given back. Each world asserts besides that each claim ends once, and that the database holds what the
//! dispatcher works on.

use super::*;

fn one_connection() -> Settings {
    let ports = [Port { number: 25, tls: TlsMode::Plain }].into();
    Settings { policy: Policy { concurrency: 1, ports, ..settings().policy }, ..settings() }
}

#[test]
fn what_a_connection_leaves_undecided_is_released_together() {
    let mut world = World::with(one_connection(), Mode::Daemon);
    world.domain("example.org", "192.0.2.1").next.push_back(Behaviour::on("MAIL", "drop"));
    let ids: Vec<i64> =
        (0..5).map(|number| world.mail(SENDER, "a@example.org", &format!("{number}"))).collect();
    world.run_for(Duration::from_secs(60));
    assert_eq!(world.server("192.0.2.1").accepted.len(), 5 - world.failures(ids[0]).len());
    let mut released = world.outbox.releases.concat();
    released.sort_unstable();
    assert_eq!(released, ids);
    assert!(world.outbox.releases.len() <= 2, "what was begun, and the rest: {:?}", world.outbox.releases);
}

#[test]
fn a_verdict_releases_nothing() {
    let mut world = World::new();
    world.domain("example.org", "192.0.2.1").usual = Behaviour::default().times("RCPT", "550 no", 1);
    world.domain("origin.example", "192.0.2.2");
    for number in 0..5 {
        world.mail(SENDER, "a@example.org", &format!("{number}"));
    }
    world.run();
    assert!(world.outbox.mails.is_empty(), "also the bounce");
    assert_eq!(world.outbox.releases, Vec::<Vec<i64>>::new());
}

#[test]
fn taken_mail_stays_held_until_it_can_be_deleted_or_is_gone() {
    for is_mended in [true, false] {
        let mut world = World::new();
        world.domain("example.org", "192.0.2.1");
        let id = world.mail(SENDER, "a@example.org", "x");
        world.outbox.poisoned.insert(id);
        world.run_for(Duration::from_secs(30));
        assert_eq!(world.outbox.held(), [MailId(id)]);
        world.outbox.poisoned.clear();
        if !is_mended {
            world.outbox.mails.remove(&id);
            world.outbox.data_version += 1;
            world.input(Input::OutboxChanged);
        }
        world.run_for(Duration::from_secs(300));
        assert!(world.outbox.mails.is_empty() && world.outbox.held().is_empty());
        assert_eq!(world.outbox.releases.len(), usize::from(!is_mended));
    }
}

#[test]
fn a_drain_waits_for_what_is_about_to_be_held_and_releases_it() {
    for kind in ["claim", "failed", "recall"] {
        let mut world = World::new();
        world.slow.insert(kind, Duration::from_secs(2));
        world.domain("example.org", "192.0.2.1");
        match kind {
            "failed" => {
                let id = world.mail(SENDER, "a@example.org", "x");
                world.failed_before(id, 1, 60, true);
            }
            "recall" => drop(world.mail(SENDER, "not an address", "x")),
            _ => drop(world.mail(SENDER, "a@example.org", "x")),
        }
        world.input(Input::OutboxChanged);
        world.run_for(Duration::from_millis(500));
        assert_eq!(world.outbox.asked.get(kind), Some(&1), "{kind}");
        world.input(Input::Drain);
        world.run_for(Duration::from_secs(6));
        assert!(world.drained_at.is_some() && world.outbox.held().is_empty(), "{kind}");
    }
}

#[test]
fn mail_that_is_set_aside_is_released_at_the_end() {
    let mut world = World::new();
    world.domain("example.org", "192.0.2.1");
    let id = world.mail(SENDER, "a@example.org", "x");
    world.outbox.poisoned.insert(id);
    world.outbox.notes_taken = true;
    world.run_for(Duration::from_secs(30));
    assert_eq!(world.outbox.held(), [MailId(id)]);
    world.input(Input::Drain);
    world.run_for(Duration::from_secs(6));
    assert!(world.drained_at.is_some());
    assert_eq!(world.outbox.releases, [[id]]);
}
