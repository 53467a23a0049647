//! The MTA-STS policies that passes, scouts and probes wait for.

use alloc::collections::btree_map::Entry;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use super::Deliveries;
use super::destination::Waits;
use crate::address::Domain;
use crate::dispatcher::books::Books;
use crate::dispatcher::requests::Asked;
use crate::event::EventName;
use crate::fair_queue::Prospect;
use crate::ids::{HttpsId, InquiryId};
use crate::io::{HttpsError, HttpsResponse, Output};
use crate::outbox::{PolicyNote, StoreError, StoreRequest};
use crate::policy_finder::{FinderOutput, PolicyFinder};
use crate::queue::HopId;
use crate::resolver::{Answer, Families, LookupId};
use crate::sts::{Finding, LocalFindTrouble, RECORD_LABEL, StalePolicy, StoredPolicy};
use crate::time::{Instant, Now};

/// Most policies that the database tells at once that they are to be fetched again.
const STALE_LIMIT: u32 = 1000;

/// The search for policies, and who waits for them.
#[derive(Debug, Default)]
pub(super) struct PolicyDesk {
    finder: PolicyFinder,
    askers: BTreeMap<Domain, BTreeSet<Asker>>,
    /// The domain whose policy each asker waits for.
    waiting: BTreeMap<Asker, Domain>,
    /// The domain that each lookup is about.
    lookups: BTreeMap<LookupId, Domain>,
}

/// Who waits for a policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Asker {
    Probe(InquiryId),
    Scout(InquiryId),
    Destination(HopId),
}

impl PolicyDesk {
    /// Finds the policy of a domain for an asker.
    pub(super) fn find(&mut self, now: Now, domain: &Domain, asker: Asker) {
        self.forget(asker);
        self.askers.entry(domain.clone()).or_default().insert(asker);
        self.waiting.insert(asker, domain.clone());
        self.finder.find(now, domain);
    }

    /// Forgets an asker that no longer waits. The search goes on, since its result is kept for others.
    pub(super) fn forget(&mut self, asker: Asker) {
        let Some(domain) = self.waiting.remove(&asker) else { return };
        if let Entry::Occupied(mut askers) = self.askers.entry(domain) {
            askers.get_mut().remove(&asker);
            if askers.get().is_empty() {
                askers.remove();
            }
        }
    }

    /// Returns whether a lookup was begun for a policy.
    pub(super) fn has_asked(&self, lookup: LookupId) -> bool {
        self.lookups.contains_key(&lookup)
    }

    /// Returns whether an asker waits for a policy.
    pub(super) fn is_waiting(&self, asker: Asker) -> bool {
        self.waiting.contains_key(&asker)
    }

    /// Returns when there is something to do.
    pub(super) fn next_time(&self) -> Option<Instant> {
        self.finder.poll_timeout()
    }

    /// Does what is due.
    pub(super) fn handle_timeout(&mut self, now: Now) {
        self.finder.handle_timeout(now);
    }

    /// Begins to fetch policies again before they expire, or ends it, and forgets what the database has.
    pub(super) fn reconfigure(&mut self, now: Now, keeps_fresh: bool) {
        self.finder.reconfigure(now, keeps_fresh);
    }

    /// Returns whether no search is under way, and no asker waits.
    #[cfg(test)]
    pub(super) fn is_idle(&self) -> bool {
        self.finder.is_idle() && self.askers.is_empty() && self.waiting.is_empty() && self.lookups.is_empty()
    }

    /// Takes those that wait for the policy of a domain.
    fn take_askers(&mut self, domain: &Domain) -> BTreeSet<Asker> {
        let askers = self.askers.remove(domain).unwrap_or_default();
        askers.iter().for_each(|asker| drop(self.waiting.remove(asker)));
        askers
    }

    fn prospect(&self, books: &Books, domain: &Domain) -> Prospect {
        match self.askers.get(domain).and_then(BTreeSet::first) {
            // A person waits for it.
            Some(Asker::Probe(_) | Asker::Scout(_)) => Prospect::Fresh,
            Some(Asker::Destination(hop)) => books.queue.prospect(*hop),
            None => Prospect::Failed,
        }
    }
}

impl Deliveries {
    /// Goes by other settings about policies.
    pub(in crate::dispatcher) fn reconfigure_policies(&mut self, books: &Books) {
        let keeps_fresh = books.config.policies.want_sts() && books.run.is_daemon();
        self.directory.policies.reconfigure(books.now, keeps_fresh);
    }

