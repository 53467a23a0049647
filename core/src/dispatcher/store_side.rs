//! What this dispatcher and the database have with each other.

use super::Mode;
use super::held::Held;
use super::outlet::Outlet;
use super::requests::{Asked, Requests};
use super::suspects::Suspects;
use crate::flight::Uncertain;
use crate::io::Output;
use crate::outbox::StoreRequest;
use crate::time::Instant;

/// The requests that the database has not answered, the mail that it holds, and the flights of earlier runs that it knows.
#[derive(Debug)]
pub(super) struct StoreSide {
    pub(super) requests: Requests,
    pub(super) held: Held,
    pub(super) suspects: Suspects,
}

impl StoreSide {
    pub(super) fn new(now: Instant, uncertain: Uncertain, mode: &Mode) -> Self {
        Self {
            requests: Requests::default(),
            held: Held::default(),
            suspects: Suspects::new(now, uncertain, mode),
        }
    }

    /// Sends a request, after everything that was given up until now.
    pub(super) fn ask(&mut self, outlet: &mut Outlet, request: StoreRequest, asked: Asked) {
        self.release(outlet);
        let id = self.requests.open(asked);
        outlet.push(Output::Store(id, request));
    }

    /// Releases what was given up.
    pub(super) fn release(&mut self, outlet: &mut Outlet) {
        let ids = self.held.take_given_up();
        if !ids.is_empty() {
            outlet.push(Output::Release(ids));
        }
    }
}
