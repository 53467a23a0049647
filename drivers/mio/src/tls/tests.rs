use std::io::Write as _;
use std::net::{Ipv4Addr, TcpStream};

use CertificateTrouble::{
    BadSignature, Expired, IsAuthority, NameMismatch, NoTrustAnchor, NotYetValid, UnknownIssuer, Unusable,
    UnusableName, WrongPurpose,
};
use cmail_delivery::io::{CertificateTrouble, Tls, Verification};
use cmail_delivery::next_hop::Host;
use cmail_delivery::tls::certificate::Certificate;
use cmail_delivery::tls::{NamePattern, Pin};
use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, KeyPair, date_time_ymd};
use rustls::{HandshakeKind, ServerConfig};
use sha2::{Digest as _, Sha256};

use super::possession::{Unprovable, provable};
use super::*;
use crate::connection::Progress;
use crate::testing::{self, Authority, Driven, authority, host, nothing, params, tls_server};

/// Connects, does the handshake, and says what came of it and how the server saw it.
fn handshake(context: &TlsContext, config: &Arc<ServerConfig>, server: &Host) -> (Progress, Observed) {
    handshake_offering(Groups::All, context, config, server)
}

fn handshake_offering(
    groups: Groups,
    context: &TlsContext,
    config: &Arc<ServerConfig>,
    server: &Host,
) -> (Progress, Observed) {
    let config = Arc::clone(config);
    let (address, thread) = testing::serve(move |stream| {
        let mut stream = tls_server::accept(config, stream);
        let observed = Observed {
            name: stream.conn.server_name().map(str::to_owned),
            kind: stream.conn.handshake_kind(),
        };
        stream.write_all(b"ready").unwrap();
        tls_server::finish(stream);
        observed
    });
    let mut driven = Driven::connected(address);
    driven.connection.start_tls(context.session(
        &Arc::new(TlsTerms::opportunistic(server.clone())),
        address.ip(),
        groups,
    ));
    let progress = driven.wait(&mut nothing);
    // The tickets for later sessions come after the handshake.
    driven.receive(5, &mut nothing);
    assert_eq!(driven.received, b"ready", "the session is usable whatever the certificate");
    driven.connection.close();
    (progress, thread.join().unwrap())
}

struct Observed {
    name: Option<String>,
    kind: Option<HandshakeKind>,
}

fn trusting(authority: &Authority) -> TlsContext {
    TlsContext::load_trust(Some(testing::trust_file(authority).path()), false).unwrap()
}

fn trusting_nobody() -> TlsContext {
    let nobody = Arc::new(Trusted { roots: RootCertStore::empty(), own: Vec::new() });
    TlsContext::with_trusted(Arc::clone(&nobody), nobody).unwrap()
}

/// The end of a handshake by the newest version after which this is known of the server.
fn established(found: Result<(), CertificateTrouble>) -> Progress {
    established_by(TlsVersion::V1_3, found)
}

fn established_by(version: TlsVersion, found: Result<(), CertificateTrouble>) -> Progress {
    Progress::TlsEstablished(session_by(version, found))
}

/// The same of a session that goes on with the keys of an earlier one: TLS 1.2 exchanges no new ones.
fn resumed_by(version: TlsVersion, found: Result<(), CertificateTrouble>) -> Progress {
    let session = session_by(version, found);
    let group = session.group.filter(|_| version == TlsVersion::V1_3);
    Progress::TlsEstablished(Tls { group, is_resumed: true, ..session })
}

fn session_by(version: TlsVersion, found: Result<(), CertificateTrouble>) -> Tls {
    let (cipher_suite, group) = match version {
        TlsVersion::V1_3 => ("TLS13_AES_256_GCM_SHA384", "X25519MLKEM768"),
        TlsVersion::V1_2 => ("TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384", "X25519"),
    };
    let verification = found.map_or_else(Verification::Unverified, |()| Verification::Verified);
    Tls { cipher_suite: Some(cipher_suite), group: Some(group), ..Tls::new(version, verification) }
}

