use super::*;
use proptest::prelude::*;

const STATUS: EnhancedStatus = EnhancedStatus::new(5, 1, 1);

fn address() -> SocketAddr {
    "192.0.2.1:25".parse().unwrap()
}

fn server(reply: &str) -> String {
    FailureText::server(reply, "mx.example.org", address(), "RCPT TO")
}

fn parse(text: &str) -> StoredFailure {
    StoredFailure::parse(text.as_bytes())
}

#[test]
fn a_servers_words_come_first_then_who_it_was_and_what_it_answered() {
    let text = server("550-5.1.1 no such user\r\n550 5.1.1 really\r\n");
    assert_eq!(
        text,
        "550-5.1.1 no such user\n550 5.1.1 really\n(mx.example.org [192.0.2.1]:25, in reply to RCPT TO)"
    );
    let stored = parse(&text);
    let reply = stored.reply.unwrap();
    assert_eq!(
        (reply.code, reply.lines),
        (550, ["5.1.1 no such user", "5.1.1 really"].map(String::from).to_vec())
    );
    assert_eq!(stored.status, Some(STATUS));
    let remote = stored.remote.unwrap();
    assert_eq!((&*remote.host, &*remote.address), ("mx.example.org", "[192.0.2.1]:25"));
    assert_eq!(stored.command.as_deref(), Some("RCPT TO"));
    assert_eq!(stored.text, text);
}

#[test]
fn an_ipv6_server_keeps_its_address() {
    let text = FailureText::server("450 later", "[2001:db8::1]", "[2001:db8::1]:25".parse().unwrap(), "DATA");
    let remote = parse(&text).remote.unwrap();
    assert_eq!((&*remote.host, &*remote.address), ("[2001:db8::1]", "[2001:db8::1]:25"));
}

#[test]
fn our_own_texts_begin_as_ever_and_keep_their_status() {
    let text = FailureText::own(OwnFailure::ReachMx, EnhancedStatus::NO_ANSWER, "mx.example.org: refused");
    assert_eq!(text, "Failed to reach any MX: mx.example.org: refused [4.4.1]");
    let stored = parse(&text);
    assert_eq!((stored.reply, stored.status), (None, Some(EnhancedStatus::NO_ANSWER)));
    assert_eq!(stored.own, Some(OwnFailure::ReachMx));
}

#[test]
fn our_own_words_are_never_taken_for_a_servers() {
    for text in ["550 5.7.1 not us", "550\nnot us", "550\tnot us", " 550"] {
        let stored = parse(&FailureText::free(STATUS, text));
        assert_eq!((stored.reply, stored.status), (None, Some(STATUS)), "{text:?}");
    }
    let stored = parse(&FailureText::free(STATUS, "message too long\n(mx [192.0.2.1]:25, in reply to DATA)"));
    assert_eq!((stored.remote, stored.status), (None, Some(STATUS)));
}

#[test]
fn no_line_of_a_reply_is_taken_for_ours() {
    let text = server("550-no\n(evil.example [203.0.113.1]:25, in reply to DATA)");
    assert_eq!(parse(&text).remote.unwrap().host, "mx.example.org");
    assert!(text.starts_with("550-no\n550 (evil.example"));
}

#[test]
fn a_status_of_another_class_than_the_reply_is_none() {
    // RFC 2034 section 4.
    assert_eq!(parse("450 5.1.1 what?").status, None);
    assert_eq!(parse("450 4.1.1 well").status, Some(EnhancedStatus::new(4, 1, 1)));
    let below = server("550-they say:\n550-4.2.2 full\n550 5.1.1 no");
    assert_eq!(parse(&below).status, Some(EnhancedStatus::new(5, 1, 1)));
}

#[test]
fn a_refusal_for_content_or_size_is_told_from_others() {
    let said = |reply: &str, command: &str| {
        let address = "192.0.2.1:25".parse().unwrap();
        FailureText::server(reply, "mx.example.org", address, command)
    };
    let too_long = FailureText::free(EnhancedStatus::MESSAGE_TOO_LONG, "the message has 5 octets");
    let ours = FailureText::own(OwnFailure::ReachRelay, EnhancedStatus::POLICY, "no TLS");
    for (text, expected) in [
        (said("550 no", "end of data"), true),
        (said("500 Line too long", "mail data"), true),
        (said("451 later", "end of data"), false),
        (said("451 4.7.1 looks like spam", "end of data"), true),
        (said("552 5.3.4 too big", "MAIL FROM"), true),
        (said("550 5.6.1 no 8-bit", "DATA"), true),
        (said("550 5.7.1 virus", "RCPT TO"), true),
        (said("550 5.1.1 who?", "RCPT TO"), false),
        (said("550 5.3.5 oh", "RCPT TO"), false),
        (said("554 no", "DATA"), false),
        (too_long, true),
        (ours, false),
    ] {
        assert_eq!(parse(&text).is_about_content(), expected, "{text}");
    }
}

