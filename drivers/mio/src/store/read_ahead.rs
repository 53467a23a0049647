//! Mail data that was read before it was asked for.
//!
//! SQLite finds an octet of a large value by following the value's pages from its beginning, each time that the value
//! is opened; and it cannot stay open, because that would hold a read transaction for as long as a server takes.
//! Reading larger pieces than are asked for keeps the cost of a large message bearable.

use std::collections::VecDeque;

use bytes::Bytes;
use cmail_delivery::outbox::MailId;

/// The least that is read at once.
pub(super) const PIECE_MIN_OCTETS: usize = 512 * 1024;

/// The most that is read at once.
pub(super) const PIECE_MAX_OCTETS: usize = 2 * 1024 * 1024;

/// What is kept of all messages together, which bounds the memory however large they are.
const KEPT_LIMIT_OCTETS: usize = 16 * 1024 * 1024;

/// How much to read from `offset` on: the more, the longer the way there was.
pub(super) fn piece_octets(offset: usize) -> usize {
    (offset / 4).clamp(PIECE_MIN_OCTETS, PIECE_MAX_OCTETS)
}

/// Pieces of messages, the oldest first.
#[derive(Debug, Default)]
pub(super) struct ReadAhead {
    pieces: VecDeque<Piece>,
}

#[derive(Debug)]
struct Piece {
    id: MailId,
    offset: u64,
    octets: Bytes,
    /// Whether the message ends with it.
    is_last: bool,
}

impl ReadAhead {
    /// Exactly what [`StoreRequest::ReadData`](cmail_delivery::outbox::StoreRequest::ReadData) asks for, if it is
    /// here. What is before its end is not needed any more after that.
    pub(super) fn take(&mut self, id: MailId, offset: u64, limit: usize) -> Option<Bytes> {
        let index = self.pieces.iter().position(|piece| piece.id == id)?;
        let piece = self.pieces.get_mut(index)?;
        let begin = usize::try_from(offset.checked_sub(piece.offset)?).ok()?;
        let available = piece.octets.len().checked_sub(begin)?;
        if available == 0 || (available < limit && !piece.is_last) {
            self.pieces.remove(index);
            return None;
        }
        let end = begin + available.min(limit);
        // A copy, so that an answer that waits for a slow server does not keep the whole piece in memory.
        let answer = Bytes::copy_from_slice(piece.octets.get(begin..end)?);
        if end == piece.octets.len() {
            self.pieces.remove(index);
        }
        Some(answer)
    }

    /// Keeps what was read, instead of what was kept of the same message before.
    pub(super) fn put(&mut self, id: MailId, offset: u64, octets: Bytes, is_last: bool) {
        self.pieces.retain(|piece| piece.id != id);
        let mut kept_octets: usize = self.pieces.iter().map(|piece| piece.octets.len()).sum();
        while kept_octets.saturating_add(octets.len()) > KEPT_LIMIT_OCTETS {
            let Some(oldest) = self.pieces.pop_front() else { break };
            kept_octets -= oldest.octets.len();
        }
        self.pieces.push_back(Piece { id, offset, octets, is_last });
    }

    /// Drops what is kept of mail that is about to be deleted.
    pub(super) fn forget(&mut self, ids: &[MailId]) {
        if !self.pieces.is_empty() {
            self.pieces.retain(|piece| !ids.contains(&piece.id));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_piece_answers_what_lies_within_it() {
        let mut cache = ReadAhead::default();
        cache.put(MailId(1), 10, Bytes::from_static(b"0123456789"), false);
        assert_eq!(cache.take(MailId(2), 10, 4), None);
        assert_eq!(cache.take(MailId(1), 10, 4).as_deref(), Some(&b"0123"[..]));
        assert_eq!(cache.take(MailId(1), 14, 4).as_deref(), Some(&b"4567"[..]));
        assert_eq!(cache.take(MailId(1), 18, 4), None, "the rest of the answer is not here");
        assert_eq!(cache.take(MailId(1), 10, 4), None, "a piece that was of no use is dropped");
    }

    #[test]
    fn the_further_the_way_the_larger_the_piece() {
        let octets = [0, 4 * 1024 * 1024, usize::MAX].map(piece_octets);
        assert_eq!(octets, [PIECE_MIN_OCTETS, 1024 * 1024, PIECE_MAX_OCTETS]);
    }

    #[test]
    fn the_last_piece_may_be_shorter_than_was_asked_for() {
        let mut cache = ReadAhead::default();
        cache.put(MailId(1), 0, Bytes::from_static(b"01234"), true);
        assert_eq!(cache.take(MailId(1), 3, 4).as_deref(), Some(&b"34"[..]));
        assert_eq!(cache.take(MailId(1), 3, 4), None);
    }

    #[test]
    fn the_oldest_piece_gives_way_and_deleted_mail_is_forgotten() {
        let mut cache = ReadAhead::default();
        let piece = Bytes::from(vec![0; PIECE_MAX_OCTETS]);
        let count = i64::try_from(KEPT_LIMIT_OCTETS / PIECE_MAX_OCTETS).unwrap();
        for id in 0..=count {
            cache.put(MailId(id), 0, piece.clone(), true);
        }
        assert_eq!(cache.take(MailId(0), 0, 1), None);
        assert!(cache.take(MailId(1), 0, 1).is_some());
        cache.forget(&[MailId(1), MailId(7)]);
        assert_eq!(cache.take(MailId(1), 0, 1), None);
        assert!(cache.take(MailId(2), 0, 1).is_some());
    }
}
