//! Connections that end before their mail is decided.

use super::*;

fn texts(count: usize) -> Vec<String> {
    (0..count).map(|number| format!("message {number}")).collect()
}

#[test]
fn undecided_mail_goes_on_over_a_new_connection_after_progress() {
    let mut world = World::new();
    let server = world.domain("example.org", "192.0.2.1");
    server.usual = Behaviour::default().times("MAIL", "250 ok", 2).and("MAIL", "421 enough");
    for text in texts(9) {
        world.mail(SENDER, "a@example.org", &text);
    }
    world.run();
    assert!(world.outbox.mails.is_empty() && world.outbox.replaced.is_empty());
    assert!(world.server("192.0.2.1").connections >= 4);
}

#[test]
fn without_progress_it_goes_on_to_the_next_candidate_and_not_back() {
    let mut world = World::new();
    world.exchange("example.org", 10, "a.example", "192.0.2.1").usual = Behaviour::on("RCPT", "drop");
    world.exchange("example.org", 20, "b.example", "192.0.2.2");
    for text in texts(5) {
        world.mail(SENDER, "a@example.org", &text);
    }
    world.run();
    assert_eq!(world.outbox.deleted.len(), 5);
    assert_eq!(world.server("192.0.2.1").connections, 1);
}

#[test]
fn a_mail_that_kills_every_connection_fails_alone() {
    let hosts = [(10, "a.example", "192.0.2.1"), (20, "b.example", "192.0.2.2")];
    for (position, hosts) in [0, 3, 9].into_iter().flat_map(|at| [(at, &hosts[..1]), (at, &hosts[..])]) {
        let mut world = World::new();
        for &(preference, host, at) in hosts {
            world.exchange("example.org", preference, host, at).usual =
                Behaviour::on("MAIL FROM:<poison@", "drop");
        }
        let mut poison = 0;
        for (number, text) in texts(10).into_iter().enumerate() {
            if number == position {
                poison = world.mail("poison@origin.example", "a@example.org", &text);
            } else {
                world.mail(SENDER, "a@example.org", &text);
            }
        }
        world.run();
        assert_eq!(world.outbox.mails.keys().collect::<Vec<_>>(), [poison], "at {position}");
        let texts = world.failures(poison);
        assert_eq!(texts.len(), 1);
        assert!(texts[0].starts_with("Failed to reach any MX: "), "{texts:?}");
        assert_eq!(world.outbox.deleted.len(), 9);
    }
}

#[test]
fn several_mails_that_kill_every_connection_do_not_make_the_others_wait_for_ever() {
    let mut world = World::new();
    world.domain("example.org", "192.0.2.1").usual = Behaviour::on("MAIL FROM:<poison@", "drop");
    for text in texts(8) {
        world.mail("poison@origin.example", "a@example.org", &text);
    }
    for text in texts(20) {
        world.mail(SENDER, "a@example.org", &text);
    }
    world.run();
    assert_eq!(world.outbox.deleted.len(), 20);
    assert!(world.outbox.mails.values().all(|mail| mail.faillog.len() == 1));
}

#[test]
fn a_server_that_takes_nothing_is_not_asked_for_each_mail() {
    let mut world = World::new();
    world.domain("example.org", "192.0.2.1").usual = Behaviour::on("MAIL", "drop");
    for text in texts(300) {
        world.mail(SENDER, "a@example.org", &text);
    }
    world.run();
    assert!(world.outbox.mails.values().all(|mail| mail.faillog.len() == 1));
    assert!(world.server("192.0.2.1").connections < 20, "{}", world.server("192.0.2.1").connections);
}

#[test]
fn a_server_that_hangs_up_after_the_negotiation_is_not_tried_for_ever() {
    let mut world = World::new();
    world.slow.insert("claim", Duration::from_millis(50));
    let server = world.domain("example.org", "192.0.2.1");
    server.usual = Behaviour::on("EHLO", "250 hello\r\n421 and good bye");
    let id = world.mail(SENDER, "a@example.org", "x");
    world.run();
    assert_eq!(world.failures(id).len(), 1);
    assert!(world.server("192.0.2.1").connections <= 2);
}

