//! The search for the TLSA records of one host (RFC 7672 section 2.2).

use alloc::collections::VecDeque;
use alloc::sync::Arc;
use alloc::vec::Vec;

use crate::address::Domain;
use crate::resolver::{
    Answer, Canonical, DnsFailure, DnsQuestion, LookupError, LookupRequest, QuestionType, Resolved, Security,
};
use crate::tls::{Tlsa, tlsa};

/// A search for the TLSA records of one host, after its addresses are known.
///
/// TLSA records are asked for only where the addresses are secure: name servers of zones that are not signed often fail at types that
/// they do not know, and must not hold up mail that DANE does not protect (RFC 7672 section 2.2.2).
#[derive(Debug)]
pub(super) struct DaneSearch {
    host: Domain,
    /// Each port once.
    ports: Vec<u16>,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    /// Whether the host is an alias in a secure zone is to be found out.
    Alias,
    /// The names whose records are to be found out, and what was found for the ports of the first of them.
    Records { bases: VecDeque<Domain>, found: Vec<(u16, PortRecords)> },
}

/// What was found for one port.
type PortRecords = Option<Arc<[Tlsa]>>;

/// What the TLSA records of a host say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum HostDane {
    /// It has none that are secure: DANE does not apply.
    Absent,
    /// It has some.
    Present {
        /// The name that they belong to, and that its certificate must have if they vouch for an authority.
        base: Domain,
        /// The ports that have records, with those that are usable. Without any, mail must be encrypted, and nothing is proved. Ports
        /// that have none must not be used: else an attacker would only have to block the others.
        ports: Vec<(u16, Arc<[Tlsa]>)>,
    },
}

impl DaneSearch {
    /// Begins a search for a host, as its addresses were found, and for the ports that are to be tried.
    pub(super) fn new<T>(host: &Domain, addresses: &Resolved<T>, ports: &[u16]) -> Result<Self, DnsFailure> {
        let bases = match (addresses.security, &addresses.canonical) {
            (Security::Unknown, _) => return Err(not_validated(QuestionType::Ipv4, host.as_str())),
            (Security::Secure, Canonical::Itself | Canonical::Unusable) => [host.clone()].into(),
            // The records of the name at the end of the aliases come first (RFC 7672 section 2.2.2).
            (Security::Secure, Canonical::Other(canonical)) => [canonical.clone(), host.clone()].into(),
            (Security::Insecure, Canonical::Itself) => VecDeque::new(),
            // Whoever can forge the end of the aliases chooses what stands there, but not that the host is an alias.
            (Security::Insecure, Canonical::Other(_) | Canonical::Unusable) => {
                return Ok(Self { host: host.clone(), ports: distinct(ports), stage: Stage::Alias });
            }
        };
        let stage = Stage::Records { bases, found: Vec::new() };
        Ok(Self { host: host.clone(), ports: distinct(ports), stage })
    }

    /// Returns what to look up next, or `None` if everything is found.
    pub(super) fn next(&self) -> Option<LookupRequest> {
        match &self.stage {
            Stage::Alias => Some(LookupRequest::Alias(self.host.clone())),
            Stage::Records { bases, found } => {
                Some(LookupRequest::Tlsa(bases.front()?.clone(), *self.ports.get(found.len())?))
            }
        }
    }

    /// Processes the answer to [`DaneSearch::next`]. After an error it is not known what DANE demands of the host, so that the host
    /// must not be used (RFC 7672 section 2.1.2).
    pub(super) fn handle_answer(&mut self, answer: Answer) -> Result<(), LookupError> {
        match (&mut self.stage, answer) {
            (Stage::Alias, Answer::Alias(answer)) => {
                let answer = answer?;
                if answer.security == Security::Unknown {
                    return Err(LookupError::Temporary(not_validated(
                        QuestionType::Alias,
                        self.host.as_str(),
                    )));
                }
                // The zone of the alias is signed, if that of its target is not.
                let is_secure = answer.value && answer.security == Security::Secure;
                let bases = is_secure.then(|| self.host.clone()).into_iter().collect();
                self.stage = Stage::Records { bases, found: Vec::new() };
            }
            (Stage::Records { bases, found }, Answer::Tlsa(answer)) => {
                let (Some(base), Some(port)) = (bases.front(), self.ports.get(found.len())) else {
                    return Ok(());
                };
                let answer = answer?;
                let is_secure = match answer.security {
                    Security::Secure => true,
                    Security::Insecure => false,
                    Security::Unknown => {
                        let name = alloc::format!("_{port}._tcp.{base}");
                        return Err(LookupError::Temporary(not_validated(QuestionType::Tlsa, &name)));
                    }
                };
                let records = is_secure && !answer.value.is_empty();
                found.push((*port, records.then(|| tlsa::usable(&answer.value).into())));
                let has_records = found.iter().any(|(_, records)| records.is_some());
                if found.len() == self.ports.len() && !has_records {
                    bases.pop_front();
                    found.clear();
                }
            }
            // Not asked for.
            (Stage::Alias | Stage::Records { .. }, _) => {}
        }
        Ok(())
    }

    /// Returns what was found.
    pub(super) fn into_found(self) -> HostDane {
        let Stage::Records { mut bases, found } = self.stage else { return HostDane::Absent };
        let ports: Vec<_> = found.into_iter().filter_map(|(port, records)| Some((port, records?))).collect();
        match bases.pop_front() {
            Some(base) if !ports.is_empty() => HostDane::Present { base, ports },
            Some(_) | None => HostDane::Absent,
        }
    }
}

/// Returns that only a name server has answered that is not believed.
pub(super) fn not_validated(kind: QuestionType, name: &str) -> DnsFailure {
    DnsFailure::NotValidated(DnsQuestion { kind, name: name.into() })
}

/// Returns each port once.
fn distinct(ports: &[u16]) -> Vec<u16> {
    let mut distinct = Vec::new();
    for port in ports {
        if !distinct.contains(port) {
            distinct.push(*port);
        }
    }
    distinct
}

#[cfg(test)]
mod tests;
