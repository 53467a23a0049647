//! AUTH (RFC 4954): what is sent, to whom, and what becomes of a server that does not take it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

use super::*;
use crate::sasl::{Mechanism, SaslError};
use crate::tls::CertificateTrouble;

/// base64 of NUL user NUL pass-word
const PLAIN: &str = "AHVzZXIAcGFzcy13b3Jk";

/// Up to the reply to EHLO over implicit TLS.
fn secure(talk: &mut Talk, certificate_is_valid: bool, auth: &str) {
    talk.tls(certificate_is_valid).server("220 mx\r\n").client("EHLO client.example.org\r\n");
    talk.server(&alloc::format!("250-mx\r\n250 {auth}\r\n"));
}

fn not_authenticated(error: SaslError) -> EndCause {
    EndCause::Unsuitable(Unsuitable::NotAuthenticated(error))
}

fn implicit() -> SessionConfig {
    with_credentials(config(TlsMode::Implicit), false)
}

#[test]
fn plain_is_sent_with_the_command_over_tls_with_a_valid_certificate() {
    // RFC 4616 section 2
    dialogue(&implicit(), |talk| {
        secure(talk, true, "AUTH LOGIN PLAIN");
        talk.client(&alloc::format!("AUTH PLAIN {PLAIN}\r\n")).server("235 2.7.0 welcome\r\n").client("");
        let authenticated = SessionOutput::Authenticated(Some(Mechanism::Plain));
        assert_eq!(talk.outputs(), [SessionOutput::StartTls, authenticated, SessionOutput::Ready]);
    });
}

#[test]
fn login_is_a_dialogue() {
    dialogue(&implicit(), |talk| {
        secure(talk, true, "AUTH=LOGIN");
        talk.client("AUTH LOGIN\r\n").server("334 VXNlcm5hbWU6\r\n").client("dXNlcg==\r\n");
        talk.server("334 UGFzc3dvcmQ6\r\n").client("cGFzcy13b3Jk\r\n").server("235 ok\r\n");
        assert_eq!(talk.session.phase(), Phase::Ready);
    });
}

#[test]
fn credentials_are_not_sent_without_protection() {
    let unprotected = |talk: &mut Talk, reason: Unsuitable| {
        let end = talk.client("QUIT\r\n").server("221 bye\r\n").end();
        assert_eq!((end.phase, end.cause), (Phase::Auth, EndCause::Unsuitable(reason)));
    };
    dialogue(&implicit(), |talk| {
        secure(talk, false, "AUTH PLAIN");
        unprotected(talk, Unsuitable::CertificateInvalid(CertificateTrouble::UnknownIssuer));
    });
    dialogue(&with_credentials(plain(), false), |talk| {
        talk.server("220 mx\r\n")
            .client("EHLO client.example.org\r\n")
            .server("250-mx\r\n250 AUTH PLAIN\r\n");
        unprotected(talk, Unsuitable::NoTls);
    });
}

#[test]
fn credentials_are_sent_without_protection_where_that_is_allowed() {
    dialogue(&with_credentials(plain(), true), |talk| {
        talk.server("220 mx\r\n")
            .client("EHLO client.example.org\r\n")
            .server("250-mx\r\n250 AUTH PLAIN\r\n");
        talk.client(&alloc::format!("AUTH PLAIN {PLAIN}\r\n"));
    });
    dialogue(&SessionConfig { auth_unprotected: true, ..implicit() }, |talk| {
        secure(talk, false, "AUTH PLAIN");
        talk.client(&alloc::format!("AUTH PLAIN {PLAIN}\r\n"));
    });
}

#[test]
fn a_server_without_auth_is_not_used() {
    for offer in ["SIZE", "AUTH", "AUTH XOAUTH2"] {
        dialogue(&implicit(), |talk| {
            secure(talk, true, offer);
            let end = talk.client("QUIT\r\n").closed().end();
            assert_eq!(end.cause, EndCause::Unsuitable(Unsuitable::NoMechanism));
        });
    }
}

