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

/// A policy, and when mail last went by it, as far as that is recorded.
#[derive(Clone, Debug)]
pub(super) struct Kept {
    pub(super) policy: Arc<KnownPolicy>,
    pub(super) used: UnixTime,
}

impl Kept {
    /// Returns the policy, if it holds at this time.
    pub(super) fn in_force(&self, now: UnixTime) -> Option<Arc<KnownPolicy>> {
        self.policy.holds(now).then(|| Arc::clone(&self.policy))
    }

    /// Returns whether it is to be recorded that mail goes by the policy at this time.
    pub(super) fn is_long_unused(&self, now: UnixTime) -> bool {
        now.0.saturating_sub(self.used.0) >= USE_SECONDS
    }
}

#[derive(Debug)]
struct Entry {
    kept: Kept,
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

    /// Takes the policy of a domain up again, whether or not it still holds. It is among the last to be forgotten then.
    pub(super) fn take_up(&mut self, domain: &Domain) -> Option<Kept> {
        self.clock += 1;
        let entry = self.entries.get_mut(domain)?;
        entry.asked = self.clock;
        Some(entry.kept.clone())
    }

    /// Notes that mail goes by the policy of a domain, which is being recorded.
    pub(super) fn note_use(&mut self, domain: &Domain, now: UnixTime) {
        let Some(entry) = self.entries.get_mut(domain) else { return };
        entry.kept.used = now;
        if let Some(unstored) = &mut entry.unstored {
            unstored.used = now;
        }
    }

    /// Keeps what the database has of a domain, unless something newer is known. Returns what is known now.
    pub(super) fn keep_stored(&mut self, domain: &Domain, stored: Option<&StoredPolicy>) -> Option<Kept> {
        if self.knows(domain) {
            return self.take_up(domain);
        }
        // What cannot be read is as good as nothing.
        let Some((known, used)) = stored.and_then(|stored| Some((stored.known()?, stored.used))) else {
            self.unknown.add(domain);
            return None;
        };
        let kept = Kept { policy: Arc::new(known), used };
        // It may be forgotten at once, if all others are to be stored.
        self.insert(kept.clone(), None);
        Some(kept)
    }

    /// Keeps a policy that was fetched, and is to be stored, unless the database has it.
    pub(super) fn insert(&mut self, kept: Kept, unstored: Option<StoredPolicy>) {
        let domain = kept.policy.domain.clone();
        self.unknown.domains.remove(&domain);
        self.remove(&domain);
        self.clock += 1;
        self.hosts += kept.policy.policy.hosts.len();
        self.entries.insert(domain, Entry { kept, unstored, asked: self.clock });
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
        self.hosts = self.entries.values().map(|entry| entry.kept.policy.policy.hosts.len()).sum();
    }

    /// Returns what the database does not have, for another try to store it.
    pub(super) fn unstored(&self) -> impl Iterator<Item = StoredPolicy> {
        self.entries.values().filter_map(|entry| entry.unstored.clone())
    }

    fn remove(&mut self, domain: &Domain) {
        if let Some(entry) = self.entries.remove(domain) {
            self.hosts -= entry.kept.policy.policy.hosts.len();
        }
    }
}
