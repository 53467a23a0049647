use super::*;
use crate::address::Domain;
use std::string::ToString as _;
use std::vec;

fn line(number: u32, destination: &str, choices: &[Choice]) -> PolicyLine {
    let destination = DestinationPattern::parse(destination).unwrap();
    PolicyLine { destination, choices: choices.to_vec(), line: number }
}

fn policies(lines: Vec<PolicyLine>) -> Policies {
    Policies::new(&Policy::for_tests(), &lines)
}

fn domain(name: &str) -> NextHop {
    NextHop::Domain(Domain::parse(name).unwrap())
}

fn host(name: &str) -> Host {
    Host::Name(Domain::parse(name).unwrap())
}

fn relay(specification: &str) -> Relay {
    Relay::parse(specification.as_bytes()).unwrap()
}

#[test]
fn without_a_line_the_usual_policy_holds_and_costs_no_memory() {
    let policies = policies(vec![line(1, "example.org", &[Choice::Concurrency(1)])]);
    let usual = policies.of_hop(&domain("other.example"));
    assert!(Arc::ptr_eq(&usual, &policies.at(&domain("third.example"), &host("mx.example"))));
    assert_eq!(*usual, Policy::for_tests());
}

#[test]
fn all_lines_hold_together_and_the_closer_one_wins_by_key() {
    let policies = policies(vec![
        line(1, "example.org", &[Choice::Concurrency(5)]),
        line(2, ".org", &[Choice::Concurrency(3), Choice::Padding(3)]),
        line(3, "*", &[Choice::Concurrency(1), Choice::Padding(1), Choice::Pipelining(false)]),
        line(4, ".example.org", &[Choice::Padding(4)]),
    ]);
    let of = |name| {
        let policy = policies.of_hop(&domain(name));
        (policy.concurrency, policy.padding, policy.pipelining)
    };
    assert_eq!(of("example.org"), (5, 4, false));
    assert_eq!(of("a.example.org"), (3, 4, false));
    assert_eq!(of("b.org"), (3, 3, false));
    assert_eq!(of("example.net"), (1, 1, false));
}

#[test]
fn of_lines_about_the_same_the_last_one_wins() {
    let policies = policies(vec![
        line(1, "example.org", &[Choice::Concurrency(5), Choice::Padding(5)]),
        line(2, "example.org", &[Choice::Concurrency(6)]),
    ]);
    let policy = policies.of_hop(&domain("example.org"));
    assert_eq!((policy.concurrency, policy.padding), (6, 5));
}

#[test]
fn what_is_said_of_a_host_holds_while_mail_goes_there() {
    let policies = policies(vec![
        line(1, "mx:*.example.net", &[Choice::Concurrency(2), Choice::Padding(2)]),
        line(2, "example.org", &[Choice::Concurrency(7)]),
    ]);
    let [org, com] = ["example.org", "example.com"].map(domain);
    let of = |policy: Arc<Policy>| (policy.concurrency, policy.padding);
    assert_eq!(of(policies.of_hop(&com)), (10, 0));
    assert_eq!(of(policies.at(&com, &host("mx.example.net"))), (2, 2));
    assert_eq!(of(policies.at(&com, &host("mx.example.com"))), (10, 0));
    assert_eq!(of(policies.at(&org, &host("mx.example.net"))), (7, 2), "the domain is named more closely");
}

#[test]
fn mail_goes_via_the_relay_of_the_closest_line() {
    let smarthost = relay("u:p@smart.example:587/starttls");
    let policies = policies(vec![
        line(1, "*", &[Choice::Via(Some(smarthost.clone()))]),
        line(2, ".lan", &[Choice::Via(None)]),
        line(3, "far.lan", &[Choice::Via(Some(relay("far.example")))]),
    ]);
    assert_eq!(policies.route(domain("example.org")), NextHop::Relay(smarthost.clone()));
    assert_eq!(policies.route(domain("near.lan")), domain("near.lan"));
    assert_eq!(policies.route(domain("far.lan")), NextHop::Relay(relay("far.example")));
    assert_eq!(policies.route(NextHop::Literal([192, 0, 2, 1].into())), NextHop::Relay(smarthost));
    let named = NextHop::Relay(relay("named.example"));
    assert_eq!(policies.route(named.clone()), named, "mail_remote wins");
}

#[test]
fn what_a_line_says_besides_is_said_of_its_relay() {
    let inside = LocalAddresses { ipv4: Some([10, 0, 0, 2].into()), ipv6: None };
    let via = relay("relay.lan:25");
    let policies = policies(vec![
        line(1, ".lan", &[Choice::Via(Some(via.clone())), Choice::Bind(inside), Choice::Padding(3)]),
        line(2, "remote:relay.lan", &[Choice::Padding(4)]),
        line(3, "a.lan", &[Choice::Concurrency(1)]),
    ]);
    let hop = policies.route(domain("a.lan"));
    assert_eq!(hop, NextHop::Relay(via));
    let policy = policies.at(&hop, &host("relay.lan"));
    assert_eq!((policy.bind, policy.padding, policy.concurrency), (inside, 4, 10));
    let other = policies.of_hop(&NextHop::Relay(relay("relay.lan:2525")));
    assert_eq!((other.bind, other.padding), (LocalAddresses::default(), 4), "it is another relay");
}

