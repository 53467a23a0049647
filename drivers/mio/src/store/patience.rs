//! How long the locks of other processes are waited for.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rusqlite::Connection;

/// How long a lock of another process is waited for. Nobody waits for the thread that does meanwhile.
pub(super) const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// The longest pause between two attempts to get a lock, in milliseconds.
const LONGEST_PAUSE_MS: u64 = 32;

/// How many steps of its virtual machine SQLite takes between two looks at whether to hurry: less than a millisecond.
const STEPS_BETWEEN_LOOKS: i32 = 10_000;

/// Asks those who wait for locks to wait no longer, and ends what only spares time. All clones are the same one.
#[derive(Clone, Debug, Default)]
pub(super) struct Hurry(Arc<AtomicBool>);

impl Hurry {
    /// From now on nobody waits: what is locked fails at once, and so does what is run interruptibly.
    pub(super) fn ask(&self) {
        self.0.store(true, Ordering::Release);
    }

    /// Whether nobody is to wait any more.
    pub(super) fn is_asked(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// Lets a connection wait for a lock, for `timeout` at most, and only as long as nobody asks it to hurry. The timeout
/// of SQLite itself cannot be cut short.
pub(super) fn wait_for_locks(
    connection: &mut Connection,
    timeout: Duration,
    hurry: Hurry,
) -> rusqlite::Result<()> {
    let mut begin = Instant::now();
    connection.busy_handler(Some(move |attempt: i32| {
        if attempt == 0 {
            begin = Instant::now();
        }
        let waits = !hurry.is_asked() && begin.elapsed() < timeout;
        if waits {
            thread::sleep(pause(attempt));
        }
        waits
    }))
}

/// Runs `work`, and ends it with an error as soon as somebody asks to hurry.
pub(super) fn interruptibly<T>(
    connection: &mut Connection,
    hurry: &Hurry,
    work: impl FnOnce(&Connection) -> rusqlite::Result<T>,
) -> rusqlite::Result<T> {
    allow_interruption(connection, hurry)?;
    let result = work(connection);
    forbid_interruption(connection)?;
    result
}

/// From now on, statements end with an error as soon as somebody asks to hurry.
pub(super) fn allow_interruption(connection: &mut Connection, hurry: &Hurry) -> rusqlite::Result<()> {
    let hurry = hurry.clone();
    connection.progress_handler(STEPS_BETWEEN_LOOKS, Some(move || hurry.is_asked()))
}

/// From now on, statements are done whoever is in a hurry.
pub(super) fn forbid_interruption(connection: &mut Connection) -> rusqlite::Result<()> {
    connection.progress_handler(0, None::<fn() -> bool>)
}

/// Pauses double, so that a lock that is held for a moment costs a moment.
fn pause(attempt: i32) -> Duration {
    let doubled = u32::try_from(attempt).ok().and_then(|attempt| 1_u64.checked_shl(attempt));
    Duration::from_millis(doubled.map_or(LONGEST_PAUSE_MS, |pause_ms| pause_ms.min(LONGEST_PAUSE_MS)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_up_to_the_longest() {
        let pauses = [0, 1, 2, 5, 6, 63, 64, i32::MAX, -1].map(|attempt| pause(attempt).as_millis());
        assert_eq!(pauses, [1, 2, 4, 32, 32, 32, 32, 32, 32]);
    }
}
