//! Mail that is signed as it leaves (RFC 6376).

use super::*;
use crate::dkim::{Algorithm, KeyId, SignMark, SignedMail, SigningKey, SigningRules};
use crate::settings::Settings;
use crate::time::Duration;

const KEY: KeyId = KeyId(7);

/// A world whose mail of authors of origin.example may be signed.
fn world(mail: SignedMail) -> World {
    let domain = |text: &str| Domain::parse(text).unwrap();
    let (domain, selector, algorithm) = (domain("origin.example"), domain("s"), Algorithm::Ed25519Sha256);
    let rules = SigningRules { keys: vec![SigningKey { id: KEY, domain, selector, algorithm }], mail };
    let mut settings = Settings { signing: rules.into(), ..settings() };
    settings.bounces.from = "postmaster@origin.example".into();
    let mut world = World::with(settings, Mode::Daemon);
    world.domain("example.org", "192.0.2.1").usual = Behaviour::on("EHLO", "250-mx\r\n250 SIZE");
    world.domain("origin.example", "192.0.2.2");
    world
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
    world.refused_key = Some(KEY);
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
fn a_bounce_is_signed_and_leaves_unsigned_with_a_warning_where_that_fails() {
    for is_refused in [false, true] {
        let mut world = world(SignedMail::Marked);
        world.server("192.0.2.1").usual = Behaviour::on("RCPT", "550 5.1.1 no such user");
        world.refused_key = is_refused.then_some(KEY);
        mail(&mut world, TEXT, SignMark::Unmarked);
        world.run();
        let messages = accepted(&mut world, "192.0.2.2");
        assert_eq!(messages.len(), 1);
        assert_eq!(messages[0].starts_with("DKIM-Signature: v=1;"), !is_refused, "{}", messages[0]);
        let warned = |event: &Event| event.to_string().contains("leaves unsigned: the key is tired");
        assert_eq!(world.events.iter().any(warned), is_refused);
        assert!(world.outbox.mails.is_empty());
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
