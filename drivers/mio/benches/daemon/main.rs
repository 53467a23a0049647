//! How fast the whole daemon is, against a server on loopback that takes everything:
//! `cargo bench -p cmail-dispatchd`.
//!
//! Each load is one run of the built program with a database of its own. The time begins when the program is started,
//! with all mail in the outbox, and ends when the server has the last message; the processor time is that of the whole
//! run, the recording of the deliveries included. Without `--bench`, which cargo gives, the loads are small: then this
//! only proves that it works.

#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "a benchmark prints, and panics on errors")]

mod sink;

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use cmail_dispatchd::engine;
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rusqlite::Connection;

use crate::sink::{Sink, Tls};

/// How long the mail may take before the run is given up.
const PATIENCE: Duration = Duration::from_secs(300);

struct Load {
    name: &'static str,
    tls: Tls,
    messages: u32,
    octets: usize,
    /// Of the message count, so much is sent where nothing is to be measured.
    smoke_messages: u32,
}

const LOADS: [Load; 3] = [
    Load { name: "small, plain text", tls: Tls::None, messages: 10_000, octets: 4096, smoke_messages: 20 },
    Load { name: "small, STARTTLS", tls: Tls::Offered, messages: 10_000, octets: 4096, smoke_messages: 20 },
    Load { name: "large, plain text", tls: Tls::None, messages: 20, octets: 25 << 20, smoke_messages: 1 },
];

/// What a run came to.
struct Outcome {
    wall: Duration,
    cpu: Duration,
    peak_memory_kib: u64,
    connections: u32,
}

fn main() {
    let is_benchmark = std::env::args().any(|argument| argument == "--bench");
    println!(
        "{:<20} {:>8} {:>12} {:>10} {:>10} {:>12} {:>12}",
        "load", "messages", "messages/s", "MiB/s", "CPU ms/msg", "peak MiB", "connections"
    );
    for load in &LOADS {
        let messages = if is_benchmark { load.messages } else { load.smoke_messages };
        let outcome = run(load, messages);
        let (seconds, count) = (outcome.wall.as_secs_f64(), f64::from(messages));
        println!(
            "{:<20} {messages:>8} {:>12.0} {:>10.1} {:>10.3} {:>12.1} {:>12}",
            load.name,
            count / seconds,
            count * load.octets as f64 / seconds / f64::from(1 << 20),
            outcome.cpu.as_secs_f64() * 1000.0 / count,
            outcome.peak_memory_kib as f64 / 1024.0,
            outcome.connections,
        );
    }
}

fn run(load: &Load, messages: u32) -> Outcome {
    let directory = tempfile::tempdir().unwrap();
    let database = directory.path().join("master.db3");
    let sink = Sink::start(load.tls);
    fill(&database, load, messages, sink.port());
    let config = directory.path().join("dispatchd.conf");
    let text = format!(
        "announce bench.example\ndatabase {}\nresolver 127.0.0.1:9\ntls_padding 0\n",
        database.display()
    );
    std::fs::write(&config, text).unwrap();

    let cpu_before = cpu_of_children();
    let began = Instant::now();
    let mut daemon = Command::new(env!("CARGO_BIN_EXE_cmail-dispatchd"))
        .arg(&config)
        .args(["nodetach", "nodrop"])
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    let last = sink.wait_for(messages, PATIENCE);
    let peak_memory_kib = peak_memory_kib(&daemon);
    stop(&mut daemon);
    assert!(last.is_some(), "the daemon has not delivered everything in time");
    let wall = last.unwrap() - began;

    let outbox = Connection::open(&database).unwrap();
    let left: i64 = outbox.query_row("SELECT count(*) FROM outbox", [], |row| row.get(0)).unwrap();
    assert_eq!(left, 0, "what the server has taken is still in the outbox");
    Outcome {
        wall,
        cpu: cpu_of_children().saturating_sub(cpu_before),
        peak_memory_kib,
        connections: sink.connections(),
    }
}

/// Creates the outbox and puts the messages into it.
fn fill(database: &Path, load: &Load, messages: u32, port: u16) {
    engine::create_database(database, None).unwrap();
    let mut outbox = Connection::open(database).unwrap();
    let mode = if matches!(load.tls, Tls::None) { "" } else { "/starttls" };
    let remote = format!("127.0.0.1:{port}{mode}");
    let line = "0123456789 abcdefghijklmnopqrstuvwxyz ABCDEFGHIJKLMNOPQRSTUVWXYZ .,;:-+*/ !?\r\n";
    let body = line.repeat(load.octets / line.len());
    let transaction = outbox.transaction().unwrap();
    for number in 0..messages {
        let data = format!("Message-ID: <{number}@bench.example>\r\nSubject: message {number}\r\n\r\n{body}");
        let insert = "INSERT INTO outbox (mail_remote, mail_envelopefrom, mail_envelopeto, mail_data) \
                      VALUES (?1, 'sender@bench.example', ?2, ?3)";
        let recipient = format!("recipient{number}@bench.example");
        transaction.prepare_cached(insert).unwrap().execute((&remote, recipient, data)).unwrap();
    }
    transaction.commit().unwrap();
}

fn cpu_of_children() -> Duration {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN).unwrap();
    let micros = |time: nix::sys::time::TimeVal| {
        u64::try_from(time.tv_sec() * 1_000_000 + time.tv_usec()).unwrap_or_default()
    };
    Duration::from_micros(micros(usage.user_time()) + micros(usage.system_time()))
}

fn peak_memory_kib(daemon: &Child) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.id())).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or_default();
    line.trim().trim_end_matches(" kB").parse().unwrap_or_default()
}

fn stop(daemon: &mut Child) {
    let pid = Pid::from_raw(i32::try_from(daemon.id()).unwrap());
    kill(pid, Signal::SIGTERM).unwrap();
    let status = daemon.wait().unwrap();
    assert!(status.success(), "the daemon has ended with {status}");
}
