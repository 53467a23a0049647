//! The words for what can happen: those who search logs may rely on the list.

use core::fmt;

/// What has happened, in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum EventName {
    /// A server has taken a mail.
    Delivered,
    /// An attempt has failed, and the mail is tried again.
    Deferred,
    /// An attempt has failed, and the mail is not tried again.
    Failed,
    /// A mail may have arrived, which is not known.
    Uncertain,
    /// A mail was given up and replaced by a bounce.
    Bounced,
    /// A mail was given up and deleted without a bounce.
    Dropped,
    /// A mail was given up because of its age, with or without a bounce.
    Expired,
    /// A sender was told that a mail is late.
    Warned,
    /// A sender was told that a mail was delivered, because the server does not do so.
    Relayed,
    /// Mail is held until the administrator decides.
    Held,
    /// An order of the administrator was carried out, or cannot be.
    Order,
    /// Something about a connection.
    Connection,
    /// Something about the protection of connections.
    Tls,
    /// Something about name servers and their answers.
    Dns,
    /// The configuration, or what the system says, was read again.
    Reload,
    /// The program starts.
    Start,
    /// The program ends.
    Stop,
    /// Anything else.
    Note,
}

impl EventName {
    /// All of them.
    pub const ALL: [Self; 18] = [
        Self::Delivered,
        Self::Deferred,
        Self::Failed,
        Self::Uncertain,
        Self::Bounced,
        Self::Dropped,
        Self::Expired,
        Self::Warned,
        Self::Relayed,
        Self::Held,
        Self::Order,
        Self::Connection,
        Self::Tls,
        Self::Dns,
        Self::Reload,
        Self::Start,
        Self::Stop,
        Self::Note,
    ];

    /// Returns the word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::Deferred => "deferred",
            Self::Failed => "failed",
            Self::Uncertain => "uncertain",
            Self::Bounced => "bounced",
            Self::Dropped => "dropped",
            Self::Expired => "expired",
            Self::Warned => "warned",
            Self::Relayed => "relayed",
            Self::Held => "held",
            Self::Order => "order",
            Self::Connection => "connection",
            Self::Tls => "tls",
            Self::Dns => "dns",
            Self::Reload => "reload",
            Self::Start => "start",
            Self::Stop => "stop",
            Self::Note => "note",
        }
    }
}

impl fmt::Display for EventName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
