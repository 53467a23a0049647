//! What has happened, in words: the one place that turns values into the clauses of faillog rows, log lines and bounces.

use core::fmt;

use crate::ending::{EndCause, LocalTrouble, Misbehaved, OutOfStep, Overdue, SystemText, Unfit, Unsuitable};

impl fmt::Display for SystemText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for EndCause {
    /// A clause fit for the faillog, without secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Quit => f.write_str("the conversation was ended"),
            Self::Closed => f.write_str("the server closed the connection"),
            Self::Broken(reason) => write!(f, "the connection broke: {reason}"),
            Self::TimedOut(overdue) => overdue.fmt(f),
            Self::Refused(reply, command) => write!(f, "{reply} in reply to {command}"),
            Self::Unsuitable(reason) => reason.fmt(f),
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
            Self::CertificateInvalid => {
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