    /// Takes what the database has of a domain.
    pub(in crate::dispatcher) fn policy_read(
        &mut self,
        books: &Books,
        domain: &Domain,
        answer: Result<Option<StoredPolicy>, StoreError>,
    ) {
        self.directory.policies.finder.handle_stored(books.now, domain, answer);
    }

    /// Takes which policies are to be fetched again.
    pub(in crate::dispatcher) fn stale_policies_read(&mut self, books: &Books, stale: Vec<StalePolicy>) {
        self.directory.policies.finder.handle_stale(books.now, stale, &mut self.rng);
    }

    /// Notes that the database has these policies.
    pub(in crate::dispatcher) fn policies_stored(&mut self, policies: &[StoredPolicy]) {
        self.directory.policies.finder.note_stored(policies);
    }

    /// Takes the answer of the host of a policy.
    pub(in crate::dispatcher) fn https_answered(
        &mut self,
        books: &Books,
        fetch: HttpsId,
        answer: Result<HttpsResponse, HttpsError>,
    ) {
        self.directory.policies.finder.handle_response(books.now, fetch, answer);
    }

    /// Gives the answer to a lookup to the search for the policy that needs it.
    pub(super) fn answer_policy_lookup(&mut self, books: &Books, lookup: LookupId, answer: Answer) {
        let Some(domain) = self.directory.policies.lookups.remove(&lookup) else { return };
        let finder = &mut self.directory.policies.finder;
        match answer {
            Answer::Texts(texts) => {
                finder.handle_record(books.now, &domain, texts.map(|texts| texts.value));
            }
            Answer::Addresses(addresses) => {
                finder.handle_addresses(books.now, &domain, addresses.map(|addresses| addresses.value));
            }
            // Not asked for.
            Answer::Mx(_) | Answer::Tlsa(_) | Answer::Alias(_) => {}
        }
    }

    /// Processes all outputs of the search for policies. This is the only place that does. Returns whether there was any.
    pub(super) fn drain_policies(&mut self, books: &mut Books) -> bool {
        let mut moved = false;
        while let Some(output) = self.directory.policies.finder.poll_output() {
            moved = true;
            let now = books.now.monotonic;
            match output {
                FinderOutput::Read(domain) => {
                    books.ask(StoreRequest::ReadPolicy(domain.clone()), Asked::Policy(domain));
                }
                FinderOutput::Survey => {
                    let request = StoreRequest::ReadStalePolicies { now: books.now.wall, limit: STALE_LIMIT };
                    books.ask(request, Asked::StalePolicies);
                }
                FinderOutput::LookupRecord(domain) => {
                    let prospect = self.directory.policies.prospect(books, &domain);
                    let lookup = self.resolver.lookup_texts(now, RECORD_LABEL, &domain, prospect);
                    self.directory.policies.lookups.insert(lookup, domain);
                }
                FinderOutput::LookupAddresses { domain, host } => {
                    let prospect = self.directory.policies.prospect(books, &domain);
                    let families = Families { ipv4: true, ipv6: true };
                    let lookup = self.resolver.lookup_addresses(now, &host, families, prospect);
                    self.directory.policies.lookups.insert(lookup, domain);
                }
                FinderOutput::Fetch(id, request) => books.output(Output::Https(id, request)),
                FinderOutput::Store(policy) => books.commits.note_policy(PolicyNote::Fetched(policy)),
                FinderOutput::StoreUse(domain) => {
                    books.commits.note_policy(PolicyNote::Used(domain, books.now.wall));
                }
                FinderOutput::Found(domain, found) => self.tell_askers(books, &domain, &found),
                FinderOutput::Note(level, text) => books.note_about(EventName::Tls, level, text),
            }
        }
        moved
    }

    fn tell_askers(&mut self, books: &mut Books, domain: &Domain, found: &Result<Finding, LocalFindTrouble>) {
        for asker in self.directory.policies.take_askers(domain) {
            match asker {
                Asker::Destination(hop) => {
                    self.destinations.set_waits(hop, Waits::No);
                    self.with_delivery(books, hop, |delivery, cx| delivery.handle_policy(cx, found.clone()));
                }
                Asker::Scout(id) => self.tell_scout_of_policy(books, id, found.clone()),
                Asker::Probe(id) => self.tell_probe_of_policy(books, id, found.clone()),
            }
        }
    }
}
