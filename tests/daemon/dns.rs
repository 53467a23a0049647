//! How domains become hosts and addresses (contract, section 4; RFC 5321 section 5; RFC 7505).

use crate::support::smtp_server::SmtpServer;
use crate::support::{Behaviour, DnsServer, Gate, Mail, Script, World, unique_loopback};
use hickory_proto::rr::RecordType;
use std::net::{Ipv6Addr, SocketAddr, TcpListener};

const UNRESOLVED: &str = "Failed to resolve recipient domain";

/// The one failure of a mail to example.org in a world whose DNS the test prepares.
fn failure_with(prepare: impl Fn(&World)) -> crate::support::database::Failure {
    let world = World::new();
    prepare(&world);
    world.failure_after_a_pass(&Mail::to("a@example.org"))
}

#[test]
fn a_domain_that_does_not_exist_is_fatal() {
    let failure = failure_with(|_| ());
    assert!(failure.fatal && failure.text.starts_with(UNRESOLVED), "{failure:?}");
}

#[test]
fn a_null_mx_is_fatal_at_once() {
    // RFC 7505 section 3.
    let failure = failure_with(|world| world.dns.null_mx("example.org"));
    assert!(failure.fatal, "{failure:?}");
}

#[test]
fn a_domain_with_neither_mx_nor_address_is_fatal() {
    let failure = failure_with(|world| world.dns.empty("example.org"));
    assert!(failure.fatal && failure.text.starts_with(UNRESOLVED), "{failure:?}");
}

#[test]
fn a_failing_dns_server_is_temporary_and_told() {
    for behaviour in [Behaviour::ServFail, Behaviour::Refused, Behaviour::Drop] {
        let failure = failure_with(|world| world.dns.behave("example.org", behaviour.clone()));
        assert!(!failure.fatal && failure.text.starts_with(UNRESOLVED), "{failure:?}");
    }
}

#[test]
fn a_failing_address_lookup_of_a_domain_without_mx_is_temporary() {
    // The answer was that there is no MX; whether there is an address is not known.
    let failure = failure_with(|world| {
        world.dns.empty("example.org");
        world.dns.behave_for_addresses("example.org", Behaviour::ServFail);
    });
    assert!(!failure.fatal && failure.text.starts_with(UNRESOLVED), "{failure:?}");
}

#[test]
fn mx_hosts_none_of_which_has_an_address_are_a_temporary_failure() {
    let failure = failure_with(|world| {
        world.dns.mx("example.org", 10, "nowhere.example.org");
        world.dns.mx("example.org", 20, "empty.example.org");
        world.dns.empty("empty.example.org");
        // RFC 5321 section 5.1: unusable MX are an error, the domain's own address is not used.
        world.dns.a("example.org", unique_loopback().into());
    });
    assert!(!failure.fatal && failure.text.starts_with("Failed to reach any MX"), "{failure:?}");
}

/// Addresses that belong to no single host, which a name server may return.
const NOWHERE: [&str; 7] =
    ["0.0.0.0", "0.0.0.1", "224.0.0.1", "255.255.255.255", "::", "ff02::1", "::ffff:0.0.0.0"];

#[test]
fn a_domain_whose_only_addresses_are_no_destinations_is_as_one_without() {
    for address in NOWHERE {
        let failure = failure_with(|world| world.dns.a("example.org", address.parse().unwrap()));
        let text = format!("{UNRESOLVED}: the domain example.org has neither MX records nor addresses");
        assert!(failure.fatal && failure.text.starts_with(&text), "{address}: {failure:?}");
    }
}

#[test]
fn mx_hosts_whose_addresses_are_no_destinations_are_a_temporary_failure() {
    let failure = failure_with(|world| {
        world.dns.mx("example.org", 10, "nowhere.example.org");
        for address in NOWHERE {
            world.dns.a("nowhere.example.org", address.parse().unwrap());
        }
    });
    let text = "Failed to reach any MX: the host nowhere.example.org has no address that mail can be sent to";
    assert!(!failure.fatal && failure.text.starts_with(text), "{failure:?}");
}

#[test]
fn an_address_that_is_no_destination_is_passed_over() {
    let (world, server) = World::with_server(Script::new());
    world.dns.a("mx.example.org", "0.0.0.0".parse().unwrap());
    world.dns.a("mx.example.org", "::".parse().unwrap());
    assert_eq!(world.failures_after_a_pass(&Mail::to("a@example.org")), []);
    assert_eq!(server.records().accepted().len(), 1);
}

