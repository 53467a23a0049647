//! TLSA records decide how a host is spoken with (RFC 7672), where `tls_policy` says so.

use std::sync::Arc;

use hickory_proto::op::ResponseCode;

use super::*;
use crate::tls::{Fallback, InsecureMx, Level, TlsPolicy, TlsaRecord};
use crate::wording::faillog_text;

/// The key that the records name.
const KEY: u8 = 7;

fn dane() -> Level {
    Level::Dane { otherwise: Fallback::May, insecure_mx: InsecureMx::Dane }
}

/// `3 1 1` with the digest of a key.
fn record(key: u8) -> TlsaRecord {
    TlsaRecord { usage: 3, selector: 1, matching: 1, data: Bytes::from(vec![key; 32]) }
}

/// A server with the key that the records name.
fn friendly() -> Behaviour {
    Behaviour { key: KEY, ..Behaviour::on("EHLO", "250-mx\r\n250 STARTTLS") }
}

/// A domain with one host, all of it secure, whose name server is believed.
fn world(level: Level) -> World {
    let mut settings = with_policy(|policy| {
        policy.tls = Arc::new(TlsPolicy { level, ..TlsPolicy::default() });
        policy.idle = Duration::ZERO;
    });
    settings.resolver.servers[0].is_believed = true;
    let mut world = World::with(settings, Mode::Daemon);
    for name in ["", "example.org", "mx.example.org", "_25._tcp.mx.example.org", "_587._tcp.mx.example.org"] {
        world.signed.insert(name.into());
    }
    world.domain("example.org", "192.0.2.1").usual = friendly();
    world
}

fn with_records(level: Level, records: &[TlsaRecord]) -> World {
    let mut world = world(level);
    world.certificates.insert("_25._tcp.mx.example.org".into(), records.into());
    world
}

/// Sends a mail, and returns the first line that tells what became of it: the proof, or the failure.
fn fate(world: &mut World) -> String {
    let id = world.mail("a@example.net", "b@example.org", "x");
    world.run();
    let fate = world.events.iter().find_map(|event| {
        if let Event::Delivered { id: of, attempt, .. } = event
            && *of == MailId(id)
        {
            let tls = attempt.result.server.tls;
            return Some(tls.map_or("plain text".to_owned(), |tls| tls.proved.name().to_owned()));
        }
        let Event::Failed { id: of, attempt, kind, .. } = event else { return None };
        assert_eq!(*kind, FailureKind::Temporary, "a policy never makes mail fail for good");
        (*of == MailId(id)).then(|| faillog_text(&attempt.result))
    });
    fate.unwrap_or_else(|| panic!("nothing became of it: {}", world.notes()))
}

#[test]
fn a_server_that_the_records_name_gets_the_mail() {
    for level in [dane(), Level::DaneOnly] {
        let mut world = with_records(level, &[record(9), record(KEY)]);
        assert_eq!(fate(&mut world), "DANE-EE");
        assert_eq!(world.asked_for_tlsa, ["_25._tcp.mx.example.org"]);
    }
}

#[test]
fn a_server_that_the_records_do_not_name_gets_nothing_and_changed_records_are_seen_at_once() {
    let mut world = with_records(dane(), &[record(9)]);
    let text = fate(&mut world);
    assert!(text.contains("mx.example.org [192.0.2.1]:25"), "{text}");
    assert!(text.contains("none of the TLSA records"), "{text}");
    assert_eq!(world.attempts.len(), 1, "there is no way around it in plain text");
    assert!(world.server("192.0.2.1").accepted.is_empty());
    // The next pass does not go by what the resolver remembers.
    world.certificates.insert("_25._tcp.mx.example.org".into(), vec![record(KEY)]);
    world.run_for(Duration::from_secs(4000));
    assert_eq!(world.server("192.0.2.1").accepted.len(), 1, "{}", world.notes());
}

#[test]
fn a_server_that_offers_no_tls_gets_nothing_where_there_are_records() {
    for records in [&[record(KEY)][..], &[TlsaRecord { usage: 1, ..record(KEY) }]] {
        let mut world = with_records(dane(), records);
        let usual = Behaviour { key: KEY, ..Behaviour::on("EHLO", "250 mx.example.org") };
        world.server("192.0.2.1").usual = usual;
        let text = fate(&mut world);
        assert!(text.contains("STARTTLS is not offered"), "{text}");
        assert!(world.server("192.0.2.1").accepted.is_empty());
    }
}

#[test]
fn records_of_which_none_is_usable_demand_encryption_and_prove_nothing() {
    let unusable = [TlsaRecord { usage: 0, ..record(9) }, TlsaRecord { data: Bytes::new(), ..record(9) }];
    assert_eq!(fate(&mut with_records(dane(), &unusable)), "unverified");
    let mut world = with_records(Level::DaneOnly, &unusable);
    let text = fate(&mut world);
    assert!(text.contains("has no TLSA records that can be used"), "{text}");
    assert_eq!(world.attempts, [], "nothing is even connected to");
}

