//! STARTTLS, implicit TLS, their fallbacks, and padding (contract, section 5; RFC 3207, RFC 8314).

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};

use crate::support::smtp_server::SmtpServer;
use crate::support::tls::{Authority, Identity};
use crate::support::{Action, Mail, Script, World};

fn identity() -> Identity {
    Identity::self_signed(&["mx.example.org"])
}

/// A world with one MX whose port has this mode.
fn world_with(script: Script, mode: &str) -> (World, SmtpServer) {
    let (mut world, server) = World::with_server(script);
    world.set("portprio", format!("{}{mode}", server.port()));
    (world, server)
}

fn one_mail() -> Mail {
    Mail::to("a@example.org")
}

#[test]
fn starttls_is_used_where_port_and_server_offer_it_and_ehlo_is_said_again() {
    // RFC 3207 section 4.2. The certificate is nobody's and for another name: that is of no account here.
    let identity = Identity::self_signed(&["somebody.else.example"]);
    let (world, server) = world_with(Script::new().starttls(&identity), "@starttls");
    assert_eq!(world.failures_after_a_pass(&one_mail()), []);
    let records = server.wait_until_closed();
    assert_eq!(records.connections[0].verbs()[..4], ["EHLO", "STARTTLS", "EHLO", "MAIL"]);
    assert!(records.messages[0].tls);
    assert_eq!(records.connections[0].verbs().last().map(String::as_str), Some("QUIT"));
}

#[test]
fn certificates_that_lead_to_an_authority_in_countless_ways_hold_up_nothing() {
    let (mut world, server) =
        world_with(Script::new().starttls(&Identity::in_a_maze(&["mx.example.org"])), "@starttls");
    // Without a trusted authority nobody would look for one.
    std::fs::write(world.path("roots.pem"), Authority::new().pem()).unwrap();
    world.set("tls_trustfile", world.path("roots.pem").display());
    assert_eq!(world.failures_after_a_pass(&one_mail()), []);
    assert!(server.records().messages[0].tls);
}

#[test]
fn the_suffix_is_read_without_regard_to_case() {
    let (world, server) = world_with(Script::new().starttls(&identity()), "@StartTLS");
    assert_eq!(world.failures_after_a_pass(&one_mail()), []);
    assert!(server.records().messages[0].tls);
}

#[test]
fn starttls_is_not_used_where_the_port_does_not_say_so() {
    let (world, server) = world_with(Script::new().starttls(&identity()), "");
    assert_eq!(world.failures_after_a_pass(&one_mail()), []);
    assert!(!server.records().messages[0].tls);
}

#[test]
fn implicit_tls_is_spoken_from_the_first_octet() {
    let (world, server) = world_with(Script::new().implicit_tls(&identity()), "@tls");
    assert_eq!(world.failures_after_a_pass(&one_mail()), []);
    assert!(server.records().messages[0].tls);
    assert_eq!(server.records().count("STARTTLS"), 0);
}

#[test]
fn the_keywords_from_before_tls_are_forgotten() {
    // RFC 3207 section 4.2.
    let script =
        Script::new().keywords(["SIZE 1000000", "8BITMIME"]).keywords_in_tls([]).starttls(&identity());
    let (world, server) = world_with(script, "@starttls");
    assert_eq!(world.failures_after_a_pass(&one_mail().data("caf\u{e9}\r\n")), []);
    assert_eq!(server.records().messages[0].mail.trim_end(), "MAIL FROM:<sender@client.example>");
}

#[test]
fn a_server_without_starttls_is_not_used_where_only_starttls_is_configured() {
    let (world, server) = world_with(Script::new(), "@starttls");
    let failure = world.failure_after_a_pass(&one_mail());
    assert!(!failure.fatal && failure.text.starts_with("Failed to reach any MX"), "{failure:?}");
    assert_eq!(server.records().count("MAIL"), 0);
}

#[test]
fn the_same_connection_goes_on_when_the_next_entry_differs_only_in_needing_no_tls() {
    let (mut world, server) = World::with_server(Script::new());
    world.set("portprio", format!("{0}@starttls {0}", server.port()));
    assert_eq!(world.failures_after_a_pass(&one_mail()), []);
    let records = server.records();
    assert_eq!(records.connections.len(), 1, "{}", records.transcript());
    assert_eq!(records.accepted().len(), 1);
}

#[test]
fn a_refused_starttls_leads_to_the_next_candidate_by_a_new_connection() {
    for refusal in ["454 4.7.0 not available", "502 5.5.1 no", "501 syntax"] {
        let script = Script::new().starttls(&identity()).always("STARTTLS", refusal);
        let (mut world, server) = World::with_server(script);
        world.set("portprio", format!("{0}@starttls {0}", server.port()));
        assert_eq!(world.failures_after_a_pass(&one_mail()), [], "{refusal}");
        let records = server.records();
        assert_eq!(records.connections.len(), 2, "{}", records.transcript());
        assert_eq!(records.messages[0].connection, 1);
    }
}