/// What is agreed on with a server that speaks these versions.
const VERSIONS: [(TlsVersion, &[&SupportedProtocolVersion]); 2] =
    [(TlsVersion::V1_3, rustls::ALL_VERSIONS), (TlsVersion::V1_2, &[&rustls::version::TLS12])];

#[test]
fn a_certificate_of_a_trusted_issuer_for_the_name_is_valid() {
    let authority = authority();
    let context = trusting(&authority);
    for (version, versions) in VERSIONS {
        let config = tls_server::with_versions(&params(&["mx.example.org"]), Some(&authority), versions);
        let (progress, observed) = handshake(&context, &config, &host("mx.example.org"));
        assert_eq!(progress, established_by(version, Ok(())));
        assert_eq!(observed.name.as_deref(), Some("mx.example.org"));
    }
}

#[test]
fn classic_groups_make_a_first_message_that_fits_into_one_segment() {
    /// The payload of a segment on Ethernet, over IPv6.
    const SEGMENT_OCTETS: usize = 1440;
    let context = trusting(&authority());
    let hello_octets = |groups| {
        let (address, thread) = testing::serve(|mut stream| {
            let header = testing::read_octets(&mut stream, 5);
            header.len() + usize::from(u16::from_be_bytes([header[3], header[4]]))
        });
        let mut driven = Driven::connected(address);
        driven.connection.start_tls(context.session(&testing::terms("mx.example.org"), address.ip(), groups));
        driven.wait(&mut nothing);
        thread.join().unwrap()
    };
    assert!(hello_octets(Groups::All) > SEGMENT_OCTETS);
    assert!(hello_octets(Groups::Classic) < SEGMENT_OCTETS / 2);
}

#[test]
fn a_session_with_classic_groups_is_as_good_as_any() {
    let authority = authority();
    let config = tls_server::config(&params(&["mx.example.org"]), Some(&authority));
    let (progress, _) =
        handshake_offering(Groups::Classic, &trusting(&authority), &config, &host("mx.example.org"));
    let expected = Tls { group: Some("X25519"), ..session_by(TlsVersion::V1_3, Ok(())) };
    assert_eq!(progress, Progress::TlsEstablished(expected));
}

#[test]
fn a_key_on_the_largest_curve_is_verified() {
    let authority = authority();
    let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P521_SHA512).unwrap();
    let certificate = params(&["mx.example.org"]).signed_by(&key, &authority).unwrap();
    let config = tls_server::presenting(certificate.der().clone(), &key, rustls::ALL_VERSIONS);
    let (progress, _) = handshake(&trusting(&authority), &config, &host("mx.example.org"));
    assert_eq!(progress, established(Ok(())));
}

#[test]
fn an_address_needs_a_certificate_for_the_address_and_is_not_sent_as_a_name() {
    let authority = authority();
    let context = trusting(&authority);
    let config = tls_server::config(&params(&["127.0.0.1"]), Some(&authority));
    let (progress, observed) = handshake(&context, &config, &host("127.0.0.1"));
    assert_eq!((progress, observed.name), (established(Ok(())), None));
    let config = tls_server::config(&params(&["mx.example.org"]), Some(&authority));
    assert_eq!(handshake(&context, &config, &host("127.0.0.1")).0, established(Err(NameMismatch)));
}

