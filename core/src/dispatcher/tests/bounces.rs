//! Mail that is given up.

use super::*;

fn bounced(world: &World) -> Vec<(String, String)> {
    let bounces = world.outbox.mails.values().filter(|mail| mail.sender.is_none());
    let text = |octets: &[u8]| String::from_utf8_lossy(octets).into();
    bounces.map(|mail| (text(&mail.recipient), text(&mail.data))).collect()
}

#[test]
fn a_fatal_failure_is_bounced_to_the_sender_and_the_copies() {
    let mut settings = settings();
    settings.bounces.copies = vec!["copy@elsewhere.example".into()];
    let mut world = World::with(settings, Mode::Daemon);
    world.domain("example.org", "192.0.2.1").usual = Behaviour::on("RCPT", "550 5.1.1 no such user");
    world.dns_is_dead = false;
    world.broken_names.insert("origin.example".into(), hickory_proto::op::ResponseCode::ServFail);
    world.broken_names.insert("elsewhere.example".into(), hickory_proto::op::ResponseCode::ServFail);
    let id = world.mail(SENDER, "a@example.org", "Subject: x\n\nhello");
    world.run();
    assert_eq!(world.outbox.replaced, [id]);
    let bounces = bounced(&world);
    let recipients: Vec<&str> = bounces.iter().map(|(recipient, _)| recipient.as_str()).collect();
    assert_eq!(recipients, [SENDER, "copy@elsewhere.example"]);
    assert!(bounces[0].1.contains("550 5.1.1 no such user"), "{}", bounces[0].1);
    assert_eq!(bounces[0].1, bounces[1].1);
}

#[test]
fn bounces_are_delivered_at_once_with_the_null_sender() {
    let mut world = World::new();
    world.domain("example.org", "192.0.2.1").usual = Behaviour::on("RCPT", "550 no");
    world.domain("origin.example", "192.0.2.2");
    world.mail(SENDER, "a@example.org", "x");
    world.run();
    let accepted = &world.server("192.0.2.2").accepted;
    assert_eq!((accepted.len(), accepted[0].from.as_str()), (1, ""));
    assert!(world.outbox.mails.is_empty());
}

#[test]
fn mail_is_given_up_after_its_last_retry() {
    let mut world = World::new();
    world.domain("example.org", "192.0.2.1").usual = Behaviour::on("MAIL", "450 later");
    world.domain("origin.example", "192.0.2.2");
    let id = world.mail(SENDER, "a@example.org", "x");
    world.failed_before(id, 4, 4000, false);
    world.run();
    assert_eq!(world.outbox.replaced, [id]);
    assert_eq!(world.server("192.0.2.1").count("MAIL"), 1);
    assert_eq!(world.server("192.0.2.2").accepted.len(), 1);
}

#[test]
fn recipients_that_fail_in_the_same_pass_share_one_bounce() {
    let mut world = World::new();
    let server = world.domain("example.org", "192.0.2.1");
    server.usual = Behaviour::on("RCPT TO:<good@", "250 ok").and("RCPT", "550 no");
    world.domain("origin.example", "192.0.2.2");
    let ids = ["a@example.org", "good@example.org", "b@example.org"]
        .map(|recipient| world.mail(SENDER, recipient, "same"));
    let other = world.mail(SENDER, "c@example.org", "else");
    world.run();
    let bounces = &world.server("192.0.2.2").accepted;
    assert_eq!(bounces.len(), 2);
    let shared = bounces.iter().find(|bounce| bounce.data.contains("b@example.org")).unwrap();
    assert!(shared.data.contains("a@example.org"));
    assert!(!shared.data.contains("good@example.org") && !shared.data.contains("c@example.org"));
    assert_eq!(world.outbox.deleted.first(), Some(&ids[1]));
    assert!(world.outbox.replaced.contains(&other));
}

#[test]
fn more_recipients_than_one_bounce_bears_get_several() {
    let mut world = World::new();
    world.domain("example.org", "192.0.2.1").usual = Behaviour::on("RCPT", "550 no");
    world.domain("origin.example", "192.0.2.2");
    for number in 0..150 {
        world.mail(SENDER, &format!("r{number}@example.org"), "same");
    }
    world.run();
    assert_eq!(world.outbox.replaced.len(), 150);
    assert!(world.outbox.mails.is_empty());
}

