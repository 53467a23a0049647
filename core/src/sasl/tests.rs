use super::*;
use crate::rng::Rng;
use proptest::prelude::*;

fn exchange(mechanism: Mechanism, user: &str, password: &str) -> Exchange {
    let credentials = Credentials { user: user.into(), password: password.into() };
    Exchange::with_nonce(mechanism, &credentials, "rOprNGfwEbeRWgbNEkqO".to_owned())
}

fn encode(text: &str) -> Vec<u8> {
    STANDARD.encode(text).into_bytes()
}

fn plain_text(base64: &str) -> String {
    String::from_utf8(STANDARD.decode(base64).unwrap()).unwrap()
}

const SERVER_FIRST: &str =
    "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";
const SERVER_FINAL: &str = "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=";

/// RFC 7677 section 3, up to the client's proof.
fn scram_up_to_the_proof() -> Exchange {
    let mut exchange = exchange(Mechanism::ScramSha256, "user", "pencil");
    assert_eq!(plain_text(&exchange.initial_response().unwrap()), "n,,n=user,r=rOprNGfwEbeRWgbNEkqO");
    let response = exchange.respond(&encode(SERVER_FIRST)).unwrap();
    assert_eq!(
        plain_text(&response),
        "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
         p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
    );
    exchange
}

#[test]
fn scram_gives_the_proof_of_rfc_7677_section_3_and_checks_the_servers() {
    let mut exchange = scram_up_to_the_proof();
    assert_eq!(exchange.respond(&encode(SERVER_FINAL)).unwrap(), "");
    assert_eq!(exchange.finish(b"2.7.0 welcome"), Ok(()));
}

#[test]
fn scram_takes_the_servers_proof_from_the_final_reply_too() {
    let text = [b"2.7.0 ", &*encode(SERVER_FINAL)].concat();
    assert_eq!(scram_up_to_the_proof().finish(&text), Ok(()));
    assert_eq!(scram_up_to_the_proof().finish(&encode(SERVER_FINAL)), Ok(()));
}

#[test]
fn scram_trusts_no_server_that_does_not_know_the_password() {
    let forged = "v=7rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=";
    assert_eq!(scram_up_to_the_proof().respond(&encode(forged)), Err(SaslError::ServerSignature));
    assert_eq!(scram_up_to_the_proof().finish(&encode(forged)), Err(SaslError::ServerSignature));
    assert_eq!(scram_up_to_the_proof().finish(b"2.7.0 welcome"), Err(SaslError::ServerSignature));
    assert_eq!(scram_up_to_the_proof().finish(&encode("v=")), Err(SaslError::ServerSignature));
    let mut hasty = exchange(Mechanism::ScramSha256, "user", "pencil");
    hasty.initial_response().unwrap();
    assert_eq!(hasty.finish(b""), Err(SaslError::ServerSignature));
}

#[test]
fn a_failed_exchange_stays_failed() {
    let mut exchange = scram_up_to_the_proof();
    assert_eq!(exchange.respond(b"!"), Err(SaslError::NotBase64));
    assert_eq!(exchange.respond(&encode(SERVER_FINAL)), Err(SaslError::Unexpected));
    assert_eq!(exchange.finish(&encode(SERVER_FINAL)), Err(SaslError::ServerSignature));
}

#[test]
fn scram_passes_the_servers_error_on() {
    let rejected = scram_up_to_the_proof().respond(&encode("e=invalid-proof\r\n"));
    assert_eq!(rejected, Err(SaslError::Rejected("invalid-proof".to_owned())));
}

#[test]
fn scram_refuses_malformed_challenges() {
    let nonce = "r=rOprNGfwEbeRWgbNEkqO";
    for (challenge, error) in [
        (String::new(), SaslError::Malformed),
        (format!("{nonce}x,s=AAAA"), SaslError::Malformed),
        (format!("m=ext,{nonce}x,s=AAAA,i=1"), SaslError::Malformed),
        (format!("{nonce}x,s=?,i=1"), SaslError::Malformed),
        (format!("{nonce}x,s=AAAA,i=+1"), SaslError::Malformed),
        (format!("{nonce}x,s=AAAA,i=0"), SaslError::Iterations),
        (format!("{nonce}x,s=AAAA,i=50001"), SaslError::Iterations),
        (format!("{nonce}x,s=AAAA,i=99999999999999999999"), SaslError::Iterations),
        (format!("{nonce},s=AAAA,i=1"), SaslError::Nonce),
        ("r=rOprNGfwEbeRWgbNEkqPxxx,s=AAAA,i=1".to_owned(), SaslError::Nonce),
    ] {
        let mut exchange = exchange(Mechanism::ScramSha256, "user", "pencil");
        exchange.initial_response().unwrap();
        assert_eq!(exchange.respond(&encode(&challenge)), Err(error), "{challenge}");
    }
}

#[test]
fn scram_escapes_the_separators_in_a_name() {
    let mut exchange = exchange(Mechanism::ScramSha256, "a=b,c", "p");
    let first = plain_text(&exchange.initial_response().unwrap());
    assert_eq!(first, "n,,n=a=3Db=2Cc,r=rOprNGfwEbeRWgbNEkqO");
}

#[test]
fn every_scram_exchange_has_a_nonce_of_its_own() {
    let credentials = Credentials { user: "user".into(), password: "pencil".into() };
    let mut rng = Rng::from_seed([5; 32]);
    let mut first =
        || Exchange::new(Mechanism::ScramSha256, &credentials, &mut rng).initial_response().unwrap();
    assert_ne!(first(), first());
}

