//! Sets of TLSA records: which of them count, and what they match.

use cmail_delivery::tls::certificate::{self, Certificate};
use cmail_delivery::tls::tlsa::{Association, Described, Selector, Usage, usable};
use cmail_delivery::tls::{Tlsa, TlsaRecord};

/// Checks a set: the octets are its records, each behind its length.
pub fn check(octets: &[u8]) {
    let mut records = Vec::new();
    let mut rest = octets;
    while let Some((&[high, low], tail)) = rest.split_first_chunk::<2>() {
        let length = usize::from(u16::from_be_bytes([high, low])).min(tail.len());
        let (rdata, tail) = tail.split_at(length);
        let record = TlsaRecord::parse(rdata);
        assert_eq!(record.is_some(), rdata.len() >= 3);
        records.extend(record);
        rest = tail;
    }
    let found = usable(&records);
    let one_by_one: Vec<Tlsa> = records.iter().filter_map(TlsaRecord::usable).collect();
    for record in &one_by_one {
        check_record(record);
        // What does not count in the set is the weaker digest of two.
        let is_weaker = |other: &Tlsa| {
            (other.usage, other.selector) == (record.usage, record.selector)
                && matches!(other.association, Association::Sha512(_))
        };
        let is_hidden =
            matches!(record.association, Association::Sha256(_)) && one_by_one.iter().any(is_weaker);
        assert_eq!(found.contains(record), !is_hidden);
    }
    assert!(found.iter().all(|record| one_by_one.contains(record)));
    assert_eq!(found.is_empty(), one_by_one.is_empty(), "a set is never emptied by its own records");
    for record in &records {
        let counts = matches!((record.usage, record.selector, record.matching), (2 | 3, 0 | 1, 0..=2));
        assert!(counts || record.usable().is_none());
    }
}

/// Checks that a record with all of a certificate or key matches it.
fn check_record(record: &Tlsa) {
    assert!(matches!(record.usage, Usage::TrustAnchor | Usage::EndEntity));
    let Association::Full(data) = &record.association else { return };
    match record.selector {
        Selector::Certificate => {
            let certificate = Certificate::parse(data).expect("it counts only if it is one");
            assert!(record.matches(&Described::from(&certificate)));
        }
        Selector::PublicKey => assert!(certificate::is_public_key(data)),
    }
}
