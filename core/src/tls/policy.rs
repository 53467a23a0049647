//! What a line of the administrator says of TLS, and what it comes to at a server.

use alloc::sync::Arc;

use super::need::{Basis, Enforced, Need, Proof, Requirement};
use super::terms::{Identity, NamePattern, Pin, Roots, TlsTerms};
use super::tlsa::Tlsa;
use super::{Groups, TlsVersion};
use crate::address::Domain;
use crate::next_hop::{Host, NextHop};

/// What a line says of TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsPolicy {
    /// What is needed.
    pub level: Level,
    /// The earliest version that is enough where TLS is needed.
    pub least: TlsVersion,
    /// The name to send as SNI; `None` for that of the server.
    pub sni: Option<Domain>,
    /// The groups of key exchange to offer.
    pub groups: Groups,
    /// Who this client says that it is, if the server asks.
    pub client: Client,
}

/// Who a client says that it is, and to whom.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Client {
    /// Nobody.
    #[default]
    Nobody,
    /// This, to relays.
    ToRelays(Arc<Identity>),
    /// This, to all servers.
    ToAll(Arc<Identity>),
}

/// What is needed of TLS, with what only this level uses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Level {
    /// Nothing, and TLS is never tried.
    None,
    /// Nothing: TLS is used as the port says.
    #[default]
    May,
    /// TLS.
    Encrypt,
    /// TLS, and a certificate of a trusted authority for one of these names; without any, for the name of the server.
    Verify(Arc<[NamePattern]>),
    /// TLS, and one of these keys.
    Pin(Arc<[Pin]>),
    /// What TLSA records say where there are some.
    Dane {
        /// What is needed where there are none.
        otherwise: Fallback,
        /// What TLSA records are worth where the MX records of the domain are not secure.
        insecure_mx: InsecureMx,
    },
    /// TLSA records that vouch for the server. Without them no mail goes.
    DaneOnly,
    /// What the MTA-STS policy of the domain says, where one is in force; where none is, this.
    Sts(Fallback),
    /// What TLSA records say where there are some; else what the MTA-STS policy of the domain says, where one is in force.
    Auto {
        /// What is needed where neither says anything.
        otherwise: Fallback,
        /// What TLSA records are worth where the MX records of the domain are not secure.
        insecure_mx: InsecureMx,
    },
}

/// What is needed where nothing says more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fallback {
    /// Nothing: TLS is used as the port says.
    #[default]
    May,
    /// TLS.
    Encrypt,
}

/// What TLSA records are worth where the MX records of the domain are not secure.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum InsecureMx {
    /// They bind all the same.
    #[default]
    Dane,
    /// TLS is needed, and proves nothing.
    Encrypt,
    /// Nothing.
    May,
}

/// What a policy comes to at one server: what must hold there, and the terms on which TLS begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsPlan {
    /// What must hold.
    pub need: Need,
    /// The terms.
    pub terms: Arc<TlsTerms>,
}

impl Default for TlsPolicy {
    fn default() -> Self {
        Self {
            level: Level::default(),
            least: TlsVersion::V1_2,
            sni: None,
            groups: Groups::default(),
            client: Client::default(),
        }
    }
}

impl TlsPolicy {
    /// Returns what the policy comes to at a host of a next hop of which neither TLSA records nor an MTA-STS policy are known.
    pub fn plan(&self, next_hop: &NextHop, host: &Host) -> TlsPlan {
        let required = |proof| {
            let (least, basis) = (self.least, Basis::Config);
            Need::Required(Requirement { least, proof, enforced: Enforced::Whole, basis })
        };
        let need = match &self.level {
            Level::None => Need::Never,
            Level::May => Need::Optional,
            Level::Encrypt => required(None),
            Level::Dane { otherwise, .. } | Level::Sts(otherwise) | Level::Auto { otherwise, .. } => {
                match otherwise {
                    Fallback::May => Need::Optional,
                    Fallback::Encrypt => required(None),
                }
            }
            Level::Verify(_) => required(Some(Proof::WebPki)),
            Level::Pin(_) => required(Some(Proof::Pin)),
            Level::DaneOnly => required(Some(Proof::Dane)),
        };
        let mut terms = TlsTerms::opportunistic(host.clone());
        if let Some(sni) = &self.sni {
            // Unless names are given, the certificate is that of the host all the same.
            terms.server = Host::Name(sni.clone());
            if let Host::Name(name) = host {
                terms.names = [NamePattern::Exactly(name.clone())].into();
            }
        }
        match &self.level {
            Level::Verify(names) => {
                if !names.is_empty() {
                    terms.names = Arc::clone(names);
                }
                let is_relay = matches!(next_hop, NextHop::Relay(_));
                terms.roots = if is_relay { Roots::Relay } else { Roots::Public };
            }
            Level::Pin(pins) => terms.pins = Arc::clone(pins),
            Level::None
            | Level::May
            | Level::Encrypt
            | Level::Dane { .. }
            | Level::DaneOnly
            | Level::Sts(_)
            | Level::Auto { .. } => {}
        }
        if need != Need::Optional {
            terms.least = self.least;
        }
        terms.identity = match (&self.client, next_hop) {
            (Client::ToAll(identity), _) | (Client::ToRelays(identity), NextHop::Relay(_)) => {
                Some(Arc::clone(identity))
            }
            (Client::ToRelays(_), NextHop::Domain(_) | NextHop::Literal(_)) | (Client::Nobody, _) => None,
        };
        terms.needs_proof = need.proof().is_some();
        TlsPlan { need, terms: Arc::new(terms) }
    }
}

