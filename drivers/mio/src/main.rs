//! The outbound mail daemon of the cmail suite.

use std::env;
use std::process::ExitCode;

fn main() -> ExitCode {
    cmail_dispatchd::startup::run(env::args_os().skip(1))
}
