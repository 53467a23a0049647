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
    pub(super) fn forget_all(&mut self, ids: impl IntoIterator<Item = MailId>) {
        // Hardly ever is a message so large that it is here.
        if self.streams.is_empty() && self.announced.is_empty() {
            return;
        }
        for id in ids {
            if self.streams.get(&id).is_none_or(|stream| stream.waiting.is_none()) {
                self.forget(id);
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
#[path = "read_ahead_tests.rs"]
mod tests;
