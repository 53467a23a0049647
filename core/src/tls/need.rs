//! What must hold of a connection before mail goes over it, and the decision whether it does.

use super::{CertificateTrouble, DaneMatch, Tls, TlsVersion, Verification};

/// What must hold of a connection before mail goes over it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Need {
    /// Nothing, and TLS is not even begun.
    Never,
    /// Nothing. TLS is used as the port says, whatever it proves.
    #[default]
    Optional,
    /// TLS, perhaps with a proof of who the server is.
    Required(Requirement),
}

/// A need of TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Requirement {
    /// The earliest version that is enough.
    pub least: TlsVersion,
    /// What must prove who the server is; `None` if anybody may be.
    pub proof: Option<Proof>,
    /// What of it is enforced.
    pub enforced: Enforced,
    /// Where it comes from.
    pub basis: Basis,
}

/// What of a requirement is enforced. The rest is only judged, and mail goes in any case: the testing mode of MTA-STS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Enforced {
    /// All of it.
    Whole,
    /// That there is TLS of the version, which something else needs as well. The proof is not.
    Encryption(Basis),
    /// Nothing.
    Nothing,
}

/// What can prove who a server is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Proof {
    /// A TLSA record (RFC 7672).
    Dane,
    /// A trusted authority, for one of the names that are expected.
    WebPki,
    /// The key is one that the administrator has named.
    Pin,
}

/// Where a requirement comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Basis {
    /// A line of the administrator.
    Config,
    /// TLSA records of the host (RFC 7672).
    Dane,
    /// TLSA records of a host that MX records have named for which DNSSEC does not vouch.
    DaneInsecureMx,
    /// An MTA-STS policy of the domain (RFC 8461).
    Sts,
    /// The sender has asked for it (RFC 8689).
    RequireTls,
}

/// What a TLS session has proved of the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Proved {
    /// Nothing: it is encrypted, and anybody may be the server.
    Unverified,
    /// Its key is one that the administrator has named.
    Pinned,
    /// A trusted authority vouches for it.
    Verified,
    /// A TLSA record vouches for it, but anybody may have named it: DNSSEC does not vouch for the MX records. RFC 7672 section 2.2.1
    /// forbids that logs take that for mail that has reached the domain safely.
    DaneInsecureMx,
    /// A trusted authority vouches for it, as the MTA-STS policy of the domain wants.
    MtaSts,
    /// A TLSA record vouches for an authority that vouches for it.
    DaneTa,
    /// A TLSA record vouches for it.
    DaneEe,
}

/// The way in which a connection falls short of a requirement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shortfall {
    /// What it lacks.
    pub lack: Lack,
    /// Where the requirement comes from.
    pub basis: Basis,
}

/// What a connection lacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lack {
    /// It is in plain text.
    Tls,
    /// Its version, which is this one, is too early.
    Version(TlsVersion),
    /// This proof, for this reason.
    Proof(Proof, CertificateTrouble),
}

impl Need {
    /// Returns whether mail may go over a TLS session, and what that proves of the server. This decides it alone.
    pub fn judge(&self, tls: &Tls) -> Result<Proved, Shortfall> {
        let Self::Required(requirement) = *self else { return Ok(tls.proves()) };
        let Requirement { least, proof, enforced, basis } = requirement;
        let short = |lack| Err(requirement.shortfall(lack));
        if tls.version < least {
            return short(Lack::Version(tls.version));
        }
        let Some(proof) = proof else { return Ok(tls.proves()) };
        match tls.prove(proof) {
            Err(trouble) => short(Lack::Proof(proof, trouble)),
            Ok(Proved::Verified) if basis == Basis::Sts && enforced == Enforced::Whole => Ok(Proved::MtaSts),
            Ok(Proved::DaneTa | Proved::DaneEe) if basis == Basis::DaneInsecureMx => {
                Ok(Proved::DaneInsecureMx)
            }
            Ok(proved) => Ok(proved),
        }
    }

    /// Returns whether mail may go in plain text.
    pub fn judge_plain_text(&self) -> Result<(), Shortfall> {
        match *self {
            Self::Never | Self::Optional => Ok(()),
            Self::Required(requirement) => Err(requirement.shortfall(Lack::Tls)),
        }
    }

    /// Returns whether this lack means that no mail goes.
    pub const fn enforces(&self, lack: Lack) -> bool {
        match (self, lack) {
            (Self::Required(Requirement { enforced: Enforced::Whole, .. }), _) => true,
            (Self::Required(Requirement { enforced: Enforced::Encryption(_), .. }), lack) => {
                !matches!(lack, Lack::Proof(..))
            }
            (
                Self::Required(Requirement { enforced: Enforced::Nothing, .. })
                | Self::Never
                | Self::Optional,
                _,
            ) => false,
        }
    }

    /// Returns the proof that a session is judged by.
    pub const fn proof(&self) -> Option<Proof> {
        match self {
            Self::Required(requirement) => requirement.proof,
            Self::Never | Self::Optional => None,
        }
    }
}

impl Requirement {
    /// Returns that a connection lacks this, and where the need of it comes from.
    const fn shortfall(&self, lack: Lack) -> Shortfall {
        let basis = match (self.enforced, lack) {
            (Enforced::Encryption(basis), Lack::Tls | Lack::Version(_)) => basis,
            (Enforced::Encryption(_) | Enforced::Whole | Enforced::Nothing, _) => self.basis,
        };
        Shortfall { lack, basis }
    }
}

impl Tls {
    /// Returns the best that the session proves of the server.
    pub fn proves(&self) -> Proved {
        let mut proofs = [Proof::Dane, Proof::Pin, Proof::WebPki].into_iter();
        proofs.find_map(|proof| self.prove(proof).ok()).unwrap_or(Proved::Unverified)
    }

    /// Returns what a proof comes to.
    fn prove(&self, proof: Proof) -> Result<Proved, CertificateTrouble> {
        match proof {
            Proof::Dane => match self.dane {
                Some(Ok(DaneMatch::EndEntity)) => Ok(Proved::DaneEe),
                Some(Ok(DaneMatch::TrustAnchor)) => Ok(Proved::DaneTa),
                Some(Err(trouble)) => Err(trouble),
                None => Err(CertificateTrouble::NoTlsaMatch),
            },
            Proof::Pin if self.pin == Some(true) => Ok(Proved::Pinned),
            Proof::Pin => Err(CertificateTrouble::NoPinMatch),
            Proof::WebPki => match self.verification {
                Verification::Verified => Ok(Proved::Verified),
                Verification::Unverified(trouble) => Err(trouble),
            },
        }
    }
}

impl Proved {
    /// All of them, from the least to the most.
    pub const ALL: [Self; 7] = [
        Self::Unverified,
        Self::Pinned,
        Self::Verified,
        Self::DaneInsecureMx,
        Self::MtaSts,
        Self::DaneTa,
        Self::DaneEe,
    ];

    /// Returns whether the server is known to be the right one. Credentials may be sent to it then.
    pub const fn is_authentic(self) -> bool {
        !matches!(self, Self::Unverified | Self::DaneInsecureMx)
    }

    /// Returns the word by which the log, the ledger and the metrics call it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Unverified => "unverified",
            Self::Pinned => "pinned",
            Self::Verified => "verified",
            Self::DaneInsecureMx => "DANE-insecure-MX",
            Self::MtaSts => "MTA-STS",
            Self::DaneTa => "DANE-TA",
            Self::DaneEe => "DANE-EE",
        }
    }
}

#[cfg(test)]
mod tests;
