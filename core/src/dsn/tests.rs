use std::string::ToString as _;
use std::vec::Vec;

use super::*;

#[test]
fn notify_is_read_in_any_case_and_order() {
    // RFC 3461 section 4.1
    for (text, written) in [
        ("never", "NEVER"),
        ("SUCCESS", "SUCCESS"),
        ("Delay,success", "SUCCESS,DELAY"),
        ("failure,delay,success", "SUCCESS,FAILURE,DELAY"),
        ("failure,failure", "FAILURE"),
    ] {
        assert_eq!(Notify::parse(text).unwrap().to_string(), written);
    }
    for text in ["", "never,success", "success,", "success failure", "always", " never"] {
        assert_eq!(Notify::parse(text), Err(DsnError::Notify), "{text}");
    }
}

#[test]
fn who_says_nothing_is_told_of_failures_and_delays() {
    // RFC 3461 section 4.1
    let wishes = |notify: Option<&str>| {
        let notify = notify.map(|text| Notify::parse(text).unwrap());
        let wishes = DsnWishes { notify, ..DsnWishes::default() };
        [wishes.wants_success(), wishes.wants_failure(), wishes.wants_delay()]
    };
    assert_eq!(wishes(None), [false, true, true]);
    assert_eq!(wishes(Some("never")), [false, false, false]);
    assert_eq!(wishes(Some("success")), [true, false, false]);
    assert_eq!(wishes(Some("failure")), [false, true, false]);
    assert_eq!(wishes(Some("delay")), [false, false, true]);
}

#[test]
fn what_is_returned_is_one_of_two_words() {
    assert_eq!(ReturnExtent::parse("Full").unwrap().to_string(), "FULL");
    assert_eq!(ReturnExtent::parse("hdrs").unwrap().to_string(), "HDRS");
    assert_eq!(ReturnExtent::parse("headers"), Err(DsnError::Extent));
}

#[test]
fn values_are_written_as_xtext() {
    // RFC 3461 section 4
    assert_eq!(xtext("a+b=c d~!"), "a+2Bb+3Dc+20d~!");
    let recipient = OriginalRecipient::parse("rfc822;bob+list@example.org").unwrap();
    assert_eq!(recipient.parameter(), "rfc822;bob+2Blist@example.org");
    assert_eq!(recipient.parts(), ("rfc822", "bob+list@example.org"));
    assert_eq!(OriginalRecipient::parse("x400;/G=a;/S=b").unwrap().parts(), ("x400", "/G=a;/S=b"));
}

#[test]
fn only_printable_ascii_is_taken() {
    for text in ["", "a\u{7f}", "a\r\nb", "a\tb", "\u{e4}"] {
        assert_eq!(EnvelopeId::parse(text), Err(DsnError::NotPrintable), "{text:?}");
        let recipient = std::format!("rfc822;{text}");
        assert_eq!(OriginalRecipient::parse(&recipient), Err(DsnError::NotPrintable), "{text:?}");
    }
    for text in ["bob@example.org", ";bob", "rfc 822;bob", "r\r\n;bob", ""] {
        assert_eq!(OriginalRecipient::parse(text), Err(DsnError::NoType), "{text:?}");
    }
}

#[test]
fn what_is_too_long_as_it_is_sent_is_not_taken() {
    // RFC 3461 sections 4.2 and 4.4
    assert!(EnvelopeId::parse(&"a".repeat(100)).is_ok());
    assert!(EnvelopeId::parse(&"a".repeat(101)).is_err());
    assert!(EnvelopeId::parse(&"+".repeat(33)).is_ok());
    assert_eq!(EnvelopeId::parse(&"+".repeat(34)), Err(DsnError::TooLong { limit_octets: 100 }));
    let longest = |count: usize| OriginalRecipient::parse(&std::format!("rfc822;{}", "=".repeat(count)));
    let fitting: Vec<usize> = (160..170).filter(|&count| longest(count).is_ok()).collect();
    assert_eq!(fitting, [160, 161, 162, 163, 164]);
    assert_eq!(longest(164).unwrap().parameter().len(), 499);
}
