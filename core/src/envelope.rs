//! The sender, recipient and next hop that a row of the outbox names.

use crate::address::{AddressError, Mailbox};
use crate::attempt::{Failure, Unresolved, Unsendable};
use crate::next_hop::{NextHop, Relay};
use crate::outbox::Row;

/// The envelope of one row.
pub(crate) struct Envelope {
    /// `None` is the null reverse-path.
    pub(crate) reverse_path: Option<Mailbox>,
    pub(crate) recipient: Mailbox,
    pub(crate) next_hop: NextHop,
}

impl Envelope {
    /// Parses a row. Fails with the failure to record if the mail cannot be sent anywhere.
    pub(crate) fn parse(row: &Row) -> Result<Self, Failure> {
        let unsendable = |error| Failure::Unsendable(Unsendable::Recipient(error));
        let recipient = Mailbox::parse(&row.recipient).map_err(unsendable)?;
        let reverse_path = row.sender.as_deref().map(Mailbox::parse).transpose();
        let reverse_path = reverse_path.map_err(|error| Failure::Unsendable(Unsendable::Sender(error)))?;
        let next_hop = match &row.remote {
            Some(remote) => Relay::parse(remote).map(NextHop::Relay).map_err(Failure::MalformedRelay)?,
            None => match recipient.domain() {
                Ok(domain) => domain.into(),
                Err(error @ (AddressError::Domain(_) | AddressError::NoDestination(_))) => {
                    return Err(Failure::Unresolved(Unresolved::BadDomain(error)));
                }
                Err(error) => return Err(unsendable(error)),
            },
        };
        Ok(Self { reverse_path, recipient, next_hop })
    }
}
