//! Measures the core without sockets: `cargo bench -p cmail-delivery`.

#![allow(clippy::unwrap_used, reason = "a benchmark has nobody to tell of an error")]

use cmail_delivery::dsn::DsnWishes;
use cmail_delivery::hold::Hold;
use std::net::Ipv4Addr;

use bytes::{Bytes, BytesMut};
use cmail_delivery::address::Mailbox;
use cmail_delivery::dispatcher::{Dispatcher, Mode};
use cmail_delivery::io::{Input, Output};
use cmail_delivery::next_hop::TlsMode;
use cmail_delivery::outbox::{Cursor, DATA_CHUNK_OCTETS, MailId, Row, Scanned, StoreReply, StoreRequest};
use cmail_delivery::policy::Policy;
use cmail_delivery::reply::ReplyParser;
use cmail_delivery::rng::Rng;
use cmail_delivery::session::{Recipient, Session, SessionConfig, SessionOutput, Transaction};
use cmail_delivery::settings::{Hosts, ResolverSettings, Settings};
use cmail_delivery::time::{Instant, Now, UnixTime};
use cmail_delivery::transparency::MailDataEncoder;
use divan::counter::{BytesCount, ItemsCount};
use divan::{AllocProfiler, Bencher};

/// Counts allocations beside the time.
#[global_allocator]
static ALLOCATOR: AllocProfiler = AllocProfiler::system();

/// Octets of mail data that are taken at a time, as the driver does.
const PULL_OCTETS: usize = 64 * 1024;

fn main() {
    divan::main();
}

/// Returns a message of about this many octets, in lines of 78.
fn message(octets: usize) -> Bytes {
    let line = b"0123456789 abcdefghijklmnopqrstuvwxyz ABCDEFGHIJKLMNOPQRSTUVWXYZ .,;:-+*/ !?\r\n";
    line.iter().copied().cycle().take(octets / line.len() * line.len()).collect()
}

#[divan::bench]
fn reply_of_ehlo(bencher: Bencher<'_, '_>) {
    let octets =
        b"250-mx.example.org\r\n250-PIPELINING\r\n250-SIZE 52428800\r\n250-STARTTLS\r\n250-8BITMIME\r\n\
                   250-ENHANCEDSTATUSCODES\r\n250 SMTPUTF8\r\n";
    bencher.counter(BytesCount::of_slice(octets)).bench(|| {
        let mut rest = divan::black_box(&octets[..]);
        ReplyParser::default().parse(&mut rest)
    });
}

#[divan::bench(args = [4096, 1 << 20])]
fn mail_data(bencher: Bencher<'_, '_>, octets: usize) {
    let message = message(octets);
    let mut out = BytesMut::with_capacity(2 * octets);
    bencher.counter(BytesCount::of_slice(&message[..])).bench_local(|| {
        out.clear();
        let mut encoder = MailDataEncoder::default();
        for piece in divan::black_box(&message).chunks(DATA_CHUNK_OCTETS) {
            encoder.encode(piece, &mut out);
        }
        encoder.finish(&mut out);
    });
}

/// A server that accepts everything.
#[derive(Default)]
struct Peer {
    received: BytesMut,
    in_data: bool,
}

impl Peer {
    /// Replies to these octets.
    fn answer(&mut self, octets: &[u8], replies: &mut Vec<u8>) {
        if self.in_data {
            // A message that arrives in one piece is searched only for its end.
            if octets.ends_with(b"\r\n.\r\n") {
                self.in_data = false;
                replies.extend(b"250 2.0.0 queued as 4711\r\n");
            }
            return;
        }
        self.received.extend_from_slice(octets);
        while let Some(end) = self.received.iter().position(|&octet| octet == b'\n') {
            let line = self.received.split_to(end + 1);
            self.in_data = line.starts_with(b"DATA");
            let reply: &[u8] = match line.first() {
                Some(b'D') => b"354 go ahead\r\n",
                Some(b'E') => b"250-mx.example.org\r\n250 PIPELINING\r\n",
                _ => b"250 2.1.0 fine\r\n",
            };
            replies.extend(reply);
        }
    }
}

