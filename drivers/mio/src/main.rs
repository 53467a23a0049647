//! The outbound mail daemon of the cmail suite.
fn main() {}
