//! The policies that are kept in memory.

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::sync::Arc;

use crate::address::Domain;
use crate::sts::{KnownPolicy, StoredPolicy};
use crate::time::UnixTime;

/// Most policies in memory. The database has all of them.
const POLICIES_LIMIT: usize = 1000;

/// Most hosts of all policies in memory together: a policy may name thousands.
const HOSTS_LIMIT: usize = 100_000;

/// Most domains of which it is remembered that the database has no policy.
const UNKNOWN_LIMIT: usize = 10_000;

/// Least time between two notes in the database that mail goes by a policy.
const USE_SECONDS: i64 = 24 * 60 * 60;

/// Policies in memory.
#[derive(Debug, Default)]
pub(super) struct PolicyCache {
    entries: BTreeMap<Domain, Entry>,
    /// How many hosts their policies name.
    hosts: usize,
    unknown: UnknownDomains,
    /// Counts what was asked for.
    clock: u64,
}

/// Domains that the database has no policy of.
#[derive(Debug, Default)]
struct UnknownDomains {
    domains: BTreeSet<Domain>,
    /// The order in which that was found out. Some may have a policy by now.
    order: VecDeque<Domain>,
}

impl UnknownDomains {
    /// Adds a domain. The first of too many is forgotten.
    fn add(&mut self, domain: &Domain) {
        self.domains.insert(domain.clone());
        self.order.push_back(domain.clone());
        if self.order.len() > UNKNOWN_LIMIT
            && let Some(first) = self.order.pop_front()
        {
            self.domains.remove(&first);
        }
    }
}

#[derive(Debug)]
struct Entry {
    policy: Arc<KnownPolicy>,
    /// When mail last went by it, as far as that is recorded.
    used: UnixTime,
    /// The policy as it is to be stored, as long as the database does not have it.
    unstored: Option<StoredPolicy>,
    /// When it was last asked for.
    asked: u64,
}

impl PolicyCache {
    /// Returns whether the database has to be asked about a domain.
    pub(super) fn knows(&self, domain: &Domain) -> bool {
        self.entries.contains_key(domain) || self.unknown.domains.contains(domain)
    }

    /// Returns the policy of a domain, if one holds.
    pub(super) fn find(&mut self, domain: &Domain, now: UnixTime) -> Option<Arc<KnownPolicy>> {
        self.clock += 1;
        let entry = self.entries.get_mut(domain)?;
        entry.asked = self.clock;
        entry.policy.holds(now).then(|| Arc::clone(&entry.policy))
    }

    /// Returns when mail last went by the policy of a domain, within a day.
    pub(super) fn last_use(&self, domain: &Domain) -> Option<UnixTime> {
        self.entries.get(domain).map(|entry| entry.used)
    }

    /// Notes that mail goes by a policy now. Returns whether that is to be recorded.
    pub(super) fn note_use(&mut self, domain: &Domain, now: UnixTime) -> bool {
        let Some(entry) = self.entries.get_mut(domain) else { return false };
        let is_new = now.0.saturating_sub(entry.used.0) >= USE_SECONDS;
        if is_new {
            entry.used = now;
        }
        is_new
    }

    /// Keeps what the database has of a domain, unless something newer is known.
    pub(super) fn keep_stored(&mut self, domain: &Domain, stored: Option<&StoredPolicy>) {
        if self.knows(domain) {
            return;
        }
        // What cannot be read is as good as nothing.
        match stored.and_then(|stored| Some((stored.known()?, stored.used))) {
            Some((known, used)) => self.insert(known, used, None),
            None => self.unknown.add(domain),
        }
    }

    /// Keeps a policy that was fetched, and is to be stored, unless the database has it.
    pub(super) fn insert(&mut self, known: KnownPolicy, used: UnixTime, unstored: Option<StoredPolicy>) {
        let domain = known.domain.clone();
        self.unknown.domains.remove(&domain);
        self.remove(&domain);
        self.clock += 1;
        self.hosts += known.policy.hosts.len();
        let entry = Entry { policy: Arc::new(known), used, unstored, asked: self.clock };
        self.entries.insert(domain, entry);
        while self.entries.len() > POLICIES_LIMIT || (self.hosts > HOSTS_LIMIT && self.entries.len() > 1) {
            // One that the database has comes back when it is asked for.
            let first = self.entries.iter().min_by_key(|(_, entry)| (entry.unstored.is_some(), entry.asked));
            let Some(first) = first.map(|(domain, _)| domain.clone()) else { break };
            self.remove(&first);
        }
    }

    /// Notes that the database has a policy.
    pub(super) fn note_stored(&mut self, stored: &StoredPolicy) {
        if let Some(entry) = self.entries.get_mut(&stored.domain)
            && entry.unstored.as_ref() == Some(stored)
        {
            entry.unstored = None;
        }
    }

    /// Forgets what the database has.
    pub(super) fn forget_stored(&mut self) {
        self.unknown = UnknownDomains::default();
        self.entries.retain(|_, entry| entry.unstored.is_some());
        self.hosts = self.entries.values().map(|entry| entry.policy.policy.hosts.len()).sum();
    }

    /// Returns what the database does not have, for another try to store it.
    pub(super) fn unstored(&self) -> impl Iterator<Item = StoredPolicy> {
        self.entries.values().filter_map(|entry| entry.unstored.clone())
    }

    fn remove(&mut self, domain: &Domain) {
        if let Some(entry) = self.entries.remove(domain) {
            self.hosts -= entry.policy.policy.hosts.len();
        }
    }
}
