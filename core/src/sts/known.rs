//! A policy as it is kept, and what is found of the policy of a domain.

use alloc::boxed::Box;
use alloc::sync::Arc;
use core::time::Duration;

use bytes::Bytes;
use thiserror::Error;

use super::policy::{Mode, PolicyTrouble, StsPolicy};
use super::record::{PolicyId, RecordTrouble};
use crate::address::Domain;
use crate::https::HttpsError;
use crate::outbox::{POLICY_AGE_SECONDS, POLICY_USE_SECONDS, StoreError};
use crate::resolver::{DnsFailure, LocalLookupError, LookupError};
use crate::time::UnixTime;

/// A policy as the database keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredPolicy {
    /// The domain.
    pub domain: Domain,
    /// The id of its record when the policy was fetched.
    pub id: PolicyId,
    /// The policy as it was fetched.
    pub text: Bytes,
    /// When it was fetched.
    pub fetched: UnixTime,
    /// When it expires.
    pub expires: UnixTime,
    /// When mail last went by it, within a day.
    pub used: UnixTime,
}

/// The policy of a domain as it is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownPolicy {
    /// The domain.
    pub domain: Domain,
    /// The id of its record when the policy was fetched.
    pub id: PolicyId,
    /// What it says.
    pub policy: StsPolicy,
    /// When it was fetched.
    pub fetched: UnixTime,
    /// When it expires.
    pub expires: UnixTime,
}

/// A policy that is to be fetched again before it expires.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StalePolicy {
    /// The domain.
    pub domain: Domain,
    /// How long it holds in all.
    pub max_age: Duration,
}

/// What is found of the policy of a domain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The policy that holds, if there is one. It may say that there is [none](Mode::None) any more.
    pub policy: Option<Arc<KnownPolicy>>,
    /// Why there is none, or no newer one.
    pub trouble: Option<FindTrouble>,
}

/// Why the current policy of a domain is not known.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum FindTrouble {
    /// Its record says nothing of one.
    #[error(transparent)]
    Record(RecordTrouble),
    /// The name servers failed when they were asked for its record.
    #[error("the MTA-STS record could not be looked up: {0}")]
    RecordLookup(Box<DnsFailure>),
    /// It could not be fetched.
    #[error("the MTA-STS policy could not be fetched: {0}")]
    Fetch(FetchTrouble),
}

/// Why a policy could not be fetched.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum FetchTrouble {
    /// No host can have the name that it is fetched from.
    #[error("the name of its host would be too long")]
    NoHost,
    /// Its host has no address, or name servers do not say it.
    #[error("the address of its host: {0}")]
    NoAddress(LookupError),
    /// It was not the turn of this one within the time that mail waits for it.
    #[error("too many others are being fetched")]
    NoTurn,
    /// The host did not answer as it must.
    #[error("{0}")]
    Https(HttpsError),
    /// The host answered by another status than 200.
    #[error("its host answers with the status {0} instead of 200")]
    Status(u16),
    /// The answer is no plain text.
    #[error("the answer of its host is not text/plain")]
    MediaType,
    /// What the host answered is no policy.
    #[error("{0}")]
    Invalid(PolicyTrouble),
    /// An attempt has failed a short while ago.
    #[error("an attempt has failed a short while ago")]
    NotYet,
}

/// Trouble of this machine, by which it is not known whether a policy holds.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum LocalFindTrouble {
    /// The database could not be asked.
    #[error("the database could not be asked for the MTA-STS policy: {0}")]
    Store(StoreError),
    /// No name server could be asked.
    #[error(transparent)]
    Lookup(LocalLookupError),
    /// No host could be asked.
    #[error("the MTA-STS policy could not be fetched: {0}")]
    Https(HttpsError),
}

impl StoredPolicy {
    /// Returns how long the policy holds in all.
    pub fn max_age(&self) -> Duration {
        Duration::from_secs(u64::try_from(self.expires.0.saturating_sub(self.fetched.0)).unwrap_or(0))
    }

    /// Returns whether the policy is to be [fetched again](crate::StoreRequest::ReadStalePolicies) at this time.
    pub fn is_stale(&self, now: UnixTime) -> bool {
        let age = now.0.saturating_sub(self.fetched.0);
        let most = self.expires.0.saturating_sub(self.fetched.0).min(POLICY_AGE_SECONDS);
        let is_used = self.used.0 > now.0.saturating_sub(POLICY_USE_SECONDS);
        is_used && now < self.expires && (age < 0 || age >= most / 2)
    }

    /// Returns what the policy says, if it can be read.
    pub fn known(&self) -> Option<KnownPolicy> {
        let policy = StsPolicy::parse(&self.text).ok()?;
        let Self { domain, id, fetched, expires, .. } = self.clone();
        Some(KnownPolicy { domain, id, policy, fetched, expires })
    }
}

impl KnownPolicy {
    /// Returns whether it holds at this time.
    pub fn holds(&self, now: UnixTime) -> bool {
        now < self.expires
    }
}

impl Finding {
    /// Returns the policy that says something of hosts, if there is one.
    pub fn in_force(&self) -> Option<&Arc<KnownPolicy>> {
        self.policy.as_ref().filter(|known| known.policy.mode != Mode::None)
    }

    /// Returns that there is no policy, and why.
    pub fn nothing(trouble: FindTrouble) -> Self {
        Self { policy: None, trouble: Some(trouble) }
    }
}
