//! The message of a transaction: its sender and its data, and what MAIL says of them.

use core::mem;

use bytes::Bytes;

use super::extensions::Extensions;
use super::mail_data::MailData;
use crate::address::Mailbox;
use crate::command::Command;
use crate::dsn::MessageWishes;
use crate::transparency::transmitted_octets;

/// A message, or, for a probe, only its sender.
#[derive(Debug)]
pub(super) struct Message {
    reverse_path: Option<Mailbox>,
    /// Header fields that go before the data.
    signatures: Bytes,
    data_octets: u64,
    head: Bytes,
    size: Size,
    /// True if it is known to contain 8-bit octets.
    body_8bit: bool,
}

/// The size of a message with CRLF line ends and without doubled dots (RFC 1870 section 3).
#[derive(Clone, Copy, Debug)]
enum Size {
    Exactly(u64),
    /// Part of the message is not here, and its line ends may have to be changed.
    AtLeast(u64),
    /// There is no message.
    Nothing,
}

impl Message {
    /// Returns the message of `data_octets` that begins with `head`, and before which its signatures go; of a probe, only the sender is
    /// used.
    pub(super) fn new(
        reverse_path: Option<Mailbox>,
        signatures: Bytes,
        data_octets: u64,
        head: Bytes,
        is_probe: bool,
    ) -> Self {
        let added = signatures.len() as u64;
        let is_whole = head.len() as u64 >= data_octets;
        let size = match (is_probe, is_whole) {
            (true, _) => Size::Nothing,
            (false, true) => Size::Exactly(transmitted_octets(&head).saturating_add(added)),
            (false, false) => Size::AtLeast(data_octets.saturating_add(added)),
        };
        // RFC 6152 section 3.
        let body_8bit = !head.is_ascii();
        Self { reverse_path, signatures, data_octets, head, size, body_8bit }
    }

    /// Returns the size that the message has at least; nothing if there is no message.
    pub(super) fn min_octets(&self) -> Option<u64> {
        match self.size {
            Size::Exactly(octets) | Size::AtLeast(octets) => Some(octets),
            Size::Nothing => None,
        }
    }

    /// Returns whether the sender is not ASCII.
    pub(super) fn needs_smtputf8(&self) -> bool {
        self.reverse_path.as_ref().is_some_and(Mailbox::needs_smtputf8)
    }

    /// Returns MAIL with the parameters that the server offers.
    pub(super) fn mail<'a>(
        &'a self,
        smtputf8: bool,
        wishes: Option<&'a MessageWishes>,
        extensions: &Extensions,
    ) -> Command<'a> {
        Command::Mail {
            reverse_path: self.reverse_path.as_ref(),
            size: match self.size {
                Size::Exactly(size) if extensions.size => Some(size),
                Size::Exactly(_) | Size::AtLeast(_) | Size::Nothing => None,
            },
            body_8bit: self.body_8bit && extensions.eight_bit_mime,
            smtputf8,
            wishes,
        }
    }

    /// Returns the data, to be sent now.
    pub(super) fn take_data(&mut self) -> MailData {
        let (signatures, head) = (mem::take(&mut self.signatures), mem::take(&mut self.head));
        MailData::new(signatures, head, self.data_octets)
    }
}
