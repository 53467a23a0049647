//! The executor of the example `one_session`, against a small server on a thread.

// In a test, also in its helpers, a panic is how a failure is told.
#![allow(clippy::panic, clippy::unwrap_used, clippy::wildcard_enum_match_arm)]

#[path = "../examples/one_session/executor.rs"]
mod executor;

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::thread::{self, JoinHandle};

use cmail_delivery::address::Mailbox;
use cmail_delivery::next_hop::TlsMode;
use cmail_delivery::outbox::MailId;
use cmail_delivery::rng::Rng;
use cmail_delivery::session::{EndCause, Outcome, Phase, Recipient, SessionConfig, Transaction};
use executor::Report;

/// What a client said to the server, line by line.
type Dialogue = Vec<String>;

/// A server that says `greeting`, and then to each command what `reply` says; nothing to close the connection.
fn server(greeting: &'static str, reply: fn(&str) -> &'static str) -> (TcpStream, JoinHandle<Dialogue>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let dialogue = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.write_all(greeting.as_bytes()).unwrap();
        let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
        let (mut dialogue, mut is_in_data) = (Dialogue::new(), false);
        while let Some(Ok(line)) = lines.next() {
            let text = if is_in_data && line != "." { "" } else { reply(&line) };
            is_in_data = text.starts_with("354") || (is_in_data && line != ".");
            dialogue.push(line);
            if text == "close" {
                break;
            }
            stream.write_all(text.as_bytes()).unwrap();
        }
        dialogue
    });
    (client, dialogue)
}

fn polite(command: &str) -> &'static str {
    match command {
        "DATA" => "354 go\r\n",
        "QUIT" => "221 bye\r\n",
        _ => "250-2.0.0 all\r\n250 right\r\n",
    }
}

fn send(stream: TcpStream, message: &str) -> Report {
    let config = SessionConfig {
        announce: "client.example.org".into(),
        tls: TlsMode::Plain,
        need: cmail_delivery::tls::Need::Optional,
        plain_fallback: false,
        credentials: None,
        auth_unprotected: false,
        mechanism: None,
        padding_limit: 0,
        no_pipelining: false,
        trace: false,
    };
    let mailbox = |text: &str| Mailbox::parse(text.as_bytes()).unwrap();
    let transaction = Transaction {
        signatures: bytes::Bytes::new(),
        reverse_path: Some(mailbox("s@example.org")),
        recipients: [(1, "r1@example.net"), (2, "r2@example.net")]
            .map(|(id, address)| Recipient::new(MailId(id), mailbox(address)))
            .into(),
        data_octets: message.len() as u64,
        head: message.as_bytes().to_vec().into(),
        is_probe: false,
    };
    executor::send(stream, config, Rng::from_seed([1; 32]), transaction, |_| {}).unwrap()
}

#[test]
fn a_message_is_delivered() {
    let (client, dialogue) = server("220 mx\r\n", polite);
    let report = send(client, "Subject: x\n\n.dot\nend");
    for (_, outcome) in &report.verdicts {
        assert!(matches!(outcome, Outcome::Delivered(reply) if reply.text() == "250-2.0.0 all\n250 right"));
    }
    assert_eq!(report.verdicts.iter().map(|(recipient, _)| recipient.id.0).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(report.end.cause, EndCause::Quit);
    let expected = "EHLO client.example.org|MAIL FROM:<s@example.org>|RCPT TO:<r1@example.net>|RCPT TO:<r2@example.net>|\
        DATA|Subject: x||..dot|end|.|QUIT";
    assert_eq!(dialogue.join().unwrap(), expected.split('|').collect::<Vec<_>>());
}

#[test]
fn a_long_message_arrives_as_it_is() {
    let (client, dialogue) = server("220 mx\r\n", polite);
    let message = "0123456789abcdef\r\n".repeat(20_000);
    let report = send(client, &message);
    assert!(report.verdicts.iter().all(|(_, outcome)| matches!(outcome, Outcome::Delivered(_))));
    let dialogue = dialogue.join().unwrap();
    assert_eq!(dialogue.iter().filter(|line| *line == "0123456789abcdef").count(), 20_000);
}

#[test]
fn a_refused_recipient_is_told_of_and_the_other_is_served() {
    let (client, dialogue) = server("220 mx\r\n", |command| match command {
        "RCPT TO:<r1@example.net>" => "550 5.1.1 no such user\r\n",
        other => polite(other),
    });
    let report = send(client, "x\r\n");
    for (Recipient { id, .. }, outcome) in &report.verdicts {
        match outcome {
            Outcome::Rejected { reply, fatal: true, .. } => {
                assert_eq!((id.0, reply.code().as_u16()), (1, 550));
            }
            other => assert!(matches!(other, Outcome::Delivered(_)) && id.0 == 2, "{other:?}"),
        }
    }
    assert_eq!(report.verdicts.len(), 2);
    dialogue.join().unwrap();
}

#[test]
fn a_server_that_is_lost_after_the_final_dot_leaves_it_uncertain() {
    let (client, dialogue) =
        server("220 mx\r\n", |command| if command == "." { "close" } else { polite(command) });
    let report = send(client, "x\r\n");
    assert_eq!(report.end.phase, Phase::EndOfData);
    for (_, outcome) in &report.verdicts {
        assert_eq!(*outcome, Outcome::Uncertain(EndCause::Closed));
    }
    dialogue.join().unwrap();
}

#[test]
fn a_refused_greeting_ends_the_conversation_with_quit() {
    let (client, dialogue) = server("554 no service\r\n", polite);
    let report = send(client, "x\r\n");
    assert!(matches!(report.end.cause, EndCause::Refused(..)) && report.verdicts.is_empty());
    assert_eq!(dialogue.join().unwrap(), ["QUIT"]);
}
