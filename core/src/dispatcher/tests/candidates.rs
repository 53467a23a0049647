//! Which servers are tried, in which order, and what is said when none is left.

use hickory_proto::op::ResponseCode;

use super::*;
use crate::wording::faillog_text;

/// The only failure of a mail, and whether it is fatal.
fn failure(world: &mut World, recipient: &str) -> (String, bool) {
    failure_by(world, None, recipient)
}

fn failure_by(world: &mut World, remote: Option<&str>, recipient: &str) -> (String, bool) {
    // It is read from the event, as a fatal one is bounced at once; the null sender spares the bounce.
    let id = world.mail_by(remote, "", recipient, "x");
    world.run();
    let failures: Vec<(String, bool)> = world
        .events
        .iter()
        .filter_map(|event| {
            let Event::Failed { id: of, attempt, kind, .. } = event else { return None };
            let text = faillog_text(&attempt.result);
            (*of == MailId(id)).then(|| (text, *kind == FailureKind::Permanent))
        })
        .collect();
    assert_eq!(failures.len(), 1, "{failures:?}");
    failures[0].clone()
}

fn attempts(world: &World) -> Vec<String> {
    world.attempts.iter().map(|(_, remote)| remote.to_string()).collect()
}

#[test]
fn every_exchange_is_tried_on_every_port_at_every_address() {
    let mut settings = settings();
    settings.policy.ports =
        [Port { number: 465, tls: TlsMode::Implicit }, Port { number: 25, tls: TlsMode::Plain }].into();
    let mut world = World::with(settings, Mode::Daemon);
    world.exchange("example.org", 20, "second.example", "192.0.2.3");
    world.exchange("example.org", 10, "first.example", "192.0.2.1");
    world.addresses.get_mut("first.example").unwrap().push("2001:db8::1".parse().unwrap());
    for at in ["192.0.2.1", "192.0.2.3"] {
        world.server(at).usual = Behaviour::connect(Connect::Refused);
    }
    let (text, fatal) = failure(&mut world, "a@example.org");
    assert_eq!(
        attempts(&world),
        [
            "[2001:db8::1]:465",
            "192.0.2.1:465",
            "[2001:db8::1]:25",
            "192.0.2.1:25",
            "192.0.2.3:465",
            "192.0.2.3:25"
        ]
    );
    assert!(text.starts_with("Failed to reach any MX: first.example [2001:db8::1]:465: connection refused;"));
    assert!(!fatal);
}

#[test]
fn a_port_that_needs_no_tls_is_the_same_connection_where_starttls_is_not_offered() {
    let mut world = World::new();
    world.domain("example.org", "192.0.2.1");
    world.mail(SENDER, "a@example.org", "x");
    world.run();
    assert_eq!(world.server("192.0.2.1").connections, 1);
}

#[test]
fn where_starttls_is_offered_it_is_used_and_a_failed_handshake_leads_to_the_next_candidate() {
    let mut world = World::new();
    let server = world.domain("example.org", "192.0.2.1");
    server.usual = Behaviour::on("EHLO", "250-mx\r\n250 STARTTLS");
    let mut broken = server.usual.clone();
    broken.tls_fails = true;
    server.next.push_back(broken);
    world.mail(SENDER, "a@example.org", "x");
    world.run();
    let server = world.server("192.0.2.1");
    assert_eq!((server.connections, server.count("STARTTLS"), server.accepted.len()), (2, 1, 1));
}

#[test]
fn a_server_that_does_not_answer_a_large_first_message_of_tls_gets_a_small_one_before_anything_else() {
    use Groups::{All, Classic};
    for large_hello in [LargeHello::Ignored, LargeHello::Dropped, LargeHello::Reset] {
        let mut world = World::new();
        let server = world.exchange("example.org", 10, "a.example", "192.0.2.1");
        server.usual = Behaviour { large_hello, ..Behaviour::on("EHLO", "250-mx\r\n250 STARTTLS") };
        world.exchange("example.org", 20, "b.example", "192.0.2.2");
        for text in ["one", "two"] {
            world.mail(SENDER, "a@example.org", text);
            world.input(Input::OutboxChanged);
            world.run_for(Duration::from_secs(1000));
        }
        let server = world.server("192.0.2.1");
        let found = (server.accepted.len(), server.connections, server.groups.as_slice());
        assert_eq!(found, (2, 3, &[All, Classic, Classic][..]), "{large_hello:?}: it is remembered");
        assert_eq!(world.server("192.0.2.2").connections, 0);
    }
    // A server that answers is asked no more than before.
    let mut world = World::new();
    world.domain("example.org", "192.0.2.1").usual =
        Behaviour { tls_fails: true, ..Behaviour::on("EHLO", "250-mx\r\n250 STARTTLS") };
    world.mail(SENDER, "a@example.org", "x");
    world.run();
    let server = world.server("192.0.2.1");
    assert_eq!((server.groups.as_slice(), server.accepted.len()), (&[All][..], 1));
}

