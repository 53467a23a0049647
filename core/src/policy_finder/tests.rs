use core::time::Duration as Span;

use super::*;
use crate::resolver::{DnsFailure, DnsQuestion, QuestionType};

fn domain() -> Domain {
    named("example.org")
}

fn named(text: &str) -> Domain {
    Domain::parse(text).unwrap()
}

fn at(seconds: u64) -> Now {
    let wall = UnixTime(1_000_000 + i64::try_from(seconds).unwrap());
    Now::new(Instant::from_micros(seconds * 1_000_000), wall)
}

fn texts(id: &str) -> Result<Vec<Box<[u8]>>, LookupError> {
    Ok([format!("v=STSv1; id={id};").into_bytes().into()].into())
}

fn response(max_age: u64) -> Result<HttpsResponse, HttpsError> {
    let body = format!("version: STSv1\nmode: enforce\nmx: mx.example.org\nmax_age: {max_age}\n").into();
    Ok(HttpsResponse { status: 200, content_type: Some("text/plain".into()), body })
}

fn addresses() -> Result<Vec<IpAddr>, LookupError> {
    Ok(["192.0.2.1".parse().unwrap()].into())
}

impl PolicyFinder {
    fn outputs(&mut self) -> Vec<FinderOutput> {
        core::iter::from_fn(|| self.poll_output()).collect()
    }

    /// Brings a search as far as the fetch, and returns its id.
    fn lead_to_fetch(&mut self, now: Now, domain: &Domain) -> HttpsId {
        self.find(now, domain);
        self.handle_stored(now, domain, Ok(None));
        self.handle_record(now, domain, texts("1"));
        self.handle_addresses(now, domain, addresses());
        let fetch =
            |output: FinderOutput| if let FinderOutput::Fetch(id, _) = output { Some(id) } else { None };
        self.outputs().into_iter().find_map(fetch).unwrap()
    }
}

#[test]
fn a_search_goes_from_the_database_to_the_record_to_the_host() {
    let (mut finder, domain, now) = (PolicyFinder::default(), domain(), at(1));
    finder.find(now, &domain);
    assert_eq!(finder.outputs(), [FinderOutput::Read(domain.clone())]);
    finder.handle_stored(now, &domain, Ok(None));
    assert_eq!(finder.outputs(), [FinderOutput::LookupRecord(domain.clone())]);
    finder.handle_record(now, &domain, texts("1"));
    let host = named("mta-sts.example.org");
    assert_eq!(
        finder.outputs(),
        [FinderOutput::LookupAddresses { domain: domain.clone(), host: host.clone() }]
    );
    finder.handle_addresses(now, &domain, addresses());
    let request = HttpsRequest {
        host,
        addresses: addresses().unwrap(),
        path: "/.well-known/mta-sts.txt",
        limit_octets: POLICY_LIMIT_OCTETS,
    };
    assert_eq!(finder.outputs(), [FinderOutput::Fetch(HttpsId(1), request)]);
    finder.handle_response(at(2), HttpsId(1), response(60));
    let outputs = finder.outputs();
    let [FinderOutput::Store(stored), FinderOutput::Found(_, Ok(found))] = outputs.as_slice() else {
        panic!("{outputs:?}")
    };
    assert_eq!((stored.fetched, stored.expires), (at(2).wall, at(62).wall));
    assert_eq!(found.policy.as_deref(), stored.known().as_ref());
    assert!(finder.is_idle());
}

#[test]
fn answers_to_what_was_not_asked_do_nothing() {
    let (mut finder, domain, now) = (PolicyFinder::default(), domain(), at(1));
    finder.handle_stored(now, &domain, Ok(None));
    finder.handle_record(now, &domain, texts("1"));
    finder.handle_addresses(now, &domain, addresses());
    finder.handle_response(now, HttpsId(1), response(60));
    finder.find(now, &domain);
    finder.handle_record(now, &domain, texts("1"));
    finder.handle_addresses(now, &domain, addresses());
    assert_eq!(finder.outputs(), [FinderOutput::Read(domain.clone())]);
    finder.handle_stored(now, &domain, Ok(None));
    finder.handle_stored(now, &domain, Ok(None));
    assert_eq!(finder.outputs(), [FinderOutput::LookupRecord(domain)]);
}

