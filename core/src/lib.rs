//! Delivers queued mail by SMTP, as pure state machines.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod address;
pub mod bounce;
pub mod command;
mod delivery;
pub mod dispatcher;
pub mod event;
pub mod failure;
pub mod io;
pub mod next_hop;
pub mod outbox;
mod queue;
pub mod reply;
pub mod resolver;
pub mod rng;
pub mod route;
pub mod sasl;
pub mod schedule;
pub mod session;
pub mod settings;
pub mod status;
pub mod time;
pub mod transparency;
