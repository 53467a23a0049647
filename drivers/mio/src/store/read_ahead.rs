//! Mail data that was read before it was asked for.
//!
//! SQLite finds an octet of a large value by following the value's pages from its beginning, each time that the value
//! is opened; and it cannot stay open, because that would hold a read transaction for as long as a server takes. So all that is
//! missing of a message is read at once, for as long as there is memory for it, while what came first is being sent. And while
//! nothing else is to be read, the thread goes on with a message that was claimed and is not begun.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::time::{Duration, Instant};

use bytes::Bytes;
use cmail_delivery::outbox::{DATA_CHUNK_OCTETS, MailId, RequestId};

use super::pool::Pool;

/// How much memory there is for all messages together. So it is bounded however large and many they are.
const MEMORY_LIMIT_OCTETS: usize = 24 * 1024 * 1024;

/// How much more there is for those that are waited for: each gets a share of it, or a single chunk when it is used up too.
const RESERVE_OCTETS: usize = MEMORY_LIMIT_OCTETS / 3;

/// The least that is ordered of a message whose length is not known.
const PIECE_MIN_OCTETS: usize = 2 * 1024 * 1024;

/// How much is ordered of a message whose length is not known, as a multiple of the way to it: the ways to all pieces of a
/// message together are a small part of it then.
const WAY_FACTOR: usize = 8;

/// How many messages are kept in mind of which only the beginning was read.
const ANNOUNCED_LIMIT: usize = 1024;

/// While so many messages are being read, the thread has enough to do, and none is read that is not begun.
const STREAMS_ENOUGH: usize = 4;

/// What nobody has asked for in so long is dropped: the message may have been given back. Where a server is that slow, it does
/// not matter that it has to be read again.
const STREAM_PATIENCE: Duration = Duration::from_secs(30);

/// How often is looked for what nobody asks for.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

/// A piece of mail data to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Order {
    /// Whose data.
    pub(super) id: MailId,
    /// Where it begins.
    pub(super) offset: u64,
    /// How much, in whole chunks.
    pub(super) octets: usize,
    /// How much of it although there is no room; nothing if nobody waits for it.
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
#[derive(Debug)]
pub(super) struct ReadAhead {
    streams: BTreeMap<MailId, Stream>,
    announced: BTreeMap<MailId, Announcement>,
    /// The one of the streams that nobody has asked for yet.
    ahead: Option<MailId>,
    /// Where the memory of what is read comes from.
    pool: Pool,
    last_number: u64,
    next_sweep: Instant,
}

/// A message of which only the beginning was read. It may have changed since, or nobody may come for it.
#[derive(Clone, Debug)]
struct Announcement {
    missing: Range<u64>,
    /// Tells which was announced first.
    number: u64,
}

