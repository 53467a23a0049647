//! What the administrator is told: of each mail whose it is, where its bounce is, and how it was protected.

use super::*;
use crate::attempt::AttemptKind;
use crate::tally::{AttemptResult, ConnectionFailure, Fate, Finality, LookupResult, TlsSession};

/// The lines about mails, as the log has them.
fn lines_of_mail(world: &World) -> Vec<String> {
    let events = world.events.iter().filter(|event| !matches!(event, Event::Note { .. }));
    events.map(ToString::to_string).filter(|line| line.starts_with("mail ")).collect()
}

fn warnings(world: &World) -> Vec<String> {
    let is_note = |event: &&Event| matches!(event, Event::Note { level: Level::Warning, .. });
    world.events.iter().filter(is_note).map(ToString::to_string).collect()
}

#[test]
fn a_mail_is_found_by_its_recipient_whatever_has_failed() {
    let mut world = World::new();
    world.domain("refusing.example", "192.0.2.1").usual = Behaviour::on("RCPT", "550-no\r\n550 never");
    world.domain("closed.example", "192.0.2.2").usual = Behaviour::connect(Connect::Refused);
    world.domain("origin.example", "192.0.2.3");
    let broken =
        ["bob@missing.example", "bob@refusing.example", "bob@closed.example", "bob@", "bob@re fusing"];
    let ids: Vec<i64> = broken.iter().map(|to| world.mail(SENDER, to, to)).collect();
    world.run();
    let lines = lines_of_mail(&world);
    for (id, recipient) in ids.iter().zip(broken) {
        let begin = format!("mail {id} to <{recipient}> ");
        assert!(lines.iter().any(|line| line.starts_with(&begin)), "{begin}: {lines:#?}");
    }
    assert!(lines.iter().all(|line| line.contains("to <") && !line.contains('\n')), "{lines:#?}");
    let refused =
        "failed permanently: 550-no / 550 never (mx.refusing.example [192.0.2.1]:25, in reply to RCPT TO)";
    assert!(lines.iter().any(|line| line.ends_with(refused)), "{lines:#?}");
}

#[test]
fn a_mail_leads_to_its_bounce() {
    let mut settings = settings();
    settings.bounces.copies = vec!["copy@origin.example".into()];
    let mut world = World::with(settings, Mode::Daemon);
    world.domain("origin.example", "192.0.2.3");
    let id = world.mail(SENDER, "bob@missing.example", "x");
    world.run();
    let (sender, copy) = (id + 1, id + 2);
    let expected = format!(
        "mail {id} to <bob@missing.example> given up, bounce {sender} goes to <{SENDER}>, \
         bounce {copy} goes to <copy@origin.example>"
    );
    assert!(lines_of_mail(&world).contains(&expected), "{:#?}", lines_of_mail(&world));
    assert_eq!(world.outbox.deleted, [sender, copy]);
}

#[test]
fn mail_that_goes_in_plain_text_because_tls_has_failed_is_a_warning_once_in_an_hour() {
    let mut failing = Behaviour::on("EHLO", "250-mx\r\n250 STARTTLS");
    failing.tls_fails = true;
    for (behaviour, reason) in [
        (failing, "the TLS handshake failed: handshake failure"),
        (
            Behaviour::on("EHLO", "250-mx\r\n250 STARTTLS").and("STARTTLS", "454 4.7.0 not \"now\""),
            "454 4.7.0 not \"now\" in reply to STARTTLS",
        ),
    ] {
        let mut world = World::with_brief_connections();
        world.domain("example.org", "192.0.2.1").usual = behaviour;
        let expected = format!("mx.example.org [192.0.2.1]:25: mail goes in plain text: {reason}");
        for (passed_s, count) in [(0, 1), (600, 1), (4000, 2)] {
            world.run_for(Duration::from_secs(passed_s));
            let id = world.mail(SENDER, "a@example.org", "x");
            world.run_for(Duration::from_secs(60));
            assert!(world.outbox.deleted.contains(&id));
            assert_eq!(warnings(&world), vec![expected.clone(); count], "{passed_s}");
        }
        let line = lines_of_mail(&world).pop().unwrap();
        assert!(
            line.ends_with("delivered to mx.example.org [192.0.2.1]:25 in plain text: 250 taken"),
            "{line}"
        );
    }
}

#[test]
fn a_server_that_does_not_offer_starttls_is_no_warning() {
    let mut world = World::new();
    world.domain("example.org", "192.0.2.1");
    world.mail(SENDER, "a@example.org", "x");
    world.run();
    assert!(warnings(&world).is_empty(), "{:?}", warnings(&world));
}

#[test]
fn a_delivery_says_what_protected_it() {
    for (certificate_is_valid, how) in [(true, "verified"), (false, "unverified")] {
        let mut world = World::new();
        let server = world.domain("example.org", "192.0.2.1");
        server.usual = Behaviour::on("EHLO", "250-mx\r\n250 STARTTLS");
        server.usual.certificate_is_valid = certificate_is_valid;
        world.mail(SENDER, "a@example.org", "x");
        world.run();
        let expected = format!(
            "mail 1 to <a@example.org> delivered to mx.example.org [192.0.2.1]:25 over TLSv1.3, {how}: 250 taken"
        );
        assert_eq!(lines_of_mail(&world), [expected]);
    }
}

