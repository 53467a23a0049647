//! The outbound mail daemon of the cmail suite: the parts that `main` puts together.

pub mod connection;
pub mod datagram;
pub mod event_loop;
pub mod os_error;
pub mod sockets;
#[cfg(test)]
mod testing;
pub mod tls;