#[test]
fn a_certificate_that_is_not_valid_does_not_prevent_the_session() {
    let authority = authority();
    let context = trusting(&authority);
    let name = host("mx.example.org");
    let mut expired = params(&["mx.example.org"]);
    expired.not_before = date_time_ymd(2001, 1, 1);
    expired.not_after = date_time_ymd(2002, 1, 1);
    let (of_same_name, of_another) = (testing::authority(), testing::authority_named("another authority"));
    let mut not_begun = params(&["mx.example.org"]);
    not_begun.not_before = date_time_ymd(4000, 1, 1);
    let mut of_client = params(&["mx.example.org"]);
    of_client.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let mut of_authority = params(&["mx.example.org"]);
    of_authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    for (what, config, trouble) in [
        ("self-signed", tls_server::config(&params(&["mx.example.org"]), None), UnknownIssuer),
        ("self-signed as an authority", tls_server::config(&of_authority, None), IsAuthority),
        ("wrong name", tls_server::config(&params(&["mx.example.net"]), Some(&authority)), NameMismatch),
        ("no name", tls_server::config(&CertificateParams::default(), Some(&authority)), NameMismatch),
        ("expired", tls_server::config(&expired, Some(&authority)), Expired),
        ("not begun", tls_server::config(&not_begun, Some(&authority)), NotYetValid),
        ("of a client", tls_server::config(&of_client, Some(&authority)), WrongPurpose),
        (
            "unknown issuer",
            tls_server::config(&params(&["mx.example.org"]), Some(&of_another)),
            UnknownIssuer,
        ),
        (
            "issuer that only has the name of a trusted one",
            tls_server::config(&params(&["mx.example.org"]), Some(&of_same_name)),
            BadSignature,
        ),
    ] {
        assert_eq!(handshake(&context, &config, &name).0, established(Err(trouble)), "{what}");
    }
}

#[test]
fn a_self_signed_certificate_that_is_itself_trusted_is_valid_for_its_names_and_dates() {
    let server = |is_ca: IsCa, not_after: i32| {
        let key = KeyPair::generate().unwrap();
        let mut params = params(&["mx.example.org"]);
        params.is_ca = is_ca;
        params.not_after = date_time_ymd(not_after, 1, 1);
        let certificate = params.self_signed(&key).unwrap();
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(certificate.pem().as_bytes()).unwrap();
        let context = TlsContext::load_trust(Some(file.path()), false).unwrap();
        (context, tls_server::presenting(certificate.der().clone(), &key, rustls::ALL_VERSIONS))
    };
    for is_ca in [IsCa::NoCa, IsCa::Ca(BasicConstraints::Unconstrained)] {
        let (context, config) = server(is_ca, 4000);
        assert_eq!(handshake(&context, &config, &host("mx.example.org")).0, established(Ok(())), "{is_ca:?}");
        let for_another_name = handshake(&context, &config, &host("mx.example.net")).0;
        assert_eq!(for_another_name, established(Err(NameMismatch)), "{is_ca:?}");
        let (context, config) = server(is_ca, 2002);
        assert_eq!(
            handshake(&context, &config, &host("mx.example.org")).0,
            established(Err(Expired)),
            "{is_ca:?}"
        );
    }
    let (context, _) = server(IsCa::Ca(BasicConstraints::Unconstrained), 4000);
    let (_, another) = server(IsCa::Ca(BasicConstraints::Unconstrained), 4000);
    assert_eq!(handshake(&context, &another, &host("mx.example.org")).0, established(Err(IsAuthority)));
}

#[test]
fn a_certificate_that_cannot_be_read_does_not_prevent_the_session() {
    let authority = authority();
    let context = trusting(&authority);
    let key = KeyPair::generate().unwrap();
    let version_3 = params(&["mx.example.org"]).signed_by(&key, &authority).unwrap().der().to_vec();
    // RFC 5280 section 4.1.2.1: version 3 is encoded as 2, version 1 as 0.
    let at = version_3.windows(5).position(|octets| octets == [0xa0, 3, 2, 1, 2]).unwrap();
    let mut version_1 = version_3;
    version_1[at + 4] = 0;
    for certificate in [version_1, b"no certificate at all".to_vec()] {
        for (version, versions) in VERSIONS {
            let config = tls_server::presenting(certificate.clone().into(), &key, versions);
            assert_eq!(
                handshake(&context, &config, &host("mx.example.org")).0,
                established_by(version, Err(Unusable))
            );
        }
    }
}