#[test]
fn a_refused_authentication_ends_the_session_and_its_echo_is_masked() {
    dialogue(&SessionConfig { trace: true, ..implicit() }, |talk| {
        secure(talk, true, "AUTH PLAIN");
        talk.transmit();
        talk.server(&alloc::format!("535-AUTH PLAIN {PLAIN}\r\n535 pass-word is wrong\r\n"));
        talk.client("QUIT\r\n").server("221 pass-word\r\n");
        let outputs = talk.outputs();
        let Some(SessionOutput::Ended(end)) = outputs.last() else { panic!("no end") };
        assert_eq!(end.phase, Phase::Auth);
        assert_eq!(reply_text(&end.cause), "535-AUTH PLAIN ***\n535 *** is wrong AUTH");
        let said = alloc::format!("{outputs:?}{:?}", talk.session);
        assert!(
            said.contains("AUTH PLAIN ***") && !said.contains(PLAIN) && !said.contains("pass-word"),
            "{said}"
        );
    });
}

#[test]
fn a_line_with_a_password_of_three_octets_is_masked_as_a_whole_but_not_its_meaning() {
    let credentials = Credentials { user: "user".into(), password: "5.7".into() };
    let config = SessionConfig { trace: true, credentials: Some(credentials), ..implicit() };
    dialogue(&config, |talk| {
        secure(talk, true, "AUTH LOGIN");
        talk.client("AUTH LOGIN\r\n").server("334 VXNlcm5hbWU6\r\n").client("dXNlcg==\r\n");
        talk.server("334 UGFzc3dvcmQ6\r\n").client("NS43\r\n");
        talk.server("535-5.7.8 NS43 is wrong\r\n535 no\r\n").client("QUIT\r\n");
        let end = talk.closed().end();
        assert_eq!(reply_text(&end.cause), "535-***\n535 no AUTH");
        let EndCause::Refused(reply, _) = &end.cause else { panic!("it was refused") };
        assert_eq!(reply.enhanced().map(|status| status.subject), Some(7));
    });
}

#[test]
fn a_mechanism_that_is_not_supported_after_all_is_followed_by_the_next() {
    // RFC 4954 section 4
    dialogue(&implicit(), |talk| {
        secure(talk, true, "AUTH PLAIN CRAM-MD5");
        talk.client("AUTH CRAM-MD5\r\n").server("504 not that\r\n");
        talk.client(&alloc::format!("AUTH PLAIN {PLAIN}\r\n")).server("504 nor that\r\n").client("QUIT\r\n");
        assert_eq!(reply_text(&talk.closed().end().cause), "504 nor that AUTH");
    });
}

#[test]
fn a_challenge_that_cannot_be_answered_is_cancelled() {
    // RFC 4954 section 4
    dialogue(&implicit(), |talk| {
        secure(talk, true, "AUTH PLAIN");
        talk.transmit();
        talk.server("334 bW9yZQ==\r\n")
            .client("*\r\n")
            .server("501 cancelled\r\n")
            .client("QUIT\r\n")
            .closed();
        let end = talk.end();
        assert_eq!(end.cause, not_authenticated(SaslError::Unexpected));
        assert!(
            end.cause.to_string().starts_with("authentication failed: the server goes on asking"),
            "{}",
            end.cause
        );
    });
}

#[test]
fn what_the_server_says_within_an_exchange_is_masked_too() {
    dialogue(&implicit(), |talk| {
        scram_up_to_the_servers_end(talk, |_, _, _| "e=pass-word".into());
        talk.client("*\r\n").server("535 no\r\n").client("QUIT\r\n").closed();
        let cause = talk.end().cause;
        assert_eq!(cause, not_authenticated(SaslError::Rejected("***".into())));
        assert_eq!(cause.to_string(), "authentication failed: the server has ended the exchange: ***");
    });
}

