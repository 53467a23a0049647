//! Mail data that was read before it was asked for.
//!
//! SQLite finds an octet of a large value by following the value's pages from its beginning, each time that the value
//! is opened; and it cannot stay open, because that would hold a read transaction for as long as a server takes. So
//! pieces are larger than what is asked for. All that is missing of a message is one piece, if there is room for it; else
//! pieces grow with the way to them: then the ways together are about as long as the message. The next piece is read while
//! the one before is being sent.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use cmail_delivery::outbox::{DATA_CHUNK_OCTETS, MailId, RequestId};

/// What is kept and ordered of all messages together, but for a third more at worst, which bounds the memory however large
/// and many they are.
const LIMIT_OCTETS: usize = 32 * 1024 * 1024;

/// The least that is read at once while there is room for it.
const PIECE_MIN_OCTETS: usize = 2 * 1024 * 1024;

/// How many messages' lengths are kept.
const LENGTHS_LIMIT: usize = 1024;

/// How much is read at once, as a multiple of the way to it: the ways to all pieces of a message together are a small part of
/// it then.
const WAY_FACTOR: usize = 8;

/// A piece of mail data to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Order {
    /// Whose data.
    pub(super) id: MailId,
    /// Where it begins.
    pub(super) offset: u64,
    /// How much, in whole chunks.
    pub(super) octets: usize,
    /// Tells it from one that was given up.
    pub(super) number: u64,
}

/// What was read.
#[derive(Debug)]
pub(super) struct Piece {
    /// Each of [`DATA_CHUNK_OCTETS`] but for the last one; none if the mail is gone, or ends before.
    pub(super) chunks: Vec<Bytes>,
    /// What comes after them.
    pub(super) rest: Rest,
}

/// What comes after some chunks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rest {
    /// More of what was ordered, which is being read.
    Comes,
    /// What was not ordered yet.
    NotOrdered,
    /// Nothing: the message ends.
    Nothing,
}

/// What a request for data comes to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Taken {
    /// It is here.
    Now(Bytes),
    /// It comes with a piece that is being read.
    Later,
    /// Somebody else waits for the data of this mail: it has to be read without this.
    Elsewhere,
}

/// The messages that are being read, from their next octet on.
#[derive(Debug, Default)]
pub(super) struct ReadAhead {
    streams: BTreeMap<MailId, Stream>,
    /// How long messages are of which more will be asked for. It may have changed since, or nobody may come for it.
    lengths: BTreeMap<MailId, u64>,
    /// All that is kept or ordered.
    octets: usize,
    last_number: u64,
}

#[derive(Debug, Default)]
struct Stream {
    /// Where the first chunk begins, or will.
    offset: u64,
    chunks: VecDeque<Bytes>,
    kept_octets: usize,
    /// Whether the message ends with the last chunk.
    is_complete: bool,
    ordered: Option<Order>,
    /// How much of what is ordered has not arrived.
    to_come: usize,
    /// Who waits for what is ordered, and for how much of it.
    waiting: Option<(RequestId, usize)>,
}

impl ReadAhead {
    /// Takes note of the length of a message, in octets, of which only the beginning was read.
    pub(super) fn announce(&mut self, id: MailId, length: u64) {
        self.lengths.insert(id, length);
        if self.lengths.len() > LENGTHS_LIMIT {
            self.lengths.pop_first();
        }
    }

    /// Takes what a request asks for. Afterwards there may be something to [`order`](Self::order).
    pub(super) fn take(&mut self, request: RequestId, id: MailId, offset: u64, limit: usize) -> Taken {
        let stream = self.streams.entry(id).or_default();
        if stream.waiting.is_some() {
            return Taken::Elsewhere;
        }
        if stream.offset != offset {
            self.drop_stream(id);
            let _ = self.streams.insert(id, Stream { offset, ..Stream::default() });
        }
        match self.next(id, limit) {
            Some(octets) => Taken::Now(octets),
            None => {
                if let Some(stream) = self.streams.get_mut(&id) {
                    stream.waiting = Some((request, limit));
                }
                Taken::Later
            }
        }
    }

