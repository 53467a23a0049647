//! The answers to lookups, and why there is none.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::net::IpAddr;

use thiserror::Error;

#[cfg(doc)]
use super::Resolver;
use super::failure::{DnsFailure, LocalLookupError};
use crate::address::Domain;
use crate::tls::TlsaRecord;

/// The answer to a lookup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// To [`Resolver::lookup_mx`].
    Mx(Result<Resolved<MxAnswer>, LookupError>),
    /// To [`Resolver::lookup_addresses`]: at least one address that mail can be sent to, IPv6 before IPv4, else in the order of
    /// the server.
    Addresses(Result<Resolved<Vec<IpAddr>>, LookupError>),
    /// To [`Resolver::lookup_tlsa`]: the records, as they are. None if the name has none, or does not exist.
    Tlsa(Result<Resolved<Vec<TlsaRecord>>, LookupError>),
    /// To [`Resolver::lookup_texts`]: the TXT records, the strings of each joined. None if the name has none, or does not exist.
    Texts(Result<Resolved<Vec<Box<[u8]>>>, LookupError>),
    /// To [`Resolver::lookup_alias`]: whether the name is an alias.
    Alias(Result<Resolved<bool>, LookupError>),
}

/// What name servers say, and how it was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved<T> {
    /// What they say.
    pub value: T,
    /// Whether DNSSEC vouches for all of it, aliases too.
    pub security: Security,
    /// The name at the end of the aliases.
    pub canonical: Canonical,
}

impl<T> Resolved<T> {
    /// Returns what DNSSEC does not vouch for, found without aliases.
    pub const fn insecure(value: T) -> Self {
        Self { value, security: Security::Insecure, canonical: Canonical::Itself }
    }
}

/// The name at the end of the aliases of a name: its canonical name (RFC 1034 section 3.6.2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Canonical {
    /// The name itself: it is no alias.
    Itself,
    /// This one.
    Other(Domain),
    /// One that can be no domain. The name is an alias all the same.
    Unusable,
}

impl Canonical {
    /// Returns the other name, if it is one that can be used.
    pub const fn other(&self) -> Option<&Domain> {
        match self {
            Self::Other(domain) => Some(domain),
            Self::Itself | Self::Unusable => None,
        }
    }
}

/// Whether DNSSEC vouches for an answer, as a server says that is [believed](crate::settings::NameServer::is_believed).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Security {
    /// It does.
    Secure,
    /// It does not: the zone is not signed, or no server is believed. A denial may be insecure although its zone is signed (RFC 5155
    /// section 6).
    Insecure,
    /// A server has answered that is not believed, because those that are did not answer.
    Unknown,
}

/// The MX records of a domain that exists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MxAnswer {
    /// Preference and host, sorted by preference, equal ones in the order of the server. Empty if there are MX records, but none
    /// that names a usable host. That is an error of the domain, and its address records must not be used instead (RFC 5321
    /// section 5.1).
    Records(Vec<(u16, Domain)>),
    /// The domain takes no mail (RFC 7505).
    NullMx,
    /// The domain is its own mail host: the implicit MX of RFC 5321 section 5.1.
    NoRecords,
}

/// The reason why a lookup has no result.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum LookupError {
    /// NXDOMAIN.
    #[error("the domain does not exist")]
    NameDoesNotExist,
    /// All requested families were answered, and there is no address that mail can be sent to.
    #[error("the host has no address")]
    NoAddress,
    /// The name servers failed, in this way.
    #[error(transparent)]
    Temporary(DnsFailure),
    /// This machine failed: no descriptors, no memory. The mail has not failed.
    #[error(transparent)]
    Local(LocalLookupError),
}