impl TlsPlan {
    /// Returns the plan for a host that has TLSA records, at which this version is the earliest that is enough, and of which these are
    /// [usable](super::tlsa::usable). They are those of `base`, which is sent as SNI, and a certificate that an authority vouches for
    /// must have one of the names. The basis is [`Basis::Dane`] or [`Basis::DaneInsecureMx`].
    pub fn by_dane(
        &self,
        least: TlsVersion,
        base: Domain,
        names: Arc<[Domain]>,
        tlsa: Arc<[Tlsa]>,
        basis: Basis,
    ) -> Self {
        let proof = (!tlsa.is_empty()).then_some(Proof::Dane);
        let need = Need::Required(Requirement { least, proof, enforced: Enforced::Whole, basis });
        let terms = TlsTerms {
            server: Host::Name(base),
            least,
            tlsa,
            tlsa_names: names,
            needs_proof: proof.is_some(),
            ..TlsTerms::clone(&self.terms)
        };
        Self { need, terms: Arc::new(terms) }
    }

    /// Returns the plan for a host that the MTA-STS policy of the domain names, where this version is the earliest that is enough. A policy
    /// that is not enforced is only judged, and what is needed in any case stays so.
    pub fn by_sts(&self, least: TlsVersion, host: Domain, is_enforced: bool) -> Self {
        let enforced = match self.need {
            _ if is_enforced => Enforced::Whole,
            Need::Required(Requirement { basis, .. }) => Enforced::Encryption(basis),
            Need::Never | Need::Optional => Enforced::Nothing,
        };
        let proof = Some(Proof::WebPki);
        let need = Need::Required(Requirement { least, proof, enforced, basis: Basis::Sts });
        let terms = TlsTerms {
            // RFC 8461 section 7.1.
            server: Host::Name(host.clone()),
            names: [NamePattern::Exactly(host)].into(),
            least: if enforced == Enforced::Nothing { self.terms.least } else { least },
            roots: Roots::Public,
            needs_proof: is_enforced,
            ..TlsTerms::clone(&self.terms)
        };
        Self { need, terms: Arc::new(terms) }
    }

    /// Returns whether an MTA-STS policy that is enforced is the reason for what is needed.
    pub fn is_by_sts(&self) -> bool {
        let of_policy = |requirement: Requirement| {
            requirement.basis == Basis::Sts && requirement.enforced == Enforced::Whole
        };
        matches!(self.need, Need::Required(requirement) if of_policy(requirement))
    }
}

impl Level {
    /// Returns what TLSA records are worth where the MX records of a domain are not secure; `None` if they are not asked for, and
    /// `Some(None)` if no mail goes there.
    pub fn dane(&self) -> Option<Option<InsecureMx>> {
        match self {
            Self::Dane { insecure_mx, .. } | Self::Auto { insecure_mx, .. } => Some(Some(*insecure_mx)),
            Self::DaneOnly => Some(None),
            Self::None | Self::May | Self::Encrypt | Self::Verify(_) | Self::Pin(_) | Self::Sts(_) => None,
        }
    }

    /// Returns whether the MTA-STS policy of a domain counts.
    pub fn wants_sts(&self) -> bool {
        match self {
            Self::Sts(_) | Self::Auto { .. } => true,
            Self::None
            | Self::May
            | Self::Encrypt
            | Self::Verify(_)
            | Self::Pin(_)
            | Self::Dane { .. }
            | Self::DaneOnly => false,
        }
    }
}

impl Client {
    /// Returns who it says that it is.
    pub fn identity(&self) -> Option<&Arc<Identity>> {
        match self {
            Self::Nobody => None,
            Self::ToRelays(identity) | Self::ToAll(identity) => Some(identity),
        }
    }
}

#[cfg(test)]
impl TlsPlan {
    /// Returns one that needs nothing of any host.
    pub(crate) fn for_tests() -> Arc<Self> {
        let host = Host::Address(core::net::Ipv4Addr::LOCALHOST.into());
        Arc::new(TlsPolicy::default().plan(&NextHop::Literal(core::net::Ipv4Addr::LOCALHOST.into()), &host))
    }
}

#[cfg(test)]
mod tests;