#[test]
fn a_policy_holds_until_it_expires_and_one_that_expires_at_once_for_the_mail_that_asked() {
    let (mut finder, domain) = (PolicyFinder::default(), domain());
    let fetch = finder.lead_to_fetch(at(1), &domain);
    finder.handle_response(at(1), fetch, response(0));
    assert!(matches!(&finder.outputs()[1], FinderOutput::Found(_, Ok(Finding { policy: Some(_), .. }))));
    let no_record = || Ok(Vec::new());
    let is_known = |finder: &mut PolicyFinder, now| {
        finder.find(now, &named("example.org"));
        finder.handle_record(now, &named("example.org"), no_record());
        let found = finder.outputs().pop();
        matches!(found, Some(FinderOutput::Found(_, Ok(Finding { policy: Some(_), .. }))))
    };
    assert!(!is_known(&mut finder, at(2)));
    finder.find(at(3), &domain);
    finder.handle_record(at(3), &domain, texts("2"));
    finder.handle_addresses(at(3), &domain, addresses());
    finder.handle_response(at(3), HttpsId(2), response(60));
    finder.outputs();
    assert!(is_known(&mut finder, at(62)));
    assert!(!is_known(&mut finder, at(63)));
}

#[test]
fn a_domain_whose_host_would_have_too_long_a_name_has_no_policy() {
    let long = named(&format!("{}example.org", "abcdefg.".repeat(30)));
    let (mut finder, now) = (PolicyFinder::default(), at(1));
    finder.find(now, &long);
    finder.handle_stored(now, &long, Ok(None));
    finder.handle_record(now, &long, texts("1"));
    let found = finder.outputs().pop();
    let trouble = FindTrouble::Fetch(FetchTrouble::NoHost);
    assert_eq!(found, Some(FinderOutput::Found(long, Ok(Finding::nothing(trouble)))));
}

#[test]
fn trouble_of_this_machine_is_no_answer_unless_a_policy_is_known() {
    let (mut finder, domain, now) = (PolicyFinder::default(), domain(), at(1));
    let local = || LookupError::Local(crate::resolver::LocalLookupError::NoFamily);
    let is_trouble =
        |outputs: Vec<FinderOutput>| matches!(outputs.last(), Some(FinderOutput::Found(_, Err(_))));
    finder.find(now, &domain);
    finder.handle_stored(now, &domain, Ok(None));
    finder.handle_record(now, &domain, Err(local()));
    assert!(is_trouble(finder.outputs()));
    finder.find(now, &domain);
    finder.handle_record(now, &domain, texts("1"));
    finder.handle_addresses(now, &domain, Err(local()));
    assert!(is_trouble(finder.outputs()));
    let machine = || Err(HttpsError::new(HttpsTrouble::Machine, "no descriptor is left"));
    let fetch = finder.lead_to_fetch(now, &domain);
    finder.handle_response(now, fetch, machine());
    assert!(is_trouble(finder.outputs()));
    // It is no failure of the host, so nothing keeps from trying again.
    let fetch = finder.lead_to_fetch(now, &domain);
    finder.handle_response(now, fetch, response(60));
    finder.outputs();
    finder.find(now, &domain);
    finder.handle_record(now, &domain, Err(local()));
    assert!(!is_trouble(finder.outputs()));
}

#[test]
fn who_waits_too_long_for_a_turn_goes_on_without_and_loses_nothing_by_it() {
    let (mut finder, now) = (PolicyFinder::default(), at(1));
    for number in 0..FIRST_FETCHES_LIMIT {
        finder.lead_to_fetch(now, &named(&format!("slow{number}.example")));
    }
    let domain = domain();
    finder.find(now, &domain);
    finder.handle_stored(now, &domain, Ok(None));
    finder.handle_record(now, &domain, texts("1"));
    finder.handle_addresses(now, &domain, addresses());
    finder.outputs();
    assert_eq!(finder.poll_timeout(), Some(at(61).monotonic));
    finder.handle_timeout(at(60));
    assert_eq!(finder.outputs(), []);
    finder.handle_timeout(at(61));
    let nothing = Finding::nothing(FindTrouble::Fetch(FetchTrouble::NoTurn));
    assert_eq!(finder.outputs(), [FinderOutput::Found(domain.clone(), Ok(nothing))]);
    finder.handle_response(at(62), HttpsId(1), response(60));
    finder.outputs();
    finder.lead_to_fetch(at(62), &domain);
}

