//! A lookup, and the answer that the conclusions of its questions make.

use alloc::boxed::Box;
use alloc::collections::BTreeSet;
use alloc::vec::Vec;
use core::net::{IpAddr, SocketAddr};

use super::chain::{ADDRESSES_LIMIT, Conclusion, LookupOutcome};
use super::sockets::TaskId;
use super::{Answer, Canonical, LocalLookupError, LookupError, MxAnswer, Resolved, Security};
use crate::address::is_destination;
use crate::tls::TlsaRecord;

/// The kind of answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    Mx,
    Addresses,
    Tlsa,
    Texts,
    Alias,
    /// Whether this server validates.
    Validation(SocketAddr),
}

/// A lookup under way.
#[derive(Debug)]
pub(super) struct Lookup {
    wanted: Wanted,
    /// The questions that it waits for.
    pub(super) tasks: BTreeSet<TaskId>,
    pub(super) conclusions: Vec<Conclusion>,
}

impl Lookup {
    pub(super) fn new(wanted: Wanted) -> Self {
        Self { wanted, tasks: BTreeSet::new(), conclusions: Vec::new() }
    }

    /// Returns whether it is to tell something of a server, for which nobody waits.
    pub(super) fn is_about_server(&self) -> bool {
        matches!(self.wanted, Wanted::Validation(_))
    }

    /// Returns the end that the conclusions make.
    pub(super) fn end(self) -> LookupEnd {
        LookupEnd::Answer(match self.wanted {
            Wanted::Mx => Answer::Mx(mx(self.conclusions)),
            Wanted::Addresses => Answer::Addresses(addresses(self.conclusions)),
            Wanted::Tlsa => Answer::Tlsa(tlsa(self.conclusions)),
            Wanted::Texts => Answer::Texts(texts(self.conclusions)),
            Wanted::Alias => Answer::Alias(alias(self.conclusions)),
            Wanted::Validation(server) => {
                let is_unproved = |conclusion: &Conclusion| match conclusion.outcome {
                    LookupOutcome::Failed(_) | LookupOutcome::Local(_) => false,
                    LookupOutcome::Mx(_)
                    | LookupOutcome::Addresses(_)
                    | LookupOutcome::Tlsa(_)
                    | LookupOutcome::Texts(_)
                    | LookupOutcome::Alias
                    | LookupOutcome::NameServers
                    | LookupOutcome::NoData
                    | LookupOutcome::NoSuchName => conclusion.security != Security::Secure,
                };
                return if self.conclusions.iter().any(is_unproved) {
                    LookupEnd::DoesNotValidate(server)
                } else {
                    LookupEnd::Silent
                };
            }
        })
    }
}

/// What the owner of the resolver is told at the end of a lookup.
#[derive(Debug)]
pub(super) enum LookupEnd {
    Answer(Answer),
    /// This server was asked whether it validates. It does not.
    DoesNotValidate(SocketAddr),
    /// Nothing.
    Silent,
}

fn mx(conclusions: Vec<Conclusion>) -> Result<Resolved<MxAnswer>, LookupError> {
    let question =
        conclusions.into_iter().next().ok_or(LookupError::Local(LocalLookupError::NotEncodable))?;
    let Conclusion { outcome, security, canonical } = question;
    let value = if let LookupOutcome::Mx(answer) = outcome {
        answer
    } else {
        // The implicit MX of RFC 5321 section 5.1.
        missing(outcome).map(|()| MxAnswer::NoRecords)?
    };
    Ok(Resolved { value, security, canonical })
}

/// Returns that there are no records of the wanted type at a name that exists, or why nothing is known of them.
fn missing(outcome: LookupOutcome) -> Result<(), LookupError> {
    match outcome {
        LookupOutcome::NoData
        | LookupOutcome::Mx(_)
        | LookupOutcome::Addresses(_)
        | LookupOutcome::Tlsa(_)
        | LookupOutcome::Texts(_)
        | LookupOutcome::Alias
        | LookupOutcome::NameServers => Ok(()),
        LookupOutcome::NoSuchName => Err(LookupError::NameDoesNotExist),
        LookupOutcome::Failed(failure) => Err(LookupError::Temporary(failure)),
        LookupOutcome::Local(error) => Err(LookupError::Local(error)),
    }
}

/// Returns what there is of a kind of records that a name may as well not have, or may itself not exist.
fn optional<T: Default>(
    conclusions: Vec<Conclusion>,
    wanted: impl FnOnce(LookupOutcome) -> Result<T, LookupOutcome>,
) -> Result<Resolved<T>, LookupError> {
    // Where no such name can be, nothing was asked.
    let Some(conclusion) = conclusions.into_iter().next() else {
        return Ok(Resolved::insecure(T::default()));
    };
    let Conclusion { outcome, security, canonical } = conclusion;
    let value = match wanted(outcome) {
        Ok(value) => value,
        Err(other) => match missing(other) {
            Ok(()) | Err(LookupError::NameDoesNotExist) => T::default(),
            Err(error) => return Err(error),
        },
    };
    Ok(Resolved { value, security, canonical })
}

fn tlsa(conclusions: Vec<Conclusion>) -> Result<Resolved<Vec<TlsaRecord>>, LookupError> {
    optional(
        conclusions,
        |outcome| if let LookupOutcome::Tlsa(records) = outcome { Ok(records) } else { Err(outcome) },
    )
}

fn texts(conclusions: Vec<Conclusion>) -> Result<Resolved<Vec<Box<[u8]>>>, LookupError> {
    optional(
        conclusions,
        |outcome| if let LookupOutcome::Texts(texts) = outcome { Ok(texts) } else { Err(outcome) },
    )
}

fn alias(conclusions: Vec<Conclusion>) -> Result<Resolved<bool>, LookupError> {
    optional(conclusions, |outcome| if outcome == LookupOutcome::Alias { Ok(true) } else { Err(outcome) })
}

/// Returns the usable addresses of both families, even if one family failed. Without any, a failure counts more than a denial:
/// some servers deny a whole name because it lacks one family (RFC 4074 section 4.2).
///
/// The host is secure if either family is: denials of the other one are often broken in zones that are signed.
fn addresses(conclusions: Vec<Conclusion>) -> Result<Resolved<Vec<IpAddr>>, LookupError> {
    let (mut ipv6, mut ipv4) = (Vec::new(), Vec::new());
    let mut origin: Option<Resolved<()>> = None;
    let mut error = None;
    if conclusions.is_empty() {
        error = Some(LookupError::Local(LocalLookupError::NoFamily));
    }
    for Conclusion { outcome, security, canonical } in conclusions {
        if let LookupOutcome::Addresses(found) = &outcome
            && found.iter().copied().any(is_destination)
        {
            for address in found.iter().copied().filter(|address| is_destination(*address)) {
                if address.is_ipv6() { ipv6.push(address) } else { ipv4.push(address) }
            }
            let says_more = |known: &Resolved<()>| {
                security < known.security
                    // An alias that only one family shows counts.
                    || (security == known.security && known.canonical == Canonical::Itself)
            };
            if origin.as_ref().is_none_or(says_more) {
                origin = Some(Resolved { value: (), security, canonical });
            }
            continue;
        }
        let found = missing(outcome).err().unwrap_or(LookupError::NoAddress);
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
    match (origin, error) {
        (Some(Resolved { value: (), security, canonical }), _) => {
            Ok(Resolved { value: ipv6, security, canonical })
        }
        (None, error) => Err(error.unwrap_or(LookupError::NoAddress)),
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
