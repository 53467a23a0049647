//! The mio driver of [`cmail_delivery`]: the daemon `cmail-dispatchd`, as a library so that tests and examples can use
//! what the daemon is made of.
#![deny(unsafe_code)]

pub mod access;
pub mod admin;
pub mod args;
mod clients;
pub mod config;
pub mod connection;
mod control;
pub mod daemonize;
pub mod datagram;
pub mod descriptors;
pub mod dkim;
pub mod engine;
pub mod event_loop;
mod explained;
pub mod hosts;
mod https;
mod json_record;
mod lock_wait;
pub mod logging;
pub mod monitor;
pub mod os_error;
mod overview;
pub mod pid_file;
pub mod privileges;
mod reception;
pub mod record;
pub mod reload;
pub mod resolv_conf;
mod selection;
pub mod service_manager;
mod shown;
pub mod signals;
pub mod sockets;
pub mod startup;
pub mod store;
pub mod suggestion;
mod sysexits;
pub mod system;
#[cfg(test)]
mod testing;
pub mod tls;
