//! One SMTP conversation.
mod types;
use crate::{io::CloseReason, rng::Rng, time::Instant};
use alloc::string::String;
use bytes::{Bytes, BytesMut};
pub use types::*;

/// One SMTP conversation.
#[derive(Debug)]
pub struct Session {}

#[allow(unused_variables, missing_docs)]
impl Session {
    pub fn new(config: SessionConfig, rng: Rng, now: Instant) -> Self {
        Self {}
    }
    pub fn handle_received(&mut self, now: Instant, octets: &[u8]) {}
    pub fn handle_tls_established(&mut self, now: Instant, certificate_is_valid: bool) {}
    pub fn handle_tls_failed(&mut self, now: Instant, reason: String) {}
    pub fn handle_closed(&mut self, now: Instant, reason: CloseReason) {}
    pub fn handle_timeout(&mut self, now: Instant) {}
    pub fn begin(&mut self, now: Instant, transaction: Transaction) {}
    pub fn supply_data(&mut self, now: Instant, octets: Bytes) {}
    pub fn quit(&mut self, now: Instant) {}
    pub fn poll_output(&mut self) -> Option<SessionOutput> {
        None
    }
    pub fn poll_transmit(&mut self, now: Instant, limit: usize, out: &mut BytesMut) -> bool {
        false
    }
    pub fn wants_transmit(&self) -> bool {
        false
    }
    pub fn poll_timeout(&self) -> Option<(Instant, Phase)> {
        None
    }
    pub fn phase(&self) -> Phase {
        Phase::Ended
    }
    pub fn is_tls(&self) -> bool {
        false
    }
    pub fn awaits_final_reply(&self) -> bool {
        false
    }
}
