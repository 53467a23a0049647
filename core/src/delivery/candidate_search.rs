//! The search for candidates of a next hop: what to look up, and which candidates to try in which order.
//!
//! Hosts are looked up one after the other, each only after all candidates of the hosts before it have failed.

use alloc::collections::VecDeque;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::net::{IpAddr, SocketAddr};

use super::dane_search::{self, DaneSearch, HostDane};
use super::route_origin::{HostRecords, RouteOrigin};
use crate::address::{Domain, is_destination};
use crate::attempt::{HostTrouble, Unresolved};
use crate::next_hop::{Host, NextHop, Port, Relay, TlsMode};
use crate::policy::{Policies, Policy};
use crate::reachability::Reachability;
use crate::resolver::{
    Answer, Canonical, LocalLookupError, LookupError, LookupRequest, MxAnswer, QuestionType, Resolved,
    Security,
};
use crate::rng::Rng;
use crate::route::{self, Candidate};
use crate::settings::Hosts;
use crate::sts::{Finding, LocalFindTrouble};
use crate::time::Instant;
use crate::tls::{Basis, InsecureMx, Level};

/// Most candidates that one pass connects to in vain (RFC 5321 section 5.1 lets a client limit them). Without this limit, a
/// domain that names thousands of silent addresses would occupy a connection for days. Failures without a connection do not
/// count: the limits of the resolver on hosts and addresses bound them.
const CANDIDATE_LIMIT: u32 = 100;

/// The next step of a search.
#[derive(Debug)]
pub(super) enum SearchStep {
    /// Look this up, and pass the answer to [`CandidateSearch::handle_answer`].
    Lookup(LookupRequest),
    /// Find the MTA-STS policy of this domain, and pass it to [`CandidateSearch::handle_policy`].
    FindPolicy(Domain),
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
    /// This machine has trouble, by which it is not known whether an MTA-STS policy holds.
    Policy(LocalFindTrouble),
}

/// The search for candidates of one next hop.
#[derive(Debug)]
pub(super) struct CandidateSearch {
    stage: SearchStage,
    /// Hosts that were not yet looked up.
    hosts: VecDeque<Host>,
    /// How the hosts were found.
    route: RouteOrigin,
    /// The first host, while its TLSA records are looked up.
    under_search: Option<HostSearch>,
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
    /// True if a host was left out because of what a policy needs of TLS.
    has_withheld: bool,
}

/// A host whose TLSA records are looked up.
#[derive(Debug)]
struct HostSearch {
    dane: DaneSearch,
    addresses: Vec<IpAddr>,
    /// By which the records are asked for.
    policy: Arc<Policy>,
}

#[derive(Debug)]
enum SearchStage {
    /// The MX records of this domain are to be looked up.
    Domain(Domain),
    /// The hosts of this domain are known.
    MxHosts(Domain),
    /// The domain is its own host (RFC 5321 section 5.1: implicit MX).
    ImplicitMx(Domain),
    /// There is one host, which the next hop itself names.
    Relay,
}

