//! The mio driver of [`cmail_delivery`]: the daemon `cmail-dispatchd`, as a library so that tests and examples can use
//! what the daemon is made of.
#![deny(unsafe_code)]

pub mod args;
pub mod config;
pub mod connection;
pub mod datagram;
pub mod engine;
pub mod event_loop;
pub mod hosts;
pub mod os_error;
pub mod privileges;
pub mod resolv_conf;
pub mod sockets;
pub(crate) mod store;
#[cfg(test)]
mod testing;
pub mod tls;
