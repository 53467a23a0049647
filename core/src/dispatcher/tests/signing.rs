//! Mail that is signed as it leaves (RFC 6376).

use super::*;
use crate::dkim::{Algorithm, KeyId, SignMark, SignedMail, SigningKey, SigningRules};
use crate::settings::Settings;
use crate::time::Duration;

const KEY: KeyId = KeyId(7);
const SECOND_KEY: KeyId = KeyId(8);

/// A key of origin.example.
fn key(id: KeyId) -> SigningKey {
    let domain = |text: &str| Domain::parse(text).unwrap();
    let (domain, selector) = (domain("origin.example"), domain("s"));
    SigningKey { id, domain, selector, algorithm: Algorithm::Ed25519Sha256 }
}

/// A world whose mail of authors of origin.example may be signed.
fn world(mail: SignedMail) -> World {
    let rules = SigningRules { keys: vec![key(KEY)], mail };
    let mut settings = Settings { signing: rules.into(), ..settings() };
    settings.bounces.from = "postmaster@origin.example".into();
    let mut world = World::with(settings, Mode::Daemon);
    world.domain("example.org", "192.0.2.1").usual = Behaviour::on("EHLO", "250-mx\r\n250 SIZE");
    world.domain("origin.example", "192.0.2.2");
    world
}

/// Gives the world other keys.
fn turn_to(world: &mut World, keys: &[KeyId]) {
    let mut settings = world.dispatcher.books.config.settings.clone();
    let keys = keys.iter().copied().map(key).collect();
    settings.signing = SigningRules { keys, ..(*settings.signing).clone() }.into();
    world.input(Input::Settings(Box::new(settings)));
}

fn tired() -> SignTrouble {
    SignTrouble::Failed("the key is tired".into())
}

fn notes(world: &World, text: &str) -> usize {
    world.events.iter().filter(|event| event.to_string().contains(text)).count()
}

fn mail(world: &mut World, text: &str, sign: SignMark) -> i64 {
    let id = world.mail(SENDER, "a@example.org", text);
    world.outbox.mails.get_mut(&id).unwrap().wishes.message.sign = sign;
    id
}

fn accepted(world: &mut World, at: &str) -> Vec<String> {
    world.server(at).accepted.iter().map(|message| message.data.clone()).collect()
}

const TEXT: &str = "From: x@origin.example\nSubject: x\n\nhello\n";

#[test]
fn marked_mail_and_with_from_all_mail_of_the_domain_is_signed() {
    for (rule, mark, text, is_signed) in [
        (SignedMail::Marked, SignMark::Wanted, TEXT, true),
        (SignedMail::Marked, SignMark::Unmarked, TEXT, false),
        (SignedMail::All, SignMark::Unmarked, TEXT, true),
        (SignedMail::All, SignMark::Wanted, "From: x@elsewhere.example\n\nhello\n", false),
    ] {
        let mut world = world(rule);
        mail(&mut world, text, mark);
        world.run();
        let messages = accepted(&mut world, "192.0.2.1");
        assert_eq!(messages.len(), 1, "{rule:?} {mark:?}");
        let wire = text.replace('\n', "\r\n");
        assert!(messages[0].ends_with(&wire), "{}", messages[0]);
        assert_eq!(messages[0].starts_with("DKIM-Signature: v=1; a=ed25519-sha256;"), is_signed);
        let size = format!("SIZE={}", messages[0].len());
        let commands = world.server("192.0.2.1").commands.clone();
        let mail = commands.iter().find(|line| line.starts_with("MAIL"));
        assert!(mail.unwrap().ends_with(&size), "{mail:?} {size}");
        assert!(world.outbox.mails.is_empty());
    }
}

#[test]
fn messages_of_equal_data_and_another_mark_do_not_share_a_transaction() {
    let mut world = world(SignedMail::Marked);
    mail(&mut world, TEXT, SignMark::Wanted);
    mail(&mut world, TEXT, SignMark::Unmarked);
    world.run();
    let messages = accepted(&mut world, "192.0.2.1");
    assert_eq!(messages.iter().filter(|text| text.starts_with("DKIM-Signature")).count(), 1);
    assert_eq!(messages.len(), 2);
}

#[test]
fn mail_that_cannot_be_signed_has_failed_for_now_and_holds_up_no_other() {
    let mut world = world(SignedMail::Marked);
    world.refused_keys.insert(KEY, tired());
    let id = mail(&mut world, TEXT, SignMark::Wanted);
    mail(&mut world, "From: x@elsewhere.example\n\nother\n", SignMark::Wanted);
    world.run();
    assert_eq!(accepted(&mut world, "192.0.2.1").len(), 1);
    assert!(world.outbox.mails[&id].faillog.iter().all(|failed| !failed.fatal));
    let failures = world.failures(id);
    assert_eq!(failures.len(), 1);
    assert!(failures[0].contains("the mail could not be signed (DKIM): the key is tired"), "{failures:?}");
    assert!(failures[0].contains("4.7.5"), "{failures:?}");
}

