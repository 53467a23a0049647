//! Signatures of messages (DKIM, RFC 6376 and RFC 8463): which mail is signed, what of it, and the header field that says so.
//!
//! A mail is signed as it leaves, over the octets that go over the wire: line ends are whole, and dots are not doubled yet. Whoever
//! answers a claim feeds the message to a [`Draft`], which computes the digests. The keys are the executor's: it gets the digests by
//! [`Output::Sign`](crate::io::Output::Sign), and the fields go before the message when the signatures are there.
//!
//! Header and body are canonicalized by `relaxed`, since servers on the way change white space.

mod author;
mod body_hash;
mod draft;
mod field;
mod header;
mod wire_lines;

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;

use thiserror::Error;

pub use self::author::{AUTHORS_LIMIT, author_domain};
pub use self::draft::{Draft, Drafted, HEADER_LIMIT_OCTETS, author};
pub use self::field::{Signature, UnsignedField};
use crate::address::{Domain, MailDomain, Mailbox};
use crate::time::UnixTime;

/// Most names of fields that a signature lists. They wait with it until it is made, each for at most 26 octets; mail that people
/// write has a few dozen.
pub const FIELDS_LIMIT: usize = 200;

/// Identifies a private key of the executor. An id is never given to another key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId(pub u64);

/// A digest by SHA-256.
pub type Digest = [u8; 32];

/// How a key signs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// `rsa-sha256`: RSASSA-PKCS1-v1_5 over the digest (RFC 6376 section 3.3.1).
    RsaSha256,
    /// `ed25519-sha256`: PureEdDSA, whose message is the digest (RFC 8463 section 3).
    Ed25519Sha256,
}

impl Algorithm {
    /// Returns the value of `a=`.
    pub fn name(self) -> &'static str {
        match self {
            Self::RsaSha256 => "rsa-sha256",
            Self::Ed25519Sha256 => "ed25519-sha256",
        }
    }
}

/// A key, as far as a message tells of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SigningKey {
    /// The private key.
    pub id: KeyId,
    /// The domain in whose name it signs.
    pub domain: Domain,
    /// Where its public key is published: this name below `_domainkey` and the domain.
    pub selector: Domain,
    /// How it signs.
    pub algorithm: Algorithm,
}

/// Which mail is signed, if its author is of a domain with a key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SignedMail {
    /// That which is [marked](SignMark).
    #[default]
    Marked,
    /// All of it.
    All,
}

/// What was said of the signature of a mail when it was put into the outbox.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SignMark {
    /// Nothing.
    #[default]
    Unmarked,
    /// It is to be signed.
    Wanted,
    /// It is to be signed, but where that fails it leaves unsigned: mail of our own, which would be lost otherwise.
    IfPossible,
}

/// Which mail is signed, and with which keys. Without keys none is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SigningRules {
    /// The keys. All of one domain sign together.
    pub keys: Vec<SigningKey>,
    /// The mail that they sign.
    pub mail: SignedMail,
}

impl SigningRules {
    /// Returns the keys of a domain.
    pub fn keys_of(&self, domain: &Domain) -> impl Iterator<Item = &SigningKey> {
        self.keys.iter().filter(move |key| key.domain == *domain)
    }

    /// Returns the mark of mail of our own that has this address in From.
    pub fn mark_of_own(&self, from: &str) -> SignMark {
        match Mailbox::parse(from.as_bytes()).ok().and_then(|from| from.domain().ok()) {
            Some(MailDomain::Name(domain)) if self.keys_of(&domain).next().is_some() => SignMark::IfPossible,
            Some(MailDomain::Name(_) | MailDomain::Literal(_)) | None => SignMark::Unmarked,
        }
    }

    /// Returns the mark of a message that a local user submits.
    pub fn mark_of_submitted(&self, message: &[u8]) -> SignMark {
        if self.keys.is_empty() {
            return SignMark::Unmarked;
        }
        match author(message) {
            Some(domain) if self.keys_of(&domain).next().is_some() => SignMark::Wanted,
            Some(_) | None => SignMark::Unmarked,
        }
    }

    /// Returns whether mail with this mark is signed, if its author is of a domain with a key.
    pub fn covers(&self, mark: SignMark) -> bool {
        !self.keys.is_empty() && (mark != SignMark::Unmarked || self.mail == SignedMail::All)
    }
}

/// How the mail of a claim is signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signing {
    /// The rules.
    pub rules: Arc<SigningRules>,
    /// The time that the signatures give.
    pub now: UnixTime,
}

impl Signing {
    /// Returns the draft of the signatures of a mail with this mark, if it may be signed. `body` is the digest of its body, if that is known.
    pub fn draft(&self, mark: SignMark, body: Option<Digest>) -> Option<Draft> {
        self.rules.covers(mark).then(|| Draft::new(self.clone(), body))
    }
}

/// Why a message is not signed that may be. That is no failure: it leaves as it is.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum Unsigned {
    /// Nobody can say what belongs to its header section.
    #[error("its header section has something else than fields")]
    MalformedHeader,
    /// Beyond [`HEADER_LIMIT_OCTETS`].
    #[error("its header section is longer than {HEADER_LIMIT_OCTETS} octets")]
    LongHeader,
    /// Beyond [`FIELDS_LIMIT`].
    #[error("a signature would list more than {FIELDS_LIMIT} of its header fields")]
    ManyFields,
    /// It does not say who has written it.
    #[error("it has no From:")]
    NoAuthor,
    /// It says so more than once.
    #[error("it has several From:")]
    SeveralAuthors,
    /// See [`author_domain`].
    #[error("its From: can be read in several ways, or names authors of several domains")]
    UnclearAuthor,
    /// The keys are of other domains than that of its author.
    #[error("there is no key of the domain {0} of its author")]
    NoKey(Domain),
    /// Somebody has signed it in the name of its author.
    #[error("it has a signature of the domain {0} of its author already")]
    AlreadySigned(Domain),
}

/// Why something could not be signed.
#[derive(Clone, Error, PartialEq, Eq)]
pub enum SignTrouble {
    /// There is no such key any more.
    #[error("the key was replaced meanwhile")]
    NoKey,
    /// The executor has not answered for this key.
    #[error("there is no answer for the key")]
    NoAnswer,
    /// What signs has failed, and says so.
    #[error("{0}")]
    Failed(Box<str>),
}

impl fmt::Debug for SignTrouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SignTrouble({self})")
    }
}

#[cfg(test)]
mod tests;
