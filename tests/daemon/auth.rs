//! AUTH towards handoff remotes (contract, section 5; RFC 4954), verified by the server for real.

use crate::support::smtp_server::SmtpServer;
use crate::support::tls::{Authority, Identity};
use crate::support::{Action, Mail, Script, World};

const USER: &str = "mailer";
const PASSWORD: &str = "s3cret:with@signs";

/// A world, a server, and the outcome of one pass to it with the credentials of the remote.
fn hand_off(script: Script, suffix: &str) -> (World, SmtpServer, Vec<crate::support::database::Failure>) {
    hand_off_as(script, suffix, &format!("{USER}:{PASSWORD}"))
}

fn hand_off_as(
    script: Script,
    suffix: &str,
    credentials: &str,
) -> (World, SmtpServer, Vec<crate::support::database::Failure>) {
    let world = World::new();
    let server = SmtpServer::start(script);
    let remote = format!("{credentials}@{}:{}{suffix}", server.ip(), server.port());
    let id = world.insert(&Mail::to("a@example.org").remote(&remote));
    let finished = world.run(&["handoff", &remote]);
    assert_eq!(finished.code(), Some(0), "{}", finished.stderr);
    let secret = credentials.split_once(':').unwrap().1;
    assert!(!finished.stderr.contains(secret), "the log shows the password:\n{}", finished.stderr);
    let failures = world.database.failures_of(id);
    for failure in &failures {
        assert!(!failure.text.contains(secret), "{failure:?}");
        assert!(!failure.fatal, "no AUTH reply is ever fatal for the mail: {failure:?}");
    }
    (world, server, failures)
}

fn mechanism_used(server: &SmtpServer) -> Option<String> {
    server.records().connections[0].authenticated.clone()
}

#[test]
fn every_mechanism_proves_the_password() {
    for mechanism in ["SCRAM-SHA-256", "CRAM-MD5", "PLAIN", "LOGIN"] {
        let (_world, server, failures) = hand_off(Script::new().auth(mechanism, USER, PASSWORD), "");
        assert_eq!(failures, [], "{mechanism}");
        assert_eq!(mechanism_used(&server).as_deref(), Some(mechanism));
        assert_eq!(server.records().accepted().len(), 1);
    }
}

#[test]
fn the_strongest_offered_mechanism_is_used() {
    let offers = [
        ("LOGIN PLAIN CRAM-MD5 SCRAM-SHA-256", "SCRAM-SHA-256"),
        ("LOGIN PLAIN CRAM-MD5 DIGEST-MD5", "CRAM-MD5"),
        ("LOGIN PLAIN GSSAPI", "PLAIN"),
        ("XOAUTH2 LOGIN", "LOGIN"),
        ("login plain", "PLAIN"),
    ];
    for (offer, expected) in offers {
        let (_world, server, failures) = hand_off(Script::new().lenient().auth(offer, USER, PASSWORD), "");
        assert_eq!(failures, [], "{offer}");
        assert_eq!(mechanism_used(&server).as_deref(), Some(expected), "{offer}");
    }
}

#[test]
fn a_password_with_colons_and_at_signs_and_a_user_with_scram_specials_are_told_apart() {
    // USER ends at the first colon, the credentials at the last at sign.
    let (user, password) = ("a=b,c@d", "p:q@r:s@t");
    for mechanism in ["SCRAM-SHA-256", "PLAIN"] {
        let script = Script::new().auth(mechanism, user, password);
        let (_world, server, failures) = hand_off_as(script, "", &format!("{user}:{password}"));
        assert_eq!(failures, []);
        assert_eq!(mechanism_used(&server).as_deref(), Some(mechanism));
    }
}

#[test]
fn credentials_go_through_tls_with_any_certificate_to_a_loopback_address() {
    let identity = Identity::self_signed(&["nobody.example"]);
    for suffix in ["/starttls", "/TLS"] {
        let script = Script::new();
        let script =
            if suffix == "/TLS" { script.implicit_tls(&identity) } else { script.starttls(&identity) };
        let (_world, server, failures) = hand_off(script.auth("PLAIN", USER, PASSWORD), suffix);
        assert_eq!(failures, [], "{suffix}");
        assert!(server.records().messages[0].tls);
    }
}

