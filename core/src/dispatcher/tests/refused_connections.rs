//! Servers that refuse for now, and what becomes of mail to them: who is charged, and how often they are connected to.

use super::*;

/// A server, and what a pass over mail to it comes to.
struct Case {
    name: &'static str,
    /// For the first connection, where that differs.
    first: Option<Behaviour>,
    usual: Behaviour,
    mails: usize,
    delivered: usize,
    /// How many mails have a row afterwards. The others wait for the next pass, which begins without one.
    charged: usize,
    /// How many connections are made, one at a time.
    connections: u32,
}

/// One connection to one port, so that connections can be counted.
fn one_at_a_time() -> Settings {
    let ports = [Port { number: 25, tls: TlsMode::Plain }].into();
    Settings { policy: Policy { concurrency: 1, ports, ..settings().policy }, ..settings() }
}

/// A server that takes so many messages and then says this to a command.
fn takes(count: u32, command: &'static str, usual: &'static str, reply: &'static str) -> Behaviour {
    Behaviour::default().times(command, usual, count).and(command, reply)
}

fn case(name: &'static str, usual: Behaviour, delivered: usize, charged: usize, connections: u32) -> Case {
    Case { name, first: None, usual, mails: 10, delivered, charged, connections }
}

/// Each mail is refused by its own reply, so each is charged, and the server is asked about all.
fn refused_one_by_one() -> Vec<Case> {
    [
        ("greylisting", "RCPT", "450 4.7.1 greylisted"),
        ("greylisting without an enhanced code", "RCPT", "450 greylisted"),
        ("greylisting by mailbox", "RCPT", "450 4.2.0 greylisted"),
        ("greylisting at the end of data", ".", "451 4.7.1 greylisted"),
        ("Outlook at RCPT", "RCPT", "451 4.7.500 server busy"),
        ("Exchange at the end of data", ".", "432 4.3.2 STOREDRV; concurrent connections"),
        ("a gateway without its backend", "RCPT", "451 4.3.0 temporary lookup failure"),
        ("a gateway without its backend, at the end", ".", "451 4.3.0 cannot reach the backend"),
        ("full mailboxes", "RCPT", "452 4.2.2 mailbox full"),
        ("full mailboxes, for good", "RCPT", "552 5.2.2 mailbox full"),
        ("a full server, at the end", ".", "452 4.3.1 no space"),
    ]
    .map(|(name, command, reply)| case(name, Behaviour::on(command, reply), 0, 10, 1))
    .into()
}

/// From the first mail on everything is refused: three have their own verdict, and then the server is left alone, so that the rest
/// has failed as a whole. Where a mail ends a connection, the mail may be to blame, so that it is tried with others.
fn refused_from_the_beginning() -> Vec<Case> {
    [
        ("Outlook at MAIL", "MAIL", "451 4.7.500 server busy", 1),
        ("Exchange at RCPT", "RCPT", "432 4.3.2 not accepting messages", 1),
        ("postscreen", "RCPT", "450 4.3.2 service currently unavailable", 1),
        ("a full server", "MAIL", "452 4.3.1 no space", 1),
        ("a gateway without its backend, at DATA", "DATA", "451 4.3.0 later", 1),
        ("Yahoo at MAIL", "MAIL", "421 4.7.0 deferred", 4),
        ("Yahoo at the greeting", "greeting", "421 4.7.0 deferred", 1),
        ("Gmail at the dot", ".", "421 4.7.28 unusual rate", 3),
    ]
    .map(|(name, command, reply, connections)| case(name, Behaviour::on(command, reply), 0, 10, connections))
    .into()
}

/// Each connection takes ten messages.
fn limited_by_connection() -> Vec<Case> {
    let servers = [
        ("Stalwart", takes(10, "DATA", "354 go", "451 4.4.5 session quota exceeded")),
        ("OpenSMTPD at MAIL", takes(10, "MAIL", "250 ok", "452 4.5.3 too many messages")),
        ("OpenSMTPD at RCPT", takes(10, "RCPT", "250 ok", "452 4.5.3 too many recipients")),
        ("without an enhanced code", takes(10, "RCPT", "250 ok", "452 too many recipients")),
        ("Yahoo at MAIL", takes(10, "MAIL", "250 ok", "421 4.7.0 enough")),
        ("421 to RCPT", takes(10, "RCPT", "250 ok", "421 4.7.0 too many errors")),
        ("cmail-smtpd", takes(10, "MAIL", "250 ok", "500 Too many failed commands")),
    ];
    let all_delivered = |(name, usual)| Case { mails: 150, ..case(name, usual, 150, 0, 15) };
    servers.map(all_delivered).into()
}