#[test]
fn an_address_literal_that_is_no_destination_bounces_at_once() {
    let world = World::new();
    for address in NOWHERE {
        let tag = if address.contains(':') { "IPv6:" } else { "" };
        world.insert(&Mail::to(&format!("a@[{tag}{address}]")).data(address));
    }
    let daemon = world.start();
    for bounce in world.database.wait_for_bounces(NOWHERE.len()) {
        let text = String::from_utf8(bounce.data.unwrap()).unwrap();
        assert!(text.contains("mail cannot be sent to the address"), "{text}");
    }
    daemon.terminate();
}

#[test]
fn a_domain_without_mx_is_its_own_host() {
    // RFC 5321 section 5.1, the implicit MX.
    let (world, server) = bare_world();
    world.dns.a("example.org", server.ip());
    assert_eq!(world.failures_after_a_pass(&Mail::to("a@example.org")), []);
    assert_eq!(server.records().accepted().len(), 1);
}

#[test]
fn a_domain_with_mx_is_not_its_own_host() {
    let (world, server) = bare_world();
    let own = SmtpServer::start_beside(Script::new(), &server);
    world.dns.a("example.org", own.ip());
    world.route("example.org", &server);
    assert_eq!(world.failures_after_a_pass(&Mail::to("a@example.org")), []);
    assert_eq!(server.records().accepted().len(), 1);
    assert!(own.records().connections.is_empty());
}

#[test]
fn an_alias_is_followed_for_the_domain_and_for_the_host() {
    // RFC 5321 section 5.1 for the domain; hosts that are aliases are not allowed but common.
    let (world, server) = bare_world();
    world.dns.cname("example.org", "real.example");
    world.dns.mx("real.example", 10, "alias.example");
    world.dns.cname("alias.example", "host.example");
    world.dns.a("host.example", server.ip());
    assert_eq!(world.failures_after_a_pass(&Mail::to("a@example.org")), []);
    assert_eq!(server.records().delivered_to(), ["a@example.org"]);
}

#[test]
fn an_alias_that_leads_to_itself_ends() {
    let failure = failure_with(|world| {
        world.dns.cname("example.org", "loop.example");
        world.dns.cname("loop.example", "example.org");
    });
    assert!(failure.text.starts_with(UNRESOLVED), "{failure:?}");
}

#[test]
fn a_truncated_answer_is_asked_for_again_over_tcp() {
    // RFC 7766; an empty truncated answer is not "no MX".
    let (world, server) = World::with_server(Script::new());
    world.dns.behave("example.org", Behaviour::Truncate);
    world.dns.behave("mx.example.org", Behaviour::Truncate);
    assert_eq!(world.failures_after_a_pass(&Mail::to("a@example.org")), []);
    assert_eq!(server.records().accepted().len(), 1);
    assert!(world.dns.asked().iter().any(|asked| asked.tcp));
}

#[test]
fn answers_that_are_not_to_our_question_are_ignored() {
    for behaviour in [Behaviour::WrongIdFirst, Behaviour::WrongQuestionFirst, Behaviour::GarbageFirst] {
        let (world, server) = World::with_server(Script::new());
        world.dns.behave("example.org", behaviour);
        assert_eq!(world.failures_after_a_pass(&Mail::to("a@example.org")), []);
        assert_eq!(server.records().accepted().len(), 1);
    }
}

#[test]
fn a_lost_query_is_sent_again() {
    let (world, server) = World::with_server(Script::new());
    world.dns.behave("example.org", Behaviour::DropFirst(1));
    assert_eq!(world.failures_after_a_pass(&Mail::to("a@example.org")), []);
    assert_eq!(server.records().accepted().len(), 1);
}

#[test]
fn a_second_resolver_is_asked_when_the_first_fails() {
    for behaviour in [Behaviour::ServFail, Behaviour::Drop] {
        let (mut world, server) = World::with_server(Script::new());
        let broken = DnsServer::start();
        broken.behave("example.org", behaviour.clone());
        broken.behave("mx.example.org", behaviour);
        world.set("resolver", format!("{} {}", broken.address(), world.dns.address()));
        assert_eq!(world.failures_after_a_pass(&Mail::to("a@example.org")), []);
        assert_eq!(server.records().accepted().len(), 1);
    }
}

