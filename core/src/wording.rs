//! Turns values into the clauses of faillog rows, log lines and bounces. This is the only place that does.

use alloc::format;
use alloc::string::{String, ToString as _};
use alloc::vec::Vec;
use core::fmt;
use core::net::SocketAddr;

use crate::attempt::{
    Acceptance, Attempt, AttemptKind, Failure, HostTrouble, Protection, Server, Setback, Tried, Unreached,
    Unresolved, Unsendable,
};
use crate::ending::{EndCause, LocalTrouble, Misbehaved, OutOfStep, Overdue, Unfit, Unsuitable};
use crate::failure::{FailureText, OwnFailure};
use crate::next_hop::Host;
use crate::one_line::OneLine;
use crate::reply::Reply;
use crate::status::EnhancedStatus;
use crate::sts::{Finding, KnownPolicy};
use crate::tls::{Basis, Lack, Shortfall};

/// Most characters of a reply within a longer line.
const REPLY_LIMIT_CHARACTERS: usize = 200;

/// Returns the text of a faillog row: the server's own words and its name, or a sentence of our own and its status.
pub fn faillog_text(failure: &Failure) -> String {
    let own = |kind, status, detail: String| FailureText::own(kind, status, &detail);
    match failure {
        Failure::Refused { server, reply, command, .. } => {
            FailureText::server(&reply.text(), &server.host.to_string(), server.address, &command.to_string())
        }
        Failure::Unfit(server, reason) => FailureText::free(reason.status(), &format!("{reason} ({server})")),
        Failure::Uncertain(server, cause) => FailureText::free(
            EnhancedStatus::CONNECTION_LOST,
            &format!("delivery uncertain, no reply to the end of data: {} ({server})", Lost(cause)),
        ),
        Failure::Unreached(unreached) => {
            let kind = if unreached.is_relay { OwnFailure::ReachRelay } else { OwnFailure::ReachMx };
            own(kind, unreached.status, unreached.to_string())
        }
        Failure::Unresolved(reason) => own(OwnFailure::Resolve, reason.status(), reason.to_string()),
        Failure::Unsendable(reason) => FailureText::free(reason.status(), &reason.to_string()),
        Failure::MalformedRelay(error) => {
            own(OwnFailure::ReachRelay, EnhancedStatus::BAD_CONFIGURATION, error.to_string())
        }
        Failure::NotSigned(trouble) => FailureText::free(
            EnhancedStatus::CRYPTOGRAPHY,
            &format!("the mail could not be signed (DKIM): {}", OneLine(trouble)),
        ),
    }
}

/// The beginning of the text of a faillog row that an order has made.
const GIVEN_UP_BY: &str = "Given up by ";

/// Names a line of the configuration that says when mail is tried again.
pub fn retry_line(line: u32) -> String {
    format!("retry line {line}")
}

/// Returns the text of the faillog row by which an order gives a mail up.
pub fn given_up_by_order(order: &str, reason: Option<&str>) -> String {
    match reason {
        Some(reason) => format!("{GIVEN_UP_BY}{order}: {}", OneLine(reason)),
        None => format!("{GIVEN_UP_BY}{order}"),
    }
}

/// Returns the order in such a text.
pub fn order_in(text: &str) -> Option<&str> {
    let rest = text.strip_prefix(GIVEN_UP_BY).filter(|rest| rest.starts_with("order "))?;
    Some(rest.split_once(": ").map_or(rest, |(order, _)| order))
}

/// Returns the first line of a reply, short enough for one line.
pub fn first_line(reply: &Reply) -> String {
    let text = reply.text();
    let line = text.lines().next().unwrap_or_default();
    line.chars().take(REPLY_LIMIT_CHARACTERS).collect()
}

/// Writes a server: name, address and port.
pub(crate) struct ServerName<'a>(pub(crate) &'a Host, pub(crate) SocketAddr);

impl AttemptKind {
    /// Returns the word by which configuration, database and log call it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            // It fails here, before anybody is asked.
            Self::Address => "local",
            Self::Dns => "dns",
            Self::Connect => "connect",
            Self::Tls => "tls",
            Self::Auth => "auth",
            Self::Greeting => "greeting",
            Self::Sender => "sender",
            Self::Recipient => "recipient",
            Self::Content => "content",
            Self::Lost => "lost",
            Self::Uncertain => "uncertain",
        }
    }

    /// Returns the subject of failures that has this name.
    pub fn of_failure(name: &str) -> Option<Self> {
        Self::FAILURES.into_iter().find(|kind| kind.name() == name)
    }
}

impl fmt::Display for AttemptKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Display for ServerName<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} [{}]:{}", self.0, self.1.ip(), self.1.port())
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        ServerName(&self.host, self.address).fmt(f)
    }
}

