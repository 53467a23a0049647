//! Transcripts: conversations as text that a mail operator can read, and that replay.
//!
//! The first column of a line is its verb. *Given* lines are the author's: what the world does.
//!
//! | line | meaning |
//! |---|---|
//! | `# …` | why, with the section of the RFC |
//! | `@ seed N` | what everything random comes from; 1 if it is not there |
//! | `@ announce NAME` | the directive; `mail.example.org` |
//! | `@ set DIRECTIVE VALUE` | `interval`, `retries`, `retryinterval`, `tls_padding` (0), `auth_insecure`, `concurrency` (1), `connection_idle` (0), `destination_concurrency` (1), `recipients`, `messages`, `pipelining`, `bounce_copy`, `bounce_return_limit`, `tls_policy` as in `encrypt min=1.3`, for all |
//! | `@ portprio P …` | the directive; `25` |
//! | `@ remote SPECIFICATION` | `mail_remote` of the mails that follow; `192.0.2.1:25` at first, `-` means no relay: by MX |
//! | `@ host NAME ADDRESS …` | what the DNS says of a host |
//! | `@ tlsa NAME` | such a host has TLSA records, and DNSSEC vouches for everything; what they say of its certificate the facts of each session tell |
//! | `@ hosts NAME ADDRESS …` | a line of `/etc/hosts` |
//! | `@ mx DOMAIN PREFERENCE HOST …` | what it says of a domain; the hosts must be named before |
//! | `@ mail ID <FROM> <TO> "DATA"` | a row of the outbox, all of which are there at the beginning; DATA as in a string of Rust, and `*N` after it repeats it N times; several such strings are one after the other |
//! | `@ mode pass` | one pass over the mail, to the next hop of the first, without bounces: all that a record of live traffic is about |
//! | `@ session SEED` | what the first session draws from, 64 hexadecimal digits; a further line is about the next session. Without it the seed decides that too |
//! | `@ reads fixed` | what happens depends on which octets come together: they are not cut in other ways |
//! | `S: …` | a line of the server, with CRLF |
//! | `S\| "…"` | octets of the server, with no more; the read ends there |
//! | `S: 334 {scram-first N}`, `S: … {scram-final}` | what proves something in SCRAM-SHA-256, with N iterations: it is computed from the password of the remote |
//! | `+ 5m` | time passes: `ms`, `s`, `m` or `h` |
//! | `! tls`, `! tls-unverified`, `! tls-failed` | the TLS handshake ends: with a valid certificate, with one that is not, not at all. Facts may follow: `1.2`, the version; `dane-ee`, `dane-ta`, `dane-mismatch`; `pinned`, `not-pinned` |
//! | `! refused`, `! unreachable`, `! local` | the connection is not made; because of this machine |
//! | `! eof`, `! reset` | the connection is closed, or breaks |
//! | `! takes N` | of the message that comes next the network takes N octets, and no more |
//! | `! yield` | others need the place of the connection, whose server owes a word |
//! | `! stall` | nothing comes any more, until the client gives up |
//! | `! store-fails` | the next commit is refused by the database |
//! | `! crash` | the daemon crashes and starts again |
//! | `! drain`, `! try-now` | SIGTERM, SIGUSR2 |
//!
//! After `refused`, `unreachable`, `local`, `reset` and `tls-failed` the words of the system may follow.
//!
//! A connection that was asked for is made when the next line needs it. All connections are one after the other.
//!
//! *Observed* lines are ours: what the core does. They are compared exactly, since it is deterministic.
//!
//! | line | meaning |
//! |---|---|
//! | `C+ ADDRESS:PORT`, `C-` | the client connects; it closes the connection |
//! | `C^ HOST` | it begins TLS, and expects the certificate of this host |
//! | `C: …` | a line of the client, with CRLF; what authenticates is `***` |
//! | `C. …` | how much mail data it has sent, and whether the final dot came after it |
//! | `? …` | a deadline is hit, so long after the last given line |
//! | `= …` | what is recorded: `= 41 deleted`, `= 42 deferred "450 4.2.0 …"`, `= 43 failed "…"`, `= 44 bounced`, `= 45 dropped` |
//!
//! A transcript is replayed as it is written, octet by octet, and with the server's lines together where nothing comes
//! between them: the results must be equal. Then the connection breaks after each given line in turn, and no rule may
//! be broken. With `UPDATE_TRANSCRIPTS=1` the observed lines are written anew, and nothing else.
//!
//! The daemon records live traffic (the directive `record`) in the same lines, given and observed ones, and masks as
//! above; addresses are mapped to 192.0.2.0/24 and 2001:db8::/32, domains to `example.*`.

mod observed;
mod parser;
mod replay;
mod scene;

use cmail_delivery::io::Tls;
use cmail_delivery::system_error::NetworkTrouble;
use std::time::Duration;

use thiserror::Error;

pub(crate) use self::parser::parse;
use self::replay::{Manner, Replay};
use crate::mutation::Mutation;
use crate::witness::Violation;

