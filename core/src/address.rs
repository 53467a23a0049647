//! Mail addresses and domains: parsed once, valid from then on.

use alloc::borrow::ToOwned;
use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use core::fmt;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use core::str;

use thiserror::Error;

use crate::one_line::OneLine;

use crate::shown::shortened;

/// Longest mail address in octets. Servers must accept paths of 256 octets (RFC 5321 section 4.5.3.1.3) and command lines of 512,
/// and hardly any accepts a line of more than 1,000.
pub const ADDRESS_LIMIT_OCTETS: usize = 1000;
/// Longest domain name in octets, written without its trailing dot (RFC 1035 section 2.3.4).
pub const DOMAIN_LIMIT_OCTETS: usize = 253;
/// Longest label of a domain name in octets (RFC 1035 section 2.3.4).
pub const LABEL_LIMIT_OCTETS: usize = 63;

/// The reason why a text is not a usable mail address or domain.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum AddressError {
    /// The text is empty.
    #[error("the address is empty")]
    Empty,
    /// Beyond [`ADDRESS_LIMIT_OCTETS`].
    #[error("the address is longer than {ADDRESS_LIMIT_OCTETS} octets")]
    TooLong,
    /// An octet that would end a command line, or look as if it did.
    #[error("the address contains a control character")]
    ControlCharacter,
    /// White space or an angle bracket outside a quoted string.
    #[error("the address contains an unquoted space or angle bracket")]
    UnquotedSpecial,
    /// A quoted string is never closed.
    #[error("the address contains an unterminated quoted string")]
    UnterminatedQuote,
    /// Octets that are not UTF-8 (RFC 6531 section 3.3).
    #[error("the address is not UTF-8 text")]
    NotUtf8,
    /// The local part before the `@` is empty (RFC 5321 section 4.1.2).
    #[error("the address has no local part")]
    NoLocalPart,
    /// The part after the `@` is empty, but mail that is routed by domain needs a domain.
    #[error("the address has no domain")]
    NoDomain,
    /// The domain breaks the rules of RFC 1035, RFC 5890 or RFC 5321 section 4.1.3. A long domain is cut in the message.
    #[error("\"{}\" is not a valid domain", OneLine(.0))]
    Domain(String),
    /// The address literal is an address that mail cannot be sent to, see [`is_destination`].
    #[error("mail cannot be sent to the address {0}")]
    NoDestination(IpAddr),
}

/// Returns whether mail can be sent to an address. The addresses of 0.0.0.0/8 and `::` mean this host or no host (RFC 1122
/// section 3.2.1.3, RFC 4291 section 2.5.2); multicast and 255.255.255.255 mean several. Domains name them to say that they have
/// no server.
pub fn is_destination(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(address) => {
            let is_this_network = matches!(address.octets(), [0, ..]);
            !is_this_network && !address.is_multicast() && !address.is_broadcast()
        }
        IpAddr::V6(address) => !address.is_unspecified() && !address.is_multicast(),
    }
}

/// A domain name in A-labels and lower case, without a trailing dot. So equal names are equal octets.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Domain(Box<str>);

impl Domain {
    /// Parses `text`, turning U-labels into A-labels (RFC 5890).
    ///
    /// Underscores are allowed: a host name must not contain them, but real mail domains do.
    pub fn parse(text: &str) -> Result<Self, AddressError> {
        let invalid = || AddressError::Domain(shortened(text));
        // A text that is too long is not converted, because that takes much longer than reading it.
        if text.len() > ADDRESS_LIMIT_OCTETS {
            return Err(invalid());
        }
        let bare = text.strip_suffix('.').unwrap_or(text);
        let ascii = if bare.is_ascii() {
            bare.to_ascii_lowercase()
        } else {
            let converted = idna::domain_to_ascii(bare).map_err(|_| invalid())?;
            converted.strip_suffix('.').map(ToOwned::to_owned).unwrap_or(converted)
        };
        let label_is_valid = |label: &str| {
            (1..=LABEL_LIMIT_OCTETS).contains(&label.len())
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label.bytes().all(|octet| octet.is_ascii_alphanumeric() || matches!(octet, b'-' | b'_'))
        };
        if ascii.len() > DOMAIN_LIMIT_OCTETS || !ascii.split('.').all(label_is_valid) {
            return Err(invalid());
        }
        Ok(Self(ascii.into_boxed_str()))
    }

    /// Returns the name in lower-case A-labels.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The part of an address after its last `@`, which decides where mail is sent.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MailDomain {
    /// A domain name, to be looked up.
    Name(Domain),
    /// An address literal (RFC 5321 section 4.1.3).
    Literal(IpAddr),
}