#[test]
fn lines_contradict_each_other_about_a_relay_that_they_share() {
    let via = |number, choice| line(number, "a.example", &[Choice::Via(Some(relay("relay.lan"))), choice]);
    assert!(via(1, Choice::Padding(1)).contradicts(&via(2, Choice::Padding(2))));
    assert!(!via(1, Choice::Padding(1)).contradicts(&via(2, Choice::Padding(1))));
    assert!(!via(1, Choice::Padding(1)).contradicts(&via(2, Choice::Concurrency(2))));
    let elsewhere = line(3, "b.example", &[Choice::Padding(2)]);
    assert!(!via(1, Choice::Padding(1)).contradicts(&elsewhere));
}

#[test]
fn addresses_are_those_of_the_family_and_of_the_local_addresses() {
    let [v4, v6]: [IpAddr; 2] = [[192, 0, 2, 1].into(), [0x2001, 0xdb8, 0, 0, 0, 0, 0, 1].into()];
    let only4 = LocalAddresses::of(&[[10, 0, 0, 2].into(), [10, 0, 0, 3].into()]);
    let only6 = LocalAddresses::of(&["fd00::2".parse().unwrap()]);
    let permitted = |family, bind| {
        let policy = Policy { family, bind, ..Policy::default() };
        [v4, v6].map(|address| policy.permits(address))
    };
    assert_eq!(permitted(Family::Any, LocalAddresses::default()), [true, true]);
    assert_eq!(permitted(Family::Ipv4, LocalAddresses::default()), [true, false]);
    assert_eq!(permitted(Family::Ipv6, LocalAddresses::default()), [false, true]);
    assert_eq!(permitted(Family::Any, only4), [true, false]);
    assert_eq!(permitted(Family::Any, only6), [false, true]);
    assert_eq!(permitted(Family::Ipv6, only4), [false, false]);
    assert_eq!(only4.facing(SocketAddr::new(v4, 25)), Some([10, 0, 0, 2].into()));
    assert_eq!(only4.facing(SocketAddr::new(v6, 25)), None);
}

#[test]
fn each_decision_names_the_line_that_wins() {
    let policies = policies(vec![
        line(1, "mx:mx.example", &[Choice::Padding(1)]),
        line(2, "*", &[Choice::Concurrency(2), Choice::Padding(2), Choice::Idle(Duration::ZERO)]),
        line(3, "example.org", &[Choice::Concurrency(3), Choice::Via(None)]),
    ]);
    let lines = |host: Option<&Host>| {
        let decisions = policies.decisions(&domain("example.org"), host);
        let mut policy = Policy::for_tests();
        decisions.iter().for_each(|decision| policy.choose(&decision.choice));
        let held = host.map_or_else(
            || policies.of_hop(&domain("example.org")),
            |host| policies.at(&domain("example.org"), host),
        );
        assert_eq!(policy, *held, "the decisions make the policy");
        let name =
            |decision: &Decision| (decision.choice.clone(), decision.line, decision.destination.to_string());
        decisions.iter().map(name).collect::<Vec<_>>()
    };
    let idle = (Choice::Idle(Duration::ZERO), 2, "*".into());
    let concurrency = (Choice::Concurrency(3), 3, "example.org".into());
    assert_eq!(lines(None), [(Choice::Padding(2), 2, "*".into()), idle.clone(), concurrency.clone()]);
    let of_host = lines(Some(&host("mx.example")));
    assert!(of_host.contains(&(Choice::Padding(1), 1, "mx:mx.example".into())), "{of_host:?}");
    assert!(of_host.contains(&idle) && of_host.contains(&concurrency) && of_host.len() == 3, "{of_host:?}");
}

#[test]
fn the_decision_about_a_relay_names_its_line() {
    let to = Choice::Via(Some(relay("relay.lan:25")));
    let policies = policies(vec![
        line(1, "*", core::slice::from_ref(&to)),
        line(2, "example.org", &[Choice::Via(None)]),
    ]);
    let of =
        |next_hop| policies.decision_of_relay(&next_hop).map(|decision| (decision.choice, decision.line));
    assert_eq!(of(domain("example.net")), Some((to, 1)));
    assert_eq!(of(domain("example.org")), Some((Choice::Via(None), 2)));
    assert_eq!(of(NextHop::Relay(relay("other.lan:25"))), None, "mail that names a relay goes there");
}