#[test]
fn all_refusals_of_the_greeting_are_fatal_only_together() {
    let mut world = World::new();
    world.exchange("example.org", 10, "a.example", "192.0.2.1").usual = Behaviour::on("greeting", "554 no");
    world.exchange("example.org", 20, "b.example", "192.0.2.2").usual = Behaviour::connect(Connect::Refused);
    let (text, fatal) = failure(&mut world, "a@example.org");
    assert!(text.starts_with("554 no\n(a.example [192.0.2.1]:25, "), "{text}");
    assert!(fatal, "the one that could be connected to has refused");

    let mut world = World::new();
    world.exchange("example.org", 10, "a.example", "192.0.2.1").usual = Behaviour::on("greeting", "554 no");
    world.exchange("example.org", 20, "b.example", "192.0.2.2").usual = Behaviour::on("greeting", "421 busy");
    assert!(!failure(&mut world, "a@example.org").1);
}

#[test]
fn a_refusal_is_not_fatal_where_the_server_has_taken_mail_before() {
    let mut world = World::new();
    let server = world.domain("example.org", "192.0.2.1");
    server.next.push_back(Behaviour::default().times("MAIL", "250 ok", 1).and("MAIL", "drop"));
    server.usual = Behaviour::on("greeting", "554 no more today");
    let ids = [1, 2].map(|number| world.mail(SENDER, "a@example.org", &format!("{number}")));
    world.run();
    assert_eq!(world.outbox.deleted, [ids[0]]);
    assert!(!world.outbox.mails[&ids[1]].faillog[0].fatal);
}

#[test]
fn helo_is_said_on_the_same_connection_when_ehlo_is_refused() {
    let mut world = World::new();
    world.domain("example.org", "192.0.2.1").usual = Behaviour::on("EHLO", "502 what?");
    world.mail(SENDER, "a@example.org", "x");
    world.run();
    let server = world.server("192.0.2.1");
    assert_eq!((server.connections, server.accepted.len()), (1, 1));
}

#[test]
fn a_domain_that_does_not_resolve_is_fatal_only_if_that_is_certain() {
    let mut world = World::new();
    let (text, fatal) = failure(&mut world, "a@nowhere.example");
    assert!(text.starts_with("Failed to resolve recipient domain: ") && fatal, "{text}");

    world.exchanges.insert("null.example".into(), vec![(0, String::new())]);
    let (text, fatal) = failure(&mut world, "a@null.example");
    assert!(text.starts_with("Failed to resolve recipient domain: ") && fatal, "{text}");

    world.exchanges.insert("empty.example".into(), Vec::new());
    let (text, fatal) = failure(&mut world, "a@empty.example");
    assert!(text.starts_with("Failed to resolve recipient domain: ") && fatal, "{text}");

    world.broken_names.insert("broken.example".into(), ResponseCode::ServFail);
    let (text, fatal) = failure(&mut world, "a@broken.example");
    assert!(text.starts_with("Failed to resolve recipient domain: ") && !fatal, "{text}");
}

#[test]
fn exchanges_without_addresses_are_a_temporary_failure() {
    let mut world = World::new();
    world.exchanges.insert("example.org".into(), vec![(10, "mx.example".into())]);
    let (text, fatal) = failure(&mut world, "a@example.org");
    assert_eq!(text, "Failed to reach any MX: the host mx.example does not exist [4.4.3]");
    assert!(!fatal);
}

