//! Mail data that was read before it was asked for.
//!
//! SQLite finds an octet of a large value by following the value's pages from its beginning, each time that the value
//! is opened; and it cannot stay open, because that would hold a read transaction for as long as a server takes. So all that is
//! missing of a message is read at once, for as long as there is memory for it, while what came first is being sent. And while
//! nothing else is to be read, the thread goes on with a message that was claimed and is not begun.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;

use bytes::Bytes;
use cmail_delivery::outbox::{DATA_CHUNK_OCTETS, MailId, RequestId};

use super::pool::Pool;

/// How much memory there is for all messages together, but for a third more at worst: each that is waited for gets a share
/// of that. So the memory is bounded however large and many they are.
pub(super) const MEMORY_LIMIT_OCTETS: usize = 24 * 1024 * 1024;

/// The least that is ordered of a message whose length is not known.
const PIECE_MIN_OCTETS: usize = 2 * 1024 * 1024;

/// How much is ordered of a message whose length is not known, as a multiple of the way to it: the ways to all pieces of a
/// message together are a small part of it then.
const WAY_FACTOR: usize = 8;

/// How many messages are kept in mind of which only the beginning was read.
const ANNOUNCED_LIMIT: usize = 1024;

/// While so many messages are being read, the thread has enough to do, and none is read that is not begun.
const STREAMS_ENOUGH: usize = 4;

/// A message that was read ahead, and that nobody began while so many other pieces were ordered, is dropped: it may have been
/// given back.
const AHEAD_PATIENCE: u64 = 16;

/// A piece of mail data to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Order {
    /// Whose data.
    pub(super) id: MailId,
    /// Where it begins.
    pub(super) offset: u64,
    /// How much, in whole chunks.
    pub(super) octets: usize,
    /// How much of it in any case. It ends after that where there is no memory for more.
    pub(super) least_octets: usize,
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
    /// What is missing of messages of which only the beginning was read. They may have changed since, or nobody may come for
    /// them.
    announced: BTreeMap<MailId, Range<u64>>,
    /// The one of the streams that nobody has asked for yet, and the number of its order.
    ahead: Option<(MailId, u64)>,
    /// Where the memory of what is read comes from.
    pool: Pool,
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
    /// Who waits for what is ordered, and for how much of it.
    waiting: Option<(RequestId, usize)>,
}

impl ReadAhead {
    /// Nothing is read yet; the memory will be the pool's.
    pub(super) fn new(pool: Pool) -> Self {
        Self { pool, ..Self::default() }
    }

    /// Takes note of a message, in the order of sending, of which only what comes before `missing` was read.
    pub(super) fn announce(&mut self, id: MailId, missing: Range<u64>) {
        self.announced.insert(id, missing);
        if self.announced.len() > ANNOUNCED_LIMIT {
            self.announced.pop_first();
        }
    }

