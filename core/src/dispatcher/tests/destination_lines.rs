//! What lines of the administrator say of destinations.

use super::*;
use crate::destination_pattern::DestinationPattern;
use crate::next_hop::Relay;
use crate::policy::{Choice, PolicyLine};

const SECOND: Duration = Duration::from_secs(1);

fn line(destination: &str, choices: &[Choice]) -> PolicyLine {
    let destination = DestinationPattern::parse(destination).unwrap();
    PolicyLine { destination, choices: choices.to_vec(), line: 1 }
}

fn with_lines(lines: &[PolicyLine]) -> Settings {
    Settings { destinations: lines.into(), ..settings() }
}

fn via(specification: &str) -> Choice {
    Choice::Via(Some(Relay::parse(specification.as_bytes()).unwrap()))
}

/// A world with these lines and two destinations, each with so many mails.
fn two_destinations(lines: &[PolicyLine], mails: usize) -> World {
    let mut world = World::with(with_lines(lines), Mode::Daemon);
    world.domain("a.example", "192.0.2.1");
    world.domain("b.example", "192.0.2.2");
    for domain in ["a.example", "b.example"] {
        for text in 0..mails {
            world.mail(SENDER, &format!("x@{domain}"), &format!("{text}"));
        }
    }
    world
}

fn change(world: &mut World, lines: &[PolicyLine]) {
    let settings = Settings { destinations: lines.into(), ..world.dispatcher.books.config.settings.clone() };
    world.input(Input::Settings(Box::new(settings)));
}

#[test]
fn each_destination_has_its_own_limit_of_connections() {
    for pattern in ["a.example", "mx:mx.a.example"] {
        let mut world = two_destinations(&[line(pattern, &[Choice::Concurrency(2)])], 4000);
        world.run();
        let most = ["192.0.2.1", "192.0.2.2"].map(|at| world.server(at).most_open);
        assert_eq!(most, [2, 10], "{pattern}");
    }
}

#[test]
fn each_destination_has_its_own_rate() {
    let rate = RateLimit { transactions: 10, per: SECOND };
    let mut world = two_destinations(&[line("a.example", &[Choice::RateLimit(Some(rate))])], 60);
    world.input(Input::OutboxChanged);
    world.run_for(SECOND);
    assert!((17..=20).contains(&world.server("192.0.2.1").accepted.len()));
    assert_eq!(world.server("192.0.2.2").accepted.len(), 60);
    change(&mut world, &[]);
    world.run_for(SECOND);
    assert_eq!(world.server("192.0.2.1").accepted.len(), 60, "the line is gone");
    world.run();
}

#[test]
fn a_transaction_has_no_more_recipients_than_its_destination_wants() {
    let mut world = two_destinations(&[line("a.example", &[Choice::Recipients(3)])], 0);
    for domain in ["a.example", "b.example"] {
        for number in 0..7 {
            world.mail(SENDER, &format!("x{number}@{domain}"), "the same");
        }
    }
    world.run();
    let mut sizes = |at| {
        let mut sizes: Vec<usize> =
            world.server(at).accepted.iter().map(|message| message.to.len()).collect();
        sizes.sort_unstable();
        sizes
    };
    assert_eq!((sizes("192.0.2.1"), sizes("192.0.2.2")), (vec![1, 3, 3], vec![7]));
}

#[test]
fn a_connection_ends_after_as_many_messages_as_it_may_have() {
    for (messages, mails) in [(1, 5), (3, 7), (60, 130)] {
        let lines = [line("a.example", &[Choice::Messages(Some(messages)), Choice::Concurrency(1)])];
        let mut world = two_destinations(&lines, mails);
        world.run();
        assert_eq!(world.outbox.deleted.len(), 2 * mails);
        let server = world.server("192.0.2.1");
        assert_eq!(
            server.connections as usize,
            mails.div_ceil(messages as usize),
            "{messages} each of {mails}"
        );
        assert_eq!(server.count("QUIT"), server.connections as usize, "each ends politely");
    }
}

#[test]
fn ports_and_families_and_local_addresses_are_those_of_the_destination() {
    let inside = crate::policy::LocalAddresses { ipv4: Some([10, 0, 0, 2].into()), ipv6: None };
    let port = Choice::Ports([Port { number: 2525, tls: TlsMode::Plain }].into());
    let mut world = two_destinations(
        &[
            line("a.example", &[port, Choice::Bind(inside)]),
            line("mx:*.b.example", &[Choice::Family(Family::Ipv4)]),
        ],
        1,
    );
    world.addresses.get_mut("mx.b.example").unwrap().insert(0, "2001:db8::1".parse().unwrap());
    world.addresses.get_mut("mx.a.example").unwrap().insert(0, "2001:db8::2".parse().unwrap());
    world.server("192.0.2.1:2525");
    world.run();
    let mut attempts: Vec<String> = world.attempts.iter().map(|(_, remote)| remote.to_string()).collect();
    attempts.sort_unstable();
    assert_eq!(attempts, ["192.0.2.1:2525", "192.0.2.2:25"]);
    assert_eq!(world.sources, [("192.0.2.1:2525".parse().unwrap(), [10, 0, 0, 2].into())].into());
}