fn hmac(key: &[u8], text: &str) -> Vec<u8> {
    let mut hmac = Hmac::<Sha256>::new_from_slice(key).unwrap();
    hmac.update(text.as_bytes());
    hmac.finalize().into_bytes().to_vec()
}

fn decoded(line: &[u8]) -> String {
    String::from_utf8(STANDARD.decode(line.trim_ascii()).unwrap()).unwrap()
}

/// Leads SCRAM-SHA-256 to the server's signature, which is made with this password (RFC 5802 section 3).
fn scram(talk: &mut Talk, password: &str) {
    scram_up_to_the_servers_end(talk, |bare, server_first, without_proof| {
        let mut salted = [0; 32];
        pbkdf2::pbkdf2::<Hmac<Sha256>>(password.as_bytes(), b"salt", 2, &mut salted).unwrap();
        let auth_message = alloc::format!("{bare},{server_first},{without_proof}");
        let signature = hmac(&hmac(&salted, "Server Key"), &auth_message);
        alloc::format!("v={}", STANDARD.encode(signature))
    });
}

/// Leads SCRAM-SHA-256 to the server's last message, which is made from the messages before.
fn scram_up_to_the_servers_end(talk: &mut Talk, server_final: impl Fn(&str, &str, &str) -> String) {
    secure(talk, true, "AUTH PLAIN SCRAM-SHA-256 LOGIN");
    let command = talk.transmit();
    let first = decoded(command.strip_prefix(b"AUTH SCRAM-SHA-256 ").unwrap());
    let bare = first.strip_prefix("n,,").unwrap();
    let nonce = bare.strip_prefix("n=user,r=").unwrap();
    let server_first = alloc::format!("r={nonce}server,s={},i=2", STANDARD.encode("salt"));
    talk.server(&alloc::format!("334 {}\r\n", STANDARD.encode(&server_first)));
    let client_final = decoded(&talk.transmit());
    let without_proof = client_final.rsplit_once(",p=").unwrap().0;
    let server_final = server_final(bare, &server_first, without_proof);
    talk.server(&alloc::format!("334 {}\r\n", STANDARD.encode(server_final)));
}

#[test]
fn the_strongest_mechanism_is_used_and_the_server_proves_itself() {
    dialogue(&implicit(), |talk| {
        scram(talk, "pass-word");
        talk.client("\r\n").server("235 ok\r\n");
        assert_eq!(talk.session.phase(), Phase::Ready);
    });
}

#[test]
fn a_server_that_does_not_know_the_password_is_not_used() {
    dialogue(&implicit(), |talk| {
        scram(talk, "wrong");
        talk.client("*\r\n").server("235 ok\r\n").client("QUIT\r\n").server("221 bye\r\n");
        assert_eq!(talk.end().cause, not_authenticated(SaslError::ServerSignature));
    });
    dialogue(&implicit(), |talk| {
        secure(talk, true, "AUTH SCRAM-SHA-256");
        talk.transmit();
        talk.server("235 I trust you\r\n").client("QUIT\r\n").closed();
        assert!(matches!(talk.end().cause, EndCause::Unsuitable(_)));
    });
}

#[test]
fn a_challenge_that_is_too_long_is_cancelled() {
    dialogue(&implicit(), |talk| {
        secure(talk, true, "AUTH CRAM-MD5");
        let challenge = "QUFB".repeat(1000);
        talk.client("AUTH CRAM-MD5\r\n").server(&alloc::format!("334 {challenge}\r\n")).client("*\r\n");
        let end = talk.server("501 cancelled\r\n").client("QUIT\r\n").closed().end();
        assert_eq!(end.cause, not_authenticated(SaslError::ChallengeTooLong));
        let text = "authentication failed: the server's challenge is too long";
        assert_eq!(end.cause.to_string(), text);
    });
}

