//! What is said of a mail that was not delivered, and the tally of candidates that leads there.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use crate::command::CommandName;
use crate::failure::{FailureText, OwnFailure};
use crate::next_hop::NextHop;
use crate::reply::Reply;
use crate::route::Candidate;
use crate::status::EnhancedStatus;

/// Most candidates whose troubles are named in one text.
const DETAIL_LIMIT: usize = 8;
/// Most characters of a reply that stand in a line with other things.
const REPLY_LIMIT_CHARACTERS: usize = 200;

/// A failed attempt, as it goes into the faillog.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) text: String,
    pub(crate) fatal: bool,
}

impl Failure {
    /// The recipient's domain leads nowhere.
    pub(super) fn unresolved(detail: &str, status: EnhancedStatus, fatal: bool) -> Self {
        Self { text: FailureText::own(OwnFailure::Resolve, status, detail), fatal }
    }

    /// A server has spoken.
    pub(super) fn replied(candidate: &Candidate, reply: &Reply, command: CommandName, fatal: bool) -> Self {
        let (host, command) = (candidate.host.to_string(), command.to_string());
        Self { text: FailureText::server(&reply.text(), &host, candidate.remote, &command), fatal }
    }

    /// We have found it out ourselves, in conversation with a server.
    pub(super) fn found(candidate: &Candidate, text: &str, status: EnhancedStatus, fatal: bool) -> Self {
        let detail = format!("{} ({})", text, describe(candidate));
        Self { text: FailureText::free(status, &detail), fatal }
    }

    /// We have found it out before any server was asked.
    pub(crate) fn unsendable(text: &str, status: EnhancedStatus) -> Self {
        Self { text: FailureText::free(status, text), fatal: true }
    }

    /// What stands after the last `@` is no domain.
    pub(crate) fn bad_domain(text: &str) -> Self {
        Self::unresolved(text, EnhancedStatus::BAD_DOMAIN, true)
    }

    /// The remote specification is none.
    pub(crate) fn malformed_relay(text: &str) -> Self {
        Self {
            text: FailureText::own(OwnFailure::ReachRelay, EnhancedStatus::BAD_CONFIGURATION, text),
            fatal: false,
        }
    }
}

/// A candidate for a text: name, address and port.
pub(crate) fn describe(candidate: &Candidate) -> String {
    format!("{} [{}]:{}", candidate.host, candidate.remote.ip(), candidate.remote.port())
}

/// What became of the candidates of a pass.
#[derive(Debug, Default)]
pub(super) struct Tally {
    /// Whether one that could be connected to did anything else than refuse for good.
    spared: bool,
    /// Whether one refused for good at its greeting or HELO.
    refused: bool,
    /// Whether one wants TLS or AUTH first, or more of that.
    unfit: bool,
    /// The last that a server had to say.
    words: Option<Failure>,
    details: Vec<String>,
    /// What the last trouble was, if it was with a candidate.
    status: Option<EnhancedStatus>,
}

impl Tally {
    /// A candidate could not be connected to.
    pub(super) fn unreachable(&mut self, candidate: &Candidate, text: &str) {
        self.note(candidate, text, EnhancedStatus::NO_ANSWER);
    }

    /// A candidate was connected to, but the connection was lost.
    pub(super) fn lost(&mut self, candidate: &Candidate, text: &str) {
        self.spared = true;
        self.note(candidate, text, EnhancedStatus::CONNECTION_LOST);
    }

    /// A candidate was connected to, but does not offer what is needed.
    pub(super) fn unsuitable(&mut self, candidate: &Candidate, text: &str) {
        self.spared = true;
        self.note(candidate, text, EnhancedStatus::POLICY);
    }

    /// A candidate wants TLS or AUTH first, or more of that than the conversation had.
    pub(super) fn unfit(
        &mut self,
        candidate: &Candidate,
        reply: &Reply,
        command: CommandName,
        protection: &str,
    ) {
        self.spared = true;
        self.unfit = true;
        let text = format!("{} (in reply to {command}, {protection})", first_line(reply));
        self.note(candidate, &text, EnhancedStatus::POLICY);
    }

    /// A candidate was of use, for a while at least.
    pub(super) fn useful(&mut self) {
        self.spared = true;
    }

    /// A candidate has refused; `for_good` if it was by a 5yz at its greeting or HELO.
    pub(super) fn refused(
        &mut self,
        candidate: &Candidate,
        reply: &Reply,
        command: CommandName,
        for_good: bool,
    ) {
        if for_good {
            self.refused = true;
        } else {
            self.spared = true;
        }
        self.words = Some(Failure::replied(candidate, reply, command, false));
        self.detail(candidate, &format!("{} (in reply to {command})", first_line(reply)));
    }

    /// No candidate is left: what is said of the mail. `detail` is what was wrong with hosts that gave no candidate.
    pub(super) fn conclude(&self, next_hop: &NextHop, detail: Option<&str>) -> Failure {
        // The words of one server do not say why TLS or AUTH, which another wants, did not come about.
        if let Some(words) = &self.words
            && !self.unfit
        {
            return Failure { fatal: self.refused && !self.spared, ..words.clone() };
        }
        let mut details: Vec<&str> = self.details.iter().map(String::as_str).collect();
        details.extend(detail);
        let kind = match next_hop {
            NextHop::Domain(_) | NextHop::Literal(_) => OwnFailure::ReachMx,
            NextHop::Relay(_) => OwnFailure::ReachRelay,
        };
        // Without a candidate, it was the name servers that did not help.
        let status = if self.unfit {
            EnhancedStatus::POLICY
        } else {
            self.status.unwrap_or(EnhancedStatus::DNS_FAILURE)
        };
        let text = FailureText::own(kind, status, &details.join("; "));
        Failure { text, fatal: false }
    }

    fn note(&mut self, candidate: &Candidate, text: &str, status: EnhancedStatus) {
        self.status = Some(status);
        self.detail(candidate, text);
    }

    fn detail(&mut self, candidate: &Candidate, text: &str) {
        let detail = format!("{}: {text}", describe(candidate));
        // The same port may be tried with and without TLS.
        if self.details.len() < DETAIL_LIMIT && !self.details.contains(&detail) {
            self.details.push(detail);
        }
    }
}

/// What a server said, short enough for one line.
pub(super) fn first_line(reply: &Reply) -> String {
    let text = reply.text();
    let line = text.lines().next().unwrap_or_default();
    line.chars().take(REPLY_LIMIT_CHARACTERS).collect()
}
