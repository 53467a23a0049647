//! What the operating system or the TLS library of the executor reports: what it comes to, as a value, and their words for it.
//!
//! Decisions and records need the value. The words are quoted where people read them, like those of a server.

use alloc::boxed::Box;

use thiserror::Error;

/// An error that the operating system or the TLS library has reported.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("{words}")]
pub struct SystemError<K> {
    /// What it comes to.
    pub kind: K,
    /// Their words, as a clause.
    pub words: Box<str>,
}

impl<K> SystemError<K> {
    /// Returns an error that is told in these words.
    pub fn new(kind: impl Into<K>, words: impl Into<Box<str>>) -> Self {
        Self { kind: kind.into(), words: words.into() }
    }
}

/// Why a peer is not reached, or a connection to it does not last.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum NetworkTrouble {
    /// The peer, or a firewall in its name, takes no connections on this port.
    #[error("the connection was refused")]
    Refused,
    /// The peer, or a firewall in its name, has ended the connection.
    #[error("the connection was reset")]
    Reset,
    /// Nothing came back.
    #[error("the connection timed out")]
    TimedOut,
    /// There is no way to the host or its network.
    #[error("the host is unreachable")]
    Unreachable,
    /// This machine has no address of the family of the peer's.
    #[error("there is no local address of this family")]
    NoLocalAddress,
    /// A rule of this machine forbids it.
    #[error("this machine forbids it")]
    Forbidden,
    /// Anything else.
    #[error("the network failed")]
    Other,
}

/// What this machine lacks, so that it cannot even try. No peer is to blame, and no mail has failed.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum MachineTrouble {
    /// File descriptors.
    #[error("no descriptor is left")]
    Descriptors,
    /// Memory, or buffers.
    #[error("no memory is left")]
    Memory,
    /// Local ports, or other means of the network that come back.
    #[error("no local port is left")]
    Ports,
    /// The local address that connections are to come from.
    #[error("the local address cannot be used")]
    LocalAddress,
    /// Anything else.
    #[error("this machine failed")]
    Other,
}

/// What went wrong in TLS.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum TlsTrouble {
    /// It could not begin on this side.
    #[error("TLS could not begin")]
    NotBegun,
    /// The peer closed the connection without ending TLS: during the handshake, or where an attacker may have cut it.
    #[error("the connection was closed in the middle of TLS")]
    Truncated,
    /// The peer gave up, and said so by an alert.
    #[error("the peer sent an alert")]
    Alert,
    /// The two sides have no version, cipher suite or group in common.
    #[error("nothing in common")]
    NothingInCommon,
    /// The peer does not prove that it holds the key of its certificate.
    #[error("the peer does not prove its identity")]
    KeyNotProven,
    /// Nobody can prove that it holds the key of the peer's certificate: it is too weak, or of a kind that is not known here.
    #[error("the key of the peer's certificate is too weak, or of a kind that is not known")]
    UnprovableKey,
    /// What the peer sent is not TLS, or breaks its rules.
    #[error("the peer does not keep to TLS")]
    Misbehaved,
    /// Anything else.
    #[error("TLS failed")]
    Other,
}

/// Why a connection broke, or why it never got as far as TLS.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum Breakage {
    /// By the network, or the peer's machine.
    #[error(transparent)]
    Network(#[from] NetworkTrouble),
    /// By what was sent in TLS.
    #[error(transparent)]
    Tls(#[from] TlsTrouble),
}