/// To loopback addresses credentials go in any case; that they go nowhere else without a valid certificate, tests of the session show.
#[test]
fn the_certificate_of_a_relay_is_verified_for_the_host_that_the_remote_names() {
    let authority = Authority::new();
    for (name, verdict) in [
        ("relay.example.net", ", verified"),
        ("other.example.net", ", unverified"),
        ("client.example", ", unverified"),
    ] {
        let mut world = World::new();
        std::fs::write(world.path("roots.pem"), authority.pem()).unwrap();
        world.set("tls_trustfile", world.path("roots.pem").display());
        let identity = authority.issue(&[name]);
        let script = Script::new().starttls(&identity).auth("SCRAM-SHA-256", USER, PASSWORD);
        let server = SmtpServer::start(script);
        world.dns.a("relay.example.net", server.ip());
        let remote = format!("{USER}:{PASSWORD}@relay.example.net:{}/starttls", server.port());
        world.insert(&Mail::to("a@example.org").remote(&remote));
        let finished = world.run(&["handoff", &remote]);
        assert_eq!((finished.code(), world.database.failures()), (Some(0), vec![]), "{name}");
        assert!(server.records().messages[0].tls, "{name}");
        assert_eq!(mechanism_used(&server).as_deref(), Some("SCRAM-SHA-256"), "{name}");
        assert!(finished.stderr.contains(verdict), "{name}: {}", finished.stderr);
    }
}

#[test]
fn a_remote_with_credentials_is_never_used_without_authentication() {
    let scripts = [
        Script::new(),
        Script::new().keywords(["AUTH GSSAPI XOAUTH2"]),
        Script::new().auth("PLAIN", USER, "another password"),
        Script::new().auth("LOGIN", USER, "another password"),
        Script::new().auth("CRAM-MD5", USER, "another password"),
        Script::new().auth("SCRAM-SHA-256", USER, "another password"),
    ];
    for script in scripts {
        let (world, server, failures) = hand_off(script.lenient(), "");
        assert_eq!(failures.len(), 1, "{failures:?}");
        assert_eq!(server.records().count("MAIL"), 0);
        assert_eq!(world.database.ids().len(), 1);
    }
}

#[test]
fn refused_credentials_are_tried_once_more_with_a_weaker_mechanism() {
    for (offer, strong, weak) in [
        ("SCRAM-SHA-256 CRAM-MD5 PLAIN LOGIN", "SCRAM-SHA-256", "PLAIN"),
        ("CRAM-MD5 LOGIN", "CRAM-MD5", "LOGIN"),
    ] {
        for code in ["504 5.5.4", "534 5.7.9", "535 5.7.8"] {
            let refusal = format!("{code} not by this");
            let script = Script::new().auth(offer, USER, PASSWORD).when(move |c| {
                c.line.starts_with(&format!("AUTH {strong}")).then(|| Action::Reply(refusal.clone()))
            });
            let (_world, server, failures) = hand_off(script, "");
            assert_eq!(failures, [], "{offer} {code}");
            assert_eq!(mechanism_used(&server).as_deref(), Some(weak));
            assert_eq!(server.records().count("AUTH"), 2);
        }
    }
}

#[test]
fn a_relay_that_refuses_the_credentials_twice_is_left_alone_and_its_words_are_kept() {
    let mut world = World::new();
    let script = Script::new().auth("PLAIN LOGIN", USER, PASSWORD).always("AUTH", "535 5.7.8 who are you?");
    let first = SmtpServer::start(script.clone());
    let others = [1, 2].map(|_| SmtpServer::start_beside(script.clone(), &first));
    world.set("auth_insecure", "yes");
    for server in others.iter().chain([&first]) {
        world.dns.a("relay.example.net", server.ip());
    }
    let remote = format!("{USER}:{PASSWORD}@relay.example.net:{}", first.port());
    let id = world.insert(&Mail::to("a@example.org").remote(&remote));
    assert_eq!(world.run(&["handoff", &remote]).code(), Some(0));
    let failures = world.database.failures_of(id);
    assert!(failures.len() == 1 && !failures[0].fatal, "{failures:?}");
    assert!(failures[0].text.starts_with("535 5.7.8 who are you?\n(relay.example.net "), "{failures:?}");
    let count = |server: &SmtpServer| server.records().count("AUTH");
    assert_eq!(others.iter().chain([&first]).map(count).sum::<usize>(), 2);
}

