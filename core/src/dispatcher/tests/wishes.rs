//! What senders want to be told (RFC 3461).

use super::*;
use crate::dsn::{DsnWishes, EnvelopeId, MessageWishes, Notify};
use crate::tally::Fate;

/// A world with one destination whose server offers this, and a sender whose server is not there.
fn world(ehlo: &'static str) -> World {
    let mut world = World::new();
    world.domain("example.org", "192.0.2.1").usual = Behaviour::on("EHLO", ehlo);
    world.broken_names.insert("origin.example".into(), hickory_proto::op::ResponseCode::ServFail);
    world
}

fn mail(world: &mut World, recipient: &str, notify: Option<&str>) -> i64 {
    let id = world.mail(SENDER, recipient, "Subject: x\n\nhello");
    set_wishes(
        world,
        id,
        DsnWishes { notify: notify.map(|notify| Notify::parse(notify).unwrap()), ..DsnWishes::default() },
    );
    id
}

fn set_wishes(world: &mut World, id: i64, wishes: DsnWishes) {
    world.outbox.mails.get_mut(&id).unwrap().wishes = wishes;
}

/// Returns what was put into the outbox for the sender.
fn told(world: &World) -> Vec<String> {
    let own = world.outbox.mails.values().filter(|mail| mail.sender.is_none());
    own.map(|mail| String::from_utf8_lossy(&mail.data).into_owned()).collect()
}

#[test]
fn a_sender_who_wants_no_bounce_gets_none() {
    // RFC 3461 section 5.2.6
    for (notify, is_told) in
        [(Some("never"), false), (Some("success,delay"), false), (Some("failure"), true), (None, true)]
    {
        let mut world = world("250 mx");
        world.server("192.0.2.1").usual = Behaviour::on("RCPT", "550 5.1.1 no such user");
        let id = mail(&mut world, "a@example.org", notify);
        world.run();
        assert_eq!(
            (world.outbox.replaced.clone(), told(&world).len()),
            (vec![id], usize::from(is_told)),
            "{notify:?}"
        );
        let fate = if is_told { Fate::Bounced } else { Fate::Dropped };
        assert_eq!(world.dispatcher.tally().mails.of(fate), 1);
        let line = "deleted without a bounce, because its sender wants none (NOTIFY)";
        assert_eq!(world.events.iter().any(|event| event.to_string().contains(line)), !is_told);
    }
}

#[test]
fn a_bounce_names_only_the_recipients_whose_failure_is_wanted() {
    // RFC 3461 section 5.2.8
    let mut world = world("250 mx");
    world.server("192.0.2.1").usual = Behaviour::on("RCPT", "550 5.1.1 no such user");
    mail(&mut world, "a@example.org", Some("never"));
    mail(&mut world, "b@example.org", None);
    world.run();
    let told = told(&world);
    assert_eq!(told.len(), 1);
    assert!(told[0].contains("b@example.org") && !told[0].contains("a@example.org"), "{}", told[0]);
}

#[test]
fn a_delivery_is_reported_where_it_is_wanted_and_the_server_does_not_report_it() {
    // RFC 3461 section 5.2.2
    for (ehlo, notify, is_told) in [
        ("250 mx", Some("success"), true),
        ("250-mx\r\n250 DSN", Some("success"), false),
        ("250 mx", Some("failure"), false),
        ("250 mx", None, false),
    ] {
        let mut world = world(ehlo);
        let id = mail(&mut world, "a@example.org", notify);
        world.run();
        assert_eq!(world.outbox.deleted, [id]);
        let told = told(&world);
        assert_eq!(told.len(), usize::from(is_told), "{ehlo} {notify:?}");
        assert!(told.iter().all(|report| report.contains("Action: relayed")));
        assert_eq!(world.dispatcher.tally().reports.relay_reports, u64::from(is_told));
        let relayed = world.events.iter().filter(|event| matches!(event, Event::Relayed { .. })).count();
        assert_eq!(relayed, usize::from(is_told));
    }
}

#[test]
fn nothing_is_reported_to_the_null_sender() {
    let mut world = world("250 mx");
    let id = world.mail("", "a@example.org", "x");
    let notify = Some(Notify::parse("success,failure,delay").unwrap());
    set_wishes(&mut world, id, DsnWishes { notify, ..DsnWishes::default() });
    world.run();
    assert_eq!(told(&world), Vec::<String>::new());
}

#[test]
fn mails_with_other_ids_of_the_sender_go_in_transactions_of_their_own() {
    let mut world = world("250-mx\r\n250 DSN");
    for (recipient, envelope_id) in [("a", "x"), ("b", "x"), ("c", "y")] {
        let id = mail(&mut world, &format!("{recipient}@example.org"), None);
        let message = MessageWishes {
            sign: Default::default(),
            extent: None,
            envelope_id: EnvelopeId::parse(envelope_id).ok(),
        };
        set_wishes(&mut world, id, DsnWishes { message, ..DsnWishes::default() });
    }
    world.run();
    let server = world.server("192.0.2.1");
    let lines: Vec<&String> = server.commands.iter().filter(|line| line.starts_with("MAIL")).collect();
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert!(lines[0].ends_with("ENVID=x") && lines[1].ends_with("ENVID=y"), "{lines:?}");
    let sizes: Vec<usize> = server.accepted.iter().map(|message| message.to.len()).collect();
    assert_eq!(sizes, [2, 1]);
}