#[test]
fn recipients_beyond_what_the_server_takes_go_into_the_next_transaction() {
    for code in ["452 too many", "552 too many"] {
        let mut world = World::new();
        let server = world.domain("example.org", "192.0.2.1");
        server.usual = Behaviour::default()
            .times("RCPT", "250 ok", 3)
            .times("RCPT", code, 1)
            .times("RCPT", "250 ok", 3)
            .times("RCPT", code, 1);
        for number in 0..8 {
            world.mail(SENDER, &format!("r{number}@example.org"), "same");
        }
        world.run();
        assert_eq!(world.outbox.deleted.len(), 8);
        assert_eq!(world.server("192.0.2.1").connections, 1);
    }
}

#[test]
fn a_first_recipient_that_is_one_too_many_fails_for_now() {
    let mut world = World::new();
    world.domain("example.org", "192.0.2.1").usual = Behaviour::on("RCPT", "552 too many");
    let id = world.mail(SENDER, "a@example.org", "x");
    world.run();
    assert_eq!(world.failures(id).len(), 1);
    assert!(!world.outbox.mails[&id].faillog[0].fatal);
    assert_eq!(world.server("192.0.2.1").count("DATA"), 0);
}

#[test]
fn mail_that_may_have_been_taken_is_not_sent_elsewhere() {
    let mut world = World::new();
    world.exchange("example.org", 10, "a.example", "192.0.2.1").usual = Behaviour::on(".", "drop");
    world.exchange("example.org", 20, "b.example", "192.0.2.2");
    let id = world.mail(SENDER, "a@example.org", "x");
    world.run();
    assert!(world.failures(id)[0].contains("delivery uncertain"), "{:?}", world.failures(id));
    assert!(world.server("192.0.2.2").accepted.is_empty());
}

#[test]
fn a_silent_server_is_given_up_phase_by_phase() {
    for command in ["greeting", "EHLO", "MAIL", "RCPT", "DATA", "."] {
        let mut world = World::new();
        world.domain("example.org", "192.0.2.1").usual = Behaviour::on(command, "hang");
        let id = world.mail(SENDER, "a@example.org", "x");
        world.run();
        assert_eq!(world.failures(id).len(), 1, "{command}");
        assert!(world.timeouts < 1000, "{}", world.timeouts);
    }
}

#[test]
fn a_connection_that_is_never_made_is_waited_for_30_seconds() {
    let mut world = World::with_brief_connections();
    world.exchange("example.org", 10, "a.example", "192.0.2.1").usual = Behaviour::connect(Connect::Silent);
    world.exchange("example.org", 20, "b.example", "192.0.2.2");
    let begin = world.now.monotonic;
    world.mail(SENDER, "a@example.org", "x");
    world.run();
    assert_eq!(world.server("192.0.2.2").accepted.len(), 1);
    let waited = world.now.monotonic.saturating_duration_since(begin);
    assert!(
        waited > Duration::from_secs(30) && waited < Duration::from_secs(31),
        "the port is not waited for again because it may be used without TLS: {waited:?}"
    );
}

#[test]
fn a_server_that_drops_padding_is_connected_to_once_more_without() {
    let mut settings = settings();
    settings.policy.padding = 1000;
    let mut world = World::with(settings, Mode::Daemon);
    let server = world.domain("example.org", "192.0.2.1");
    server.usual =
        Behaviour::on("EHLO", "250-mx\r\n250 STARTTLS").and("NOOP", "421 stop it").and("RSET", "drop");
    let id = world.mail(SENDER, "a@example.org", "x");
    world.run();
    assert_eq!(world.outbox.deleted, [id]);
    assert_eq!(world.server("192.0.2.1").connections, 2);
}

#[test]
fn a_server_that_drops_after_it_has_refused_padding_is_connected_to_once_more_without() {
    for (command, end) in [("MAIL", "drop"), ("MAIL", "421 enough"), ("RCPT", "drop"), ("DATA", "421 enough")]
    {
        let settings = Settings { policy: Policy { padding: 1000, ..settings().policy }, ..settings() };
        let mut world = World::with(settings, Mode::Daemon);
        let server = world.domain("example.org", "192.0.2.1");
        let usual =
            Behaviour::on("EHLO", "250-mx\r\n250 STARTTLS").and("NOOP", "502 no").and("RSET", "502 no");
        server.next.push_back(usual.clone().and(command, end));
        server.usual = usual;
        let id = world.mail(SENDER, "a@example.org", "x");
        world.run();
        assert_eq!(world.outbox.deleted, [id], "{command} {end}");
        let server = world.server("192.0.2.1");
        assert_eq!((server.connections, server.count("NOOP") + server.count("RSET")), (2, 1));
    }
}

