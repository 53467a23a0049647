//! Waits for the locks of other processes, and can be cancelled.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rusqlite::Connection;

/// How long to wait for a lock of another process. Only the thread of the database waits, nothing else.
pub(super) const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// The longest pause between two attempts to get a lock, in milliseconds.
const LONGEST_PAUSE_MS: u64 = 32;

/// How many steps of its virtual machine SQLite takes between two looks at the token: less than a millisecond.
const STEPS_BETWEEN_LOOKS: i32 = 10_000;

/// Asks those who wait for locks to wait no longer, and ends what only spares time. All clones are the same one.
#[derive(Clone, Debug, Default)]
pub(super) struct CancelToken(Arc<AtomicBool>);

impl CancelToken {
    /// Cancels: from now on, waiting for a lock fails at once, and so does work that is run interruptibly.
    pub(super) fn cancel(&self) {
        self.0.store(true, Ordering::Release);
    }

    /// Returns whether the token is cancelled.
    pub(super) fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// Lets a connection wait for a lock, at most for `timeout`, and until the token is cancelled. The timeout
/// of SQLite itself cannot be cut short.
pub(super) fn wait_for_locks(
    connection: &mut Connection,
    timeout: Duration,
    cancel: CancelToken,
) -> rusqlite::Result<()> {
    let mut begin = Instant::now();
    connection.busy_handler(Some(move |attempt: i32| {
        if attempt == 0 {
            begin = Instant::now();
        }
        let waits = !cancel.is_cancelled() && begin.elapsed() < timeout;
        if waits {
            thread::sleep(pause(attempt));
        }
        waits
    }))
}

/// Runs `work`, and ends it with an error as soon as the token is cancelled.
pub(super) fn interruptibly<T>(
    connection: &mut Connection,
    cancel: &CancelToken,
    work: impl FnOnce(&Connection) -> rusqlite::Result<T>,
) -> rusqlite::Result<T> {
    allow_interruption(connection, cancel)?;
    let result = work(connection);
    forbid_interruption(connection)?;
    result
}

/// Makes statements end with an error as soon as the token is cancelled.
pub(super) fn allow_interruption(connection: &mut Connection, cancel: &CancelToken) -> rusqlite::Result<()> {
    let cancel = cancel.clone();
    connection.progress_handler(STEPS_BETWEEN_LOOKS, Some(move || cancel.is_cancelled()))
}

/// Makes statements ignore the token.
pub(super) fn forbid_interruption(connection: &mut Connection) -> rusqlite::Result<()> {
    connection.progress_handler(0, None::<fn() -> bool>)
}

/// Pauses double, so that a lock that is held for a moment costs a moment.
fn pause(attempt: i32) -> Duration {
    let doubled = u32::try_from(attempt).ok().and_then(|attempt| 1_u64.checked_shl(attempt));
    Duration::from_millis(doubled.map_or(LONGEST_PAUSE_MS, |pause_ms| pause_ms.min(LONGEST_PAUSE_MS)))
}

#[cfg(test)]
mod tests;