#[test]
fn a_name_server_that_fails_is_named() {
    let (mut finder, domain, now) = (PolicyFinder::default(), domain(), at(1));
    let question = DnsQuestion { kind: QuestionType::Txt, name: "_mta-sts.example.org".into() };
    finder.find(now, &domain);
    finder.handle_stored(now, &domain, Ok(None));
    finder.handle_record(now, &domain, Err(LookupError::Temporary(DnsFailure::NotValidated(question))));
    let Some(FinderOutput::Found(_, Ok(found))) = finder.outputs().pop() else { panic!("nothing was found") };
    let text = format!("{found}");
    assert!(text.starts_with("no MTA-STS policy: the MTA-STS record could not be looked up: "), "{text}");
}

#[test]
fn the_use_of_a_policy_is_recorded_once_a_day() {
    let (mut finder, domain) = (PolicyFinder::default(), domain());
    let fetch = finder.lead_to_fetch(at(1), &domain);
    finder.handle_response(at(1), fetch, response(1_000_000));
    finder.outputs();
    let mut days = Vec::new();
    for hours in 1..60 {
        let now = at(1 + hours * 3600);
        finder.find(now, &domain);
        finder.handle_record(now, &domain, texts("1"));
        if finder.outputs().contains(&FinderOutput::StoreUse(domain.clone())) {
            days.push(hours);
        }
    }
    assert_eq!(days, [24, 48]);
}

#[test]
fn memory_has_a_bound_and_what_is_used_stays() {
    let mut cache = PolicyCache::default();
    let policy = |name: String, hosts: usize| {
        let hosts: String = (0..hosts).map(|number| format!("mx: mx{number}.example\n")).collect();
        let text = format!("version: STSv1\nmode: enforce\n{hosts}max_age: 1000\n");
        let policy = StsPolicy::parse(text.as_bytes()).unwrap();
        let (domain, id) = (named(&name), PolicyId::parse("1").unwrap());
        let policy = KnownPolicy { domain, id, policy, fetched: UnixTime(0), expires: UnixTime(1000) };
        Kept { policy: Arc::new(policy), used: UnixTime(0) }
    };
    let first = named("first.example");
    cache.insert(policy("first.example".into(), 1), None);
    for number in 0..3000 {
        assert!(cache.take_up(&first).is_some());
        cache.insert(policy(format!("d{number}.example"), 1), None);
    }
    let is_known =
        |cache: &mut PolicyCache, number: u32| cache.take_up(&named(&format!("d{number}.example"))).is_some();
    assert_eq!((0..3000).filter(|number| is_known(&mut cache, *number)).count(), 999);
    assert!(is_known(&mut cache, 2999));
    for number in 0..100 {
        cache.insert(policy(format!("large{number}.example"), 3000), None);
    }
    let large = (0..100).filter(|number| cache.knows(&named(&format!("large{number}.example")))).count();
    assert_eq!(large, 33);
    assert!(cache.knows(&named("large99.example")));
    for number in 0..20_000 {
        cache.keep_stored(&named(&format!("u{number}.example")), None);
    }
    assert_eq!(
        (0..20_000).filter(|number| cache.knows(&named(&format!("u{number}.example")))).count(),
        10_000
    );
}

/// The policy of a domain as the database has it.
fn stored(domain: &Domain) -> StoredPolicy {
    let text = b"version: STSv1\nmode: enforce\nmx: mx.example.org\nmax_age: 1000000\n"[..].into();
    let (id, fetched) = (PolicyId::parse("1").unwrap(), at(0).wall);
    let expires = UnixTime(fetched.0 + 1_000_000);
    StoredPolicy { domain: domain.clone(), id, text, fetched, expires, used: fetched }
}

/// Ends a search by this answer about its record, and returns whether a policy is in force.
fn is_found(finder: &mut PolicyFinder, domain: &Domain, record: Result<Vec<Box<[u8]>>, LookupError>) -> bool {
    finder.outputs();
    finder.handle_record(at(2), domain, record);
    let found = finder.outputs().into_iter().find_map(|output| {
        if let FinderOutput::Found(of, found) = output {
            (of == *domain).then(|| found.unwrap())
        } else {
            None
        }
    });
    found.unwrap().in_force().is_some()
}

