use alloc::vec;

use super::*;
use crate::tls::certificate::tests::{certificate, key};

fn record(usage: u8, selector: u8, matching: u8, data: impl Into<Bytes>) -> TlsaRecord {
    TlsaRecord { usage, selector, matching, data: data.into() }
}

/// Returns the data by which a record describes a part.
fn digest(matching: u8, part: &[u8]) -> Vec<u8> {
    match matching {
        0 => part.to_vec(),
        1 => Sha256::digest(part).to_vec(),
        _ => Sha512::digest(part).to_vec(),
    }
}

#[test]
fn rdata_is_three_octets_and_the_rest() {
    assert_eq!(TlsaRecord::parse(&[3, 1, 1, 9, 8]), Some(record(3, 1, 1, vec![9, 8])));
    assert_eq!(TlsaRecord::parse(&[3, 1, 1]), Some(record(3, 1, 1, vec![])));
    assert_eq!(TlsaRecord::parse(&[3, 1]), None);
}

#[test]
fn usages_2_and_3_count_with_each_selector_and_matching() {
    let whole = certificate(7, &[]);
    for usage in 0..=4 {
        for selector in 0..=2 {
            for matching in 0..=3 {
                let part = if selector == 0 { whole.clone() } else { key(7) };
                let found = record(usage, selector, matching, digest(matching, &part)).usable();
                let counts = matches!(usage, 2 | 3) && selector < 2 && matching < 3;
                assert_eq!(found.is_some(), counts, "{usage} {selector} {matching}");
                let Some(found) = found else { continue };
                assert!(found.matches(&Described::from(&Certificate::parse(&whole).unwrap())));
                assert!(!found.matches(&Described::from(&Certificate::parse(&certificate(8, &[])).unwrap())));
            }
        }
    }
}

#[test]
fn a_record_of_the_wrong_length_or_without_a_certificate_does_not_count() {
    for (selector, matching, data) in [
        (1, 1, vec![0; 31]),
        (1, 1, vec![0; 33]),
        (1, 2, vec![0; 63]),
        (1, 2, vec![0; 32]),
        (0, 1, vec![]),
        (0, 0, vec![]),
        (0, 0, key(7)),
        (1, 0, certificate(7, &[])),
        (1, 0, b"\x30\x00".to_vec()),
    ] {
        assert_eq!(
            record(3, selector, matching, data.clone()).usable(),
            None,
            "{selector} {matching} {data:?}"
        );
    }
}

#[test]
fn the_weaker_digest_does_not_count_beside_the_stronger_one_of_the_same_kind() {
    let kinds = |records: &[TlsaRecord]| -> Vec<_> {
        usable(records)
            .iter()
            .map(|found| {
                let matching = match found.association {
                    Association::Full(_) => 0,
                    Association::Sha256(_) => 1,
                    Association::Sha512(_) => 2,
                };
                (found.usage, found.selector, matching)
            })
            .collect()
    };
    use Selector::{Certificate as Cert, PublicKey};
    use Usage::{EndEntity, TrustAnchor};
    let (weak, strong) = (vec![1; 32], vec![2; 64]);
    let both = [record(3, 1, 1, weak.clone()), record(3, 1, 2, strong.clone())];
    assert_eq!(kinds(&both), [(EndEntity, PublicKey, 2)]);
    // Others of the set are not touched.
    let mixed = [
        record(3, 1, 2, strong.clone()),
        record(3, 0, 1, weak.clone()),
        record(2, 1, 1, weak.clone()),
        record(3, 1, 1, weak.clone()),
        record(3, 1, 0, key(1)),
    ];
    let expected = [
        (EndEntity, PublicKey, 2),
        (EndEntity, Cert, 1),
        (TrustAnchor, PublicKey, 1),
        (EndEntity, PublicKey, 0),
    ];
    assert_eq!(kinds(&mixed), expected);
    // A strong one that does not count hides nothing.
    let broken = [record(3, 1, 1, weak), record(3, 1, 2, vec![2; 63])];
    assert_eq!(kinds(&broken), [(EndEntity, PublicKey, 1)]);
}
