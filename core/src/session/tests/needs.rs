//! What is needed of TLS, and what a session does that falls short of it.

use super::*;
use crate::tls::{Basis, CertificateTrouble, DaneMatch, Enforced, Lack, Need, Proof, Requirement, Shortfall};

const UNKNOWN: Verification = Verification::Unverified(CertificateTrouble::UnknownIssuer);

fn needing(proof: Option<Proof>, enforced: Enforced) -> SessionConfig {
    let (least, basis) = (TlsVersion::V1_3, Basis::Dane);
    let need = Need::Required(Requirement { least, proof, enforced, basis });
    SessionConfig { need, ..config(TlsMode::StartTls) }
}

fn begin_tls(talk: &mut Talk) {
    talk.server("220 mx\r\n").client("EHLO client.example.org\r\n");
    talk.server("250-mx\r\n250 STARTTLS\r\n").client("STARTTLS\r\n").server("220 go\r\n");
    assert_eq!(talk.outputs(), [SessionOutput::StartTls]);
}

fn short(lack: Lack) -> EndCause {
    EndCause::Untrusted(Shortfall { lack, basis: Basis::Dane })
}

#[test]
fn a_session_that_falls_short_ends_without_another_word() {
    let proof = Some(Proof::Dane);
    let early = Tls::new(TlsVersion::V1_2, Verification::Verified);
    let verified = Tls::new(TlsVersion::V1_3, Verification::Verified);
    let mismatch = Tls { dane: Some(Err(CertificateTrouble::NoTlsaMatch)), ..verified };
    for (proof, tls, lack) in [
        (None, early, Lack::Version(TlsVersion::V1_2)),
        (proof, early, Lack::Version(TlsVersion::V1_2)),
        (proof, verified, Lack::Proof(Proof::Dane, CertificateTrouble::NoTlsaMatch)),
        (proof, mismatch, Lack::Proof(Proof::Dane, CertificateTrouble::NoTlsaMatch)),
        (
            Some(Proof::WebPki),
            Tls::new(TlsVersion::V1_3, UNKNOWN),
            Lack::Proof(Proof::WebPki, CertificateTrouble::UnknownIssuer),
        ),
        (Some(Proof::Pin), verified, Lack::Proof(Proof::Pin, CertificateTrouble::NoPinMatch)),
    ] {
        dialogue(&needing(proof, Enforced::Whole), |talk| {
            begin_tls(talk);
            let end = talk.established(&tls).end();
            assert_eq!((end.phase, end.cause), (Phase::Tls, short(lack)));
            assert!(talk.transmit_at_once().is_empty());
        });
    }
}

#[test]
fn a_session_that_has_what_is_needed_goes_on() {
    let verified = Tls::new(TlsVersion::V1_3, Verification::Verified);
    let unknown = Tls::new(TlsVersion::V1_3, UNKNOWN);
    for (proof, tls) in [
        (None, unknown),
        (Some(Proof::WebPki), verified),
        (Some(Proof::Pin), Tls { pin: Some(true), ..unknown }),
        (Some(Proof::Dane), Tls { dane: Some(Ok(DaneMatch::EndEntity)), ..unknown }),
        (Some(Proof::Dane), Tls { dane: Some(Ok(DaneMatch::TrustAnchor)), ..unknown }),
    ] {
        dialogue(&needing(proof, Enforced::Whole), |talk| {
            begin_tls(talk);
            talk.established(&tls).client("EHLO client.example.org\r\n").server("250 mx\r\n");
            assert_eq!(talk.outputs(), [SessionOutput::Ready]);
        });
    }
}

fn told(shortfall: Shortfall) -> SessionOutput {
    SessionOutput::Note(SessionNote::FallsShort(shortfall))
}