#[test]
fn nothing_is_sent_ahead_where_that_is_not_wanted() {
    let mut world = two_destinations(&[line("a.example", &[Choice::Pipelining(false)])], 3);
    for at in ["192.0.2.1", "192.0.2.2"] {
        world.server(at).usual = Behaviour::on("EHLO", "250-mx\r\n250 PIPELINING");
    }
    world.run();
    let most = ["192.0.2.1", "192.0.2.2"].map(|at| world.server(at).most_ahead);
    assert_eq!(most[0], 1, "one command at a time");
    assert!(most[1] > 1, "{most:?}");
}

#[test]
fn mail_goes_via_a_relay_as_if_it_named_it_and_so_do_bounces() {
    let mut world = two_destinations(&[line("*", &[via("192.0.2.9:587")])], 1);
    let relay = world.server("192.0.2.9:587");
    relay.usual = Behaviour::on("RCPT TO:<x@b.example>", "550 5.1.1 no such user");
    world.mail_by(Some("192.0.2.8"), SENDER, "y@a.example", "named");
    world.server("192.0.2.8");
    world.run();
    let to = |world: &mut World, at| -> Vec<String> {
        world.server(at).accepted.iter().flat_map(|message| message.to.clone()).collect()
    };
    let mut relayed = to(&mut world, "192.0.2.9:587");
    relayed.sort_unstable();
    assert_eq!(relayed, [SENDER, "x@a.example"], "mail, and the bounce");
    assert_eq!(to(&mut world, "192.0.2.8"), ["y@a.example"], "mail_remote wins");
    assert_eq!((to(&mut world, "192.0.2.1").len(), to(&mut world, "192.0.2.2").len()), (0, 0));
    assert!(world.outbox.mails.is_empty());
}

#[test]
fn one_pass_for_a_domain_takes_its_mail_also_where_it_goes_via_a_relay() {
    let domain = Selection::Domain(NextHop::Domain(Domain::parse("a.example").unwrap()));
    let settings = with_lines(&[line("*", &[via("192.0.2.9")])]);
    let mut world = World::with(settings, Mode::Deliver(domain));
    world.server("192.0.2.9");
    for recipient in ["x@a.example", "x@b.example"] {
        world.mail(SENDER, recipient, "text");
    }
    world.run();
    let accepted = &world.server("192.0.2.9").accepted;
    assert_eq!(accepted.iter().map(|message| &*message.to[0]).collect::<Vec<_>>(), ["x@a.example"]);
}

#[test]
fn waiting_mail_goes_elsewhere_when_a_line_comes_or_goes() {
    let mut world = two_destinations(&[], 1);
    world.server("192.0.2.1").usual = Behaviour::on("RCPT", "450 later");
    world.run();
    change(&mut world, &[line("a.example", &[via("192.0.2.9")])]);
    world.server("192.0.2.9");
    world.run_for(Duration::from_secs(2 * 3600));
    assert_eq!(world.server("192.0.2.9").accepted.len(), 1);
    assert_eq!(world.server("192.0.2.1").connections, 1);
}

#[test]
fn destinations_with_different_limits_share_a_host_and_all_of_their_mail_goes() {
    let narrow = [
        line("d0.example", &[Choice::HostConcurrency(1)]),
        line("d1.example", &[Choice::HostConcurrency(4)]),
    ];
    let mut world = World::with(with_lines(&narrow), Mode::Daemon);
    for number in 0..4 {
        world.domain(&format!("d{number}.example"), "192.0.2.1");
        for text in 0..300 {
            world.mail(SENDER, &format!("x@d{number}.example"), &format!("{text}"));
        }
    }
    world.run();
    assert_eq!(world.outbox.deleted.len(), 1200);
    assert!(world.server("192.0.2.1").most_open <= 20);
}

#[test]
fn a_limit_of_a_host_that_is_lowered_for_one_destination_ends_its_connections() {
    let mut world = two_destinations(&[], 4000);
    world.input(Input::OutboxChanged);
    world.run_for(SECOND);
    assert_eq!(world.server("192.0.2.1").open.len(), 10);
    change(&mut world, &[line("a.example", &[Choice::HostConcurrency(2)])]);
    world.run_for(SECOND);
    assert_eq!(["192.0.2.1", "192.0.2.2"].map(|at| world.server(at).open.len()), [2, 10]);
    world.run();
    assert_eq!(world.outbox.deleted.len(), 8000);
}

#[test]
fn another_port_of_one_destination_ends_only_its_pass() {
    let mut world = two_destinations(&[], 1);
    world.input(Input::OutboxChanged);
    world.run_for(SECOND);
    assert_eq!(["192.0.2.1", "192.0.2.2"].map(|at| world.server(at).open.len()), [1, 1], "both rest");
    let port = Choice::Ports([Port { number: 2525, tls: TlsMode::Plain }].into());
    change(&mut world, &[line("a.example", &[port])]);
    world.run_for(SECOND);
    assert_eq!(["192.0.2.1", "192.0.2.2"].map(|at| world.server(at).open.len()), [0, 1]);
    world.run();
}
