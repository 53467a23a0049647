//! The examples that run a whole dispatcher, against a mail server and a name server on threads.

// In a test, also in its helpers, a panic is how a failure is told.
#![allow(clippy::indexing_slicing, clippy::unwrap_used, clippy::panic, clippy::wildcard_enum_match_arm)]

mod dns;
#[path = "../../examples/on_std/executor.rs"]
mod on_std;
#[path = "../../examples/on_tokio/executor.rs"]
mod on_tokio;
mod smtp;
#[path = "../../examples/shared/system.rs"]
mod system;

use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::time::{Duration, Instant};

use cmail_delivery::memory_outbox::Mail;
use cmail_delivery::next_hop::{Port, TlsMode};
use cmail_delivery::policy::Policy;
use cmail_delivery::settings::{ResolverSettings, Settings};
use cmail_delivery::time::UnixTime;
use cmail_delivery::{Event, MemoryOutbox};
use dns::{DnsServer, LONG_DOMAIN};
use smtp::SmtpServer;

/// More than any of this takes.
const PATIENCE: Duration = Duration::from_secs(60);
const SENDER: &str = "alice@origin.example";

type IsDone = fn(&MemoryOutbox) -> bool;

/// An executor: what it leaves in the outbox, and what it has told.
type Run = fn(Settings, MemoryOutbox, IsDone) -> (MemoryOutbox, Vec<Event>);

fn on_std(settings: Settings, outbox: MemoryOutbox, is_done: IsDone) -> (MemoryOutbox, Vec<Event>) {
    let (began, mut events) = (Instant::now(), Vec::new());
    let is_over = |outbox: &MemoryOutbox| is_done(outbox) || began.elapsed() > PATIENCE;
    let outbox = on_std::run(settings, outbox, [7; 32], is_over, |event| events.push(event.clone()));
    (outbox, events)
}

fn on_tokio(settings: Settings, outbox: MemoryOutbox, is_done: IsDone) -> (MemoryOutbox, Vec<Event>) {
    let (began, mut events) = (Instant::now(), Vec::new());
    let is_over = |outbox: &MemoryOutbox| is_done(outbox) || began.elapsed() > PATIENCE;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let run = on_tokio::run(settings, outbox, [7; 32], is_over, |event| events.push(event.clone()));
    let outbox = runtime.block_on(run);
    (outbox, events)
}

fn settings(name_server: SocketAddr, smtp_port: u16) -> Settings {
    Settings {
        policy: Policy {
            ports: [Port { number: smtp_port, tls: TlsMode::Plain }].into(),
            ..Policy::default()
        },
        resolver: ResolverSettings::new(vec![name_server]),
        ..Settings::new("client.example")
    }
}

fn was_all_tried(outbox: &MemoryOutbox) -> bool {
    outbox.mails().all(|(_, mail)| !mail.faillog.is_empty())
}

fn delivers_and_bounces(run: Run) {
    let (dns, mx, relay) = (DnsServer::start(), SmtpServer::start(), SmtpServer::start());
    let mut outbox = MemoryOutbox::new();
    let mut send = |recipient: &str, remote: Option<String>, message: &str| {
        let mail = Mail::new(SENDER, recipient, message.to_owned(), UnixTime(1_700_000_000));
        outbox.insert(Mail { remote: remote.map(Into::into), ..mail }).unwrap();
    };
    let large = "0123456789abcdef\n".repeat(100_000);
    send("bob@one.example", None, "Subject: by MX\n\n.dot\n");
    send("carol@two.example", Some(relay.address.to_string()), "Subject: by relay\n\nx\n");
    send(&format!("dave@{LONG_DOMAIN}"), None, "Subject: by DNS over TCP\n\nx\n");
    send("erin@one.example", None, &large);
    send("nobody@one.example", None, "Subject: refused\n\nx\n");

    let (outbox, events) = run(settings(dns.address, mx.address.port()), outbox, MemoryOutbox::is_empty);
    assert!(outbox.is_empty(), "{outbox:#?} is left: {events:#?}");

    let to = |server: &SmtpServer, recipient: &str| {
        let mut taken = server.taken();
        taken.retain(|taken| taken.recipients == [recipient]);
        assert_eq!(taken.len(), 1, "{recipient}");
        taken.remove(0)
    };
    assert_eq!(to(&mx, "bob@one.example").lines, ["Subject: by MX", "", "..dot"]);
    assert_eq!(to(&relay, "carol@two.example").lines[0], "Subject: by relay");
    assert_eq!(to(&mx, "dave@long.example").sender, SENDER);
    assert!(dns.asked_by_tcp().contains(&"long.example.".to_owned()), "{:?}", dns.asked_by_tcp());
    assert!(to(&mx, "erin@one.example").lines.iter().map(String::as_str).eq(large.lines()));
    let bounce = to(&mx, SENDER);
    assert_eq!(bounce.sender, "");
    let text = bounce.lines.join("\n");
    assert!(text.contains("550 5.1.1 no such user") && text.contains("Subject: refused"), "{text}");
    assert_eq!((mx.taken().len(), relay.taken().len()), (4, 1), "everything goes once");
    let bounced = |event: &&Event| matches!(event, Event::Bounced { .. });
    assert_eq!(events.iter().filter(bounced).count(), 1);
}

fn records_what_cannot_be_reached(run: Run) {
    // Where only the other protocol is listened to, nothing is there for this one.
    let (udp, tcp) = (
        UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap(),
        TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap(),
    );
    let mut outbox = MemoryOutbox::new();
    let mail = |recipient| Mail::new(SENDER, recipient, "x\n", UnixTime(1_700_000_000));
    let unknown = outbox.insert(mail("bob@one.example")).unwrap();
    let remote = Some(udp.local_addr().unwrap().to_string().into());
    let refused = outbox.insert(Mail { remote, ..mail("carol@two.example") }).unwrap();
    let (outbox, _) = run(settings(tcp.local_addr().unwrap(), 25), outbox, was_all_tried);
    for (id, begin) in [
        (unknown, "Failed to resolve recipient domain"),
        (refused, "Failed to connect or negotiate with handoff remote"),
    ] {
        let [attempt] = outbox.mail(id).unwrap().faillog.as_slice() else { panic!("{outbox:?}") };
        let text = String::from_utf8_lossy(&attempt.text);
        assert!(text.starts_with(begin) && text.contains("refused") && !attempt.fatal, "{text}");
    }
}

#[test]
fn the_executor_on_the_standard_library_delivers_and_bounces() {
    delivers_and_bounces(on_std);
}

#[test]
fn the_executor_on_tokio_delivers_and_bounces() {
    delivers_and_bounces(on_tokio);
}

#[test]
fn the_executor_on_the_standard_library_records_what_cannot_be_reached() {
    records_what_cannot_be_reached(on_std);
}

#[test]
fn the_executor_on_tokio_records_what_cannot_be_reached() {
    records_what_cannot_be_reached(on_tokio);
}
