//! Delivers queued mail by SMTP: a core of pure state machines, without sockets, clocks, files or threads.
//!
//! The way of a mail, each arrow going down or out:
//!
//! ```text
//! outbox row ─ schedule: due? ─ queue: by next hop ─ Delivery ─ Resolver: MX, addresses ─ route: candidates
//!   ─ Session: 220, EHLO, STARTTLS, EHLO, padding, AUTH ─ claim: the row again, with its data
//!   ─ MAIL, RCPT…, DATA, octets, final dot, 250 ─ one verdict per recipient
//!   ─ commit: deleted, a failure recorded, or replaced by a bounce ─ next transaction, or QUIT
//! ```
//!
//! # How to drive it
//!
//! An *executor* opens sockets and asks the database. It owns one [`Dispatcher`], and everything that it needs is at the
//! root of this crate: [`Dispatcher`], [`Mode`], [`Settings`], [`Input`], [`Output`], [`ConnectionId`], [`StoreRequest`],
//! [`StoreReply`], [`MemoryOutbox`], [`Event`], [`Now`]. There are five calls:
//!
//! - [`handle_input`](Dispatcher::handle_input) processes an input: connected, octets received, a datagram, an answer of
//!   the database, …
//! - [`handle_timeout`](Dispatcher::handle_timeout) does what is due; an early call does nothing.
//! - [`poll_output`](Dispatcher::poll_output) returns the next thing to do: connect, begin TLS, send a datagram, ask the
//!   database, … Call it until it returns `None`, after every call of the others.
//! - [`poll_transmit`](Dispatcher::poll_transmit) appends the octets to send. Mail data is encoded there, piece by
//!   piece, as fast as the peer receives it.
//! - [`poll_timeout`](Dispatcher::poll_timeout) returns when to call back, and why.
//!
//! Time is an argument, and all randomness comes from one seed, so equal inputs give equal outputs. Whatever a peer, a name
//! server or the database sends, nothing panics and no error comes out: a misbehaving peer closes only its own session.
//! [`Dispatcher`] documents the order of calls, time, and what is bounded.
//!
//! Mail comes from an outbox: anything that answers each [`StoreRequest`] as [`outbox`] specifies, such as [`MemoryOutbox`].
//! Requests are outputs, [`Output::Store`], so a database may be slow, or run on another thread.
//!
//! The run loop, here without sockets. One mail goes to a relay that refuses connections, so a failed attempt is recorded.
//!
//! ```
//! use cmail_delivery::io::ConnectError;
//! use cmail_delivery::memory_outbox::Mail;
//! use cmail_delivery::system_error::NetworkTrouble;
//! use cmail_delivery::time::{Instant, UnixTime};
//! use cmail_delivery::{Dispatcher, Input, MemoryOutbox, Mode, Now, Output, Settings};
//!
//! let mut now = Now::new(Instant::from_micros(0), UnixTime(1_700_000_000));
//! let mut outbox = MemoryOutbox::new();
//! let mail = Mail::new("alice@example.org", "bob@example.net", "Subject: hello\n\nhello\n", now.wall);
//! let id = outbox.insert(Mail { remote: Some("192.0.2.25:25".into()), ..mail })?;
//!
//! let settings = Settings::new("mail.example.org");
//! // In a program, take a seed that others cannot guess from the operating system.
//! let seed = [0; 32];
//! let mut dispatcher = Dispatcher::new(now, settings, Default::default(), Mode::Daemon, seed);
//! 'run: loop {
//!     // 1. Carry out the outputs until there are none.
//!     while let Some(output) = dispatcher.poll_output() {
//!         match output {
//!             Output::Store(request, what) => {
//!                 let answer = outbox.answer(what);
//!                 dispatcher.handle_input(now, Input::Store(request, answer));
//!             }
//!             Output::Connect { connection, remote, .. } => {
//!                 let error = ConnectError::remote(NetworkTrouble::Refused, format!("{remote} refused the connection"));
//!                 dispatcher.handle_input(now, Input::ConnectFailed(connection, error));
//!             }
//!             Output::Release(ids) => outbox.release(&ids),
//!             Output::Event(event) => eprintln!("{event}"),
//!             Output::Drained => break 'run,
//!             // The examples `on_std` and `on_tokio` carry these out too.
//!             Output::StartTls { .. } | Output::Transmit(_) | Output::Datagram { .. } => unreachable!(),
//!             // Settings without keys and policies ask for none of these.
//!             Output::Sign(..) | Output::Https(..) => unreachable!(),
//!             Output::Close(_) | Output::CloseDatagram(_) | Output::Answer(..) => {}
//!         }
//!     }
//!     if !outbox.mail(id).unwrap().faillog.is_empty() {
//!         dispatcher.handle_input(now, Input::Drain);
//!         continue;
//!     }
//!     // 2. Wait for a socket, the database, or this time. Here only time can pass.
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
//! drives a single [`session::Session`] without outbox and DNS. Each executor is in a file of its own, ready to be copied.
//!
//! # Glossary
//!
//! | word | meaning |
//! |---|---|
//! | mail | one row of the outbox: one recipient of one message, with a [`MailId`](outbox::MailId) |
//! | scan, rescan | reads new rows of the outbox after a [`Cursor`](outbox::Cursor); reads known rows again, slice by slice, for changes of other programs |
//! | due, given up | to be tried now; not to be tried again, but bounced ([`schedule`]) |
//! | set aside | left alone for a while, because the database cannot process this mail |
//! | next hop, destination | where mail goes next: a domain, an address, or a relay ([`next_hop::NextHop`]); all that is known of it: its state, limits, open claims |
//! | pass, delivery | the work on all ready mail of one next hop, from the lookup until the last connection is closed; the machine that does it |
//! | candidate | one way to reach a server: its name, address, port, and kind of TLS ([`route::Candidate`]) |
//! | connection, session | one TCP connection, with a [`ConnectionId`]; the SMTP conversation on it ([`session::Session`]) |
//! | policy | how mail goes to a destination: limits, ports, addresses, perhaps a relay ([`policy::Policy`]) |
//! | host slots, concurrency window | the limits of connections: in total, and to one address and port; to a destination that has pushed back |
//! | claim, recall | reads rows again when a session is ready for them, with their data; or when they fail without a session, without ([`StoreRequest`]) |
//! | held | mail that was claimed, and has neither a verdict nor a release ([`outbox`](outbox#what-is-held)) |
//! | transaction | MAIL, RCPT and DATA for one message and up to 100 recipients ([`session::Transaction`]) |
//! | verdict | the result for one mail in a transaction: delivered, or failed, temporarily or permanently ([`session::Outcome`]) |
//! | attempt, failure | one try to deliver one mail: time, server, and result; the reason why it failed ([`attempt`]) |
//! | end | why a session is over, with a variant for each breach of the protocol ([`ending::EndCause`]) |
//! | commit | makes verdicts durable in one database transaction ([`outbox::Commit`]) |
//! | flight, uncertain | the messages that a connection sends next, noted before they are ([`mod@flight`]); mail that may have arrived already, because its verdict was lost |
//! | drain | begins nothing new, and finishes or abandons what runs ([`Input::Drain`]) |
//!
//! # The modules
//!
//! | layer | modules |
//! |---|---|
//! | vocabulary | [`time`], [`rng`], [`address`], [`dsn`], [`next_hop`], [`status`], [`ids`], [`settings`], [`outbox`], [`io`], [`system_error`], [`tls`], [`https`], [`event`], [`tally`], [`watch`], [`one_line`], [`shown`], [`flight`], [`fair_queue`], and `expiring_map` |
//! | wire | [`reply`], [`command`], [`transparency`], [`sasl`], [`ending`], [`attempt`], [`failure`], [`wording`], [`secrets`], [`dkim`], [`sts`] |
//! | machines | [`session`], [`resolver`], and `policy_finder`: the MTA-STS policies of domains |
//! | decisions | [`route`], [`schedule`] with [`retry_rule`], [`mail_pattern`] and [`failure_pattern`], [`policy`] with [`destination_pattern`], [`bounce`], [`delay_warning`] and [`relay_report`], and `reachability`: servers that do not answer |
//! | one next hop | `delivery` |
//! | the whole | [`dispatcher`], with its index of the outbox in `queue`; what it says of what it does, [`explanation`] and [`probe`] |
//! | an outbox | [`memory_outbox`] |
//!
//! A layer uses those above it in this table. Machines never call each other: the dispatcher owns the resolver and the
//! deliveries, a delivery owns its sessions, and each parent processes the outputs of its children in one function.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod address;
pub mod attempt;
pub mod bounce;
pub mod command;
pub mod course;
pub mod delay_warning;
mod delivery;
pub mod destination_pattern;
pub mod dispatcher;
pub mod dkim;
pub mod dsn;
pub mod ending;
mod envelope;
pub mod event;
mod expiring_map;
pub mod explanation;
pub mod failure;
pub mod failure_pattern;
pub mod fair_queue;
pub mod flight;
pub mod hold;
pub mod https;
pub mod ids;
pub mod io;
pub mod mail_pattern;
pub mod memory_outbox;
pub mod next_hop;
mod notice;
pub mod one_line;
pub mod order;
pub mod outbox;
pub mod policy;
mod policy_finder;
pub mod probe;
mod queue;
mod reachability;
pub mod relay_report;
pub mod remote_id;
pub mod reply;
pub mod resolver;
pub mod retry_rule;
pub mod rng;
pub mod route;
pub mod sasl;
pub mod schedule;
pub mod secrets;
pub mod session;
pub mod settings;
pub mod shown;
pub mod status;
pub mod sts;
pub mod system_error;
pub mod tally;
pub mod time;
pub mod tls;
mod transcript;
pub mod transparency;
pub mod watch;
pub mod wording;

pub use dispatcher::{Dispatcher, Mode, Selection, TimeoutReason};
pub use event::Event;
pub use io::{ConnectionId, Input, Output};
pub use memory_outbox::MemoryOutbox;
pub use outbox::{StoreReply, StoreRequest};
pub use settings::Settings;
pub use time::Now;
