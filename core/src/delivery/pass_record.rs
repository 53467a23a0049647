//! The record of one pass.

use alloc::vec::Vec;
use core::net::SocketAddr;

use super::tried_candidates::TriedCandidates;
use crate::ending::EndCause;
use crate::next_hop::Host;
use crate::time::Instant;

/// The facts that count for one pass only.
#[derive(Debug)]
pub(super) struct PassRecord {
    pub(super) began: Instant,
    /// True if the pass uses connections of an earlier one, and so has not yet tried any candidate itself.
    pub(super) is_continued: bool,
    /// True if mail was taken, by whichever candidate.
    pub(super) has_taken: bool,
    /// The number of times that credentials were refused since they were last accepted.
    pub(super) refused_logins: u32,
    /// Hosts where TLS has failed, with the cause.
    pub(super) tls_failures: Vec<(Host, EndCause)>,
    /// Servers that get no more padding.
    pub(super) unpadded: Vec<SocketAddr>,
    /// Servers that get one command at a time.
    pub(super) unbatched: Vec<SocketAddr>,
    /// Servers that get classic groups of key exchange alone.
    pub(super) classic_groups: Vec<SocketAddr>,
    pub(super) tried: TriedCandidates,
}

impl PassRecord {
    pub(super) fn new(began: Instant) -> Self {
        Self {
            began,
            is_continued: false,
            has_taken: false,
            refused_logins: 0,
            tls_failures: Vec::new(),
            unpadded: Vec::new(),
            unbatched: Vec::new(),
            classic_groups: Vec::new(),
            tried: TriedCandidates::default(),
        }
    }

    /// Begins the record of a pass over connections of an earlier one. What is known of TLS and padding there still counts.
    pub(super) fn continue_at(&mut self, began: Instant) {
        self.began = began;
        self.is_continued = true;
        self.has_taken = false;
        self.refused_logins = 0;
        self.tried = TriedCandidates::default();
    }

    /// Forgets what is known of the connections of an earlier pass, as the last one is lost.
    pub(super) fn begin_again(&mut self) {
        self.is_continued = false;
        self.tls_failures.clear();
        self.unpadded.clear();
        self.unbatched.clear();
        self.classic_groups.clear();
        self.tried = TriedCandidates::default();
    }
}
