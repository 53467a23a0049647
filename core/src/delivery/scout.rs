//! The search for candidates as a pass makes it, but without trying any: it tells in which order they would be tried.

use alloc::vec::Vec;
use core::net::SocketAddr;

use super::candidate_search::{CandidateSearch, DeadEnd, SearchStep};
use crate::address::Domain;
use crate::attempt::HostTrouble;
use crate::explanation::DeadEndReason;
use crate::next_hop::NextHop;
use crate::policy::Policies;
use crate::reachability::Reachability;
use crate::resolver::{Answer, LookupRequest, MxAnswer, Resolved};
use crate::rng::Rng;
use crate::route::Candidate;
use crate::settings::Hosts;
use crate::sts::{Finding, LocalFindTrouble};
use crate::time::Instant;

/// A search for all candidates of a next hop.
#[derive(Debug)]
pub(crate) struct Scout {
    next_hop: NextHop,
    search: CandidateSearch,
    rng: Rng,
    mx: Vec<(u16, Domain)>,
    candidates: Vec<Candidate>,
    host_troubles: Vec<HostTrouble>,
    dead_end: Option<DeadEndReason>,
}

/// What a scout needs next.
#[derive(Debug)]
pub(crate) enum ScoutStep {
    Lookup(LookupRequest),
    /// The MTA-STS policy of this domain.
    FindPolicy(Domain),
    /// Nothing: it has found everything.
    Done,
}

/// What a scout has found.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) mx: Vec<(u16, Domain)>,
    pub(crate) candidates: Vec<Candidate>,
    pub(crate) host_troubles: Vec<HostTrouble>,
    pub(crate) dead_end: Option<DeadEndReason>,
    pub(crate) sts: Option<Finding>,
}

impl Scout {
    /// `last_server` is that of mail that may have arrived there already, as a pass is told it.
    pub(crate) fn new(next_hop: NextHop, rng: Rng, last_server: Option<SocketAddr>) -> Self {
        Self {
            search: CandidateSearch::new(&next_hop).preferring(last_server),
            next_hop,
            rng,
            mx: Vec::new(),
            candidates: Vec::new(),
            host_troubles: Vec::new(),
            dead_end: None,
        }
    }

    /// Goes on to the next lookup.
    pub(crate) fn advance(
        &mut self,
        policies: &Policies,
        hosts: &Hosts,
        reachability: &Reachability,
        now: Instant,
    ) -> ScoutStep {
        while self.dead_end.is_none() {
            let step = self.search.next(&self.next_hop, policies, hosts);
            // It keeps only the last one.
            self.host_troubles.extend(self.search.take_host_trouble());
            match step {
                SearchStep::Lookup(request) => return ScoutStep::Lookup(request),
                SearchStep::FindPolicy(domain) => return ScoutStep::FindPolicy(domain),
                SearchStep::Try(candidate) => {
                    if self.search.must_wait(&candidate, reachability, now) {
                        self.search.put_off(candidate);
                    } else {
                        self.search.count_tried();
                        self.candidates.push(candidate);
                    }
                }
                SearchStep::Exhausted => break,
            }
        }
        ScoutStep::Done
    }

    /// Processes the answer to a lookup.
    pub(crate) fn handle_answer(&mut self, answer: Answer, announce: &str, policies: &Policies) {
        if let Answer::Mx(Ok(Resolved { value: MxAnswer::Records(records), .. })) = &answer {
            self.mx.clone_from(records);
        }
        let result = self.search.handle_answer(answer, &self.next_hop, policies, announce, &mut self.rng);
        self.host_troubles.extend(self.search.take_host_trouble());
        self.dead_end = result.err().map(reason);
    }

    /// Processes what was found of the MTA-STS policy of the domain.
    pub(crate) fn handle_policy(&mut self, found: Result<Finding, LocalFindTrouble>) {
        self.dead_end = self.search.handle_policy(found).err().map(reason);
    }

    /// Returns what it has found.
    pub(crate) fn into_found(self) -> Found {
        let Self { mx, candidates, host_troubles, dead_end, search, .. } = self;
        Found { mx, candidates, host_troubles, dead_end, sts: search.sts().cloned() }
    }
}

fn reason(dead_end: DeadEnd) -> DeadEndReason {
    match dead_end {
        DeadEnd::Unresolved(reason) => DeadEndReason::Unresolved(reason),
        DeadEnd::Local(error) => DeadEndReason::Local(error),
        DeadEnd::Policy(trouble) => DeadEndReason::Policy(trouble),
    }
}
