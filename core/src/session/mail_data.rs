//! The stored message of the running transaction on its way to the wire: never more than two pieces at once.

use alloc::collections::VecDeque;
use bytes::{Buf as _, Bytes, BytesMut};

use crate::outbox::DATA_CHUNK_OCTETS;
use crate::transparency::MailDataEncoder;

/// A message that is being sent.
#[derive(Debug)]
pub(super) struct MailData {
    encoder: MailDataEncoder,
    /// The pieces that are not yet encoded.
    chunks: VecDeque<Bytes>,
    /// Their octets.
    buffered: usize,
    /// The offset of the next piece in the stored message.
    next_offset: u64,
    /// Length of the stored message in octets.
    total: u64,
    /// The octets that were requested and not yet supplied.
    outstanding: Option<usize>,
}

impl MailData {
    /// Returns a message of `total` octets that begins with `head`. The fields of its signatures go before it.
    pub(super) fn new(signatures: Bytes, head: Bytes, total: u64) -> Self {
        let (buffered, next_offset) = (signatures.len() + head.len(), head.len() as u64);
        Self {
            encoder: MailDataEncoder::default(),
            chunks: VecDeque::from([signatures, head]),
            buffered,
            next_offset,
            total: total.max(next_offset),
            outstanding: None,
        }
    }

    /// Returns the length of the stored message in octets.
    pub(super) fn total(&self) -> u64 {
        self.total
    }

    /// Returns the piece to request now: one at a time, one ahead of what is being sent.
    pub(super) fn request(&mut self) -> Option<(u64, u32)> {
        let missing = self.total.saturating_sub(self.next_offset);
        if missing == 0 || self.outstanding.is_some() || self.buffered > DATA_CHUNK_OCTETS {
            return None;
        }
        let limit =
            usize::try_from(missing).map_or(DATA_CHUNK_OCTETS, |missing| missing.min(DATA_CHUNK_OCTETS));
        self.outstanding = Some(limit);
        Some((self.next_offset, u32::try_from(limit).unwrap_or(u32::MAX)))
    }

    /// Adds the requested piece. Returns false if it is empty, so that the message cannot be completed. A piece that was not
    /// requested changes nothing.
    pub(super) fn supply(&mut self, mut octets: Bytes) -> bool {
        let Some(limit) = self.outstanding.take() else { return true };
        octets.truncate(limit);
        if octets.is_empty() {
            return false;
        }
        self.buffered += octets.len();
        self.next_offset += octets.len() as u64;
        self.chunks.push_back(octets);
        true
    }

    /// Returns whether something can be encoded now.
    pub(super) fn has_octets(&self) -> bool {
        self.buffered > 0
    }

    /// Returns whether all of the message is encoded, so that only the final dot is missing.
    pub(super) fn is_complete(&self) -> bool {
        self.buffered == 0 && self.next_offset >= self.total
    }

    /// Returns whether sending must wait because more of the message is not yet supplied.
    pub(super) fn is_starved(&self) -> bool {
        !self.has_octets() && !self.is_complete()
    }

    /// Appends about `limit` octets to `out`, or all that there is. A line end at the end is held back for [`MailData::finish`].
    pub(super) fn encode(&mut self, limit: usize, out: &mut BytesMut) {
        let end = out.len().saturating_add(limit);
        while let Some(chunk) = self.chunks.front_mut() {
            let room = end.saturating_sub(out.len());
            if room == 0 {
                break;
            }
            let piece = chunk.split_to(room.min(chunk.len()));
            let chunk_is_done = !chunk.has_remaining();
            self.buffered = self.buffered.saturating_sub(piece.len());
            self.encoder.encode(&piece, out);
            if chunk_is_done {
                self.chunks.pop_front();
            }
        }
    }

    /// Appends the end of the message.
    pub(super) fn finish(&mut self, out: &mut BytesMut) {
        self.encoder.finish(out);
    }
}
