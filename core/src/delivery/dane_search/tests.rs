use super::*;

use alloc::format;
use alloc::string::ToString as _;
use alloc::vec;

use bytes::Bytes;

use crate::tls::TlsaRecord;

const HOST: &str = "mx.example";

fn domain(text: &str) -> Domain {
    Domain::parse(text).unwrap()
}

/// Returns how addresses were found. `canonical` is the end of the aliases of their host, if it is one; `-` can be no domain.
fn origin(security: Security, canonical: Option<&str>) -> Resolved<()> {
    let canonical = match canonical {
        None => Canonical::Itself,
        Some("-") => Canonical::Unusable,
        Some(name) => Canonical::Other(domain(name)),
    };
    Resolved { value: (), security, canonical }
}

/// A record that is usable, or one that is not (RFC 7672 section 3.1.3).
fn record(is_usable: bool) -> TlsaRecord {
    let usage = if is_usable { 3 } else { 1 };
    TlsaRecord { usage, selector: 1, matching: 1, data: Bytes::from(vec![7; 32]) }
}

fn records(security: Security, value: Vec<TlsaRecord>) -> Answer {
    Answer::Tlsa(Ok(Resolved { value, security, canonical: Canonical::Itself }))
}

/// Searches, and returns what was asked, and what was found.
fn search(
    addresses: &Resolved<()>,
    ports: &[u16],
    answer: impl Fn(&LookupRequest) -> Answer,
) -> (Vec<LookupRequest>, Result<HostDane, LookupError>) {
    let mut asked = vec![];
    let mut search = match DaneSearch::new(&domain(HOST), addresses, ports) {
        Ok(search) => search,
        Err(error) => return (asked, Err(LookupError::Temporary(error))),
    };
    while let Some(request) = search.next() {
        asked.push(request.clone());
        assert!(asked.len() < 100, "it never ends: {search:?}");
        if let Err(error) = search.handle_answer(answer(&request)) {
            return (asked, Err(error));
        }
    }
    (asked, Ok(search.into_found()))
}

fn present(base: &str, ports: &[(u16, usize)]) -> HostDane {
    let ports =
        ports.iter().map(|(port, count)| (*port, tlsa::usable(&vec![record(true); *count]).into())).collect();
    HostDane::Present { base: domain(base), ports }
}

#[test]
fn the_base_domain_follows_from_the_security_of_the_addresses() {
    let tlsa = |name: &str| LookupRequest::Tlsa(domain(name), 25);
    let alias = || LookupRequest::Alias(domain(HOST));
    let with_records = |names: &'static [&'static str]| {
        move |request: &LookupRequest| match request {
            LookupRequest::Tlsa(name, _) if names.contains(&name.as_str()) => {
                records(Security::Secure, vec![record(true)])
            }
            LookupRequest::Tlsa(..) => records(Security::Secure, vec![]),
            LookupRequest::Alias(_) => Answer::Alias(Ok(Resolved {
                value: true,
                security: Security::Secure,
                canonical: Canonical::Itself,
            })),
            LookupRequest::Mx(_) | LookupRequest::Addresses(_) => panic!("{request}"),
        }
    };
    let both = &[HOST, "end.example"];
    for (security, canonical, names, asked, found) in [
        (Security::Secure, None, &both[..], vec![tlsa(HOST)], present(HOST, &[(25, 1)])),
        (Security::Insecure, None, both, vec![], HostDane::Absent),
        (
            Security::Secure,
            Some("end.example"),
            both,
            vec![tlsa("end.example")],
            present("end.example", &[(25, 1)]),
        ),
        (
            Security::Secure,
            Some("end.example"),
            &[HOST],
            vec![tlsa("end.example"), tlsa(HOST)],
            present(HOST, &[(25, 1)]),
        ),
        (Security::Secure, Some("end.example"), &[], vec![tlsa("end.example"), tlsa(HOST)], HostDane::Absent),
        (Security::Insecure, Some("end.example"), both, vec![alias(), tlsa(HOST)], present(HOST, &[(25, 1)])),
        // Who can forge the end of the aliases may put anything there.
        (Security::Insecure, Some("-"), both, vec![alias(), tlsa(HOST)], present(HOST, &[(25, 1)])),
        (Security::Secure, Some("-"), both, vec![tlsa(HOST)], present(HOST, &[(25, 1)])),
    ] {
        let result = search(&origin(security, canonical), &[25], with_records(names));
        assert_eq!(result, (asked, Ok(found)), "{security:?} {canonical:?} {names:?}");
    }
}

