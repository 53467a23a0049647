//! Runs simulations; see the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    cmail_delivery_sim::run(std::env::args().skip(1))
}
