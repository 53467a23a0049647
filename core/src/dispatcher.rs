//! The facade a driver sees.

use bytes::BytesMut;

use crate::io::{ConnectionId, Input, Output};
use crate::next_hop::NextHop;
use crate::settings::{Hosts, Settings};
use crate::time::{Instant, Now};

/// What the dispatcher is to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Deliver and bounce until a drain is asked for.
    Daemon,
    /// One pass over the due mail of one next hop, without bounces.
    Deliver(Selection),
    /// One pass that makes bounces and delivers nothing.
    GenerateBounces,
}

/// Which mail a one-shot pass is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selection {
    /// Mail that is routed by this domain.
    Domain(NextHop),
    /// Mail whose `mail_remote` is exactly this.
    Remote(alloc::boxed::Box<[u8]>),
}

/// Why a timer is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeoutReason {
    /// Something.
    Interval,
}

/// Delivers the outbox.
#[derive(Debug)]
pub struct Dispatcher {}

impl Dispatcher {
    /// A dispatcher that has done nothing yet. `seed` decides everything that is random.
    pub fn new(_now: Now, _settings: Settings, _hosts: Hosts, _mode: Mode, _seed: [u8; 32]) -> Self {
        Self {}
    }
    /// Takes in what has happened.
    pub fn handle_input(&mut self, _now: Now, _input: Input<'_>) {}
    /// Does what is due. Calling it too early does nothing.
    pub fn handle_timeout(&mut self, _now: Now) {}
    /// What to do next; to be called until it returns nothing, after every input and timeout.
    pub fn poll_output(&mut self) -> Option<Output> {
        None
    }
    /// Appends up to about `limit` octets that are to be sent on a connection; false if there are none.
    pub fn poll_transmit(
        &mut self,
        _connection: ConnectionId,
        _limit: usize,
        _octets: &mut BytesMut,
    ) -> bool {
        false
    }
    /// When to call [`Dispatcher::handle_timeout`], and why.
    pub fn poll_timeout(&self) -> Option<(Instant, TimeoutReason)> {
        None
    }
}