/// The mechanisms that are tried with a server that offers `offer` and gives these replies, in turn; and how often the
/// credentials were not taken.
fn tried(config: &SessionConfig, offer: &str, replies: &[&str]) -> (String, usize) {
    let mut talk = Talk::new(config.clone(), usize::MAX);
    secure(&mut talk, true, &alloc::format!("AUTH {offer}"));
    let mut tried = Vec::new();
    for reply in replies {
        let sent = String::from_utf8(talk.transmit().to_vec()).unwrap();
        let Some(command) = sent.strip_prefix("AUTH ") else { break };
        tried.push(command.split_whitespace().next().unwrap().to_string());
        talk.server(&alloc::format!("{reply}\r\n"));
    }
    let is_given_up = talk.transmit() == b"QUIT\r\n"[..] || talk.session.phase() == Phase::Ready;
    assert!(is_given_up, "{offer} {replies:?} {tried:?}");
    let refused = |output: &SessionOutput| *output == SessionOutput::Authenticated(None);
    (tried.join(" "), talk.outputs().iter().filter(|output| refused(output)).count())
}

#[test]
fn a_refused_mechanism_leads_to_a_weaker_one_and_refused_credentials_do_so_once() {
    let all = "SCRAM-SHA-256 CRAM-MD5 PLAIN LOGIN";
    for (offer, replies, expected, refused) in [
        (all, &["504 no", "504 no", "504 no"][..], "SCRAM-SHA-256 PLAIN LOGIN", 0),
        (all, &["535 no", "535 no"], "SCRAM-SHA-256 PLAIN", 2),
        (all, &["534 no", "535 no"], "SCRAM-SHA-256 PLAIN", 2),
        (all, &["535 no", "504 no", "535 no"], "SCRAM-SHA-256 PLAIN LOGIN", 2),
        (all, &["504 no", "535 no"], "SCRAM-SHA-256 PLAIN", 1),
        (all, &["454 later"], "SCRAM-SHA-256", 1),
        (all, &["538 encrypt"], "SCRAM-SHA-256", 0),
        (all, &["530 5.7.0 Must issue STARTTLS"], "SCRAM-SHA-256", 0),
        (all, &["535 5.7.10 encrypt"], "SCRAM-SHA-256", 0),
        (all, &["534 5.7.10 encrypt"], "SCRAM-SHA-256", 0),
        (all, &["504 5.7.10 encrypt"], "SCRAM-SHA-256", 0),
        (all, &["535 5.7.8 no", "550 5.7.10 encrypt"], "SCRAM-SHA-256 PLAIN", 1),
        (all, &["454 4.7.10 encrypt"], "SCRAM-SHA-256", 1),
        (all, &["550 5.7.1 no"], "SCRAM-SHA-256", 1),
        ("CRAM-MD5 LOGIN", &["535 no", "535 no"], "CRAM-MD5 LOGIN", 2),
        ("SCRAM-SHA-256 CRAM-MD5", &["504 no", "535 no"], "SCRAM-SHA-256 CRAM-MD5", 1),
        ("PLAIN LOGIN", &["535 no"], "PLAIN", 1),
        ("PLAIN LOGIN", &["504 no", "504 no"], "PLAIN LOGIN", 0),
        ("LOGIN", &["534 no"], "LOGIN", 1),
        ("PLAIN LOGIN", &["235 yes"], "PLAIN", 0),
    ] {
        assert_eq!(tried(&implicit(), offer, replies), (expected.into(), refused), "{offer} {replies:?}");
    }
}

#[test]
fn the_mechanism_that_has_worked_comes_first_where_it_is_offered() {
    let config = SessionConfig { mechanism: Some(Mechanism::Plain), ..implicit() };
    for (offer, replies, expected) in [
        ("SCRAM-SHA-256 PLAIN LOGIN", &["235 yes"][..], "PLAIN"),
        ("SCRAM-SHA-256 PLAIN LOGIN", &["535 no"], "PLAIN"),
        ("CRAM-MD5 LOGIN", &["535 no", "535 no"], "CRAM-MD5 LOGIN"),
    ] {
        assert_eq!(tried(&config, offer, replies).0, expected, "{offer} {replies:?}");
    }
}
