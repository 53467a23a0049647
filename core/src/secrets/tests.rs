use super::*;
use proptest::prelude::*;

fn masked(secrets: &[&str], line: &str) -> String {
    let mut kept = Secrets::default();
    secrets.iter().for_each(|secret| kept.keep(secret.as_bytes()));
    String::from_utf8(kept.mask_line(line.as_bytes()).into()).unwrap()
}

#[test]
fn secrets_are_masked_wherever_they_are_echoed() {
    let secrets = ["c2VjcmV0", "hunter2"];
    assert_eq!(masked(&secrets, "AUTH PLAIN c2VjcmV0 c2VjcmV0?"), "AUTH PLAIN *** ***?");
    assert_eq!(masked(&secrets, "hunter2 c2VjcmV0hunter2"), "*** ***");
    assert_eq!(masked(&secrets, "hunter"), "hunter");
}

#[test]
fn an_echo_that_was_cut_short_or_put_into_other_case_is_masked_too() {
    let secrets = ["AHVzZXIAcGFzcy13b3Jk", "tiger"];
    for (echo, expected) in [
        ("What is \"AUTH PLAIN AHVzZXIAcGFz...\"?", "What is \"AUTH PLAIN ***...\"?"),
        ("AHVzZXIA...zcy13b3Jk", "***...***"),
        ("AUTH PLAIN AHVZZXIACGFZCY13B3JK", "AUTH PLAIN ***"),
        ("AHVzZXI TIGER tige", "AHVzZXI *** tige"),
    ] {
        assert_eq!(masked(&secrets, echo), expected);
    }
}

#[test]
fn a_line_in_which_a_short_secret_occurs_is_masked_as_a_whole() {
    for secret in ["x", "yx", "5X!"] {
        assert_eq!(masked(&[secret], "the 5yx 5x! is no password"), "***");
        assert_eq!(masked(&[secret], "no such thing"), "no such thing");
    }
    let mut secrets = Secrets::default();
    secrets.keep(b"ab");
    assert_eq!(secrets.mask_text("one\ntwo AB\n\nthree"), "one\n***\n\nthree");
    assert_eq!(masked(&[""], "nothing is no secret"), "nothing is no secret");
}

#[test]
fn the_octets_of_an_echo_are_looked_up_once_however_long_the_secret_is() {
    // Every piece of the text is one of the secret, and of the secret in all of its places.
    let mut secrets = Secrets::default();
    secrets.keep(&[b'a'; 100_000]);
    assert_eq!(secrets.pieces.len(), 1);
    assert_eq!(&*secrets.mask_line(&[b'a'; 100_000]), MASK);
}

proptest! {
    #[test]
    fn no_part_of_a_secret_that_is_of_use_is_left(
        secret in "[a-cA-C]{1,12}", before in "[a-d ]{0,8}", after in "[a-d ]{0,8}", cut in 0..5_usize,
    ) {
        let part = &secret[..secret.len() - cut.min(secret.len().saturating_sub(PIECE_OCTETS))];
        let line = masked(&[&secret], &alloc::format!("{before}{part}{after}"));
        prop_assert!(!line.to_ascii_lowercase().contains(&part.to_ascii_lowercase()), "{}", line);
    }
}