#[test]
fn mail_that_is_given_up_does_not_wait_for_what_only_looked_like_it() {
    let mut world = World::with(
        Settings { policy: Policy { concurrency: 1, ..settings().policy }, ..settings() },
        Mode::Daemon,
    );
    let server = world.domain("example.org", "192.0.2.1");
    server.next.push_back(Behaviour::on("RCPT TO:<given.up@", "550 no").and("RCPT TO:<alike@", "drop"));
    world.domain("origin.example", "192.0.2.2");
    let given_up = world.mail(SENDER, "given.up@example.org", "one");
    for (recipient, data) in [("alike@example.org", "two"), ("else@example.org", "longer")] {
        world.mail(SENDER, recipient, data);
    }
    world.input(Input::OutboxChanged);
    while world.failures(given_up).is_empty() {
        world.run_for(Duration::from_micros(100));
    }
    // The mail that scanned like it comes back with the next claim, and is known to be another message then.
    assert_eq!(world.server("192.0.2.1").count("RCPT TO:<alike@"), 0);
    world.outbox.set_budget(0);
    world.run();
    assert_eq!(world.outbox.replaced, [given_up]);
    assert!(world.outbox.mails.is_empty());
}

#[test]
fn mail_of_the_null_sender_is_deleted_with_a_warning() {
    let mut world = World::new();
    world.domain("example.org", "192.0.2.1").usual = Behaviour::on("RCPT", "550 no");
    let id = world.mail("", "a@example.org", "x");
    world.run();
    assert!(world.outbox.mails.is_empty());
    let is_told = |event: &Event| matches!(event, Event::Dropped { id: dropped, recipient, .. } if dropped.0 == id && &**recipient == "a@example.org");
    assert!(world.events.iter().any(is_told));
}

#[test]
fn a_bounce_waits_for_recipients_that_are_being_tried_and_goes_when_they_move_away() {
    let mut world = World::new();
    world.domain("example.org", "192.0.2.1");
    world.domain("example.net", "192.0.2.3");
    world.domain("origin.example", "192.0.2.2");
    let given_up = world.mail(SENDER, "a@example.org", "same");
    world.failed_before(given_up, 1, 10, true);
    let moving = world.mail(SENDER, "b@example.org", "same");
    world.input(Input::OutboxChanged);
    world.run_for(Duration::from_micros(200));
    world.outbox.mails.get_mut(&moving).unwrap().recipient = "b@example.net".into();
    world.run();
    assert_eq!(world.outbox.replaced, [given_up]);
    assert_eq!(world.server("192.0.2.3").recipients(), ["b@example.net"]);
}

#[test]
fn mail_whose_failures_were_cleared_meanwhile_is_not_bounced() {
    let mut world = World::new();
    world.domain("example.org", "192.0.2.1");
    let id = world.mail(SENDER, "a@example.org", "x");
    world.failed_before(id, 1, 10, true);
    world.slow.insert("scan", Duration::from_secs(1));
    world.input(Input::OutboxChanged);
    // The answer to the look is on its way and out of date.
    world.outbox.mails.get_mut(&id).unwrap().faillog[0].fatal = false;
    world.run();
    assert_eq!((world.outbox.replaced.len(), world.failures(id).len()), (0, 1));
    assert_eq!(world.server("192.0.2.1").connections, 0, "it is not due");
}

/// Mail that was given up, of senders who are told where nothing is sent to them: `count` messages of these lengths.
fn given_up(settings: Settings, count: usize, octets: impl Fn(usize) -> usize) -> World {
    let mut world = World::with(settings, Mode::GenerateBounces);
    for number in 0..count {
        let (sender, data) = (format!("s{number}@origin.example"), "x".repeat(octets(number)));
        let id = world.mail(&sender, &format!("a@d{}.example", number % 7), &data);
        world.failed_before(id, 5, 10, false);
    }
    world
}

#[test]
fn many_messages_are_bounced_together_whatever_their_next_hops() {
    let mut world = given_up(settings(), 2000, |number| number % 100);
    // As long as a commit takes that waits for a disk.
    world.slow.insert("commit", Duration::from_millis(20));
    world.run();
    assert_eq!(world.outbox.replaced.len(), 2000);
    // Each time 500 or nearly so, for which other requests do not wait too long.
    assert!(world.outbox.most_replaced <= 512, "{}", world.outbox.most_replaced);
    assert!(world.outbox.asked["commit"] <= 8, "{} commits", world.outbox.asked["commit"]);
    assert!(world.outbox.asked["failed"] <= 40, "{} requests", world.outbox.asked["failed"]);
}

#[test]
fn recipients_of_one_message_and_several_next_hops_get_a_bounce_for_each() {
    let mut world = World::with(settings(), Mode::GenerateBounces);
    for recipient in ["a@one.example", "b@two.example", "c@one.example", "d@three.example"] {
        let id = world.mail(SENDER, recipient, "same");
        world.failed_before(id, 5, 10, false);
    }
    world.run();
    let mut told: Vec<Vec<&str>> = Vec::new();
    let bounces = bounced(&world);
    for (_, bounce) in &bounces {
        let recipients = bounce.lines().filter_map(|line| line.strip_prefix("Final-Recipient: rfc822; "));
        told.push(recipients.collect());
    }
    told.sort();
    assert_eq!(
        told,
        [vec!["a@one.example", "c@one.example"], vec!["b@two.example"], vec!["d@three.example"]]
    );
    assert_eq!(world.outbox.asked["failed"], 1);
}

