//! Remote specifications: `[USER:PASSWORD@]HOST[:PORT[/MODE]]` (contract, section 4).

use crate::support::smtp_server::SmtpServer;
use crate::support::tls::Identity;
use crate::support::{Mail, Script, World, unique_loopback};
use std::net::{Ipv6Addr, SocketAddr, TcpListener};

/// Inserts one mail for the remote, makes one pass, and returns the mail's failures.
fn pass(world: &World, remote: &str) -> Vec<crate::support::database::Failure> {
    let id = world.insert(&Mail::to("a@anywhere.example").remote(remote));
    let finished = world.run(&["handoff", remote]);
    assert_eq!(finished.code(), Some(0), "{}", finished.stderr);
    world.database.failures_of(id)
}

#[test]
fn an_address_with_a_port_is_connected_to_in_plain_text() {
    let identity = Identity::self_signed(&["x.example"]);
    let (world, server) = (World::new(), SmtpServer::start(Script::new().starttls(&identity)));
    assert_eq!(pass(&world, &format!("{}:{}", server.ip(), server.port())), []);
    let records = server.records();
    assert_eq!(records.delivered_to(), ["a@anywhere.example"]);
    assert!(!records.messages[0].tls, "no mode means plain text");
    assert!(world.dns.asked().is_empty());
}

#[test]
fn the_mode_is_read_without_regard_to_case() {
    let identity = Identity::self_signed(&["x.example"]);
    for (mode, script) in [
        ("starttls", Script::new().starttls(&identity)),
        ("StartTLS", Script::new().starttls(&identity)),
        ("tls", Script::new().implicit_tls(&identity)),
        ("TLS", Script::new().implicit_tls(&identity)),
    ] {
        let (world, server) = (World::new(), SmtpServer::start(script));
        assert_eq!(pass(&world, &format!("{}:{}/{mode}", server.ip(), server.port())), [], "{mode}");
        assert!(server.records().messages[0].tls);
    }
}

#[test]
fn the_portprio_list_is_used_without_a_port() {
    let (mut world, server) = (World::new(), SmtpServer::start(Script::new()));
    let closed = TcpListener::bind((unique_loopback(), 0)).unwrap().local_addr().unwrap().port();
    world.set("portprio", format!("{closed} {}", server.port()));
    assert_eq!(pass(&world, &server.ip().to_string()), []);
    assert_eq!(server.records().accepted().len(), 1);
}

#[test]
fn a_name_is_looked_up_as_an_address_not_as_an_mx() {
    let (world, server) = (World::new(), SmtpServer::start(Script::new()));
    world.dns.mx("relay.example.net", 10, "wrong.example.net");
    world.dns.a("relay.example.net", server.ip());
    assert_eq!(pass(&world, &format!("relay.example.net:{}", server.port())), []);
    assert!(world.dns.asked().iter().all(|asked| asked.name == "relay.example.net"));
    assert_eq!(world.dns.count("relay.example.net", hickory_proto::rr::RecordType::MX), 0);
}

#[test]
fn the_hosts_file_is_consulted_for_handoff_names() {
    let hosts = std::fs::read_to_string("/etc/hosts").unwrap_or_default();
    let line =
        |line: &str| line.starts_with("127.0.0.1") && line.split_whitespace().any(|word| word == "localhost");
    if !hosts.lines().any(line) {
        crate::support::skip("/etc/hosts does not say that localhost is 127.0.0.1");
        return;
    }
    let server = SmtpServer::start_at(Script::new(), SocketAddr::from(([127, 0, 0, 1], 0)));
    let world = World::new();
    assert_eq!(pass(&world, &format!("LocalHost:{}", server.port())), []);
    assert_eq!(server.records().accepted().len(), 1);
}

#[test]
fn an_ipv6_address_stands_in_brackets() {
    if TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_err() {
        crate::support::skip("this machine has no IPv6 loopback address");
        return;
    }
    let server = SmtpServer::start_at(Script::new(), SocketAddr::from((Ipv6Addr::LOCALHOST, 0)));
    assert_eq!(pass(&World::new(), &format!("[::1]:{}", server.port())), []);
    assert_eq!(server.records().accepted().len(), 1);
}

#[test]
fn a_malformed_remote_is_a_temporary_failure_without_the_secret() {
    let remotes = [
        "user:hunter2@",
        "user:hunter2@:25",
        "user:hunter2@host.example:0",
        "user:hunter2@host.example:65536",
        "user:hunter2@host.example:25/ssl",
        "user:hunter2@host.example:smtp",
        "user:hunter2@[::1",
        "user:hunter2@[xyz]",
        "hunter2@host.example",
        "user:@host.example",
        ":hunter2@host.example",
        "user:hunter2@host.example/tls",
        "host.example:",
        "ho st.example",
        "host.example:25/",
        "0.0.0.0:25",
        "user:hunter2@[::]:25/tls",
        "255.255.255.255",
    ];
    for remote in remotes {
        let world = World::new();
        let failures = pass(&world, remote);
        assert_eq!(failures.len(), 1, "{remote:?}: {failures:?}");
        assert!(!failures[0].fatal, "{remote:?}: {failures:?}");
        assert!(!failures[0].text.contains("hunter2") && !failures[0].text.is_empty(), "{failures:?}");
    }
}

