//! DANE (RFC 7671): whether the certificates of a server match the TLSA records of its host.

use cmail_delivery::address::Domain;
use cmail_delivery::io::CertificateTrouble;
use cmail_delivery::tls::certificate::{self, Certificate};
use cmail_delivery::tls::tlsa::{Association, Described, Selector, Usage};
use cmail_delivery::tls::{DaneMatch, NamePattern, TlsTerms, Tlsa};
use rustls::RootCertStore;
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls::server::ParsedCertificate;
use rustls_pki_types::{CertificateDer, Der, TrustAnchor, UnixTime};
use webpki::anchor_from_trusted_cert;

use super::chain::Chain;
use super::judge::certificate_trouble;

/// How many authorities are looked at that the server does not show, and that whole certificates or keys in records describe: for that of
/// today, the next one, and some more. Each may cost a signature for every certificate.
const UNSHOWN_LIMIT: usize = 4;

/// Returns which kind of record vouches for the certificates of a server. One match is enough.
pub(super) fn verdict(
    chain: &Chain<'_>,
    terms: &TlsTerms,
    algorithms: &WebPkiSupportedAlgorithms,
    now: UnixTime,
) -> Result<DaneMatch, CertificateTrouble> {
    let leaf = chain.leaf.ok_or(CertificateTrouble::Unusable)?;
    let described = Described::from(&leaf);
    // RFC 7671 section 5.1: neither names nor dates count then.
    if of_usage(&terms.tlsa, Usage::EndEntity).any(|record| record.matches(&described)) {
        return Ok(DaneMatch::EndEntity);
    }
    let (roots, trouble) = anchors(chain, &leaf, &terms.tlsa, now);
    if roots.is_empty() {
        return Err(trouble);
    }
    let verify = || {
        let leaf = ParsedCertificate::try_from(&chain.own)?;
        let intermediates = chain.intermediates();
        verify_server_cert_signed_by_trust_anchor(&leaf, &roots, &intermediates, now, algorithms.all)
    };
    verify().map_err(|error| certificate_trouble(&error))?;
    let constrains_names = chain.issuers.iter().any(Certificate::constrains_names)
        || roots.roots.iter().any(|root| root.name_constraints.is_some());
    if is_for_one_of(&leaf, &terms.tlsa_names, constrains_names) {
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
    chain: &Chain<'_>,
    leaf: &Certificate<'_>,
    records: &[Tlsa],
    now: UnixTime,
) -> (RootCertStore, CertificateTrouble) {
    let mut roots = RootCertStore::empty();
    let mut authorities: Vec<Certificate<'_>> = Vec::new();
    // The records that describe authorities which the server shows.
    let mut shown: Vec<&Tlsa> = Vec::new();
    // The server's own certificate is none: it does not vouch for itself.
    for issuer in &chain.issuers {
        let described = Described::from(issuer);
        let before = shown.len();
        shown.extend(of_usage(records, Usage::TrustAnchor).filter(|record| record.matches(&described)));
        if shown.len() > before {
            authorities.push(*issuer);
        }
    }
    let mut issued: Vec<&Certificate<'_>> = Vec::new();
    for certificate in [leaf].into_iter().chain(&chain.issuers) {
        if !issued.iter().any(|known| known.issuer == certificate.issuer) {
            issued.push(certificate);
        }
    }
    let unshown = of_usage(records, Usage::TrustAnchor).filter(|record| !shown.contains(record));
    let unshown = unshown.filter_map(|record| match &record.association {
        Association::Full(data) => Some((record.selector, data)),
        Association::Sha256(_) | Association::Sha512(_) => None,
    });
    for (selector, data) in unshown.take(UNSHOWN_LIMIT) {
        match selector {
            Selector::Certificate => authorities.extend(Certificate::parse(data)),
            // The name of an authority of which only the key is known is the one that a certificate says its issuer has.
            Selector::PublicKey => {
                roots.roots.extend(issued.iter().filter_map(|issued| anchor_of_key(data, issued)));
            }
        }
    }
    let mut trouble = CertificateTrouble::NoTlsaMatch;
    for authority in &authorities {
        match dates(authority, now) {
            Ok(()) => {
                let der = CertificateDer::from(authority.der);
                roots.roots.extend(anchor_from_trusted_cert(&der).ok().map(|anchor| anchor.to_owned()));
            }
            Err(reason) => trouble = reason,
        }
    }
    (roots, trouble)
}

/// Returns the authority that has this key, and has issued this certificate if its name does not lie.
fn anchor_of_key(key: &[u8], issued: &Certificate<'_>) -> Option<TrustAnchor<'static>> {
    let subject = certificate::content(issued.issuer)?;
    let key = certificate::content(key)?;
    Some(TrustAnchor {
        subject: Der::from(subject.to_vec()),
        subject_public_key_info: Der::from(key.to_vec()),
        name_constraints: None,
    })
}

/// Checks the dates of an authority that vouches for itself, as path validation leaves out those of anchors. OpenSSL checks these too, and
/// not those of other anchors, so that no server is refused here that the mail servers which use it accept.
fn dates(authority: &Certificate<'_>, now: UnixTime) -> Result<(), CertificateTrouble> {
    if authority.issuer != authority.subject {
        return Ok(());
    }
    let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
    match (authority.not_before, authority.not_after) {
        (Some(from), _) if now < from.0 => Err(CertificateTrouble::NotYetValid),
        (_, Some(until)) if now > until.0 => Err(CertificateTrouble::Expired),
        (Some(_), Some(_)) => Ok(()),
        _ => Err(CertificateTrouble::Unusable),
    }
}

/// Returns whether a certificate is for one of these names. The common name counts only where there is no DNS name (RFC 7672 section
/// 3.2.3), and not below an authority that may vouch for some names only, as path validation holds the alternative names alone against
/// that.
fn is_for_one_of(certificate: &Certificate<'_>, names: &[Domain], constrains_names: bool) -> bool {
    let presented = if constrains_names || certificate.may_have_dns_names() {
        certificate.dns_names()
    } else {
        certificate.common_names()
    };
    let mut patterns = names.iter().cloned().map(NamePattern::Exactly);
    patterns.any(|name| presented.iter().any(|presented| name.accepts(presented)))
}

#[cfg(test)]
mod tests;
