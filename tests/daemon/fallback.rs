//! Which candidate is used, and what follows when one fails (contract, sections 4 and 5).

use crate::support::smtp_server::SmtpServer;
use crate::support::{Action, Mail, Script, World, unique_loopback};
use std::net::TcpListener;

/// A world with several hosts at one port; their names and preferences are for the test to give.
fn world_of(scripts: Vec<Script>) -> (World, Vec<SmtpServer>) {
    let mut servers: Vec<SmtpServer> = Vec::new();
    for script in scripts {
        servers.push(match servers.first() {
            None => SmtpServer::start(script),
            Some(first) => SmtpServer::start_beside(script, first),
        });
    }
    let mut world = World::new();
    world.set("portprio", servers[0].port());
    (world, servers)
}

/// Two MX of example.org, the first one preferred.
fn pair(first: Script, second: Script) -> (World, SmtpServer, SmtpServer) {
    let (world, mut servers) = world_of(vec![first, second]);
    let (second, first) = (servers.pop().unwrap(), servers.pop().unwrap());
    world.mx("example.org", 10, "mx1.example.org", &first);
    world.mx("example.org", 20, "mx2.example.org", &second);
    (world, first, second)
}

#[test]
fn the_mx_with_the_lowest_preference_value_is_used() {
    // RFC 5321 section 5.1.
    let (world, servers) = world_of(vec![Script::new(), Script::new(), Script::new()]);
    world.mx("example.org", 30, "a.example.org", &servers[0]);
    world.mx("example.org", 5, "b.example.org", &servers[1]);
    world.mx("example.org", 20, "c.example.org", &servers[2]);
    assert_eq!(world.failures_after_a_pass(&Mail::to("a@example.org")), []);
    assert_eq!(servers[1].records().accepted().len(), 1);
    assert!(servers[0].records().connections.is_empty() && servers[2].records().connections.is_empty());
}

#[test]
fn mx_of_equal_preference_share_the_load() {
    // RFC 5321 section 5.1: equal ones MUST be randomised. All of 30 domains choosing the same host has
    // a probability of 2 to the -29.
    let (world, servers) = world_of(vec![Script::new(), Script::new()]);
    for n in 0..30 {
        let domain = format!("d{n}.example");
        world.mx(&domain, 10, "a.example.org", &servers[0]);
        world.mx(&domain, 10, "b.example.org", &servers[1]);
        world.insert(&Mail::to(&format!("x@{domain}")));
    }
    let daemon = world.start();
    world.database.wait_until_empty();
    let counts = [servers[0].records().accepted().len(), servers[1].records().accepted().len()];
    assert_eq!(counts[0] + counts[1], 30);
    assert!(counts[0] > 0 && counts[1] > 0, "{counts:?}");
    daemon.terminate();
}

#[test]
fn the_next_mx_is_used_when_the_first_does_not_listen() {
    let (world, servers) = world_of(vec![Script::new()]);
    world.dns.mx("example.org", 10, "dead.example.org");
    world.dns.a("dead.example.org", unique_loopback().into());
    world.mx("example.org", 20, "alive.example.org", &servers[0]);
    assert_eq!(world.failures_after_a_pass(&Mail::to("a@example.org")), []);
    assert_eq!(servers[0].records().accepted().len(), 1);
}

#[test]
fn the_next_mx_is_used_when_the_first_has_no_address() {
    let (world, servers) = world_of(vec![Script::new()]);
    world.dns.mx("example.org", 10, "nowhere.example.org");
    world.mx("example.org", 20, "alive.example.org", &servers[0]);
    assert_eq!(world.failures_after_a_pass(&Mail::to("a@example.org")), []);
    assert_eq!(servers[0].records().accepted().len(), 1);
}

