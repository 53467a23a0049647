use super::*;
use cmail_delivery::address::Domain;
use proptest::prelude::*;

fn parse_words(words: &[&str]) -> Result<Command, UsageError> {
    parse(words.iter().map(OsString::from))
}

fn invocation(words: &[&str]) -> Invocation {
    match parse_words(words).unwrap() {
        Command::Run(invocation) => invocation,
        other @ (Command::Help | Command::Version) => panic!("{other:?}"),
    }
}

#[test]
fn a_configuration_alone_is_a_daemon_that_drops_and_detaches() {
    let expected = Invocation {
        config: "a.conf".into(),
        drop_privileges: true,
        detach: true,
        action: Action::Work(Mode::Daemon),
    };
    assert_eq!(invocation(&["a.conf"]), expected);
    assert!(expected.action.is_daemon());
}

#[test]
fn words_come_in_any_order() {
    let expected = invocation(&["a.conf", "nodrop", "nodetach", "genbounces"]);
    assert_eq!(expected.action, Action::Work(Mode::GenerateBounces));
    assert!(!expected.drop_privileges && !expected.detach);
    assert_eq!(invocation(&["genbounces", "nodetach", "a.conf", "nodrop"]), expected);
    assert_eq!(invocation(&["nodrop", "nodrop", "nodetach", "genbounces", "a.conf"]), expected);
}

#[test]
fn deliver_takes_a_domain_in_any_spelling() {
    let domain = NextHop::Domain(Domain::parse("example.org").unwrap());
    assert_eq!(
        invocation(&["deliver", "Example.ORG.", "c"]).action,
        Action::Work(Mode::Deliver(Selection::Domain(domain)))
    );
    assert_eq!(
        invocation(&["c", "deliver", "[192.0.2.1]"]).action,
        Action::Work(Mode::Deliver(Selection::Domain(NextHop::Literal("192.0.2.1".parse().unwrap()))))
    );
    assert!(matches!(parse_words(&["c", "deliver", "a b"]), Err(UsageError::Domain { .. })));
}

#[test]
fn handoff_takes_the_octets_as_they_are() {
    let remote = OsString::from_vec(b"User:\xff@Host".to_vec());
    let Ok(Command::Run(parsed)) = parse(["handoff".into(), remote, "c".into()]) else { panic!() };
    let selection = Selection::Remote(b"User:\xff@Host"[..].into());
    assert_eq!(parsed.action, Action::Work(Mode::Deliver(selection)));
}

#[test]
fn an_operand_may_look_like_a_keyword() {
    let selection = Selection::Remote(b"nodrop"[..].into());
    let parsed = invocation(&["handoff", "nodrop", "c"]);
    assert_eq!(parsed.action, Action::Work(Mode::Deliver(selection)));
    assert!(parsed.drop_privileges);
}

#[test]
fn a_configuration_named_like_a_keyword_is_written_with_a_directory() {
    assert_eq!(invocation(&["./check", "check"]).config, PathBuf::from("./check"));
    assert_eq!(parse_words(&["check"]), Err(UsageError::NoConfig));
}

#[test]
fn mistakes_are_usage_errors() {
    let unknown = |word: &str, config: &str, meant| {
        Err(UsageError::UnknownWord { word: word.into(), config: config.into(), meant })
    };
    assert_eq!(parse_words(&["c", "nodetatch"]), unknown("nodetatch", "c", Some("nodetach")));
    assert_eq!(parse_words(&["chekc", "c.conf"]), unknown("c.conf", "chekc", Some("check")));
    assert_eq!(parse_words(&["c", "start"]), unknown("start", "c", None));
    assert_eq!(parse_words(&[]), Err(UsageError::NoConfig));
    assert_eq!(parse_words(&[""]), Err(UsageError::NoConfig));
    assert_eq!(parse_words(&["c", "--foo"]), Err(UsageError::UnknownOption("--foo".into())));
    assert_eq!(parse_words(&["c", "deliver"]), Err(UsageError::MissingOperand("deliver", "domain")));
    assert_eq!(parse_words(&["c", "handoff", ""]), Err(UsageError::MissingOperand("handoff", "remote")));
}

#[test]
fn what_is_to_be_done_is_said_once() {
    let words: [&[&str]; 5] =
        [&["deliver", "a.example"], &["handoff", "h"], &["genbounces"], &["check"], &["initdb"]];
    for first in words {
        for second in words {
            let all: Vec<_> = [&["c"], first, second].concat();
            assert_eq!(parse_words(&all), Err(UsageError::Exclusive(first[0], second[0])), "{all:?}");
        }
    }
}

#[test]
fn no_error_repeats_the_operand_of_handoff() {
    for words in [&["handoff", "u:hunter2@h"][..], &["c", "check", "handoff", "u:hunter2@h"]] {
        let error = parse_words(words).unwrap_err();
        assert!(!format!("{error} {error:?}").contains("hunter2"));
    }
}

#[test]
fn help_and_version_need_no_configuration() {
    assert_eq!(parse_words(&["--help"]), Ok(Command::Help));
    assert_eq!(parse_words(&["c", "nodrop", "--version"]), Ok(Command::Version));
}

proptest! {
    #[test]
    fn every_error_is_one_line(words in prop::collection::vec("[\\PC\n\r\t]{0,6}|nodrop|deliver|check", 0..5)) {
        if let Err(error) = parse(words.into_iter().map(OsString::from)) {
            prop_assert!(!error.to_string().contains(['\n', '\r']));
        }
    }
}

use std::os::unix::ffi::OsStringExt as _;