#[test]
fn plain_sends_everything_with_the_command() {
    let mut exchange = exchange(Mechanism::Plain, "tim", "tanstaaftanstaaf");
    // RFC 4616 section 4.
    assert_eq!(plain_text(&exchange.initial_response().unwrap()), "\0tim\0tanstaaftanstaaf");
    assert_eq!(exchange.respond(b""), Err(SaslError::Unexpected));
}

#[test]
fn plain_waits_for_the_challenge_when_the_command_would_be_too_long() {
    // RFC 4954 section 4: the command stays within the limit, the response may be longer.
    let password = "p".repeat(400);
    let mut exchange = exchange(Mechanism::Plain, "tim", &password);
    assert_eq!(exchange.initial_response(), None);
    assert_eq!(plain_text(&exchange.respond(b"").unwrap()), format!("\0tim\0{password}"));
    assert_eq!(exchange.finish(b""), Ok(()));
}

#[test]
fn the_longest_initial_response_just_fits_its_command() {
    let lengths: Vec<_> = (300..400)
        .filter_map(|length| {
            exchange(Mechanism::Plain, "tim", &"p".repeat(length)).initial_response().map(|text| text.len())
        })
        .collect();
    let longest = lengths.iter().max().unwrap() + "AUTH PLAIN \r\n".len();
    assert!((509..=512).contains(&longest), "{longest}");
}

#[test]
fn login_answers_prompts_by_their_order() {
    let mut exchange = exchange(Mechanism::Login, "tim", "secret");
    assert_eq!(exchange.initial_response(), None);
    assert_eq!(plain_text(&exchange.respond(b"VXNlcm5hbWU6").unwrap()), "tim");
    assert_eq!(plain_text(&exchange.respond(b"not even base64").unwrap()), "secret");
    assert_eq!(exchange.finish(b"2.7.0 ok"), Ok(()));
    assert_eq!(exchange.respond(b""), Err(SaslError::Unexpected));
}

#[test]
fn cram_md5_gives_the_digest_of_rfc_2195_section_2() {
    let mut exchange = exchange(Mechanism::CramMd5, "tim", "tanstaaftanstaaf");
    assert_eq!(exchange.initial_response(), None);
    let challenge = b"PDE4OTYuNjk3MTcwOTUyQHBvc3RvZmZpY2UucmVzdG9uLm1jaS5uZXQ+";
    assert_eq!(exchange.respond(challenge).unwrap(), "dGltIGI5MTNhNjAyYzdlZGE3YTQ5NWI0ZTZlNzMzNGQzODkw");
    assert_eq!(exchange.finish(b""), Ok(()));
}

#[test]
fn cram_md5_takes_a_challenge_without_padding() {
    let mut padded = exchange(Mechanism::CramMd5, "tim", "secret");
    let mut bare = exchange(Mechanism::CramMd5, "tim", "secret");
    assert_eq!(padded.respond(b"PGE+PGI+PA==").unwrap(), bare.respond(b"PGE+PGI+PA ").unwrap());
}

#[test]
fn credentials_with_a_nul_are_never_sent() {
    for mechanism in Mechanism::ALL {
        let mut exchange = exchange(mechanism, "a\0b", "c");
        assert_eq!(exchange.initial_response(), None);
        assert_eq!(exchange.respond(b""), Err(SaslError::Credentials));
    }
}

#[test]
fn an_endless_challenge_is_refused() {
    let challenge = "A".repeat(CHALLENGE_LIMIT_OCTETS + 1);
    let mut exchange = exchange(Mechanism::CramMd5, "tim", "secret");
    assert_eq!(exchange.respond(challenge.as_bytes()), Err(SaslError::ChallengeTooLong));
}

#[test]
fn names_are_parsed_in_any_case_and_ordered_by_strength() {
    for mechanism in Mechanism::ALL {
        assert_eq!(Mechanism::parse(&mechanism.name().to_ascii_lowercase()), Some(mechanism));
    }
    assert_eq!(Mechanism::parse("SCRAM-SHA-256-PLUS"), None);
    assert_eq!(Mechanism::ALL.iter().min(), Some(&Mechanism::ScramSha256));
    assert!(Mechanism::ALL.is_sorted());
}

#[test]
fn debug_shows_no_secret() {
    let exchange = scram_up_to_the_proof();
    assert_eq!(format!("{exchange:?}"), "Exchange(SCRAM-SHA-256, hidden)");
}

proptest! {
    #[test]
    fn no_server_makes_an_exchange_panic_or_end_well_without_proof(
        mechanism in prop::sample::select(&Mechanism::ALL[..]),
        challenges in prop::collection::vec(prop_oneof![
            prop::collection::vec(any::<u8>(), 0..40),
            "[a-z]=.{0,12},s=[A-Za-z]{4},i=[0-9]".prop_map(|text| encode(&text)),
            Just(encode("r=rOprNGfwEbeRWgbNEkqOx,s=AAAA,i=2")),
            Just(encode(SERVER_FINAL)),
        ], 0..4),
    ) {
        let mut exchange = exchange(mechanism, "user", "pencil");
        exchange.initial_response();
        for challenge in &challenges {
            let _ = exchange.respond(challenge);
        }
        if mechanism == Mechanism::ScramSha256 {
            prop_assert!(exchange.finish(b"").is_err());
        }
    }
}
