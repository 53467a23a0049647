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

/// What a server wants done.
#[derive(Debug)]
pub(crate) enum Act {
    /// Say this, after a while; octet by octet if there is a pause between octets.
    Say { octets: Bytes, delay: Duration, pause: Duration },
    /// Close the connection in an orderly way.
    Close,
    /// Break the connection.
    Reset,
    /// The message that was the `number`-th to end is accepted for these recipients.
    Accept { number: u32, recipients: Vec<String>, data: Bytes },
}

/// What a host remembers beyond a connection.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    /// When each recipient was first seen by a greylisting host.
    greylist: BTreeMap<String, Instant>,
    /// How many connections are open.
    pub(crate) open: usize,
    /// When the hour began that messages are counted in, and how many there were.
    hour: (Instant, u32),
}

/// What a conversation works with.
pub(crate) struct Surroundings<'a> {
    pub(crate) now: Instant,
    pub(crate) temperament: &'a Temperament,
    pub(crate) memory: &'a mut Memory,
    pub(crate) dice: &'a mut Dice,
    pub(crate) acts: Vec<Act>,
}
