//! What the sender of a mail wants to be told of it (RFC 3461): parsed once, and never wrong on the wire.
//!
//! Values are held as people write them. [`xtext`] writes them as parameters of SMTP.

use alloc::borrow::ToOwned as _;
use alloc::boxed::Box;
use alloc::string::String;
use core::fmt::{self, Write as _};

use thiserror::Error;

use crate::dkim::SignMark;

/// Longest value of ENVID in octets, as it is sent (RFC 3461 section 4.4).
pub const ENVELOPE_ID_LIMIT_OCTETS: usize = 100;
/// Longest value of ORCPT in octets, as it is sent (RFC 3461 section 4.2).
pub const ORIGINAL_RECIPIENT_LIMIT_OCTETS: usize = 500;

/// Why a text cannot be the value of a parameter.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum DsnError {
    /// NOTIFY.
    #[error("it must be never, or some of success, failure and delay with commas between")]
    Notify,
    /// RET.
    #[error("it must be full or hdrs")]
    Extent,
    /// Characters that no report may contain (RFC 3461 sections 4.2 and 4.4), or none at all.
    #[error("it must be printable ASCII characters")]
    NotPrintable,
    /// Too long for its parameter.
    #[error("it is longer than {limit_octets} octets as it is sent")]
    TooLong {
        /// The most octets of the parameter.
        limit_octets: usize,
    },
    /// ORCPT without a type.
    #[error("it must be a type of address, a semicolon, and an address, such as rfc822;user@example.org")]
    NoType,
}

/// What the sender of a mail wants to be told of one recipient.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DsnWishes {
    /// NOTIFY: of what the sender wants to be told, if that is said.
    pub notify: Option<Notify>,
    /// ORCPT: the recipient as the sender has written it.
    pub original_recipient: Option<OriginalRecipient>,
    /// What belongs to the whole message.
    pub message: MessageWishes,
}

/// What the sender wants of a message as a whole, and of all reports about it. Mail that differs in this does not share a transaction,
/// nor a report.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MessageWishes {
    /// RET: how much of the message a report of failure returns.
    pub extent: Option<ReturnExtent>,
    /// ENVID: an id of the sender's own, which comes back in reports.
    pub envelope_id: Option<EnvelopeId>,
    /// Whether the message is to be signed.
    pub sign: SignMark,
}

/// Of what the sender wants to be told. Nothing of all three is NEVER.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Notify {
    /// Of the delivery.
    pub success: bool,
    /// That the mail is given up.
    pub failure: bool,
    /// That the mail is late.
    pub delay: bool,
}

/// How much of a message a report of failure returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ReturnExtent {
    /// All of it.
    Full,
    /// Its header section.
    Headers,
}

/// The id that a sender has given to a message: printable ASCII.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EnvelopeId(Box<str>);

/// The recipient as the sender has written it, with its type: printable ASCII.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OriginalRecipient(Box<str>);

impl DsnWishes {
    /// Returns whether the sender wants to be told of the delivery.
    pub fn wants_success(&self) -> bool {
        self.notify.is_some_and(|notify| notify.success)
    }

    /// Returns whether the sender wants to be told that the mail is given up. So it is if nothing is said.
    pub fn wants_failure(&self) -> bool {
        self.notify.is_none_or(|notify| notify.failure)
    }

    /// Returns whether the sender may be told that the mail is late. So it is if nothing is said.
    pub fn wants_delay(&self) -> bool {
        self.notify.is_none_or(|notify| notify.delay)
    }
}

impl Notify {
    /// Tells the sender nothing.
    pub const NEVER: Self = Self { success: false, failure: false, delay: false };

    /// Parses the value of NOTIFY (RFC 3461 section 4.1), in any case.
    pub fn parse(text: &str) -> Result<Self, DsnError> {
        if text.eq_ignore_ascii_case("never") {
            return Ok(Self::NEVER);
        }
        let mut notify = Self::NEVER;
        for event in text.split(',') {
            match event.to_ascii_lowercase().as_str() {
                "success" => notify.success = true,
                "failure" => notify.failure = true,
                "delay" => notify.delay = true,
                _ => return Err(DsnError::Notify),
            }
        }
        Ok(notify)
    }
}

