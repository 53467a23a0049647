//! The outbound mail daemon of the cmail suite: the parts that `main` puts together.

pub mod connection;
pub mod datagram;
pub mod event_loop;
pub mod os_error;
pub mod sockets;
pub mod tls;
