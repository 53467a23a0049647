//! The search for candidates of a next hop: what to look up, and which candidates to try in which order.
//!
//! Hosts are looked up one after the other, each only after all candidates of the hosts before it have failed.

use alloc::collections::VecDeque;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::net::{IpAddr, SocketAddr};

use crate::address::{Domain, is_destination};
use crate::attempt::{HostTrouble, Unresolved};
use crate::next_hop::{Host, NextHop, Port, Relay, TlsMode};
use crate::policy::Policies;
use crate::reachability::Reachability;
use crate::resolver::{Answer, LocalLookupError, LookupError, LookupRequest, MxAnswer, Resolved};
use crate::rng::Rng;
use crate::route::{self, Candidate};
use crate::settings::Hosts;
use crate::time::Instant;

/// Most candidates that one pass connects to in vain (RFC 5321 section 5.1 lets a client limit them). Without this limit, a
/// domain that names thousands of silent addresses would occupy a connection for days. Failures without a connection do not
/// count: the limits of the resolver on hosts and addresses bound them.
const CANDIDATE_LIMIT: u32 = 100;

/// The next step of a search.
#[derive(Debug)]
pub(super) enum SearchStep {
    /// Look this up, and pass the answer to [`CandidateSearch::handle_answer`].
    Lookup(LookupRequest),
    /// Try this candidate.
    Try(Candidate),
    /// Nothing is left to try.
    Exhausted,
}

/// The reason why a search ends before any candidate is tried.
#[derive(Debug)]
pub(super) enum DeadEnd {
    /// The domain leads nowhere: the mail has failed.
    Unresolved(Unresolved),
    /// This machine has trouble; the mail has not failed.
    Local(LocalLookupError),
}

/// The search for candidates of one next hop.
#[derive(Debug)]
pub(super) struct CandidateSearch {
    stage: SearchStage,
    /// Hosts that were not yet looked up.
    hosts: VecDeque<Host>,
    /// Candidates of the host that was looked up last.
    candidates: VecDeque<Candidate>,
    /// The server that comes first, as long as it was not found.
    preferred: Option<SocketAddr>,
    /// Candidates of hosts that were looked up in search of it.
    passed_over: VecDeque<Candidate>,
    /// Candidates that are known not to answer. They are tried after all others.
    last_resorts: VecDeque<Candidate>,
    /// True if all others have been tried.
    is_at_last_resorts: bool,
    /// The port, if the next hop names one.
    port: Option<Port>,
    /// The number of candidates that were connected to in vain.
    tried: u32,
    /// The trouble with the last host that gave no candidate.
    host_trouble: Option<HostTrouble>,
}

#[derive(Debug)]
enum SearchStage {
    /// The MX records of this domain are to be looked up.
    Domain(Domain),
    /// The hosts of the domain are known.
    MxHosts,
    /// The domain is its own host (RFC 5321 section 5.1: implicit MX).
    ImplicitMx(Domain),
    /// There is one host, which has no MX records.
    Relay,
}

impl CandidateSearch {
    pub(super) fn new(next_hop: &NextHop) -> Self {
        let (stage, host, port) = match next_hop {
            NextHop::Domain(domain) => (SearchStage::Domain(domain.clone()), None, None),
            NextHop::Literal(address) => (SearchStage::MxHosts, Some(Host::Address(*address)), None),
            NextHop::Relay(Relay { host, port, .. }) => (SearchStage::Relay, Some(host.clone()), *port),
        };
        Self {
            stage,
            hosts: host.into_iter().collect(),
            candidates: VecDeque::new(),
            preferred: None,
            passed_over: VecDeque::new(),
            last_resorts: VecDeque::new(),
            is_at_last_resorts: false,
            port,
            tried: 0,
            host_trouble: None,
        }
    }

    /// Tries this server first, whichever host has its address, if one does.
    pub(super) fn preferring(self, preferred: Option<SocketAddr>) -> Self {
        Self { preferred, ..self }
    }

    /// Returns the trouble with the last host that gave no candidate.
    pub(super) fn host_trouble(&self) -> Option<&HostTrouble> {
        self.host_trouble.as_ref()
    }

    /// Returns the host whose addresses are asked for.
    pub(super) fn host(&self) -> Option<&Host> {
        self.hosts.front()
    }

