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
//! # How to drive it
//!
//! Whatever opens sockets and asks the database is an *executor*. It holds one [`Dispatcher`], and everything that it needs is at the
//! root of this crate: [`Dispatcher`], [`Mode`], [`Settings`], [`Input`], [`Output`], [`ConnectionId`], [`StoreRequest`],
//! [`StoreReply`], [`MemoryOutbox`], [`Event`], [`Now`]. There are five calls:
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
//! Time is an argument, and randomness comes from one seed, so that equal inputs give equal outputs. Whatever a peer, a name
//! server or the database sends, nothing panics and no error comes out: a peer's crime closes one session. [`Dispatcher`]
//! says what there is to know of the order of calls, of time, and of what is bounded.
//!
//! Mail comes from an outbox: anything that answers a [`StoreRequest`] as [`outbox`] says. [`MemoryOutbox`] is one. What is to be
//! answered is asked by [`Output::Store`], so that a database may be slow, or on another thread.
//!
//! The run loop, here without sockets: of one mail for a relay that cannot be connected to, a failed attempt is recorded.
//!
//! ```
//! use cmail_delivery::io::ConnectError;
//! use cmail_delivery::memory_outbox::Mail;
//! use cmail_delivery::time::{Instant, UnixTime};
//! use cmail_delivery::{Dispatcher, Input, MemoryOutbox, Mode, Now, Output, Settings};
//!
//! let mut now = Now::new(Instant::from_micros(0), UnixTime(1_700_000_000));
//! let mut outbox = MemoryOutbox::new();
//! let mail = Mail::new("alice@example.org", "bob@example.net", "Subject: hello\n\nhello\n", now.wall);
//! let id = outbox.insert(Mail { remote: Some("192.0.2.25:25".into()), ..mail })?;
//!
//! let settings = Settings::new("mail.example.org");
//! // The seed must be one that others cannot guess; the system has such.
//! let seed = [0; 32];
//! let mut dispatcher = Dispatcher::new(now, settings, Default::default(), Mode::Daemon, seed);
//! 'run: loop {
//!     // 1. What is to be done, until there is nothing.
//!     while let Some(output) = dispatcher.poll_output() {
//!         match output {
//!             Output::Store(request, what) => {
//!                 let answer = outbox.answer(what);
//!                 dispatcher.handle_input(now, Input::Store(request, answer));
//!             }
//!             Output::Connect { connection, remote, .. } => {
//!                 let error = ConnectError::Remote(format!("{remote}: connection refused"));
//!                 dispatcher.handle_input(now, Input::ConnectFailed(connection, error));
//!             }
//!             Output::Event(event) => eprintln!("{event}"),
//!             Output::Drained => break 'run,
//!             // The examples `on_std` and `on_tokio` do all the rest.
//!             Output::StartTls { .. } | Output::Transmit(_) | Output::Datagram { .. } => unreachable!(),
//!             Output::Close(_) | Output::CloseDatagram(_) => {}
//!         }
//!     }
//!     if !outbox.mail(id).unwrap().faillog.is_empty() {
//!         dispatcher.handle_input(now, Input::Drain);
//!         continue;
//!     }
//!     // 2. Wait for a socket, the database, or this time. Here nothing but time can come.
//!     if let Some((at, _)) = dispatcher.poll_timeout() {
//!         now.monotonic = at;
//!         dispatcher.handle_timeout(now);
//!     }
//! }
//! let text = String::from_utf8_lossy(&outbox.mail(id).unwrap().faillog[0].text);
//! assert!(text.starts_with("Failed to connect or negotiate with handoff remote"));
//! # Ok::<(), cmail_delivery::outbox::StoreError>(())
//! ```
//!
//! Complete executors are in `examples/`: `on_std` on the standard library, `on_tokio` in under 200 lines, and `one_session`, which
//! drives a single [`session::Session`] for who has neither outbox nor DNS. Each has its executor in a file of its own, to be begun with.
//!
//! # The words
//!
//! | word | meaning |
//! |---|---|
//! | mail | one row of the outbox: one recipient of one message, with a [`MailId`](outbox::MailId) |
//! | outbox scan | a request for the rows behind a [`Cursor`](outbox::Cursor): the *look* finds new mail |
//! | walk | scans over the rows that are known already, to find what other programs have changed or deleted |
//! | due, given up | it is to be tried now; it is not to be tried any more, but bounced ([`schedule`]) |
//! | next hop | where mail goes next: a domain, an address, or a relay with its credentials ([`next_hop::NextHop`]) |
//! | destination | what is known of a next hop that has ready mail or is in trouble: its state, limits, and open claims |
//! | delivery, pass | the work on all ready mail of one next hop, from its lookup until no connection is left |
//! | candidate | one way to reach a server: its name, address, port, and kind of TLS ([`route::Candidate`]) |
//! | connection | one TCP connection, named by a [`ConnectionId`] |
//! | host slots | the places of connections: so many at all, and so many to one address and port |
//! | desk | where a delivery takes a place, or is told that a transaction may begin |
//! | concurrency window | how many connections a destination bears that has pushed back |
//! | recall | a request that reads rows again, without their data, that fail without having been claimed ([`StoreRequest::Recall`]) |
//! | books | what the dispatcher knows of mail, and what it has asked and told |
//! | session | the SMTP conversation on a connection, from greeting to QUIT ([`session::Session`]) |
//! | claim | a request that reads rows again, with their data, when a session is ready for them ([`StoreRequest::Claim`]) |
//! | transaction | MAIL, RCPT and DATA for one message and up to 100 recipients ([`outbox::ClaimedTransaction`]) |
//! | verdict | what has become of one mail: delivered, or failed, for now or for good ([`session::Outcome`]) |
//! | attempt | one try to deliver one mail: when, with which server, and what came of it ([`attempt::Attempt`]) |
//! | failure | why an attempt was in vain; the faillog has its words ([`attempt::Failure`]) |
//! | end | why a session is over, with a variant for each breach of the protocol ([`ending::EndCause`]) |
//! | commit | a request that makes verdicts durable ([`outbox::Commit`]) |
//! | rest | the time after an attempt in which a mail is not tried again, whatever its faillog says |
//! | set aside | left alone for a while, because the database can do nothing for this mail |
//! | drain | to come to an end: nothing new is begun, and what runs is finished or abandoned ([`Input::Drain`]) |
//!
//! # The modules
//!
//! | layer | modules |
//! |---|---|
//! | vocabulary | [`time`], [`rng`], [`address`], [`next_hop`], [`status`], [`settings`], [`outbox`], [`io`], [`tls`], [`event`], [`one_line`], [`shown`], and `expiring_map`, which forgets |
//! | wire | [`reply`], [`command`], [`transparency`], [`sasl`], [`ending`], [`attempt`], [`failure`], [`wording`], [`secrets`] |
//! | machines | [`session`], [`resolver`] |
//! | decisions | [`route`], [`schedule`], [`bounce`], and `reachability`, which servers do not answer |
//! | one next hop | `delivery` |
//! | all of it | [`dispatcher`], with its index of the outbox in `queue` |
//! | beside it | [`memory_outbox`] |
//!
//! A layer uses those above it in this table. Machines never call each other: the dispatcher owns the resolver and the
//! deliveries, a delivery owns its sessions, and each parent takes in what its children say in one function.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod address;
pub mod attempt;
pub mod bounce;
pub mod command;
mod delivery;
pub mod dispatcher;
pub mod ending;
pub mod event;
mod expiring_map;
pub mod failure;
pub mod fair_queue;
pub mod io;
pub mod memory_outbox;
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
pub mod tls;
pub mod transparency;
pub mod wording;

pub use dispatcher::{Dispatcher, Mode, Selection, TimeoutReason};
pub use event::Event;
pub use io::{ConnectionId, Input, Output};
pub use memory_outbox::MemoryOutbox;
pub use outbox::{StoreReply, StoreRequest};
pub use settings::Settings;
pub use time::Now;
