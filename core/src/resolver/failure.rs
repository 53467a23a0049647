//! Why a lookup has no result, as values; their texts are sentences that name question, server and failure.

use alloc::boxed::Box;
use core::fmt;
use core::net::SocketAddr;

use thiserror::Error;

use super::message::{Question, QuestionType, text_of};
use crate::system_error::{Breakage, MachineTrouble, NetworkTrouble, SystemError};

/// Why the name servers gave no answer of use. A later lookup may get one.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum DnsFailure {
    /// No server answered; the last one failed like this.
    #[error("looking up the {question} failed: name server {server} {trouble}")]
    Server {
        /// What was asked.
        question: DnsQuestion,
        /// Whom.
        server: SocketAddr,
        /// What came of it.
        trouble: DnsServerTrouble,
    },
    /// No name server is configured.
    #[error("looking up the {0} failed: no name server is configured")]
    NoServer(DnsQuestion),
    /// The question does not fit into a message.
    #[error("looking up the {0} failed: the name cannot be encoded")]
    NotEncodable(DnsQuestion),
    /// Servers that are believed did not answer, and what the others answer proves nothing.
    #[error("looking up the {0} failed: only a name server that does not validate has answered")]
    NotValidated(DnsQuestion),
    /// The name is an alias of an alias, and so on without an end, or for too long.
    #[error("looking up {name} failed: its chain of CNAME records is endless or too long")]
    AliasLoop {
        /// The first of them.
        name: Box<str>,
    },
}

/// What a name server did instead of answering.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum DnsServerTrouble {
    /// Nothing.
    #[error("did not answer in time")]
    TimedOut,
    /// It, or its machine, cannot be reached.
    #[error("could not be reached: {0}")]
    Unreachable(SystemError<NetworkTrouble>),
    /// It answered with an error.
    #[error("answered {0}")]
    Answered(ResponseCode),
    /// It sent something that is not in the format of RFC 1035.
    #[error("sent a malformed answer")]
    Malformed,
    /// It closed the connection.
    #[error("closed the connection without an answer")]
    Closed,
    /// The connection broke.
    #[error("broke the connection: {0}")]
    Broken(SystemError<Breakage>),
    /// Its answers, one after the other, were to other questions, until it was given up.
    #[error("answered other questions than it was asked")]
    StrayAnswers,
    /// Its answer repeats another question.
    #[error("answered another question than it was asked")]
    WrongQuestion,
    /// It does not ask others for its clients.
    #[error("does not look up names for us, but refers to other servers")]
    Referral,
}

/// What keeps this machine from a lookup. No server, and no domain, is to blame.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum LocalLookupError {
    /// No server could be asked; the last one for this reason.
    #[error("looking up the {question} failed: name server {server} could not be asked: {error}")]
    NotAsked {
        /// What was to be asked.
        question: DnsQuestion,
        /// Whom.
        server: SocketAddr,
        /// What is missing.
        error: SystemError<MachineTrouble>,
    },
    /// The name of the domain does not fit into a question.
    #[error("the name of the domain cannot be encoded")]
    NotEncodable,
    /// Neither family of addresses may be asked for.
    #[error("this machine has neither IPv4 nor IPv6 to use")]
    NoFamily,
}

/// What was asked of a name server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DnsQuestion {
    /// Which records.
    pub kind: QuestionType,
    /// Of which name, without a final dot.
    pub name: Box<str>,
}

impl From<&Question> for DnsQuestion {
    fn from(question: &Question) -> Self {
        Self { kind: question.kind, name: text_of(&question.name).into() }
    }
}

impl fmt::Display for DnsQuestion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let records = match self.kind {
            QuestionType::Mx => "MX records",
            QuestionType::Ipv4 => "IPv4 addresses",
            QuestionType::Ipv6 => "IPv6 addresses",
            QuestionType::Tlsa => "TLSA records",
            QuestionType::Txt => "TXT records",
            QuestionType::Alias => "CNAME record",
            QuestionType::NameServers => "name servers",
        };
        let name = if self.name.is_empty() { "the root" } else { &self.name };
        write!(f, "{records} of {name}")
    }
}

/// An error that a name server answers with (RFC 1035 section 4.1.1, RFC 6891 section 9).
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum ResponseCode {
    /// The server cannot read the question.
    #[error("FORMERR")]
    FormErr,
    /// The server failed, or found no server that answers.
    #[error("SERVFAIL")]
    ServFail,
    /// The server does not know such questions.
    #[error("NOTIMP")]
    NotImp,
    /// The server does not want to answer.
    #[error("REFUSED")]
    Refused,
    /// The server does not know this version of EDNS.
    #[error("BADVERS")]
    BadVers,
    /// Any other.
    #[error("with the error code {0}")]
    Other(u16),
}