#[test]
fn a_key_that_is_too_short_to_be_verified_gives_a_session_and_is_never_valid() {
    let short = CertificateDer::from_pem_slice(include_bytes!("rsa-1024.pem")).unwrap();
    let long = CertificateDer::from_pem_slice(include_bytes!("rsa-2048.pem")).unwrap();
    let provable = |certificate| provable(certificate, &trusting_nobody().judge.algorithms);
    assert_eq!(provable(&short), Err(Unprovable::RsaBits(1024)));
    assert_eq!(provable(&long), Ok(()), "a peer without this key has to be refused");
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(include_bytes!("rsa-1024.pem")).unwrap();
    // The signature is by another key, as any signature that is not verified may be.
    let key = KeyPair::generate().unwrap();
    for (version, versions) in VERSIONS {
        let context = TlsContext::load_trust(Some(file.path()), false).unwrap();
        let config = tls_server::presenting(short.clone(), &key, versions);
        for (kind, expected) in [
            (HandshakeKind::Full, established_by(version, Err(Unusable))),
            (HandshakeKind::Resumed, resumed_by(version, Err(Unusable))),
        ] {
            let (progress, observed) = handshake(&context, &config, &host("mx.example.org"));
            assert_eq!((progress, observed.kind), (expected, Some(kind)));
        }
    }
}

#[test]
fn a_peer_that_does_not_hold_the_key_of_its_certificate_is_refused() {
    let authority = authority();
    let context = trusting(&authority);
    let stolen = params(&["mx.example.org"]).signed_by(&KeyPair::generate().unwrap(), &authority).unwrap();
    for (_, versions) in VERSIONS {
        let key = KeyPair::generate().unwrap();
        let config = tls_server::presenting(stolen.der().clone(), &key, versions);
        let (address, thread) = testing::serve(move |mut stream: TcpStream| {
            let mut server = rustls::ServerConnection::new(config).unwrap();
            while server.is_handshaking() {
                if server.complete_io(&mut stream).is_err() {
                    return true;
                }
            }
            false
        });
        let mut driven = Driven::connected(address);
        driven.connection.start_tls(context.session(
            &testing::terms("mx.example.org"),
            address.ip(),
            Groups::All,
        ));
        let progress = driven.wait(&mut nothing);
        let Progress::TlsFailed(error) = progress else { panic!("{progress:?}") };
        assert_eq!(error.kind, Breakage::Tls(TlsTrouble::KeyNotProven), "{error}");
        drop(driven);
        assert!(thread.join().unwrap(), "the server has to see the handshake fail");
    }
}

#[test]
fn a_resumed_session_keeps_the_verdict_of_its_certificate() {
    let authority = authority();
    for (version, versions) in VERSIONS {
        // Each version has its own memory: a ticket of the one is preferred to a session of the other.
        let context = trusting(&authority);
        for (certified, host_name, verdict) in [
            ("a.example.org", "a.example.org", Ok(())),
            ("b.example.org", "c.example.org", Err(NameMismatch)),
        ] {
            let config = tls_server::with_versions(&params(&[certified]), Some(&authority), versions);
            let (first, observed) = handshake(&context, &config, &host(host_name));
            assert_eq!(observed.kind, Some(HandshakeKind::Full));
            let (second, observed) = handshake(&context, &config, &host(host_name));
            assert_eq!(observed.kind, Some(HandshakeKind::Resumed));
            assert_eq!((first, second), (established_by(version, verdict), resumed_by(version, verdict)));
        }
    }
}

