//! The limits that servers announce (RFC 9422).

use super::*;

/// A world with one relay that announces these limits.
fn relay_with(ehlo: &'static str) -> World {
    let mut world = World::with(settings(), Mode::Daemon);
    world.server("192.0.2.9").usual = Behaviour::on("EHLO", ehlo);
    world
}

fn mail(world: &mut World, recipient: &str, data: &str) {
    world.mail_by(Some("192.0.2.9:25"), SENDER, recipient, data);
}

#[test]
fn a_transaction_has_no_more_recipients_than_its_server_accepts() {
    let mut world = relay_with("250-mx\r\n250 LIMITS RCPTMAX=3");
    for number in 0..7 {
        mail(&mut world, &format!("x{number}@a.example"), "the same");
    }
    world.run();
    let server = world.server("192.0.2.9");
    let mut sizes: Vec<usize> = server.accepted.iter().map(|message| message.to.len()).collect();
    sizes.sort_unstable();
    assert_eq!(sizes, [1, 3, 3]);
    assert_eq!(server.count("RCPT"), 7, "no recipient is asked for in vain");
}

#[test]
fn a_connection_ends_after_as_many_messages_as_its_server_accepts() {
    for (own, ehlo, most) in [
        (None, "250-mx\r\n250 LIMITS MAILMAX=2", 2),
        (Some(5), "250-mx\r\n250 LIMITS MAILMAX=2", 2),
        (Some(2), "250-mx\r\n250 LIMITS MAILMAX=5", 2),
        (Some(2), "250-mx\r\n250 LIMITS MAILMAX=0", 2),
    ] {
        let mut world = relay_with(ehlo);
        world.dispatcher.books.config.settings.policy.messages = own;
        world.dispatcher.books.config.settings.policy.concurrency = 1;
        let settings = world.dispatcher.books.config.settings.clone();
        world.input(Input::Settings(Box::new(settings)));
        for number in 0..7 {
            mail(&mut world, "x@a.example", &format!("{number}"));
        }
        world.run();
        let server = world.server("192.0.2.9");
        assert_eq!((server.accepted.len(), server.connections), (7, 7_u32.div_ceil(most)), "{own:?} {ehlo}");
        assert_eq!(server.count("QUIT"), server.connections as usize, "each ends politely");
    }
}

#[test]
fn a_connection_carries_recipients_of_no_more_domains_than_its_server_accepts() {
    let mut world = relay_with("250-mx\r\n250-PIPELINING\r\n250 LIMITS RCPTDOMAINMAX=2");
    for (recipient, data) in [
        ("1@a.example", "the same"),
        ("2@A.EXAMPLE", "the same"),
        ("3@b.example", "the same"),
        ("4@c.example", "the same"),
        ("5@d.example", "other"),
        ("6@a.example", "other"),
        ("7@[192.0.2.1]", "third"),
    ] {
        mail(&mut world, recipient, data);
    }
    world.run();
    let server = world.server("192.0.2.9");
    assert_eq!(server.recipients().len(), 7);
    assert_eq!(server.count("RCPT"), 7, "no recipient is asked for in vain");
    let mut domains: Vec<Vec<String>> = Vec::new();
    for line in &server.commands {
        if line.starts_with("EHLO") {
            domains.push(Vec::new());
        } else if let Some(recipient) = line.strip_prefix("RCPT TO:") {
            let domain = recipient.split('@').nth(1).unwrap().to_ascii_lowercase();
            domains.last_mut().unwrap().push(domain);
        }
    }
    for of_connection in &mut domains {
        of_connection.sort_unstable();
        of_connection.dedup();
        assert!(of_connection.len() <= 2, "{of_connection:?}");
    }
}

#[test]
fn the_limits_of_the_last_ehlo_count() {
    let mut world = World::with(
        Settings {
            policy: Policy {
                ports: [Port { number: 25, tls: TlsMode::StartTls }].into(),
                ..settings().policy
            },
            ..settings()
        },
        Mode::Daemon,
    );
    world.domain("a.example", "192.0.2.9");
    let before = "250-mx\r\n250-STARTTLS\r\n250 LIMITS RCPTMAX=1 MAILMAX=1";
    world.server("192.0.2.9").usual =
        Behaviour::default().times("EHLO", before, 1).and("EHLO", "250-mx\r\n250 LIMITS RCPTMAX=2");
    for number in 0..4 {
        world.mail(SENDER, &format!("x{number}@a.example"), "the same");
    }
    world.run();
    let server = world.server("192.0.2.9");
    let sizes: Vec<usize> = server.accepted.iter().map(|message| message.to.len()).collect();
    assert_eq!((sizes, server.connections), (vec![2, 2], 1));
}