    /// What to read now of a message, if anything: the next piece, when there is not much left of the last one.
    pub(super) fn order(&mut self, id: MailId) -> Option<Order> {
        let count = self.streams.len().max(1);
        let share = LIMIT_OCTETS / count;
        let stream = self.streams.get_mut(&id)?;
        if stream.is_complete || stream.ordered.is_some() {
            return None;
        }
        // Messages that are sent side by side have used up different parts of what is kept of them, so that there is room
        // for twice their share, mostly.
        let room = LIMIT_OCTETS.saturating_sub(self.octets).max(share / 3);
        let begin = stream.offset.saturating_add(stream.kept_octets as u64);
        let way = usize::try_from(begin).unwrap_or(usize::MAX);
        let missing = self.lengths.get(&id).map_or(0, |length| length.saturating_sub(begin));
        let octets = match usize::try_from(missing) {
            Ok(missing @ 1..) if missing <= room => missing.next_multiple_of(DATA_CHUNK_OCTETS),
            _ => whole_chunks(way.saturating_mul(WAY_FACTOR).max(PIECE_MIN_OCTETS).min(share * 2).min(room)),
        };
        // The more there are, the less does it matter that one of them waits for the disk.
        let little = octets / (count + 1).min(8);
        let is_needed = stream.waiting.is_some();
        if !is_needed && (octets == 0 || stream.kept_octets > little) {
            return None;
        }
        self.last_number = self.last_number.wrapping_add(1);
        let order =
            Order { id, offset: begin, octets: octets.max(DATA_CHUNK_OCTETS), number: self.last_number };
        stream.ordered = Some(order);
        stream.to_come = order.octets;
        self.octets += order.octets;
        Some(order)
    }

    /// Takes in what was ordered, or some of it, or that it cannot be had. Returns who waited for it, if somebody did, and
    /// what it gets: nothing where the piece cannot be had.
    pub(super) fn arrive(
        &mut self,
        order: Order,
        piece: Option<Piece>,
    ) -> Option<(RequestId, Option<Bytes>)> {
        let stream = self.streams.get_mut(&order.id).filter(|stream| stream.ordered == Some(order))?;
        let waiting = stream.waiting.take();
        let Some(piece) = piece else {
            self.forget(order.id);
            return waiting.map(|(request, _)| (request, None));
        };
        let is_empty = piece.chunks.is_empty();
        for chunk in piece.chunks {
            stream.to_come = stream.to_come.saturating_sub(chunk.len());
            stream.kept_octets += chunk.len();
            stream.chunks.push_back(chunk);
        }
        if piece.rest != Rest::Comes {
            self.octets = self.octets.saturating_sub(std::mem::take(&mut stream.to_come));
            stream.ordered = None;
            stream.is_complete = piece.rest == Rest::Nothing || is_empty;
        }
        if stream.is_complete && stream.chunks.is_empty() {
            self.forget(order.id);
        }
        let (request, limit) = waiting?;
        Some((request, Some(self.next(order.id, limit).unwrap_or_default())))
    }

    /// How many pieces have been ordered.
    #[cfg(test)]
    pub(super) fn pieces(&self) -> u64 {
        self.last_number
    }

    /// Drops what is kept of a mail of which nothing more is wanted.
    pub(super) fn forget(&mut self, id: MailId) {
        self.lengths.remove(&id);
        self.drop_stream(id);
    }

    fn drop_stream(&mut self, id: MailId) {
        if let Some(stream) = self.streams.remove(&id) {
            self.octets = self.octets.saturating_sub(stream.kept_octets).saturating_sub(stream.to_come);
        }
    }

    /// Drops what is kept of mail that is begun anew, or done with, unless somebody waits for it.
    pub(super) fn forget_all<'a>(&mut self, ids: impl IntoIterator<Item = &'a MailId>) {
        // Hardly ever is a message so large that it is here.
        if self.streams.is_empty() && self.lengths.is_empty() {
            return;
        }
        for id in ids {
            if self.streams.get(id).is_none_or(|stream| stream.waiting.is_none()) {
                self.forget(*id);
            }
        }
    }

    fn next(&mut self, id: MailId, limit: usize) -> Option<Bytes> {
        let stream = self.streams.get_mut(&id)?;
        let chunk = stream.chunks.front_mut()?;
        let octets = chunk.split_to(limit.min(chunk.len()));
        if chunk.is_empty() {
            stream.chunks.pop_front();
        }
        stream.offset = stream.offset.saturating_add(octets.len() as u64);
        stream.kept_octets = stream.kept_octets.saturating_sub(octets.len());
        self.octets = self.octets.saturating_sub(octets.len());
        if stream.is_complete && stream.chunks.is_empty() {
            self.forget(id);
        }
        Some(octets)
    }
}

