use alloc::string::ToString as _;
use alloc::vec;

use proptest::prelude::*;

use super::*;

/// Encodes an element.
pub(in crate::tls) fn der(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = content.len();
    let mut octets = match length {
        0..128 => vec![tag, u8::try_from(length).unwrap()],
        _ => vec![tag, 0x82, u8::try_from(length >> 8).unwrap(), u8::try_from(length & 0xff).unwrap()],
    };
    octets.extend_from_slice(content);
    octets
}

fn joined(parts: &[Vec<u8>]) -> Vec<u8> {
    parts.concat()
}

fn name(common_name: &str) -> Vec<u8> {
    let text = der(tag::UTF8_STRING, common_name.as_bytes());
    let attribute = der(tag::SEQUENCE, &joined(&[der(tag::OBJECT_IDENTIFIER, &COMMON_NAME), text]));
    der(tag::SEQUENCE, &der(tag::SET, &attribute))
}

/// Returns the SubjectPublicKeyInfo of a key that nobody has.
pub(in crate::tls) fn key(octet: u8) -> Vec<u8> {
    let algorithm = der(tag::SEQUENCE, &der(tag::OBJECT_IDENTIFIER, &[0x2b, 0x65, 0x70]));
    der(tag::SEQUENCE, &joined(&[algorithm, der(tag::BIT_STRING, &[&[0][..], &[octet; 32]].concat())]))
}

fn alternative_names(names: &[&str]) -> Vec<u8> {
    let list: Vec<u8> = names.iter().flat_map(|name| der(tag::DNS_NAME, name.as_bytes())).collect();
    let value = der(tag::OCTET_STRING, &der(tag::SEQUENCE, &list));
    // Critical, as the value need not come directly after the identifier.
    let critical = vec![1, 1, 0xff];
    der(tag::SEQUENCE, &joined(&[der(tag::OBJECT_IDENTIFIER, &ALTERNATIVE_NAMES), critical, value]))
}

fn signed(fields: &[Vec<u8>]) -> Vec<u8> {
    let algorithm = der(tag::SEQUENCE, &[]);
    let signature = der(tag::BIT_STRING, &[0]);
    der(tag::SEQUENCE, &joined(&[der(tag::SEQUENCE, &joined(fields)), algorithm, signature]))
}

fn validity(from: (u8, &str), until: (u8, &str)) -> Vec<u8> {
    let times = [der(from.0, from.1.as_bytes()), der(until.0, until.1.as_bytes())];
    der(tag::SEQUENCE, &joined(&times))
}

/// Returns a certificate of version 3 with a key of this octet.
pub(in crate::tls) fn certificate(octet: u8, names: &[&str]) -> Vec<u8> {
    certificate_with(octet, &[alternative_names(names)])
}

fn extension(id: [u8; 3], value: &[u8]) -> Vec<u8> {
    der(tag::SEQUENCE, &joined(&[der(tag::OBJECT_IDENTIFIER, &id), value.to_vec()]))
}

fn certificate_with(octet: u8, extensions: &[Vec<u8>]) -> Vec<u8> {
    let extensions = der(tag::SEQUENCE, &joined(extensions));
    signed(&[
        der(tag::VERSION, &[2, 1, 2]),
        der(tag::INTEGER, &[1]),
        der(tag::SEQUENCE, &[]),
        name("issuer"),
        validity((tag::UTC_TIME, "700101000001Z"), (tag::GENERALIZED_TIME, "20500101000000Z")),
        name("mx.example.org"),
        key(octet),
        der(tag::EXTENSIONS, &extensions),
    ])
}

#[test]
fn a_certificate_is_read() {
    let octets = certificate(7, &["a.example.org", "*.example.net"]);
    let found = Certificate::parse(&octets).unwrap();
    assert_eq!(found.der, octets);
    assert_eq!(found.key, key(7));
    assert_eq!((found.issuer, found.subject), (&*name("issuer"), &*name("mx.example.org")));
    assert_eq!(found.not_before, Some(UnixTime(1)));
    assert_eq!(found.not_after, Some(UnixTime(2_524_608_000)));
    assert_eq!(found.dns_names(), ["a.example.org", "*.example.net"]);
    assert_eq!(found.common_names(), ["mx.example.org"]);
}

#[test]
fn a_certificate_of_version_1_with_odd_dates_is_read() {
    let octets = signed(&[
        der(tag::INTEGER, &[1]),
        der(tag::SEQUENCE, &[]),
        name("issuer"),
        validity((tag::UTC_TIME, "7001010000Z"), (tag::UTF8_STRING, "20500101000000Z")),
        name("two\0faces"),
        key(1),
    ]);
    let found = Certificate::parse(&octets).unwrap();
    assert_eq!((found.not_before, found.not_after), (None, None));
    assert!(found.dns_names().is_empty() && found.common_names().is_empty());
}