/// Connects to a server that fails every handshake that resumes a session, in one of two ways; says what kind it was.
fn handshake_not_resumed(
    context: &TlsContext,
    config: &Arc<ServerConfig>,
    completes_it: bool,
) -> Option<HandshakeKind> {
    let config = Arc::clone(config);
    let (address, thread) = testing::serve(move |mut stream: TcpStream| {
        let mut server = rustls::ServerConnection::new(config).unwrap();
        while server.is_handshaking() {
            if server.wants_write() {
                server.write_tls(&mut stream).unwrap();
                continue;
            }
            server.read_tls(&mut stream).unwrap();
            server.process_new_packets().unwrap();
            if !completes_it && server.handshake_kind() == Some(HandshakeKind::Resumed) {
                return server.handshake_kind();
            }
        }
        let kind = server.handshake_kind();
        if kind == Some(HandshakeKind::Full) {
            server.writer().write_all(b"ready").unwrap();
            server.complete_io(&mut stream).unwrap();
            let _ = io::copy(&mut stream, &mut io::sink());
        }
        kind
    });
    let mut driven = Driven::connected(address);
    driven.connection.start_tls(context.session(
        &testing::terms("mx.example.org"),
        address.ip(),
        Groups::All,
    ));
    driven.receive(5, &mut nothing);
    driven.connection.close();
    thread.join().unwrap()
}

#[test]
fn a_session_that_cannot_be_resumed_is_not_offered_again() {
    for (_, versions) in VERSIONS {
        for completes_it in [false, true] {
            let context = trusting_nobody();
            let config = tls_server::with_versions(&params(&["mx.example.org"]), None, versions);
            let mut kinds = Vec::new();
            for _ in 0..4 {
                kinds.push(handshake_not_resumed(&context, &config, completes_it).unwrap());
            }
            use HandshakeKind::{Full, Resumed};
            assert_eq!(kinds, [Full, Resumed, Full, Resumed], "{versions:?}, {completes_it}");
        }
    }
}

#[test]
fn without_trust_anchors_no_certificate_is_valid_and_sessions_work() {
    let authority = authority();
    let context = trusting_nobody();
    let config = tls_server::config(&params(&["mx.example.org"]), Some(&authority));
    assert_eq!(handshake(&context, &config, &host("mx.example.org")).0, established(Err(NoTrustAnchor)));
}

#[test]
fn a_name_that_cannot_be_sent_gets_a_session_without_one() {
    let authority = authority();
    let context = trusting(&authority);
    let config = tls_server::config(&params(&["mx.example.org"]), Some(&authority));
    // A domain of digits only is a domain to DNS, but TLS takes it for an address.
    let server = host("1.2.3");
    let (progress, observed) = handshake(&context, &config, &server);
    assert_eq!(progress, established(Err(UnusableName)));
    assert!(observed.name.is_none_or(|name| name == "1.2.3"));
}

#[test]
fn trust_files_that_cannot_be_used_are_errors_that_name_the_file() {
    let missing = Path::new("/nonexistent/roots.pem");
    let error = TlsContext::load_trust(Some(missing), false).unwrap_err();
    assert!(matches!(error, TrustError::Unreadable { .. }), "{error}");
    assert!(error.to_string().contains("/nonexistent/roots.pem"));

    let empty = tempfile::NamedTempFile::new().unwrap();
    let error = TlsContext::load_trust(Some(empty.path()), false).unwrap_err();
    assert!(matches!(error, TrustError::NoCertificate { .. }), "{error}");
    assert!(error.to_string().contains(&*empty.path().to_string_lossy()));

    let mut unusable = tempfile::NamedTempFile::new().unwrap();
    unusable.write_all(b"-----BEGIN CERTIFICATE-----\nanVuaw==\n-----END CERTIFICATE-----\n").unwrap();
    let error = TlsContext::load_trust(Some(unusable.path()), false).unwrap_err();
    assert!(matches!(error, TrustError::NoCertificate { .. }), "{error}");

    let mut malformed = tempfile::NamedTempFile::new().unwrap();
    malformed.write_all(b"-----BEGIN CERTIFICATE-----\nanVu").unwrap();
    let error = TlsContext::load_trust(Some(malformed.path()), false).unwrap_err();
    assert!(matches!(error, TrustError::Malformed { .. }), "{error}");
}

