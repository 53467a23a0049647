//! Drafts the signatures of claimed mail, in the read transaction of the claim.

use std::collections::BTreeMap;
use std::ops::{ControlFlow, Range};

use cmail_delivery::address::Domain;
use cmail_delivery::dkim::{Digest, Draft, HEADER_LIMIT_OCTETS, Signing, Unsigned, UnsignedField, author};
use cmail_delivery::outbox::{ClaimedTransaction, MailId, Row};
use rusqlite::Connection;

use super::blob::{self, read_chunks};
use super::error::ReadError;
use super::fingerprints::{Fingerprint, FingerprintList};
use super::grouping::Group;
use super::pool::Pool;
use super::reader::Reader;

/// How much of large mail one claim reads for signatures, besides its first chunks. That takes some tenths of a second, during which other
/// requests wait; what is beyond that is left to another request, also of a single message. But a message is read on for as long as it
/// takes to find the place where that was left off.
const READ_LIMIT_OCTETS: u64 = 64 * 1024 * 1024;

/// Most digests of bodies that are kept: about 64 octets each.
const DIGESTS_LIMIT: usize = 1 << 16;

/// Most drafts that are kept until their message is read on: each has up to [`HEADER_LIMIT_OCTETS`]. With so many begun, the next message is
/// read whole.
const BEGUN_LIMIT: usize = 8;

/// What was found out of large messages that are to be signed, so that each is read only once.
#[derive(Debug, Default)]
pub(super) struct Bodies {
    version: Option<i64>,
    /// The digests of their bodies, in this version of the database.
    digests: BTreeMap<MailId, Digest>,
    /// Messages that are not read to their end. As it is with those that are sent, a change meanwhile is noticed by the fingerprint: other
    /// programs may write so often that no message was ever read to its end if each write counted.
    begun: BTreeMap<MailId, Begun>,
}

/// A message that is read in parts.
#[derive(Debug)]
struct Begun {
    draft: Draft,
    fingerprint: Option<Fingerprint>,
    /// What is to be read.
    missing: Range<u64>,
}

impl Bodies {
    /// Switches to a version of the database, and forgets the digests of another one.
    pub(super) fn turn_to(&mut self, version: i64) {
        if self.version.replace(version).is_some_and(|known| known != version) {
            self.digests.clear();
        }
    }

    /// Takes up a message that was begun, unless it is another one by now, or is to be signed in another way.
    fn take_up(&mut self, id: MailId, fingerprint: Option<&Fingerprint>, signing: &Signing) -> Option<Begun> {
        let begun = self.begun.remove(&id)?;
        let is_same = |(now, before): (&Fingerprint, &Fingerprint)| now.is_of_same_message(before);
        let is_same = fingerprint.zip(begun.fingerprint.as_ref()).is_some_and(is_same);
        (is_same && begun.draft.signing().rules == signing.rules).then_some(begun)
    }

    fn put(&mut self, id: MailId, digest: Digest) {
        self.digests.insert(id, digest);
        while self.digests.len() > DIGESTS_LIMIT {
            self.digests.pop_first();
        }
    }
}

/// Drafts the signatures of the messages of one claim.
pub(super) struct Drafter<'a> {
    connection: &'a Connection,
    pool: &'a Pool,
    bodies: &'a mut Bodies,
    signing: Option<&'a Signing>,
    limit_octets: u64,
    read_octets: u64,
}

impl<'a> Drafter<'a> {
    pub(super) fn new(
        connection: &'a Connection,
        pool: &'a Pool,
        bodies: &'a mut Bodies,
        signing: Option<&'a Signing>,
    ) -> Self {
        Self { connection, pool, bodies, signing, limit_octets: READ_LIMIT_OCTETS, read_octets: 0 }
    }

    /// Returns a group as a transaction, with its signatures to be made; the group if enough was read for now.
    pub(super) fn transaction(
        &mut self,
        group: Group,
        fingerprints: &FingerprintList,
    ) -> rusqlite::Result<Result<ClaimedTransaction, Group>> {
        let Some(to_sign) = self.draft(&group, fingerprints)? else { return Ok(Err(group)) };
        let Group { rows, data_octets, head } = group;
        Ok(Ok(ClaimedTransaction { rows, data_octets, head, to_sign }))
    }