/// Lets a session and a server talk until neither has anything to say, and supplies mail data.
fn talk(session: &mut Session, peer: &mut Peer, message: &Bytes) {
    let now = Instant::from_micros(0);
    let (mut out, mut replies) = (BytesMut::new(), Vec::new());
    loop {
        let mut moved = false;
        while let Some(output) = session.poll_output() {
            if let SessionOutput::NeedData { offset, limit, .. } = output {
                let begin = usize::try_from(offset).unwrap();
                session.supply_data(now, message.slice(begin..begin + usize::try_from(limit).unwrap()));
                moved = true;
            }
        }
        while session.poll_transmit(now, PULL_OCTETS, &mut out) {
            peer.answer(&out, &mut replies);
            out.clear();
            moved = true;
        }
        if !replies.is_empty() {
            session.handle_received(now, &replies);
            replies.clear();
            moved = true;
        }
        if !moved {
            return;
        }
    }
}

fn ready_session(peer: &mut Peer) -> Session {
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
    let now = Instant::from_micros(0);
    let mut session = Session::new(config, Rng::from_seed([7; 32]), now);
    session.handle_received(now, b"220 mx.example.org ESMTP\r\n");
    talk(&mut session, peer, &Bytes::new());
    session
}

/// Measures one transaction on an open connection.
#[divan::bench(args = [4096, 1 << 20])]
fn transaction(bencher: Bencher<'_, '_>, octets: usize) {
    let message = message(octets);
    let mailbox = |text: &str| Mailbox::parse(text.as_bytes()).unwrap();
    let (sender, recipient) = (mailbox("sender@example.org"), mailbox("recipient@example.net"));
    let mut peer = Peer::default();
    let mut session = ready_session(&mut peer);
    bencher.counter(BytesCount::of_slice(&message[..])).bench_local(|| {
        let transaction = Transaction {
            signatures: Bytes::new(),
            reverse_path: Some(sender.clone()),
            recipients: vec![Recipient::new(MailId(1), recipient.clone())],
            data_octets: message.len() as u64,
            head: message.slice(..message.len().min(DATA_CHUNK_OCTETS)),
            is_probe: false,
        };
        session.begin(Instant::from_micros(0), transaction);
        talk(&mut session, &mut peer, &message);
    });
}

/// Indexes an outbox of which nothing is due.
#[divan::bench(args = [10_000, 1_000_000], sample_count = 3, sample_size = 1)]
fn intake_of_waiting_mail(bencher: Bencher<'_, '_>, rows: i64) {
    bencher.counter(ItemsCount::new(rows.unsigned_abs())).bench(|| {
        let dispatcher = dispatcher_with(rows);
        assert_eq!(i64::try_from(dispatcher.indexed()), Ok(rows));
        dispatcher
    });
}

fn dispatcher_with(rows: i64) -> Dispatcher {
    let now = Now::new(Instant::from_micros(0), UnixTime(1_000_000));
    let mut dispatcher = Dispatcher::new(now, settings(), Hosts::new(), Mode::Daemon, [1; 32]);
    while let Some(output) = dispatcher.poll_output() {
        let Output::Store(request, StoreRequest::Scan { after, limit }) = output else { continue };
        let first = after.next_id().map_or(rows, |id| id.0.max(1));
        let last = rows.min(first + i64::from(limit) - 1);
        let reply = StoreReply::Scanned(Scanned {
            rows: (first..=last).map(waiting_row).collect(),
            taken: Vec::new(),
            unreadable: Vec::new(),
            next: (last < rows).then_some(Cursor::After(MailId(last))),
            data_version: 1,
        });
        dispatcher.handle_input(now, Input::Store(request, Ok(reply)));
    }
    dispatcher
}

fn waiting_row(id: i64) -> Row {
    Row {
        id: MailId(id),
        remote: None,
        sender: Some(Bytes::from_static(b"sender@origin.example")),
        recipient: format!("recipient@d{}.example.org", id % 1000).into(),
        submission: UnixTime(0),
        data_octets: id.unsigned_abs(),
        fail_count: 1,
        last_try: UnixTime(999_000 + id % 1000),
        fatal: false,
        last_failure: None,
        hold: Hold::default(),
        wishes: DsnWishes::default(),
    }
}

fn settings() -> Settings {
    Settings {
        policy: Policy { ports: [].into(), ..Policy::default() },
        resolver: ResolverSettings::new(vec![(Ipv4Addr::LOCALHOST, 53).into()]),
        ..Settings::new("me.example")
    }
}
