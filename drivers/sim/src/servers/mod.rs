//! Model SMTP servers: they understand the protocol, are of many temperaments, and know what they have accepted.

mod conversation;
mod temperament;
mod transaction;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use bytes::Bytes;
use cmail_delivery::time::{Duration, Instant};

pub(crate) use self::conversation::Conversation;
pub(crate) use self::temperament::Temperament;
pub(crate) use self::transaction::ENOUGH;
use crate::dice::Dice;

/// An action of a server.
#[derive(Debug)]
pub(crate) enum Act {
    /// Say this after a while; octet by octet if there is a pause between octets.
    Say { octets: Bytes, delay: Duration, pause: Duration },
    /// Close the connection in an orderly way.
    Close,
    /// Break the connection.
    Reset,
    /// The message that was the `number`-th to end is accepted for these recipients.
    Accept { number: u32, recipients: Vec<String>, data: Bytes },
}

/// The memory of a host beyond a connection.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    /// The time at which a greylisting host first saw each recipient.
    greylist: BTreeMap<String, Instant>,
    /// How many connections are open.
    pub(crate) open: usize,
    /// The beginning of the hour in which messages are counted, and their number.
    hour: (Instant, u32),
}

/// The surroundings of a conversation.
pub(crate) struct Surroundings<'a> {
    pub(crate) now: Instant,
    pub(crate) temperament: &'a Temperament,
    pub(crate) memory: &'a mut Memory,
    pub(crate) dice: &'a mut Dice,
    pub(crate) acts: Vec<Act>,
}