#[test]
fn every_address_of_a_host_is_a_candidate() {
    // RFC 5321 section 5.1: all addresses.
    let (world, servers) = world_of(vec![Script::new()]);
    world.dns.mx("example.org", 10, "mx.example.org");
    for _ in 0..3 {
        world.dns.a("mx.example.org", unique_loopback().into());
    }
    world.dns.a("mx.example.org", servers[0].ip());
    assert_eq!(world.failures_after_a_pass(&Mail::to("a@example.org")), []);
    assert_eq!(servers[0].records().accepted().len(), 1);
}

#[test]
fn every_entry_of_portprio_is_a_candidate_in_order() {
    let (mut world, servers) = world_of(vec![Script::new()]);
    let closed = TcpListener::bind((unique_loopback(), 0)).unwrap().local_addr().unwrap().port();
    world.set("portprio", format!("{closed} {}", servers[0].port()));
    world.route("example.org", &servers[0]);
    assert_eq!(world.failures_after_a_pass(&Mail::to("a@example.org")), []);
    assert_eq!(servers[0].records().accepted().len(), 1);
}

#[test]
fn all_ports_of_the_first_mx_come_before_the_second_mx() {
    // The first entry reaches only the second MX, the second entry only the first MX.
    let mut world = World::new();
    let first = SmtpServer::start(Script::new());
    let second = SmtpServer::start(Script::new());
    world.set("portprio", format!("{} {}", second.port(), first.port()));
    world.mx("example.org", 10, "mx1.example.org", &first);
    world.mx("example.org", 20, "mx2.example.org", &second);
    assert_eq!(world.failures_after_a_pass(&Mail::to("a@example.org")), []);
    assert_eq!(first.records().accepted().len(), 1);
    assert!(second.records().connections.is_empty());
}

#[test]
fn a_greeting_of_4yz_or_5yz_sends_the_mail_to_the_next_candidate() {
    // RFC 5321 section 3.1 and 4.3.1; RFC 7504 section 4.
    for greeting in ["421 4.3.2 busy", "450 later", "554 5.3.2 no", "521 5.3.2 never"] {
        let (world, first, second) = pair(Script::new().always("GREETING", greeting), Script::new());
        assert_eq!(world.failures_after_a_pass(&Mail::to("a@example.org")), [], "{greeting}");
        assert_eq!(second.records().accepted().len(), 1);
        let commands = first.wait_until_closed().connections[0].verbs();
        // RFC 5321 section 3.1: after a refusal there is nothing to say but QUIT.
        assert!(commands.iter().all(|verb| verb == "QUIT"), "{commands:?}");
        assert!(!greeting.starts_with('5') || commands.len() == 1, "no QUIT after {greeting}");
    }
}

#[test]
fn a_greeting_of_5yz_everywhere_is_fatal() {
    let refuse = || Script::new().always("GREETING", "554 5.3.2 no mail here");
    let (world, _first, _second) = pair(refuse(), refuse());
    let failure = world.failure_after_a_pass(&Mail::to("a@example.org"));
    assert!(failure.fatal && failure.text.contains("no mail here"), "{failure:?}");
}

#[test]
fn a_greeting_of_5yz_is_fatal_also_when_the_others_could_not_be_connected_to() {
    let (world, servers) = world_of(vec![Script::new().always("GREETING", "554 5.3.2 no mail here")]);
    world.mx("example.org", 10, "mx1.example.org", &servers[0]);
    world.dns.mx("example.org", 20, "dead.example.org");
    world.dns.a("dead.example.org", unique_loopback().into());
    assert!(world.failure_after_a_pass(&Mail::to("a@example.org")).fatal);
}

#[test]
fn a_greeting_of_5yz_is_not_fatal_when_another_candidate_failed_temporarily() {
    for other in ["421 busy", "450 later"] {
        let first = Script::new().always("GREETING", "554 5.3.2 no");
        let (world, _first, _second) = pair(first, Script::new().always("GREETING", other));
        assert!(!world.failure_after_a_pass(&Mail::to("a@example.org")).fatal);
    }
}

