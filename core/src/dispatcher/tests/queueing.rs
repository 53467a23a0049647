//! What is tried when, with whom, and what is recorded.

use super::*;

#[test]
fn mail_that_a_server_takes_leaves_the_outbox() {
    let mut world = World::new();
    world.domain("example.org", "192.0.2.1");
    let id = world.mail(SENDER, "a@Example.ORG", "Subject: x\n\nhello\n.dot");
    world.run();
    assert!(world.outbox.mails.is_empty());
    assert_eq!(world.outbox.deleted, [id]);
    let server = world.server("192.0.2.1");
    assert_eq!(server.accepted.len(), 1);
    assert_eq!(server.accepted[0].from, SENDER);
    assert_eq!(server.accepted[0].data, "Subject: x\r\n\r\nhello\r\n..dot\r\n");
    assert_eq!(
        server.commands,
        ["EHLO me.example", "MAIL FROM:<sender@origin.example>", "RCPT TO:<a@Example.ORG>", "DATA", "QUIT"]
    );
}

#[test]
fn equal_messages_share_transactions_of_at_most_100_recipients() {
    let mut world = World::new();
    world.domain("example.org", "192.0.2.1");
    for number in 0..250 {
        world.mail(SENDER, &format!("r{number}@example.org"), "same");
    }
    world.mail("other@origin.example", "r@example.org", "same");
    world.run();
    let server = world.server("192.0.2.1");
    let mut sizes: Vec<usize> = server.accepted.iter().map(|message| message.to.len()).collect();
    sizes.sort_unstable();
    assert_eq!(sizes, [1, 50, 100, 100]);
}

#[test]
fn a_failed_mail_is_tried_again_when_strictly_more_than_the_interval_has_passed() {
    let mut world = World::with_brief_connections();
    world.domain("example.org", "192.0.2.1").usual = Behaviour::on("RCPT", "450 4.2.0 later");
    let id = world.mail(SENDER, "a@example.org", "x");
    world.run();
    assert_eq!(world.failures(id), ["450 4.2.0 later\n(mx.example.org [192.0.2.1]:25, in reply to RCPT TO)"]);
    world.run_for(Duration::from_secs(3599));
    assert_eq!(world.failures(id).len(), 1);
    world.run_for(Duration::from_secs(3));
    assert_eq!(world.failures(id).len(), 2);
}

#[test]
fn mail_that_failed_a_moment_ago_waits_also_after_a_restart() {
    let mut world = World::with_brief_connections();
    world.domain("example.org", "192.0.2.1");
    let waiting = world.mail(SENDER, "a@example.org", "x");
    world.failed_before(waiting, 1, 3600, false);
    let due = world.mail(SENDER, "b@example.org", "x");
    world.failed_before(due, 1, 3601, false);
    world.run();
    assert_eq!(world.outbox.deleted, [due]);
    world.run_for(Duration::from_secs(2));
    assert_eq!(world.outbox.deleted, [due, waiting]);
}

#[test]
fn mail_that_is_gone_or_changed_when_it_is_claimed_is_not_sent_as_it_was() {
    let mut world = World::new();
    world.domain("example.org", "192.0.2.1");
    world.domain("example.net", "192.0.2.2");
    let gone = world.mail(SENDER, "gone@example.org", "x");
    let moved = world.mail(SENDER, "moved@example.org", "x");
    let kept = world.mail(SENDER, "kept@example.org", "x");
    world.input(Input::OutboxChanged);
    world.run_for(Duration::from_micros(200));
    assert_eq!(world.dispatcher.indexed(), 3);
    world.outbox.mails.remove(&gone);
    world.outbox.mails.get_mut(&moved).unwrap().recipient = "moved@example.net".into();
    world.run();
    assert_eq!(world.server("192.0.2.1").recipients(), ["kept@example.org"]);
    assert_eq!(world.server("192.0.2.2").recipients(), ["moved@example.net"]);
    assert!(world.outbox.deleted.contains(&kept) && world.outbox.mails.is_empty());
}