#[test]
fn octets_that_are_no_tls_fail_the_handshake() {
    let context = trusting_nobody();
    // A server that speaks TLS 1.1 at most says so with a ServerHello of that version.
    let tls_1_1: &[u8] = &[
        0x16, 3, 2, 0, 42, 2, 0, 0, 38, 3, 2, //
        1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1,
        1, //
        0, 0, 0x2f, 0,
    ];
    for (answer, trouble) in [
        (b"500 what do you mean?\r\n".as_slice(), TlsTrouble::Misbehaved),
        (tls_1_1, TlsTrouble::NothingInCommon),
        (b"", TlsTrouble::Truncated),
    ] {
        let (address, thread) = testing::serve(move |mut stream: TcpStream| {
            testing::read_octets(&mut stream, 5);
            stream.write_all(answer).unwrap();
            stream.shutdown(std::net::Shutdown::Write).unwrap();
            let _ = io::copy(&mut stream, &mut io::sink());
        });
        let mut driven = Driven::connected(address);
        let session =
            context.session(&testing::terms("mx.example.org"), Ipv4Addr::LOCALHOST.into(), Groups::All);
        driven.connection.start_tls(session);
        let progress = driven.wait(&mut nothing);
        let Progress::TlsFailed(error) = progress else { panic!("{progress:?}") };
        assert_eq!(error.kind, Breakage::Tls(trouble), "{error}");
        drop(driven);
        thread.join().unwrap();
    }
}

/// The terms on which one of these keys is needed.
fn pinning(pins: &[Pin]) -> Arc<TlsTerms> {
    let terms = TlsTerms::opportunistic(host("mx.example.org"));
    Arc::new(TlsTerms { pins: pins.into(), needs_proof: true, ..terms })
}

fn pin_of(certificate: &[u8]) -> Pin {
    Pin(Sha256::digest(Certificate::parse(certificate).unwrap().key).into())
}

/// A certificate of version 1, which the library cannot read, and its key.
fn version_1() -> (Vec<u8>, KeyPair) {
    let key = KeyPair::generate().unwrap();
    let mut certificate = params(&["mx.example.org"]).signed_by(&key, &authority()).unwrap().der().to_vec();
    let at = certificate.windows(5).position(|octets| octets == [0xa0, 3, 2, 1, 2]).unwrap();
    certificate[at + 4] = 0;
    (certificate, key)
}

/// Connects on these terms, and returns what came of it.
fn meet(context: &TlsContext, terms: &Arc<TlsTerms>, config: Arc<ServerConfig>) -> Progress {
    let (address, thread) = testing::serve(move |mut stream: TcpStream| {
        let mut server = rustls::ServerConnection::new(config).unwrap();
        while server.is_handshaking() && server.complete_io(&mut stream).is_ok() {}
    });
    let mut driven = Driven::connected(address);
    driven.connection.start_tls(context.session(terms, address.ip(), Groups::All));
    let progress = driven.wait(&mut nothing);
    drop(driven);
    thread.join().unwrap();
    progress
}

#[test]
fn where_a_proof_is_needed_the_key_is_proven_in_whatever_certificate_it_comes() {
    let context = trusting(&authority());
    let (certificate, key) = version_1();
    let terms = pinning(&[Pin([0; 32]), pin_of(&certificate)]);
    for (_, versions) in VERSIONS {
        let config = tls_server::presenting(certificate.clone().into(), &key, versions);
        for _ in 0..2 {
            let Progress::TlsEstablished(tls) = meet(&context, &terms, Arc::clone(&config)) else { panic!() };
            assert_eq!((tls.pin, tls.is_resumed, tls.verification.is_verified()), (Some(true), false, false));
        }
        let Progress::TlsEstablished(tls) = meet(&context, &pinning(&[Pin([0; 32])]), config) else {
            panic!()
        };
        assert_eq!(tls.pin, Some(false));
    }
}