impl fmt::Display for Notify {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let events = [(self.success, "SUCCESS"), (self.failure, "FAILURE"), (self.delay, "DELAY")];
        let mut names = events.iter().filter(|(is_wanted, _)| *is_wanted).map(|(_, name)| *name);
        f.write_str(names.next().unwrap_or("NEVER"))?;
        names.try_for_each(|name| write!(f, ",{name}"))
    }
}

impl ReturnExtent {
    /// Parses the value of RET (RFC 3461 section 4.3), in any case.
    pub fn parse(text: &str) -> Result<Self, DsnError> {
        match text.to_ascii_lowercase().as_str() {
            "full" => Ok(Self::Full),
            "hdrs" => Ok(Self::Headers),
            _ => Err(DsnError::Extent),
        }
    }
}

impl fmt::Display for ReturnExtent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full => "FULL",
            Self::Headers => "HDRS",
        })
    }
}

impl EnvelopeId {
    /// Parses the value of ENVID (RFC 3461 section 4.4) before it is written as [`xtext`].
    pub fn parse(text: &str) -> Result<Self, DsnError> {
        check(text, text.len(), ENVELOPE_ID_LIMIT_OCTETS)?;
        Ok(Self(text.into()))
    }

    /// Returns it as it was given.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl OriginalRecipient {
    /// Parses the value of ORCPT (RFC 3461 section 4.2) before its address is written as [`xtext`].
    pub fn parse(text: &str) -> Result<Self, DsnError> {
        let (kind, address) = text.split_once(';').ok_or(DsnError::NoType)?;
        // RFC 5322 section 3.2.3: an atom.
        let is_atext = |octet: u8| octet.is_ascii_alphanumeric() || b"!#$%&'*+-/=?^_`{|}~".contains(&octet);
        if kind.is_empty() || !kind.bytes().all(is_atext) {
            return Err(DsnError::NoType);
        }
        check(address, text.len(), ORIGINAL_RECIPIENT_LIMIT_OCTETS)?;
        Ok(Self(text.into()))
    }

    /// Returns it as it was given: type, semicolon and address.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the type of the address, and the address.
    pub fn parts(&self) -> (&str, &str) {
        self.0.split_once(';').unwrap_or(("", &self.0))
    }

    /// Returns the value of ORCPT.
    pub fn parameter(&self) -> String {
        let (kind, address) = self.parts();
        let mut parameter = kind.to_owned();
        parameter.push(';');
        parameter.push_str(&xtext(address));
        parameter
    }
}

/// Checks that a value is printable, and that it fits its parameter together with what stands before it in `octets`.
fn check(value: &str, octets: usize, limit_octets: usize) -> Result<(), DsnError> {
    if value.is_empty() || !value.bytes().all(|octet| matches!(octet, b' '..=b'~')) {
        return Err(DsnError::NotPrintable);
    }
    let encoded = value.bytes().filter(|octet| !is_xchar(*octet)).count();
    if octets.saturating_add(2 * encoded) > limit_octets {
        Err(DsnError::TooLong { limit_octets })
    } else {
        Ok(())
    }
}

/// Writes a text as the value of a parameter (RFC 3461 section 4).
pub fn xtext(text: &str) -> String {
    let mut xtext = String::with_capacity(text.len());
    for octet in text.bytes() {
        if is_xchar(octet) {
            xtext.push(char::from(octet));
        } else {
            // Writing to a String cannot fail.
            let _ = write!(xtext, "+{octet:02X}");
        }
    }
    xtext
}

/// Returns whether an octet stands for itself in xtext.
fn is_xchar(octet: u8) -> bool {
    octet.is_ascii_graphic() && !matches!(octet, b'+' | b'=')
}

#[cfg(test)]
mod tests;