#[test]
fn a_server_that_drops_again_without_padding_is_left() {
    let settings = Settings { policy: Policy { padding: 1000, ..settings().policy }, ..settings() };
    let mut world = World::with(settings, Mode::Daemon);
    let server = world.domain("example.org", "192.0.2.1");
    server.usual = Behaviour::on("EHLO", "250-mx\r\n250 STARTTLS")
        .and("NOOP", "502 no")
        .and("RSET", "502 no")
        .and("MAIL", "drop");
    let id = world.mail(SENDER, "a@example.org", "x");
    world.run();
    assert_eq!(world.failures(id).len(), 1);
    // With TLS padded and unpadded, and once on the port without TLS.
    assert_eq!(world.server("192.0.2.1").count("MAIL"), 3);
}

/// A world with a relay that has three addresses, and whose servers behave so.
fn relay_world(behaviour: &Behaviour) -> World {
    let mut world = World::with(Settings { auth_insecure: true, ..settings() }, Mode::Daemon);
    for at in ["192.0.2.1", "192.0.2.2", "192.0.2.3"] {
        world.addresses.entry("relay.example".into()).or_default().push(at.parse().unwrap());
        world.server(at).usual = behaviour.clone();
    }
    world
}

const RELAY: Option<&str> = Some("user:secret@relay.example:25");

fn logins(world: &mut World) -> Vec<String> {
    let servers = ["192.0.2.1", "192.0.2.2", "192.0.2.3"].map(|at| world.server(at).commands.clone());
    servers.concat().into_iter().filter(|line| line.starts_with("AUTH")).collect()
}

#[test]
fn a_relay_that_has_refused_the_credentials_twice_is_left_alone_for_the_pass() {
    for (offer, count) in [("PLAIN", 2), ("SCRAM-SHA-256 PLAIN", 2), ("CRAM-MD5 LOGIN", 2)] {
        let offer: &str = format!("250-mx\r\n250 AUTH {offer}").leak();
        let mut world = relay_world(&Behaviour::on("EHLO", offer).and("AUTH", "535 5.7.8 not you"));
        let id = world.mail_by(RELAY, SENDER, "a@example.org", "x");
        world.run();
        let failures = world.failures(id);
        assert!(failures.len() == 1 && failures[0].starts_with("535 5.7.8 not you"), "{failures:?}");
        assert_eq!(logins(&mut world).len(), count, "{offer}");
        assert!(world.outbox.deleted.is_empty());
    }
}

#[test]
fn the_mechanism_that_a_relay_has_taken_is_remembered() {
    let offer = "250-mx\r\n250 AUTH SCRAM-SHA-256 PLAIN";
    let behaviour =
        Behaviour::on("EHLO", offer).and("AUTH SCRAM", "535 5.7.8 no").and("AUTH PLAIN", "235 yes");
    let mut world = relay_world(&behaviour);
    for data in ["one", "two"] {
        world.mail_by(RELAY, SENDER, "a@example.org", data);
        world.run();
    }
    assert_eq!(world.outbox.deleted.len(), 2);
    let tried: Vec<String> = logins(&mut world).iter().map(|line| line[..10].to_owned()).collect();
    assert_eq!(tried, ["AUTH SCRAM", "AUTH PLAIN", "AUTH PLAIN"]);
}

#[test]
fn credentials_go_over_tls_with_a_valid_certificate_or_to_a_loopback_address_and_nowhere_else() {
    for (address, mode, certificate_is_valid, goes) in [
        ("192.0.2.2", "/starttls", true, true),
        ("192.0.2.2", "/starttls", false, false),
        ("192.0.2.2", "", true, false),
        ("127.0.0.2", "/starttls", false, true),
        ("127.0.0.2", "", false, true),
    ] {
        let mut world = World::new();
        let mut behaviour =
            Behaviour::on("EHLO", "250-mx\r\n250-STARTTLS\r\n250 AUTH PLAIN").and("AUTH", "235 ok");
        behaviour.certificate_is_valid = certificate_is_valid;
        world.server(address).usual = behaviour;
        let remote = format!("user:secret@{address}:25{mode}");
        world.mail_by(Some(&remote), SENDER, "a@example.org", "x");
        world.run_for(Duration::from_secs(60));
        let server = world.server(address);
        assert!(server.connections > 0, "{remote}");
        assert_eq!(server.count("AUTH") > 0, goes, "{remote} {certificate_is_valid}");
        assert_eq!(server.accepted.len(), usize::from(goes), "{remote} {certificate_is_valid}");
    }
}
