use super::*;
use crate::settings::Settings;
use crate::sts::{Finding, KnownPolicy, PolicyId, StsPolicy};
use crate::time::UnixTime;
use crate::tls::{Fallback, TlsPolicy, TlsaRecord};
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::vec;

/// What is done with a candidate.
#[derive(Clone, Copy, PartialEq)]
enum Deed {
    Try,
    Skip,
    PutOff,
}

/// Returns how many candidates a domain of sixty hosts with four addresses each comes to, until it is exhausted.
fn walk(deed: Deed) -> u32 {
    let (settings, hosts) = (Settings::for_tests(), BTreeMap::new());
    let next_hop = NextHop::Domain(Domain::parse("example.org").unwrap());
    let policies = Policies::new(&settings.policy, &settings.destinations);
    let mut search = CandidateSearch::new(&next_hop);
    let records: Vec<(u16, Domain)> =
        (0..60).map(|number| (number, Domain::parse(&format!("mx{number}.example")).unwrap())).collect();
    let mut tried = 0;
    loop {
        match search.next(&next_hop, &policies, &hosts) {
            SearchStep::Lookup(request) => {
                let answer = match request {
                    LookupRequest::Mx(_) => {
                        Answer::Mx(Ok(Resolved::insecure(MxAnswer::Records(records.clone()))))
                    }
                    LookupRequest::Addresses(_) => {
                        let addresses = (1..=4).map(|last| IpAddr::from([192, 0, 2, last])).collect();
                        Answer::Addresses(Ok(Resolved::insecure(addresses)))
                    }
                    LookupRequest::Tlsa(..) | LookupRequest::Alias(_) => {
                        panic!("no policy asks for {request}")
                    }
                };
                let mut rng = Rng::from_seed([1; 32]);
                search.handle_answer(answer, &next_hop, &policies, "me.example", &mut rng).unwrap();
            }
            SearchStep::FindPolicy(domain) => panic!("no line asks for the policy of {domain}"),
            SearchStep::Try(candidate) if deed == Deed::PutOff && !search.is_at_last_resorts() => {
                search.put_off(candidate);
            }
            SearchStep::Try(_) => {
                tried += 1;
                if deed != Deed::Skip {
                    search.count_tried();
                }
            }
            SearchStep::Exhausted => break tried,
        }
    }
}

#[test]
fn a_domain_of_endless_candidates_is_exhausted_at_the_limit() {
    assert_eq!(walk(Deed::Try), CANDIDATE_LIMIT);
    assert_eq!(walk(Deed::PutOff), CANDIDATE_LIMIT);
}

#[test]
fn what_is_not_connected_to_does_not_count() {
    assert_eq!(walk(Deed::Skip), 60 * 4);
}

#[test]
fn nothing_is_left_to_try_where_all_is_abandoned() {
    let (settings, hosts) = (Settings::for_tests(), BTreeMap::new());
    let relay = Relay::parse(b"192.0.2.1").unwrap();
    let (next_hop, policies) =
        (NextHop::Relay(relay), Policies::new(&settings.policy, &settings.destinations));
    let mut search = CandidateSearch::new(&next_hop);
    assert!(matches!(search.next(&next_hop, &policies, &hosts), SearchStep::Try(_)));
    search.abandon();
    assert!(matches!(search.next(&next_hop, &policies, &hosts), SearchStep::Exhausted));
}

/// Settings with this level at all hosts.
fn with_level(level: Level) -> Settings {
    let mut settings = Settings::for_tests();
    settings.policy.tls = Arc::new(TlsPolicy { level, ..TlsPolicy::default() });
    settings.policy.ports = [Port { number: 25, tls: TlsMode::StartTls }].into();
    settings
}

fn secure_from<T>(value: T, canonical: Canonical) -> Resolved<T> {
    Resolved { value, security: Security::Secure, canonical }
}

/// Answers what a search asks for, until it has a candidate. Each host has these addresses, and a record for an authority.
fn first_candidate(
    search: &mut CandidateSearch,
    next_hop: &NextHop,
    policies: &Policies,
    addresses: &Resolved<Vec<IpAddr>>,
) -> Option<Candidate> {
    let record = TlsaRecord { usage: 2, selector: 1, matching: 1, data: vec![7; 32].into() };
    let mut rng = Rng::from_seed([1; 32]);
    loop {
        let answer = match search.next(next_hop, policies, &BTreeMap::new()) {
            SearchStep::FindPolicy(domain) => panic!("no line asks for the policy of {domain}"),
            SearchStep::Try(candidate) => return Some(candidate),
            SearchStep::Exhausted => return None,
            SearchStep::Lookup(LookupRequest::Mx(_)) => {
                Answer::Mx(Ok(secure_from(MxAnswer::NoRecords, Canonical::Itself)))
            }
            SearchStep::Lookup(LookupRequest::Addresses(_)) => Answer::Addresses(Ok(addresses.clone())),
            SearchStep::Lookup(LookupRequest::Tlsa(..)) => {
                Answer::Tlsa(Ok(secure_from(vec![record.clone()], Canonical::Itself)))
            }
            SearchStep::Lookup(request @ LookupRequest::Alias(_)) => panic!("{request}"),
        };
        search.handle_answer(answer, next_hop, policies, "me.example", &mut rng).unwrap();
    }
}

