//! Delivers a message with the whole [`cmail_delivery::Dispatcher`] on tokio.
//!
//! ```text
//! cargo run -p cmail-delivery --example on_tokio -- 127.0.0.53:53 sender@example.org recipient@example.net < message
//! ```
//!
//! `executor.rs` is the executor, which differs from that of `on_std` only in how it waits.

// What it does is told on the terminal.
#![allow(clippy::print_stderr)]

#[path = "../shared/command_line.rs"]
mod command_line;
mod executor;
#[path = "../shared/system.rs"]
mod system;

use std::error::Error;

use command_line::Order;
use tokio::runtime::Builder;

fn main() -> Result<(), Box<dyn Error>> {
    let Order { settings, outbox, seed } = Order::read()?;
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let outbox = runtime.block_on(executor::run(
        settings,
        outbox,
        seed,
        command_line::was_all_tried,
        command_line::log,
    ));
    if outbox.is_empty() { Ok(()) } else { Err(format!("{} mails are not delivered", outbox.len()).into()) }
}
