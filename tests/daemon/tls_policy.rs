//! What `tls_policy` lines need of TLS, at the servers that mail goes to.

use nix::sys::signal::Signal;

use crate::support::smtp_server::SmtpServer;
use crate::support::tls::{Authority, Identity};
use crate::support::{Mail, Script, World, tool};

const HOST: &str = "mx.example.org";

/// A world with one MX whose port is tried with STARTTLS and then without, and that trusts this authority.
fn world(script: Script, authority: &Authority, line: &str) -> (World, SmtpServer) {
    let (mut world, server) = World::with_server(script);
    std::fs::write(world.path("roots.pem"), authority.pem()).unwrap();
    world.set("tls_trustfile", world.path("roots.pem").display());
    world.set("portprio", format!("{0}@starttls {0}", server.port()));
    world.set("tls_policy", line);
    (world, server)
}

fn one_mail() -> Mail {
    Mail::to("a@example.org")
}

/// Expects that mail is delivered inside TLS.
fn delivered(identity: &Identity, authority: &Authority, line: &str) {
    let (world, server) = world(Script::new().starttls(identity), authority, line);
    assert_eq!(world.failures_after_a_pass(&one_mail()), [], "{line}");
    let records = server.records();
    assert!(records.messages.len() == 1 && records.messages[0].tls, "{line}: {}", records.transcript());
}

/// Expects that mail fails temporarily, for this reason, and that nothing of it was said to the server.
fn refused(script: Script, authority: &Authority, line: &str, reason: &str, status: &str) {
    let (world, server) = world(script, authority, line);
    let failure = world.failure_after_a_pass(&one_mail());
    assert!(!failure.fatal, "{line}: {failure:?}");
    assert!(failure.text.contains(reason) && failure.text.contains(status), "{line}: {failure:?}");
    let records = server.records();
    assert_eq!((records.count("MAIL"), records.messages.len()), (0, 0), "{line}: {}", records.transcript());
}

#[test]
fn each_level_takes_the_certificates_that_it_should() {
    let (authority, other) = (Authority::new(), Authority::new());
    let named = authority.issue(&[HOST]);
    let expired = authority.issue_expired(HOST);
    let of_another_name = authority.issue(&["relay.example.net"]);
    let (own, stranger) = (Identity::self_signed(&[HOST]), other.issue(&[HOST]));
    let pin = |identity: &Identity| format!("example.org pin spki={}", identity.pin());

    for identity in [&named, &expired, &of_another_name, &own, &stranger] {
        for level in ["* may", "example.org encrypt", ".org encrypt min=1.3", &pin(identity)] {
            delivered(identity, &authority, level);
        }
    }
    for line in ["* verify", "example.org verify", &format!(".org verify names=a.example:{HOST}")] {
        delivered(&named, &authority, line);
        for (identity, reason) in [
            (&expired, "it has expired (tls_policy)"),
            (&of_another_name, "it is for another name (tls_policy)"),
            (&own, "by an authority that is not trusted (tls_policy)"),
        ] {
            refused(Script::new().starttls(identity), &authority, line, reason, "4.7.5");
        }
        refused(Script::new().starttls(&stranger), &authority, line, "(tls_policy)", "4.7.5");
    }
    delivered(&of_another_name, &authority, "example.org verify names=.example.net");
    let reason = "its key is none of those that are pinned (tls_policy)";
    refused(Script::new().starttls(&named), &authority, &pin(&own), reason, "4.7.5");
    // Of several keys one is enough.
    delivered(&named, &authority, &format!("{} spki={}", pin(&own), named.pin()));
}

#[test]
fn mail_never_goes_in_plain_text_where_tls_is_needed() {
    let authority = Authority::new();
    let identity = authority.issue(&[HOST]);
    let reason = "STARTTLS is not offered, but tls_policy needs it";
    for line in ["* encrypt", "example.org verify", &format!("example.org pin spki={}", identity.pin())] {
        refused(Script::new(), &authority, line, reason, "4.7.4");
        let stripped = Script::new().starttls(&identity).always("STARTTLS", "454 4.7.0 not available");
        refused(stripped, &authority, line, "454 4.7.0 not available", "STARTTLS");
    }
}

