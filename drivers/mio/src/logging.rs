//! The log: one line per message, on standard error, appended to a file, or in the journal of systemd.
//!
//! A separate thread writes it, so that neither a hanging disk nor an unread standard error holds up the daemon. Lines that
//! find no room meanwhile, or cannot be written, are lost; a later line counts them. Before the thread starts, lines are
//! written at once, and so are those of a panic. No environment variable changes what is logged: only the directive
//! `verbosity` does.

pub(crate) mod event;
mod file;
mod format;
pub(crate) mod journal;
mod line;
mod place;
mod queue;
mod sink;

use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::AsFd as _;
use std::panic::PanicHookInfo;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::thread;
use std::time::Duration;

use cmail_delivery::one_line::OneLine;
use env_logger::{Builder, Logger, Target};
use log::{Level, LevelFilter, Metadata, Record, SetLoggerError};
use thiserror::Error;

pub use self::file::Owner;
use self::file::{LogFile, is_torn};
use self::format::FormatCell;
pub use self::format::LogFormat;
pub use self::place::PlaceError;
use self::queue::{Entry, Queue};
use self::sink::{Sink, dropped, write_within};

/// How long a line that is written at once waits for a reader, and how long the program waits for the thread at its end.
const PATIENCE: Duration = Duration::from_secs(1);

/// The verbosity that logs lines of any length.
const WHOLE_LINES_VERBOSITY: u8 = 4;

/// Why the log cannot be used.
#[derive(Debug, Error)]
pub enum LogError {
    /// The log file cannot be opened.
    #[error("the log file {path} cannot be opened: {source}", path = .path.display())]
    Open {
        /// Its path.
        path: PathBuf,
        /// Why.
        source: PlaceError,
    },
    /// Standard error cannot be used.
    #[error("standard error cannot be used for the log: {0}")]
    StandardError(io::Error),
    /// The thread that writes the log cannot be started.
    #[error("the thread that writes the log cannot be started: {0}")]
    Thread(io::Error),
    /// There is a log already.
    #[error("the log is already set up: {0}")]
    Twice(#[from] SetLoggerError),
}

/// The log of this process.
#[derive(Clone, Debug)]
pub struct Log {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// `None` on standard error.
    file: Option<LogFile>,
    /// The open file. The lock is held only to copy or replace it.
    open: Mutex<Arc<File>>,
    /// Where lines are written at once, before the thread starts.
    sink: Mutex<Option<Sink>>,
    queue: Queue,
    /// Lines that could not be written.
    unwritten: Arc<AtomicU64>,
    format: Arc<FormatCell>,
    /// Decides what is logged, and in what format.
    logger: RwLock<Option<Logger>>,
}

impl log::Log for Log {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        let logger = self.shared.logger.read().unwrap_or_else(PoisonError::into_inner);
        logger.as_ref().is_some_and(|logger| logger.enabled(metadata))
    }

    fn log(&self, record: &Record<'_>) {
        if let Some(logger) = &*self.shared.logger.read().unwrap_or_else(PoisonError::into_inner) {
            logger.log(record);
        }
    }

    fn flush(&self) {}
}

impl Log {
    /// Opens the log file, if `path` names one, or else standard error, and logs there from now on. Files that root creates
    /// are given to `owner`.
    pub fn install(
        path: Option<&Path>,
        verbosity: u8,
        format: LogFormat,
        owner: Option<Owner>,
    ) -> Result<Self, LogError> {
        let log = Self::open(path, owner)?;
        log::set_boxed_logger(Box::new(log.clone()))?;
        log.configure(verbosity, format);
        Ok(log)
    }

    /// Logs as much as this verbosity wants, in this format, from now on.
    pub fn configure(&self, verbosity: u8, format: LogFormat) {
        self.shared.format.set(format);
        let logger = self.builder(verbosity).build();
        log::set_max_level(logger.filter());
        *self.shared.logger.write().unwrap_or_else(PoisonError::into_inner) = Some(logger);
    }

    pub(crate) fn open(path: Option<&Path>, owner: Option<Owner>) -> Result<Self, LogError> {
        let file = path.map(|path| LogFile::new(path, owner));
        let open = match &file {
            Some(file) => file.open()?,
            // A separate descriptor: a blocked write would hold the lock of `io::stderr`.
            None => io::stderr().as_fd().try_clone_to_owned().map_err(LogError::StandardError)?.into(),
        };
        let open = Arc::new(open);
        let sink = Sink::new(Arc::clone(&open), file.is_some() && is_torn(&open), Some(PATIENCE));
        let (unwritten, format) = (sink.lost_count(), sink.format());
        let (open, sink) = (Mutex::new(open), Mutex::new(Some(sink)));
        let (queue, logger) = (Queue::default(), RwLock::default());
        Ok(Self { shared: Arc::new(Shared { file, open, sink, queue, unwritten, format, logger }) })
    }

    /// Returns a log on standard error that nothing is written to: another logger is set up.
    pub(crate) fn of_standard_error() -> Result<Self, LogError> {
        Self::open(None, None)
    }

    /// Checks that a log file could be opened. Changes nothing.
    pub fn check(path: &Path) -> Result<(), LogError> {
        LogFile::new(path, None).check()
    }