#[test]
fn where_a_proof_is_needed_a_signature_that_cannot_be_verified_ends_the_handshake() {
    let context = trusting(&authority());
    let (certificate, _) = version_1();
    let another = KeyPair::generate().unwrap();
    let short = CertificateDer::from_pem_slice(include_bytes!("rsa-1024.pem")).unwrap();
    for (certificate, trouble, words) in [
        (certificate.into(), TlsTrouble::KeyNotProven, "invalid peer certificate: BadSignature"),
        (
            short,
            TlsTrouble::UnprovableKey,
            "an RSA key of 1024 bits, which proves nothing: it must have 2048 to 8192",
        ),
        (
            CertificateDer::from(b"no certificate at all".to_vec()),
            TlsTrouble::UnprovableKey,
            "the certificate of the server cannot be read",
        ),
    ] {
        let pin = Certificate::parse(&certificate).map_or(Pin([0; 32]), |_| pin_of(&certificate));
        for (_, versions) in VERSIONS {
            let config = tls_server::presenting(certificate.clone(), &another, versions);
            let progress = meet(&context, &pinning(&[pin]), config);
            let Progress::TlsFailed(error) = progress else { panic!("{progress:?}") };
            assert_eq!(error.kind, Breakage::Tls(trouble), "{error}");
            assert!(error.to_string().contains(words), "{error}");
        }
    }
}

/// Makes a certificate of another by a change of octets, as often as they occur.
fn changed(certificate: &[u8], from: &[u8], to: &[u8]) -> CertificateDer<'static> {
    let mut octets = certificate.to_vec();
    for at in 0..octets.len() {
        if octets[at..].starts_with(from) {
            octets[at..at + to.len()].copy_from_slice(to);
        }
    }
    CertificateDer::from(octets)
}

#[test]
fn a_key_of_a_kind_that_is_not_known_gives_a_session_unless_a_proof_is_needed() {
    let context = trusting(&authority());
    let key = KeyPair::generate().unwrap();
    let known = params(&["mx.example.org"]).signed_by(&key, &authority()).unwrap().der().clone();
    // The object identifiers of P-256, and of a curve that nobody has (RFC 5480 section 2.1.1.1).
    let certificate = changed(
        &known,
        &[6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7],
        &[6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 0x7f],
    );
    for (version, versions) in VERSIONS {
        let config = tls_server::presenting(certificate.clone(), &key, versions);
        let (progress, _) = handshake(&context, &config, &host("mx.example.org"));
        assert_eq!(progress, established_by(version, Err(Unusable)));
        let progress = meet(&context, &pinning(&[pin_of(&certificate)]), config);
        let Progress::TlsFailed(error) = progress else { panic!("{progress:?}") };
        assert_eq!(error.kind, Breakage::Tls(TlsTrouble::UnprovableKey), "{error}");
        assert!(error.to_string().contains("of a kind that is not known here"), "{error}");
    }
}

#[test]
fn names_that_are_given_take_the_place_of_that_of_the_server() {
    let authority = authority();
    let context = trusting(&authority);
    let config = tls_server::config(&params(&["a.example.net", "*.example.com"]), Some(&authority));
    for (names, is_verified) in [
        (&["a.example.net"][..], true),
        (&[".example.net"], true),
        (&["b.example.net", "c.example.com"], true),
        (&["b.example.net"], false),
        (&["mx.example.org"], false),
    ] {
        let patterns: Vec<_> = names.iter().filter_map(|name| NamePattern::parse(name)).collect();
        let terms = TlsTerms { names: patterns.into(), ..TlsTerms::opportunistic(host("mx.example.org")) };
        let progress = meet(&context, &Arc::new(terms), Arc::clone(&config));
        let Progress::TlsEstablished(tls) = progress else { panic!("{progress:?}") };
        assert_eq!(tls.verification.is_verified(), is_verified, "{names:?}");
    }
}

#[test]
fn an_earlier_version_than_the_least_is_not_offered() {
    let context = trusting(&authority());
    let config = tls_server::with_versions(&params(&["mx.example.org"]), None, &[&rustls::version::TLS12]);
    let terms = TlsTerms { least: TlsVersion::V1_3, ..TlsTerms::opportunistic(host("mx.example.org")) };
    let progress = meet(&context, &Arc::new(terms), config);
    assert!(matches!(progress, Progress::TlsFailed(_)), "{progress:?}");
}