#[test]
fn what_became_of_mail_is_counted() {
    let mut world = World::new();
    world.domain("refusing.example", "192.0.2.1").usual = Behaviour::on("RCPT", "550 no");
    world.domain("later.example", "192.0.2.2").usual = Behaviour::on("RCPT", "450 later");
    world.domain("origin.example", "192.0.2.3");
    for to in ["a@refusing.example", "b@later.example", "c@origin.example"] {
        world.mail(SENDER, to, to);
    }
    world.mail("", "d@refusing.example", "x");
    world.run_for(Duration::from_secs(60));
    // The bounce is delivered too.
    let tally = world.dispatcher.tally();
    let results = [
        (AttemptResult::Delivered, 2),
        (AttemptResult::Deferred, 1),
        (AttemptResult::Failed, 2),
        (AttemptResult::Uncertain, 0),
    ];
    for (result, count) in results {
        assert_eq!(tally.attempts.of(result), count, "{result:?}");
    }
    for (fate, count) in [(Fate::Delivered, 2), (Fate::Bounced, 1), (Fate::Dropped, 1)] {
        assert_eq!(tally.mails.of(fate), count, "{fate:?}");
    }
    let of_recipient = |finality| (AttemptKind::Recipient, finality);
    let failures: Vec<_> = tally.failures.iter().collect();
    assert_eq!(failures, [(of_recipient(Finality::Temporary), 1), (of_recipient(Finality::Permanent), 2)]);
    assert_eq!(
        (tally.reports.bounces, tally.transactions, tally.connections.pushbacks, tally.store_errors),
        (1, 5, 0, 0)
    );
    assert_eq!(tally.connections.opened.of(TlsMode::Plain), tally.connections.opened.total());
    assert_eq!(tally.connections.failed.total(), 0);
    assert_eq!(tally.delays.queue.count(), 5, "each mail was waited for once");
    // MX and two families of addresses for each of three domains, whether asked or known.
    assert!(tally.lookups.of(LookupResult::Answered) >= 6, "{:?}", tally.lookups);
    assert_eq!(tally.lookups.of(LookupResult::Failed), 0);
}

#[test]
fn connections_are_counted_by_what_they_became() {
    let mut world = World::new();
    let secure = world.domain("secure.example", "192.0.2.1");
    secure.usual = Behaviour::on("EHLO", "250-mx\r\n250 STARTTLS");
    world.domain("rude.example", "192.0.2.2").usual = Behaviour::on("greeting", "554 no");
    world.mail(SENDER, "a@secure.example", "x");
    world.mail(SENDER, "b@rude.example", "x");
    world.run();
    let tally = world.dispatcher.tally();
    assert_eq!(tally.connections.opened.iter().collect::<Vec<_>>(), [(TlsMode::StartTls, 1)]);
    let refused = tally.connections.failed.of(ConnectionFailure::Refused);
    assert!(refused > 0 && refused == tally.connections.failed.total(), "{:?}", tally.connections.failed);
    let sessions: Vec<_> = tally.connections.tls_sessions.iter().collect();
    let session =
        TlsSession { version: TlsVersion::V1_3, proved: crate::tls::Proved::Unverified, is_resumed: false };
    assert_eq!(sessions, [(session, 1)]);
}

#[test]
fn mail_is_counted_by_place_destination_and_age() {
    let mut world = World::new();
    world.domain("later.example", "192.0.2.2").usual = Behaviour::on("RCPT", "450 later");
    world.domain("closed.example", "192.0.2.3").usual = Behaviour::connect(Connect::Refused);
    for to in
        ["a@later.example", "b@later.example", "c@closed.example", "d@closed.example", "e@later.example"]
    {
        world.mail(SENDER, to, to);
    }
    world.run_for(Duration::from_secs(60));
    let standing = world.dispatcher.standing();
    assert_eq!(standing.mails, MailPlaces { waiting: 5, ..MailPlaces::default() });
    assert_eq!((standing.destinations.troubled, standing.pending_verdicts), (1, 0));
    let hosts = world.dispatcher.hosts_in_trouble();
    assert_eq!(hosts.len(), 1, "{hosts:?}");
    assert_eq!(hosts[0].remote, SocketAddr::from(([192, 0, 2, 3], 25)));
    let mut survey = Survey::new(vec![MailId(4), MailId(2)]);
    let mut pieces = 1;
    while world.dispatcher.go_on_with(&mut survey, 2) {
        pieces += 1;
    }
    assert_eq!((pieces, survey.total()), (3, &[2, 2, 1][..]));
    let rows = world.dispatcher.largest_of(&survey, 2);
    let row = |name: &str, ages: [u64; 3]| SurveyRow { name: name.into(), ages: ages.into() };
    assert_eq!(rows, [row("later.example", [1, 1, 1]), row("closed.example", [1, 1, 0])]);
    assert_eq!(world.dispatcher.largest_of(&survey, 1).len(), 1);
}
