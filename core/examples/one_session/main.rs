//! Sends one message with a single [`Session`] over a blocking socket: for programs that need SMTP, but neither an outbox nor
//! DNS.
//!
//! ```text
//! cargo run -p cmail-delivery --example one_session -- 127.0.0.1:2525 sender@example.org recipient@example.net < message
//! ```
//!
//! The examples `on_std` and `on_tokio` run the whole [`cmail_delivery::Dispatcher`] in the same way, with more arms in their one
//! `match`. This one has no TLS. An executor that has it wraps the stream when the session requests it, and calls
//! `handle_tls_established`.

// What it does is told on the terminal.
#![allow(clippy::print_stderr, clippy::print_stdout)]

mod executor;

use std::error::Error;
use std::io::{self, Read as _};
use std::net::{SocketAddr, TcpStream};
use std::process::ExitCode;

use cmail_delivery::address::Mailbox;
use cmail_delivery::next_hop::TlsMode;
use cmail_delivery::outbox::MailId;
use cmail_delivery::rng::Rng;
use cmail_delivery::session::{Outcome, Recipient, SessionConfig, Transaction};
use cmail_delivery::time::Duration;
use executor::Report;

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [server, sender, recipient] = arguments.as_slice() else {
        eprintln!("usage: one_session ADDRESS:PORT SENDER RECIPIENT < MESSAGE");
        return Ok(ExitCode::FAILURE);
    };
    let server: SocketAddr = server.parse()?;
    let mut message = Vec::new();
    io::stdin().read_to_end(&mut message)?;
    let transaction = Transaction {
        signatures: bytes::Bytes::new(),
        reverse_path: Some(Mailbox::parse(sender.as_bytes())?),
        recipients: vec![Recipient::new(MailId(1), Mailbox::parse(recipient.as_bytes())?)],
        data_octets: message.len() as u64,
        // The whole message, so that the session never requests more.
        head: message.into(),
        is_probe: false,
    };
    let config = SessionConfig {
        announce: "localhost".into(),
        tls: TlsMode::Plain,
        need: cmail_delivery::tls::Need::Optional,
        plain_fallback: false,
        credentials: None,
        auth_unprotected: false,
        mechanism: None,
        padding_limit: 0,
        no_pipelining: false,
        trace: true,
    };
    let stream = TcpStream::connect_timeout(&server, Duration::from_secs(30))?;
    let Report { verdicts, end } =
        executor::send(stream, config, Rng::from_seed(seed()?), transaction, |line| {
            eprintln!("{line}");
        })?;
    let mut is_delivered = false;
    for (_, outcome) in verdicts {
        is_delivered |= matches!(outcome, Outcome::Delivered(_));
        println!("{outcome:?}");
    }
    println!("{}", end.cause);
    Ok(if is_delivered { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Returns the seed of all randomness.
fn seed() -> io::Result<[u8; 32]> {
    let mut seed = [0; 32];
    std::fs::File::open("/dev/urandom")?.read_exact(&mut seed)?;
    Ok(seed)
}