/// The first connection takes some messages, and from then on no connection takes any. Whom the server has refused on a new
/// connection is charged; the rest waits.
fn limited_by_time() -> Vec<Case> {
    let hourly = "450 4.7.1 more than 100 messages in an hour";
    [
        ("100 an hour", takes(100, "MAIL", "250 ok", hourly), ("MAIL", hourly), 110, 3, 2),
        (
            "a server that is full now",
            takes(5, "MAIL", "250 ok", "452 4.3.1 full"),
            ("MAIL", "452 4.3.1 full"),
            10,
            3,
            2,
        ),
        ("Yahoo at MAIL", takes(5, "MAIL", "250 ok", "421 enough"), ("MAIL", "421 enough"), 10, 0, 3),
        (
            "Yahoo at the greeting",
            takes(5, "MAIL", "250 ok", "421 enough"),
            ("greeting", "421 enough"),
            10,
            0,
            3,
        ),
        ("Gmail at the dot", takes(5, ".", "250 ok", "421 4.7.28 rate"), (".", "421 4.7.28 rate"), 10, 3, 3),
        ("one that is gone", takes(5, "MAIL", "250 ok", "drop"), ("EHLO", "drop"), 10, 0, 4),
    ]
    .map(|(name, first, (command, reply), mails, charged, connections)| {
        let delivered = if mails == 10 { 5 } else { 100 };
        let usual = Behaviour::on(command, reply);
        Case { name, first: Some(first), usual, mails, delivered, charged, connections }
    })
    .into()
}

/// Returns how many of the first mails have failed; none has more than once.
fn charged(world: &World, mails: usize) -> usize {
    let mut charged: Vec<i64> = Vec::new();
    for event in &world.events {
        if let Event::Failed { id, .. } = event {
            charged.push(id.0);
        }
    }
    charged.retain(|&id| id <= i64::try_from(mails).unwrap());
    let all = charged.len();
    charged.sort_unstable();
    charged.dedup();
    assert_eq!(charged.len(), all, "a mail is charged twice: {}", world.notes());
    all
}

#[test]
fn each_server_gets_what_it_takes_and_nobody_pays_for_another() {
    let cases =
        [refused_one_by_one(), refused_from_the_beginning(), limited_by_connection(), limited_by_time()];
    for case in cases.into_iter().flatten() {
        let mut world = World::with(one_at_a_time(), Mode::Daemon);
        let server = world.domain("example.org", "192.0.2.1");
        server.next.extend(case.first);
        server.usual = case.usual;
        for text in 0..case.mails {
            world.mail(SENDER, "a@example.org", &format!("{text}"));
        }
        // Shorter than a pause.
        world.input(Input::OutboxChanged);
        world.run_for(Duration::from_secs(30));
        let charged = charged(&world, case.mails);
        let delivered = world.server("192.0.2.1").accepted.len();
        let found = (delivered, charged, world.server("192.0.2.1").connections);
        let expected = (case.delivered, case.charged, case.connections);
        assert_eq!(found, expected, "delivered, charged, connections: {}\n{}", case.name, world.notes());
    }
}

#[test]
fn a_limit_of_each_connection_costs_no_mail_a_row_however_many_connections_there_are() {
    for usual in [
        takes(10, "DATA", "354 go", "451 4.4.5 session quota exceeded"),
        takes(10, "MAIL", "250 ok", "452 4.5.3 too many messages"),
        takes(10, "MAIL", "250 ok", "421 4.7.0 enough"),
    ] {
        let mut world = World::new();
        world.domain("example.org", "192.0.2.1").usual = usual;
        for text in 0..500 {
            world.mail(SENDER, "a@example.org", &format!("{text}"));
        }
        world.run();
        assert_eq!(world.outbox.deleted.len(), 500, "{}", world.notes());
        let server = world.server("192.0.2.1");
        assert!(server.connections <= 55, "{} connections", server.connections);
    }
}

#[test]
fn a_transaction_has_room_for_what_the_one_before_had_none_for() {
    // sendmail says 452 to recipients that follow an accepted one.
    let mut usual = Behaviour::default();
    for _ in 0..4 {
        usual = usual.times("RCPT", "250 ok", 3).times("RCPT", "452 4.5.3 too many recipients", 1);
    }
    let mut world = World::new();
    world.domain("example.org", "192.0.2.1").usual = usual;
    for name in 0..12 {
        world.mail(SENDER, &format!("{name}@example.org"), "x");
    }
    world.run();
    assert_eq!(world.outbox.deleted.len(), 12, "{}", world.notes());
    assert_eq!(world.server("192.0.2.1").connections, 1);
}

#[test]
fn recipients_behind_too_many_in_a_batch_are_not_charged_for_them() {
    // Twenty errors, and those that are too many are some.
    let usual = Behaviour::on("EHLO", "250-mx\r\n250 PIPELINING");
    let usual = usual
        .times("RCPT", "250 ok", 50)
        .times("RCPT", "452 4.5.3 too many", 20)
        .and("RCPT", "421 4.7.0 errors");
    let mut world = World::new();
    world.domain("example.org", "192.0.2.1").usual = usual;
    for name in 0..300 {
        world.mail(SENDER, &format!("{name}@example.org"), "x");
    }
    world.run();
    assert_eq!(world.outbox.deleted.len(), 300, "{}", world.notes());
    let server = world.server("192.0.2.1");
    assert!(server.connections <= 8, "{} connections", server.connections);
}