#[test]
fn without_records_it_is_as_the_level_says() {
    assert_eq!(fate(&mut world(dane())), "unverified");
    let mut plain = world(dane());
    plain.server("192.0.2.1").usual = Behaviour::on("EHLO", "250 mx.example.org");
    assert_eq!(fate(&mut plain), "plain text");
    let otherwise = Level::Dane { otherwise: Fallback::Encrypt, insecure_mx: InsecureMx::Dane };
    let mut encrypted = world(otherwise);
    encrypted.server("192.0.2.1").usual = Behaviour::on("EHLO", "250 mx.example.org");
    assert!(fate(&mut encrypted).contains("STARTTLS is not offered"));
    let text = fate(&mut world(Level::DaneOnly));
    assert!(text.contains("the host mx.example.org has no TLSA records that can be used"), "{text}");
}

#[test]
fn a_lookup_of_records_that_fails_rules_the_host_out_and_the_next_one_is_tried() {
    let mut world = with_records(dane(), &[record(KEY)]);
    world.broken_names.insert("_25._tcp.mx.example.org".into(), ResponseCode::ServFail);
    let text = fate(&mut world);
    assert!(
        text.contains(
            "looking up the TLSA records of _25._tcp.mx.example.org failed: name server 192.0.2.53:53 answered SERVFAIL"
        ),
        "{text}"
    );
    assert_eq!(world.attempts, []);
    world.exchange("example.org", 20, "second.example", "192.0.2.2");
    world.run_for(Duration::from_secs(4000));
    assert_eq!(world.server("192.0.2.2").accepted.len(), 1, "{}", world.notes());
    assert!(world.server("192.0.2.1").accepted.is_empty());
}

#[test]
fn what_anybody_may_have_said_does_not_make_mail_fail_for_good() {
    let refusal = |greeting| Behaviour { key: KEY, ..Behaviour::on("greeting", greeting) };
    // `fate` asserts that each failure is temporary.
    for level in [Level::Encrypt, Level::Verify([].into()), Level::DaneOnly] {
        let mut world = with_records(level, &[record(KEY)]);
        world.server("192.0.2.1").usual = refusal("554 5.7.1 go away");
        let text = fate(&mut world);
        assert!(text.starts_with("554 5.7.1 go away"), "{text}");
    }
    // What the server itself says is its last word, inside TLS.
    let mut settings = with_policy(|policy| {
        policy.tls = Arc::new(TlsPolicy { level: Level::Encrypt, ..TlsPolicy::default() });
        policy.ports = [Port { number: 465, tls: TlsMode::Implicit }].into();
    });
    settings.resolver.servers[0].is_believed = true;
    let mut world = World::with(settings, Mode::Daemon);
    world.domain("example.org", "192.0.2.1");
    world.server("192.0.2.1:465").usual = refusal("554 5.7.1 go away");
    let id = world.mail("", "b@example.org", "x");
    world.run();
    let is_fatal = |event: &Event| matches!(event, Event::Failed { id: of, kind: FailureKind::Permanent, .. } if *of == MailId(id));
    assert!(world.events.iter().any(is_fatal), "{}", world.notes());
    // A host that was left out might have taken the mail.
    let mut world = with_records(dane(), &[record(KEY)]);
    world.broken_names.insert("_25._tcp.mx.example.org".into(), ResponseCode::ServFail);
    world.exchange("example.org", 20, "second.example", "192.0.2.2").usual = refusal("554 no");
    let text = fate(&mut world);
    assert!(text.starts_with("554 no"), "{text}");
}

#[test]
fn records_that_have_changed_are_seen_while_mail_never_ceases() {
    let mut world = with_records(dane(), &[record(KEY)]);
    let mut settings = with_policy(|policy| {
        policy.tls = Arc::new(TlsPolicy { level: dane(), ..TlsPolicy::default() });
        policy.messages = Some(1);
        policy.rate_limit = Some(RateLimit { transactions: 1, per: Duration::from_secs(1) });
    });
    settings.resolver.servers[0].is_believed = true;
    world.input(Input::Settings(Box::new(settings)));
    // Each mail has a connection of its own, and there is one in a second.
    for number in 0..4500 {
        world.mail("a@example.net", "b@example.org", &format!("{number}"));
    }
    world.run_for(Duration::from_secs(5));
    world.certificates.insert("_25._tcp.mx.example.org".into(), vec![record(9)]);
    world.run_for(Duration::from_secs(80 * 60));
    let taken = world.server("192.0.2.1").accepted.len();
    assert!((3000..4000).contains(&taken), "{taken}");
    let text = world.notes();
    assert!(text.contains("none of the TLSA records"), "{text}");
}

