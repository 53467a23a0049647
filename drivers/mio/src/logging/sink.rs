//! Writes the lines of the log to a file or standard error, and counts those that cannot be written.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use log::Level;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::format::{FormatCell, LogFormat};
use super::journal::{self, Journal};

/// The most that a pipe takes at once if it has any room (`PIPE_BUF`).
const PIECE_OCTETS: usize = 4096;

/// What a line for the journal begins with.
const MARK: u8 = journal::MARK as u8;

/// A file that lines are appended to, or the journal.
#[derive(Debug)]
pub(super) struct Sink {
    file: Arc<File>,
    /// How long to wait for a reader; `None` for as long as it takes.
    patience: Option<Duration>,
    /// Whether the last text that was written has no line end.
    is_torn: bool,
    lost: Option<Lost>,
    /// Lines that could not be written since the start.
    lost_count: Arc<AtomicU64>,
    /// The format of what is said of lost lines.
    format: Arc<FormatCell>,
    journal: Journal,
}

/// Lines that could not be written since the last successful write.
#[derive(Debug)]
struct Lost {
    lines: usize,
    /// The error of the last one.
    error: io::Error,
}

impl Sink {
    /// Appends to a file, waiting for a reader at most `patience`. `is_torn` says that it ends in the middle of a line.
    pub(super) fn new(file: Arc<File>, is_torn: bool, patience: Option<Duration>) -> Self {
        let (lost_count, format) = (Arc::default(), Arc::default());
        Self { file, patience, is_torn, lost: None, lost_count, format, journal: Journal::default() }
    }

    /// Returns the count of lines that could not be written, which goes on counting.
    pub(super) fn lost_count(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.lost_count)
    }

    /// Returns the format of what it says itself, to be set.
    pub(super) fn format(&self) -> Arc<FormatCell> {
        Arc::clone(&self.format)
    }

    /// Waits for readers as long as it takes from now on.
    pub(super) fn wait_for_readers(&mut self) {
        self.patience = None;
    }

    /// Goes on with another file, which ends in the middle of a line if it `is_torn`.
    pub(super) fn replace(&mut self, file: Arc<File>, is_torn: bool) {
        self.file = file;
        self.is_torn = is_torn;
    }

    /// Writes whole lines, to the file or to the journal. Lines that cannot be written are counted, and reported before the next one that
    /// can.
    pub(super) fn write(&mut self, lines: &[u8]) {
        if !lines.contains(&MARK) {
            return self.write_to_file(lines);
        }
        for line in lines.split_inclusive(|octet| *octet == b'\n') {
            if line.first() == Some(&MARK) { self.send(line) } else { self.write_to_file(line) }
        }
    }

    fn send(&mut self, line: &[u8]) {
        if let Some(Lost { lines, error }) = &self.lost {
            let note = could_not_be_written(LogFormat::Journal, *lines, error);
            if let Err(error) = self.journal.send(note.as_bytes()) {
                return self.lose(line, error);
            }
            self.lost = None;
        }
        if let Err(error) = self.journal.send(line) {
            self.lose(line, error);
        }
    }

    fn write_to_file(&mut self, lines: &[u8]) {
        if self.is_torn
            && let Err((_, error)) = self.put(b"\n")
        {
            return self.lose(lines, error);
        }
        if let Some(Lost { lines: count, error }) = &self.lost {
            let note = could_not_be_written(self.format.get(), *count, error);
            if let Err((_, error)) = self.put(note.as_bytes()) {
                return self.lose(lines, error);
            }
            self.lost = None;
        }
        if let Err((written, error)) = self.put(lines) {
            self.lose(lines.get(written..).unwrap_or_default(), error);
        }
    }

    fn lose(&mut self, lines: &[u8], error: io::Error) {
        let earlier = self.lost.take().map_or(0, |lost| lost.lines);
        let count = lines.iter().filter(|&&octet| octet == b'\n').count();
        self.lost_count.fetch_add(u64::try_from(count).unwrap_or(u64::MAX), Ordering::Relaxed);
        self.lost = Some(Lost { lines: earlier.saturating_add(count), error });
    }

    /// Writes octets, or as many as there is room for.
    fn put(&mut self, octets: &[u8]) -> Result<(), (usize, io::Error)> {
        let (written, result) = write_within(&self.file, octets, self.patience);
        if let Some(&last) = octets.get(..written).and_then(<[u8]>::last) {
            self.is_torn = last != b'\n';
        }
        result.map_err(|error| (written, error))
    }
}

fn could_not_be_written(format: LogFormat, count: usize, error: &io::Error) -> String {
    dropped(format, count, &format!("the log could not be written: {error}"))
}

/// Returns the line that reports dropped lines.
pub(super) fn dropped(format: LogFormat, count: usize, why: &str) -> String {
    let (lines, were) = if count == 1 { ("line", "was") } else { ("lines", "were") };
    format.own_line(Level::Warn, &format!("{count} log {lines} {were} dropped because {why}"))
}

/// Writes octets, and returns how many were written. Waits for a full pipe at most `patience`.
pub(super) fn write_within(
    file: &File,
    octets: &[u8],
    patience: Option<Duration>,
) -> (usize, io::Result<()>) {
    let end = patience.map(|patience| Instant::now() + patience);
    let mut file = file;
    let mut rest = octets;
    while !rest.is_empty() {
        let piece = match end {
            None => rest,
            Some(end) => match wait_for_room(file, Some(end)) {
                Ok(()) => rest.get(..PIECE_OCTETS).unwrap_or(rest),
                Err(error) => return (octets.len() - rest.len(), Err(error)),
            },
        };
        let result = match file.write(piece) {
            Ok(0) => Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => {
                rest = rest.get(count..).unwrap_or_default();
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
            // Another process has made the shared standard error non-blocking.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => wait_for_room(file, end),
            Err(error) => Err(error),
        };
        if let Err(error) = result {
            return (octets.len() - rest.len(), Err(error));
        }
    }
    (octets.len(), Ok(()))
}

/// Waits until at least a piece can be written, or until nothing ever can.
fn wait_for_room(file: &File, end: Option<Instant>) -> io::Result<()> {
    loop {
        let timeout = end.map_or(PollTimeout::NONE, |end| {
            let left = end.saturating_duration_since(Instant::now());
            PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)
        });
        match poll(&mut [PollFd::new(file.as_fd(), PollFlags::POLLOUT)], timeout) {
            Ok(0) => return Err(io::Error::new(io::ErrorKind::TimedOut, "its reader does not read")),
            Ok(_) => return Ok(()),
            Err(nix::errno::Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

#[cfg(test)]
mod tests;