#[test]
fn dns_names_that_cannot_be_read_are_there_all_the_same() {
    let names = |extensions: &[Vec<u8>]| {
        let octets = certificate_with(7, extensions);
        let found = Certificate::parse(&octets).unwrap();
        (found.dns_names().len(), found.may_have_dns_names())
    };
    let list =
        |entries: &[u8]| extension(ALTERNATIVE_NAMES, &der(tag::OCTET_STRING, &der(tag::SEQUENCE, entries)));
    assert_eq!(names(&[]), (0, false));
    assert_eq!(names(&[extension(NAME_CONSTRAINTS, &der(tag::OCTET_STRING, &[]))]), (0, false));
    assert_eq!(names(&[list(&der(0x81, b"a@example.org"))]), (0, false));
    assert_eq!(names(&[alternative_names(&["a.example.org"])]), (1, true));
    assert_eq!(names(&[alternative_names(&["\u{e9}.example"])]), (0, true));
    assert_eq!(names(&[alternative_names(&["a\0.example"])]), (0, true));
    assert_eq!(names(&[list(&[0x87, 9])]), (0, true), "an entry is cut short");
    assert_eq!(names(&[extension(ALTERNATIVE_NAMES, &der(tag::OCTET_STRING, b"none"))]), (0, true));
    assert_eq!(names(&[extension(ALTERNATIVE_NAMES, &[])]), (0, true), "it has no value");
}

#[test]
fn name_constraints_are_seen_whatever_they_say() {
    let constrains = |extensions: &[Vec<u8>]| {
        Certificate::parse(&certificate_with(7, extensions)).unwrap().constrains_names()
    };
    assert!(!constrains(&[alternative_names(&["a.example.org"])]));
    assert!(constrains(&[alternative_names(&[]), extension(NAME_CONSTRAINTS, b"")]));
}

#[test]
fn the_kind_and_the_size_of_a_key_are_told() {
    let rsa = |modulus: &[u8]| {
        let numbers = joined(&[der(tag::INTEGER, modulus), der(tag::INTEGER, &[1, 0, 1])]);
        let key = joined(&[vec![0], der(tag::SEQUENCE, &numbers)]);
        der(tag::SEQUENCE, &joined(&[der(tag::SEQUENCE, b"kind"), der(tag::BIT_STRING, &key)]))
    };
    assert_eq!(algorithm(&rsa(&[1])), Some(&b"kind"[..]));
    assert_eq!(rsa_bits(&rsa(&[1])), Some(1));
    assert_eq!(rsa_bits(&rsa(&[0, 0x80, 0])), Some(16));
    assert_eq!(rsa_bits(&rsa(&[0x7f, 0])), Some(15));
    assert_eq!(rsa_bits(&rsa(&[&[0, 0xff][..], &[0; 2047]].concat())), Some(16 * 1024));
    for no_number in [&[][..], &[0], &[0, 0]] {
        assert_eq!(rsa_bits(&rsa(no_number)), None);
    }
    assert_eq!(rsa_bits(&key(7)), None);
    assert_eq!(rsa_bits(b"none"), None);
    assert_eq!(algorithm(b"none"), None);
}

#[test]
fn two_digits_are_a_year_of_either_century() {
    let year = |text: &str| {
        let octets = der(tag::UTC_TIME, text.as_bytes());
        Reader(&octets).next().unwrap().time().unwrap().to_string()
    };
    assert_eq!(year("490101000000Z"), "2049-01-01T00:00:00Z");
    assert_eq!(year("500101000000Z"), "1950-01-01T00:00:00Z");
}

#[test]
fn what_is_cut_short_or_goes_on_is_no_certificate() {
    let octets = certificate(7, &["a.example.org"]);
    for end in 0..octets.len() {
        assert_eq!(Certificate::parse(&octets[..end]), None, "cut at {end}");
    }
    assert_eq!(Certificate::parse(&[&octets[..], &[0]].concat()), None);
}

#[test]
fn a_length_that_could_be_shorter_is_read_and_an_indefinite_one_is_not() {
    let content = |octets: &[u8]| Reader(octets).next().map(|element| element.content.to_vec());
    assert_eq!(content(&[0x30, 0x81, 1, 5]), Some(vec![5]));
    assert_eq!(content(&[0x30, 0x84, 0, 0, 0, 1, 5]), Some(vec![5]));
    assert_eq!(content(&[0x30, 0x80, 5, 0, 0]), None);
    assert_eq!(content(&[0x30, 0x85, 0, 0, 0, 0, 1, 5]), None);
    assert_eq!(content(&[0x3f, 1, 5]), None);
}

proptest! {
    #[test]
    fn no_octets_panic(octets in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = Certificate::parse(&octets).map(|found| (found.dns_names(), found.common_names()));
        let _ = (is_public_key(&octets), algorithm(&octets), rsa_bits(&octets));
    }

    #[test]
    fn no_changed_octet_panics(at in any::<prop::sample::Index>(), octet in any::<u8>()) {
        let mut octets = certificate(7, &["a.example.org"]);
        *at.get_mut(&mut octets) = octet;
        if let Some(found) = Certificate::parse(&octets) {
            let _ = (found.dns_names(), found.common_names());
            let _ = (found.may_have_dns_names(), found.constrains_names(), rsa_bits(found.key));
        }
    }
}
