//! Trouble of our own: no descriptors, a database that is busy.

use super::super::commits::TAKEN_LIMIT;
use hickory_proto::op::ResponseCode;

use super::*;

#[test]
fn local_trouble_is_no_failure_and_passes() {
    let mut world = World::new();
    let server = world.domain("example.org", "192.0.2.1");
    server.next.extend([Behaviour::connect(Connect::Local), Behaviour::connect(Connect::Local)]);
    let id = world.mail(SENDER, "a@example.org", "x");
    world.run();
    assert_eq!(world.outbox.deleted, [id]);
    assert!(!world.events.iter().any(|event| matches!(event, Event::Failed { .. })));
    assert!(world.notes().contains("mail to example.org has to wait, without a failed attempt"));
    assert!(world.timeouts < 20, "{}", world.timeouts);
}

#[test]
fn a_busy_database_loses_nothing_and_repeats_nothing() {
    for kind in ["scan", "claim", "commit", "data", "failed"] {
        for times in [1, 3, 20] {
            let mut world = World::new();
            let server = world.domain("example.org", "192.0.2.1");
            server.usual = Behaviour::on("RCPT TO:<bad@", "550 no");
            world.domain("origin.example", "192.0.2.2");
            for number in 0..5 {
                let text = format!("{number}").repeat(100_000);
                world.mail(SENDER, &format!("r{number}@example.org"), &text);
            }
            world.mail(SENDER, "bad@example.org", "x");
            world.outbox.failing.insert(kind, times);
            world.run();
            world.run_for(Duration::from_secs(200));
            let mut recipients = world.server("192.0.2.1").recipients();
            recipients.sort_unstable();
            assert_eq!(recipients, (0..5).map(|n| format!("r{n}@example.org")).collect::<Vec<_>>(), "{kind}");
            assert!(world.outbox.mails.is_empty(), "{kind} {times}");
            assert_eq!(world.server("192.0.2.2").accepted.len(), 1, "{kind} {times}");
            let failures = world.events.iter().filter(|event| matches!(event, Event::Failed { .. })).count();
            assert_eq!(failures, 1, "{kind}");
        }
    }
}

#[test]
fn a_failure_of_all_mail_for_a_next_hop_is_recorded_once_however_often_it_cannot_be_read() {
    for times in [1, 3, 20] {
        let mut world = World::new();
        let ids = [0; 3].map(|_| world.mail(SENDER, "a@example.org", "x"));
        world.broken_names.insert("example.org".into(), ResponseCode::ServFail);
        world.outbox.failing.insert("recall", times);
        world.input(Input::OutboxChanged);
        world.run_for(Duration::from_secs(200));
        for id in ids {
            assert_eq!(world.failures(id).len(), 1, "{times}");
        }
        let failures = world.events.iter().filter(|event| matches!(event, Event::Failed { .. })).count();
        assert_eq!(failures, 3, "{times}: none is charged for another attempt");
        assert_eq!(world.outbox.asked["recall"], times + 1);
    }
}

#[test]
fn a_slow_commit_is_waited_for_in_peace() {
    let mut world = World::new();
    world.domain("example.org", "192.0.2.1");
    world.mail(SENDER, "a@example.org", "x");
    world.outbox.failing.insert("commit", 1);
    world.slow.insert("commit", Duration::from_secs(5));
    world.run();
    assert!(world.outbox.mails.is_empty());
    assert!(world.timeouts < 20, "{}", world.timeouts);
}

#[test]
fn nothing_new_is_begun_while_verdicts_cannot_be_recorded() {
    let mut world = World::new();
    world.domain("example.org", "192.0.2.1");
    for text in 0..3000 {
        world.mail(SENDER, "a@example.org", &format!("{text}"));
    }
    world.outbox.failing.insert("commit", 30);
    world.input(Input::OutboxChanged);
    world.run_for(Duration::from_secs(20));
    let taken = world.server("192.0.2.1").accepted.len();
    assert!(taken <= 100, "{taken}");
    world.run();
    assert_eq!(world.server("192.0.2.1").accepted.len(), 3000);
}

#[test]
fn mail_data_that_vanishes_while_it_is_sent_is_never_completed() {
    let mut world = World::new();
    world.domain("example.org", "192.0.2.1");
    let id = world.mail(SENDER, "a@example.org", &"x".repeat(300_000));
    world.outbox.data_is_gone = true;
    world.input(Input::OutboxChanged);
    world.run_for(Duration::from_secs(10));
    assert!(world.server("192.0.2.1").accepted.is_empty());
    assert!(world.failures(id).is_empty());
    world.outbox.data_is_gone = false;
    world.run();
    assert_eq!(world.outbox.deleted, [id]);
}

#[test]
fn much_mail_that_leads_nowhere_is_read_a_little_at_a_time_and_without_its_data() {
    let mut world = World::new();
    for _ in 0..5000 {
        world.mail("", "nobody", "x");
    }
    world.slow.insert("recall", Duration::from_secs(3));
    world.input(Input::OutboxChanged);
    world.run_for(Duration::from_secs(1));
    assert_eq!(world.outbox.asked["recall"], 1, "{:?}", world.outbox.asked);
    world.run();
    assert!(world.outbox.mails.is_empty());
    assert!(!world.outbox.asked.contains_key("claim"), "{:?}", world.outbox.asked);
}

#[test]
fn what_is_taken_and_not_recorded_is_bounded() {
    // A kill makes second copies of these, and of one message for each connection.
    let mut world = World::new();
    for number in 0..4 {
        world.domain(&format!("example{number}.org"), &format!("192.0.2.{number}"));
    }
    for number in 0..3000 {
        world.mail(SENDER, &format!("a@example{}.org", number % 4), &format!("{number}"));
    }
    world.slow.insert("commit", Duration::from_secs(100));
    world.input(Input::OutboxChanged);
    let connections = usize::try_from(settings().policy.concurrency).unwrap() * 4;
    let taken = |world: &World| world.servers.values().map(|server| server.accepted.len()).sum::<usize>();
    world.run_for(Duration::from_secs(90));
    assert!(taken(&world) >= TAKEN_LIMIT, "{}", taken(&world));
    for _ in 0..20 {
        let unrecorded = taken(&world) - world.outbox.deleted.len();
        assert!(unrecorded <= TAKEN_LIMIT + connections, "{unrecorded}");
        world.run_for(Duration::from_secs(50));
    }
    world.slow.clear();
    world.run();
    assert_eq!((taken(&world), world.outbox.mails.len()), (3000, 0));
}
