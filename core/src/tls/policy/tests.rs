use super::*;
use crate::tls::tlsa::TlsaRecord;
use crate::tls::{Lack, Shortfall, Tls, Verification, tlsa};

fn host() -> Host {
    Host::Name(name("mx.example.org"))
}

fn name(name: &str) -> Domain {
    Domain::parse(name).unwrap()
}

fn domain() -> NextHop {
    NextHop::Domain(name("example.org"))
}

fn policy(level: Level) -> TlsPolicy {
    TlsPolicy { level, ..TlsPolicy::default() }
}

#[test]
fn each_level_needs_what_its_name_says() {
    let required = |proof| {
        let least = TlsVersion::V1_2;
        Need::Required(Requirement { least, proof, enforced: Enforced::Whole, basis: Basis::Config })
    };
    let dane = |otherwise| Level::Dane { otherwise, insecure_mx: InsecureMx::Dane };
    for (level, need) in [
        (Level::None, Need::Never),
        (Level::May, Need::Optional),
        (Level::Encrypt, required(None)),
        (Level::Verify([].into()), required(Some(Proof::WebPki))),
        (Level::Pin([Pin([0; 32])].into()), required(Some(Proof::Pin))),
        (dane(Fallback::May), Need::Optional),
        (dane(Fallback::Encrypt), required(None)),
        (Level::DaneOnly, required(Some(Proof::Dane))),
    ] {
        let plan = policy(level.clone()).plan(&domain(), &host());
        assert_eq!(plan.need, need, "{level:?}");
        assert_eq!(plan.terms.needs_proof, need.proof().is_some(), "{level:?}");
        assert_eq!(plan.terms.server, host());
    }
}

#[test]
fn without_a_line_the_terms_are_as_ever() {
    let plan = TlsPolicy::default().plan(&domain(), &host());
    assert_eq!(plan, TlsPlan { need: Need::Optional, terms: Arc::new(TlsTerms::opportunistic(host())) });
}

#[test]
fn a_certificate_is_still_that_of_the_host_where_another_name_is_sent() {
    let sni = Some(name("sni.example.net"));
    let plan = TlsPolicy { sni: sni.clone(), ..policy(Level::Verify([].into())) }.plan(&domain(), &host());
    assert_eq!(plan.terms.server, Host::Name(name("sni.example.net")));
    assert_eq!(*plan.terms.names, [NamePattern::Exactly(name("mx.example.org"))]);
    let names = [NamePattern::Below(name("example.com"))];
    let plan = TlsPolicy { sni, ..policy(Level::Verify(names.clone().into())) }.plan(&domain(), &host());
    assert_eq!(*plan.terms.names, names);
}

#[test]
fn records_of_which_none_is_usable_need_encryption_alone() {
    let least = TlsVersion::V1_3;
    let policy = TlsPolicy { least, ..policy(Level::DaneOnly) };
    let records = [TlsaRecord { usage: 3, selector: 1, matching: 1, data: [0; 32][..].into() }];
    let usable: Arc<[_]> = tlsa::usable(&records).into();
    let names: Arc<[_]> = [name("mx.example.org")].into();
    let plan = policy.plan(&domain(), &host());
    let plan =
        plan.by_dane(least, name("base.example.org"), Arc::clone(&names), Arc::clone(&usable), Basis::Dane);
    assert_eq!(plan.need.proof(), Some(Proof::Dane));
    assert_eq!((&plan.terms.tlsa, &plan.terms.tlsa_names), (&usable, &names));
    assert_eq!((&plan.terms.server, plan.terms.least), (&Host::Name(name("base.example.org")), least));

    let plan = plan.by_dane(TlsVersion::V1_2, name("base.example.org"), names, Arc::default(), Basis::Dane);
    assert_eq!((plan.need.proof(), plan.terms.needs_proof), (None, false));
    let short = Shortfall { lack: Lack::Tls, basis: Basis::Dane };
    assert_eq!(plan.need.judge_plain_text(), Err(short));
    let trouble = crate::tls::CertificateTrouble::UnknownIssuer;
    assert!(plan.need.judge(&Tls::new(TlsVersion::V1_3, Verification::Unverified(trouble))).is_ok());
}

#[test]
fn only_relays_see_a_client_that_is_for_relays() {
    let identity = Arc::new(Identity { certificate: "c".into(), key: "k".into() });
    let relay = NextHop::Relay(crate::next_hop::Relay { host: host(), port: None, credentials: None });
    for (client, by_domain, by_relay) in [
        (Client::Nobody, false, false),
        (Client::ToRelays(Arc::clone(&identity)), false, true),
        (Client::ToAll(identity), true, true),
    ] {
        let policy = TlsPolicy { client, ..TlsPolicy::default() };
        let shows = |next_hop| policy.plan(next_hop, &host()).terms.identity.is_some();
        assert_eq!((shows(&domain()), shows(&relay)), (by_domain, by_relay), "{policy:?}");
    }
}