/// Writes the end of a conversation that left a message without its verdict.
struct Lost<'a>(&'a EndCause);

impl fmt::Display for Lost<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            EndCause::Quit | EndCause::Refused(..) => f.write_str("no reply was awaited"),
            cause @ (EndCause::Closed
            | EndCause::Broken(_)
            | EndCause::TimedOut(_)
            | EndCause::Unsuitable(_)
            | EndCause::Untrusted(_)
            | EndCause::Misbehaved(_)
            | EndCause::Local(_)) => cause.fmt(f),
        }
    }
}

impl fmt::Display for Attempt<Acceptance> {
    /// Writes one line of a log: the server and its reply.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Acceptance { server, reply } = &self.result;
        write!(f, "{} ", OneLine(server))?;
        match server.tls {
            Some(tls) => write!(f, "over {tls}")?,
            None => f.write_str("in plain text")?,
        }
        // It often contains the queue id.
        write!(f, ": {}", OneLine(first_line(reply)))
    }
}

impl fmt::Display for Attempt<Failure> {
    /// Writes one line of a log: the faillog text.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        FailureLine(&self.result).fmt(f)
    }
}

/// Writes the faillog text on one line.
pub(crate) struct FailureLine<'a>(pub(crate) &'a Failure);

impl fmt::Display for FailureLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = faillog_text(self.0);
        match text.rsplit_once("\n(") {
            Some((words, origin)) => write!(f, "{} ({}", OneLine(words), OneLine(origin)),
            None => write!(f, "{}", OneLine(text)),
        }
    }
}

impl fmt::Display for Unreached {
    /// Writes each trouble once: the same port may have been tried with and without TLS.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut clauses: Vec<String> = self.tried.iter().map(Tried::to_string).collect();
        clauses.extend(self.host.as_ref().map(HostTrouble::to_string));
        f.write_str(&clauses.join("; "))
    }
}

impl fmt::Display for Tried {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.server, self.setback)
    }
}

impl fmt::Display for Setback {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotConnected(reason) => reason.fmt(f),
            Self::ConnectTimedOut => f.write_str("connection timed out"),
            Self::Ended(EndCause::Refused(reply, command)) => {
                write!(f, "{} (in reply to {command})", first_line(reply))
            }
            Self::Ended(cause) => cause.fmt(f),
            Self::WantsMore { reply, command, protection } => {
                write!(f, "{} (in reply to {command}, {protection})", first_line(reply))
            }
        }
    }
}

impl fmt::Display for Protection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tls => "inside TLS",
            Self::StartTlsNotOffered => "without TLS, as STARTTLS is not offered",
            Self::None => "without TLS",
        })
    }
}

impl fmt::Display for HostTrouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotInPolicy(host, domain) => {
                write!(f, "{host} is not among the hosts of the MTA-STS policy of {domain}")
            }
            Self::NoUsableMx(domain) => {
                write!(f, "none of the MX records of {domain} names a host to use")
            }
            Self::NoSuchHost(host) => write!(f, "the host {host} does not exist"),
            Self::NoAddress(host) => write!(f, "the host {host} has no address that mail can be sent to"),
            Self::NoUsableFamily(host) => {
                write!(f, "the host {host} has no address of a family that can be used")
            }
            Self::NoUsablePort(host, basis) => {
                write!(f, "no port to try at {host} is protected as {basis} needs it")
            }
            Self::RouteNotSecure(domain) => {
                write!(
                    f,
                    "DNSSEC does not vouch for the MX records of {domain}, and tls_policy says dane-only"
                )
            }
            Self::NoTlsa(host) => {
                write!(
                    f,
                    "the host {host} has no TLSA records that can be used and that DNSSEC vouches for, and tls_policy says dane-only"
                )
            }
            Self::DnsFailed(failure) => failure.fmt(f),
        }
    }
}

impl fmt::Display for Unresolved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BadDomain(error) => error.fmt(f),
            Self::NoSuchDomain(domain) => write!(f, "the domain {domain} does not exist"),
            Self::NullMx(domain) => write!(f, "the domain {domain} does not accept mail (null MX)"),
            Self::NoRoute(domain) => {
                write!(f, "the domain {domain} has neither MX records nor addresses that mail can be sent to")
            }
            Self::DnsFailed(failure) => failure.fmt(f),
        }
    }
}

impl fmt::Display for Unsendable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Recipient(error) => write!(f, "the recipient cannot be sent to: {error}"),
            Self::Sender(error) => write!(f, "the sender cannot be named: {error}"),
        }
    }
}