#[test]
fn no_candidate_left_is_one_temporary_failure_in_the_old_words() {
    let (world, servers) = world_of(vec![Script::new().lenient().always("EHLO", Action::Close)]);
    world.mx("example.org", 10, "mx1.example.org", &servers[0]);
    world.dns.mx("example.org", 20, "dead.example.org");
    world.dns.a("dead.example.org", unique_loopback().into());
    let failure = world.failure_after_a_pass(&Mail::to("a@example.org"));
    assert!(!failure.fatal);
    assert!(failure.text.starts_with("Failed to reach any MX"), "{failure:?}");
    assert_eq!(servers[0].records().connections.len(), 1, "it died without progress");
}

#[test]
fn a_connection_lost_before_the_final_dot_moves_the_mail_to_the_next_candidate_in_the_same_pass() {
    let lost = [
        ("EHLO", Action::Close),
        ("MAIL", Action::Close),
        ("RCPT", Action::Reset),
        ("DATA", Action::Close),
        ("DATA", Action::TakeData(3, Box::new(Action::Reset))),
        ("MAIL", Action::ReplyThenClose("421 4.3.2 shutting down".into())),
        ("RCPT", Action::ReplyThenClose("421 4.3.2 shutting down".into())),
        ("DATA", Action::ReplyThenClose("421 4.3.2 shutting down".into())),
    ];
    for (verb, action) in lost {
        let (world, first, second) = pair(Script::new().lenient().always(verb, action), Script::new());
        // More than any socket buffers, so that the final dot cannot have been sent before the loss.
        let mail = Mail::to("a@example.org").data("0123456789\r\n".repeat(1_000_000));
        assert_eq!(world.failures_after_a_pass(&mail), [], "{verb}");
        assert_eq!(first.records().connections.len(), 1, "{verb}");
        assert_eq!(second.records().accepted().len(), 1, "{verb}");
        assert!(world.database.ids().is_empty());
    }
}

#[test]
fn a_candidate_that_decided_mail_is_connected_to_again() {
    // The first connection takes one message and dies at the next MAIL; the rest goes to the same host.
    let script = Script::new().lenient().once("MAIL", "250 ok").once("MAIL", Action::Close);
    let (mut world, first, second) = pair(script, Script::new());
    world.set("destination_concurrency", 1);
    let mails = ["1", "2", "3"].map(|n| Mail::to(&format!("{n}@example.org")).data(n));
    world.database.insert_all(&mails);
    world.run(&["deliver", "example.org"]);
    assert_eq!(first.records().accepted().len(), 3, "{}", first.records().transcript());
    assert_eq!(first.records().connections.len(), 2);
    assert!(second.records().connections.is_empty());
    assert!(world.database.failures().is_empty());
}

#[test]
fn recipients_decided_before_the_connection_died_stay_decided() {
    // a was refused for good; b was accepted but its message never ended. Only b goes on.
    let script = Script::new()
        .lenient()
        .when(|c| c.line.contains("<a@").then(|| "550 5.1.1 no".into()))
        .always("DATA", Action::Close);
    let (world, _first, second) = pair(script, Script::new());
    let ids = world.database.insert_all(&[Mail::to("a@example.org"), Mail::to("b@example.org")]);
    world.run(&["deliver", "example.org"]);
    let delivered = second.records().delivered_to();
    assert!(delivered.contains(&"b@example.org".to_owned()), "{delivered:?}");
    // Whether a refusal counts before the transaction ended is not said; a must be decided exactly once.
    let failures = world.database.failures_of(ids[0]).len();
    assert_eq!(failures + delivered.iter().filter(|to| *to == "a@example.org").count(), 1);
}

#[test]
fn a_connection_lost_after_the_final_dot_is_uncertain_and_not_sent_elsewhere_in_the_pass() {
    for action in [Action::Close, Action::Reset] {
        let (world, first, second) = pair(Script::new().lenient().always(".", action), Script::new());
        let failure = world.failure_after_a_pass(&Mail::to("a@example.org"));
        assert!(!failure.fatal && failure.text.contains("delivery uncertain"), "{failure:?}");
        assert_eq!(first.records().messages.len(), 1);
        assert!(second.records().messages.is_empty());
    }
}

