use alloc::format;
use alloc::string::{String, ToString};

use proptest::prelude::*;

use super::*;

fn parse(text: &str) -> Result<StsPolicy, PolicyTrouble> {
    StsPolicy::parse(text.as_bytes())
}

fn hosts(text: &str) -> Vec<String> {
    let text = format!("version: STSv1\nmode: enforce\n{text}\nmax_age: 1\n");
    parse(&text).map_or_else(|_| Vec::new(), |policy| policy.hosts.iter().map(ToString::to_string).collect())
}

fn domain(text: &str) -> Domain {
    Domain::parse(text).unwrap()
}

const EXAMPLE: &str = "version: STSv1\r\nmode: enforce\r\nmx: mail.example.com\r\nmx: *.example.net\r\n\
    mx: backupmx.example.com\r\nmax_age: 604800\r\n";

#[test]
fn the_example_of_the_rfc_is_read() {
    let policy = parse(EXAMPLE).unwrap();
    assert_eq!(policy.mode, Mode::Enforce);
    assert_eq!(policy.max_age, Duration::from_secs(604_800));
    assert_eq!(policy.unreadable_hosts, 0);
    for host in ["mail.example.com", "mx.example.net", "backupmx.example.com"] {
        assert!(policy.permits(&domain(host)), "{host}");
    }
    // A star stands for exactly one label (section 4.1).
    for host in ["example.com", "example.net", "a.b.example.net", "notexample.net", "mail.example.org"] {
        assert!(!policy.permits(&domain(host)), "{host}");
    }
}

#[test]
fn lines_may_end_by_lf_and_by_nothing_and_have_blanks_at_their_ends() {
    let expected = parse(EXAMPLE);
    assert_eq!(parse(&EXAMPLE.replace("\r\n", "\n")), expected);
    assert_eq!(parse(&EXAMPLE.replace("\r\n", " \t\r\n")), expected);
    assert_eq!(parse(&EXAMPLE.replace(": ", ":")), expected);
    assert_eq!(parse(&EXAMPLE.replace(": ", ": \t ")), expected);
    assert_eq!(parse(&EXAMPLE.replace("\r\n", "\r\n\r\n")), expected);
    assert_eq!(parse(EXAMPLE.trim_end()), expected);
}

#[test]
fn what_is_unknown_or_repeated_is_ignored() {
    let expected = parse(EXAMPLE);
    let more =
        "mode: none\nmax_age: x\nversion: STSv2\nother: \u{e9}\nno key\n:\n: x\nMODE: testing\n mode: none\n";
    assert_eq!(parse(&format!("{EXAMPLE}{more}")), expected);
    assert_eq!(parse(&format!("other: x\nno key\n mode: none\nmode : none\n{EXAMPLE}")), expected);
    // The first one counts, even if it is wrong.
    assert_eq!(parse(&format!("{more}{EXAMPLE}")), Err(PolicyTrouble::Version));
    assert_eq!(parse(&format!("mode: x\n{EXAMPLE}")), Err(PolicyTrouble::Mode));
    assert_eq!(parse(&format!("max_age: x\n{EXAMPLE}")), Err(PolicyTrouble::MaxAge));
}

#[test]
fn each_mode_is_read_as_it_is_written() {
    for (word, mode) in [("enforce", Mode::Enforce), ("testing", Mode::Testing), ("none", Mode::None)] {
        assert_eq!(parse(&EXAMPLE.replace("enforce", word)).map(|policy| policy.mode), Ok(mode));
        assert_eq!(mode.to_string(), word);
    }
    for word in ["", "Enforce", "enforced", "enforce none"] {
        assert_eq!(parse(&EXAMPLE.replace("enforce", word)), Err(PolicyTrouble::Mode), "{word}");
    }
}

#[test]
fn a_time_that_is_too_long_is_the_longest() {
    let max_age =
        |value: &str| parse(&EXAMPLE.replace("604800", value)).map(|policy| policy.max_age.as_secs());
    assert_eq!(max_age("0"), Ok(0));
    assert_eq!(max_age("0000000001"), Ok(1));
    assert_eq!(max_age("31557600"), Ok(31_557_600));
    assert_eq!(max_age("31557601"), Ok(31_557_600));
    assert_eq!(max_age("9999999999"), Ok(31_557_600));
    for value in ["", "-1", "+1", "1.5", "1 2", "1d", "10000000000", "\u{0663}"] {
        assert_eq!(max_age(value), Err(PolicyTrouble::MaxAge), "{value}");
    }
}

#[test]
fn what_is_missing_makes_it_no_policy() {
    for (line, trouble) in [
        ("version: STSv1\r\n", PolicyTrouble::Version),
        ("mode: enforce\r\n", PolicyTrouble::Mode),
        ("max_age: 604800\r\n", PolicyTrouble::MaxAge),
    ] {
        assert_eq!(parse(&EXAMPLE.replace(line, "")), Err(trouble));
    }
    let without = "version: STSv1\nmode: MODE\nmax_age: 86400\n";
    assert_eq!(parse(&without.replace("MODE", "enforce")), Err(PolicyTrouble::NoHost));
    assert_eq!(parse(&without.replace("MODE", "testing")), Err(PolicyTrouble::NoHost));
    assert_eq!(parse(&without.replace("MODE", "none")).map(|policy| policy.mode), Ok(Mode::None));
    assert_eq!(parse(""), Err(PolicyTrouble::Version));
    assert_eq!(StsPolicy::parse(b"version: STSv1\xff"), Err(PolicyTrouble::NotUtf8));
    let long = format!("{EXAMPLE}{}", " ".repeat(POLICY_LIMIT_OCTETS - EXAMPLE.len()));
    assert!(parse(&long).is_ok());
    assert_eq!(parse(&format!("{long} ")), Err(PolicyTrouble::TooLong));
}

#[test]
fn hosts_are_names_and_all_else_is_left_out() {
    assert_eq!(hosts("mx: MX.Example.COM.\nmx: *.Example.NET."), ["mx.example.com", ".example.net"]);
    assert_eq!(hosts("mx: b\u{fc}cher.example"), ["xn--bcher-kva.example"]);
    let rubbish = "mx: 192.0.2.1\nmx: *.192.0.2.1\nmx: [192.0.2.1]\nmx: 2001:db8::1\nmx:\nmx: *\nmx: *.\nmx: *.*.example\n\
        mx: mx*.example\nmx: a..b\nmx: a, b\nmx: .example.com\n";
    assert_eq!(hosts(rubbish), [""; 0]);
    let policy = parse(&format!("{EXAMPLE}{rubbish}")).unwrap();
    assert_eq!((policy.hosts.len(), policy.unreadable_hosts), (3, 12));
}

#[test]
fn the_media_type_counts_without_its_parameters() {
    for text in ["text/plain", "Text/PLAIN", "text/plain; charset=utf-8", " text/plain ;x", "text/plain;"] {
        assert!(is_plain_text(text), "{text}");
    }
    for text in ["", "text/html", "text/plainer", "text", "text/ plain", "application/octet-stream"] {
        assert!(!is_plain_text(text), "{text}");
    }
}

proptest! {
    #[test]
    fn octets_of_any_kind_are_judged(octets in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = StsPolicy::parse(&octets);
    }
}