#[test]
fn the_memory_for_originals_is_bounded_while_the_database_is_slow() {
    let mib = 1 << 20;
    // How much comes back of an original, how long they are, and how much is held at most and at least.
    for (limit_octets, octets, most, least) in [
        (0, 4096, 500 * 4096 + 64 * 4096, 400 * 4096),
        (mib, 300_000, 8 * mib, 6 * mib),
        (16 * mib, 5 * mib, 5 * mib, 5 * mib),
        (64 * mib, 20 * mib, 20 * mib, 20 * mib),
    ] {
        let count = (20 * mib / octets).clamp(3, 700);
        let settings = Settings {
            bounces: BounceRules { return_limit_octets: limit_octets as u64, ..settings().bounces },
            ..settings()
        };
        let mut world = given_up(settings, count, |_| octets);
        world.slow.insert("commit", Duration::from_secs(60));
        world.run();
        let held = world.outbox.most_originals_octets;
        assert!((least..=most).contains(&held), "{held} octets of originals of {octets}");
        assert_eq!((world.outbox.replaced.len(), world.outbox.originals_octets), (count, 0));
    }
}

#[test]
fn a_sender_that_is_too_long_to_be_told_is_dropped_unless_there_are_copies() {
    let long = "x".repeat(crate::address::ADDRESS_LIMIT_OCTETS) + "@origin.example";
    let mut world = World::new();
    world.mail(&long, "a@example.org", "x");
    world.run();
    assert!(world.outbox.mails.is_empty());
    let notes = world.notes();
    let failure = "failed permanently: the sender cannot be named: the address is longer than 1000 octets";
    assert!(notes.contains(failure) && notes.contains("deleted without a bounce"), "{notes}");

    let settings = Settings {
        bounces: BounceRules { copies: vec!["copy@elsewhere.example".into()], ..settings().bounces },
        ..settings()
    };
    let mut world = World::with(settings, Mode::Daemon);
    world.domain("elsewhere.example", "192.0.2.3");
    world.mail(&long, "a@example.org", "x");
    world.run();
    let accepted = &world.server("192.0.2.3").accepted;
    assert_eq!((accepted.len(), accepted[0].to.as_slice()), (1, &["copy@elsewhere.example".to_owned()][..]));
    assert!(world.outbox.mails.is_empty());
}

#[test]
fn everybody_gets_one_bounce_however_often_and_in_whatever_way_the_address_is_written() {
    let copies =
        ["s@origin.example", "S@origin.example", "s@ORIGIN.example", "c@origin.example", "c@origin.Example"];
    let settings = Settings {
        bounces: BounceRules { copies: copies.map(Into::into).into(), ..settings().bounces },
        ..settings()
    };
    let mut world = World::with(settings, Mode::Daemon);
    world.domain("origin.example", "192.0.2.2");
    world.mail("s@Origin.example", "a b@example.org", "x");
    world.run();
    let told: Vec<String> =
        world.server("192.0.2.2").accepted.iter().flat_map(|bounce| bounce.to.clone()).collect();
    assert_eq!(told, ["s@Origin.example", "S@origin.example", "c@origin.example"]);
}

#[test]
fn a_null_sender_is_known_however_it_is_written() {
    for sender in ["", " ", "<>", " <> "] {
        let settings = Settings {
            bounces: BounceRules { copies: vec!["c@origin.example".into()], ..settings().bounces },
            ..settings()
        };
        let mut world = World::with(settings, Mode::Daemon);
        world.domain("example.org", "192.0.2.1").usual = Behaviour::on("RCPT", "550 no");
        world.mail(sender, "a@example.org", "x");
        world.run();
        assert!(
            world.outbox.mails.is_empty() && world.notes().contains("deleted without a bounce"),
            "{sender:?}"
        );
        assert_eq!(world.server("192.0.2.1").count("MAIL FROM:<>"), 1, "{sender:?}");
    }
}

#[test]
fn recipients_and_remotes_that_are_too_long_fail_as_the_contract_says_in_short_texts() {
    let mut world = World::new();
    let long = "x".repeat(5000);
    world.mail("", &format!("{long}@example.org"), "x");
    let remote = format!("{long}.example:25");
    let id = world.mail_by(Some(&remote), "", "a@example.org", "x");
    world.run();
    let notes = world.notes();
    assert!(
        notes.contains("the recipient cannot be sent to: the address is longer than 1000 octets"),
        "{notes}"
    );
    assert!(notes.lines().all(|line| line.len() < 500), "{notes}");
    let failures = world.failures(id);
    assert_eq!(failures.len(), 1);
    assert!(
        failures[0].contains("malformed remote specification: it is longer than 2048 octets"),
        "{failures:?}"
    );
}
