//! The requests that only read.

use alloc::collections::BTreeSet;
use alloc::format;
use alloc::vec;
use alloc::vec::Vec;

use core::ops::ControlFlow;

use bytes::Bytes;

use super::{Flaw, Mail, MemoryOutbox, Stored, contents, is_same_message, named};
use crate::bounce::needed_octets;
use crate::dkim::{SignMark, Signing, Unsigned, UnsignedField};
use crate::dsn::{EnvelopeId, MessageWishes, ReturnExtent};
use crate::outbox::{
    Claimed, ClaimedTransaction, Cursor, DATA_CHUNK_OCTETS, FailedMail, FailedMessage, LeftOver, MailId,
    Refused, Row, Scanned, StoreError, StoreReply, StoreTrouble,
};

/// Rows of one message: equal in sender and data.
pub(super) type Group<'a> = Vec<(MailId, &'a Mail)>;

impl MemoryOutbox {
    pub(super) fn scan(&self, after: Cursor, limit: u32) -> StoreReply {
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let (mut rows, mut taken, mut unreadable) = (Vec::new(), Vec::new(), Vec::new());
        let (mut place, mut next) = (after, None);
        for (&id, stored) in after.next_id().into_iter().flat_map(|first| self.mails.range(first..)) {
            if rows.len() >= limit {
                next = Some(place);
                break;
            }
            place = Cursor::After(id);
            match stored {
                Stored { .. } if self.is_taken(id) => taken.push(id),
                Stored { flaw: Some(Flaw::Unreadable), mail } => unreadable.push(cannot_be_read(id, mail)),
                Stored { mail, .. } => rows.push(mail.row(id)),
            }
        }
        StoreReply::Scanned(Scanned { rows, taken, unreadable, next, data_version: self.data_version })
    }

    pub(super) fn claim(
        &mut self,
        ids: &[MailId],
        limit: usize,
        recipients: usize,
        signing: Option<&Signing>,
    ) -> StoreReply {
        let (readable, unreadable) = self.sort(ids, |id| !self.is_taken(id));
        let (mut transactions, mut over) = (Vec::new(), BTreeSet::new());
        let mut octets = 0;
        for group in grouped(&readable, recipients) {
            let Some((_, first)) = group.first() else { continue };
            let head = first.data.slice(..first.data.len().min(DATA_CHUNK_OCTETS));
            let has_room = transactions.len() < limit && octets + head.len() <= self.claim_budget();
            if !has_room && !transactions.is_empty() {
                over.extend(group.iter().map(|(id, _)| *id));
                continue;
            }
            octets += head.len();
            let data_octets = first.data.len() as u64;
            let rows: Vec<Row> = group.iter().map(|(id, mail)| mail.row(*id)).collect();
            let to_sign = to_sign(signing, &rows, &first.data);
            transactions.push(ClaimedTransaction { rows, data_octets, head, to_sign });
        }
        let left_over = readable.iter().filter(|(id, _)| over.contains(id));
        let left_over =
            left_over.map(|(id, mail)| LeftOver { id: *id, message: Some(digest(mail)) }).collect();
        let claimed: Vec<MailId> =
            transactions.iter().flat_map(|claimed| &claimed.rows).map(|row| row.id).collect();
        self.remember(&claimed);
        StoreReply::Claimed(Claimed { transactions, left_over, unreadable })
    }

    pub(super) fn recall(&mut self, ids: &[MailId]) -> StoreReply {
        let (readable, unreadable) = self.sort(ids, |id| !self.is_taken(id));
        let rows = readable.iter().map(|(id, mail)| mail.row(*id)).collect();
        let recalled: Vec<MailId> = readable.iter().map(|(id, _)| *id).collect();
        self.remember(&recalled);
        StoreReply::Recalled { rows, unreadable }
    }

    /// Returns a piece of mail data. Mail that was replaced since it was claimed has none, since otherwise a server would receive
    /// a mixture of both.
    pub(super) fn read_data(&self, id: MailId, offset: u64, limit: u32) -> Result<Bytes, StoreError> {
        let Some(mail) = self.mail(id) else { return Ok(Bytes::new()) };
        if !self.is_readable(id) {
            let Refused { text, .. } = cannot_be_read(id, mail);
            return Err(StoreError { trouble: StoreTrouble::Damaged, text });
        }
        if self.held.get(&id).is_some_and(|before| !is_same_message(before, mail)) {
            return Ok(Bytes::new());
        }
        let limit = usize::try_from(limit).unwrap_or(usize::MAX).min(DATA_CHUNK_OCTETS);
        let begin = usize::try_from(offset).unwrap_or(usize::MAX).min(mail.data.len());
        Ok(mail.data.slice(begin..begin.saturating_add(limit).min(mail.data.len())))
    }