#[test]
fn an_alias_in_a_zone_that_is_not_signed_has_no_dane() {
    for (value, security) in
        [(true, Security::Insecure), (false, Security::Insecure), (false, Security::Secure)]
    {
        let (asked, found) = search(&origin(Security::Insecure, Some("end.example")), &[25], |_| {
            Answer::Alias(Ok(Resolved { value, security, canonical: Canonical::Itself }))
        });
        assert_eq!((asked.len(), found), (1, Ok(HostDane::Absent)), "{value} {security:?}");
    }
}

#[test]
fn records_count_only_if_they_are_secure_and_unusable_ones_demand_encryption() {
    for (answer, expected) in [
        (records(Security::Secure, vec![record(true), record(false)]), present(HOST, &[(25, 1)])),
        (records(Security::Secure, vec![record(false)]), present(HOST, &[(25, 0)])),
        (records(Security::Secure, vec![]), HostDane::Absent),
        (records(Security::Insecure, vec![]), HostDane::Absent),
        (records(Security::Insecure, vec![record(true)]), HostDane::Absent),
    ] {
        let (_, found) = search(&origin(Security::Secure, None), &[25], |_| answer.clone());
        assert_eq!(found, Ok(expected), "{answer:?}");
    }
}

#[test]
fn each_port_is_asked_for_once_and_ports_without_records_are_left_out() {
    let (asked, found) =
        search(&origin(Security::Secure, None), &[25, 25, 587, 26, 25], |request| match request {
            LookupRequest::Tlsa(_, 587) => records(Security::Secure, vec![record(true)]),
            LookupRequest::Tlsa(_, 26) => records(Security::Insecure, vec![record(true)]),
            LookupRequest::Tlsa(..) => records(Security::Secure, vec![]),
            LookupRequest::Mx(_) | LookupRequest::Addresses(_) | LookupRequest::Alias(_) => {
                panic!("{request}")
            }
        });
    let tlsa = |port| LookupRequest::Tlsa(domain(HOST), port);
    assert_eq!(asked, [tlsa(25), tlsa(587), tlsa(26)]);
    assert_eq!(found, Ok(present(HOST, &[(587, 1)])));
}

#[test]
fn a_lookup_that_fails_or_that_nobody_vouches_for_leaves_it_open_what_dane_demands() {
    let failure = || {
        LookupError::Temporary(DnsFailure::NoServer(DnsQuestion {
            kind: QuestionType::Tlsa,
            name: "_25._tcp.mx.example".into(),
        }))
    };
    let (_, found) = search(&origin(Security::Secure, None), &[25], |_| Answer::Tlsa(Err(failure())));
    assert_eq!(found, Err(failure()));
    let (_, found) =
        search(&origin(Security::Insecure, Some("end.example")), &[25], |_| Answer::Alias(Err(failure())));
    assert_eq!(found, Err(failure()));
    for (origin, expected) in [
        (origin(Security::Unknown, None), "IPv4 addresses of mx.example"),
        (origin(Security::Insecure, Some("end.example")), "CNAME record of mx.example"),
        (origin(Security::Secure, None), "TLSA records of _25._tcp.mx.example"),
    ] {
        let (_, found) = search(&origin, &[25], |request| match request {
            LookupRequest::Alias(_) => Answer::Alias(Ok(Resolved {
                value: true,
                security: Security::Unknown,
                canonical: Canonical::Itself,
            })),
            LookupRequest::Tlsa(..) => records(Security::Unknown, vec![]),
            LookupRequest::Mx(_) | LookupRequest::Addresses(_) => panic!("{request}"),
        });
        let expected = format!(
            "looking up the {expected} failed: only a name server that does not validate has answered"
        );
        assert_eq!(found.unwrap_err().to_string(), expected);
    }
}

#[test]
fn answers_that_were_not_asked_for_change_nothing() {
    let mut search = DaneSearch::new(&domain(HOST), &origin(Security::Secure, None), &[25]).unwrap();
    let before = search.next();
    search.handle_answer(Answer::Alias(Ok(Resolved::insecure(true)))).unwrap();
    search.handle_answer(Answer::Addresses(Err(LookupError::NoAddress))).unwrap();
    assert_eq!(search.next(), before);
    search.handle_answer(records(Security::Secure, vec![record(true)])).unwrap();
    assert_eq!(search.next(), None);
    search.handle_answer(records(Security::Secure, vec![])).unwrap();
    assert_eq!(search.into_found(), present(HOST, &[(25, 1)]));
}