    /// Tries only this port.
    pub(super) fn try_only(&mut self, port: Port) {
        self.port = Some(port);
    }

    /// Takes the trouble with the last host that gave no candidate.
    pub(super) fn take_host_trouble(&mut self) -> Option<HostTrouble> {
        self.host_trouble.take()
    }

    /// Returns the next step.
    pub(super) fn next(&mut self, next_hop: &NextHop, policies: &Policies, hosts: &Hosts) -> SearchStep {
        loop {
            if let SearchStage::Domain(domain) = &self.stage {
                return SearchStep::Lookup(LookupRequest::Mx(domain.clone()));
            }
            if self.tried >= CANDIDATE_LIMIT {
                return SearchStep::Exhausted;
            }
            if let Some(candidate) = self.candidates.pop_front() {
                return SearchStep::Try(candidate);
            }
            let Some(host) = self.hosts.front() else {
                if let Some(candidate) = self.passed_over.pop_front() {
                    return SearchStep::Try(candidate);
                }
                self.is_at_last_resorts = true;
                return self.last_resorts.pop_front().map_or(SearchStep::Exhausted, SearchStep::Try);
            };
            match host {
                Host::Address(address) => {
                    let address = *address;
                    self.add_candidates(&[address], next_hop, policies);
                }
                Host::Name(name) => {
                    let listed =
                        hosts.get(name).filter(|_| matches!(self.stage, SearchStage::Relay)).cloned();
                    let Some(mut listed) = listed else {
                        return SearchStep::Lookup(LookupRequest::Addresses(name.clone()));
                    };
                    listed.retain(|address| is_destination(*address));
                    if listed.is_empty() {
                        self.host_trouble = Some(HostTrouble::NoAddress(name.clone()));
                        self.hosts.pop_front();
                    } else {
                        self.add_candidates(&listed, next_hop, policies);
                    }
                }
            }
        }
    }

    /// Counts a candidate that was connected to in vain.
    pub(super) fn count_tried(&mut self) {
        self.tried = self.tried.saturating_add(1);
    }

    /// Drops all candidates that were not tried.
    pub(super) fn abandon(&mut self) {
        self.hosts.clear();
        self.candidates.clear();
        self.passed_over.clear();
        self.last_resorts.clear();
    }

    /// Returns whether the remaining candidates are those that were put off.
    pub(super) fn is_at_last_resorts(&self) -> bool {
        self.is_at_last_resorts
    }

    /// Goes by other policies. Returns whether the candidates that are known are the same by them.
    pub(super) fn reconfigure(&mut self, next_hop: &NextHop, policies: &Policies) -> bool {
        let mut known = self.candidates.iter_mut().chain(&mut self.last_resorts);
        known.all(|candidate| candidate.reconfigure(next_hop, policies))
    }

    /// Returns whether a candidate is to be put off: it is known not to answer, and others are left to try.
    pub(super) fn must_wait(&self, candidate: &Candidate, reachability: &Reachability, now: Instant) -> bool {
        !self.is_at_last_resorts && reachability.is_in_trouble(candidate, now)
    }

    /// Puts a candidate off until all others have been tried.
    pub(super) fn put_off(&mut self, candidate: Candidate) {
        self.last_resorts.push_back(candidate);
    }

    /// Drops the candidate that differs from this one only in that it needs no TLS.
    pub(super) fn skip_plain_twin(&mut self, candidate: &Candidate) {
        let is_other = |other: &Candidate| other.remote != candidate.remote || other.tls != TlsMode::Plain;
        self.candidates.retain(is_other);
        self.passed_over.retain(is_other);
        self.last_resorts.retain(is_other);
    }

    /// Processes the answer to [`SearchStep::Lookup`]. `announce` is the name of this host, which may be among the mail hosts.
    pub(super) fn handle_answer(
        &mut self,
        answer: Answer,
        next_hop: &NextHop,
        policies: &Policies,
        announce: &str,
        rng: &mut Rng,
    ) -> Result<(), DeadEnd> {
        match answer {
            Answer::Mx(answer) => self.handle_mx(answer, announce, rng),
            Answer::Addresses(answer) => self.handle_addresses(answer, next_hop, policies),
            // Not asked for.
            Answer::Tlsa(_) | Answer::Texts(_) | Answer::Alias(_) => Ok(()),
        }
    }

