//! Verdicts beside those of OpenSSL, which holds the same chains against the same records.

use std::fmt::Write as _;
use std::process::{Command, Stdio};

use cmail_delivery::next_hop::Host;
use cmail_delivery::tls::{TlsaRecord, tlsa};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, CustomExtension, DnType, GeneralSubtree, IsCa,
    KeyPair, NameConstraints, date_time_ymd,
};
use sha2::{Digest as _, Sha256, Sha512};

use super::*;
use crate::testing::{self, tls_server};

const HOST: &str = "mx.example.org";

/// What a server shows, its own certificate first, and those that a record may describe.
struct Shown {
    what: &'static str,
    chain: Vec<CertificateDer<'static>>,
    described: Vec<(&'static str, CertificateDer<'static>)>,
    key: KeyPair,
}

fn params(names: &[&str], common_name: &str) -> CertificateParams {
    let mut params = testing::params(names);
    params.distinguished_name.push(DnType::CommonName, common_name);
    params
}

fn authority(name: &str) -> CertificateParams {
    let mut params = params(&[], name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params
}

fn expired(mut params: CertificateParams) -> CertificateParams {
    (params.not_before, params.not_after) = (date_time_ymd(2001, 1, 1), date_time_ymd(2002, 1, 1));
    params
}

fn not_begun(mut params: CertificateParams) -> CertificateParams {
    params.not_before = date_time_ymd(4000, 1, 1);
    params
}

/// A server whose certificate an authority has issued that another one has.
fn issued(
    what: &'static str,
    leaf: CertificateParams,
    intermediate: CertificateParams,
    root: CertificateParams,
    shows_root: bool,
) -> Shown {
    let generate = || KeyPair::generate().unwrap();
    let root = CertifiedIssuer::self_signed(root, generate()).unwrap();
    let intermediate = CertifiedIssuer::signed_by(intermediate, generate(), &root).unwrap();
    let key = generate();
    let leaf = leaf.signed_by(&key, &intermediate).unwrap().der().clone();
    let (intermediate, root) = (intermediate.der().clone(), root.der().clone());
    let mut chain = vec![leaf.clone(), intermediate.clone()];
    chain.extend(shows_root.then(|| root.clone()));
    Shown {
        what,
        chain,
        described: vec![("leaf", leaf), ("intermediate", intermediate), ("root", root)],
        key,
    }
}

fn shown() -> Vec<Shown> {
    let usual = || params(&[HOST], "x");
    let (intermediate, root) = (|| authority("intermediate"), || authority("root"));
    let key = KeyPair::generate().unwrap();
    let own = params(&["else.example"], "x").self_signed(&key).unwrap().der().clone();
    let stranger = KeyPair::generate().unwrap();
    let other = authority("root").self_signed(&stranger).unwrap().der().clone();
    let described = vec![("leaf", own.clone()), ("stranger", other)];
    let self_signed = Shown { what: "self-signed", chain: vec![own], described, key };
    vec![
        self_signed,
        issued("whole chain", usual(), intermediate(), root(), true),
        issued("without the root", usual(), intermediate(), root(), false),
        issued("another name", params(&["else.example"], HOST), intermediate(), root(), true),
        issued("any name below", params(&["*.example.org"], "x"), intermediate(), root(), true),
        issued("common name alone", params(&[], HOST), intermediate(), root(), true),
        issued("expired", expired(usual()), intermediate(), root(), true),
        issued("not begun", not_begun(usual()), intermediate(), root(), true),
        issued("expired intermediate", usual(), expired(intermediate()), root(), true),
        issued("expired root", usual(), intermediate(), expired(root()), true),
    ]
}

/// Describes a certificate by a record; the digest of `matching` 1 or 2 can be made wrong.
fn record(usage: u8, selector: u8, matching: u8, certificate: &[u8], is_wrong: bool) -> TlsaRecord {
    let parsed = Certificate::parse(certificate).unwrap();
    let part = if selector == 0 { parsed.der } else { parsed.key };
    let mut data = match matching {
        0 => part.to_vec(),
        1 => Sha256::digest(part).to_vec(),
        _ => Sha512::digest(part).to_vec(),
    };
    if is_wrong {
        *data.last_mut().unwrap() ^= 1;
    }
    TlsaRecord { usage, selector, matching, data: data.into() }
}

/// All sets of records that a server is held against.
fn sets(shown: &Shown) -> Vec<(String, Vec<TlsaRecord>)> {
    let mut sets = Vec::new();
    for (whose, certificate) in &shown.described {
        for usage in [2, 3] {
            for selector in [0, 1] {
                for matching in [0, 1, 2] {
                    let found = record(usage, selector, matching, certificate, false);
                    sets.push((format!("{usage} {selector} {matching} {whose}"), vec![found]));
                }
            }
        }
    }
    let leaf = &shown.described[0].1;
    let (right, wrong) = (record(3, 1, 1, leaf, false), record(3, 1, 2, leaf, true));
    sets.push(("3 1 1 wrong".into(), vec![record(3, 1, 1, leaf, true)]));
    sets.push(("3 1 1, and a wrong 3 1 2".into(), vec![right.clone(), wrong.clone()]));
    sets.push(("3 0 1, and a wrong 3 1 2".into(), vec![record(3, 0, 1, leaf, false), wrong]));
    sets.push(("a wrong 3 1 1, and 3 1 1".into(), vec![record(3, 1, 1, leaf, true), right]));
    sets
}

fn ours(chain: &[CertificateDer<'_>], records: &[TlsaRecord]) -> Result<DaneMatch, CertificateTrouble> {
    let name = Domain::parse(HOST).unwrap();
    let terms = TlsTerms {
        tlsa: tlsa::usable(records).into(),
        tlsa_names: [name.clone()].into(),
        ..TlsTerms::opportunistic(Host::Name(name))
    };
    let algorithms = rustls::crypto::aws_lc_rs::default_provider().signature_verification_algorithms;
    let chain = Chain::of(chain).ok_or(CertificateTrouble::Missing)?;
    verdict(&chain, &terms, &algorithms, UnixTime::now())
}

/// Returns whether OpenSSL accepts the server.
fn openssl_accepts(shown: &Shown, records: &[TlsaRecord]) -> bool {
    let config = tls_server::presenting_chain(shown.chain.clone(), &shown.key, rustls::ALL_VERSIONS);
    let (address, thread) = testing::serve(move |mut stream| {
        let mut server = rustls::ServerConnection::new(config).unwrap();
        while server.is_handshaking() {
            if server.complete_io(&mut stream).is_err() {
                return;
            }
        }
    });
    let mut command = Command::new("openssl");
    command.args(["s_client", "-connect", &address.to_string(), "-dane_tlsa_domain", HOST]);
    command.args(["-verify_return_error", "-dane_ee_no_namechecks", "-brief"]);
    for TlsaRecord { usage, selector, matching, data } in records {
        let mut text = format!("{usage} {selector} {matching} ");
        data.iter().for_each(|octet| write!(text, "{octet:02x}").unwrap());
        command.args(["-dane_tlsa_rrdata", &text]);
    }
    let output = command.stdin(Stdio::null()).output().unwrap();
    thread.join().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    said.contains("Verification: OK")
}

#[test]
fn the_verdicts_are_those_of_openssl() {
    if Command::new("openssl").arg("version").output().is_err() {
        eprintln!("SKIPPED: there is no openssl to compare with");
        return;
    }
    let (mut differences, mut count, mut accepted) = (Vec::new(), 0, 0);
    for shown in shown() {
        for (set, records) in sets(&shown) {
            let ours = ours(&shown.chain, &records);
            let theirs = openssl_accepts(&shown, &records);
            count += 1;
            accepted += usize::from(theirs);
            if ours.is_ok() != theirs {
                differences.push(format!("{}, {set}: {ours:?}, OpenSSL {theirs}", shown.what));
            }
        }
    }
    assert!(count >= 200 && accepted >= 50 && accepted < count, "{accepted} of {count}");
    assert_eq!(differences, [""; 0], "{}", differences.join("\n"));
}

#[test]
fn an_authority_never_vouches_for_itself_as_a_server() {
    let shown = &shown()[0];
    let own = record(2, 0, 1, &shown.chain[0], false);
    assert_eq!(ours(&shown.chain, &[own]), Err(CertificateTrouble::NoTlsaMatch));
}

#[test]
fn what_is_wrong_is_told() {
    let shown = shown();
    let by_root = |what: &str| {
        let shown = shown.iter().find(|shown| shown.what == what).unwrap();
        ours(&shown.chain, &[record(2, 0, 1, &shown.described[2].1, false)])
    };
    assert_eq!(by_root("whole chain"), Ok(DaneMatch::TrustAnchor));
    assert_eq!(by_root("without the root"), Err(CertificateTrouble::NoTlsaMatch));
    assert_eq!(by_root("another name"), Err(CertificateTrouble::NameMismatch));
    assert_eq!(by_root("expired"), Err(CertificateTrouble::Expired));
    assert_eq!(by_root("not begun"), Err(CertificateTrouble::NotYetValid));
    assert_eq!(by_root("expired root"), Err(CertificateTrouble::Expired));
    assert_eq!(ours(&[], &[record(3, 1, 1, &shown[0].chain[0], false)]), Err(CertificateTrouble::Missing));
    let unreadable = [CertificateDer::from(vec![0; 9])];
    assert_eq!(
        ours(&unreadable, &[record(3, 1, 1, &shown[0].chain[0], false)]),
        Err(CertificateTrouble::Unusable)
    );
}

#[test]
fn the_common_name_does_not_count_where_an_authority_may_vouch_for_some_names_only() {
    let constrained = |subtree: &str| {
        let mut params = authority("intermediate");
        let permitted_subtrees = vec![GeneralSubtree::DnsName(subtree.to_owned())];
        params.name_constraints = Some(NameConstraints { permitted_subtrees, excluded_subtrees: Vec::new() });
        params
    };
    let by_root = |leaf: CertificateParams, subtree: &str| {
        let shown = issued("constrained", leaf, constrained(subtree), authority("root"), true);
        ours(&shown.chain, &[record(2, 0, 1, &shown.described[2].1, false)])
    };
    assert_eq!(by_root(params(&[HOST], "x"), "example.org"), Ok(DaneMatch::TrustAnchor));
    for subtree in ["a.example", "example.org"] {
        assert_eq!(by_root(params(&[], HOST), subtree), Err(CertificateTrouble::NameMismatch));
    }
    // The authority that the record describes may be the one.
    let shown = issued(
        "constrained root",
        params(&[], HOST),
        authority("intermediate"),
        constrained("a.example"),
        false,
    );
    let whole = record(2, 0, 0, &shown.described[2].1, false);
    assert_eq!(ours(&shown.chain, &[whole]), Err(CertificateTrouble::NameMismatch));
}

#[test]
fn the_common_name_does_not_count_beside_a_dns_name_that_cannot_be_read() {
    let mut leaf = params(&[], HOST);
    // An IA5String takes ASCII only, so the extension is written as it stands in a certificate (RFC 5280 section 4.2.1.6).
    let names = CustomExtension::from_oid_content(&[2, 5, 29, 17], b"\x30\x0b\x82\x09\xe9.example".to_vec());
    leaf.custom_extensions.push(names);
    let shown = issued("not ASCII", leaf, authority("intermediate"), authority("root"), true);
    assert_eq!(Certificate::parse(&shown.chain[0]).unwrap().common_names(), [HOST]);
    let by_root = ours(&shown.chain, &[record(2, 0, 1, &shown.described[2].1, false)]);
    assert_eq!(by_root, Err(CertificateTrouble::NameMismatch));
}

#[test]
fn of_authorities_that_are_not_shown_few_are_looked_at() {
    let shown =
        issued("without the root", params(&[HOST], "x"), authority("intermediate"), authority("root"), false);
    let root = record(2, 1, 0, &shown.described[2].1, false);
    let strangers = (0..UNSHOWN_LIMIT).map(|_| {
        let key = KeyPair::generate().unwrap();
        record(2, 1, 0, authority("root").self_signed(&key).unwrap().der(), false)
    });
    let mut records: Vec<TlsaRecord> = strangers.collect();
    records.insert(0, root.clone());
    assert_eq!(ours(&shown.chain, &records), Ok(DaneMatch::TrustAnchor));
    records.rotate_left(1);
    assert!(ours(&shown.chain, &records).is_err());
    // What is shown is found in whatever number of them.
    let intermediate = record(2, 1, 0, &shown.described[1].1, false);
    records.push(intermediate);
    assert_eq!(ours(&shown.chain, &records), Ok(DaneMatch::TrustAnchor));
}