    /// Returns the signatures to be made of a message, or why there are none; nothing if enough was read for now.
    fn draft(
        &mut self,
        group: &Group,
        fingerprints: &FingerprintList,
    ) -> rusqlite::Result<Option<Result<Vec<UnsignedField>, Unsigned>>> {
        let nothing = Ok(Some(Ok(Vec::new())));
        let Some((signing, row)) = self.signing.zip(group.rows.first()) else { return nothing };
        let id = row.id;
        let known = self.bodies.digests.get(&id).copied();
        let Some(mut draft) = signing.draft(row.wishes.message.sign, known) else { return nothing };
        let head_octets = group.head.len() as u64;
        let flow = draft.add(&group.head);
        if flow.is_break() || head_octets >= group.data_octets {
            return Ok(Some(draft.finish().map(|drafted| drafted.fields)));
        }
        let fingerprint = fingerprints.iter().find(|(found, _)| *found == id).map(|(_, found)| *found);
        let begun = self.bodies.take_up(id, fingerprint.as_ref(), signing);
        let fresh = Begun { draft, fingerprint, missing: head_octets..group.data_octets };
        let mut begun = begun.filter(|_| known.is_none()).unwrap_or(fresh);
        let part = self.next_part(&begun, known.is_some());
        let flow = self.read(id, group.data_octets, part, &mut begun)?;
        if flow.is_continue() && !begun.missing.is_empty() {
            // Nothing was read of the others.
            if begun.missing.start > head_octets {
                self.bodies.begun.insert(id, begun);
            }
            return Ok(None);
        }
        let drafted = begun.draft.finish();
        if let Ok(drafted) = &drafted {
            self.bodies.put(id, drafted.body);
        }
        Ok(Some(drafted.map(|drafted| drafted.fields)))
    }

    /// Returns what is read next of a message: all that is missing, if there is room for it, or nothing after other messages.
    fn next_part(&mut self, begun: &Begun, has_digest: bool) -> Range<u64> {
        let Range { start, end } = begun.missing;
        let room = self.limit_octets.saturating_sub(self.read_octets);
        let needed = match has_digest {
            true => (end - start).min(HEADER_LIMIT_OCTETS as u64),
            false => end - start,
        };
        if needed <= room {
            return begun.missing.clone();
        }
        if self.read_octets > 0 {
            return start..start;
        }
        if self.bodies.begun.len() >= BEGUN_LIMIT {
            // Most of them are of mail that is gone, or was changed.
            self.bodies.begun.clear();
            return begun.missing.clone();
        }
        start..end.min(start.saturating_add(room.max(start)))
    }

    /// Reads a part of a message.
    fn read(
        &mut self,
        id: MailId,
        data_octets: u64,
        part: Range<u64>,
        begun: &mut Begun,
    ) -> rusqlite::Result<ControlFlow<()>> {
        let mut flow = ControlFlow::Continue(());
        if part.is_empty() {
            return Ok(flow);
        }
        begun.missing.start = part.end;
        read_chunks(self.connection, self.pool, id, data_octets, part, &mut |chunk| {
            self.read_octets = self.read_octets.saturating_add(chunk.len() as u64);
            flow = begun.draft.add(&chunk);
            flow
        })?;
        Ok(flow)
    }
}

impl Reader {
    /// Returns the domain of the author of a mail that is to be signed, or why it leaves unsigned; nothing if it is not to be signed.
    pub(crate) fn author_to_sign(
        &self,
        row: &Row,
        signing: &Signing,
    ) -> Result<Option<Result<Domain, Unsigned>>, ReadError> {
        // The header section decides that, whatever the body is.
        let Some(mut draft) = signing.draft(row.wishes.message.sign, Some(Digest::default())) else {
            return Ok(None);
        };
        let length = row.data_octets.min(HEADER_LIMIT_OCTETS as u64 + 1);
        let length = usize::try_from(length).unwrap_or(HEADER_LIMIT_OCTETS);
        let head = self.read(|connection| blob::read(connection, row.id, row.data_octets, 0, length))?;
        let (ControlFlow::Continue(()) | ControlFlow::Break(())) = draft.add(&head);
        let author = draft.finish().and_then(|_| author(&head).ok_or(Unsigned::UnclearAuthor));
        Ok(Some(author))
    }
}

#[cfg(test)]
mod tests;
