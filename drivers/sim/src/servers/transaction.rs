//! Transactions of model servers.

use bytes::{Bytes, BytesMut};
use cmail_delivery::time::Duration;
use memchr::memmem;

use super::conversation::Expects;
use super::temperament::ChunkConduct;
use super::{Act, Conversation, Surroundings};

/// How chunks are refused where they are offered.
const CHUNK_REFUSALS: [&[u8]; 3] =
    [b"503 5.5.1 not like this\r\n", b"502 5.5.1 not implemented\r\n", b"554 5.6.0 no chunks\r\n"];

/// What a transaction has come to.
#[derive(Debug, Default)]
pub(super) struct Transaction {
    pub(super) sender: Option<String>,
    pub(super) recipients: Vec<String>,
    /// What has come in chunks.
    pub(super) chunks: BytesMut,
    /// Whether a chunk was refused: only RSET helps.
    pub(super) has_failed: bool,
    /// Whether the octets of a chunk were not counted rightly.
    pub(super) is_miscounted: bool,
}

/// A chunk that is coming in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Chunk {
    /// Octets that are still to come.
    left: usize,
    is_last: bool,
    /// What is said to it, if it is not taken.
    refusal: Option<&'static [u8]>,
}

impl Conversation {
    pub(super) fn mail(&mut self, text: &str, around: &mut Surroundings<'_>) {
        if self.transaction.sender.is_some() {
            return self.say(around, b"503 5.5.1 nested MAIL\r\n");
        }
        if self.refuse(around) {
            return;
        }
        self.transaction.sender = Some(path_of(text));
        self.say(around, b"250 2.1.0 ok\r\n");
    }

    pub(super) fn rcpt(&mut self, text: &str, around: &mut Surroundings<'_>) {
        if self.transaction.sender.is_none() {
            return self.say(around, b"503 5.5.1 MAIL first\r\n");
        }
        let recipient = path_of(text);
        // Some addresses do not exist, whatever the server is like.
        if recipient.starts_with("nobody") {
            // Who says more than was asked for must not be quoted: its words come out of turn.
            let is_quotable = around.temperament.unasked == 0 && around.temperament.garbage == 0;
            let who = if is_quotable { recipient.as_str() } else { "this address" };
            return self.say(around, format!("550 5.1.1 <{who}>: no such user\r\n").as_bytes());
        }
        if self.refuse(around) {
            return;
        }
        if let Some(delay_s) = around.temperament.greylist_s {
            let first = *around.memory.greylist.entry(recipient.clone()).or_insert(around.now);
            if around.now.saturating_duration_since(first) < Duration::from_secs(delay_s) {
                return self.say(around, b"451 4.7.1 greylisted, try again later\r\n");
            }
        }
        if around.temperament.recipient_limit.is_some_and(|limit| self.transaction.recipients.len() >= limit)
        {
            return self.say(around, b"452 4.5.3 too many recipients\r\n");
        }
        self.transaction.recipients.push(recipient);
        self.say(around, b"250 2.1.5 ok\r\n");
    }

    pub(super) fn data(&mut self, around: &mut Surroundings<'_>) {
        if !self.transaction.chunks.is_empty() || self.transaction.has_failed {
            // RFC 3030 section 2: DATA and BDAT are not for the same transaction.
            return self.say(around, b"503 5.5.1 RSET first\r\n");
        }
        if self.transaction.recipients.is_empty() && !around.temperament.takes_nobody {
            return self.say(around, b"503 5.5.1 no valid recipients\r\n");
        }
        if self.refuse(around) {
            return;
        }
        self.expects = Expects::Data;
        self.say(around, b"354 end with a dot\r\n");
    }

    pub(super) fn end_of_data(&mut self, data: &Bytes, around: &mut Surroundings<'_>) {
        self.expects = Expects::Commands;
        self.messages += 1;
        let recipients = std::mem::take(&mut self.transaction).recipients;
        let temperament = around.temperament;
        if recipients.is_empty() {
            // RFC 2920 section 3.1: whoever asked for the message of nobody gets a lone dot, and may even like it.
            let replies: [&[u8]; 2] =
                [b"250 2.0.0 queued for nobody\r\n", b"554 5.5.1 no valid recipients\r\n"];
            return self.say_one_of(&replies, around);
        }
        if around.dice.chance(temperament.drop_before) {
            return self.drop(around);
        }
        if self.refuse(around) {
            return;
        }
        around.acts.push(Act::Accept { number: self.messages, recipients, data: data.clone() });
        if around.dice.chance(temperament.drop_after) {
            return self.drop(around);
        }
        if around.dice.chance(temperament.mute_after) {
            self.expects = Expects::Nothing;
            return;
        }
        self.say(around, b"250 2.0.0 queued\r\n");
    }

