use alloc::vec::Vec;

use super::*;
use CertificateTrouble::{Expired, NameMismatch, NoPinMatch, NoTlsaMatch};

/// All facts of which a decision can depend.
fn sessions() -> Vec<Tls> {
    let mut sessions = Vec::new();
    for version in [TlsVersion::V1_2, TlsVersion::V1_3] {
        for verification in [Verification::Verified, Verification::Unverified(Expired)] {
            for dane in [
                None,
                Some(Ok(DaneMatch::EndEntity)),
                Some(Ok(DaneMatch::TrustAnchor)),
                Some(Err(NameMismatch)),
            ] {
                for pin in [None, Some(true), Some(false)] {
                    sessions.push(Tls { dane, pin, ..Tls::new(version, verification) });
                }
            }
        }
    }
    sessions
}

fn lacks() -> [Lack; 3] {
    [Lack::Tls, Lack::Version(TlsVersion::V1_2), Lack::Proof(Proof::WebPki, Expired)]
}

fn requirements() -> Vec<Requirement> {
    let mut requirements = Vec::new();
    for least in [TlsVersion::V1_2, TlsVersion::V1_3] {
        for proof in [None, Some(Proof::Dane), Some(Proof::WebPki), Some(Proof::Pin)] {
            for enforced in [Enforced::Whole, Enforced::Encryption(Basis::RequireTls), Enforced::Nothing] {
                for basis in
                    [Basis::Config, Basis::Dane, Basis::DaneInsecureMx, Basis::Sts, Basis::RequireTls]
                {
                    requirements.push(Requirement { least, proof, enforced, basis });
                }
            }
        }
    }
    requirements
}

#[test]
fn what_a_session_proves_is_the_best_of_its_facts() {
    // DANE, pin, authorities, and what that is.
    for (dane, pin, verification, expected) in [
        (Some(Ok(DaneMatch::EndEntity)), Some(true), Verification::Verified, Proved::DaneEe),
        (Some(Ok(DaneMatch::TrustAnchor)), Some(true), Verification::Verified, Proved::DaneTa),
        (Some(Err(Expired)), Some(true), Verification::Verified, Proved::Pinned),
        (None, Some(true), Verification::Unverified(Expired), Proved::Pinned),
        (None, Some(false), Verification::Verified, Proved::Verified),
        (None, None, Verification::Verified, Proved::Verified),
        (Some(Err(Expired)), Some(false), Verification::Unverified(Expired), Proved::Unverified),
        (None, None, Verification::Unverified(Expired), Proved::Unverified),
    ] {
        assert_eq!(Tls { dane, pin, ..Tls::new(TlsVersion::V1_3, verification) }.proves(), expected);
    }
}

#[test]
fn without_a_requirement_everything_goes() {
    for need in [Need::Never, Need::Optional] {
        assert_eq!(need.judge_plain_text(), Ok(()));
        assert!(lacks().into_iter().all(|lack| !need.enforces(lack)));
        for tls in sessions() {
            assert_eq!(need.judge(&tls), Ok(tls.proves()));
        }
    }
}

#[test]
fn a_requirement_is_judged_by_what_it_names_and_nothing_else() {
    for requirement in requirements() {
        let Requirement { least, proof, enforced, basis } = requirement;
        let need = Need::Required(requirement);
        let short = |lack| {
            let of_tls = matches!(lack, Lack::Tls | Lack::Version(_));
            let of_another = of_tls && matches!(enforced, Enforced::Encryption(_));
            let basis = if of_another { Basis::RequireTls } else { basis };
            Err::<Proved, _>(Shortfall { lack, basis })
        };
        assert_eq!(need.judge_plain_text(), short(Lack::Tls).map(drop), "{requirement:?}");
        for tls in sessions() {
            let expected = match (tls.version, least) {
                (TlsVersion::V1_2, TlsVersion::V1_3) => short(Lack::Version(TlsVersion::V1_2)),
                _ => match (proof, tls.dane, tls.verification, tls.pin, basis) {
                    (None, ..) => Ok(tls.proves()),
                    (Some(Proof::Dane), Some(Ok(_)), _, _, Basis::DaneInsecureMx) => {
                        Ok(Proved::DaneInsecureMx)
                    }
                    (Some(Proof::Dane), Some(Ok(DaneMatch::EndEntity)), ..) => Ok(Proved::DaneEe),
                    (Some(Proof::Dane), Some(Ok(DaneMatch::TrustAnchor)), ..) => Ok(Proved::DaneTa),
                    (Some(Proof::Dane), Some(Err(_)), ..) => short(Lack::Proof(Proof::Dane, NameMismatch)),
                    (Some(Proof::Dane), None, ..) => short(Lack::Proof(Proof::Dane, NoTlsaMatch)),
                    (Some(Proof::WebPki), _, Verification::Verified, _, Basis::Sts)
                        if enforced == Enforced::Whole =>
                    {
                        Ok(Proved::MtaSts)
                    }
                    (Some(Proof::WebPki), _, Verification::Verified, ..) => Ok(Proved::Verified),
                    (Some(Proof::WebPki), ..) => short(Lack::Proof(Proof::WebPki, Expired)),
                    (Some(Proof::Pin), _, _, Some(true), _) => Ok(Proved::Pinned),
                    (Some(Proof::Pin), ..) => short(Lack::Proof(Proof::Pin, NoPinMatch)),
                },
            };
            assert_eq!(need.judge(&tls), expected, "{requirement:?} {tls:?}");
        }
    }
}

#[test]
fn what_is_enforced_is_all_or_tls_or_nothing() {
    for requirement in requirements() {
        let expected = match requirement.enforced {
            Enforced::Whole => [true, true, true],
            Enforced::Encryption(_) => [true, true, false],
            Enforced::Nothing => [false, false, false],
        };
        assert_eq!(
            lacks().map(|lack| Need::Required(requirement).enforces(lack)),
            expected,
            "{requirement:?}"
        );
    }
}

#[test]
fn no_result_is_weaker_than_the_requirement() {
    for requirement in requirements() {
        let need = Need::Required(requirement);
        assert!(need.judge_plain_text().is_err());
        for tls in sessions() {
            let Ok(proved) = need.judge(&tls) else { continue };
            assert!(tls.version >= requirement.least);
            let is_enough = match requirement.proof {
                None => true,
                Some(Proof::Dane) => proved >= Proved::DaneInsecureMx && matches!(tls.dane, Some(Ok(_))),
                Some(Proof::WebPki) => proved >= Proved::Verified && tls.verification.is_verified(),
                Some(Proof::Pin) => proved.is_authentic() && tls.pin == Some(true),
            };
            assert!(is_enough, "{requirement:?} {tls:?} {proved:?}");
        }
    }
}