#[test]
fn what_is_known_stays_known_to_the_end_of_a_search_whatever_the_memory_holds() {
    let no_record = || Ok(Vec::new());
    // Other policies take its place.
    let (mut finder, domain) = (PolicyFinder::default(), domain());
    finder.find(at(1), &domain);
    finder.handle_stored(at(1), &domain, Ok(Some(stored(&domain))));
    for number in 0..2000 {
        let other = named(&format!("d{number}.example"));
        finder.find(at(1), &other);
        finder.handle_stored(at(1), &other, Ok(Some(stored(&other))));
    }
    assert!(is_found(&mut finder, &domain, no_record()));
    // Other settings let what the database has be forgotten.
    let mut finder = PolicyFinder::default();
    finder.find(at(1), &domain);
    finder.handle_stored(at(1), &domain, Ok(Some(stored(&domain))));
    finder.reconfigure(at(1), true);
    assert!(is_found(&mut finder, &domain, no_record()));
    // The memory is full of what the database cannot store.
    let mut finder = PolicyFinder::default();
    for number in 0..1000 {
        let other = named(&format!("d{number}.example"));
        let fetch = finder.lead_to_fetch(at(1), &other);
        finder.handle_response(at(1), fetch, response(1_000_000));
    }
    finder.find(at(1), &domain);
    finder.handle_stored(at(1), &domain, Ok(Some(stored(&domain))));
    assert!(is_found(&mut finder, &domain, no_record()));
    // That mail goes by it is recorded also where the memory does not have it.
    finder.find(at(1), &domain);
    let unused = StoredPolicy { used: UnixTime(0), ..stored(&domain) };
    finder.handle_stored(at(1), &domain, Ok(Some(unused)));
    finder.outputs();
    finder.handle_record(at(2), &domain, texts("1"));
    assert!(finder.outputs().contains(&FinderOutput::StoreUse(domain)));
}

#[test]
fn first_fetches_leave_room_for_the_others() {
    let (mut finder, domain) = (PolicyFinder::default(), domain());
    for number in 0..100 {
        let other = named(&format!("d{number}.example"));
        finder.find(at(1), &other);
        finder.handle_stored(at(1), &other, Ok(None));
        finder.handle_record(at(1), &other, texts("1"));
        finder.handle_addresses(at(1), &other, addresses());
    }
    let fetches = |finder: &mut PolicyFinder| {
        let is_fetch = |output: &FinderOutput| matches!(output, FinderOutput::Fetch(..));
        finder.outputs().iter().filter(|output| is_fetch(output)).count()
    };
    assert_eq!(fetches(&mut finder), FIRST_FETCHES_LIMIT);
    finder.find(at(1), &domain);
    finder.handle_stored(at(1), &domain, Ok(Some(stored(&domain))));
    finder.handle_record(at(1), &domain, texts("2"));
    finder.handle_addresses(at(1), &domain, addresses());
    assert_eq!(fetches(&mut finder), 1);
    // A place that becomes free is for the next in line, and the others are told when their time is over.
    finder.handle_response(at(2), HttpsId(1), response(60));
    assert_eq!(fetches(&mut finder), 1);
    assert_eq!(finder.poll_timeout(), Some(at(61).monotonic));
    finder.handle_timeout(at(61));
    let is_told =
        |output: &FinderOutput| matches!(output, FinderOutput::Found(_, Ok(Finding { policy: None, .. })));
    assert_eq!(finder.outputs().iter().filter(|output| is_told(output)).count(), 87);
}

#[test]
fn a_stored_policy_is_stale_at_half_its_age_if_it_is_used() {
    let (day, month) = (24 * 60 * 60, 30 * 24 * 60 * 60);
    let stored = |age: i64, max_age: i64, used: i64| {
        let now = 100 * month;
        let (fetched, used) = (UnixTime(now - age), UnixTime(now - used));
        let (id, expires) = (PolicyId::parse("1").unwrap(), UnixTime(fetched.0 + max_age));
        let stored = StoredPolicy { domain: domain(), id, text: bytes::Bytes::new(), fetched, expires, used };
        assert_eq!(stored.max_age(), Span::from_secs(u64::try_from(max_age).unwrap()));
        stored.is_stale(UnixTime(now))
    };
    assert!(stored(day / 2, month, 0) && !stored(day / 2 - 1, month, 0));
    assert!(stored(300, 600, 0) && !stored(299, 600, 0));
    assert!(!stored(600, 600, 0), "what has expired is fetched for mail only");
    assert!(stored(-5, month, 0), "from the future");
    assert!(stored(day, month, 90 * day - 1) && !stored(day, month, 90 * day));
}
