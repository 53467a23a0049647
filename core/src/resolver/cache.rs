//! The outcomes of earlier questions, for as long as they hold.

use alloc::collections::{BTreeMap, BTreeSet};

use super::Security;
use super::chain::{Conclusion, LookupOutcome};
use super::message::Question;
use crate::time::{Duration, Instant};

/// Most outcomes that are kept. Beyond it, the one that expires first is dropped.
pub(super) const ENTRIES_LIMIT: usize = 10_000;
/// Longest time that records are kept, whatever their time to live says.
pub(super) const POSITIVE_LIMIT: Duration = Duration::from_secs(24 * 60 * 60);
/// Longest time that records are kept by which a server proves itself. Whoever changes a certificate waits for no longer than the
/// time to live of the records, and these cost nothing to ask for again.
pub(super) const PROOF_LIMIT: Duration = Duration::from_secs(60 * 60);
/// Longest time that a denial is kept (RFC 2308 section 5 suggests one to three hours at most).
pub(super) const NEGATIVE_LIMIT: Duration = Duration::from_secs(60 * 60);
/// Time for which a failure is kept: long enough to relieve the servers (RFC 9520 section 3.2), shorter than any retry.
pub(super) const FAILURE_SPAN: Duration = Duration::from_secs(5);

/// Conclusions by question.
#[derive(Debug, Default)]
pub(super) struct Cache {
    entries: BTreeMap<Question, CachedConclusion>,
    by_expiry: BTreeSet<(Instant, Question)>,
}

#[derive(Debug)]
struct CachedConclusion {
    conclusion: Conclusion,
    expiry: Instant,
}

impl Cache {
    /// Returns the conclusion of a question, and for how many seconds it still holds.
    pub(super) fn find(&self, now: Instant, question: &Question) -> Option<(Conclusion, u32)> {
        let entry = self.entries.get(question).filter(|entry| now < entry.expiry)?;
        let left_s = entry.expiry.saturating_duration_since(now).as_secs();
        Some((entry.conclusion.clone(), u32::try_from(left_s).unwrap_or(u32::MAX)))
    }

    /// Keeps a conclusion for as long as its kind and its time to live allow.
    pub(super) fn insert(
        &mut self,
        now: Instant,
        question: Question,
        conclusion: Conclusion,
        ttl_s: Option<u32>,
    ) {
        let ttl = Duration::from_secs(u64::from(ttl_s.unwrap_or(0)));
        let span = match conclusion.outcome {
            LookupOutcome::Mx(_) | LookupOutcome::Addresses(_) | LookupOutcome::Alias => {
                ttl.min(POSITIVE_LIMIT)
            }
            LookupOutcome::Tlsa(_) | LookupOutcome::Texts(_) => ttl.min(PROOF_LIMIT),
            LookupOutcome::NoData | LookupOutcome::NoSuchName => ttl.min(NEGATIVE_LIMIT),
            LookupOutcome::Failed(_) => FAILURE_SPAN,
            LookupOutcome::NameServers | LookupOutcome::Local(_) => Duration::ZERO,
        };
        // A server that is believed may answer again.
        let span = if conclusion.security == Security::Unknown { span.min(FAILURE_SPAN) } else { span };
        if span.is_zero() {
            return;
        }
        self.remove_superfluous(now);
        let expiry = now + span;
        self.by_expiry.insert((expiry, question.clone()));
        if let Some(old) = self.entries.insert(question.clone(), CachedConclusion { conclusion, expiry })
            && old.expiry != expiry
        {
            self.by_expiry.remove(&(old.expiry, question));
        }
    }

    /// Forgets denials and failures.
    pub(super) fn forget_failures(&mut self) {
        self.entries.retain(|_, entry| match entry.conclusion.outcome {
            LookupOutcome::Mx(_)
            | LookupOutcome::Addresses(_)
            | LookupOutcome::Tlsa(_)
            | LookupOutcome::Texts(_)
            | LookupOutcome::Alias
            | LookupOutcome::NameServers => true,
            LookupOutcome::NoData
            | LookupOutcome::NoSuchName
            | LookupOutcome::Failed(_)
            | LookupOutcome::Local(_) => false,
        });
        let entries = &self.entries;
        self.by_expiry.retain(|(_, question)| entries.contains_key(question));
    }

    /// Forgets what is known of a question.
    pub(super) fn forget(&mut self, question: &Question) {
        if let Some(entry) = self.entries.remove(question) {
            self.by_expiry.remove(&(entry.expiry, question.clone()));
        }
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
