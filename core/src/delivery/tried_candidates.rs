//! The tried of the candidates of a pass, and what it comes to when none is left.

use alloc::string::ToString as _;
use alloc::sync::Arc;
use alloc::vec::Vec;

use crate::attempt::{Failure, HostTrouble, Server, Setback, Tried, Unreached};
use crate::command::CommandName;
use crate::ending::EndCause;
use crate::next_hop::NextHop;
use crate::reply::Reply;
use crate::route::Candidate;
use crate::status::EnhancedStatus;

/// Most candidates whose troubles are named in one text.
const TRIED_LIMIT: usize = 8;

/// A server, as it is before the conversation.
pub(super) fn server(candidate: &Candidate) -> Arc<Server> {
    Arc::new(Server { host: candidate.host.clone(), address: candidate.remote, tls: None })
}

/// What became of the candidates of a pass.
#[derive(Debug, Default)]
pub(super) struct TriedCandidates {
    /// True if one that could be connected to did anything else than refuse for good.
    any_other: bool,
    /// True if one refused for good at its greeting or HELO.
    any_refused: bool,
    /// True if one wants TLS or AUTH first, or more of that.
    any_wants_more: bool,
    /// The last that a server had to say.
    words: Option<(Arc<Server>, Reply, CommandName)>,
    candidates: Vec<Tried>,
    /// What the last trouble comes to, if it was with a candidate.
    status: Option<EnhancedStatus>,
}

impl TriedCandidates {
    /// A candidate came to nothing, other than by a refusal.
    pub(super) fn note(&mut self, server: Arc<Server>, setback: Setback) {
        self.status = Some(setback.status());
        self.any_other |= !matches!(setback, Setback::NotConnected(_) | Setback::ConnectTimedOut);
        self.any_wants_more |= matches!(setback, Setback::WantsMore { .. });
        self.push(Tried { server, setback });
    }

    /// A candidate was of use, for a while at least.
    pub(super) fn note_useful(&mut self) {
        self.any_other = true;
    }

    /// A candidate has refused; `for_good` if it was by a 5yz at its greeting or HELO.
    pub(super) fn note_refused(
        &mut self,
        server: Arc<Server>,
        reply: Reply,
        command: CommandName,
        for_good: bool,
    ) {
        if for_good {
            self.any_refused = true;
        } else {
            self.any_other = true;
        }
        self.words = Some((Arc::clone(&server), reply.clone(), command));
        self.push(Tried { server, setback: Setback::Ended(EndCause::Refused(reply, command)) });
    }

    /// No candidate is left: what is said of the mail. `host` is what was wrong with hosts that gave no candidate.
    pub(super) fn conclude(&self, next_hop: &NextHop, host: Option<&HostTrouble>) -> Failure {
        // The words of one server do not say why TLS or AUTH, which another wants, did not come about.
        if let Some((server, reply, command)) = self.words.clone()
            && !self.any_wants_more
        {
            return Failure::Refused { server, reply, command, fatal: self.any_refused && !self.any_other };
        }
        // Without a candidate, it was the name servers that did not help.
        let status = if self.any_wants_more {
            EnhancedStatus::POLICY
        } else {
            self.status.unwrap_or(EnhancedStatus::DNS_FAILURE)
        };
        Failure::Unreached(Arc::new(Unreached {
            is_relay: matches!(next_hop, NextHop::Relay(_)),
            tried: self.candidates.clone(),
            host: host.cloned(),
            status,
        }))
    }

    /// Keeps what says something new: the same port may be tried with and without TLS.
    fn push(&mut self, tried: Tried) {
        let says_the_same = |known: &Tried| {
            (&known.server.host, known.server.address) == (&tried.server.host, tried.server.address)
                && known.setback.to_string() == tried.setback.to_string()
        };
        if self.candidates.len() < TRIED_LIMIT && !self.candidates.iter().any(says_the_same) {
            self.candidates.push(tried);
        }
    }
}