#[test]
fn a_mail_that_a_new_connection_refuses_too_was_meant_and_so_are_those_after_it() {
    let mut world = World::with(one_at_a_time(), Mode::Daemon);
    world.domain("example.org", "192.0.2.1").usual =
        Behaviour::on("MAIL FROM:<bad@", "451 4.7.1 not from you");
    let mut refused = Vec::new();
    for text in 0..20 {
        let is_bad = text % 5 == 4;
        let sender = if is_bad { "bad@example.net" } else { SENDER };
        let id = world.mail(sender, "a@example.org", &format!("{text}"));
        refused.extend(is_bad.then_some(id));
    }
    world.input(Input::OutboxChanged);
    world.run_for(Duration::from_secs(30));
    assert_eq!(world.outbox.deleted.len(), 16, "{}", world.notes());
    for id in refused {
        assert_eq!(world.failures(id).len(), 1, "{}", world.notes());
    }
    assert_eq!(world.server("192.0.2.1").connections, 2, "one more, to find out");
}

#[test]
fn a_refused_mail_goes_first_and_no_other_connection_is_made_before_it_is_answered() {
    let mut world = World::new();
    let server = world.domain("example.org", "192.0.2.1");
    server.next.push_back(takes(1, "MAIL", "250 ok", "451 4.4.5 enough"));
    server.next.push_back(Behaviour::on("greeting", "hang"));
    for text in 0..100 {
        world.mail(SENDER, &format!("{text}@example.org"), &format!("{text}"));
    }
    world.input(Input::OutboxChanged);
    world.run_for(Duration::from_secs(20));
    assert_eq!(world.server("192.0.2.1").connections, 2, "the second one is not answered");
    world.run();
    assert_eq!(world.outbox.deleted.len(), 100, "{}", world.notes());
    let mail_order: Vec<String> = world.server("192.0.2.1").recipients();
    assert_eq!(mail_order.iter().take(2).collect::<Vec<_>>(), ["0@example.org", "1@example.org"]);
}

#[test]
fn recipients_behind_the_eleventh_refusal_of_cmail_smtpd_are_delivered_by_another_connection() {
    for last in ["551 unknown\r\n500 Too many failed commands", "551 unknown"] {
        let mut world = World::new();
        let usual = Behaviour::default().times("RCPT TO:<bad", "551 unknown", 10);
        let usual = usual.times("RCPT TO:<bad", last, 1).and("RCPT", "500 Too many failed commands");
        world.domain("example.org", "192.0.2.1").next.push_back(usual);
        let bad: Vec<i64> =
            (0..11).map(|name| world.mail(SENDER, &format!("bad{name}@example.org"), "x")).collect();
        let good: Vec<i64> =
            (0..3).map(|name| world.mail(SENDER, &format!("good{name}@example.org"), "x")).collect();
        world.run();
        assert_eq!(world.server("192.0.2.1").connections, 2);
        assert_eq!(world.server("192.0.2.1").recipients().len(), good.len(), "{}", world.notes());
        let notes = world.notes();
        for id in bad {
            assert!(notes.contains(&format!("mail {id} ")) && notes.contains("551 unknown"), "{notes}");
        }
        assert!(!notes.contains("500 Too many"), "{notes}");
    }
}

#[test]
fn what_is_left_waits_without_a_row_for_longer_each_time_until_a_pass_ends_otherwise() {
    // Each pass takes one mail, and the next is refused by this and two more connections.
    let mut world = World::with(one_at_a_time(), Mode::Daemon);
    let refuses = Behaviour::on("MAIL", "421 4.7.0 enough");
    let pass = [takes(1, "MAIL", "250 ok", "421 4.7.0 enough"), refuses.clone(), refuses];
    let begun = |world: &World| -> Vec<u64> {
        world.attempts.iter().step_by(pass.len()).map(|(at, _)| at.as_micros() / 1_000_000).collect()
    };
    let server = world.domain("example.org", "192.0.2.1");
    for _ in 0..8 {
        server.next.extend(pass.clone());
    }
    for text in 0..10 {
        world.mail(SENDER, "a@example.org", &format!("{text}"));
    }
    world.run();
    assert_eq!(world.outbox.deleted.len(), 10, "{}", world.notes());
    let begun_at = begun(&world);
    let pauses: Vec<u64> = begun_at.windows(2).map(|pair| (pair[1] - pair[0]) / 60).collect();
    assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60], "minutes, up to retryinterval");
    assert!(world.notes().contains("takes no more for now: 421 4.7.0 enough"), "{}", world.notes());

    world.attempts.clear();
    world.server("192.0.2.1").next.extend(pass.clone());
    for text in 0..2 {
        world.mail(SENDER, "a@example.org", &format!("{text}"));
    }
    world.run();
    let begun_at = begun(&world);
    assert_eq!((begun_at[1] - begun_at[0]) / 60, 1, "it begins again");
}