    /// Configures which records are logged, and in what format.
    fn builder(&self, verbosity: u8) -> Builder {
        let (own, foreign) = match verbosity {
            0 => (LevelFilter::Warn, LevelFilter::Error),
            1 | 2 => (LevelFilter::Info, LevelFilter::Warn),
            3 => (LevelFilter::Debug, LevelFilter::Warn),
            _ => (LevelFilter::Trace, LevelFilter::Debug),
        };
        let is_whole = verbosity >= WHOLE_LINES_VERBOSITY;
        let mut builder = Builder::new();
        builder
            .filter_level(foreign)
            .filter_module("cmail_delivery", own)
            .filter_module("cmail_dispatchd", own);
        let format = self.shared.format.get();
        builder.format(move |buffer, record| buffer.write_all(format.line(record, is_whole).as_bytes()));
        builder.target(Target::Pipe(Box::new(Writer(Arc::clone(&self.shared)))));
        builder
    }

    /// Starts the thread that writes the log from now on. To be called after the fork, which threads do not survive, and
    /// after the change of the user, which a thread that waits for a disk would hold up.
    pub fn start_thread(&self) -> Result<(), LogError> {
        let Some(mut sink) = lock(&self.shared.sink).take() else { return Ok(()) };
        sink.wait_for_readers();
        let shared = Arc::clone(&self.shared);
        let thread = thread::Builder::new().name("log".to_owned());
        thread.spawn(move || shared.write_for_ever(sink)).map_err(LogError::Thread)?;
        Ok(())
    }

    /// Returns how many lines were lost since the start.
    pub fn lost_lines(&self) -> u64 {
        self.shared.queue.lost().saturating_add(self.shared.unwritten.load(Ordering::Relaxed))
    }

    /// Returns whether the log is a file, not standard error.
    pub fn is_file(&self) -> bool {
        self.shared.file.is_some()
    }

    /// Reopens the log file, which may have been moved away, after everything that was logged before is written. If it
    /// cannot be opened, a line of the log says so, and the log goes on in the old file.
    pub fn reopen(&self) {
        match &mut *lock(&self.shared.sink) {
            Some(sink) => self.shared.reopen(sink),
            None => self.shared.queue.reopen(),
        }
    }

    /// Waits until everything is written, but at most a second.
    pub fn finish(&self) {
        self.shared.queue.drain(PATIENCE);
    }

    /// Reports panics of any thread in one line, in the log and on standard error.
    pub fn report_panics(&self) {
        let shared = Arc::clone(&self.shared);
        std::panic::set_hook(Box::new(move |info| shared.tell_panic(info)));
    }
}

impl Shared {
    /// Runs the thread that writes.
    fn write_for_ever(&self, mut sink: Sink) {
        loop {
            match self.queue.take() {
                Entry::Lines(lines) => sink.write(&lines),
                Entry::Dropped(count) => {
                    sink.write(
                        dropped(self.format.get(), count, "the log could not be written in time").as_bytes(),
                    );
                }
                Entry::Reopen => self.reopen(&mut sink),
            }
        }
    }

    fn reopen(&self, sink: &mut Sink) {
        let Some(file) = &self.file else { return };
        match file.open() {
            Ok(file) => {
                let file = Arc::new(file);
                sink.replace(Arc::clone(&file), is_torn(&file));
                *lock(&self.open) = file;
            }
            Err(error) => {
                let text = format!("{error}; the log goes on in the old file");
                sink.write(self.format.get().own_line(Level::Warn, &text).as_bytes());
            }
        }
    }

    /// Writes at once, and waits for no lock, because the panic may have happened while one was held.
    fn tell_panic(&self, info: &PanicHookInfo<'_>) {
        let payload = info.payload();
        let message = payload.downcast_ref::<&str>().copied();
        let message =
            message.or_else(|| payload.downcast_ref::<String>().map(String::as_str)).unwrap_or("panic");
        let thread = thread::current();
        let thread = thread.name().unwrap_or("without a name");
        let place = info.location().map(ToString::to_string).unwrap_or_default();
        let text = format!("the thread {thread} panicked at {place}: {message}");
        say(&text);
        let open = self.open.try_lock().map(|open| Arc::clone(&open));
        if let Ok(open) = open
            && self.file.is_some()
            && self.format.get() != LogFormat::Journal
            && !self.queue.is_stuck(PATIENCE)
        {
            let line = self.format.get().own_line(Level::Error, &text);
            let _ = write_within(&open, line.as_bytes(), Some(PATIENCE));
        }
    }
}

/// Prints a line on standard error, with the name of the program. Gives up if it is not read for a second.
pub fn say(text: &str) {
    say_as("cmail-dispatchd", text);
}

/// Prints a line on standard error, with the name of a program. Gives up if it is not read for a second.
pub(crate) fn say_as(program: &str, text: &str) {
    let line = format!("{program}: {}\n", OneLine(text));
    if let Ok(stderr) = io::stderr().as_fd().try_clone_to_owned() {
        let _ = write_within(&stderr.into(), line.as_bytes(), Some(PATIENCE));
    }
}

/// The writer of the logger, which writes one whole line at a time.
struct Writer(Arc<Shared>);

impl io::Write for Writer {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        match &mut *lock(&self.0.sink) {
            Some(sink) => sink.write(line),
            None => self.0.queue.push(line),
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
