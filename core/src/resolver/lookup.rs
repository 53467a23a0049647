//! A lookup, and the answer that the outcomes of its questions make.

use alloc::collections::BTreeSet;
use alloc::vec::Vec;
use core::net::IpAddr;

use super::chain::{ADDRESSES_LIMIT, LookupOutcome};
use super::sockets::TaskId;
use super::{Answer, LocalLookupError, LookupError, MxAnswer};
use crate::address::is_destination;

/// The kind of answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    Mx,
    Addresses,
}

/// A lookup under way.
#[derive(Debug)]
pub(super) struct Lookup {
    wanted: Wanted,
    /// The questions that it waits for.
    pub(super) tasks: BTreeSet<TaskId>,
    pub(super) outcomes: Vec<LookupOutcome>,
}

impl Lookup {
    pub(super) fn new(wanted: Wanted) -> Self {
        Self { wanted, tasks: BTreeSet::new(), outcomes: Vec::new() }
    }

    /// Returns the answer that the outcomes make.
    pub(super) fn answer(self) -> Answer {
        match self.wanted {
            Wanted::Mx => Answer::Mx(mx(self.outcomes)),
            Wanted::Addresses => Answer::Addresses(addresses(self.outcomes)),
        }
    }
}

fn mx(outcomes: Vec<LookupOutcome>) -> Result<MxAnswer, LookupError> {
    match outcomes.into_iter().next() {
        Some(LookupOutcome::Mx(answer)) => Ok(answer),
        // The implicit MX of RFC 5321 section 5.1.
        Some(LookupOutcome::NoData | LookupOutcome::Addresses(_)) => Ok(MxAnswer::NoRecords),
        Some(LookupOutcome::NoSuchName) => Err(LookupError::NameDoesNotExist),
        Some(LookupOutcome::Failed(failure)) => Err(LookupError::Temporary(failure)),
        Some(LookupOutcome::Local(error)) => Err(LookupError::Local(error)),
        None => Err(LookupError::Local(LocalLookupError::NotEncodable)),
    }
}

/// Returns the usable addresses of both families, even if one family failed. Without any, a failure counts more than a denial:
/// some servers deny a whole name because it lacks one family (RFC 4074 section 4.2).
fn addresses(outcomes: Vec<LookupOutcome>) -> Result<Vec<IpAddr>, LookupError> {
    let (mut ipv6, mut ipv4) = (Vec::new(), Vec::new());
    let mut error = None;
    if outcomes.is_empty() {
        error = Some(LookupError::Local(LocalLookupError::NoFamily));
    }
    for outcome in outcomes {
        let found = match outcome {
            LookupOutcome::Addresses(found) if found.iter().copied().any(is_destination) => {
                for address in found.into_iter().filter(|address| is_destination(*address)) {
                    if address.is_ipv6() { ipv6.push(address) } else { ipv4.push(address) }
                }
                continue;
            }
            LookupOutcome::Addresses(_) | LookupOutcome::NoData | LookupOutcome::Mx(_) => {
                LookupError::NoAddress
            }
            LookupOutcome::NoSuchName => LookupError::NameDoesNotExist,
            LookupOutcome::Failed(failure) => LookupError::Temporary(failure),
            LookupOutcome::Local(error) => LookupError::Local(error),
        };
        if error.as_ref().is_none_or(|known| weight(known) < weight(&found)) {
            error = Some(found);
        }
    }
    if ipv6.len() + ipv4.len() > ADDRESSES_LIMIT {
        // Neither family may crowd out the other.
        let half = ADDRESSES_LIMIT / 2;
        ipv6.truncate(half.max(ADDRESSES_LIMIT.saturating_sub(ipv4.len())));
        ipv4.truncate(ADDRESSES_LIMIT.saturating_sub(ipv6.len()));
    }
    ipv6.append(&mut ipv4);
    match error {
        Some(error) if ipv6.is_empty() => Err(error),
        Some(_) | None => Ok(ipv6),
    }
}

/// Returns the weight of an error. The heavier of two describes both families.
fn weight(error: &LookupError) -> u8 {
    match error {
        LookupError::NoAddress => 0,
        LookupError::NameDoesNotExist => 1,
        LookupError::Temporary(_) => 2,
        LookupError::Local(_) => 3,
    }
}
