//! Mail data that is read before it is requested.
//!
//! To reach an octet of a large value, SQLite follows the value's pages from its beginning each time that the value is
//! opened. The value cannot stay open, because that would hold a read transaction for as long as the server takes. So the rest
//! of a message is read at once, as far as memory allows, while its beginning is being sent. While there is nothing else to
//! read, the thread reads a message that was claimed but not begun.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::time::{Duration, Instant};

use bytes::Bytes;
use cmail_delivery::outbox::{DATA_CHUNK_OCTETS, MailId, RequestId};

use super::pool::Pool;

/// The memory for all messages together, however large and many they are.
const MEMORY_LIMIT_OCTETS: usize = 24 * 1024 * 1024;

/// Additional memory for messages that a request waits for: each gets a share of it, or a single chunk when it is used up too.
const RESERVE_OCTETS: usize = MEMORY_LIMIT_OCTETS / 3;

/// The least that is read at once of a message whose length is not known.
const READ_MIN_OCTETS: usize = 2 * 1024 * 1024;

/// How much is read at once of a message whose length is not known, as a multiple of the octets skipped before it: then all
/// skipping together is a small part of the message.
const SKIPPED_FACTOR: usize = 8;

/// Most messages that are remembered of which only the beginning was read.
const ANNOUNCED_LIMIT: usize = 1024;

/// While this many messages are being read, the thread has enough to do, and reads no message that is not begun.
const STREAMS_ENOUGH: usize = 4;

/// Data that was not requested for this long is dropped: its server is so slow that reading it again does not matter, and others
/// need the memory.
const STREAM_PATIENCE: Duration = Duration::from_secs(30);

/// How often to look for such data.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

/// A range of mail data for the thread to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ReadJob {
    /// The mail.
    pub(super) id: MailId,
    /// Where the range begins.
    pub(super) offset: u64,
    /// Its length, in whole chunks.
    pub(super) octets: usize,
    /// How much of it to read even if memory is used up; 0 if no request waits for it.
    pub(super) least_octets: usize,
    /// Tells the job from one that was given up.
    pub(super) number: u64,
}

/// Data that was read for a job: all of it, or a part.
#[derive(Debug)]
pub(super) struct ReadOutput {
    /// Each has [`DATA_CHUNK_OCTETS`] except the last one of a message; empty if the mail is gone, or ends before.
    pub(super) chunks: Vec<Bytes>,
    /// What follows them.
    pub(super) follows: Follows,
}

/// What follows some chunks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Follows {
    /// More chunks of the same job.
    MoreChunks,
    /// Data that no job covers yet.
    NotRequested,
    /// Nothing: the message ends.
    EndOfData,
}

/// The answer to a request for data.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Availability {
    /// The data is here.
    Ready(Bytes),
    /// The data comes with a job.
    Pending,
    /// Another request waits for the data of this mail: read it directly.
    ReadDirectly,
}

/// The messages that are being read, each from its next octet on.
#[derive(Debug)]
pub(super) struct ReadAhead {
    streams: BTreeMap<MailId, Stream>,
    announced: BTreeMap<MailId, Announcement>,
    /// The stream that was not requested yet.
    ahead: Option<MailId>,
    /// The source of memory.
    pool: Pool,
    last_number: u64,
    next_sweep: Instant,
}

/// A message of which only the beginning was read. It may have changed since, or may never be requested.
#[derive(Clone, Debug)]
struct Announcement {
    missing: Range<u64>,
    /// The order of announcements.
    number: u64,
}

#[derive(Debug)]
struct Stream {
    /// When its data was requested last, or when reading ahead began.
    asked_at: Instant,
    /// Where the first chunk begins, or will begin.
    offset: u64,
    chunks: VecDeque<Bytes>,
    kept_octets: usize,
    /// Whether the message ends with the last chunk.
    is_complete: bool,
    job: Option<ReadJob>,
    /// The request that waits for the job, and its limit.
    waiting: Option<(RequestId, usize)>,
    /// Whether the mail is given up, and nothing is wanted of it once the request is answered.
    is_released: bool,
}

impl ReadAhead {
    /// Creates an empty store of read data, whose memory comes from the pool.
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

    /// Notes a message of which only the data before `missing` was read. Messages are usually sent in the order of their
    /// announcements.
    pub(super) fn announce(&mut self, id: MailId, missing: Range<u64>) {
        let number = self.next_number();
        self.announced.insert(id, Announcement { missing, number });
        if self.announced.len() > ANNOUNCED_LIMIT
            && let Some(id) = self.first_announced(|_| true)
        {
            self.announced.remove(&id);
        }
    }

    /// Takes the data for a request. Afterwards there may be a [`next_job`](Self::next_job).
    pub(super) fn take(
        &mut self,
        now: Instant,
        request: RequestId,
        id: MailId,
        offset: u64,
        limit: usize,
    ) -> Availability {
        let stream = self.streams.entry(id).or_insert_with(|| Stream::new(now, offset));
        if stream.waiting.is_some() {
            return Availability::ReadDirectly;
        }
        self.ahead.take_if(|ahead| *ahead == id);
        stream.asked_at = now;
        if stream.offset != offset {
            *stream = Stream::new(now, offset);
        }
        match self.next(id, limit) {
            Some(octets) => Availability::Ready(octets),
            None => {
                if let Some(stream) = self.streams.get_mut(&id) {
                    stream.waiting = Some((request, limit));
                }
                Availability::Pending
            }
        }
    }

