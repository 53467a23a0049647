//! The outcomes of earlier questions, for as long as they hold.

use alloc::collections::{BTreeMap, BTreeSet};

use super::chain::LookupOutcome;
use super::message::Question;
use crate::time::{Duration, Instant};

/// Most outcomes that are kept. Beyond it, the one that expires first is dropped.
pub(super) const ENTRIES_LIMIT: usize = 10_000;
/// Longest time that records are kept, whatever their time to live says.
pub(super) const POSITIVE_LIMIT: Duration = Duration::from_secs(24 * 60 * 60);
/// Longest time that a denial is kept (RFC 2308 section 5 suggests one to three hours at most).
pub(super) const NEGATIVE_LIMIT: Duration = Duration::from_secs(60 * 60);
/// Time for which a failure is kept: long enough to relieve the servers (RFC 9520 section 3.2), shorter than any retry.
pub(super) const FAILURE_SPAN: Duration = Duration::from_secs(5);

/// Outcomes by question.
#[derive(Debug, Default)]
pub(super) struct Cache {
    entries: BTreeMap<Question, CachedOutcome>,
    by_expiry: BTreeSet<(Instant, Question)>,
}

#[derive(Debug)]
struct CachedOutcome {
    outcome: LookupOutcome,
    expiry: Instant,
}

impl Cache {
    /// Returns the outcome of a question, and for how many seconds it still holds.
    pub(super) fn find(&self, now: Instant, question: &Question) -> Option<(LookupOutcome, u32)> {
        let entry = self.entries.get(question).filter(|entry| now < entry.expiry)?;
        let left_s = entry.expiry.saturating_duration_since(now).as_secs();
        Some((entry.outcome.clone(), u32::try_from(left_s).unwrap_or(u32::MAX)))
    }

    /// Keeps an outcome for as long as its kind and its time to live allow.
    pub(super) fn insert(
        &mut self,
        now: Instant,
        question: Question,
        outcome: LookupOutcome,
        ttl_s: Option<u32>,
    ) {
        let ttl = Duration::from_secs(u64::from(ttl_s.unwrap_or(0)));
        let span = match outcome {
            LookupOutcome::Mx(_) | LookupOutcome::Addresses(_) => ttl.min(POSITIVE_LIMIT),
            LookupOutcome::NoData | LookupOutcome::NoSuchName => ttl.min(NEGATIVE_LIMIT),
            LookupOutcome::Failed(_) => FAILURE_SPAN,
            LookupOutcome::Local(_) => Duration::ZERO,
        };
        if span.is_zero() {
            return;
        }
        self.remove_superfluous(now);
        let expiry = now + span;
        self.by_expiry.insert((expiry, question.clone()));
        if let Some(old) = self.entries.insert(question.clone(), CachedOutcome { outcome, expiry })
            && old.expiry != expiry
        {
            self.by_expiry.remove(&(old.expiry, question));
        }
    }

    /// Forgets denials and failures.
    pub(super) fn forget_failures(&mut self) {
        self.entries
            .retain(|_, entry| matches!(entry.outcome, LookupOutcome::Mx(_) | LookupOutcome::Addresses(_)));
        let entries = &self.entries;
        self.by_expiry.retain(|(_, question)| entries.contains_key(question));
    }

    /// Makes room for one more outcome.
    fn remove_superfluous(&mut self, now: Instant) {
        while let Some((expiry, question)) = self.by_expiry.pop_first() {
            if now < expiry && self.entries.len() < ENTRIES_LIMIT {
                self.by_expiry.insert((expiry, question));
                return;
            }
            self.entries.remove(&question);
        }
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        assert_eq!(self.entries.len(), self.by_expiry.len());
        self.entries.len()
    }
}