#[test]
fn a_host_that_no_mx_record_names_keeps_its_own_name_beside_that_of_its_records() {
    let domain = |name: &str| Domain::parse(name).unwrap();
    let settings = with_level(Level::DaneOnly);
    let policies = Policies::new(&settings.policy, &[]);
    let relay = Relay { host: Host::Name(domain("smtp.example.org")), port: None, credentials: None };
    let address = vec![IpAddr::from([192, 0, 2, 1])];
    for next_hop in [NextHop::Relay(relay), NextHop::Domain(domain("smtp.example.org"))] {
        for (canonical, expected) in [
            (Canonical::Itself, &["smtp.example.org"][..]),
            (Canonical::Other(domain("out.example.net")), &["out.example.net", "smtp.example.org"]),
        ] {
            let mut search = CandidateSearch::new(&next_hop);
            let addresses = secure_from(address.clone(), canonical);
            let candidate = first_candidate(&mut search, &next_hop, &policies, &addresses).unwrap();
            let names: Vec<&str> = candidate.plan.terms.tlsa_names.iter().map(Domain::as_str).collect();
            assert_eq!(names, expected, "{next_hop:?}");
        }
    }
}

#[test]
fn other_policies_count_for_all_that_is_known_and_looked_for() {
    let next_hop = NextHop::Domain(Domain::parse("example.org").unwrap());
    let dane = Level::Dane { otherwise: Fallback::May, insecure_mx: InsecureMx::Dane };
    let (before, after) = (with_level(dane), with_level(Level::DaneOnly));
    let (before, after) = (Policies::new(&before.policy, &[]), Policies::new(&after.policy, &[]));
    let mut rng = Rng::from_seed([1; 32]);
    let mut answer = |search: &mut CandidateSearch, answer| {
        search.handle_answer(answer, &next_hop, &before, "me.example", &mut rng).unwrap();
        search.next(&next_hop, &before, &BTreeMap::new())
    };
    // While records are looked up.
    let mut search = CandidateSearch::new(&next_hop);
    assert!(matches!(search.next(&next_hop, &before, &BTreeMap::new()), SearchStep::Lookup(_)));
    answer(&mut search, Answer::Mx(Ok(Resolved::insecure(MxAnswer::NoRecords))));
    let addresses = secure_from([1, 2].map(|last| IpAddr::from([192, 0, 2, last])).into(), Canonical::Itself);
    let step = answer(&mut search, Answer::Addresses(Ok(addresses.clone())));
    assert!(matches!(step, SearchStep::Lookup(LookupRequest::Tlsa(..))), "{step:?}");
    assert!(search.reconfigure(&next_hop, &before));
    assert!(!search.reconfigure(&next_hop, &after));
    // While another server is searched for, candidates are passed over.
    let elsewhere = Some(SocketAddr::from(([192, 0, 2, 99], 25)));
    let mut search = CandidateSearch::new(&next_hop).preferring(elsewhere);
    let found = first_candidate(&mut search, &next_hop, &before, &addresses);
    assert!(found.is_some() && !search.passed_over.is_empty());
    assert!(search.reconfigure(&next_hop, &before));
    assert!(!search.reconfigure(&next_hop, &after));
}

#[test]
fn it_is_told_what_leaves_no_port() {
    let next_hop = NextHop::Domain(Domain::parse("example.org").unwrap());
    let text = b"version: STSv1\nmode: enforce\nmx: example.org\nmax_age: 60\n";
    let known = KnownPolicy {
        domain: Domain::parse("example.org").unwrap(),
        id: PolicyId::parse("1").unwrap(),
        policy: StsPolicy::parse(text).unwrap(),
        fetched: UnixTime(0),
        expires: UnixTime(60),
    };
    let finding = Finding { policy: Some(Arc::new(known)), trouble: None };
    for (level, expected) in [(Level::Sts(Fallback::May), Basis::Sts), (Level::Encrypt, Basis::Config)] {
        let mut settings = with_level(level);
        settings.policy.ports = [Port { number: 25, tls: TlsMode::Plain }].into();
        let policies = Policies::new(&settings.policy, &[]);
        let mut search = CandidateSearch::new(&next_hop);
        loop {
            let answer = match search.next(&next_hop, &policies, &BTreeMap::new()) {
                SearchStep::Exhausted => break,
                SearchStep::FindPolicy(_) => {
                    search.handle_policy(Ok(finding.clone())).unwrap();
                    continue;
                }
                SearchStep::Lookup(LookupRequest::Mx(_)) => {
                    Answer::Mx(Ok(Resolved::insecure(MxAnswer::NoRecords)))
                }
                SearchStep::Lookup(_) => {
                    Answer::Addresses(Ok(Resolved::insecure(vec![IpAddr::from([192, 0, 2, 1])])))
                }
                SearchStep::Try(candidate) => panic!("{candidate:?}"),
            };
            let mut rng = Rng::from_seed([1; 32]);
            search.handle_answer(answer, &next_hop, &policies, "me.example", &mut rng).unwrap();
        }
        let Some(HostTrouble::NoUsablePort(_, needed_by)) = search.host_trouble() else { panic!() };
        assert_eq!(*needed_by, expected);
    }
}
