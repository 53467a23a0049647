use alloc::string::ToString as _;

use proptest::prelude::*;

use super::*;

#[test]
fn line_ends_separate_and_stand_at_neither_end() {
    for (text, expected) in [
        ("", ""),
        ("a", "a"),
        ("\r\na\n\nb\rc\r\n", "a / b / c"),
        ("a\n\u{0}", "a / \\u{0}"),
        ("\u{85}\t", "\\u{85}\\t"),
        ("a\u{2028}b\u{2029}", "a\\u{2028}b\\u{2029}"),
        ("\u{202e}moc\u{2066}", "\\u{202e}moc\\u{2066}"),
        ("it's \"ü\" \\n", "it's \"ü\" \\n"),
    ] {
        assert_eq!(OneLine(text).to_string(), expected, "{text:?}");
    }
    assert_eq!(OneLine(format_args!("{}{}", "a\n", "b")).to_string(), "a / b");
}

#[test]
fn octets_that_are_no_text_are_escaped() {
    assert_eq!(Octets(b"a\xff\xc3\xbc\"").to_string(), "a\\xffü\"");
}

proptest! {
    #[test]
    fn nothing_begins_a_line(text in "[\\PC\n\r\u{0}\u{85}\u{1b}\u{2028}\u{202e}]{0,20}") {
        prop_assert!(!OneLine(&text).to_string().contains(is_misleading));
    }

    #[test]
    fn what_is_on_one_line_stays(text in "[^\\p{C}\u{2028}\u{2029}]{0,20}") {
        prop_assert_eq!(OneLine(&text).to_string(), text);
    }
}
