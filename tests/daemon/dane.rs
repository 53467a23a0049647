//! DANE (RFC 7672): TLSA records that DNSSEC vouches for say how a server must prove itself.

use crate::support::dns_server::Asked;
use crate::support::smtp_server::SmtpServer;
use crate::support::tls::{Authority, Identity};
use crate::support::{Behaviour, Mail, Script, World};
use hickory_proto::rr::RecordType;

const HOST: &str = "mx.example.org";
/// The digest of a key that nobody has.
const WRONG: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

/// A world with one MX, whose port is tried with STARTTLS and then without, and whose name server says that DNSSEC vouches for all of it.
fn world(script: Script, level: &str) -> (World, SmtpServer) {
    let (mut world, server) = World::with_server(script);
    world.dns.sign();
    world.set("portprio", format!("{0}@starttls {0}", server.port()));
    world.set("tls_policy", format!("* {level}"));
    (world, server)
}

fn tlsa_name(server: &SmtpServer) -> String {
    format!("_{}._tcp.{HOST}", server.port())
}

fn delivered(world: &World, server: &SmtpServer) {
    assert_eq!(world.failures_after_a_pass(&Mail::to("a@example.org")), []);
    let records = server.records();
    assert!(records.messages.len() == 1 && records.messages[0].tls, "{}", records.transcript());
}

/// Expects that mail fails temporarily for this reason, and that nothing of it was said to the server.
fn refused(world: &World, server: &SmtpServer, reason: &str) {
    let failure = world.failure_after_a_pass(&Mail::to("a@example.org"));
    assert!(!failure.fatal && failure.text.contains(reason), "{failure:?}");
    let records = server.records();
    assert_eq!((records.count("MAIL"), records.messages.len()), (0, 0), "{}", records.transcript());
}

#[test]
fn the_server_must_have_a_key_that_the_records_name_whatever_its_certificate_says() {
    let identity = Identity::self_signed(&["another.example"]);
    for level in ["dane", "dane-only"] {
        let (world, server) = world(Script::new().starttls(&identity), level);
        world.dns.tlsa(HOST, server.port(), [3, 1, 1], WRONG);
        world.dns.tlsa(HOST, server.port(), [3, 1, 1], &identity.pin());
        delivered(&world, &server);
    }
    let (world, server) = world(Script::new().starttls(&identity), "dane");
    world.dns.tlsa(HOST, server.port(), [3, 1, 1], WRONG);
    refused(&world, &server, "it matches none of the TLSA records (DANE)");
}

#[test]
fn an_authority_that_the_records_name_vouches_for_the_name_of_the_host_or_of_the_domain() {
    let authority = Authority::new();
    for (names, is_good) in [(&[HOST][..], true), (&["example.org"], true), (&["another.example"], false)] {
        let (world, server) = world(Script::new().starttls(&authority.issue_in_chain(names)), "dane");
        world.dns.tlsa(HOST, server.port(), [2, 1, 1], &authority.pin());
        if is_good {
            delivered(&world, &server);
        } else {
            refused(&world, &server, "it is for another name (DANE)");
        }
    }
}

#[test]
fn no_mail_leaves_in_plain_text_where_there_are_records() {
    let unusable = ([1, 1, 1], WRONG);
    for (parameters, data) in [unusable, ([3, 1, 1], WRONG)] {
        let (world, server) = world(Script::new(), "dane");
        world.dns.tlsa(HOST, server.port(), parameters, data);
        refused(&world, &server, "STARTTLS is not offered, but DANE needs it");
    }
    // Records that prove nothing demand no proof.
    let (world, server) = world(Script::new().starttls(&Identity::self_signed(&[HOST])), "dane");
    world.dns.tlsa(HOST, server.port(), unusable.0, unusable.1);
    delivered(&world, &server);
}

#[test]
fn where_records_leave_no_port_they_are_what_is_told() {
    let (mut world, server) = world(Script::new(), "dane");
    world.set("portprio", server.port());
    world.dns.tlsa(HOST, server.port(), [3, 1, 1], WRONG);
    refused(&world, &server, &format!("no port to try at {HOST} is protected as DANE needs it"));
}

#[test]
fn records_that_cannot_be_looked_up_rule_the_host_out() {
    for behaviour in [Behaviour::ServFail, Behaviour::Refused, Behaviour::Drop] {
        let identity = Identity::self_signed(&[HOST]);
        let (world, server) = world(Script::new().starttls(&identity), "dane");
        world.dns.tlsa(HOST, server.port(), [3, 1, 1], &identity.pin());
        world.dns.behave(&tlsa_name(&server), behaviour);
        refused(&world, &server, &format!("looking up the TLSA records of {} failed", tlsa_name(&server)));
    }
}

#[test]
fn hosts_that_dnssec_does_not_vouch_for_are_not_asked_for_records() {
    let (world, server) = world(Script::new(), "dane");
    world.dns.tlsa(HOST, server.port(), [3, 1, 1], WRONG);
    world.dns.leave_unsigned(HOST);
    assert_eq!(world.failures_after_a_pass(&Mail::to("a@example.org")), []);
    assert_eq!(server.records().messages.len(), 1, "as if there were no line");
    assert_eq!(world.dns.count(&tlsa_name(&server), RecordType::TLSA), 0);
}

#[test]
fn dane_only_needs_records_and_secure_mx_records() {
    let identity = Identity::self_signed(&[HOST]);
    let (world, server) = world(Script::new().starttls(&identity), "dane-only");
    refused(&world, &server, "has no TLSA records that can be used");
    let (world, server) = self::world(Script::new().starttls(&identity), "dane-only");
    world.dns.tlsa(HOST, server.port(), [3, 1, 1], &identity.pin());
    world.dns.leave_unsigned("example.org");
    refused(&world, &server, "DNSSEC does not vouch for the MX records of example.org");
}

#[test]
fn a_name_server_that_is_not_believed_or_does_not_validate_turns_dane_off_and_the_log_says_so() {
    let (mut world, server) = world(Script::new(), "dane");
    world.dns.tlsa(HOST, server.port(), [3, 1, 1], WRONG);
    world.set("dnssec", "off");
    assert_eq!(world.failures_after_a_pass(&Mail::to("a@example.org")), []);
    assert_eq!(server.records().messages.len(), 1);
    assert_eq!(world.dns.count(&tlsa_name(&server), RecordType::TLSA), 0);

    let (mut world, server) = World::with_server(Script::new());
    world.set("portprio", server.port());
    world.set("tls_policy", "* dane");
    let daemon = world.start();
    daemon.wait_for_output("does not validate by DNSSEC, or does not say so");
    daemon.terminate();
}

#[test]
fn without_a_line_that_wants_it_nothing_is_asked_about_security() {
    let (mut world, server) = World::with_server(Script::new());
    world.dns.sign();
    world.dns.tlsa(HOST, server.port(), [3, 1, 1], WRONG);
    world.set("portprio", server.port());
    assert_eq!(world.failures_after_a_pass(&Mail::to("a@example.org")), []);
    let asked = world.dns.asked();
    let is_usual =
        |asked: &Asked| matches!(asked.record_type, RecordType::MX | RecordType::A | RecordType::AAAA);
    assert!(asked.iter().all(is_usual), "{asked:?}");
}