#[test]
fn a_handoff_host_that_does_not_resolve_is_a_temporary_failure_even_if_it_does_not_exist() {
    let failures = pass(&World::new(), "user:hunter2@nowhere.example:25");
    assert_eq!(failures.len(), 1);
    assert!(!failures[0].fatal && !failures[0].text.contains("hunter2"), "{failures:?}");
    let words = "Failed to connect or negotiate with handoff remote";
    assert!(failures[0].text.starts_with(words), "{failures:?}");
}

#[test]
fn a_handoff_remote_that_does_not_listen_is_told_in_the_old_words() {
    let failures = pass(&World::new(), &format!("{}:1", unique_loopback()));
    assert!(
        failures[0].text.starts_with("Failed to connect or negotiate with handoff remote"),
        "{failures:?}"
    );
}

#[test]
fn recipients_of_any_domain_share_a_transaction_to_their_remote() {
    let (world, server) = (World::new(), SmtpServer::start(Script::new()));
    let remote = server.address().to_string();
    world
        .database
        .insert_all(&[Mail::to("a@one.example").remote(&remote), Mail::to("b@two.example").remote(&remote)]);
    let daemon = world.start();
    world.database.wait_until_empty();
    let records = server.records();
    assert_eq!(records.messages.len(), 1, "{}", records.transcript());
    assert_eq!(records.delivered_to(), ["a@one.example", "b@two.example"]);
    daemon.terminate();
}

#[test]
fn deliver_takes_only_the_due_mail_of_that_domain() {
    let (world, server) = World::with_server(Script::new());
    world.route("other.example", &server);
    let ids = world.database.insert_all(&[
        Mail::to("a@Example.ORG"),
        Mail::to("b@other.example"),
        Mail::to("c@example.org").remote(&server.address().to_string()),
    ]);
    assert_eq!(world.run(&["deliver", "EXAMPLE.org"]).code(), Some(0));
    assert!(!world.database.ids().contains(&ids[0]));
    assert!(world.database.ids().contains(&ids[1]));
    assert!(server.records().delivered_to().contains(&"a@Example.ORG".to_owned()));
}

#[test]
fn handoff_takes_only_the_due_mail_with_exactly_that_remote() {
    let (world, server) = World::with_server(Script::new());
    let remote = server.address().to_string();
    let ids = world.database.insert_all(&[
        Mail::to("a@example.org").remote(&remote),
        Mail::to("b@example.org"),
        Mail::to("c@example.org").remote(&format!("{remote}/starttls")),
    ]);
    assert_eq!(world.run(&["handoff", &remote]).code(), Some(0));
    assert_eq!(world.database.ids(), ids[1..]);
    assert_eq!(server.records().delivered_to(), ["a@example.org"]);
}

#[test]
fn one_shot_modes_honour_the_retry_interval_and_make_no_bounces() {
    let (world, server) = World::with_server(Script::new());
    let ids = world.database.insert_all(&[
        Mail::to("recent@example.org"),
        Mail::to("fatal@example.org"),
        Mail::to("given.up@example.org"),
        Mail::to("old@example.org"),
    ]);
    world.database.insert_failure(ids[0], "450 later", false, 10);
    world.database.insert_failure(ids[1], "550 no", true, 100_000);
    (0..5).for_each(|n| world.database.insert_failure(ids[2], "450 later", false, 100_000 + n));
    world.database.insert_failure(ids[3], "450 later", false, 100_000);
    assert_eq!(world.run(&["deliver", "example.org"]).code(), Some(0));
    assert_eq!(server.records().delivered_to(), ["old@example.org"]);
    assert_eq!(world.database.ids(), ids[..3]);
}

#[test]
fn a_one_shot_mode_with_nothing_to_do_ends_well() {
    let world = World::new();
    for words in [["deliver", "example.org"], ["handoff", "relay.example"]] {
        assert_eq!(world.run(&words).code(), Some(0));
    }
    assert_eq!(world.run(&["genbounces"]).code(), Some(0));
}

#[test]
fn deliver_understands_a_domain_of_u_labels() {
    let (world, server) = World::with_server(Script::new());
    world.route("xn--bcher-kva.example", &server);
    world.database.insert_all(&[Mail::to("a@b\u{fc}cher.example"), Mail::to("b@xn--bcher-kva.example")]);
    assert_eq!(world.run(&["deliver", "B\u{dc}CHER.example"]).code(), Some(0));
    assert_eq!(server.records().delivered_to().len(), 2);
    assert!(world.database.ids().is_empty());
}

#[test]
fn a_remote_whose_only_address_is_no_destination_is_a_temporary_failure() {
    let world = World::new();
    world.dns.a("relay.example.net", "0.0.0.0".parse().unwrap());
    let failures = pass(&world, "relay.example.net:25");
    let text = "Failed to connect or negotiate with handoff remote: the host relay.example.net has no address that mail can be sent to";
    assert!(failures.len() == 1 && !failures[0].fatal && failures[0].text.starts_with(text), "{failures:?}");
}
