use super::*;
use crate::settings::Settings;
use alloc::collections::BTreeMap;
use alloc::format;

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