    pub(super) fn bdat(&mut self, text: &str, around: &mut Surroundings<'_>) {
        let conduct = around.temperament.chunks;
        if conduct == ChunkConduct::Unknown {
            // What follows is not known to be a chunk: it is taken for commands.
            return self.unknown(text, around);
        }
        let mut words = text.split_ascii_whitespace().skip(1);
        let size = words.next().and_then(|size| size.parse::<u64>().ok());
        let is_last = words.next().is_some_and(|word| word.eq_ignore_ascii_case("LAST"));
        let Some(size) = size else { return self.say(around, b"501 5.5.4 how many octets?\r\n") };
        if size == 0 && conduct == ChunkConduct::OddWhenEmpty {
            return match around.dice.below(3) {
                0 => self.say(around, b"501 5.5.4 an empty chunk\r\n"),
                1 => self.expects = Expects::Nothing,
                _ => self.drop(around),
            };
        }
        let is_open = !self.transaction.recipients.is_empty() && !self.transaction.has_failed;
        let refusal: Option<&'static [u8]> = match conduct {
            _ if !is_open => Some(b"503 5.5.1 no valid recipients\r\n"),
            ChunkConduct::Refuses => around.dice.pick(&CHUNK_REFUSALS).copied(),
            ChunkConduct::Busy => Some(b"451 4.3.0 not now\r\n"),
            ChunkConduct::Works
            | ChunkConduct::Unknown
            | ChunkConduct::OddWhenEmpty
            | ChunkConduct::Closes
            | ChunkConduct::CountsShort
            | ChunkConduct::CountsLong => None,
        };
        let miscounted = 1 + around.dice.below(4);
        let left = match conduct {
            ChunkConduct::CountsShort => size.saturating_sub(miscounted),
            ChunkConduct::CountsLong if size > 0 => size + miscounted,
            ChunkConduct::Works
            | ChunkConduct::Unknown
            | ChunkConduct::Refuses
            | ChunkConduct::Busy
            | ChunkConduct::Closes
            | ChunkConduct::OddWhenEmpty
            | ChunkConduct::CountsLong => size,
        };
        self.transaction.is_miscounted |= left != size;
        let chunk = Chunk { left: usize::try_from(left).unwrap_or(usize::MAX), is_last, refusal };
        self.expects = Expects::Chunk(chunk);
    }

    /// Takes what has come of a chunk; whether that is all.
    pub(super) fn take_chunk(&mut self, mut chunk: Chunk, around: &mut Surroundings<'_>) -> bool {
        let piece = self.input.split_to(chunk.left.min(self.input.len()));
        chunk.left -= piece.len();
        self.expects = if chunk.left > 0 { Expects::Chunk(chunk) } else { Expects::Commands };
        if chunk.refusal.is_none() {
            self.transaction.chunks.extend_from_slice(&piece);
        }
        if chunk.left > 0 {
            return false;
        }
        self.end_of_chunk(chunk, around);
        true
    }

    fn end_of_chunk(&mut self, chunk: Chunk, around: &mut Surroundings<'_>) {
        if around.temperament.chunks == ChunkConduct::Closes {
            return self.drop(around);
        }
        if let Some(refusal) = chunk.refusal {
            self.messages += u32::from(chunk.is_last);
            self.transaction.has_failed = true;
            self.transaction.chunks.clear();
            return self.say(around, refusal);
        }
        if !chunk.is_last {
            return self.say(around, b"250 2.0.0 chunk taken\r\n");
        }
        if self.transaction.is_miscounted {
            // Who takes responsibility for what it has cut wrongly by itself cannot be told from any other: this one
            // notices.
            self.messages += 1;
            self.abandon();
            let replies: [&[u8]; 2] = [b"554 5.6.0 damaged\r\n", b"451 4.6.0 damaged\r\n"];
            return self.say_one_of(&replies, around);
        }
        let data = std::mem::take(&mut self.transaction.chunks).freeze();
        self.end_of_data(&data, around);
    }

    /// Whether the server refuses what it could do.
    fn refuse(&mut self, around: &mut Surroundings<'_>) -> bool {
        if around.dice.chance(around.temperament.busy) {
            let replies: [&[u8]; 4] =
                [b"451 4.3.0 busy\r\n", b"450 later\r\n", b"452 4.3.1 full\r\n", b"421 4.3.2 gone\r\n"];
            let reply = around.dice.pick(&replies).copied().unwrap_or_default();
            self.say(around, reply);
            if reply.starts_with(b"421") {
                self.close(around);
            }
            return true;
        }
        if around.dice.chance(around.temperament.strict) {
            let replies: [&[u8]; 4] =
                [b"550-5.7.1 no\r\n550 5.7.1 never\r\n", b"554 no\r\n", b"552 5.2.2 full\r\n", b"556 no\r\n"];
            let reply = around.dice.pick(&replies).copied().unwrap_or_default();
            self.say(around, reply);
            return true;
        }
        false
    }

    /// The message without its final dot and as it was before the dots were doubled.
    pub(super) fn take_data(&mut self) -> Option<Bytes> {
        let end = if self.input.starts_with(b".\r\n") {
            0
        } else {
            let from = self.searched.saturating_sub(4);
            let found = memmem::find(self.input.get(from..).unwrap_or_default(), b"\r\n.\r\n");
            self.searched = self.input.len();
            from + found? + 2
        };
        self.searched = 0;
        let raw = self.input.split_to(end);
        let _ = self.input.split_to(3);
        if memmem::find(&raw, b"\r\n.").is_none() && !raw.starts_with(b".") {
            return Some(raw.freeze());
        }
        let mut data = Vec::with_capacity(raw.len());
        for line in raw.split_inclusive(|&octet| octet == b'\n') {
            data.extend_from_slice(line.strip_prefix(b".").unwrap_or(line));
        }
        Some(data.into())
    }
}

/// What stands between the angle brackets.
fn path_of(text: &str) -> String {
    let begin = text.find('<').map_or(text.len(), |position| position + 1);
    let end = text.rfind('>').unwrap_or(text.len());
    text.get(begin..end).unwrap_or_default().to_owned()
}
