//! Certificates: whatever is read lies within the octets, and what is read of one is read again from its own octets.

use cmail_delivery::tls::Pin;
use cmail_delivery::tls::certificate::{self, Certificate};

/// Checks octets as a certificate, and as the key of one.
pub fn check(octets: &[u8]) {
    let range = octets.as_ptr_range();
    let is_within = |part: &[u8]| part.is_empty() || range.contains(&part.as_ptr());
    if certificate::is_public_key(octets) {
        let content = certificate::content(octets).expect("a key is a sequence");
        assert!(is_within(content) && content.len() < octets.len());
    }
    let Some(found) = Certificate::parse(octets) else { return };
    assert_eq!(found.der, octets);
    for part in [found.key, found.issuer, found.subject] {
        assert!(is_within(part) && certificate::content(part).is_some());
    }
    assert!(certificate::is_public_key(found.key));
    for name in found.dns_names().into_iter().chain(found.common_names()) {
        assert!(name.is_ascii() && !name.contains('\0') && is_within(name.as_bytes()));
    }
    assert_eq!(Certificate::parse(found.der), Some(found));
    // Nothing may follow, and nothing may be missing.
    assert_eq!(Certificate::parse(&[octets, &[0]].concat()), None);
    assert_eq!(Certificate::parse(&octets[..octets.len() - 1]), None);
    let _ = Pin([0; 32]).matches(&found);
}