#[test]
fn an_answer_is_remembered_for_its_time_to_live() {
    let (world, server) = World::with_server(Script::new());
    let daemon = world.start();
    for n in 1..=3 {
        world.insert(&Mail::to(&format!("{n}@example.org")).data(n.to_string()));
        world.database.wait_until_empty();
    }
    assert_eq!(server.records().accepted().len(), 3);
    assert_eq!(world.dns.count("example.org", RecordType::MX), 1);
    assert_eq!(world.dns.count("mx.example.org", RecordType::A), 1);
    daemon.terminate();
}

#[test]
fn a_slow_answer_for_one_domain_does_not_delay_another() {
    let (world, server) = World::with_server(Script::new());
    let gate = Gate::new();
    world.dns.behave("slow.example", Behaviour::Delayed(gate.clone()));
    world.route("slow.example", &server);
    world.insert(&Mail::to("a@slow.example"));
    let daemon = world.start();
    world.dns.wait_for("slow.example");
    world.insert(&Mail::to("b@example.org"));
    assert_eq!(server.wait_for_messages(1).delivered_to(), ["b@example.org"]);
    gate.open();
    daemon.terminate();
}

#[test]
fn names_are_looked_up_absolutely_and_hosts_files_are_not_consulted_for_mail_domains() {
    // `localhost` stands in every hosts file, but a recipient domain of that name is a matter of DNS.
    let (world, server) = bare_world();
    world.dns.a("localhost", server.ip());
    world.insert(&Mail::to("a@localhost"));
    assert_eq!(world.run(&["deliver", "localhost"]).code(), Some(0));
    assert_eq!(server.records().accepted().len(), 1);
}

#[test]
fn an_address_literal_is_connected_to() {
    // RFC 5321 section 4.1.3.
    let (world, server) = bare_world();
    let recipient = format!("a@[{}]", server.ip());
    world.insert(&Mail::to(&recipient));
    let daemon = world.start();
    world.database.wait_until_empty();
    assert_eq!(server.records().delivered_to(), [recipient]);
    assert!(world.dns.asked().is_empty(), "{:?}", world.dns.asked());
    daemon.terminate();
}

#[test]
fn mail_to_addresses_does_not_wait_for_name_servers_that_say_nothing() {
    let (world, server) = bare_world();
    let domains: Vec<String> = (0..1500).map(|number| format!("d{number}.example")).collect();
    let mails: Vec<Mail> = domains.iter().map(|domain| Mail::to(&format!("a@{domain}"))).collect();
    domains.iter().for_each(|domain| world.dns.behave(domain, Behaviour::Drop));
    world.database.insert_all(&mails);
    let daemon = world.start();
    // As many questions as there may be at once.
    world.dns.wait_for("d200.example");
    let recipient = format!("a@[{}]", server.ip());
    let literal = world.insert(&Mail::to(&recipient));
    let relayed =
        world.insert(&Mail::to("a@example.org").remote(&format!("{}:{}", server.ip(), server.port())));
    world.database.wait("mail to addresses is delivered", |database| {
        database.row(literal).is_none() && database.row(relayed).is_none()
    });
    assert_eq!(world.dns.count("d1400.example", RecordType::MX), 0, "most were not asked about yet");
    daemon.terminate();
}

#[test]
fn an_ipv6_address_literal_is_connected_to() {
    if TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_err() {
        crate::support::skip("this machine has no IPv6 loopback address");
        return;
    }
    let mut world = World::new();
    let server = SmtpServer::start_at(Script::new(), SocketAddr::from((Ipv6Addr::LOCALHOST, 0)));
    world.set("portprio", server.port());
    world.insert(&Mail::to("a@[IPv6:::1]"));
    let daemon = world.start();
    world.database.wait_until_empty();
    assert_eq!(server.records().delivered_to(), ["a@[IPv6:::1]"]);
    daemon.terminate();
}

#[test]
fn a_malformed_address_literal_is_fatal() {
    let world = World::new();
    let literals = ["[127.0.0.256]", "[::1]", "[IPv6:xyz]", "[127.0.0.1", "[]"];
    for (n, literal) in literals.iter().enumerate() {
        world.insert(&Mail::to(&format!("a@{literal}")).data(n.to_string()));
    }
    let daemon = world.start();
    world.database.wait_for_bounces(literals.len());
    daemon.terminate();
}

/// A world with a server that no name leads to yet.
fn bare_world() -> (World, SmtpServer) {
    let mut world = World::new();
    let server = SmtpServer::start(Script::new());
    world.set("portprio", server.port());
    (world, server)
}
