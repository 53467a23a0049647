//! Drafts the signatures of claimed mail, in the read transaction of the claim.

use std::ops::ControlFlow;

use cmail_delivery::dkim::{Signing, UnsignedField};
use cmail_delivery::outbox::ClaimedTransaction;
use rusqlite::Connection;

use super::blob::read_chunks;
use super::grouping::Group;
use super::pool::Pool;

/// How much of large mail one claim reads for signatures, besides its first chunks. That takes some tenths of a second, during which other
/// requests wait; messages beyond that are left to another request.
const READ_LIMIT_OCTETS: u64 = 64 * 1024 * 1024;

/// Drafts the signatures of the messages of one claim.
pub(super) struct Drafter<'a> {
    connection: &'a Connection,
    pool: &'a Pool,
    signing: Option<&'a Signing>,
    read_octets: u64,
}

impl<'a> Drafter<'a> {
    pub(super) fn new(connection: &'a Connection, pool: &'a Pool, signing: Option<&'a Signing>) -> Self {
        Self { connection, pool, signing, read_octets: 0 }
    }

    /// Returns a group as a transaction, with its signatures to be made; the group if enough was read for others already.
    pub(super) fn transaction(
        &mut self,
        group: Group,
    ) -> rusqlite::Result<Result<ClaimedTransaction, Group>> {
        let head_octets = group.head.len() as u64;
        let missing = group.data_octets.saturating_sub(head_octets);
        let is_much = self.read_octets > 0 && self.read_octets.saturating_add(missing) > READ_LIMIT_OCTETS;
        let draft = self.signing.zip(group.rows.first());
        let draft = draft.and_then(|(signing, row)| Some((signing.draft(row)?, row.id)));
        let to_sign = match draft {
            None => Vec::new(),
            Some((mut draft, id)) => match draft.add(&group.head) {
                ControlFlow::Break(()) => Vec::new(),
                ControlFlow::Continue(()) if missing > 0 && is_much => return Ok(Err(group)),
                ControlFlow::Continue(()) => {
                    let rest = head_octets..group.data_octets;
                    let mut flow = ControlFlow::Continue(());
                    read_chunks(self.connection, self.pool, id, group.data_octets, rest, &mut |chunk| {
                        self.read_octets = self.read_octets.saturating_add(chunk.len() as u64);
                        flow = draft.add(&chunk);
                        flow
                    })?;
                    if flow.is_continue() { draft.finish() } else { Vec::<UnsignedField>::new() }
                }
            },
        };
        let Group { rows, data_octets, head } = group;
        Ok(Ok(ClaimedTransaction { rows, data_octets, head, to_sign }))
    }
}