fn whole_chunks(octets: usize) -> usize {
    octets / DATA_CHUNK_OCTETS * DATA_CHUNK_OCTETS
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHUNK: usize = DATA_CHUNK_OCTETS;

    /// Reads a message of so many octets, each of which tells where it stands, and answers every order at once.
    /// Returns the orders.
    fn read(cache: &mut ReadAhead, id: MailId, total: usize) -> Vec<Order> {
        let (mut orders, mut offset) = (Vec::new(), 0);
        while offset < total {
            let taken = cache.take(RequestId(7), id, offset as u64, CHUNK);
            let mut arrived = None;
            if let Some(order) = cache.order(id) {
                orders.push(order);
                arrived = cache.arrive(order, Some(piece(order, total)));
            }
            let octets = match taken {
                Taken::Now(octets) => octets,
                Taken::Later => arrived.unwrap().1.unwrap(),
                Taken::Elsewhere => panic!("nobody else reads it"),
            };
            assert!(octets == expected(offset, octets.len()) && !octets.is_empty(), "at {offset}");
            offset += octets.len();
        }
        orders
    }

    fn expected(offset: usize, count: usize) -> Vec<u8> {
        (offset..offset + count).map(|position| (position / 7) as u8).collect()
    }

    fn piece(order: Order, total: usize) -> Piece {
        let begin = usize::try_from(order.offset).unwrap();
        let end = total.min(begin + order.octets);
        let chunks = (begin..end)
            .step_by(CHUNK)
            .map(|offset| Bytes::from(expected(offset, CHUNK.min(end - offset))))
            .collect();
        Piece { chunks, rest: if end == total { Rest::Nothing } else { Rest::NotOrdered } }
    }

    #[test]
    fn all_ways_together_are_hardly_longer_than_the_message() {
        let mut cache = ReadAhead::default();
        let total = 30 * 1024 * 1024 + 17;
        let orders = read(&mut cache, MailId(1), total);
        let ways: u64 = orders.iter().map(|order| order.offset).sum();
        assert!(ways < 2 * total as u64, "{orders:?}");
        assert_eq!((cache.octets, cache.streams.len()), (0, 0), "nothing is left of a message that was read");
    }

    #[test]
    fn a_message_whose_length_is_known_is_read_at_once_if_there_is_room() {
        let mut cache = ReadAhead::default();
        let total = LIMIT_OCTETS - 17;
        cache.announce(MailId(1), total as u64);
        assert_eq!(read(&mut cache, MailId(1), total).len(), 1);
        assert_eq!((cache.octets, cache.streams.len(), cache.lengths.len()), (0, 0, 0));
        cache.announce(MailId(2), 2 * LIMIT_OCTETS as u64);
        let orders = read(&mut cache, MailId(2), 2 * LIMIT_OCTETS);
        assert!((3..6).contains(&orders.len()), "{orders:?}");
        // With the room taken by another one, it goes on in pieces.
        cache.announce(MailId(3), LIMIT_OCTETS as u64);
        cache.take(RequestId(1), MailId(3), 0, CHUNK);
        assert_eq!(cache.order(MailId(3)).unwrap().octets, LIMIT_OCTETS);
        cache.announce(MailId(4), total as u64);
        cache.take(RequestId(2), MailId(4), 0, CHUNK);
        assert!(cache.order(MailId(4)).unwrap().octets < LIMIT_OCTETS / 4);
    }

    #[test]
    fn a_message_that_is_longer_than_was_announced_is_read_to_its_end() {
        let mut cache = ReadAhead::default();
        cache.announce(MailId(1), 3 * CHUNK as u64 + 5);
        assert!(read(&mut cache, MailId(1), 3 * PIECE_MIN_OCTETS).len() > 1);
        assert_eq!((cache.octets, cache.streams.len()), (0, 0));
    }

    #[test]
    fn lengths_that_nobody_comes_for_are_bounded() {
        let mut cache = ReadAhead::default();
        for id in 0..2 * LENGTHS_LIMIT as i64 {
            cache.announce(MailId(id), 1 << 20);
        }
        assert_eq!(cache.lengths.len(), LENGTHS_LIMIT);
        cache.forget_all(&(0..2 * LENGTHS_LIMIT as i64).map(MailId).collect::<Vec<_>>());
        assert_eq!(cache.lengths.len(), 0);
    }

    #[test]
    fn the_memory_is_bounded_however_many_messages_are_read() {
        let mut cache = ReadAhead::default();
        let mut orders = Vec::new();
        for id in 0..2000 {
            assert_eq!(cache.take(RequestId(1), MailId(id), 1 << 30, CHUNK), Taken::Later);
            orders.extend(cache.order(MailId(id)));
        }
        assert_eq!(orders.len(), 2000, "each gets what it waits for");
        for order in orders {
            cache.arrive(order, Some(piece(Order { offset: 0, ..order }, usize::MAX)));
        }
        let mut ordered_ahead = 0;
        for id in 0..2000 {
            ordered_ahead += cache.order(MailId(id)).map_or(0, |order| order.octets);
        }
        assert!(cache.octets <= LIMIT_OCTETS / 3 * 4 + 2000 * CHUNK, "{}", cache.octets);
        assert_eq!(ordered_ahead, 0, "with so many, nothing is read before it is needed");
    }

    #[test]
    fn a_request_that_waits_is_answered_also_when_the_piece_cannot_be_had() {
        let mut cache = ReadAhead::default();
        assert_eq!(cache.take(RequestId(1), MailId(1), 0, CHUNK), Taken::Later);
        let order = cache.order(MailId(1)).unwrap();
        assert_eq!(cache.take(RequestId(2), MailId(1), 0, CHUNK), Taken::Elsewhere);
        cache.forget_all(&[MailId(1)]);
        assert_eq!(cache.arrive(order, None), Some((RequestId(1), None)));
        assert_eq!((cache.octets, cache.streams.len()), (0, 0));
    }

    #[test]
    fn a_message_that_is_gone_has_no_more_data() {
        let mut cache = ReadAhead::default();
        cache.take(RequestId(1), MailId(1), 5, CHUNK);
        let order = cache.order(MailId(1)).unwrap();
        let gone = Piece { chunks: Vec::new(), rest: Rest::Nothing };
        assert_eq!(cache.arrive(order, Some(gone)), Some((RequestId(1), Some(Bytes::new()))));
        cache.take(RequestId(2), MailId(1), 5, CHUNK);
        assert!(cache.order(MailId(1)).is_some(), "who asks again is not left without an answer");
    }

    #[test]
    fn what_has_been_read_of_a_piece_can_be_had_while_the_rest_is_read() {
        let mut cache = ReadAhead::default();
        cache.take(RequestId(1), MailId(1), 0, CHUNK);
        let order = cache.order(MailId(1)).unwrap();
        let mut whole = piece(order, usize::MAX);
        let rest = whole.chunks.split_off(2);
        let part = Piece { rest: Rest::Comes, ..whole };
        let answer = cache.arrive(order, Some(part)).unwrap();
        assert_eq!(answer, (RequestId(1), Some(expected(0, CHUNK).into())));
        assert_eq!(cache.octets, order.octets - CHUNK);
        assert_eq!(cache.order(MailId(1)), None, "it is being read still");
        let second = cache.take(RequestId(2), MailId(1), CHUNK as u64, CHUNK);
        assert_eq!(second, Taken::Now(expected(CHUNK, CHUNK).into()));
        cache.arrive(order, Some(Piece { chunks: rest, rest: Rest::NotOrdered }));
        assert_eq!(cache.octets, order.octets - 2 * CHUNK);
        let mut offset = 2 * CHUNK;
        while cache.take(RequestId(3), MailId(1), offset as u64, CHUNK) != Taken::Later {
            offset += CHUNK;
        }
        assert_eq!(offset, order.octets);
        assert_eq!(cache.order(MailId(1)).unwrap().offset, offset as u64);
    }

    #[test]
    fn a_part_of_a_piece_that_was_given_up_is_not_taken_for_another() {
        let mut cache = ReadAhead::default();
        cache.take(RequestId(1), MailId(1), 0, CHUNK);
        let given_up = cache.order(MailId(1)).unwrap();
        cache.forget(MailId(1));
        cache.take(RequestId(2), MailId(1), 0, CHUNK);
        assert!(cache.order(MailId(1)).is_some());
        assert_eq!(cache.arrive(given_up, Some(piece(given_up, usize::MAX))), None);
    }

    #[test]
    fn who_begins_anew_gets_nothing_of_what_was_kept() {
        let mut cache = ReadAhead::default();
        cache.take(RequestId(1), MailId(1), 0, CHUNK);
        let order = cache.order(MailId(1)).unwrap();
        cache.arrive(order, Some(piece(order, usize::MAX)));
        let ahead = cache.order(MailId(1));
        cache.forget_all(&[MailId(1)]);
        assert_eq!(cache.octets, 0);
        assert_eq!(cache.take(RequestId(2), MailId(1), 0, CHUNK), Taken::Later);
        if let Some(ahead) = ahead {
            assert_eq!(cache.arrive(ahead, Some(piece(ahead, usize::MAX))), None, "nobody waits for that");
        }
        assert!(cache.order(MailId(1)).is_some());
    }
}
