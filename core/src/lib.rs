//! Delivers queued mail by SMTP: a core of pure state machines, without sockets, clocks, files or threads.
//!
//! A mail's way through it, each arrow going down or out:
//!
//! ```text
//! outbox row ─ schedule: due? ─ queue: by next hop ─ Delivery ─ Resolver: MX, addresses ─ route: candidates
//!   ─ Session: 220, EHLO, STARTTLS, EHLO, padding, AUTH ─ claim: the row again, with its data
//!   ─ MAIL, RCPT…, DATA, octets, final dot, 250 ─ one verdict per recipient
//!   ─ ledger: deleted, a failure recorded, or replaced by a bounce ─ next transaction, or QUIT
//! ```
//!
//! # The contract
//!
//! One facade, [`Dispatcher`], with five calls. Time is an argument, and randomness comes from one seed, so that equal
//! inputs give equal outputs.
//!
//! - [`handle_input`](Dispatcher::handle_input) takes in what has happened: connected, octets received, a datagram, an
//!   answer of the database, …
//! - [`handle_timeout`](Dispatcher::handle_timeout) does what is due; calling it too early does nothing.
//! - [`poll_output`](Dispatcher::poll_output) says what to do: connect, begin TLS, send a datagram, ask the database, …
//!   Call it until it returns nothing, after every call of the others.
//! - [`poll_transmit`](Dispatcher::poll_transmit) hands out the octets to send. Mail data is transformed there, piece by
//!   piece, as fast as the peer takes it.
//! - [`poll_timeout`](Dispatcher::poll_timeout) says when to call back, and why.
//!
//! Whatever a peer, a name server or the database sends, nothing panics and no error comes out: a peer's crime closes
//! one session. Inputs for connections that are gone, and calls in any other order, do nothing.
//!
//! # The run loop
//!
//! This is all that an executor has to do; here for an outbox that is empty.
//!
//! ```
//! use cmail_delivery::io::{Input, Output};
//! use cmail_delivery::outbox::{StoreReply, StoreRequest};
//! use cmail_delivery::settings::Settings;
//! use cmail_delivery::time::{Instant, Now, UnixTime};
//! use cmail_delivery::{Dispatcher, Mode};
//!
//! let settings = Settings::new("mail.example.org");
//! let mut now = Now { monotonic: Instant::from_micros(0), wall: UnixTime(1_700_000_000) };
//! let mut dispatcher = Dispatcher::new(now, settings, Default::default(), Mode::GenerateBounces, [0; 32]);
//! 'run: loop {
//!     while let Some(output) = dispatcher.poll_output() {
//!         match output {
//!             Output::Store(id, StoreRequest::Scan { .. }) => {
//!                 let rows = StoreReply::Rows { rows: vec![], taken: Vec::new(), unreadable: Vec::new(), next: None, data_version: 1 };
//!                 dispatcher.handle_input(now, Input::Store(id, Ok(rows)));
//!             }
//!             Output::Event(event) => eprintln!("{event}"),
//!             Output::Drained => break 'run,
//!             other => unreachable!("an empty outbox asks for nothing else: {other:?}"),
//!         }
//!     }
//!     // Wait for a socket, the database, or the time that `poll_timeout` names.
//!     if let Some((at, _)) = dispatcher.poll_timeout() {
//!         now.monotonic = at;
//!         dispatcher.handle_timeout(now);
//!     }
//! }
//! ```
//!
//! # The modules
//!
//! | layer | modules |
//! |---|---|
//! | vocabulary | [`time`], [`rng`], [`address`], [`next_hop`], [`status`], [`settings`], [`outbox`], [`io`], [`event`], [`one_line`], [`shown`], and `memory`, which forgets |
//! | wire | [`reply`], [`command`], [`transparency`], [`sasl`], [`failure`], [`secrets`] |
//! | machines | [`session`], [`resolver`] |
//! | decisions | [`route`], [`schedule`], [`bounce`], and `reachability`, which servers do not answer |
//! | one next hop | `delivery` |
//! | all of it | [`dispatcher`], with its index of the outbox in `queue` |
//!
//! A layer uses those above it in this table. Machines never call each other: the dispatcher owns the resolver and the
//! deliveries, a delivery owns its sessions, and each parent takes in what its children say in one function.
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
mod memory;
pub mod next_hop;
pub mod one_line;
pub mod outbox;
mod queue;
mod reachability;
pub mod reply;
pub mod resolver;
pub mod rng;
pub mod route;
pub mod sasl;
pub mod schedule;
pub mod secrets;
pub mod session;
pub mod settings;
pub mod shown;
pub mod status;
pub mod time;
pub mod transparency;
pub mod turns;

pub use dispatcher::{Dispatcher, Mode, Selection, TimeoutReason};
