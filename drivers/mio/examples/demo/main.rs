//! The daemon at work: `cargo run --release --example demo`.
//!
//! A throwaway database with mail, a DNS server and SMTP servers with different manners, all on loopback, and the code of
//! the daemon between them. Everything that was said is printed. The exit status is 0 only if every mail came to the end
//! that it should.

mod check;
mod daemon;
mod dns;
mod network;
mod outbox;
mod report;
mod smtp;
mod story;
mod wire;

use std::fs;
use std::io::{self, Write as _};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use crate::check::Evidence;
use crate::daemon::Daemon;
use crate::dns::DnsServer;
use crate::network::{Certificate, listen_on_one_port};
use crate::outbox::Outbox;
use crate::smtp::{Manners, Server};
use crate::story::Mail;

/// What can go wrong is told to the one who runs the demonstration, and nobody else.
type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// A mail that is not dealt with in this time never will be.
const PATIENCE: Duration = Duration::from_secs(30);

fn main() -> ExitCode {
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            // If not even this can be said, the exit status still can.
            let _ = writeln!(io::stderr(), "demo: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Runs the demonstration; whether every outcome is the expected one.
fn run() -> Result<bool> {
    let directory = tempfile::Builder::new().prefix("cmail-demo-").tempdir()?;
    let ordinary = Certificate::for_host("mx.example")?;
    let relay = Certificate::for_host(story::RELAY)?;
    let manners = story::servers(&ordinary, &relay);
    say(&report::opening(story::mails(0).len(), manners.len()))?;

    let dns = DnsServer::start(story::zone(&manners)?)?;
    let (port, servers) = start_servers(manners)?;
    let outbox = Outbox::create(&directory.path().join("master.db3"))?;
    let mails = queue(&outbox, story::mails(port))?;
    fs::write(directory.path().join("relay.pem"), &relay.pem)?;
    let configuration = configuration(directory.path(), port, dns.address);
    let file = directory.path().join("dispatchd.conf");
    fs::write(&file, &configuration)?;
    say(&report::beginning(&configuration, &mails))?;

    let began = Instant::now();
    let daemon = Daemon::start(&file)?;
    let is_empty = outbox.wait_until_empty(PATIENCE)?;
    daemon.stop()?;
    let took = began.elapsed();
    let records = servers.into_iter().map(Server::stop).collect::<Result<Vec<_>>>()?;

    let log = fs::read_to_string(directory.path().join("log"))?;
    let (failures, bounces) = (outbox.failures()?, outbox.bounces()?);
    let evidence = Evidence { is_empty, mails, failures, bounces, records, log };
    say(&report::events(&evidence, &dns.answers(), began))?;
    let verdicts = check::verdicts(&evidence, &outbox)?;
    let is_expected = verdicts.iter().all(|verdict| verdict.problems.is_empty());
    if !is_expected {
        say(&report::log(&evidence.log))?;
    }
    directory.close()?;
    say(&report::summary(&verdicts, took))?;
    Ok(is_expected)
}

fn start_servers(manners: Vec<(Ipv4Addr, Manners)>) -> Result<(u16, Vec<Server>)> {
    let addresses: Vec<Ipv4Addr> = manners.iter().map(|(address, _)| *address).collect();
    let (port, listeners) = listen_on_one_port(&addresses)?;
    let servers = listeners.into_iter().zip(manners);
    let servers = servers.map(|(listener, (_, manners))| Server::start(listener, manners));
    Ok((port, servers.collect::<Result<_>>()?))
}

fn queue(outbox: &Outbox, mails: Vec<Mail>) -> Result<Vec<Mail>> {
    let queue = |mail: Mail| {
        let id = outbox.queue(mail.remote.as_deref(), story::SENDER, mail.recipient, &mail.data)?;
        Ok(Mail { id, ..mail })
    };
    mails.into_iter().map(queue).collect()
}

/// The configuration file. The times are short so that the demonstration is, and no padding is sent so that it is easy to
/// read.
fn configuration(directory: &Path, port: u16, dns: SocketAddr) -> String {
    let directory = directory.display();
    let announce = story::ANNOUNCE;
    format!(
        "database       {directory}/master.db3\n\
         logfile        {directory}/log\n\
         verbosity      3\n\
         announce       {announce}\n\
         resolver       {dns}\n\
         portprio       {port}@starttls {port}\n\
         tls_trustfile  {directory}/relay.pem\n\
         tls_padding    0\n\
         interval       1\n\
         retryinterval  1\n"
    )
}

fn say(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    stdout.flush()
}