#[test]
fn a_port_without_tls_is_none_where_tls_is_needed() {
    let (mut world, server) = World::with_server(Script::new());
    world.set("portprio", server.port());
    world.set("tls_policy", "example.org encrypt");
    let failure = world.failure_after_a_pass(&one_mail());
    let reason = "no port to try at mx.example.org is protected as tls_policy needs it";
    assert!(!failure.fatal && failure.text.contains(reason), "{failure:?}");
    assert!(failure.text.contains("4.7.4"), "{failure:?}");
    assert_eq!(server.records().connections.len(), 0);
}

#[test]
fn the_level_none_never_tries_tls() {
    let authority = Authority::new();
    let identity = authority.issue(&[HOST]);
    let (world, server) = world(Script::new().starttls(&identity), &authority, "example.org none");
    assert_eq!(world.failures_after_a_pass(&one_mail()), []);
    let records = server.records();
    assert!(!records.messages[0].tls);
    assert_eq!((records.connections.len(), records.count("STARTTLS")), (1, 0), "{}", records.transcript());
}

#[test]
fn the_line_that_names_a_destination_most_closely_holds() {
    let authority = Authority::new();
    let own = Identity::self_signed(&[HOST]);
    let (mut world, server) = world(Script::new().starttls(&own), &authority, "* verify");
    world.add("tls_policy", "example.org encrypt");
    world.add("tls_policy", ".org verify");
    assert_eq!(world.failures_after_a_pass(&one_mail()), []);
    assert!(server.records().messages[0].tls);
}

#[test]
fn a_relay_is_judged_by_its_own_line_and_not_by_that_about_all_domains() {
    let authority = Authority::new();
    for (line, goes) in [("* verify", true), ("relay:relay.example.net verify", false)] {
        let own = Identity::self_signed(&["relay.example.net"]);
        let (mut world, server) = world(Script::new().starttls(&own), &authority, line);
        world.dns.a("relay.example.net", server.ip());
        let remote = format!("relay.example.net:{}/starttls", server.port());
        world.unset("portprio");
        world.insert(&Mail::to("a@example.org").remote(&remote));
        world.run(&["handoff", &remote]);
        assert_eq!(server.records().messages.len(), usize::from(goes), "{line}");
        assert_eq!(world.database.failures().is_empty(), goes, "{line}");
    }
}

#[test]
fn a_relay_that_asks_gets_the_certificate_of_the_client_and_others_do_not() {
    let authority = Authority::new();
    let identity = authority.issue(&[HOST, "relay.example.net"]).asking_for_one_of(&authority);
    let (certificate, key) = authority.issue_to_client();
    let (mut world, server) = world(Script::new().starttls(&identity).lenient(), &authority, "* encrypt");
    std::fs::write(world.path("client.pem"), certificate).unwrap();
    std::fs::write(world.path("client.key"), key).unwrap();
    world.set("tls_client_cert", world.path("client.pem").display());
    world.set("tls_client_key", world.path("client.key").display());
    world.dns.a("relay.example.net", server.ip());
    let remote = format!("relay.example.net:{}/starttls", server.port());
    world.insert(&Mail::to("a@example.org").remote(&remote));
    world.run(&["handoff", &remote]);
    assert_eq!(server.records().messages.len(), 1);
    // The same server as an MX.
    assert!(!world.failure_after_a_pass(&one_mail()).fatal);
    assert_eq!(server.records().messages.len(), 1);
    let (certificate, key) = (world.path("client.pem"), world.path("client.key"));
    let line = format!("* encrypt cert={} key={}", certificate.display(), key.display());
    world.set("tls_policy", line);
    world.insert(&Mail::to("b@example.org"));
    world.run(&["deliver", "example.org"]);
    assert_eq!(server.records().messages.len(), 2, "{}", server.records().transcript());
}

#[test]
fn a_key_that_does_not_fit_is_an_error_at_the_start() {
    let authority = Authority::new();
    let (mut world, _server) = world(Script::new(), &authority, "* may");
    std::fs::write(world.path("client.pem"), authority.issue_to_client().0).unwrap();
    std::fs::write(world.path("client.key"), authority.issue_to_client().1).unwrap();
    world.set("tls_client_cert", world.path("client.pem").display());
    let finished = world.run(&["deliver", "example.org"]);
    assert!(finished.stderr.contains("tls_client_key is missing"), "{}", finished.stderr);
    world.set("tls_client_key", world.path("client.key").display());
    let finished = world.run(&["deliver", "example.org"]);
    assert_ne!(finished.code(), Some(0));
    assert!(finished.stderr.contains("cannot be used with the certificate"), "{}", finished.stderr);
}

