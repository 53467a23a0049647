use super::*;
use proptest::prelude::*;

#[test]
fn what_is_left_out_is_marked() {
    let long = "\u{e4}".repeat(SHOWN_LIMIT_OCTETS);
    for text in [shortened(&long), shortened_octets(long.as_bytes())] {
        assert!(
            text.ends_with("\u{e4}…") && (SHOWN_LIMIT_OCTETS - 3..=SHOWN_LIMIT_OCTETS).contains(&text.len())
        );
    }
    let short = "a".repeat(SHOWN_LIMIT_OCTETS);
    assert_eq!((shortened(&short), shortened_octets(short.as_bytes())), (short.clone(), short));
}

proptest! {
    #[test]
    fn nothing_is_longer_than_its_limit(octets in prop::collection::vec(any::<u8>(), 0..300), limit in 3..300_usize) {
        let text = String::from_utf8_lossy(&octets);
        prop_assert!(truncated(&text, limit).len() <= limit);
        prop_assert!(shortened_octets(&octets).len() <= SHOWN_LIMIT_OCTETS);
    }
}