/// The reason why a transcript is invalid.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum TranscriptError {
    /// A line cannot be understood.
    #[error("line {line}: {reason}")]
    Malformed {
        /// Its number, from 1.
        line: usize,
        /// The reason.
        reason: String,
    },
    /// The world cannot do what a line says.
    #[error("line {line}: {reason}")]
    Impossible {
        /// Its number, from 1.
        line: usize,
        /// The reason.
        reason: String,
    },
    /// The server's octets were cut in another way, and something else happened.
    #[error("{manner} it goes otherwise: {difference}")]
    Unstable {
        /// The way in which they were cut.
        manner: &'static str,
        /// The first difference.
        difference: String,
    },
    /// A rule is broken.
    #[error("{when}: {violation}")]
    Violation {
        /// The replay in which it is broken.
        when: String,
        /// The rule, and how it is broken.
        violation: String,
    },
}

/// An action of the network, the machine or the administrator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Incident {
    /// The end of a handshake, with what it has brought.
    Tls(Tls),
    /// With the words of the system, as in those that follow.
    TlsFailed(String),
    /// No server answers at the address, or it is unreachable.
    NotConnected(NetworkTrouble, String),
    Local(String),
    Eof,
    Reset(String),
    Stall,
    Yield,
    /// Octets of mail data.
    Takes(usize),
    StoreFails,
    Crash,
    Drain,
    TryNow,
}

/// A given line that does something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Octets of the server.
    Octets(Vec<u8>),
    Pass(Duration),
    Incident(Incident),
}

/// A line that is kept as it is, and its action, if it is one.
#[derive(Clone, Debug)]
pub(crate) struct Given {
    pub(crate) number: usize,
    pub(crate) text: String,
    pub(crate) action: Option<Action>,
}

/// A transcript without its observed lines.
#[derive(Clone, Debug)]
pub(crate) struct Transcript {
    pub(crate) scene: scene::Setting,
    pub(crate) lines: Vec<Given>,
    /// The number of lines after which the daemon starts.
    pub(crate) start: usize,
}

impl Transcript {
    /// Returns what happens, each with its line.
    pub(crate) fn actions(&self) -> impl Iterator<Item = (&Given, &Action)> {
        self.lines.iter().filter_map(|line| line.action.as_ref().map(|action| (line, action)))
    }
}

impl TranscriptError {
    /// Returns the error of a line that asks for what cannot be.
    pub(crate) fn impossible(line: &Given, reason: &str) -> Self {
        Self::Impossible { line: line.number, reason: reason.to_owned() }
    }
}

/// Replays a transcript in all ways, and returns it with the lines that were observed.
pub fn replay(text: &str) -> Result<String, TranscriptError> {
    let transcript = parse(text)?;
    let written = Replay::run(&transcript, Manner::AsWritten, None)?;
    let manners = [(Manner::OctetByOctet, "octet by octet"), (Manner::Together, "taken together")];
    for (manner, name) in manners.into_iter().filter(|_| !transcript.scene.has_fixed_reads) {
        let other = Replay::run(&transcript, manner, Some(&written))?;
        let (expected, found) = (flat(&written), flat(&other));
        if expected != found {
            let position = expected.iter().zip(&found).take_while(|(a, b)| a == b).count();
            let show =
                |lines: &[&String]| lines.get(position).map_or("nothing", |line| line.as_str()).to_owned();
            let difference = format!("\"{}\" instead of \"{}\"", show(&found), show(&expected));
            return Err(TranscriptError::Unstable { manner: name, difference });
        }
    }
    let actions = transcript.lines.iter().filter(|line| line.action.is_some()).count();
    for count in 0..=actions {
        Replay::run_and_break(&transcript, count)?;
    }
    Ok(print(&transcript, &written))
}

/// Replays a transcript with a build. Returns the observed lines, up to the rule that it breaks, if it does.
pub(crate) fn replay_build(
    text: &str,
    mutation: Mutation,
) -> Result<(String, Option<Violation>), TranscriptError> {
    let transcript = parse(text)?;
    let (observed, violation) = Replay::run_build(&transcript, mutation)?;
    Ok((print(&transcript, &observed), violation))
}

fn flat(observed: &[Vec<String>]) -> Vec<&String> {
    observed.iter().flatten().collect()
}

/// Returns the transcript with these observed lines: the first before all actions, then those after each.
fn print(transcript: &Transcript, observed: &[Vec<String>]) -> String {
    let mut text = String::new();
    let mut observed = observed.iter();
    let mut put = |text: &mut String| {
        for line in observed.next().into_iter().flatten() {
            text.push_str(line);
            text.push('\n');
        }
    };
    for (number, line) in transcript.lines.iter().enumerate() {
        if number == transcript.start {
            put(&mut text);
        }
        text.push_str(&line.text);
        text.push('\n');
        if line.action.is_some() {
            put(&mut text);
        }
    }
    if transcript.start >= transcript.lines.len() {
        put(&mut text);
    }
    text
}
