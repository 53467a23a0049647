//! The outbound mail daemon of the cmail suite: the parts that `main` puts together.

pub mod connection;
pub mod datagram;
pub mod event_loop;
pub mod os_error;
pub mod sockets;
#[cfg(test)]
mod testing;
pub mod tls;
//! The mio driver of [`cmail_delivery`]: the daemon `cmail-dispatchd`, as a library so that tests and examples can use
//! what the daemon is made of.
#![deny(unsafe_code)]

pub mod args;
pub mod config;
pub mod hosts;
pub mod privileges;
pub mod resolv_conf;
