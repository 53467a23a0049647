//! Black-box test bench for the daemon: scripted SMTP and DNS servers, a database written by independent SQL,
//! and the built binary as a child process. Nothing here knows the program's code, only its contract.
//!
//! Every wait blocks on a condition with a generous limit and panics with the transcript when it passes.
// The bench is larger than what any one test needs of it.
#![allow(dead_code)]

pub(crate) mod auth;
pub(crate) mod daemon;
pub(crate) mod database;
pub(crate) mod dns_server;
pub(crate) mod mime;
pub(crate) mod shim;
pub(crate) mod smtp_records;
pub(crate) mod smtp_script;
pub(crate) mod smtp_server;
pub(crate) mod socket_client;
pub(crate) mod tls;
pub(crate) mod tool;
pub(crate) mod web_server;
pub(crate) mod world;

pub(crate) use daemon::Daemon;
pub(crate) use database::{Database, Mail};
pub(crate) use dns_server::{Behaviour, DnsServer};
pub(crate) use smtp_script::{Action, Gate, Script};
pub(crate) use smtp_server::SmtpServer;
pub(crate) use socket_client::SocketClient;
pub(crate) use web_server::WebServer;
pub(crate) use world::World;

use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// How long a condition may take before the test fails: far beyond anything that works.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// A loopback address that no other test of this machine uses, so that several scripted hosts can share
/// one port number.
pub(crate) fn unique_loopback() -> Ipv4Addr {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let serial = NEXT.fetch_add(1, Ordering::Relaxed);
    let process = std::process::id();
    let octet = |value: u32| u8::try_from(value % 250).unwrap_or(0) + 1;
    Ipv4Addr::new(127, octet(process / 250 + serial / 250 * 61), octet(process), octet(serial))
}

/// Says why a test proves nothing here, past the capture of the output of tests that pass.
pub(crate) fn skip(why: &str) {
    use std::io::Write;
    let name = std::thread::current().name().unwrap_or("a test").to_owned();
    let _ = writeln!(std::io::stderr(), "SKIPPED {name}: {why}");
}

/// Blocks until a process that is not our child has ended.
pub(crate) fn wait_until_gone(pid: nix::unistd::Pid) {
    // If no process reaps orphans, a dead process keeps its entry.
    let is_zombie = || {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('Z'))
    };
    let deadline = std::time::Instant::now() + PATIENCE;
    while nix::sys::signal::kill(pid, None).is_ok() && !is_zombie() {
        assert!(std::time::Instant::now() < deadline, "process {pid} does not end");
        std::thread::park_timeout(Duration::from_millis(20));
    }
}

/// Blocks until a file has content that fulfils the condition.
pub(crate) fn wait_for_file(path: &std::path::Path, condition: impl Fn(&str) -> bool) -> String {
    let deadline = std::time::Instant::now() + PATIENCE;
    loop {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        if condition(&text) {
            return text;
        }
        assert!(std::time::Instant::now() < deadline, "{} holds {text:?}", path.display());
        std::thread::park_timeout(Duration::from_millis(20));
    }
}