#[test]
fn a_failed_handshake_leads_to_the_next_candidate() {
    let script = Script::new().lenient().keywords(["STARTTLS"]).always(
        "STARTTLS",
        Action::ReplyThenClose("220 go\r\nthis is no TLS record at all, however long one looks at it".into()),
    );
    let (mut world, server) = World::with_server(script);
    world.set("portprio", format!("{0}@starttls {0}", server.port()));
    assert_eq!(world.failures_after_a_pass(&one_mail()), []);
    assert_eq!(server.records().connections.len(), 2);
    assert!(!server.records().messages[0].tls);
}

#[test]
fn implicit_tls_to_a_plain_text_server_leads_to_the_next_candidate() {
    let (mut world, server) = World::with_server(Script::new().lenient());
    world.set("portprio", format!("{0}@tls {0}", server.port()));
    assert_eq!(world.failures_after_a_pass(&one_mail()), []);
    assert_eq!(server.records().accepted().len(), 1);
}

#[test]
fn plain_text_injected_after_starttls_is_discarded_or_ends_the_connection() {
    // RFC 3207 section 6. Taken for replies of the encrypted session, the injected lines would shift all.
    let injected = b"220 go\r\n250-injected\r\n250 AUTH PLAIN LOGIN\r\n250 ok\r\n".to_vec();
    let script =
        Script::new().lenient().starttls(&identity()).always("STARTTLS", Action::RawThenTls(injected));
    let (mut world, server) = World::with_server(script);
    world.set("portprio", format!("{0}@starttls {0}", server.port()));
    assert_eq!(world.failures_after_a_pass(&one_mail()), []);
    let records = server.records();
    assert_eq!(records.accepted().len(), 1, "{}", records.transcript());
    for connection in &records.connections {
        assert!(!connection.commands().iter().any(|line| line.starts_with("AUTH")));
    }
}

#[test]
fn a_large_message_arrives_whole_through_tls() {
    let (world, server) = world_with(Script::new().starttls(&identity()), "@starttls");
    let data: String = (0..40_000).map(|n| format!(".line {n} with some words in it\r\n")).collect();
    assert_eq!(world.failures_after_a_pass(&one_mail().data(&data)), []);
    assert!(server.records().messages[0].data == data.as_bytes());
}

/// How many padding commands stand before the first MAIL of each connection.
fn padding(server: &SmtpServer) -> Vec<usize> {
    let records = server.records();
    let counts = records.connections.iter().map(|connection| {
        let verbs = connection.verbs();
        let before = verbs.iter().take_while(|verb| *verb != "MAIL");
        before.filter(|verb| *verb == "NOOP" || *verb == "RSET").count()
    });
    counts.collect()
}

#[test]
fn padding_is_sent_inside_tls_only_and_not_more_than_configured() {
    let (mut world, server) = world_with(Script::new().starttls(&identity()), "@starttls");
    world.set("tls_padding", 3).set("destination_concurrency", 1);
    for n in 0..12 {
        world.insert(&one_mail().data(n.to_string()));
        assert_eq!(world.run(&["deliver", "example.org"]).code(), Some(0));
    }
    let counts = padding(&server);
    assert_eq!(counts.len(), 12);
    assert!(counts.iter().all(|count| *count <= 3), "{counts:?}");
    // Twelve zeros in a row have a probability of 4 to the -12.
    assert!(counts.iter().any(|count| *count > 0), "{counts:?}");
    for connection in server.records().connections {
        let padded = connection.lines.iter().filter(|line| line.text.starts_with(b"NOOP"));
        assert!(padded.into_iter().all(|line| line.tls));
    }
}

#[test]
fn no_padding_is_sent_in_plain_text_or_when_it_is_switched_off() {
    let (mut world, server) = world_with(Script::new(), "");
    world.set("tls_padding", 1000);
    assert_eq!(world.failures_after_a_pass(&one_mail()), []);
    assert_eq!(padding(&server), [0]);
    let (mut world, server) = world_with(Script::new().starttls(&identity()), "@starttls");
    world.set("tls_padding", 0);
    assert_eq!(world.failures_after_a_pass(&one_mail()), []);
    assert_eq!(padding(&server), [0]);
}

