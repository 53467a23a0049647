use super::*;

#[test]
fn a_word_is_near_to_what_it_was_meant_to_be_and_to_nothing_else() {
    let known = || ["check", "initdb", "retries", "retryinterval"];
    for (word, expected) in [
        ("chekc", Some("check")),
        ("CHECK", Some("check")),
        ("retires", Some("retries")),
        ("retry_intervall", Some("retryinterval")),
        ("init", Some("initdb")),
        ("chk", None),
        ("foo", None),
        ("", None),
    ] {
        assert_eq!(nearest(word, known()), expected, "{word}");
    }
    assert_eq!(nearest(&"check".repeat(1 << 20), known()), None);
}