#[test]
fn a_421_in_answer_to_the_final_dot_is_a_temporary_failure_of_this_message() {
    let script = Script::new().lenient().always(".", Action::ReplyThenClose("421 4.3.2 bye".into()));
    let (world, _first, second) = pair(script, Script::new());
    let failures = world.failures_after_a_pass(&Mail::to("a@example.org"));
    // A reply was given, so nothing is uncertain: either it is a failure now, or the next host took it.
    assert!(failures.len() == 1 || second.records().accepted().len() == 1);
    assert!(failures.iter().all(|failure| !failure.fatal && failure.text.starts_with("421")), "{failures:?}");
}

#[test]
fn the_own_host_among_the_best_is_used_like_any_other() {
    let (world, servers) = world_of(vec![Script::new()]);
    world.mx("example.org", 10, "client.example", &servers[0]);
    world.dns.behave_normally("client.example");
    assert_eq!(world.failures_after_a_pass(&Mail::to("a@example.org")), []);
    assert_eq!(servers[0].records().accepted().len(), 1);
}

#[test]
fn the_own_host_and_what_is_not_better_is_left_out_where_better_ones_exist() {
    // RFC 5321 section 5.1.
    let (world, servers) = world_of(vec![Script::new(), Script::new(), Script::new()]);
    world.dns.behave_normally("client.example");
    world.dns.mx("example.org", 10, "dead.example.org");
    world.dns.a("dead.example.org", unique_loopback().into());
    world.mx("example.org", 20, "Client.Example", &servers[0]);
    world.mx("example.org", 20, "equal.example.org", &servers[1]);
    world.mx("example.org", 30, "worse.example.org", &servers[2]);
    let failure = world.failure_after_a_pass(&Mail::to("a@example.org"));
    assert!(!failure.fatal && failure.text.starts_with("Failed to reach any MX"), "{failure:?}");
    assert!(servers.iter().all(|server| server.records().connections.is_empty()));
}

#[test]
fn ipv6_addresses_of_an_mx_are_candidates_unless_bind_has_no_address_of_that_family() {
    // RFC 5321 section 5.2.
    let local = std::net::Ipv6Addr::LOCALHOST;
    if TcpListener::bind((local, 0)).is_err() {
        crate::support::skip("this machine has no IPv6 loopback address");
        return;
    }
    let mut world = World::new();
    let server = SmtpServer::start_at(Script::new(), (local, 0).into());
    world.set("portprio", server.port());
    world.route("example.org", &server);
    assert_eq!(world.failures_after_a_pass(&Mail::to("a@example.org")), []);
    assert_eq!(server.records().accepted().len(), 1);
    world.set("bind", "127.0.0.1");
    let failure = world.failure_after_a_pass(&Mail::to("b@example.org"));
    assert!(!failure.fatal && failure.text.starts_with("Failed to reach any MX"), "{failure:?}");
    assert_eq!(server.records().connections.len(), 1);
}

#[test]
fn bind_sets_the_local_address_of_connections() {
    let local = unique_loopback();
    let (mut world, server) = World::with_server(Script::new());
    world.set("bind", local);
    assert_eq!(world.failures_after_a_pass(&Mail::to("a@example.org")), []);
    assert_eq!(server.records().connections[0].peer.ip(), std::net::IpAddr::from(local));
}

#[test]
fn the_last_of_sixty_mx_is_reached_where_all_others_are_dead() {
    let (mut world, servers) = world_of(vec![Script::new()]);
    world.set("portprio", format!("{0}@starttls {0}", servers[0].port()));
    for n in 0..59 {
        let host = format!("mx{n}.example.org");
        world.dns.mx("example.org", n, &host);
        world.dns.a(&host, unique_loopback().into());
    }
    world.mx("example.org", 99, "last.example.org", &servers[0]);
    assert_eq!(world.failures_after_a_pass(&Mail::to("a@example.org")), []);
    assert_eq!(servers[0].records().accepted().len(), 1);
}
