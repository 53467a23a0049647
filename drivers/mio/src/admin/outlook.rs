//! What is said of a mail besides its row: what holds it, and where it really goes.

use cmail_delivery::address::Mailbox;
use cmail_delivery::next_hop::{NextHop, Relay};
use cmail_delivery::outbox::Row;
use cmail_delivery::policy::Policies;

use super::holds::Holders;
use super::{Tool, ToolError};
use crate::store::{Reader, Standing};

/// By what mail is described.
#[derive(Debug)]
pub(super) struct Outlook<'a> {
    pub(super) standing: Standing<'a>,
    routes: &'a Policies,
    holders: Holders,
}

impl<'a> Outlook<'a> {
    /// Reads what holds mail.
    pub(super) fn read(tool: &'a Tool, reader: &Reader) -> Result<Self, ToolError> {
        let standing = tool.standing();
        Ok(Self { standing, routes: &tool.routes, holders: Holders::read(reader, standing)? })
    }

    /// Says what holds a mail, and why; `None` if it is not held.
    pub(super) fn held_by(&self, row: &Row) -> Option<String> {
        self.holders.of(row, self.standing)
    }

    /// Returns where a mail goes; `None` if its address or its relay is invalid.
    pub(super) fn next_hop(&self, row: &Row) -> Option<NextHop> {
        named_hop(row).map(|named| self.routes.route(named))
    }

    /// Says where a mail goes, and by which line, if one sends it elsewhere than it says itself.
    pub(super) fn route(&self, row: &Row) -> String {
        let Some(named) = named_hop(row) else {
            return "nowhere: its address or its relay is invalid".to_owned();
        };
        match self.routes.via(&named) {
            Some((relay, line)) => {
                format!(
                    "relay {relay}, by line {line} of the configuration (destination), instead of {named}"
                )
            }
            None => named.to_string(),
        }
    }

    /// Returns the relay that a line sends a mail to.
    pub(super) fn via(&self, row: &Row) -> Option<&Relay> {
        self.routes.via(&named_hop(row)?).map(|(relay, _)| relay)
    }
}

/// Returns where a mail says that it goes; `None` if its address or its relay is invalid.
pub(super) fn named_hop(row: &Row) -> Option<NextHop> {
    Some(match &row.remote {
        Some(remote) => NextHop::Relay(Relay::parse(remote).ok()?),
        None => Mailbox::parse(&row.recipient).ok()?.domain().ok()?.into(),
    })
}
