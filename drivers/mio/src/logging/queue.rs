//! The queue of lines for the thread that writes the log.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// Most octets of text that wait to be written. At the highest verbosity a busy daemon fills it in a second, at others in a
/// long time. It is small compared with the memory that the daemon needs anyway.
pub(super) const QUEUE_LIMIT_OCTETS: usize = 8 << 20;

/// Text is written in pieces of about this size, if enough is waiting.
const PIECE_OCTETS: usize = 64 * 1024;

/// How long lines are gathered before they are written: long enough that a busy daemon wakes the writer once for hundreds
/// of lines, and too short to be noticed when watching the log.
const GATHERING: Duration = Duration::from_millis(5);

/// A task for the writer.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Entry {
    /// Write these lines.
    Lines(Vec<u8>),
    /// Report that this many lines found no room.
    Dropped(usize),
    /// Reopen the file.
    Reopen,
}

/// The queue between the threads that log and the one that writes. The lock is never held during a wait.
#[derive(Debug, Default)]
pub(super) struct Queue {
    state: Mutex<State>,
    /// Signals that the writer has something to do, or has done everything.
    changed: Condvar,
    /// Lines that found no room since the start.
    lost: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    entries: VecDeque<Entry>,
    /// Octets of text, including those that the writer is writing.
    octets: usize,
    /// The octets that the writer is writing.
    octets_in_hand: usize,
    /// Since when the writer has been working on its last entry; `None` while it waits.
    busy_since: Option<Instant>,
}

impl Queue {
    /// Adds a whole line, or counts it if there is no room.
    pub(super) fn push(&self, line: &[u8]) {
        let mut state = self.lock();
        if state.octets.saturating_add(line.len()) > QUEUE_LIMIT_OCTETS {
            self.lost.fetch_add(1, Ordering::Relaxed);
            match state.entries.back_mut() {
                Some(Entry::Dropped(count)) => *count = count.saturating_add(1),
                Some(Entry::Lines(_) | Entry::Reopen) | None => state.entries.push_back(Entry::Dropped(1)),
            }
            return self.wake(&state);
        }
        state.octets += line.len();
        match state.entries.back_mut() {
            Some(Entry::Lines(lines)) if lines.len() < PIECE_OCTETS => lines.extend_from_slice(line),
            Some(_) | None => state.entries.push_back(Entry::Lines(line.to_vec())),
        }
        self.wake(&state);
    }

    /// Returns how many lines found no room since the start.
    pub(super) fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    /// Has the file reopened, after what was logged before is written.
    pub(super) fn reopen(&self) {
        let mut state = self.lock();
        if state.entries.back() != Some(&Entry::Reopen) {
            state.entries.push_back(Entry::Reopen);
        }
        self.wake(&state);
    }

    /// Wakes the writer if it waits. Waking costs a system call, which is too much for each line.
    fn wake(&self, state: &State) {
        if state.busy_since.is_none() {
            self.changed.notify_all();
        }
    }

    /// Takes the next entry, for the writer, whose last one is done then. Waits for an entry, and gathers more lines.
    pub(super) fn take(&self) -> Entry {
        let mut state = self.lock();
        state.octets -= std::mem::take(&mut state.octets_in_hand);
        while state.entries.is_empty() {
            state.busy_since = None;
            self.changed.notify_all();
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        if state.octets < PIECE_OCTETS {
            // It counts as busy, so that no line wakes it.
            state.busy_since = Some(Instant::now());
            drop(state);
            thread::sleep(GATHERING);
            state = self.lock();
        }
        state.busy_since = Some(Instant::now());
        let entry = state.entries.pop_front().unwrap_or(Entry::Lines(Vec::new()));
        if let Entry::Lines(lines) = &entry {
            state.octets_in_hand = lines.len();
        }
        entry
    }

    /// Waits until everything is done, but at most `limit`, and not for a writer that has worked on one entry for `limit`.
    /// Returns whether everything is done.
    pub(super) fn drain(&self, limit: Duration) -> bool {
        let end = Instant::now() + limit;
        let mut state = self.lock();
        while !state.entries.is_empty() || state.busy_since.is_some() {
            let end = state.busy_since.map_or(end, |since| end.min(since + limit));
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }

    /// Returns whether the writer has worked on one entry for `limit`; false if the lock is not free.
    pub(super) fn is_stuck(&self, limit: Duration) -> bool {
        let state = self.state.try_lock();
        state.is_ok_and(|state| state.busy_since.is_some_and(|since| since.elapsed() >= limit))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
