//! Virtual time: it jumps from one event to the next.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use cmail_delivery::time::{Duration, Instant, Now, UnixTime};

/// The wall clock at the beginning: 2026-01-01 00:00:00 UTC.
const EPOCH: i64 = 1_767_225_600;

/// The present, and the scheduled events.
#[derive(Debug)]
pub(crate) struct Clock<E> {
    now: Instant,
    /// The seconds by which the wall clock was set.
    wall_offset_s: i64,
    events: BinaryHeap<Entry<E>>,
    scheduled: u64,
}

#[derive(Debug)]
struct Entry<E> {
    at: Instant,
    /// Events of one instant happen in the order in which they were scheduled.
    number: u64,
    event: E,
}

impl<E> PartialEq for Entry<E> {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number
    }
}

impl<E> Eq for Entry<E> {}

impl<E> PartialOrd for Entry<E> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<E> Ord for Entry<E> {
    /// The heap has the greatest on top, which must be the earliest.
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at, other.number).cmp(&(self.at, self.number))
    }
}

impl<E> Clock<E> {
    /// The beginning of time.
    pub(crate) fn new() -> Self {
        Self { now: Instant::from_micros(0), wall_offset_s: 0, events: BinaryHeap::new(), scheduled: 0 }
    }

    /// Both clocks.
    pub(crate) fn now(&self) -> Now {
        let passed_s = i64::try_from(self.now.as_micros() / 1_000_000).unwrap_or(i64::MAX);
        let since_second = Duration::from_micros(self.now.as_micros() % 1_000_000);
        Now { monotonic: self.now, wall: UnixTime(EPOCH + passed_s + self.wall_offset_s), since_second }
    }

    /// The monotonic clock.
    pub(crate) fn instant(&self) -> Instant {
        self.now
    }

    /// Lets an event happen after a while.
    pub(crate) fn after(&mut self, span: Duration, event: E) {
        self.at(self.now + span, event);
    }

    /// Lets an event happen at a time.
    pub(crate) fn at(&mut self, at: Instant, event: E) {
        self.scheduled += 1;
        self.events.push(Entry { at: at.max(self.now), number: self.scheduled, event });
    }

    /// Returns when the next event happens.
    pub(crate) fn next_at(&self) -> Option<Instant> {
        self.events.peek().map(|entry| entry.at)
    }

    /// Goes on to the next event.
    pub(crate) fn pop(&mut self) -> Option<E> {
        let entry = self.events.pop()?;
        self.now = self.now.max(entry.at);
        Some(entry.event)
    }

    /// Goes on to an instant before which nothing happens.
    pub(crate) fn advance(&mut self, to: Instant) {
        self.now = self.now.max(to);
    }

    /// Sets the wall clock forward, or back.
    pub(crate) fn set_wall(&mut self, by_s: i64) {
        self.wall_offset_s += by_s;
    }
}

#[cfg(test)]
mod tests;
