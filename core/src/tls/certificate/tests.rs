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
    let extensions = der(tag::SEQUENCE, &alternative_names(names));
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
        let _ = is_public_key(&octets);
    }

    #[test]
    fn no_changed_octet_panics(at in any::<prop::sample::Index>(), octet in any::<u8>()) {
        let mut octets = certificate(7, &["a.example.org"]);
        *at.get_mut(&mut octets) = octet;
        if let Some(found) = Certificate::parse(&octets) {
            let _ = (found.dns_names(), found.common_names());
        }
    }
}
