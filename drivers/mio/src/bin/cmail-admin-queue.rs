//! The operator's tool of the outbound mail daemon.

use std::env;
use std::process::ExitCode;

fn main() -> ExitCode {
    cmail_dispatchd::admin::run(env::args_os())
}