#[test]
fn hosts_that_are_not_secure_are_not_asked_for_records() {
    let mut world = with_records(dane(), &[record(9)]);
    world.signed.remove("mx.example.org");
    assert_eq!(fate(&mut world), "unverified");
    assert_eq!(world.asked_for_tlsa, [""; 0]);
}

#[test]
fn records_bind_at_hosts_of_insecure_mx_records_as_the_line_says() {
    for (insecure_mx, expected, asked) in [
        (InsecureMx::Dane, "DANE-insecure-MX", 1),
        (InsecureMx::Encrypt, "unverified", 1),
        (InsecureMx::May, "unverified", 0),
    ] {
        let level = Level::Dane { otherwise: Fallback::May, insecure_mx };
        let mut world = with_records(level, &[record(KEY)]);
        world.signed.remove("example.org");
        assert_eq!(fate(&mut world), expected, "{insecure_mx:?}");
        assert_eq!(world.asked_for_tlsa.len(), asked, "{insecure_mx:?}");
    }
    let mut world = with_records(Level::DaneOnly, &[record(KEY)]);
    world.signed.remove("example.org");
    let text = fate(&mut world);
    assert!(text.contains("DNSSEC does not vouch for the MX records of example.org"), "{text}");
    assert_eq!(world.asked_for_tlsa, [""; 0]);
}

#[test]
fn a_domain_that_is_its_own_host_is_secure_if_the_denial_of_its_mx_records_is() {
    let mut world = world(Level::DaneOnly);
    world.addresses.insert("own.example".into(), vec!["192.0.2.9".parse().unwrap()]);
    world.server("192.0.2.9").usual = friendly();
    for name in ["own.example", "_25._tcp.own.example"] {
        world.signed.insert(name.into());
    }
    world.certificates.insert("_25._tcp.own.example".into(), vec![record(KEY)]);
    world.mail("a@example.net", "b@own.example", "x");
    world.run();
    assert_eq!(world.server("192.0.2.9").accepted.len(), 1, "{}", world.notes());
}

#[test]
fn ports_without_records_are_not_used_at_a_host_that_has_some() {
    let mut world = world(dane());
    world.certificates.insert("_587._tcp.mx.example.org".into(), vec![record(9)]);
    let mut settings = with_policy(|policy| {
        policy.tls = Arc::new(TlsPolicy { level: dane(), ..TlsPolicy::default() });
        policy.ports =
            [Port { number: 25, tls: TlsMode::StartTls }, Port { number: 587, tls: TlsMode::StartTls }]
                .into();
    });
    settings.resolver.servers[0].is_believed = true;
    world.input(Input::Settings(Box::new(settings.clone())));
    world.input(Input::Resolver(settings.resolver));
    world.server("192.0.2.1:587").usual = friendly();
    let text = fate(&mut world);
    assert!(text.contains("[192.0.2.1]:587") && !text.contains("[192.0.2.1]:25"), "{text}");
    assert_eq!(world.attempts.len(), 1);
}

#[test]
fn a_relay_by_name_goes_by_its_records_and_one_by_address_has_none() {
    let mut world = with_records(Level::DaneOnly, &[record(KEY)]);
    let policies = |destination| crate::policy::PolicyLine {
        destination,
        choices: vec![crate::policy::Choice::Tls(Arc::new(TlsPolicy {
            level: Level::DaneOnly,
            ..TlsPolicy::default()
        }))],
        line: 1,
    };
    let mut settings = settings();
    settings.resolver.servers[0].is_believed = true;
    settings.destinations = ["remote:mx.example.org", "remote:192.0.2.1"]
        .map(|pattern| policies(crate::destination_pattern::DestinationPattern::parse(pattern).unwrap()))
        .into();
    world.input(Input::Settings(Box::new(settings.clone())));
    world.input(Input::Resolver(settings.resolver));
    world.mail_by(Some("mx.example.org:25/starttls"), "a@example.net", "b@elsewhere.example", "x");
    world.run();
    assert_eq!(world.server("192.0.2.1").accepted.len(), 1, "{}", world.notes());
    let id = world.mail_by(Some("192.0.2.1:25/starttls"), "a@example.net", "b@elsewhere.example", "x");
    world.run();
    let text = &world.failures(id)[0];
    assert!(text.contains("the host 192.0.2.1 has no TLSA records"), "{text}");
}

#[test]
fn nothing_is_asked_for_where_no_line_wants_it() {
    let mut world = with_records(Level::May, &[record(9)]);
    assert_eq!(fate(&mut world), "unverified");
    assert_eq!(world.asked_for_tlsa, [""; 0]);
}

#[test]
fn what_servers_say_that_are_not_believed_counts_for_nothing() {
    let mut world = with_records(dane(), &[record(9)]);
    let resolver = settings().resolver;
    world.input(Input::Resolver(resolver));
    assert_eq!(fate(&mut world), "unverified");
    assert_eq!(world.asked_for_tlsa, [""; 0]);
}
