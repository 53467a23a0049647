//! How the hosts of a next hop were found, and which of them its domain vouches for.

use alloc::sync::Arc;
use alloc::vec::Vec;

use crate::address::Domain;
use crate::attempt::HostTrouble;
use crate::next_hop::Host;
use crate::resolver::Security;
use crate::sts::{Finding, Mode};
use crate::tls::{Basis, Level, TlsPlan, TlsPolicy, Tlsa};

/// How the hosts of a next hop were found, and what its domain says of them.
#[derive(Debug)]
pub(super) struct RouteOrigin {
    pub(super) security: Security,
    /// The names, besides that of the host, that a certificate may have because of it (RFC 7672 section 3.2.2).
    pub(super) names: Vec<Domain>,
    /// The MTA-STS policy of the domain, once a host is met for which it counts.
    sts: Option<Finding>,
    /// A host that the policy does not name, if that is not enforced.
    unnamed: Option<Domain>,
}

/// The usable TLSA records of a port of a host.
#[derive(Debug)]
pub(super) struct HostRecords {
    /// The name that they belong to.
    pub(super) base: Domain,
    /// The names of which a certificate must have one that an authority vouches for.
    pub(super) names: Arc<[Domain]>,
    pub(super) tlsa: Arc<[Tlsa]>,
}

impl RouteOrigin {
    pub(super) const fn new(security: Security, names: Vec<Domain>) -> Self {
        Self { security, names, sts: None, unnamed: None }
    }

    /// Returns what is known of the MTA-STS policy of the domain, if it counts.
    pub(super) fn sts(&self) -> Option<&Finding> {
        self.sts.as_ref()
    }

    /// Takes what was found of the MTA-STS policy of the domain.
    pub(super) fn take_policy(&mut self, found: Finding) {
        self.sts = Some(found);
    }

    /// Takes the last host that the policy of the domain does not name, if that is not enforced.
    pub(super) fn take_unnamed(&mut self) -> Option<Domain> {
        self.unnamed.take()
    }

    /// Returns the plan for a host with what the MTA-STS policy of the domain adds to it.
    pub(super) fn plan_by_sts(
        &mut self,
        plan: TlsPlan,
        policy: &TlsPolicy,
        host: &Host,
    ) -> Result<TlsPlan, HostTrouble> {
        Ok(match self.named(&policy.level, host)? {
            Some((name, mode)) => plan.by_sts(policy.least, name, mode == Mode::Enforce),
            None => plan,
        })
    }

    /// Returns the plan for a port of a host that has TLSA records. An MTA-STS policy does not override them (RFC 8461 section 2); it still
    /// says which hosts are those of the domain where the MX records may be forged, and what counts where the records prove nothing.
    pub(super) fn plan_by_dane(
        &mut self,
        plan: &TlsPlan,
        policy: &TlsPolicy,
        records: HostRecords,
        host: &Host,
    ) -> Result<TlsPlan, HostTrouble> {
        let HostRecords { base, names, tlsa } = records;
        let (is_secure, has_proof) = (self.security == Security::Secure, !tlsa.is_empty());
        let named = if is_secure && has_proof { None } else { self.named(&policy.level, host)? };
        let is_vouched_for = is_secure || (has_proof && matches!(named, Some((_, Mode::Enforce))));
        let basis = if is_vouched_for { Basis::Dane } else { Basis::DaneInsecureMx };
        let plan = plan.by_dane(policy.least, base, names, tlsa, basis);
        Ok(match named {
            Some((name, mode)) if !has_proof => plan.by_sts(policy.least, name, mode == Mode::Enforce),
            Some(_) | None => plan,
        })
    }

    /// Returns the name of a host and the mode of the policy that names it; nothing if no policy is in force, or if one does not name it,
    /// which is not enforced. Fails if it is.
    fn named(&mut self, level: &Level, host: &Host) -> Result<Option<(Domain, Mode)>, HostTrouble> {
        let (Some(known), Host::Name(name), true) =
            (self.sts.as_ref().and_then(Finding::in_force), host, level.wants_sts())
        else {
            return Ok(None);
        };
        let mode = known.policy.mode;
        if known.policy.permits(name) {
            return Ok(Some((name.clone(), mode)));
        }
        if mode == Mode::Enforce {
            return Err(HostTrouble::NotInPolicy(name.clone(), known.domain.clone()));
        }
        self.unnamed = Some(name.clone());
        Ok(None)
    }
}
