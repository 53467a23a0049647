//! The candidates that a pass has tried, and the failure that follows when none is left.

use alloc::string::ToString as _;
use alloc::sync::Arc;
use alloc::vec::Vec;

use super::candidate_search::CandidateSearch;
use crate::attempt::{Failure, HostTrouble, Server, Setback, Tried, Unreached};
use crate::command::CommandName;
use crate::course::Course;
use crate::ending::EndCause;
use crate::next_hop::NextHop;
use crate::reply::Reply;
use crate::route::Candidate;
use crate::status::EnhancedStatus;

/// Most candidates that one text names.
const TRIED_LIMIT: usize = 8;

/// Returns a candidate as a server, before the conversation.
pub(super) fn server(candidate: &Candidate) -> Arc<Server> {
    Arc::new(Server { host: candidate.host.clone(), address: candidate.remote, tls: None })
}

/// The failure of all mail of a pass, because no candidate is left.
#[derive(Clone, Debug)]
pub(crate) struct PassFailure {
    pub(crate) failure: Failure,
    /// How the last conversation went, if there was one and attempts tell that.
    pub(crate) course: Option<Arc<Course>>,
}

impl From<Failure> for PassFailure {
    fn from(failure: Failure) -> Self {
        Self { failure, course: None }
    }
}

/// The candidates that a pass has tried.
#[derive(Debug, Default)]
pub(super) struct TriedCandidates {
    /// True if one that could be connected to did anything but refuse permanently.
    any_other: bool,
    /// True if one refused permanently, at its greeting or HELO.
    any_refused: bool,
    /// True if one requires TLS or AUTH, or more of that.
    any_wants_more: bool,
    /// The last refusal.
    words: Option<(Arc<Server>, Reply, CommandName)>,
    candidates: Vec<Tried>,
    /// How the last conversation went, if attempts tell that.
    course: Option<Arc<Course>>,
    /// The status of the last trouble with a candidate.
    status: Option<EnhancedStatus>,
}

impl TriedCandidates {
    /// Records a candidate that was useless, other than by a refusal.
    pub(super) fn note(&mut self, server: Arc<Server>, setback: Setback) {
        self.status = Some(setback.status());
        self.any_other |= !matches!(setback, Setback::NotConnected(_) | Setback::ConnectTimedOut);
        self.any_wants_more |= matches!(setback, Setback::WantsMore { .. });
        self.push(Tried { server, setback });
    }

    /// Records a candidate that was useful, at least for a while.
    pub(super) fn note_useful(&mut self) {
        self.any_other = true;
    }

    /// Records a candidate that has refused. `for_good` is true for a 5yz at its greeting or HELO, unless anybody may have said it.
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

    /// Records how the conversation with a candidate went.
    pub(super) fn note_course(&mut self, course: Option<Arc<Course>>) {
        if course.is_some() {
            self.course = course;
        }
    }

    /// Returns how the last conversation went.
    pub(super) fn last_course(&self) -> Option<Arc<Course>> {
        self.course.clone()
    }

    /// Returns them, as far as a text names them.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Tried> {
        self.candidates.iter()
    }

    /// Returns the failure of the mail when no candidate is left of a search.
    pub(super) fn conclude(&self, next_hop: &NextHop, search: &CandidateSearch) -> Failure {
        let host = search.host_trouble();
        // The refusal of one server does not explain why TLS or AUTH, which another requires, was impossible.
        if let Some((server, reply, command)) = self.words.clone()
            && !self.any_wants_more
        {
            let fatal = self.any_refused && !self.any_other && !search.has_withheld();
            return Failure::Refused { server, reply, command, fatal };
        }
        // Without a candidate, the name servers are the reason, unless a policy leaves none.
        let without_candidate = match host {
            Some(HostTrouble::NoUsablePort(..)) => EnhancedStatus::NO_SECURITY,
            Some(HostTrouble::RouteNotSecure(_) | HostTrouble::NoTlsa(_) | HostTrouble::NotInPolicy(..)) => {
                EnhancedStatus::NO_PROOF
            }
            _ => EnhancedStatus::DNS_FAILURE,
        };
        let status = if self.any_wants_more {
            EnhancedStatus::POLICY
        } else {
            self.status.unwrap_or(without_candidate)
        };
        Failure::Unreached(Arc::new(Unreached {
            is_relay: matches!(next_hop, NextHop::Relay(_)),
            tried: self.candidates.clone(),
            host: host.cloned(),
            status,
        }))
    }

    /// Keeps only what is new: the same port may be tried with and without TLS.
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
