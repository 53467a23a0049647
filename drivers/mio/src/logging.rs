//! The log: one line per message, on standard error or appended to a file.
//!
//! What cannot be written, because the disk is full or the reader of a pipe is slow, is lost and counted; it never
//! stops the daemon. No environment variable changes what is logged: that is up to the directive `verbosity`.

use std::fmt::{self, Write as _};
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use env_logger::{Builder, Target};
use log::{LevelFilter, SetLoggerError};
use nix::fcntl::OFlag;
use thiserror::Error;

/// The permissions of a new log file: what mail goes where is not for everybody.
const FILE_MODE: u32 = 0o640;

/// Why there is no log.
#[derive(Debug, Error)]
pub enum LogError {
    /// The log file cannot be opened.
    #[error("the log file {path:?} cannot be opened: {source}")]
    Open {
        /// Its path.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// There is a log already.
    #[error("the log is already set up: {0}")]
    Twice(#[from] SetLoggerError),
}

/// The log of this process, to be reopened.
#[derive(Clone, Debug)]
pub struct Log {
    /// Nothing on standard error.
    file: Option<(PathBuf, Arc<Mutex<Sink>>)>,
}

impl Log {
    /// Opens the log file, if there is one, and sends what is logged there from now on.
    pub fn install(path: Option<&Path>, verbosity: u8) -> Result<Self, LogError> {
        let file = path.map(open).transpose()?.map(|file| Arc::new(Mutex::new(Sink { file, lost_lines: 0 })));
        let mut builder = Builder::new();
        configure(&mut builder, verbosity);
        match &file {
            Some(sink) => builder.target(Target::Pipe(Box::new(SharedSink(Arc::clone(sink))))),
            None => builder.target(Target::Stderr),
        };
        builder.try_init()?;
        Ok(Self { file: path.map(Path::to_owned).zip(file) })
    }

    /// Whether the log is a file, and not standard error.
    pub fn is_file(&self) -> bool {
        self.file.is_some()
    }

    /// Opens the log file again, which may have been moved away. Where that is not possible the old one goes on.
    pub fn reopen(&self) -> Result<(), LogError> {
        let Some((path, sink)) = &self.file else { return Ok(()) };
        let file = open(path)?;
        sink.lock().unwrap_or_else(PoisonError::into_inner).file = file;
        Ok(())
    }
}

fn open(path: &Path) -> Result<File, LogError> {
    // Without O_NONBLOCK a named pipe that nobody reads would stop the daemon.
    let flags = OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
    let opened =
        OpenOptions::new().append(true).create(true).mode(FILE_MODE).custom_flags(flags.bits()).open(path);
    opened.map_err(|source| LogError::Open { path: path.to_owned(), source })
}

/// What is logged, and how it looks.
fn configure(builder: &mut Builder, verbosity: u8) {
    let (own, foreign) = match verbosity {
        0 => (LevelFilter::Warn, LevelFilter::Error),
        1 | 2 => (LevelFilter::Info, LevelFilter::Warn),
        3 => (LevelFilter::Debug, LevelFilter::Warn),
        _ => (LevelFilter::Trace, LevelFilter::Debug),
    };
    builder.filter_level(foreign).filter_module("cmail_delivery", own).filter_module("cmail_dispatchd", own);
    builder.format(|buffer, record| {
        let time = Timestamp(SystemTime::now());
        writeln!(buffer, "{time} {:5} {}", record.level(), OneLine(record.args()))
    });
}

/// Where the lines go. `Write` hands over one whole line at a time.
#[derive(Debug)]
struct Sink {
    file: File,
    /// Since the last one that was written.
    lost_lines: u64,
}

impl Sink {
    fn write_line(&mut self, line: &[u8]) {
        if self.lost_lines > 0 {
            let time = Timestamp(SystemTime::now());
            let note =
                format!("{time} WARN  {} log lines before this one could not be written\n", self.lost_lines);
            if self.file.write_all(note.as_bytes()).is_err() {
                self.lost_lines = self.lost_lines.saturating_add(1);
                return;
            }
            self.lost_lines = 0;
        }
        if self.file.write_all(line).is_err() {
            self.lost_lines = self.lost_lines.saturating_add(1);
        }
    }
}

/// The writer that the logger owns.
struct SharedSink(Arc<Mutex<Sink>>);

impl io::Write for SharedSink {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).write_line(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A text without line ends and other control characters, so that nobody forges a line of the log.
struct OneLine<T>(T);

impl<T: fmt::Display> fmt::Display for OneLine<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(Escaping(f), "{}", self.0)
    }
}

struct Escaping<'a, 'b>(&'a mut fmt::Formatter<'b>);

impl fmt::Write for Escaping<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for part in text.split_inclusive(char::is_control) {
            match part.char_indices().next_back() {
                Some((at, last)) if last.is_control() => {
                    self.0.write_str(part.get(..at).unwrap_or_default())?;
                    write!(self.0, "{}", last.escape_default())?;
                }
                Some(_) | None => self.0.write_str(part)?,
            }
        }
        Ok(())
    }
}

/// A time in UTC as RFC 3339 section 5.6 writes it, with milliseconds.
struct Timestamp(SystemTime);

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let since_epoch = self.0.duration_since(UNIX_EPOCH).unwrap_or_default();
        let seconds = since_epoch.as_secs();
        let (year, month, day) = civil_date(seconds / 86_400);
        let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
        let millis = since_epoch.subsec_millis();
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z")
    }
}