#[test]
fn what_is_not_enforced_is_told_and_stops_nothing() {
    let unknown = Lack::Proof(Proof::Dane, CertificateTrouble::NoTlsaMatch);
    for (version, enforced, lack) in [
        (TlsVersion::V1_2, Enforced::Nothing, Lack::Version(TlsVersion::V1_2)),
        (TlsVersion::V1_3, Enforced::Nothing, unknown),
        (TlsVersion::V1_3, Enforced::Encryption(Basis::Config), unknown),
    ] {
        dialogue(&needing(Some(Proof::Dane), enforced), |talk| {
            begin_tls(talk);
            let tls = Tls::new(version, UNKNOWN);
            talk.established(&tls).client("EHLO client.example.org\r\n").server("250 mx\r\n");
            let told = told(Shortfall { lack, basis: Basis::Dane });
            assert_eq!(talk.outputs(), [told, SessionOutput::Ready]);
        });
    }
}

#[test]
fn plain_text_where_tls_is_not_enforced_is_told_once() {
    dialogue(
        &SessionConfig { tls: TlsMode::Plain, ..needing(Some(Proof::WebPki), Enforced::Nothing) },
        |talk| {
            talk.server("220 mx\r\n").client("EHLO client.example.org\r\n").server("250 mx\r\n");
            let told = told(Shortfall { lack: Lack::Tls, basis: Basis::Dane });
            assert_eq!(talk.outputs(), [told, SessionOutput::Ready]);
        },
    );
}

#[test]
fn where_tls_alone_is_enforced_nothing_less_will_do() {
    let config = needing(Some(Proof::WebPki), Enforced::Encryption(Basis::Config));
    dialogue(&config, |talk| {
        begin_tls(talk);
        let end = talk.established(&Tls::new(TlsVersion::V1_2, Verification::Verified)).end();
        let lack = Lack::Version(TlsVersion::V1_2);
        assert_eq!(end.cause, EndCause::Untrusted(Shortfall { lack, basis: Basis::Config }));
    });
    dialogue(&SessionConfig { tls: TlsMode::Plain, ..config }, |talk| {
        talk.server("220 mx\r\n").client("EHLO client.example.org\r\n").server("250 mx\r\n");
        let end = talk.client("QUIT\r\n").server("221 bye\r\n").end();
        assert_eq!(end.cause, EndCause::Untrusted(Shortfall { lack: Lack::Tls, basis: Basis::Config }));
    });
}

#[test]
fn no_mail_goes_in_plain_text_where_tls_is_needed() {
    for config in [
        needing(None, Enforced::Whole),
        SessionConfig { plain_fallback: true, ..needing(None, Enforced::Whole) },
        SessionConfig { tls: TlsMode::Plain, ..needing(Some(Proof::Pin), Enforced::Whole) },
    ] {
        dialogue(&config, |talk| {
            talk.server("220 mx\r\n").client("EHLO client.example.org\r\n").server("250 mx\r\n");
            let end = talk.client("QUIT\r\n").server("221 bye\r\n").end();
            assert_eq!(end.cause, short(Lack::Tls));
        });
    }
}

#[test]
fn credentials_go_to_a_server_that_a_record_or_a_pin_vouches_for() {
    let unknown = Tls::new(TlsVersion::V1_3, UNKNOWN);
    for (tls, goes) in [
        (unknown, false),
        (Tls { pin: Some(true), ..unknown }, true),
        (Tls { dane: Some(Ok(DaneMatch::EndEntity)), ..unknown }, true),
    ] {
        let credentials = Credentials { user: "u".into(), password: "p".into() };
        let config = SessionConfig { credentials: Some(credentials), ..config(TlsMode::StartTls) };
        dialogue(&config, |talk| {
            begin_tls(talk);
            talk.established(&tls).client("EHLO client.example.org\r\n");
            talk.server("250-mx\r\n250 AUTH PLAIN\r\n");
            let command = talk.transmit_at_once();
            assert_eq!(command.starts_with(b"AUTH PLAIN"), goes, "{command:?}");
        });
    }
}