#[test]
fn a_bounce_leaves_with_the_signatures_that_can_be_made_and_a_warning_where_one_fails() {
    for (refused, count) in [(&[][..], 2), (&[KEY], 1), (&[SECOND_KEY], 1), (&[KEY, SECOND_KEY], 0)] {
        let mut world = world(SignedMail::Marked);
        turn_to(&mut world, &[KEY, SECOND_KEY]);
        world.server("192.0.2.1").usual = Behaviour::on("RCPT", "550 5.1.1 no such user");
        world.refused_keys.extend(refused.iter().map(|key| (*key, tired())));
        mail(&mut world, TEXT, SignMark::Unmarked);
        world.run();
        let messages = accepted(&mut world, "192.0.2.2");
        assert_eq!(messages.len(), 1);
        assert_eq!(messages[0].matches("DKIM-Signature: v=1;").count(), count, "{}", messages[0]);
        let warned = notes(&world, "leaves without a signature: the key is tired");
        assert_eq!(warned, usize::from(!refused.is_empty()));
        assert!(world.outbox.mails.is_empty());
    }
}

#[test]
fn mail_that_was_claimed_for_keys_of_before_is_claimed_anew_and_that_does_not_count() {
    let mut world = world(SignedMail::Marked);
    world.slow.insert("sign", Duration::from_secs(2));
    world.refused_keys.insert(KEY, SignTrouble::NoKey);
    let id = mail(&mut world, TEXT, SignMark::Wanted);
    world.input(Input::OutboxChanged);
    world.run_for(Duration::from_millis(1500));
    turn_to(&mut world, &[SECOND_KEY]);
    world.run();
    let messages = accepted(&mut world, "192.0.2.1");
    assert_eq!(messages.len(), 1);
    assert!(messages[0].starts_with("DKIM-Signature: v=1;"));
    assert_eq!(world.outbox.deleted, [id]);
    assert!(!world.events.iter().any(|event| matches!(event, Event::Failed { .. })));
}

#[test]
fn a_key_that_the_executor_lacks_is_a_failure_and_no_endless_loop() {
    let mut world = world(SignedMail::Marked);
    world.refused_keys.insert(KEY, SignTrouble::NoKey);
    let id = mail(&mut world, TEXT, SignMark::Wanted);
    world.run();
    assert_eq!(world.failures(id).len(), 1);
    assert!(accepted(&mut world, "192.0.2.1").is_empty());
}

#[test]
fn a_connection_that_is_closed_while_its_mail_is_signed_gives_it_to_another() {
    let mut world = world(SignedMail::Marked);
    world.exchange("example.org", 20, "second.example", "192.0.2.3");
    world.slow.insert("sign", Duration::from_secs(2));
    let id = mail(&mut world, TEXT, SignMark::Wanted);
    world.input(Input::OutboxChanged);
    world.run_for(Duration::from_millis(1500));
    let open: Vec<_> = world.server("192.0.2.1").open.iter().copied().collect();
    assert_eq!(open.len(), 1);
    world.disconnect(open[0]);
    world.input(Input::Closed(open[0], CloseReason::EndOfFile));
    world.run();
    assert_eq!(accepted(&mut world, "192.0.2.3").len(), 1);
    assert_eq!(world.outbox.deleted, [id]);
}

#[test]
fn marked_mail_that_leaves_unsigned_is_told_with_the_reason() {
    for (rule, mark, text, told) in [
        (
            SignedMail::Marked,
            SignMark::Wanted,
            "From: x@elsewhere.example\n\n",
            "there is no key of the domain elsewhere.example",
        ),
        (SignedMail::Marked, SignMark::Wanted, "Subject: x\n\n", "it has no From:"),
        (
            SignedMail::All,
            SignMark::Unmarked,
            "From: <x@origin.example> y\n\n",
            "its From: can be read in several ways",
        ),
        (SignedMail::All, SignMark::Unmarked, "From: x@elsewhere.example\n\n", ""),
        (SignedMail::Marked, SignMark::Unmarked, "Subject: x\n\n", ""),
    ] {
        let mut world = world(rule);
        let id = mail(&mut world, text, mark);
        world.run();
        assert_eq!(accepted(&mut world, "192.0.2.1").len(), 1);
        let all = notes(&world, "leaves without a signature (DKIM)");
        assert_eq!(all, usize::from(!told.is_empty()), "{text}");
        let note = format!("mail {id} leaves without a signature (DKIM): {told}");
        assert_eq!(notes(&world, &note), all, "{text}");
    }
}

#[test]
fn a_daemon_that_ends_while_mail_is_signed_releases_it() {
    let mut world = world(SignedMail::Marked);
    world.slow.insert("sign", Duration::from_secs(2));
    let id = mail(&mut world, TEXT, SignMark::Wanted);
    world.input(Input::OutboxChanged);
    world.run_for(Duration::from_millis(1500));
    assert_eq!(accepted(&mut world, "192.0.2.1").len(), 0);
    world.input(Input::Drain);
    world.run_for(Duration::from_secs(6));
    assert!(world.drained_at.is_some());
    assert!(world.outbox.held().is_empty() && world.outbox.mails[&id].faillog.is_empty());
}

#[test]
fn a_drain_waits_for_no_signature_and_gives_the_mail_back() {
    for drains_first in [false, true] {
        let mut world = world(SignedMail::Marked);
        world.slow.insert("sign", Duration::from_secs(600));
        if drains_first {
            world.slow.insert("claim", Duration::from_secs(2));
        }
        let id = mail(&mut world, TEXT, SignMark::Wanted);
        world.run_for(Duration::from_secs(1));
        world.input(Input::Drain);
        world.run_for(Duration::from_secs(3));
        assert!(world.drained_at.is_some(), "{drains_first}");
        assert!(world.outbox.held().is_empty());
        assert!(world.outbox.mails[&id].faillog.is_empty());
        assert_eq!(accepted(&mut world, "192.0.2.1").len(), 0);
    }
}