#[test]
fn after_an_error_in_reply_to_padding_the_session_goes_on_without() {
    let script = Script::new().starttls(&identity()).always("NOOP", "502 no").when(|c| {
        // RSET before MAIL is padding too.
        (c.verb == "RSET").then(|| "502 no".into())
    });
    let (mut world, server) = world_with(script, "@starttls");
    world.set("tls_padding", 1000);
    assert_eq!(world.failures_after_a_pass(&one_mail()), []);
    let records = server.records();
    assert_eq!(records.accepted().len(), 1);
    assert!(padding(&server)[0] <= 1, "{}", records.transcript());
}

#[test]
fn a_server_that_drops_during_padding_is_connected_to_once_more_without() {
    let script = Script::new()
        .lenient()
        .starttls(&identity())
        .when(|c| (c.verb == "NOOP" || c.verb == "RSET").then_some(Action::Close));
    let (mut world, server) = world_with(script, "@starttls");
    world.set("tls_padding", 1000);
    assert_eq!(world.failures_after_a_pass(&one_mail()), []);
    let records = server.records();
    assert_eq!(records.accepted().len(), 1, "{}", records.transcript());
    assert_eq!(padding(&server).last(), Some(&0));
    assert_eq!(records.connections.len(), 2, "{}", records.transcript());
}

#[test]
fn a_server_that_refuses_padding_and_then_drops_is_connected_to_once_more_without() {
    for end in [Action::Close, Action::ReplyThenClose("421 4.7.0 too many errors".into())] {
        let refusing = Script::new().lenient().starttls(&identity()).when(|c| {
            let is_padding = c.connection == 0 && (c.verb == "NOOP" || c.verb == "RSET");
            is_padding.then(|| "502 5.5.2 no".into())
        });
        let script = refusing.when(move |c| (c.connection == 0 && c.verb == "MAIL").then(|| end.clone()));
        let (mut world, server) = world_with(script, "@starttls");
        world.set("tls_padding", 1000);
        assert_eq!(world.failures_after_a_pass(&one_mail()), []);
        let records = server.records();
        assert_eq!(records.accepted().len(), 1, "{}", records.transcript());
        assert_eq!(padding(&server), [1, 0]);
    }
}

#[test]
fn a_session_that_the_server_cannot_resume_is_offered_to_it_once_only() {
    let script = Script::new().lenient().starttls(&identity()).drops_resumed_sessions();
    let (mut world, server) = world_with(script, "@starttls");
    world.set("connection_idle", 0);
    let daemon = world.start();
    world.insert(&one_mail().data("one"));
    server.wait_for_messages(1);
    let second = world.insert(&one_mail().data("two"));
    let failure = world.database.wait_for_failure(second);
    assert!(!failure.fatal && failure.text.starts_with("Failed to reach any MX"), "{failure:?}");
    world.insert(&one_mail().data("three"));
    server.wait_for_messages(2);
    assert_eq!(server.records().connections.len(), 3, "{}", server.records().transcript());
    daemon.terminate();
}

/// A middlebox in front of a server that cannot cope with a first message of TLS that is larger than a segment: it drops the
/// connection.
fn middlebox(server: SocketAddr) -> SocketAddr {
    const TYPE_HANDSHAKE: u8 = 22;
    const LARGE_OCTETS: usize = 1000;
    let listener = TcpListener::bind((server.ip(), 0)).unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for client in listener.incoming() {
            let (mut client, mut server) = (client.unwrap(), TcpStream::connect(server).unwrap());
            let (mut from_server, mut to_client) = (server.try_clone().unwrap(), client.try_clone().unwrap());
            std::thread::spawn(move || {
                let _ = std::io::copy(&mut from_server, &mut to_client);
                let _ = to_client.shutdown(Shutdown::Write);
            });
            std::thread::spawn(move || {
                let mut buffer = vec![0; 16_384];
                while let Ok(count @ 1..) = client.read(&mut buffer) {
                    if buffer[0] == TYPE_HANDSHAKE && count > LARGE_OCTETS {
                        break;
                    }
                    server.write_all(&buffer[..count]).unwrap();
                }
                let _ = (client.shutdown(Shutdown::Both), server.shutdown(Shutdown::Both));
            });
        }
    });
    address
}

#[test]
fn a_server_that_drops_large_first_messages_of_tls_gets_mail_inside_tls_all_the_same() {
    for mode in ["@tls", "@starttls"] {
        let script = Script::new();
        let script = match mode {
            "@tls" => script.implicit_tls(&identity()),
            _ => script.starttls(&identity()),
        };
        let (mut world, server) = world_with(script, mode);
        let port = middlebox(server.address()).port();
        world.set("portprio", format!("{port}{mode} {port}"));
        assert_eq!(world.failures_after_a_pass(&one_mail()), []);
        let records = server.wait_until_closed();
        assert!(records.messages[0].tls, "{}", records.transcript());
        assert_eq!(records.connections.len(), 2);
    }
}