    pub(super) fn read_failed(&mut self, ids: &[MailId], original_limit_octets: u64) -> StoreReply {
        let (readable, unreadable) = self.sort(ids, |_| true);
        let (mut messages, mut over) = (Vec::new(), BTreeSet::new());
        let (mut originals_octets, mut texts_octets) = (0, 0);
        for group in grouped(&readable, usize::MAX) {
            let Some((_, first)) = group.first() else { continue };
            let data_octets = first.data.len() as u64;
            let needed = needed_octets(&first.data, data_octets, original_limit_octets);
            let original =
                first.data.slice(..usize::try_from(needed).unwrap_or(usize::MAX).min(first.data.len()));
            let texts = group
                .iter()
                .flat_map(|(_, mail)| &mail.faillog)
                .map(|attempt| attempt.text.len())
                .sum::<usize>();
            let is_too_much = originals_octets + original.len() > self.failed_budget()
                || texts_octets + texts > self.failed_budget();
            if is_too_much && !messages.is_empty() {
                over.extend(group.iter().map(|(id, _)| *id));
                continue;
            }
            originals_octets += original.len();
            texts_octets += texts;
            messages.push(FailedMessage {
                mails: group.into_iter().map(failed_mail).collect(),
                data_octets,
                original,
            });
        }
        let left_over = readable.iter().map(|(id, _)| *id).filter(|id| over.contains(id)).collect();
        let read: Vec<MailId> =
            messages.iter().flat_map(|message| &message.mails).map(|mail| mail.row.id).collect();
        self.remember(&read);
        StoreReply::Failed { messages, left_over, unreadable }
    }

    /// Returns the existing and wanted mail, each once, in the order in which its ids first appear, and the refusals of
    /// unreadable mail.
    fn sort(&self, ids: &[MailId], is_wanted: impl Fn(MailId) -> bool) -> (Group<'_>, Vec<Refused>) {
        let (mut readable, mut unreadable, mut seen) = (Vec::new(), Vec::new(), BTreeSet::new());
        for &id in ids.iter().filter(|id| seen.insert(**id)) {
            match self.mail(id).filter(|_| is_wanted(id)) {
                Some(mail) if self.is_readable(id) => readable.push((id, mail)),
                Some(mail) => unreadable.push(cannot_be_read(id, mail)),
                None => {}
            }
        }
        (readable, unreadable)
    }

    /// Remembers the contents of mail that is being worked on from now on.
    fn remember(&mut self, ids: &[MailId]) {
        for id in ids {
            if let Some(Stored { mail, .. }) = self.mails.get(id) {
                self.held.insert(*id, contents(mail));
            }
        }
    }
}

/// Returns the fields of the signatures of a message, or why it has none that may have some.
fn to_sign(signing: Option<&Signing>, rows: &[Row], data: &[u8]) -> Result<Vec<UnsignedField>, Unsigned> {
    let draft =
        signing.zip(rows.first()).and_then(|(signing, row)| signing.draft(row.wishes.message.sign, None));
    draft.map_or(Ok(Vec::new()), |mut draft| {
        // All of it is there, so it need not stop.
        let (ControlFlow::Continue(()) | ControlFlow::Break(())) = draft.add(data);
        draft.finish().map(|drafted| drafted.fields)
    })
}

/// Returns a number that the rows of one message share, and other messages do not, unless somebody makes them so.
fn digest(mail: &Mail) -> u64 {
    // FNV-1a.
    const BASIS: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0100_0000_01b3;
    let sender = mail.reverse_path().into_iter().flatten();
    let MessageWishes { extent, envelope_id, sign } = &mail.wishes.message;
    let sign: &[u8] = match sign {
        SignMark::Unmarked => b"",
        SignMark::Wanted => b"W",
        SignMark::IfPossible => b"P",
    };
    let extent = extent.map_or(b"".as_slice(), |extent| match extent {
        ReturnExtent::Full => b"F",
        ReturnExtent::Headers => b"H",
    });
    let envelope_id = envelope_id.as_ref().map_or("", EnvelopeId::as_str).as_bytes();
    let octets =
        sender.chain(b"\0").chain(sign).chain(extent).chain(envelope_id).chain(b"\0").chain(&mail.data);
    octets.fold(BASIS, |digest, octet| (digest ^ u64::from(*octet)).wrapping_mul(PRIME))
}

/// Groups the rows of one message, at most `limit` in one group.
pub(super) fn grouped<'a>(mails: &[(MailId, &'a Mail)], limit: usize) -> Vec<Group<'a>> {
    let mut groups: Vec<Group<'a>> = Vec::new();
    for &(id, mail) in mails {
        let fits = |group: &&mut Group<'a>| {
            group.len() < limit
                && group.first().is_some_and(|(_, first)| {
                    first.reverse_path() == mail.reverse_path()
                        && first.data == mail.data
                        && first.wishes.message == mail.wishes.message
                })
        };
        match groups.iter_mut().find(fits) {
            Some(group) => group.push((id, mail)),
            None => groups.push(vec![(id, mail)]),
        }
    }
    groups
}

pub(super) fn failed_mail((id, mail): (MailId, &Mail)) -> FailedMail {
    FailedMail { row: mail.row(id), attempts: mail.faillog.clone() }
}

fn cannot_be_read(id: MailId, mail: &Mail) -> Refused {
    Refused {
        id,
        text: format!(
            "{} cannot be read from the outbox in memory, because it was made unreadable",
            named(id, mail)
        ),
    }
}
