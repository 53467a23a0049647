//! The certificates that a server shows, as far as they are looked at.
//!
//! What it shows is up to the server, as long as TLS can carry it: hundreds of certificates. The search for a path from its own to an
//! authority tries every way that their names permit, reads all of them at every step, and nothing else is done meanwhile. So it is given
//! few of them: those that the names lead to, from the server's own on, without circles.

use cmail_delivery::tls::certificate::Certificate;
use rustls_pki_types::CertificateDer;

/// How many certificates are looked at besides the server's own. No path may have more in between, and those of public authorities have one
/// to three.
const ISSUERS_LIMIT: usize = 6;

/// How many of them may be of the same name: an authority has several certificates while others vouch for its key too.
const NAMESAKES_LIMIT: usize = 2;

/// How many octets they may have together. Those of public authorities have about 1500 each.
const ISSUERS_LIMIT_OCTETS: usize = 16 * 1024;

/// The certificate of a server, and those that may vouch for it.
#[derive(Debug)]
pub(super) struct Chain<'a> {
    /// The server's own.
    pub(super) own: CertificateDer<'a>,
    /// The same, read; `None` if it cannot be read.
    pub(super) leaf: Option<Certificate<'a>>,
    /// Those that may vouch for it, the nearest first.
    pub(super) issuers: Vec<Certificate<'a>>,
}

impl<'a> Chain<'a> {
    /// Returns what is looked at of the certificates that a server has shown, its own first; `None` if there are none.
    pub(super) fn of(shown: &'a [CertificateDer<'_>]) -> Option<Self> {
        let (own, others) = shown.split_first()?;
        let leaf = Certificate::parse(own);
        let issuers = leaf.map(|leaf| issuers(&leaf, others)).unwrap_or_default();
        Some(Self { own: CertificateDer::from(&**own), leaf, issuers })
    }

    /// Returns those that may vouch for the server's own, as the library takes them.
    pub(super) fn intermediates(&self) -> Vec<CertificateDer<'a>> {
        self.issuers.iter().map(|issuer| CertificateDer::from(issuer.der)).collect()
    }
}

/// Returns those of the others that the names lead to from this one, as many as are looked at.
fn issuers<'a>(leaf: &Certificate<'a>, others: &'a [CertificateDer<'_>]) -> Vec<Certificate<'a>> {
    let others: Vec<Certificate<'a>> = others.iter().filter_map(|other| Certificate::parse(other)).collect();
    let mut issuers: Vec<Certificate<'a>> = Vec::new();
    let mut names = vec![leaf.issuer];
    let mut searched = 0;
    while let Some(name) = names.get(searched).copied() {
        let mut namesakes = 0;
        for other in others.iter().filter(|other| other.subject == name) {
            let octets: usize = issuers.iter().chain([other]).map(|issuer| issuer.der.len()).sum();
            // Whoever leads back to a name leads nowhere that this name does not lead to.
            let leads_back = names.iter().take(searched).any(|before| *before == other.issuer);
            let fits = namesakes < NAMESAKES_LIMIT
                && issuers.len() < ISSUERS_LIMIT
                && octets <= ISSUERS_LIMIT_OCTETS;
            if !fits || leads_back || issuers.contains(other) {
                continue;
            }
            namesakes += 1;
            issuers.push(*other);
            if !names.contains(&other.issuer) {
                names.push(other.issuer);
            }
        }
        searched += 1;
    }
    issuers
}

#[cfg(test)]
mod tests;