#[test]
fn a_reload_takes_a_policy_for_the_connections_that_follow() {
    let authority = Authority::new();
    let own = Identity::self_signed(&[HOST]);
    let (mut world, server) = world(Script::new().starttls(&own), &authority, "example.org encrypt");
    world.set("connection_idle", 300);
    let daemon = world.start();
    world.insert(&Mail::to("a@example.org"));
    server.wait_for_messages(1);
    world.database.wait_until_empty();
    world.set("tls_policy", "example.org verify");
    world.write_config();
    daemon.signal(Signal::SIGHUP);
    server.wait_until_closed();
    world.insert(&Mail::to("b@example.org"));
    daemon.wait_for_output("by an authority that is not trusted (tls_policy)");
    assert_eq!(server.records().messages.len(), 1);
    // Whoever is trusted by now may have it.
    world.set("tls_policy", format!("example.org pin spki={}", own.pin()));
    world.write_config();
    daemon.signal(Signal::SIGHUP);
    world.insert(&Mail::to("c@example.org"));
    server.wait_for_messages(2);
    let log = daemon.terminate();
    assert!(log.contains(", pinned: 250"), "{log}");
}

#[test]
fn explain_names_the_line_and_a_probe_proves_it() {
    let authority = Authority::new();
    let own = Identity::self_signed(&[HOST]);
    let script = || Script::new().starttls(&own);
    let (mut world, server) = world(script(), &authority, "* may");
    world.add("tls_policy", format!(".org pin spki={}", "0".repeat(64)));
    let text = tool::run(&world, &["explain", "example.org"]).stdout;
    let line = world.config_text().lines().position(|line| line.contains("pin spki")).unwrap() + 1;
    let told = format!(", by line {line} of the configuration (destination .org)");
    let found = text.lines().find(|line| line.trim_start().starts_with("tls_policy"));
    assert!(found.is_some_and(|found| found.contains("pin spki=0000") && found.ends_with(&told)), "{text}");
    world.add("tls_policy", "relay:relay.example.net verify");
    let line = world.config_text().lines().position(|line| line.contains("relay:")).unwrap() + 1;
    let of_relay = tool::run(&world, &["explain", "relay.example.net:25/starttls"]).stdout;
    let told = format!("verify, by line {line} of the configuration (destination relay:relay.example.net)");
    assert!(of_relay.contains(&told), "{of_relay}");
    // What is tried has TLS.
    assert!(!text.contains("without TLS"), "{text}");
    let found = tool::run(&world, &["probe", "a@example.org"]);
    assert!(
        found.stdout.contains("its key is none of those that are pinned (tls_policy)"),
        "{}",
        found.stdout
    );
    assert_eq!(server.records().count("MAIL"), 0);
    world.add("tls_policy", format!("example.org pin spki={}", own.pin()));
    let found = tool::run(&world, &["probe", "a@example.org"]);
    assert_eq!(found.code(), Some(0), "{}", found.stdout);
    assert!(found.stdout.contains(", pinned"), "{}", found.stdout);
}

#[test]
fn check_prints_each_line_as_it_is_in_effect() {
    let authority = Authority::new();
    let (mut world, _server) = world(Script::new(), &authority, "* encrypt min=1.2");
    world.add("tls_policy", "relay:relay.example.net verify names=a.example");
    let printed = world.run(&["check"]).stdout;
    let has =
        |wanted: &[&str]| printed.lines().any(|line| line.split_whitespace().eq(wanted.iter().copied()));
    assert!(has(&["tls_policy", "*", "encrypt"]), "{printed}");
    assert!(has(&["tls_policy", "relay:relay.example.net", "verify", "names=a.example"]), "{printed}");
    world.add("tls_policy", "remote:relay.example.net may");
    let refused = world.run(&["check"]);
    assert_eq!(refused.code(), Some(1));
    assert!(refused.stderr.contains("is about the same destinations"), "{}", refused.stderr);
}
