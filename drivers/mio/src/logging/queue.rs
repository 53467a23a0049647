//! The queue of lines for the thread that writes the log.

use std::collections::VecDeque;
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
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn lines_come_out_together_and_in_order() {
        let queue = Queue::default();
        queue.push(b"a\n");
        queue.push(b"b\n");
        queue.reopen();
        queue.reopen();
        queue.push(b"c\n");
        assert_eq!(queue.take(), Entry::Lines(b"a\nb\n".to_vec()));
        assert_eq!(queue.take(), Entry::Reopen);
        assert_eq!(queue.take(), Entry::Lines(b"c\n".to_vec()));
    }

    #[test]
    fn what_finds_no_room_is_counted_where_it_is_missing() {
        let queue = Queue::default();
        let line = vec![b'x'; QUEUE_LIMIT_OCTETS / 2];
        queue.push(&line);
        queue.push(&line);
        queue.push(b"lost\n");
        queue.push(b"lost too\n");
        // What the writer is at takes room until it is done.
        assert!(matches!(queue.take(), Entry::Lines(_)));
        queue.push(b"lost as well\n");
        assert!(matches!(queue.take(), Entry::Lines(_)));
        queue.push(b"found room\n");
        assert_eq!(queue.take(), Entry::Dropped(3));
        assert_eq!(queue.take(), Entry::Lines(b"found room\n".to_vec()));
        queue.push(&[b'x'; QUEUE_LIMIT_OCTETS + 1]);
        assert_eq!(queue.take(), Entry::Dropped(1));
    }

    #[test]
    fn the_end_waits_for_a_writer_that_gets_on_and_not_for_one_that_is_stuck() {
        let queue = Arc::new(Queue::default());
        assert!(queue.drain(Duration::ZERO), "nothing was to be done");
        queue.push(b"a\n");
        assert!(!queue.drain(Duration::ZERO), "nobody writes");
        // It writes the line and waits for more.
        let writer = Arc::clone(&queue);
        thread::spawn(move || {
            assert_eq!(writer.take(), Entry::Lines(b"a\n".to_vec()));
            assert_eq!(writer.take(), Entry::Reopen);
            thread::park();
        });
        assert!(queue.drain(Duration::from_secs(60)));
        queue.reopen();
        // It never comes back from that.
        assert!(!queue.drain(Duration::from_millis(1)));
        while !queue.is_stuck(Duration::from_millis(1)) {
            thread::yield_now();
        }
        assert!(!queue.is_stuck(Duration::from_secs(60)));
    }
}