    /// Takes what a request asks for. Afterwards there may be something to [`order`](Self::order).
    pub(super) fn take(&mut self, request: RequestId, id: MailId, offset: u64, limit: usize) -> Taken {
        let stream = self.streams.entry(id).or_default();
        if stream.waiting.is_some() {
            return Taken::Elsewhere;
        }
        self.ahead.take_if(|(ahead, _)| *ahead == id);
        if stream.offset != offset {
            *stream = Stream { offset, ..Stream::default() };
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

    /// What to read now of a message, if anything: what is waited for, or more when there is not much left and room for it.
    pub(super) fn order(&mut self, id: MailId) -> Option<Order> {
        self.drop_forgotten();
        let share = MEMORY_LIMIT_OCTETS / self.streams.len().max(1);
        let room = self.room();
        let stream = self.streams.get(&id)?;
        if stream.is_complete || stream.ordered.is_some() {
            return None;
        }
        let begin = stream.offset.saturating_add(stream.kept_octets as u64);
        let missing = self.announced.get(&id).map_or(0, |missing| missing.end.saturating_sub(begin));
        let octets = match usize::try_from(missing) {
            Ok(missing @ 1..) => missing,
            _ => {
                let way = usize::try_from(begin).unwrap_or(usize::MAX);
                way.saturating_mul(WAY_FACTOR).max(PIECE_MIN_OCTETS).min(share * 2)
            }
        };
        // A piece that has to end soon is hardly worth the way to it.
        let is_worthwhile = stream.kept_octets <= share / 4 && room >= octets.min(share / 4 * 3);
        if stream.waiting.is_none() && !is_worthwhile {
            return None;
        }
        self.place(id, begin, octets, share / 3)
    }

    /// What to read while nothing else is to be read: the next message that was claimed and is not begun.
    pub(super) fn order_ahead(&mut self) -> Option<Order> {
        if self.announced.is_empty() || self.ahead.is_some() || self.streams.len() >= STREAMS_ENOUGH {
            return None;
        }
        if self.streams.values().any(|stream| stream.ordered.is_some()) {
            return None;
        }
        let (id, missing) = self.announced.iter().find(|(id, _)| !self.streams.contains_key(id))?;
        let (id, begin) = (*id, missing.start);
        let octets = usize::try_from(missing.end.saturating_sub(begin)).unwrap_or(usize::MAX);
        if self.room() < octets.min(MEMORY_LIMIT_OCTETS / 2) {
            return None;
        }
        self.streams.insert(id, Stream { offset: begin, ..Stream::default() });
        let order = self.place(id, begin, octets, 0)?;
        self.ahead = Some((id, order.number));
        Some(order)
    }

    fn place(&mut self, id: MailId, offset: u64, octets: usize, least_octets: usize) -> Option<Order> {
        let stream = self.streams.get_mut(&id)?;
        self.last_number = self.last_number.wrapping_add(1);
        let order = Order {
            id,
            offset,
            octets: octets.div_ceil(DATA_CHUNK_OCTETS).max(1).saturating_mul(DATA_CHUNK_OCTETS),
            least_octets,
            number: self.last_number,
        };
        stream.ordered = Some(order);
        Some(order)
    }

    fn room(&self) -> usize {
        MEMORY_LIMIT_OCTETS.saturating_sub(self.pool.taken_octets())
    }

    /// Drops a message that was read ahead and that nobody came for.
    fn drop_forgotten(&mut self) {
        if let Some((id, number)) = self.ahead
            && self.last_number.wrapping_sub(number) > AHEAD_PATIENCE
        {
            self.forget(id);
        }
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
            stream.kept_octets += chunk.len();
            stream.chunks.push_back(chunk);
        }
        if piece.rest != Rest::Comes {
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
        self.announced.remove(&id);
        self.streams.remove(&id);
        self.ahead.take_if(|(ahead, _)| *ahead == id);
    }

    /// Drops what is kept of mail that is begun anew, or done with, unless somebody waits for it.
    pub(super) fn forget_all<'a>(&mut self, ids: impl IntoIterator<Item = &'a MailId>) {
        // Hardly ever is a message so large that it is here.
        if self.streams.is_empty() && self.announced.is_empty() {
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
        if stream.is_complete && stream.chunks.is_empty() {
            self.forget(id);
        }
        Some(octets)
    }
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
        assert_eq!(cache.streams.len(), 0, "nothing is left of a message that was read");
    }

    #[test]
    fn a_message_whose_length_is_known_is_read_at_once_however_long() {
        let mut cache = ReadAhead::default();
        let total = 2 * MEMORY_LIMIT_OCTETS + 17;
        cache.announce(MailId(1), 0..total as u64);
        assert_eq!(read(&mut cache, MailId(1), total).len(), 1);
        assert_eq!((cache.streams.len(), cache.announced.len()), (0, 0));
    }

    #[test]
    fn what_ended_for_lack_of_memory_goes_on_when_there_is_enough_again() {
        let pool = Pool::default();
        let mut cache = ReadAhead::new(pool.clone());
        let total = 4 * MEMORY_LIMIT_OCTETS;
        cache.announce(MailId(1), 0..total as u64);
        cache.take(RequestId(1), MailId(1), 0, CHUNK);
        let order = cache.order(MailId(1)).unwrap();
        assert_eq!(order.octets, total);
        let chunks = (0..MEMORY_LIMIT_OCTETS / CHUNK).map(|_| pool.lend(pool.take(), CHUNK)).collect();
        cache.arrive(order, Some(Piece { chunks, rest: Rest::NotOrdered }));
        assert_eq!(cache.order(MailId(1)), None, "there is no room");
        let mut offset = CHUNK;
        while offset < MEMORY_LIMIT_OCTETS {
            assert!(matches!(cache.take(RequestId(1), MailId(1), offset as u64, CHUNK), Taken::Now(_)));
            offset += CHUNK;
            if let Some(order) = cache.order(MailId(1)) {
                assert_eq!(
                    (order.offset, order.octets),
                    (MEMORY_LIMIT_OCTETS as u64, total - MEMORY_LIMIT_OCTETS)
                );
                break;
            }
        }
        assert_eq!(offset, MEMORY_LIMIT_OCTETS / 4 * 3, "not for a small piece, and before nothing is left");
    }

    #[test]
    fn a_message_that_is_longer_than_was_announced_is_read_to_its_end() {
        let mut cache = ReadAhead::default();
        cache.announce(MailId(1), 0..3 * CHUNK as u64 + 5);
        assert!(read(&mut cache, MailId(1), 3 * PIECE_MIN_OCTETS).len() > 1);
        assert_eq!(cache.streams.len(), 0);
    }

    #[test]
    fn announcements_that_nobody_comes_for_are_bounded() {
        let mut cache = ReadAhead::default();
        for id in 0..2 * ANNOUNCED_LIMIT as i64 {
            cache.announce(MailId(id), 0..1 << 20);
        }
        assert_eq!(cache.announced.len(), ANNOUNCED_LIMIT);
        cache.forget_all(&(0..2 * ANNOUNCED_LIMIT as i64).map(MailId).collect::<Vec<_>>());
        assert_eq!(cache.announced.len(), 0);
    }

    #[test]
    fn the_memory_is_bounded_however_many_messages_are_read() {
        let pool = Pool::default();
        let mut cache = ReadAhead::new(pool.clone());
        let mut orders = Vec::new();
        for id in 0..2000 {
            assert_eq!(cache.take(RequestId(1), MailId(id), 1 << 30, CHUNK), Taken::Later);
            orders.extend(cache.order(MailId(id)));
        }
        assert_eq!(orders.len(), 2000, "each gets what it waits for");
        for order in orders {
            let mut chunks = Vec::new();
            while chunks.len() * CHUNK < order.least_octets
                || (chunks.len() * CHUNK < order.octets && pool.taken_octets() < MEMORY_LIMIT_OCTETS)
            {
                chunks.push(pool.lend(pool.take(), CHUNK));
            }
            cache.arrive(order, Some(Piece { chunks, rest: Rest::NotOrdered }));
        }
        assert!(pool.taken_octets() <= MEMORY_LIMIT_OCTETS / 3 * 4 + 2000 * CHUNK, "{}", pool.taken_octets());
        for id in 0..2000 {
            assert_eq!(cache.order(MailId(id)), None, "nothing is read before it is needed");
        }
        assert_eq!(cache.order_ahead(), None);
        cache.forget_all(&(0..2000).map(MailId).collect::<Vec<_>>());
        assert_eq!(pool.taken_octets(), 0);
    }

    #[test]
    fn while_nothing_else_is_to_be_read_the_next_message_is() {
        let mut cache = ReadAhead::default();
        let total = 5 * CHUNK;
        for id in 1..=3 {
            cache.announce(MailId(id), CHUNK as u64..total as u64);
        }
        cache.take(RequestId(1), MailId(1), CHUNK as u64, CHUNK);
        let first = cache.order(MailId(1)).unwrap();
        assert_eq!(cache.order_ahead(), None, "another one is being read");
        cache.arrive(first, Some(piece(first, total)));
        let second = cache.order_ahead().unwrap();
        assert_eq!((second.id, second.offset, second.octets), (MailId(2), CHUNK as u64, 4 * CHUNK));
        cache.arrive(second, Some(piece(second, total)));
        assert_eq!(cache.order_ahead(), None, "one is enough");
        let taken = cache.take(RequestId(2), MailId(2), CHUNK as u64, CHUNK);
        assert_eq!(taken, Taken::Now(expected(CHUNK, CHUNK).into()));
        assert_eq!(cache.order_ahead().unwrap().id, MailId(3));
    }

    #[test]
    fn a_message_that_was_read_ahead_is_not_kept_for_ever() {
        let mut cache = ReadAhead::default();
        cache.announce(MailId(1), 0..CHUNK as u64);
        let ahead = cache.order_ahead().unwrap();
        cache.arrive(ahead, Some(piece(ahead, CHUNK)));
        for id in 2..=AHEAD_PATIENCE as i64 + 3 {
            assert!(cache.streams.contains_key(&MailId(1)), "{id}");
            cache.take(RequestId(1), MailId(id), 0, CHUNK);
            let order = cache.order(MailId(id)).unwrap();
            cache.arrive(order, Some(piece(order, CHUNK)));
        }
        assert_eq!((cache.streams.len(), cache.announced.len(), cache.ahead), (0, 0, None));
    }

    #[test]
    fn a_request_that_waits_is_answered_also_when_the_piece_cannot_be_had() {
        let mut cache = ReadAhead::default();
        assert_eq!(cache.take(RequestId(1), MailId(1), 0, CHUNK), Taken::Later);
        let order = cache.order(MailId(1)).unwrap();
        assert_eq!(cache.take(RequestId(2), MailId(1), 0, CHUNK), Taken::Elsewhere);
        cache.forget_all(&[MailId(1)]);
        assert_eq!(cache.arrive(order, None), Some((RequestId(1), None)));
        assert_eq!(cache.streams.len(), 0);
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
        assert_eq!(cache.order(MailId(1)), None, "it is being read still");
        let second = cache.take(RequestId(2), MailId(1), CHUNK as u64, CHUNK);
        assert_eq!(second, Taken::Now(expected(CHUNK, CHUNK).into()));
        cache.arrive(order, Some(Piece { chunks: rest, rest: Rest::NotOrdered }));
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
        assert_eq!(cache.take(RequestId(2), MailId(1), 0, CHUNK), Taken::Later);
        if let Some(ahead) = ahead {
            assert_eq!(cache.arrive(ahead, Some(piece(ahead, usize::MAX))), None, "nobody waits for that");
        }
        assert!(cache.order(MailId(1)).is_some());
    }
}
