//! Which policies are fetched again before they expire, and when (RFC 8461 section 10.2).

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use crate::address::Domain;
use crate::outbox::POLICY_AGE_SECONDS;
use crate::rng::Rng;
use crate::sts::StalePolicy;
use crate::time::{Duration, Instant};

/// Time between two looks for policies that are to be fetched again.
const SURVEY_INTERVAL: Duration = Duration::from_secs(10 * 60);

/// Longest time that a policy which mail goes by is not fetched again (RFC 8461 section 3.3 suggests a day).
const REFRESH_LIMIT: Duration = Duration::from_secs(POLICY_AGE_SECONDS.unsigned_abs());

/// Least time between the beginnings of two fetches that no mail waits for.
const START_INTERVAL: Duration = Duration::from_secs(1);

/// Most fetches at once that no mail waits for.
const REFRESHES_LIMIT: usize = 4;

/// The policies that are to be fetched again. All of them are at least half as old as they should become.
#[derive(Debug, Default)]
pub(super) struct Refresh {
    /// When the database is asked next.
    survey_at: Option<Instant>,
    is_asking: bool,
    due: BTreeSet<(Instant, Domain)>,
    times: BTreeMap<Domain, Instant>,
    /// No fetch begins before this time.
    not_before: Instant,
    under_way: BTreeSet<Domain>,
}

impl Refresh {
    /// Begins to look for such policies, or ends it.
    pub(super) fn set_wanted(&mut self, is_wanted: bool, now: Instant) {
        if !is_wanted {
            self.survey_at = None;
            self.due.clear();
            self.times.clear();
        } else if self.survey_at.is_none() {
            self.survey_at = Some(now);
        }
    }

    /// Returns whether the database is to be asked now.
    pub(super) fn take_survey(&mut self, now: Instant) -> bool {
        let is_due = !self.is_asking && self.survey_at.is_some_and(|at| at <= now);
        if is_due {
            self.is_asking = true;
            self.survey_at = Some(now + SURVEY_INTERVAL);
        }
        is_due
    }

    /// Draws a time for each policy that has none yet, so that its whole age then is between half and nine tenths of a day, or of the time
    /// that it holds.
    pub(super) fn surveyed(&mut self, now: Instant, stale: Vec<StalePolicy>, rng: &mut Rng) {
        self.is_asking = false;
        if self.survey_at.is_none() {
            return;
        }
        for StalePolicy { domain, max_age } in stale {
            if self.times.contains_key(&domain) || self.under_way.contains(&domain) {
                continue;
            }
            let span = max_age.min(REFRESH_LIMIT).as_secs() * 2 / 5;
            let at = now + Duration::from_secs(rng.below(span + 1));
            self.times.insert(domain.clone(), at);
            self.due.insert((at, domain));
        }
    }

    /// Takes a policy that is to be fetched now.
    pub(super) fn take_due(&mut self, now: Instant) -> Option<Domain> {
        if self.start_at().is_none_or(|at| at > now) {
            return None;
        }
        let (_, domain) = self.due.pop_first()?;
        self.times.remove(&domain);
        self.not_before = now + START_INTERVAL;
        self.under_way.insert(domain.clone());
        Some(domain)
    }

    /// Notes that a policy was fetched, or cannot be.
    pub(super) fn end(&mut self, domain: &Domain) {
        self.under_way.remove(domain);
        if let Some(at) = self.times.remove(domain) {
            self.due.remove(&(at, domain.clone()));
        }
    }

    /// Returns when there is something to do.
    pub(super) fn next_time(&self) -> Option<Instant> {
        let survey = self.survey_at.filter(|_| !self.is_asking);
        [survey, self.start_at()].into_iter().flatten().min()
    }

    fn start_at(&self) -> Option<Instant> {
        let (at, _) = self.due.first()?;
        (self.under_way.len() < REFRESHES_LIMIT).then(|| self.not_before.max(*at))
    }
}

#[cfg(test)]
mod tests;
