//! The checks of the fuzz targets, as plain functions of octets: each panics if the octets reveal an error.
//!
//! The targets in `fuzz_targets` are one line each. `cargo fuzz run TARGET` looks for octets that make one panic;
//! `cargo test -p cmail-delivery-fuzz` replays `corpus/TARGET` on any compiler, and
//! `cargo run -p cmail-delivery-fuzz --bin TARGET FILE…` replays any files.

pub mod addresses;
pub mod bounces;
pub mod certificates;
mod command;
pub mod configuration;
mod conversation;
pub mod dispatcher;
pub mod dkim;
mod dns;
pub mod dns_datagrams;
pub mod dns_streams;
pub mod failure_texts;
pub mod mail_data;
mod offers;
mod outbox;
mod peer;
pub mod remotes;
pub mod replies;
mod script;
pub mod session;
mod session_checker;
pub mod sts_policies;
pub mod sts_records;
pub mod tlsa_records;
mod transaction;

/// The check of a target.
pub type Check = fn(&[u8]);

/// Every target by its name, which is that of its module, its binary and its corpus.
pub const TARGETS: [(&str, Check); 16] = [
    ("addresses", addresses::check),
    ("bounces", bounces::check),
    ("certificates", certificates::check),
    ("configuration", configuration::check),
    ("dispatcher", dispatcher::check),
    ("dkim", dkim::check),
    ("dns_datagrams", dns_datagrams::check),
    ("dns_streams", dns_streams::check),
    ("failure_texts", failure_texts::check),
    ("mail_data", mail_data::check),
    ("remotes", remotes::check),
    ("replies", replies::check),
    ("session", session::check),
    ("sts_policies", sts_policies::check),
    ("sts_records", sts_records::check),
    ("tlsa_records", tlsa_records::check),
];

/// Makes a binary of the target of this name: a fuzzer under `cargo fuzz`, else a program that replays files.
#[macro_export]
macro_rules! target {
    ($name:ident) => {
        #[cfg(fuzzing)]
        libfuzzer_sys::fuzz_target!(|octets: &[u8]| $crate::$name::check(octets));

        #[cfg(not(fuzzing))]
        fn main() -> std::io::Result<()> {
            $crate::replay_arguments($crate::$name::check)
        }
    };
}

/// Checks the files that are named on the command line.
pub fn replay_arguments(check: Check) -> std::io::Result<()> {
    for file in std::env::args_os().skip(1) {
        check(&std::fs::read(file)?);
    }
    Ok(())
}