#[test]
fn a_domain_without_mx_records_is_its_own_host() {
    let mut world = World::new();
    world.addresses.insert("example.org".into(), vec!["192.0.2.1".parse().unwrap()]);
    world.mail(SENDER, "a@example.org", "x");
    world.mail(SENDER, "a@[192.0.2.1]", "x");
    world.server("192.0.2.1");
    world.run();
    assert_eq!(world.server("192.0.2.1").accepted.len(), 2);
}

#[test]
fn a_backup_never_sends_to_itself_but_the_best_host_does() {
    let mut world = World::new();
    world.exchange("example.org", 10, "best.example", "192.0.2.1").usual =
        Behaviour::connect(Connect::Refused);
    world.exchange("example.org", 20, "me.example", "192.0.2.2");
    assert!(failure(&mut world, "a@example.org").0.starts_with("Failed to reach any MX"));
    assert_eq!(world.server("192.0.2.2").connections, 0);
    world.exchanges.insert("own.example".into(), vec![(5, "me.example".into())]);
    world.mail(SENDER, "a@own.example", "x");
    world.run();
    assert_eq!(world.server("192.0.2.2").accepted.len(), 1);
}

#[test]
fn relays_are_found_by_address_records_and_the_file_of_hosts() {
    let mut world = World::new();
    world.addresses.insert("relay.example".into(), vec!["192.0.2.1".parse().unwrap()]);
    let listed = Domain::parse("listed").unwrap();
    world.input(Input::Hosts(Hosts::from([(listed, vec!["192.0.2.2".parse().unwrap()])])));
    for at in ["192.0.2.1:2525", "192.0.2.2:25"] {
        world.servers.entry(at.parse().unwrap()).or_default();
    }
    world.mail_by(Some("relay.example:2525"), SENDER, "a@nowhere.example", "x");
    world.mail_by(Some("LISTED"), SENDER, "no-domain", "x");
    world.mail(SENDER, "a@listed", "x");
    world.run();
    assert_eq!(world.server("192.0.2.1:2525").recipients(), ["a@nowhere.example"]);
    assert_eq!(world.server("192.0.2.2").recipients(), ["no-domain"], "the file is only for relays");
}

#[test]
fn relays_that_cannot_be_used_are_temporary_failures() {
    let mut world = World::new();
    let nowhere = ["0.0.0.0", "::"].map(|address| address.parse().unwrap()).to_vec();
    world.input(Input::Hosts(Hosts::from([(Domain::parse("blocked").unwrap(), nowhere)])));
    world.addresses.insert("blocked".into(), vec!["192.0.2.2".parse().unwrap()]);
    let start = "Failed to connect or negotiate with handoff remote: ";
    for (remote, what) in [
        ("relay.example", "does not exist"),
        ("user@relay.example", "malformed remote specification"),
        ("relay.example:99999", "malformed remote specification"),
        ("192.0.2.1:25", "connection refused"),
        ("0.0.0.0:25", "mail cannot be sent to the address"),
        ("blocked", "the host blocked has no address that mail can be sent to"),
    ] {
        let (text, fatal) = failure_by(&mut world, Some(remote), "a@example.org");
        assert!(text.starts_with(start) && text.contains(what) && !fatal, "{text}");
    }
    world.server("192.0.2.2");
    let (text, fatal) = failure_by(&mut world, Some("user:secret@192.0.2.2:25"), "a@example.org");
    assert!(text.starts_with(start) && !text.contains("secret") && !fatal, "{text}");
}

#[test]
fn addresses_that_cannot_be_sent_are_fatal_failures() {
    let mut world = World::new();
    world.domain("example.org", "192.0.2.1");
    for recipient in
        ["a b@example.org", "a\r\nQUIT@example.org", "", "nobody", "a@b..c", "a@[1.2.3]", "a@[0.0.0.0]"]
    {
        let (_, fatal) = failure(&mut world, recipient);
        assert!(fatal, "{recipient:?}");
    }
    let id = world.mail("bad sender@origin.example", "a@example.org", "x");
    world.run();
    assert!(
        world.notes().contains(&format!(
            "mail {id} to <a@example.org> failed permanently: the sender cannot be named"
        ))
    );
    assert_eq!(world.server("192.0.2.1").connections, 0);
}
