use super::*;
use proptest::prelude::*;

fn mask() -> Mask {
    let credentials = Credentials { user: "alice".into(), password: "wonder land".into() };
    let mut mask = Mask::new("Out.Real.Test", Some(&credentials));
    mask.host_name("mx.real.test");
    mask.mailbox("carol@real.test");
    mask
}

#[test]
fn names_addresses_and_local_parts_are_the_same_wherever_they_stand() {
    let mut mask = mask();
    for (text, expected) in [
        ("mx.real.test ESMTP Postfix", "mx1.example.net ESMTP Postfix"),
        ("MX.REAL.TEST.", "mx1.example.net."),
        ("hello out.real.test [10.1.2.3]", "hello mail.example.org [192.0.2.1]"),
        ("<carol@real.test>: unknown", "<u1@example.net>: unknown"),
        ("user Carol unknown in real.test.", "user u1 unknown in example.net."),
        ("see https://help.elsewhere.test/x?ip=10.1.2.3", "see https://mx2.example.net/x?ip=192.0.2.1"),
        ("2001:db9::5: no", "2001:db8::1: no"),
        ("IPv6:2001:db9::5", "2001:db8::1"),
        ("5.7.1 4.98 Exim 4.98.2 i.e. 250", "5.7.1 4.98 Exim 4.98.2 i.e. 250"),
        ("for=<dora@elsewhere.org>", "for=<u2@example.com>"),
    ] {
        assert_eq!(mask.text(text), expected);
    }
}

#[test]
fn secrets_are_masked_in_any_text() {
    assert_eq!(mask().text("no wonder land for alice"), "no *** for ***");
    let credentials = Credentials { user: "al".into(), password: "ok".into() };
    let mut mask = Mask::new("me.real.test", Some(&credentials));
    assert_eq!(mask.text("al: also ok."), "***: also ***.");
}

#[test]
fn text_with_more_odd_local_parts_than_are_looked_for_is_masked_as_a_whole() {
    let mut mask = mask();
    for number in 0..ODD_PARTS_LIMIT {
        mask.mailbox(&format!("a,{number}.@real.test"));
    }
    assert_eq!(mask.text("no a,7.@real.test"), "no u9@example.net");
    mask.mailbox("(one more)@real.test");
    assert_eq!((mask.text("no a,7.").as_str(), mask.keywords("SIZE 7").as_str()), ("***", "SIZE 7"));
}

#[test]
fn addresses_are_numbered_by_their_kind() {
    let mut mask = mask();
    let text = mask.text("10.0.0.1 2001:db9::1 10.0.0.2 2001:db9::2 10.0.0.1");
    assert_eq!(text, "192.0.2.1 2001:db8::1 192.0.2.2 2001:db8::2 192.0.2.1");
    for number in 0..1000_u32 {
        mask.address(Ipv4Addr::from(number).into());
    }
    assert_eq!(mask.text("10.0.0.2 10.9.9.9"), "192.0.2.2 192.0.2.254");
}

#[test]
fn keywords_are_no_local_parts() {
    let mut mask = mask();
    mask.mailbox("size@real.test");
    assert_eq!(mask.keywords("SIZE 1000"), "SIZE 1000");
    assert_eq!(mask.text("the size is"), "the u2 is");
}

#[test]
fn paths_and_announced_names_of_commands_are_masked() {
    let mut mask = mask();
    for (line, expected) in [
        ("EHLO out.real.test", "EHLO mail.example.org"),
        ("EHLO [10.9.9.9]", "EHLO [192.0.2.1]"),
        ("MAIL FROM:<> SIZE=7", "MAIL FROM:<> SIZE=7"),
        ("MAIL FROM:<carol@real.test> SIZE=7", "MAIL FROM:<u1@example.net> SIZE=7"),
        ("RCPT TO:<\"a> b@c\"@[10.9.9.9]>", "RCPT TO:<u2@[192.0.2.1]>"),
        ("RCPT TO:<jörg@real.test>", "RCPT TO:<ü3@example.net>"),
        ("AUTH PLAIN ***", "AUTH PLAIN ***"),
        ("DATA", "DATA"),
    ] {
        assert_eq!(mask.command(line), expected);
    }
    assert_eq!(mask.text("no \"a> b@c\"@real.test"), "no u2@example.net");
}

proptest! {
    #[test]
    fn nothing_known_is_left_in_any_text(
        before in "[ -~]{0,20}[ <(\\[]?", after in "([ >)\\],;][ -~]{0,20})?",
        what in prop_oneof![
            Just("mx.real.test"), Just("carol@real.test"), Just("out.real.test"), Just("10.1.2.3"),
            Just("wonder land"), Just("other.real.test"),
        ],
    ) {
        let is_apart = before.is_empty() || before.ends_with([' ', '<', '(', '[']);
        let masked = mask().text(&format!("{before}{what}{after}"));
        if is_apart || what == "wonder land" {
            prop_assert!(!masked.contains(what), "{:?}", masked);
        }
    }
}