#[derive(Debug)]
struct Stream {
    /// When it was asked for last, or ordered ahead.
    asked_at: Instant,
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
        Self {
            streams: BTreeMap::new(),
            announced: BTreeMap::new(),
            ahead: None,
            pool,
            last_number: 0,
            next_sweep: Instant::now(),
        }
    }

    /// Takes note of a message of which only what comes before `missing` was read. Those that were announced first will be sent
    /// first, mostly.
    pub(super) fn announce(&mut self, id: MailId, missing: Range<u64>) {
        let number = self.next_number();
        self.announced.insert(id, Announcement { missing, number });
        if self.announced.len() > ANNOUNCED_LIMIT
            && let Some(id) = self.first_announced(|_| true)
        {
            self.announced.remove(&id);
        }
    }

    /// Takes what a request asks for. Afterwards there may be something to [`order`](Self::order).
    pub(super) fn take(
        &mut self,
        now: Instant,
        request: RequestId,
        id: MailId,
        offset: u64,
        limit: usize,
    ) -> Taken {
        let stream = self.streams.entry(id).or_insert_with(|| Stream::new(now, offset));
        if stream.waiting.is_some() {
            return Taken::Elsewhere;
        }
        self.ahead.take_if(|ahead| *ahead == id);
        stream.asked_at = now;
        if stream.offset != offset {
            *stream = Stream::new(now, offset);
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
    pub(super) fn order(&mut self, now: Instant, id: MailId) -> Option<Order> {
        self.sweep(now);
        let share = MEMORY_LIMIT_OCTETS / self.streams.len().max(1);
        let room = self.room();
        let stream = self.streams.get(&id)?;
        if stream.is_complete || stream.ordered.is_some() {
            return None;
        }
        let begin = stream.offset.saturating_add(stream.kept_octets as u64);
        let missing = self.announced.get(&id).map_or(0, |known| known.missing.end.saturating_sub(begin));
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
        self.make_order(id, begin, octets, RESERVE_OCTETS / self.streams.len().max(1))
    }

    /// What to read while nothing else is to be read: the next message that was claimed and is not begun.
    pub(super) fn order_ahead(&mut self, now: Instant) -> Option<Order> {
        if self.announced.is_empty() {
            return None;
        }
        self.sweep(now);
        // The rest of a message that is being sent needs the memory more.
        let is_reading = self.streams.values().any(|stream| !stream.is_complete);
        if self.ahead.is_some() || self.streams.len() >= STREAMS_ENOUGH || is_reading {
            return None;
        }
        let id = self.first_announced(|id| !self.streams.contains_key(id))?;
        let Range { start, end } = self.announced.get(&id)?.missing.clone();
        let octets = usize::try_from(end.saturating_sub(start)).unwrap_or(usize::MAX);
        if self.room() < octets.min(MEMORY_LIMIT_OCTETS / 2) {
            return None;
        }
        self.streams.insert(id, Stream::new(now, start));
        self.ahead = Some(id);
        self.make_order(id, start, octets, 0)
    }

    fn make_order(&mut self, id: MailId, offset: u64, octets: usize, least_octets: usize) -> Option<Order> {
        let number = self.next_number();
        let stream = self.streams.get_mut(&id)?;
        let octets = octets.div_ceil(DATA_CHUNK_OCTETS).max(1).saturating_mul(DATA_CHUNK_OCTETS);
        let order = Order { id, offset, octets, least_octets, number };
        stream.ordered = Some(order);
        Some(order)
    }

    #[cfg(test)]
    pub(super) fn last_number(&self) -> u64 {
        self.last_number
    }

    fn next_number(&mut self) -> u64 {
        self.last_number = self.last_number.wrapping_add(1);
        self.last_number
    }

    fn first_announced(&self, filter: impl Fn(&MailId) -> bool) -> Option<MailId> {
        let candidates = self.announced.iter().filter(|(id, _)| filter(id));
        candidates.min_by_key(|(_, announcement)| announcement.number).map(|(id, _)| *id)
    }

    fn room(&self) -> usize {
        MEMORY_LIMIT_OCTETS.saturating_sub(self.pool.taken_octets())
    }

    /// Drops what nobody asks for any more: when a connection is lost, nobody says so here.
    fn sweep(&mut self, now: Instant) {
        if now < self.next_sweep {
            return;
        }
        self.next_sweep = now + SWEEP_INTERVAL;
        self.streams.retain(|_, stream| {
            stream.waiting.is_some() || now.saturating_duration_since(stream.asked_at) < STREAM_PATIENCE
        });
        let streams = &self.streams;
        self.ahead.take_if(|ahead| !streams.contains_key(ahead));
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

    /// Drops what is kept of a mail of which nothing more is wanted.
    pub(super) fn forget(&mut self, id: MailId) {
        self.announced.remove(&id);
        self.streams.remove(&id);
        self.ahead.take_if(|ahead| *ahead == id);
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

impl Stream {
    fn new(now: Instant, offset: u64) -> Self {
        Self {
            asked_at: now,
            offset,
            chunks: VecDeque::new(),
            kept_octets: 0,
            is_complete: false,
            ordered: None,
            waiting: None,
        }
    }
}

/// Whether there is room for a further chunk of a piece; `is_least` while there is less of it than there is to be in any case.
pub(super) fn has_room(pool: &Pool, is_least: bool) -> bool {
    let limit = if is_least { MEMORY_LIMIT_OCTETS + RESERVE_OCTETS } else { MEMORY_LIMIT_OCTETS };
    pool.taken_octets() < limit
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHUNK: usize = DATA_CHUNK_OCTETS;

    fn now() -> Instant {
        Instant::now()
    }

    /// Reads a message of so many octets, each of which tells where it stands, and answers every order at once.
    /// Returns the orders.
    fn read(cache: &mut ReadAhead, id: MailId, total: usize) -> Vec<Order> {
        let (mut orders, mut offset) = (Vec::new(), 0);
        while offset < total {
            let taken = cache.take(now(), RequestId(7), id, offset as u64, CHUNK);
            let mut arrived = None;
            if let Some(order) = cache.order(now(), id) {
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
        let mut cache = ReadAhead::new(Pool::default());
        let total = 30 * 1024 * 1024 + 17;
        let orders = read(&mut cache, MailId(1), total);
        let ways: u64 = orders.iter().map(|order| order.offset).sum();
        assert!(ways < 2 * total as u64, "{orders:?}");
        assert_eq!(cache.streams.len(), 0, "nothing is left of a message that was read");
    }

    #[test]
    fn a_message_whose_length_is_known_is_read_at_once_however_long() {
        let mut cache = ReadAhead::new(Pool::default());
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
        cache.take(now(), RequestId(1), MailId(1), 0, CHUNK);
        let order = cache.order(now(), MailId(1)).unwrap();
        assert_eq!(order.octets, total);
        let chunks = (0..MEMORY_LIMIT_OCTETS / CHUNK).map(|_| pool.take().into_bytes(CHUNK)).collect();
        cache.arrive(order, Some(Piece { chunks, rest: Rest::NotOrdered }));
        assert_eq!(cache.order(now(), MailId(1)), None, "there is no room");
        let mut offset = CHUNK;
        while offset < MEMORY_LIMIT_OCTETS {
            assert!(matches!(
                cache.take(now(), RequestId(1), MailId(1), offset as u64, CHUNK),
                Taken::Now(_)
            ));
            offset += CHUNK;
            if let Some(order) = cache.order(now(), MailId(1)) {
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
        let mut cache = ReadAhead::new(Pool::default());
        cache.announce(MailId(1), 0..3 * CHUNK as u64 + 5);
        assert!(read(&mut cache, MailId(1), 3 * PIECE_MIN_OCTETS).len() > 1);
        assert_eq!(cache.streams.len(), 0);
    }

    #[test]
    fn announcements_that_nobody_comes_for_are_bounded() {
        let mut cache = ReadAhead::new(Pool::default());
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
        // They come one after the other, while those before hold what they have.
        for id in 0..300 {
            cache.announce(MailId(id), 1 << 30..1 << 31);
            assert_eq!(cache.take(now(), RequestId(1), MailId(id), 1 << 30, CHUNK), Taken::Later);
            let order = cache.order(now(), MailId(id)).expect("each gets what it waits for");
            let mut chunks = Vec::new();
            loop {
                chunks.push(pool.take().into_bytes(CHUNK));
                if !has_room(&pool, chunks.len() * CHUNK < order.least_octets) {
                    break;
                }
            }
            cache.arrive(order, Some(Piece { chunks, rest: Rest::NotOrdered }));
            let limit = MEMORY_LIMIT_OCTETS + RESERVE_OCTETS + (id as usize + 1) * CHUNK;
            assert!(pool.taken_octets() <= limit, "{id}: {}", pool.taken_octets());
        }
        for id in 0..300 {
            assert_eq!(cache.order(now(), MailId(id)), None, "nothing is read before it is needed");
        }
        assert_eq!(cache.order_ahead(now()), None);
        cache.forget_all(&(0..300).map(MailId).collect::<Vec<_>>());
        assert_eq!(pool.taken_octets(), 0);
    }

    #[test]
    fn while_nothing_else_is_to_be_read_the_next_message_is() {
        let mut cache = ReadAhead::new(Pool::default());
        let total = 5 * CHUNK;
        for id in 1..=3 {
            cache.announce(MailId(id), CHUNK as u64..total as u64);
        }
        cache.take(now(), RequestId(1), MailId(1), CHUNK as u64, CHUNK);
        let first = cache.order(now(), MailId(1)).unwrap();
        assert_eq!(cache.order_ahead(now()), None, "another one is being read");
        cache.arrive(first, Some(piece(first, total)));
        let second = cache.order_ahead(now()).unwrap();
        assert_eq!((second.id, second.offset, second.octets), (MailId(2), CHUNK as u64, 4 * CHUNK));
        cache.arrive(second, Some(piece(second, total)));
        assert_eq!(cache.order_ahead(now()), None, "one is enough");
        let taken = cache.take(now(), RequestId(2), MailId(2), CHUNK as u64, CHUNK);
        assert_eq!(taken, Taken::Now(expected(CHUNK, CHUNK).into()));
        assert_eq!(cache.order_ahead(now()).unwrap().id, MailId(3));
    }

    #[test]
    fn those_that_were_announced_first_are_read_first() {
        let mut cache = ReadAhead::new(Pool::default());
        for id in [7, 3, 5] {
            cache.announce(MailId(id), 0..CHUNK as u64);
        }
        assert_eq!(cache.order_ahead(now()).unwrap().id, MailId(7));
    }

    #[test]
    fn while_a_message_is_not_read_to_its_end_no_other_takes_its_memory() {
        let mut cache = ReadAhead::new(Pool::default());
        cache.announce(MailId(1), 0..1 << 30);
        cache.announce(MailId(2), 0..CHUNK as u64);
        cache.take(now(), RequestId(1), MailId(1), 0, CHUNK);
        let order = cache.order(now(), MailId(1)).unwrap();
        let chunks = vec![Bytes::from(expected(0, CHUNK))];
        cache.arrive(order, Some(Piece { chunks, rest: Rest::NotOrdered }));
        assert_eq!(cache.order_ahead(now()), None);
    }

    #[test]
    fn what_nobody_asks_for_any_more_is_not_kept_for_ever() {
        let begin = now();
        let pool = Pool::default();
        let mut cache = ReadAhead::new(pool.clone());
        let chunk = || vec![pool.take().into_bytes(CHUNK)];
        cache.announce(MailId(1), 0..CHUNK as u64);
        let ahead = cache.order_ahead(begin).unwrap();
        cache.arrive(ahead, Some(Piece { chunks: chunk(), rest: Rest::Nothing }));
        // Its connection is lost.
        cache.take(begin, RequestId(1), MailId(2), 0, 1);
        let order = cache.order(begin, MailId(2)).unwrap();
        cache.arrive(order, Some(Piece { chunks: chunk(), rest: Rest::Nothing }));
        // Others are asked for still, or waited for.
        cache.take(begin + STREAM_PATIENCE / 2, RequestId(2), MailId(3), 0, 1);
        let order = cache.order(begin + STREAM_PATIENCE / 2, MailId(3)).unwrap();
        cache.arrive(order, Some(Piece { chunks: chunk(), rest: Rest::Nothing }));
        cache.take(begin, RequestId(3), MailId(4), 0, 1);
        cache.order(begin + STREAM_PATIENCE, MailId(3));
        assert_eq!(cache.streams.keys().collect::<Vec<_>>(), [&MailId(3), &MailId(4)]);
        assert_eq!((cache.ahead, pool.taken_octets()), (None, CHUNK));
    }

    #[test]
    fn a_request_that_waits_is_answered_also_when_the_piece_cannot_be_had() {
        let mut cache = ReadAhead::new(Pool::default());
        assert_eq!(cache.take(now(), RequestId(1), MailId(1), 0, CHUNK), Taken::Later);
        let order = cache.order(now(), MailId(1)).unwrap();
        assert_eq!(cache.take(now(), RequestId(2), MailId(1), 0, CHUNK), Taken::Elsewhere);
        cache.forget_all(&[MailId(1)]);
        assert_eq!(cache.arrive(order, None), Some((RequestId(1), None)));
        assert_eq!(cache.streams.len(), 0);
    }

    #[test]
    fn a_message_that_is_gone_has_no_more_data() {
        let mut cache = ReadAhead::new(Pool::default());
        cache.take(now(), RequestId(1), MailId(1), 5, CHUNK);
        let order = cache.order(now(), MailId(1)).unwrap();
        let gone = Piece { chunks: Vec::new(), rest: Rest::Nothing };
        assert_eq!(cache.arrive(order, Some(gone)), Some((RequestId(1), Some(Bytes::new()))));
        cache.take(now(), RequestId(2), MailId(1), 5, CHUNK);
        assert!(cache.order(now(), MailId(1)).is_some(), "who asks again is not left without an answer");
    }

    #[test]
    fn what_has_been_read_of_a_piece_can_be_had_while_the_rest_is_read() {
        let mut cache = ReadAhead::new(Pool::default());
        cache.take(now(), RequestId(1), MailId(1), 0, CHUNK);
        let order = cache.order(now(), MailId(1)).unwrap();
        let mut whole = piece(order, usize::MAX);
        let rest = whole.chunks.split_off(2);
        let part = Piece { rest: Rest::Comes, ..whole };
        let answer = cache.arrive(order, Some(part)).unwrap();
        assert_eq!(answer, (RequestId(1), Some(expected(0, CHUNK).into())));
        assert_eq!(cache.order(now(), MailId(1)), None, "it is being read still");
        let second = cache.take(now(), RequestId(2), MailId(1), CHUNK as u64, CHUNK);
        assert_eq!(second, Taken::Now(expected(CHUNK, CHUNK).into()));
        cache.arrive(order, Some(Piece { chunks: rest, rest: Rest::NotOrdered }));
        let mut offset = 2 * CHUNK;
        while cache.take(now(), RequestId(3), MailId(1), offset as u64, CHUNK) != Taken::Later {
            offset += CHUNK;
        }
        assert_eq!(offset, order.octets);
        assert_eq!(cache.order(now(), MailId(1)).unwrap().offset, offset as u64);
    }

    #[test]
    fn a_part_of_a_piece_that_was_given_up_is_not_taken_for_another() {
        let mut cache = ReadAhead::new(Pool::default());
        cache.take(now(), RequestId(1), MailId(1), 0, CHUNK);
        let given_up = cache.order(now(), MailId(1)).unwrap();
        cache.forget(MailId(1));
        cache.take(now(), RequestId(2), MailId(1), 0, CHUNK);
        assert!(cache.order(now(), MailId(1)).is_some());
        assert_eq!(cache.arrive(given_up, Some(piece(given_up, usize::MAX))), None);
    }

    #[test]
    fn who_begins_anew_gets_nothing_of_what_was_kept() {
        let mut cache = ReadAhead::new(Pool::default());
        cache.take(now(), RequestId(1), MailId(1), 0, CHUNK);
        let order = cache.order(now(), MailId(1)).unwrap();
        cache.arrive(order, Some(piece(order, usize::MAX)));
        let ahead = cache.order(now(), MailId(1));
        cache.forget_all(&[MailId(1)]);
        assert_eq!(cache.take(now(), RequestId(2), MailId(1), 0, CHUNK), Taken::Later);
        if let Some(ahead) = ahead {
            assert_eq!(cache.arrive(ahead, Some(piece(ahead, usize::MAX))), None, "nobody waits for that");
        }
        assert!(cache.order(now(), MailId(1)).is_some());
    }
}