impl CandidateSearch {
    pub(super) fn new(next_hop: &NextHop) -> Self {
        let (stage, host, port) = match next_hop {
            NextHop::Domain(domain) => (SearchStage::Domain(domain.clone()), None, None),
            NextHop::Literal(address) => (SearchStage::Relay, Some(Host::Address(*address)), None),
            NextHop::Relay(Relay { host, port, .. }) => (SearchStage::Relay, Some(host.clone()), *port),
        };
        Self {
            stage,
            hosts: host.into_iter().collect(),
            // The administrator, or the address itself, names the host. MX records are judged when they are known.
            route: RouteOrigin::new(Security::Secure, Vec::new()),
            under_search: None,
            candidates: VecDeque::new(),
            preferred: None,
            passed_over: VecDeque::new(),
            last_resorts: VecDeque::new(),
            is_at_last_resorts: false,
            port,
            tried: 0,
            host_trouble: None,
            has_withheld: false,
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

    /// Returns whether a host was left out because of what a policy needs of TLS. Then what the other hosts say is not the last word: such
    /// trouble delays mail (RFC 7672 section 2.1.2).
    pub(super) fn has_withheld(&self) -> bool {
        self.has_withheld
    }

    /// Leaves a host out because of what a policy needs of TLS.
    fn withhold(&mut self, trouble: HostTrouble) {
        self.has_withheld = true;
        self.host_trouble = Some(trouble);
    }

    /// Returns the host whose addresses are asked for.
    pub(super) fn host(&self) -> Option<&Host> {
        self.hosts.front()
    }

    /// Tries only this port.
    pub(super) fn try_only(&mut self, port: Port) {
        self.port = Some(port);
    }

    /// Returns what is known of the MTA-STS policy of the domain, if it counts.
    pub(super) fn sts(&self) -> Option<&Finding> {
        self.route.sts()
    }

    /// Takes the last host that the policy of the domain does not name, if that is not enforced.
    pub(super) fn take_unnamed(&mut self) -> Option<Domain> {
        self.route.take_unnamed()
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
            if let Some(search) = self.under_search.take() {
                let Some(request) = search.dane.next() else {
                    self.add_candidates(
                        &search.addresses,
                        search.dane.into_found(),
                        next_hop,
                        &search.policy,
                    );
                    continue;
                };
                self.under_search = Some(search);
                return SearchStep::Lookup(request);
            }
            let Some(host) = self.hosts.front() else {
                if let Some(candidate) = self.passed_over.pop_front() {
                    return SearchStep::Try(candidate);
                }
                self.is_at_last_resorts = true;
                return self.last_resorts.pop_front().map_or(SearchStep::Exhausted, SearchStep::Try);
            };
            if self.route.sts().is_none()
                && let NextHop::Domain(domain) = next_hop
                && policies.at(next_hop, host).tls.level.wants_sts()
            {
                return SearchStep::FindPolicy(domain.clone());
            }
            match host {
                Host::Address(address) => {
                    let addresses = Vec::from([*address]);
                    self.meet_host(secure(addresses), next_hop, policies);
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
                        self.meet_host(secure(listed), next_hop, policies);
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
        self.under_search = None;
        self.candidates.clear();
        self.passed_over.clear();
        self.last_resorts.clear();
    }

    /// Returns whether the remaining candidates are those that were put off.
    pub(super) fn is_at_last_resorts(&self) -> bool {
        self.is_at_last_resorts
    }

    /// Goes by other policies. Returns whether the candidates that are known, and the one that is looked for, are the same by them.
    pub(super) fn reconfigure(&mut self, next_hop: &NextHop, policies: &Policies) -> bool {
        if let (Some(search), Some(host)) = (&mut self.under_search, self.hosts.front()) {
            let policy = policies.at(next_hop, host);
            if !policy.has_same_talk(&search.policy) {
                return false;
            }
            search.policy = policy;
        }
        let others = self.passed_over.iter_mut().chain(&mut self.last_resorts);
        self.candidates.iter_mut().chain(others).all(|candidate| candidate.reconfigure(next_hop, policies))
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

    /// Processes what was found of the MTA-STS policy of the domain.
    pub(super) fn handle_policy(&mut self, found: Result<Finding, LocalFindTrouble>) -> Result<(), DeadEnd> {
        self.route.take_policy(found.map_err(DeadEnd::Policy)?);
        Ok(())
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
            Answer::Tlsa(_) | Answer::Alias(_) => self.handle_dane(answer),
            // Not asked for.
            Answer::Texts(_) => Ok(()),
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
        if let Ok(Resolved { security, canonical, .. }) = &answer {
            let is_secure = *security == Security::Secure;
            let names =
                [Some(&domain), canonical.other()].into_iter().flatten().filter(|_| is_secure).cloned();
            self.route = RouteOrigin::new(*security, names.collect());
        }
        match answer.map(|answer| answer.value) {
            Ok(MxAnswer::Records(records)) => {
                self.hosts = route::mx_hosts(&records, announce, rng).into_iter().map(Host::Name).collect();
                if self.hosts.is_empty() {
                    self.host_trouble = Some(HostTrouble::NoUsableMx(domain.clone()));
                }
                self.stage = SearchStage::MxHosts(domain);
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
            (Ok(addresses), _) => self.meet_host(addresses, next_hop, policies),
            (Err(error), SearchStage::ImplicitMx(domain)) => {
                return Err(domain_failure(domain.clone(), error));
            }
            (Err(error), SearchStage::Domain(_) | SearchStage::MxHosts(_) | SearchStage::Relay) => {
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

    /// Goes on with the first host, whose addresses are known: with its TLSA records, if they matter, or with its candidates.
    fn meet_host(&mut self, addresses: Resolved<Vec<IpAddr>>, next_hop: &NextHop, policies: &Policies) {
        let Some(host) = self.hosts.front() else { return };
        let policy = policies.at(next_hop, host);
        let begun = match self.dane_of(&policy.tls.level, host) {
            Ok(None) => return self.add_candidates(&addresses.value, HostDane::Absent, next_hop, &policy),
            Ok(Some(name)) => {
                let ports: Vec<u16> = self.ports(&policy).iter().map(|port| port.number).collect();
                DaneSearch::new(name, &addresses, &ports)
                    .map_err(|error| HostTrouble::DnsFailed(error.into()))
            }
            Err(trouble) => Err(trouble),
        };
        match begun {
            Ok(dane) => self.under_search = Some(HostSearch { dane, addresses: addresses.value, policy }),
            Err(trouble) => {
                self.withhold(trouble);
                self.hosts.pop_front();
            }
        }
    }

    /// Returns the name of the first host if its TLSA records matter, or why the host cannot be used by this level.
    fn dane_of<'a>(&self, level: &Level, host: &'a Host) -> Result<Option<&'a Domain>, HostTrouble> {
        let Some(insecure_mx) = level.dane() else { return Ok(None) };
        let Host::Name(name) = host else {
            return if insecure_mx.is_some() { Ok(None) } else { Err(HostTrouble::NoTlsa(host.clone())) };
        };
        let domain = || match &self.stage {
            SearchStage::Domain(domain) | SearchStage::MxHosts(domain) | SearchStage::ImplicitMx(domain) => {
                domain
            }
            SearchStage::Relay => name,
        };
        match (self.route.security, insecure_mx) {
            (Security::Unknown, _) => {
                let failure = dane_search::not_validated(QuestionType::Mx, domain().as_str());
                Err(HostTrouble::DnsFailed(failure.into()))
            }
            (Security::Insecure, None) => Err(HostTrouble::RouteNotSecure(domain().clone())),
            (Security::Insecure, Some(InsecureMx::May)) => Ok(None),
            (Security::Secure, _) | (Security::Insecure, Some(InsecureMx::Dane | InsecureMx::Encrypt)) => {
                Ok(Some(name))
            }
        }
    }

    /// Processes an answer about the TLSA records of the first host. After an error it is unknown what they demand, so the host is left out.
    fn handle_dane(&mut self, answer: Answer) -> Result<(), DeadEnd> {
        let Some(search) = &mut self.under_search else { return Ok(()) };
        let Err(error) = search.dane.handle_answer(answer) else { return Ok(()) };
        let host = self.hosts.pop_front();
        self.under_search = None;
        let trouble = match error {
            LookupError::Local(error) => return Err(DeadEnd::Local(error)),
            LookupError::Temporary(failure) => Some(HostTrouble::DnsFailed(failure.into())),
            // Such names are known to have no records.
            LookupError::NameDoesNotExist | LookupError::NoAddress => host.map(HostTrouble::NoTlsa),
        };
        if let Some(trouble) = trouble {
            self.withhold(trouble);
        }
        Ok(())
    }

    /// Returns the ports to try.
    fn ports<'a>(&'a self, policy: &'a Policy) -> &'a [Port] {
        if self.port.is_some() { self.port.as_slice() } else { &policy.ports }
    }

    /// Returns the candidates of a host of which this is known, or why it has none.
    fn candidates(
        &mut self,
        host: &Host,
        addresses: &[IpAddr],
        dane: HostDane,
        next_hop: &NextHop,
        policy: &Arc<Policy>,
    ) -> Result<Vec<Candidate>, HostTrouble> {
        let usable: Vec<IpAddr> =
            addresses.iter().copied().filter(|address| policy.permits(*address)).collect();
        if usable.is_empty() {
            return Err(HostTrouble::NoUsableFamily(host.clone()));
        }
        let plan = policy.tls.plan(next_hop, host);
        let (found, needed_by) = match (dane, &policy.tls.level) {
            (HostDane::Absent, Level::DaneOnly) => return Err(HostTrouble::NoTlsa(host.clone())),
            (HostDane::Absent, _) => {
                let plan = Arc::new(self.route.plan_by_sts(plan, &policy.tls, host)?);
                let needed_by = plan.need.judge_plain_text().err().map_or(Basis::Config, |short| short.basis);
                (route::candidates(host, &usable, self.ports(policy), policy, &plan), needed_by)
            }
            (HostDane::Present { base, ports }, level) => {
                let names = self.reference_names(host, &base);
                let proves = self.route.security == Security::Secure
                    || level.dane() != Some(Some(InsecureMx::Encrypt));
                let (mut found, mut has_records) = (Vec::new(), false);
                for port in &self.ports(policy).to_vec() {
                    let Some((_, tlsa)) = ports.iter().find(|(number, _)| *number == port.number) else {
                        continue;
                    };
                    let tlsa = if proves { Arc::clone(tlsa) } else { Arc::default() };
                    if tlsa.is_empty() && *level == Level::DaneOnly {
                        continue;
                    }
                    has_records = true;
                    let records = HostRecords { base: base.clone(), names: Arc::clone(&names), tlsa };
                    let plan = Arc::new(self.route.plan_by_dane(&plan, &policy.tls, records, host)?);
                    found.extend(route::candidates(
                        host,
                        &usable,
                        core::slice::from_ref(port),
                        policy,
                        &plan,
                    ));
                }
                if !has_records && *level == Level::DaneOnly {
                    return Err(HostTrouble::NoTlsa(host.clone()));
                }
                (found, Basis::Dane)
            }
        };
        if found.is_empty() { Err(HostTrouble::NoUsablePort(host.clone(), needed_by)) } else { Ok(found) }
    }

    /// Returns the names of which a certificate of a host must have one if an authority vouches for it (RFC 7672 section 3.2.2): that of its
    /// TLSA records, and those that are known because of the way to it. A host that no MX records name keeps its own name too.
    fn reference_names(&self, host: &Host, base: &Domain) -> Arc<[Domain]> {
        let own = match (&self.stage, host) {
            (SearchStage::Relay | SearchStage::ImplicitMx(_), Host::Name(name)) => Some(name),
            (_, Host::Address(_)) | (SearchStage::Domain(_) | SearchStage::MxHosts(_), Host::Name(_)) => None,
        };
        let mut names = Vec::from([base.clone()]);
        for name in own.into_iter().chain(&self.route.names) {
            if !names.contains(name) {
                names.push(name.clone());
            }
        }
        names.into()
    }

    /// Turns the first host into candidates.
    fn add_candidates(
        &mut self,
        addresses: &[IpAddr],
        dane: HostDane,
        next_hop: &NextHop,
        policy: &Arc<Policy>,
    ) {
        let Some(host) = self.hosts.pop_front() else { return };
        let mut found: VecDeque<Candidate> = match self.candidates(&host, addresses, dane, next_hop, policy) {
            Ok(found) => found.into(),
            Err(trouble @ HostTrouble::NoUsableFamily(_)) => {
                self.host_trouble = Some(trouble);
                return;
            }
            Err(trouble) => return self.withhold(trouble),
        };
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

/// Returns addresses that the administrator vouches for, or that are the next hop themselves.
fn secure(addresses: Vec<IpAddr>) -> Resolved<Vec<IpAddr>> {
    Resolved { value: addresses, security: Security::Secure, canonical: Canonical::Itself }
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
