//! Proves what a small message costs, in writes and in allocations.

#![allow(clippy::unwrap_used, reason = "it is a test")]

use std::alloc::System;

use bytes::{Bytes, BytesMut};
use cmail_delivery::address::Mailbox;
use cmail_delivery::next_hop::TlsMode;
use cmail_delivery::outbox::MailId;
use cmail_delivery::rng::Rng;
use cmail_delivery::session::{Outcome, Recipient, Session, SessionConfig, SessionOutput, Transaction};
use cmail_delivery::time::{Duration, Instant};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const NOW: Instant = Instant::from_micros(0);
const LIMIT_ALLOCATIONS: usize = 40;

fn ready_session(extensions: &[u8]) -> Session {
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
    let mut session = Session::new(config, Rng::from_seed([7; 32]), NOW);
    session.handle_received(NOW, b"220 mx.example.org ESMTP\r\n");
    assert_eq!(writes(&mut session), 1);
    session.handle_received(NOW, extensions);
    assert_eq!(session.poll_output(), Some(SessionOutput::Ready));
    session
}

/// How often something is written: all that is handed out at once goes together, and the end of a message may follow after a
/// pause.
fn writes(session: &mut Session) -> usize {
    let mut writes = 0;
    for _ in 0..2 {
        let mut octets = BytesMut::new();
        while session.poll_transmit(NOW, 64 * 1024, &mut octets) {}
        writes += usize::from(!octets.is_empty());
        let pause = session.poll_timeout().filter(|&(at, _)| at < NOW + Duration::from_secs(1));
        let Some((at, _)) = pause else { break };
        session.handle_timeout(at);
    }
    writes
}

/// Sends a message of 4 KiB and returns how many writes and how many allocations that took.
fn cost(session: &mut Session, replies: &[&[u8]]) -> (usize, usize) {
    let mailbox = |text: &str| Mailbox::parse(text.as_bytes()).unwrap();
    let head = Bytes::from(b"0123456789abcdef 0123456789abcdef 0123456789abcdef 012345678\r\n".repeat(64));
    let transaction = Transaction {
        signatures: Bytes::new(),
        reverse_path: Some(mailbox("sender@example.org")),
        recipients: vec![Recipient::new(MailId(1), mailbox("recipient@example.net"))],
        data_octets: head.len() as u64,
        head,
        is_probe: false,
    };
    let region = Region::new(ALLOCATOR);
    session.begin(NOW, transaction);
    let mut count = writes(session);
    for reply in replies {
        session.handle_received(NOW, reply);
        count += writes(session);
    }
    let change = region.change();
    let verdicts = std::iter::from_fn(|| session.poll_output()).find_map(|output| {
        if let SessionOutput::Verdicts(verdicts) = output { Some(verdicts) } else { None }
    });
    assert!(
        matches!(verdicts.as_deref(), Some([(Recipient { id: MailId(1), .. }, Outcome::Delivered(_))])),
        "{verdicts:?}"
    );
    (count, change.allocations + change.reallocations)
}

// One test, because tests run side by side and the allocator counts for all.
#[test]
fn a_small_message_is_as_few_writes_as_the_server_allows() {
    let one_by_one: &[&[u8]] =
        &[b"250 sender\r\n", b"250 recipient\r\n", b"354 go ahead\r\n", b"250 taken\r\n"];
    let batch: &[&[u8]] = &[b"250 sender\r\n250 recipient\r\n354 go ahead\r\n", b"250 taken\r\n"];
    for (extensions, replies, expected) in [
        (&b"250 mx.example.org\r\n"[..], one_by_one, 5),
        (b"250-mx.example.org\r\n250 PIPELINING\r\n", batch, 2),
    ] {
        let mut session = ready_session(extensions);
        let (writes, allocations) = cost(&mut session, replies);
        let extensions = extensions.escape_ascii();
        println!("{writes} writes and {allocations} allocations: {extensions}");
        assert_eq!(writes, expected, "{extensions}");
        assert!(allocations <= LIMIT_ALLOCATIONS, "{allocations} allocations: {extensions}");
    }
}
