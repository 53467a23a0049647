//! Says which failures a rule of the administrator is about.

use core::fmt;

use thiserror::Error;

use crate::attempt::{AttemptFacts, AttemptKind};
use crate::failure::{OwnFailure, StoredFailure};
use crate::status::EnhancedStatus;

/// What a rule asks of the last failure of a mail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LastFailure {
    /// Its subject.
    pub kind: AttemptKind,
    /// The code of the reply; `None` if no server replied.
    pub code: Option<u16>,
    /// The enhanced status: the server's, or ours.
    pub status: Option<EnhancedStatus>,
}

impl From<AttemptFacts<'_>> for LastFailure {
    fn from(facts: AttemptFacts<'_>) -> Self {
        let AttemptFacts { kind, status, reply, .. } = facts;
        Self { kind, code: reply.map(|(reply, _)| reply.code().as_u16()), status }
    }
}

impl LastFailure {
    /// Reads it from the text of a faillog row, for failures of which nothing else is known: an earlier version has recorded them, or
    /// another program. Only what a server has replied is certain then.
    pub fn of_text(text: &[u8]) -> Self {
        let stored = StoredFailure::parse(text);
        let own = || match stored.own {
            Some(OwnFailure::Resolve) => AttemptKind::Dns,
            Some(OwnFailure::ReachMx | OwnFailure::ReachRelay) => AttemptKind::Connect,
            None => AttemptKind::Lost,
        };
        let kind = match (&stored.reply, stored.answered()) {
            (_, Some(command)) => AttemptKind::of_refusal(command),
            (Some(_), None) => AttemptKind::Recipient,
            (None, None) => own(),
        };
        Self { kind, code: stored.reply.map(|reply| reply.code), status: stored.status }
    }
}

/// The failures that a rule is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailurePattern {
    /// `*`: every failure.
    All,
    /// `connect`, `recipient` and so on: failures with this subject.
    Kind(AttemptKind),
    /// `421`, `45` or `4`: replies whose code begins with these digits.
    Code {
        /// The lowest such code.
        least: u16,
        /// The highest one.
        most: u16,
    },
    /// `4.2.2` or `4.2`: an enhanced status that begins so.
    Status {
        /// The class: 4 or 5.
        class: u8,
        /// The subject.
        subject: u16,
        /// The detail; `None` for all.
        detail: Option<u16>,
    },
}

/// The reason why a text is not a pattern.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error(
    "it must be \"*\", one of dns, connect, tls, auth, greeting, sender, recipient, content, lost, uncertain and local, a code like \
     421 or its first digits, or a status like 4.2.2 or 4.2"
)]
pub struct FailurePatternError;

impl FailurePattern {
    /// Parses a pattern.
    pub fn parse(text: &str) -> Result<Self, FailurePatternError> {
        let kind = || AttemptKind::of_failure(text).map(Self::Kind);
        let parsed = if text == "*" { Some(Self::All) } else { kind().or_else(|| parse_numbers(text)) };
        parsed.ok_or(FailurePatternError)
    }

    /// Returns whether this failure is meant.
    pub fn matches(self, failure: LastFailure) -> bool {
        match self {
            Self::All => true,
            Self::Kind(kind) => failure.kind == kind,
            Self::Code { least, most } => failure.code.is_some_and(|code| (least..=most).contains(&code)),
            Self::Status { class, subject, detail } => failure.status.is_some_and(|status| {
                (status.class, status.subject) == (class, subject)
                    && detail.is_none_or(|detail| status.detail == detail)
            }),
        }
    }
}

/// Parses `421`, `45`, `4`, `4.2.2` or `4.2`.
fn parse_numbers(text: &str) -> Option<FailurePattern> {
    let number = |text: &str| {
        let is_plain = (1..=3).contains(&text.len()) && text.bytes().all(|octet| octet.is_ascii_digit());
        if is_plain { text.parse::<u16>().ok() } else { None }
    };
    let begins_well = text.starts_with(['4', '5']);
    let mut parts = text.split('.');
    let first = parts.next().filter(|_| begins_well)?;
    match (parts.next(), parts.next(), parts.next()) {
        (None, ..) => {
            let codes = 10_u16.pow(3_u32.checked_sub(u32::try_from(first.len()).ok()?)?);
            let least = number(first)?.checked_mul(codes)?;
            Some(FailurePattern::Code { least, most: least + (codes - 1) })
        }
        (Some(subject), detail, None) => Some(FailurePattern::Status {
            class: first.parse().ok().filter(|_| first.len() == 1)?,
            subject: number(subject)?,
            detail: detail.map(number).map(|detail| detail.ok_or(())).transpose().ok()?,
        }),
        (Some(_), _, Some(_)) => None,
    }
}

impl fmt::Display for FailurePattern {
    /// Writes it in the form that [`parse`](Self::parse) reads.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::All => f.write_str("*"),
            Self::Kind(kind) => kind.fmt(f),
            Self::Code { least, most } => match most - least {
                0 => least.fmt(f),
                9 => (least / 10).fmt(f),
                _ => (least / 100).fmt(f),
            },
            Self::Status { class, subject, detail } => {
                write!(f, "{class}.{subject}")?;
                detail.map_or(Ok(()), |detail| write!(f, ".{detail}"))
            }
        }
    }
}

#[cfg(test)]
mod tests;