    fn handle_mx(
        &mut self,
        answer: Result<Resolved<MxAnswer>, LookupError>,
        announce: &str,
        rng: &mut Rng,
    ) -> Result<(), DeadEnd> {
        let SearchStage::Domain(domain) = &self.stage else { return Ok(()) };
        let domain = domain.clone();
        match answer.map(|answer| answer.value) {
            Ok(MxAnswer::Records(records)) => {
                self.hosts = route::mx_hosts(&records, announce, rng).into_iter().map(Host::Name).collect();
                if self.hosts.is_empty() {
                    self.host_trouble = Some(HostTrouble::NoUsableMx(domain.clone()));
                }
                self.stage = SearchStage::MxHosts;
                Ok(())
            }
            // RFC 7505 section 3: the domain takes no mail at all.
            Ok(MxAnswer::NullMx) => Err(DeadEnd::Unresolved(Unresolved::NullMx(domain))),
            Ok(MxAnswer::NoRecords) => {
                self.hosts = [Host::Name(domain.clone())].into();
                self.stage = SearchStage::ImplicitMx(domain);
                Ok(())
            }
            Err(error) => Err(domain_failure(domain, error)),
        }
    }

    fn handle_addresses(
        &mut self,
        answer: Result<Resolved<Vec<IpAddr>>, LookupError>,
        next_hop: &NextHop,
        policies: &Policies,
    ) -> Result<(), DeadEnd> {
        let Some(Host::Name(name)) = self.hosts.front().cloned() else { return Ok(()) };
        match (answer, &self.stage) {
            (Ok(addresses), _) => self.add_candidates(&addresses.value, next_hop, policies),
            (Err(error), SearchStage::ImplicitMx(domain)) => {
                return Err(domain_failure(domain.clone(), error));
            }
            (Err(error), SearchStage::Domain(_) | SearchStage::MxHosts | SearchStage::Relay) => {
                self.host_trouble = Some(match error {
                    LookupError::NameDoesNotExist => HostTrouble::NoSuchHost(name),
                    LookupError::NoAddress => HostTrouble::NoAddress(name),
                    LookupError::Temporary(failure) => HostTrouble::DnsFailed(failure.into()),
                    LookupError::Local(error) => return Err(DeadEnd::Local(error)),
                });
                self.hosts.pop_front();
            }
        }
        Ok(())
    }

    /// Turns the first host into candidates.
    fn add_candidates(&mut self, addresses: &[IpAddr], next_hop: &NextHop, policies: &Policies) {
        let Some(host) = self.hosts.pop_front() else { return };
        let policy = policies.at(next_hop, &host);
        let usable: Vec<IpAddr> =
            addresses.iter().copied().filter(|address| policy.permits(*address)).collect();
        if usable.is_empty() {
            self.host_trouble = Some(HostTrouble::NoUsableFamily(host.clone()));
        }
        let given = self.port.as_slice();
        let ports = if given.is_empty() { &policy.ports } else { given };
        let plan = Arc::new(policy.tls.plan(next_hop, &host));
        let mut found: VecDeque<Candidate> = route::candidates(&host, &usable, ports, &policy, &plan).into();
        if found.is_empty() && !usable.is_empty() {
            self.host_trouble = Some(HostTrouble::NoUsablePort(host));
        }
        if let Some(preferred) = self.preferred {
            let is_preferred = |candidate: &Candidate| candidate.remote == preferred;
            if !found.iter().any(is_preferred) {
                return self.passed_over.append(&mut found);
            }
            self.preferred = None;
            let (first, rest): (VecDeque<_>, VecDeque<_>) = found.into_iter().partition(is_preferred);
            found = first;
            found.append(&mut self.passed_over);
            found.extend(rest);
        }
        self.candidates = found;
    }
}

/// Returns the dead end of a domain that could not be resolved.
fn domain_failure(domain: Domain, error: LookupError) -> DeadEnd {
    DeadEnd::Unresolved(match error {
        LookupError::NameDoesNotExist => Unresolved::NoSuchDomain(domain),
        LookupError::NoAddress => Unresolved::NoRoute(domain),
        LookupError::Temporary(failure) => Unresolved::DnsFailed(failure.into()),
        LookupError::Local(error) => return DeadEnd::Local(error),
    })
}

#[cfg(test)]
mod tests;