impl MailDomain {
    /// Parses a domain name or an address literal.
    pub fn parse(text: &str) -> Result<Self, AddressError> {
        let Some(literal) = text.strip_prefix('[') else { return Domain::parse(text).map(Self::Name) };
        let invalid = || AddressError::Domain(shortened(text));
        let literal = literal.strip_suffix(']').ok_or_else(invalid)?;
        let address = match literal.split_at_checked(5) {
            Some((tag, ipv6)) if tag.eq_ignore_ascii_case("ipv6:") => {
                IpAddr::V6(ipv6.parse::<Ipv6Addr>().map_err(|_| invalid())?)
            }
            _ => IpAddr::V4(literal.parse::<Ipv4Addr>().map_err(|_| invalid())?),
        };
        Ok(Self::Literal(address))
    }
}

/// A mail address that is safe to write into a command line, in the form it has there.
///
/// The local part keeps its case and its octets (RFC 5321 section 2.4). A domain is held without a dot at its end, and one
/// that is not ASCII in A-labels, so that the address needs SMTPUTF8 only if its local part does (RFC 6531 section 3.2).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mailbox {
    text: Box<str>,
    /// The position of the last `@`, if it is outside the quoted local part.
    at: Option<usize>,
}

impl Mailbox {
    /// Parses an address as the database holds it, without angle brackets around it.
    ///
    /// An address without a domain is accepted, because a relay may know what to do with it. Only [`Mailbox::domain`] requires
    /// one.
    pub fn parse(octets: &[u8]) -> Result<Self, AddressError> {
        if octets.len() > ADDRESS_LIMIT_OCTETS {
            return Err(AddressError::TooLong);
        }
        let text = str::from_utf8(octets).map_err(|_| AddressError::NotUtf8)?;
        if text.is_empty() {
            return Err(AddressError::Empty);
        }
        let at = last_unquoted_at(text)?;
        let Some((local_part, domain)) = at.and_then(|at| text.split_at_checked(at)) else {
            return Ok(Self { text: text.into(), at: None });
        };
        let domain = domain.strip_prefix('@').unwrap_or(domain);
        if local_part.is_empty() {
            return Err(AddressError::NoLocalPart);
        }
        if domain.is_empty() {
            return Err(AddressError::NoDomain);
        }
        let text = if domain.is_ascii() {
            // SMTP has no dot at the end of a domain (RFC 5321 section 4.1.2).
            text.strip_suffix('.').unwrap_or(text).into()
        } else {
            format!("{local_part}@{}", Domain::parse(domain)?).into_boxed_str()
        };
        Ok(Self { text, at })
    }

    /// Returns the address as it is written in a path, between the angle brackets.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Returns the part before the last `@`.
    pub fn local_part(&self) -> &str {
        self.at.and_then(|at| self.text.get(..at)).unwrap_or(&self.text)
    }

    /// Returns the part after the last `@`.
    pub fn domain(&self) -> Result<MailDomain, AddressError> {
        let domain = self.at.and_then(|at| self.text.get(at + 1..)).ok_or(AddressError::NoDomain)?;
        match MailDomain::parse(domain)? {
            MailDomain::Literal(address) if !is_destination(address) => {
                Err(AddressError::NoDestination(address))
            }
            domain @ (MailDomain::Name(_) | MailDomain::Literal(_)) => Ok(domain),
        }
    }

    /// Returns the same text for all addresses that differ only in how their domain is written: in upper or lower case, in
    /// U-labels or A-labels. Local parts are equal only if all their octets are (RFC 5321 section 2.4).
    pub fn canonical(&self) -> String {
        match self.domain() {
            Ok(MailDomain::Name(domain)) => format!("{}@{domain}", self.local_part()),
            Ok(MailDomain::Literal(address)) => format!("{}@[{address}]", self.local_part()),
            Err(_) => self.text.as_ref().to_owned(),
        }
    }

    /// Returns whether the address can be sent only to a server that offers SMTPUTF8 (RFC 6531 section 3.4).
    pub fn needs_smtputf8(&self) -> bool {
        !self.text.is_ascii()
    }
}

impl fmt::Display for Mailbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Checks that `text` cannot end or split a command line. Returns the position of the `@` before the domain.
fn last_unquoted_at(text: &str) -> Result<Option<usize>, AddressError> {
    let mut at = None;
    let mut quoted = false;
    let mut octets = text.bytes().enumerate();
    while let Some((position, octet)) = octets.next() {
        match octet {
            // A tab too: no quoted string may contain one (RFC 5321 section 4.1.2), and a command line is written without it,
            // which would change the mailbox.
            0..=31 | 127 => return Err(AddressError::ControlCharacter),
            b'"' => quoted = !quoted,
            b'\\' if quoted => {
                let escaped = octets.next().map(|(_, escaped)| escaped);
                if escaped.is_none_or(|octet| octet.is_ascii_control()) {
                    return Err(AddressError::ControlCharacter);
                }
            }
            b' ' | b'<' | b'>' if !quoted => return Err(AddressError::UnquotedSpecial),
            b'@' if !quoted => at = Some(position),
            _ => {}
        }
    }
    if quoted { Err(AddressError::UnterminatedQuote) } else { Ok(at) }
}

#[cfg(test)]
mod tests;