/// Year, month and day of a day that is counted from 1970-01-01 on, in the Gregorian calendar.
fn civil_date(days_since_epoch: u64) -> (u64, u64, u64) {
    // Counted from 0000-03-01, a year ends with its leap day, and 400 years have 146097 days.
    let days = days_since_epoch.saturating_add(719_468);
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    // Five months from March or August on have 153 days.
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;
    use log::{Level, Log as _, Record};
    use proptest::prelude::*;
    use std::fs;
    use std::time::Duration;

    fn sink(path: &Path) -> Arc<Mutex<Sink>> {
        Arc::new(Mutex::new(Sink { file: open(path).unwrap(), lost_lines: 0 }))
    }

    fn logger(sink: &Arc<Mutex<Sink>>, verbosity: u8) -> env_logger::Logger {
        let mut builder = Builder::new();
        configure(&mut builder, verbosity);
        builder.target(Target::Pipe(Box::new(SharedSink(Arc::clone(sink))))).build()
    }

    fn say(logger: &env_logger::Logger, target: &str, level: Level, text: &str) {
        logger.log(&Record::builder().target(target).level(level).args(format_args!("{text}")).build());
    }

    #[test]
    fn verbosity_decides_what_is_logged() {
        let directory = tempfile::tempdir().unwrap();
        for (verbosity, expected) in
            [(0, "EW"), (1, "EWI"), (2, "EWI"), (3, "EWID"), (4, "EWIDT"), (200, "EWIDT")]
        {
            let path = directory.path().join(verbosity.to_string());
            let logger = logger(&sink(&path), verbosity);
            for level in Level::iter() {
                say(&logger, "cmail_delivery::session", level, &level.as_str()[..1]);
                say(&logger, "rustls::client", Level::Trace, "foreign");
            }
            let logged: String =
                fs::read_to_string(&path).unwrap().lines().filter_map(|line| line.chars().last()).collect();
            assert_eq!(logged, expected);
        }
    }

    #[test]
    fn a_line_has_a_time_and_a_level_and_no_control_characters() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let logger = logger(&sink(file.path()), 0);
        say(&logger, "cmail_dispatchd", Level::Warn, "a\r\nb\u{1b}[31mü");
        let line = fs::read_to_string(file.path()).unwrap();
        let (time, rest) = line.split_once(' ').unwrap();
        assert!(time.len() == 24 && time.ends_with('Z'), "{time}");
        assert_eq!(rest, "WARN  a\\r\\nb\\u{1b}[31mü\n");
    }

    #[test]
    fn a_log_file_that_was_moved_away_is_opened_anew() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let sink = sink(&path);
        let log = Log { file: Some((path.clone(), Arc::clone(&sink))) };
        let logger = logger(&sink, 0);
        say(&logger, "cmail_dispatchd", Level::Warn, "first");
        fs::rename(&path, directory.path().join("log.1")).unwrap();
        log.reopen().unwrap();
        say(&logger, "cmail_dispatchd", Level::Warn, "second");
        assert!(fs::read_to_string(directory.path().join("log.1")).unwrap().ends_with("first\n"));
        assert!(fs::read_to_string(&path).unwrap().ends_with("second\n"));
    }

    #[test]
    fn a_log_file_that_cannot_be_reopened_goes_on() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("sub/log");
        fs::create_dir(directory.path().join("sub")).unwrap();
        let sink = sink(&path);
        let log = Log { file: Some((path, Arc::clone(&sink))) };
        fs::rename(directory.path().join("sub"), directory.path().join("moved")).unwrap();
        assert!(matches!(log.reopen(), Err(LogError::Open { .. })));
        say(&logger(&sink, 0), "cmail_dispatchd", Level::Warn, "still here");
        assert!(fs::read_to_string(directory.path().join("moved/log")).unwrap().contains("still here"));
    }

    #[test]
    fn a_full_disk_loses_lines_and_says_so_later() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let full = sink(Path::new("/dev/full"));
        let logger = logger(&full, 0);
        say(&logger, "cmail_dispatchd", Level::Warn, "lost");
        say(&logger, "cmail_dispatchd", Level::Warn, "lost too");
        full.lock().unwrap().file = open(file.path()).unwrap();
        say(&logger, "cmail_dispatchd", Level::Warn, "written");
        let text = fs::read_to_string(file.path()).unwrap();
        let lines: Vec<_> = text.lines().map(|line| line.split_once(' ').unwrap().1).collect();
        // The second line failed together with the note about the first one.
        assert_eq!(lines, ["WARN  2 log lines before this one could not be written", "WARN  written"]);
    }

    #[test]
    fn times_are_those_of_the_calendar() {
        for (seconds, expected) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_399, "2000-02-28T23:59:59.000Z"),
            (951_782_400, "2000-02-29T00:00:00.000Z"),
            (4_107_542_399, "2100-02-28T23:59:59.000Z"),
            (4_107_542_400, "2100-03-01T00:00:00.000Z"),
            (1_735_689_599, "2024-12-31T23:59:59.000Z"),
        ] {
            let time = Timestamp(UNIX_EPOCH + Duration::from_secs(seconds));
            assert_eq!(time.to_string(), expected);
        }
    }

    proptest! {
        #[test]
        fn every_message_is_one_line(text in "[\\PC\n\r\u{0}\u{85}]{0,20}") {
            prop_assert!(!OneLine(&text).to_string().contains(char::is_control));
        }
    }
}