#[test]
fn no_auth_reply_is_fatal_for_the_mail() {
    for reply in [
        "535 5.7.8 bad credentials",
        "534 5.7.9 weak",
        "538 5.7.11 encrypt",
        "530 5.7.0 first TLS",
        "535 5.7.10 encrypt",
        "504 5.7.10 encrypt",
        "454 4.7.0 later",
        "500 what",
        "550 no",
    ] {
        let script = Script::new().auth("PLAIN", USER, PASSWORD).always("AUTH", reply);
        let (_world, server, failures) = hand_off(script, "");
        assert_eq!(failures.len(), 1, "{reply}");
        assert!(failures[0].text.contains(&reply[..3]), "{failures:?}");
        assert_eq!(server.records().count("MAIL"), 0);
    }
}

#[test]
fn a_server_that_does_not_know_the_scram_password_is_not_trusted() {
    // RFC 5802 section 3: the client verifies the ServerSignature.
    let script = Script::new().lenient().auth("SCRAM-SHA-256", USER, PASSWORD).scram_lies();
    let (_world, server, failures) = hand_off(script, "");
    assert_eq!(failures.len(), 1);
    assert_eq!(server.records().count("MAIL"), 0);
}

#[test]
fn a_success_before_the_exchange_is_complete_does_not_pass_for_scram() {
    let script =
        Script::new().lenient().auth("SCRAM-SHA-256", USER, PASSWORD).always("AUTH", "235 2.7.0 welcome");
    let (_world, server, failures) = hand_off(script, "");
    assert_eq!(failures.len(), 1);
    assert_eq!(server.records().count("MAIL"), 0);
}

#[test]
fn a_refused_starttls_keeps_the_credentials_at_home() {
    let identity = Identity::self_signed(&["x.example"]);
    let refusing =
        Script::new().starttls(&identity).auth("PLAIN", USER, PASSWORD).always("STARTTLS", "454 no");
    let silent = Script::new().auth("PLAIN", USER, PASSWORD);
    for script in [refusing, silent] {
        let (_world, server, failures) = hand_off(script, "/starttls");
        assert_eq!(failures.len(), 1);
        assert_eq!(server.records().count("AUTH"), 0);
        assert_eq!(server.records().count("MAIL"), 0);
    }
}

#[test]
fn mail_without_credentials_does_not_authenticate() {
    let (world, server) = World::with_server(Script::new().auth("PLAIN LOGIN", USER, PASSWORD));
    assert_eq!(world.failures_after_a_pass(&Mail::to("a@example.org")), []);
    assert_eq!(server.records().count("AUTH"), 0);
}

#[test]
fn the_mechanisms_offered_inside_tls_are_those_that_count() {
    let identity = Identity::self_signed(&["x.example"]);
    let script =
        Script::new().auth("PLAIN", USER, PASSWORD).starttls(&identity).keywords_in_tls(["AUTH CRAM-MD5"]);
    let (_world, server, failures) = hand_off(script, "/starttls");
    assert_eq!(failures, []);
    assert_eq!(mechanism_used(&server).as_deref(), Some("CRAM-MD5"));
}

#[test]
fn an_echo_of_the_credentials_by_the_server_is_not_stored() {
    use base64::Engine;
    let token = base64::engine::general_purpose::STANDARD.encode(format!("\0{USER}\0{PASSWORD}"));
    let echo = format!("535 5.7.8 rejected AUTH PLAIN {token} {PASSWORD}");
    let script = Script::new().auth("PLAIN", USER, PASSWORD).always("AUTH", Action::Reply(echo));
    let (_world, _server, failures) = hand_off(script, "");
    assert_eq!(failures.len(), 1);
    assert!(!failures[0].text.contains(&token), "{failures:?}");
}

#[test]
fn secrets_do_not_reach_the_log_at_the_highest_verbosity() {
    use base64::Engine;
    let mut world = World::new();
    world.set("verbosity", 4);
    let server = SmtpServer::start(Script::new().auth("PLAIN", USER, PASSWORD));
    let remote = format!("{USER}:{PASSWORD}@{}:{}", server.ip(), server.port());
    world.insert(&Mail::to("a@example.org").remote(&remote));
    let daemon = world.start();
    world.database.wait_until_empty();
    let log = daemon.terminate();
    let token = base64::engine::general_purpose::STANDARD.encode(format!("\0{USER}\0{PASSWORD}"));
    assert!(!log.contains(PASSWORD) && !log.contains(&token), "{log}");
}
