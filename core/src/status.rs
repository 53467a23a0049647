//! Enhanced status codes (RFC 3463), from a server or our own.

use core::fmt;

/// A code `class.subject.detail`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EnhancedStatus {
    /// 2 success, 4 persistent transient failure, 5 permanent failure.
    pub class: u8,
    /// The subject, 0 to 999.
    pub subject: u16,
    /// The precise meaning, 0 to 999.
    pub detail: u16,
}

impl EnhancedStatus {
    /// Success of any kind.
    pub const SUCCESS: Self = Self::new(2, 0, 0);
    /// Mailing list or address: bad destination system (a domain that does not exist).
    pub const BAD_DOMAIN: Self = Self::new(5, 1, 2);
    /// Bad destination mailbox address syntax.
    pub const BAD_RECIPIENT_SYNTAX: Self = Self::new(5, 1, 3);
    /// Bad sender's mailbox address syntax.
    pub const BAD_SENDER_SYNTAX: Self = Self::new(5, 1, 7);
    /// The recipient's domain has a null MX (RFC 7505 section 4).
    pub const NULL_MX: Self = Self::new(5, 1, 10);
    /// This system is not configured correctly.
    pub const BAD_CONFIGURATION: Self = Self::new(4, 3, 5);
    /// The message is larger than the server accepts.
    pub const MESSAGE_TOO_LONG: Self = Self::new(5, 3, 4);
    /// No answer from any host.
    pub const NO_ANSWER: Self = Self::new(4, 4, 1);
    /// The connection was lost.
    pub const CONNECTION_LOST: Self = Self::new(4, 4, 2);
    /// The name servers failed.
    pub const DNS_FAILURE: Self = Self::new(4, 4, 3);
    /// Unable to route.
    pub const NO_ROUTE: Self = Self::new(5, 4, 4);
    /// Addresses that are not ASCII are not supported by the server (RFC 6531 section 4.2).
    pub const NEEDS_SMTPUTF8: Self = Self::new(5, 6, 7);
    /// The mail was tried for as long as allowed.
    pub const DELIVERY_TIME_EXPIRED: Self = Self::new(4, 4, 7);
    /// A permanent failure of unknown kind.
    pub const UNDEFINED_PERMANENT: Self = Self::new(5, 0, 0);
    /// Security features that are needed are not offered.
    pub const NO_SECURITY: Self = Self::new(4, 7, 4);
    /// A cryptographic failure: the server does not prove who it is.
    pub const NO_PROOF: Self = Self::new(4, 7, 5);
    /// A security or policy reason.
    pub const POLICY: Self = Self::new(4, 7, 0);
    /// A cryptographic failure.
    pub const CRYPTOGRAPHY: Self = Self::new(4, 7, 5);

    /// Returns the code `class.subject.detail`.
    pub const fn new(class: u8, subject: u16, detail: u16) -> Self {
        Self { class, subject, detail }
    }

    /// Parses the code at the beginning of `text`. White space or the end must follow it (RFC 2034 section 4). Also returns the
    /// number of octets that it took.
    pub fn parse_prefix(text: &[u8]) -> Option<(Self, usize)> {
        let end = text.iter().position(|octet| matches!(octet, b' ' | b'\t')).unwrap_or(text.len());
        let code = core::str::from_utf8(text.get(..end)?).ok()?;
        let mut numbers = code.split('.');
        let mut number = || {
            let digits = numbers.next()?;
            let plain = (1..=3).contains(&digits.len()) && digits.bytes().all(|octet| octet.is_ascii_digit());
            if plain { digits.parse::<u16>().ok() } else { None }
        };
        let (class, subject, detail) = (number()?, number()?, number()?);
        let class = u8::try_from(class).ok().filter(|class| matches!(class, 2 | 4 | 5))?;
        if numbers.next().is_some() { None } else { Some((Self { class, subject, detail }, end)) }
    }
}

impl fmt::Display for EnhancedStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.class, self.subject, self.detail)
    }
}

#[cfg(test)]
mod tests;
