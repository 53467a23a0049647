//! DANE (RFC 7671): whether the certificates of a server match the TLSA records of its host.

use cmail_delivery::address::Domain;
use cmail_delivery::io::CertificateTrouble;
use cmail_delivery::tls::certificate::{self, Certificate};
use cmail_delivery::tls::tlsa::{Association, Selector, Usage};
use cmail_delivery::tls::{DaneMatch, NamePattern, TlsTerms, Tlsa};
use rustls::RootCertStore;
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls::server::ParsedCertificate;
use rustls_pki_types::{CertificateDer, Der, TrustAnchor, UnixTime};
use webpki::anchor_from_trusted_cert;

use super::judge::certificate_trouble;

/// Returns which kind of record vouches for the certificates that a server has shown, its own first. One match is enough.
pub(super) fn verdict(
    chain: &[CertificateDer<'_>],
    terms: &TlsTerms,
    algorithms: &WebPkiSupportedAlgorithms,
    now: UnixTime,
) -> Result<DaneMatch, CertificateTrouble> {
    let (leaf, issuers) = chain.split_first().ok_or(CertificateTrouble::Missing)?;
    let own = Certificate::parse(leaf).ok_or(CertificateTrouble::Unusable)?;
    // RFC 7671 section 5.1: neither names nor dates count then.
    if of_usage(&terms.tlsa, Usage::EndEntity).any(|record| record.matches(&own)) {
        return Ok(DaneMatch::EndEntity);
    }
    let (roots, trouble) = anchors(chain, &terms.tlsa, now);
    if roots.is_empty() {
        return Err(trouble);
    }
    let verify = || {
        let leaf = ParsedCertificate::try_from(leaf)?;
        verify_server_cert_signed_by_trust_anchor(&leaf, &roots, issuers, now, algorithms.all)
    };
    verify().map_err(|error| certificate_trouble(&error))?;
    if is_for_one_of(&own, &terms.tlsa_names) {
        Ok(DaneMatch::TrustAnchor)
    } else {
        Err(CertificateTrouble::NameMismatch)
    }
}

fn of_usage(records: &[Tlsa], usage: Usage) -> impl Iterator<Item = &Tlsa> {
    records.iter().filter(move |record| record.usage == usage)
}

/// Returns the authorities that records vouch for, and what is to be said if there are none.
fn anchors(
    chain: &[CertificateDer<'_>],
    records: &[Tlsa],
    now: UnixTime,
) -> (RootCertStore, CertificateTrouble) {
    let mut roots = RootCertStore::empty();
    let mut trouble = CertificateTrouble::NoTlsaMatch;
    for record in of_usage(records, Usage::TrustAnchor) {
        // The server's own certificate is none: it does not vouch for itself.
        let issuers = chain.iter().skip(1);
        let is_described = |issuer: &&CertificateDer<'_>| {
            Certificate::parse(issuer).is_some_and(|issuer| record.matches(&issuer))
        };
        let mut described: Vec<CertificateDer<'_>> = issuers.filter(is_described).cloned().collect();
        if let (Association::Full(data), true) = (&record.association, described.is_empty()) {
            match record.selector {
                Selector::Certificate => described.push(CertificateDer::from(data.to_vec())),
                // The name of an authority of which only the key is known is the one that a certificate says its issuer has.
                Selector::PublicKey => {
                    roots.roots.extend(chain.iter().filter_map(|issued| anchor_of_key(data, issued)));
                }
            }
        }
        for anchor in described {
            match dates(&anchor, now) {
                Ok(()) => {
                    let anchor = anchor_from_trusted_cert(&anchor).ok();
                    roots.roots.extend(anchor.map(|anchor| anchor.to_owned()));
                }
                Err(reason) => trouble = reason,
            }
        }
    }
    (roots, trouble)
}

/// Returns the authority that has this key, and has issued this certificate if its name does not lie.
fn anchor_of_key(key: &[u8], issued: &CertificateDer<'_>) -> Option<TrustAnchor<'static>> {
    let subject = certificate::content(Certificate::parse(issued)?.issuer)?;
    let key = certificate::content(key)?;
    Some(TrustAnchor {
        subject: Der::from(subject.to_vec()),
        subject_public_key_info: Der::from(key.to_vec()),
        name_constraints: None,
    })
}

/// Checks the dates of an authority that vouches for itself, as path validation leaves out those of anchors. OpenSSL checks these too, and
/// not those of other anchors, so that no server is refused here that the mail servers which use it accept.
fn dates(anchor: &CertificateDer<'_>, now: UnixTime) -> Result<(), CertificateTrouble> {
    let certificate = Certificate::parse(anchor).ok_or(CertificateTrouble::Unusable)?;
    if certificate.issuer != certificate.subject {
        return Ok(());
    }
    let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
    match (certificate.not_before, certificate.not_after) {
        (Some(from), _) if now < from.0 => Err(CertificateTrouble::NotYetValid),
        (_, Some(until)) if now > until.0 => Err(CertificateTrouble::Expired),
        (Some(_), Some(_)) => Ok(()),
        _ => Err(CertificateTrouble::Unusable),
    }
}

/// Returns whether a certificate is for one of these names. The common name counts only where there is no DNS name (RFC 7672 section
/// 3.2.3).
fn is_for_one_of(certificate: &Certificate<'_>, names: &[Domain]) -> bool {
    let dns_names = certificate.dns_names();
    let presented = if dns_names.is_empty() { certificate.common_names() } else { dns_names };
    let mut patterns = names.iter().cloned().map(NamePattern::Exactly);
    patterns.any(|name| presented.iter().any(|presented| name.accepts(presented)))
}

#[cfg(test)]
mod tests;
