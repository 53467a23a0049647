//! The built binary as an administrator and other servers meet it: black-box tests, named after what the contract says.
//!
//! One binary, because each of them links SQLite and TLS. `support` is the bench: scripted servers, an independent view
//! of the database, and the daemon as a child process.
// Tests and their helpers report a failure by a panic.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm
)]

mod auth;
mod bounces;
mod command_line;
mod control;
mod conversation;
mod dane;
mod delivery;
mod destination_lines;
mod dkim;
mod dns;
mod documentation;
mod dsn;
mod end_of_data;
mod explain;
mod fallback;
mod flights;
mod forget;
mod handoff;
mod harness;
mod hold_lines;
mod hostile;
mod initdb;
mod ledger;
mod limits;
mod log;
mod loss;
mod machine;
mod meanwhile;
mod metrics;
mod odd_database;
mod orders;
mod out_of_step;
mod process;
mod queue;
mod reception;
mod record;
mod refusals;
mod reload;
mod retries;
mod server_limits;
mod service_manager;
mod signals;
mod start;
mod sts;
mod submit;
mod support;
mod system;
mod tls;
mod tls_policy;
mod told;
mod tool;
mod trace;