    /// Returns what to read next of a message: data that a request waits for, or more data if little is left and memory allows.
    pub(super) fn next_job(&mut self, now: Instant, id: MailId) -> Option<ReadJob> {
        self.sweep(now);
        let share = MEMORY_LIMIT_OCTETS / self.streams.len().max(1);
        let room = self.room();
        let stream = self.streams.get(&id)?;
        if stream.is_complete || stream.job.is_some() {
            return None;
        }
        let begin = stream.offset.saturating_add(stream.kept_octets as u64);
        let missing = self.announced.get(&id).map_or(0, |known| known.missing.end.saturating_sub(begin));
        let octets = match usize::try_from(missing) {
            Ok(missing @ 1..) => missing,
            _ => {
                let skipped = usize::try_from(begin).unwrap_or(usize::MAX);
                skipped.saturating_mul(SKIPPED_FACTOR).max(READ_MIN_OCTETS).min(share * 2)
            }
        };
        // A short read is not worth skipping to its beginning.
        let is_worthwhile = stream.kept_octets <= share / 4 && room >= octets.min(share / 4 * 3);
        if stream.waiting.is_none() && !is_worthwhile {
            return None;
        }
        self.make_job(id, begin, octets, RESERVE_OCTETS / self.streams.len().max(1))
    }

    /// Returns what to read while there is nothing else to read: the next message that was claimed and is not begun.
    pub(super) fn next_job_ahead(&mut self, now: Instant) -> Option<ReadJob> {
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
        self.make_job(id, start, octets, 0)
    }

    fn make_job(&mut self, id: MailId, offset: u64, octets: usize, least_octets: usize) -> Option<ReadJob> {
        let number = self.next_number();
        let stream = self.streams.get_mut(&id)?;
        let octets = octets.div_ceil(DATA_CHUNK_OCTETS).max(1).saturating_mul(DATA_CHUNK_OCTETS);
        let job = ReadJob { id, offset, octets, least_octets, number };
        stream.job = Some(job);
        Some(job)
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

    /// Drops data that is not requested for long.
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

    /// Takes in the data of a job, or a part of it; `None` if it cannot be read. Returns the request that waited for it, if there
    /// is one, and its data, or `None` if it cannot be read.
    pub(super) fn arrive(
        &mut self,
        job: ReadJob,
        output: Option<ReadOutput>,
    ) -> Option<(RequestId, Option<Bytes>)> {
        let stream = self.streams.get_mut(&job.id).filter(|stream| stream.job == Some(job))?;
        let waiting = stream.waiting.take();
        let Some(output) = output else {
            self.forget(job.id);
            return waiting.map(|(request, _)| (request, None));
        };
        let is_empty = output.chunks.is_empty();
        for chunk in output.chunks {
            stream.kept_octets += chunk.len();
            stream.chunks.push_back(chunk);
        }
        if output.follows != Follows::MoreChunks {
            stream.job = None;
            stream.is_complete = output.follows == Follows::EndOfData || is_empty;
        }
        let is_released = stream.is_released;
        if stream.is_complete && stream.chunks.is_empty() {
            self.forget(job.id);
        }
        let (request, limit) = waiting?;
        let octets = self.next(job.id, limit).unwrap_or_default();
        if is_released {
            // What was announced since belongs to a later claim.
            self.streams.remove(&job.id);
        }
        Some((request, Some(octets)))
    }

    /// Drops the data of a mail that is no longer needed.
    pub(super) fn forget(&mut self, id: MailId) {
        self.announced.remove(&id);
        self.streams.remove(&id);
        self.ahead.take_if(|ahead| *ahead == id);
    }

    /// Drops the data of mail that is given up; where a request waits for it, once that is answered.
    pub(super) fn release(&mut self, ids: &[MailId]) {
        self.forget_all(ids.iter().copied());
        for id in ids {
            self.announced.remove(id);
            if let Some(stream) = self.streams.get_mut(id) {
                stream.is_released = true;
            }
        }
    }

    /// Drops the data of mail that begins again, or has ended, unless a request waits for it.
    pub(super) fn forget_all(&mut self, ids: impl IntoIterator<Item = MailId>) {
        // Messages are rarely so large that they are here.
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
            job: None,
            waiting: None,
            is_released: false,
        }
    }
}

/// Returns whether there is memory for a further chunk of a job; `is_least` says that the job has not read its least yet.
pub(super) fn has_room(pool: &Pool, is_least: bool) -> bool {
    let limit = if is_least { MEMORY_LIMIT_OCTETS + RESERVE_OCTETS } else { MEMORY_LIMIT_OCTETS };
    pool.taken_octets() < limit
}

#[cfg(test)]
mod tests;