#[test]
fn what_others_change_is_found_by_looking_again() {
    let mut world = World::new();
    world.domain("example.org", "192.0.2.1");
    let waiting = world.mail(SENDER, "a@example.org", "x");
    let gone = world.mail(SENDER, "b@example.org", "y");
    for id in [waiting, gone] {
        world.failed_before(id, 1, 10, false);
    }
    world.run();
    assert_eq!(world.dispatcher.indexed(), 2);
    // Another program clears the faillog of one and deletes the other; a row appears below what was seen.
    world.outbox.mails.get_mut(&waiting).unwrap().faillog.clear();
    let row = world.outbox.mails.remove(&gone).unwrap();
    world.outbox.mails.insert(-5, outbox::Mail { faillog: Vec::new(), ..row });
    world.outbox.data_version += 1;
    world.run_for(Duration::from_secs(30));
    assert_eq!(world.dispatcher.indexed(), 0);
    assert!(world.outbox.mails.is_empty());
    assert_eq!(world.server("192.0.2.1").accepted.len(), 2);
}

#[test]
fn changes_during_a_walk_over_the_outbox_are_found_by_the_next_walk() {
    let mut world = World::new();
    world.domain("example.org", "192.0.2.1");
    let first = world.mail(SENDER, "a@example.org", "x");
    world.failed_before(first, 1, 10, false);
    for _ in 0..2500 {
        let id = world.mail(SENDER, "b@example.org", "x");
        world.failed_before(id, 1, 10, false);
    }
    world.run();
    world.outbox.data_version += 1;
    world.run_for(Duration::from_secs(15));
    // The walk is past the first mail now.
    world.outbox.mails.get_mut(&first).unwrap().faillog.clear();
    world.outbox.data_version += 1;
    world.run_for(Duration::from_secs(80));
    assert_eq!(world.outbox.deleted, [first]);
}

#[test]
fn an_answer_that_comes_late_does_not_make_newer_mail_forgotten() {
    let mut world = World::new();
    world.domain("example.org", "192.0.2.1");
    let known = world.mail(SENDER, "a@example.org", "x");
    world.failed_before(known, 1, 10, false);
    world.run();
    world.outbox.data_version += 1;
    world.slow.insert("rescan", Duration::from_secs(5));
    world.run_for(Duration::from_secs(12));
    // The database has answered the walk, but we have not heard of it yet; a look overtakes it.
    assert_eq!(world.outbox.asked["rescan"], 1);
    let newer = world.mail(SENDER, "b@example.org", "x");
    world.failed_before(newer, 1, 10, false);
    world.input(Input::OutboxChanged);
    world.run_for(Duration::from_secs(5));
    assert_eq!((world.dispatcher.indexed(), world.outbox.asked["rescan"]), (2, 1));
}

#[test]
fn mail_that_only_looks_like_one_message_is_compared_once() {
    let mut world = World::new();
    world.domain("example.org", "192.0.2.1");
    for number in 100..300 {
        world.mail(SENDER, &format!("r{number}@example.org"), &format!("message {number}"));
    }
    world.run();
    assert_eq!(world.server("192.0.2.1").accepted.len(), 200);
    // Once to find out, and once to be sent.
    assert!(world.outbox.claimed_rows <= 400, "{}", world.outbox.claimed_rows);
}

#[test]
fn large_messages_are_read_in_pieces() {
    let mut world = World::new();
    world.domain("example.org", "192.0.2.1");
    let data = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcde\n".repeat(16_384);
    world.mail(SENDER, "a@example.org", &data);
    world.run();
    let server = world.server("192.0.2.1");
    assert_eq!(server.accepted[0].data, data.replace('\n', "\r\n"));
    assert_eq!(world.outbox.asked["data"], 15, "the first piece comes with the claim");
    assert!(world.outbox.largest_data_octets <= 64 * 1024);
}

#[test]
fn a_clock_that_is_set_back_or_forth_stops_nothing() {
    let mut world = World::new();
    world.domain("example.org", "192.0.2.1").next.push_back(Behaviour::on("RCPT", "450 later"));
    let id = world.mail(SENDER, "a@example.org", "x");
    world.run();
    world.now.wall.0 -= 100_000;
    world.run();
    world.now.wall.0 += 104_000;
    world.run();
    world.run_for(Duration::from_secs(11));
    assert_eq!(world.outbox.deleted, [id]);
}
