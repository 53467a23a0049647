use alloc::string::ToString as _;

use super::*;

fn domain(text: &str) -> NextHop {
    NextHop::Domain(Domain::parse(text).unwrap())
}

fn relay(text: &str) -> NextHop {
    NextHop::Relay(Relay::parse(text.as_bytes()).unwrap())
}

#[track_caller]
fn matches(pattern: &str, next_hop: Option<&NextHop>, sender: Option<&str>) -> bool {
    let pattern = MailPattern::parse(pattern).unwrap();
    pattern.matches(next_hop, sender.map(str::as_bytes))
}

#[test]
fn a_domain_is_met_alone_or_with_those_below_it() {
    let meets = |pattern, name| matches(pattern, Some(&domain(name)), None);
    assert!(meets("example.com", "example.com"));
    assert!(meets("EXAMPLE.com.", "example.com"), "case and a dot at the end mean nothing");
    assert!(meets("bücher.example", "xn--bcher-kva.example"));
    assert!(!meets("example.com", "mail.example.com"));
    for below in ["example.com", "mail.example.com", "a.b.example.com"] {
        assert!(meets(".example.com", below), "{below}");
    }
    assert!(!meets(".example.com", "notexample.com"));
    assert!(!meets(".example.com", "com"));
}

#[test]
fn mail_for_a_relay_is_met_by_the_relay_and_not_by_a_domain() {
    let hop = relay("user:secret@relay.example.com:587/starttls");
    assert!(matches("remote:relay.example.com", Some(&hop), None));
    assert!(matches("remote:[2001:db8::1]", Some(&relay("[2001:db8::1]:25")), None));
    assert!(!matches("remote:example.com", Some(&hop), None));
    assert!(!matches(".example.com", Some(&hop), None));
    assert!(!matches("remote:relay.example.com", Some(&domain("relay.example.com")), None));
}

#[test]
fn senders_are_met_by_domain_by_address_or_by_having_none() {
    let meets = |pattern, sender| matches(pattern, None, sender);
    assert!(meets("sender:example.com", Some("a@example.com")));
    assert!(meets("sender:.example.com", Some("a@b.EXAMPLE.com")));
    assert!(!meets("sender:example.com", Some("a@example.org")));
    assert!(meets("sender:a@example.com", Some("a@EXAMPLE.COM")));
    assert!(!meets("sender:a@example.com", Some("A@example.com")), "local parts have their case");
    assert!(meets("sender:<>", None));
    assert!(!meets("sender:<>", Some("a@example.com")));
    assert!(!meets("sender:example.com", None));
    assert!(!meets("sender:example.com", Some("@")), "no address, so it is in no domain");
}

#[test]
fn the_asterisk_meets_all_mail_even_mail_that_can_be_sent_nowhere() {
    assert!(matches("*", None, None));
    assert!(matches("*", Some(&relay("r")), Some("x")));
}

#[test]
fn a_pattern_is_written_as_it_is_read() {
    for text in ["*", "example.com", ".example.com", "remote:h.example", "remote:[::1]", "sender:<>"]
        .into_iter()
        .chain(["sender:example.com", "sender:.example.com", "sender:a@example.com"])
    {
        assert_eq!(MailPattern::parse(text).unwrap().to_string(), text);
    }
}

#[test]
fn what_is_no_pattern_says_what_is_wrong() {
    use MailPatternError::{Form, Mx, Remote, Sender};
    for (text, error) in [
        ("", Form),
        (".", Form),
        ("a b", Form),
        ("a@example.com", Form),
        ("*.example.com", Form),
        ("remote:", Remote),
        ("remote:h:25", Remote),
        ("remote:u:p@h", Remote),
        ("sender:", Sender),
        ("sender:a b@example.com", Sender),
        ("mx:*.example.com", Mx),
    ] {
        assert_eq!(MailPattern::parse(text), Err(error), "{text}");
    }
}
