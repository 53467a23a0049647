//! The outbound mail daemon of the cmail suite.
mod store;

fn main() {}