impl fmt::Display for EndCause {
    /// Writes a clause fit for the faillog, without secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Quit => f.write_str("the conversation was ended"),
            Self::Closed => f.write_str("the server closed the connection"),
            Self::Broken(reason) => write!(f, "the connection broke: {reason}"),
            Self::TimedOut(overdue) => overdue.fmt(f),
            Self::Refused(reply, command) => write!(f, "{reply} in reply to {command}"),
            Self::Unsuitable(reason) => reason.fmt(f),
            Self::Untrusted(shortfall) => shortfall.fmt(f),
            Self::Misbehaved(crime) => crime.fmt(f),
            Self::Local(trouble) => trouble.fmt(f),
        }
    }
}

impl fmt::Display for Overdue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TlsHandshake => f.write_str("timed out during the TLS handshake"),
            Self::Reply(command) => write!(f, "timed out waiting for the reply to {command}"),
            Self::MailData => f.write_str("timed out while the mail data was being sent"),
        }
    }
}

impl fmt::Display for Unsuitable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::StartTlsNotOffered => f.write_str("STARTTLS is not offered"),
            Self::TlsFailed(reason) => write!(f, "the TLS handshake failed: {reason}"),
            Self::CertificateInvalid(_) => {
                f.write_str("the certificate of the server is not valid, so the credentials cannot be sent")
            }
            Self::NoTls => {
                f.write_str("the connection is not protected by TLS, so the credentials cannot be sent")
            }
            Self::NoMechanism => f.write_str("no known mechanism of AUTH is offered"),
            Self::NotAuthenticated(error) => write!(f, "authentication failed: {error}"),
        }
    }
}

impl fmt::Display for Basis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Config => "tls_policy",
            Self::Dane | Self::DaneInsecureMx => "DANE",
            Self::Sts => "MTA-STS",
            Self::RequireTls => "REQUIRETLS",
        })
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.policy, &self.trouble) {
            (Some(known), trouble) => {
                known.fmt(f)?;
                trouble.as_ref().map_or(Ok(()), |trouble| write!(f, "; {trouble}"))
            }
            (None, Some(trouble)) => write!(f, "no MTA-STS policy: {trouble}"),
            (None, None) => f.write_str("no MTA-STS policy"),
        }
    }
}

impl fmt::Display for KnownPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { domain, id, policy, fetched, expires } = self;
        let mode = policy.mode;
        write!(
            f,
            "the MTA-STS policy of {domain} has the mode {mode} until {expires} (id {id}, fetched {fetched})"
        )
    }
}

impl fmt::Display for Shortfall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { lack, basis } = self;
        match lack {
            Lack::Tls => write!(f, "STARTTLS is not offered, but {basis} needs it"),
            Lack::Version(version) => write!(f, "{version} is too early a version for {basis}"),
            Lack::Proof(_, trouble) => {
                write!(f, "the certificate of the server is not accepted: {trouble} ({basis})")
            }
        }
    }
}

impl fmt::Display for Misbehaved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::MalformedReply(error) => error.fmt(f),
            Self::PlainTextBeforeTls => f.write_str("the server sent plain text where TLS was to begin"),
            Self::EhloReplyTooLong => f.write_str(
                "the server's reply to EHLO is too long, so it is not known what the server offers",
            ),
            Self::RefusedDuringData(reply) => {
                write!(f, "the server replied before the end of the data: {reply}")
            }
            Self::RefusedRset(reply) => write!(f, "the server refused RSET: {reply}"),
            Self::DidNotFollow => f.write_str("the server could not follow the message"),
            Self::OutOfStep(crime) => crime.fmt(f),
        }
    }
}

impl fmt::Display for OutOfStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SpokeUnasked(reply) => write!(f, "the server spoke without being asked: {reply}"),
            Self::RepliedBeforeAsked(reply) => write!(f, "the server replied before it was asked: {reply}"),
            Self::RepliedDuringData(reply) => {
                write!(f, "the server replied before the end of the data: {reply}")
            }
            Self::CannotAnswer(command, reply) => {
                write!(f, "the server cannot answer {command} by this: {reply}")
            }
            Self::RefusedRset(reply) => write!(f, "the server refused RSET: {reply}"),
            Self::DidNotFollow => f.write_str("the server could not follow the message"),
        }
    }
}

impl fmt::Display for LocalTrouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::MailDataLate => "the mail data was not read in time",
            Self::MailDataGone => {
                "the rest of the mail cannot be had: it was deleted or changed while it was sent, or the database cannot be read"
            }
        })
    }
}

impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong { octets, limit_octets } => write!(
                f,
                "the message has {octets} octets, more than the {limit_octets} that the server takes"
            ),
            Self::NeedsSmtpUtf8 => {
                f.write_str("the address is not ASCII, and the server does not offer SMTPUTF8")
            }
        }
    }
}