#[test]
fn texts_of_other_programs_are_understood_as_far_as_possible() {
    let stored = parse("550 User unknown\r\n");
    assert_eq!(stored.reply, Some(StoredReply { code: 550, lines: ["User unknown".to_owned()].to_vec() }));
    assert_eq!((stored.status, stored.remote, stored.command), (None, None, None));

    let stored = parse("Failed to reach any MX");
    assert_eq!((stored.reply, stored.status, stored.own), (None, None, Some(OwnFailure::ReachMx)));

    for text in ["", "5", "550x", "999 what", "5.1.1", "[5.1.1", "x]", "[]", "ends with [192.0.2.1]"] {
        let stored = parse(text);
        assert_eq!((stored.reply, stored.status, stored.remote), (None, None, None), "{text}");
    }
    assert_eq!(StoredFailure::parse(b"gr\xfc\xdfe \0").text, "gr\u{fffd}\u{fffd}e ?");
}

#[test]
fn an_endless_reply_is_cut_between_lines() {
    let reply = "550-all work and no play makes Jack a dull boy\n".repeat(500);
    let text = server(&reply);
    assert!(text.len() <= TEXT_LIMIT_OCTETS && text.len() > TEXT_LIMIT_OCTETS - 200, "{}", text.len());
    assert!(text.contains("\n550 …\n(mx.example.org"));
    let lines = parse(&text).reply.unwrap().lines;
    assert!(lines.iter().rev().skip(1).all(|line| line == "all work and no play makes Jack a dull boy"));
}

#[test]
fn nothing_that_steers_a_terminal_is_stored() {
    let text = server("550 \x1b[2J\rgone\u{85}\u{2028}");
    assert!(text.starts_with("550 ?[2J?gone??\n"), "{text}");
}

fn is_storable(text: &str) -> bool {
    text.len() <= TEXT_LIMIT_OCTETS && !text.chars().any(|c| c.is_control() && c != '\n')
}

proptest! {
    #[test]
    fn a_servers_reply_survives_being_stored(
        code in 400..600u16,
        lines in prop::collection::vec("([ -~äß€]{0,30}[!-~äß€])?", 1..6),
        host in "[a-z0-9.-]{1,20}",
        octets in any::<[u8; 4]>(),
        port in any::<u16>(),
        command in "[ -~]{0,20}",
    ) {
        let last = lines.len() - 1;
        let reply: Vec<_> = lines.iter().enumerate()
            .map(|(number, line)| format!("{code}{}{line}", if number == last { ' ' } else { '-' }))
            .collect();
        let address = SocketAddr::from((octets, port));
        let text = FailureText::server(&reply.join("\r\n"), &host, address, &command);
        prop_assert!(is_storable(&text));
        let stored = parse(&text);
        prop_assert_eq!(stored.reply, Some(StoredReply { code, lines }));
        let expected = StoredRemote { host, address: format!("[{}]:{port}", address.ip()) };
        prop_assert_eq!(stored.remote, Some(expected));
        prop_assert_eq!(stored.command, Some(command));
        prop_assert_eq!(stored.text, text);
    }

    #[test]
    fn our_own_status_survives_whatever_the_detail(
        detail in "(?s).{0,60}",
        repeat in prop_oneof![Just(1usize), Just(200)],
        class in 4..=5u8,
        subject in 0..1000u16,
        number in 0..1000u16,
    ) {
        let status = EnhancedStatus::new(class, subject, number);
        let detail = detail.repeat(repeat);
        for text in [
            FailureText::own(OwnFailure::Resolve, status, &detail),
            FailureText::free(status, &detail),
        ] {
            prop_assert!(is_storable(&text), "{:?}", text);
            let stored = parse(&text);
            prop_assert_eq!((stored.reply, stored.status, stored.remote), (None, Some(status), None));
        }
    }

    #[test]
    fn every_server_text_is_storable_and_names_the_server(
        reply in "(?s)(.{0,40}|[2-5][0-9]{2}[ -].{0,700}\n){0,8}",
        host in ".{1,300}",
        command in "(?s).{0,500}",
    ) {
        let text = FailureText::server(&reply, &host, address(), &command);
        prop_assert!(is_storable(&text), "{:?}", text);
        let remote = parse(&text).remote;
        prop_assert_eq!(remote.map(|remote| remote.address), Some("[192.0.2.1]:25".to_owned()));
    }

    #[test]
    fn everything_stored_is_printable(octets in prop::collection::vec(any::<u8>(), 0..200)) {
        let stored = StoredFailure::parse(&octets);
        prop_assert!(!stored.text.chars().any(|c| c.is_control() && c != '\n'));
    }
}
