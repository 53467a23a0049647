//! The operator's tool, `cmail-admin-queue`: what waits in the outbox, and why.
//!
//! What only looks reads the database beside the daemon, or without one, and changes nothing.

mod clock;
mod daemon;
mod dkim;
mod dns_texts;
#[cfg(test)]
mod documentation_tests;
mod explain;
mod history;
mod holds;
mod json;
mod list;
#[cfg(test)]
mod manual;
mod orders;
mod outlook;
mod printer;
mod replay;
mod show;
mod status;
mod submit;
mod summary;
mod top;
mod trace;
mod words;

use std::collections::VecDeque;
use std::env;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{self, Write as _};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::Parser as _;
use clap::error::{ContextKind, ContextValue};
use cmail_delivery::outbox::Cursor;
use cmail_delivery::policy::Policies;
use cmail_delivery::schedule::RetryRules;
use cmail_delivery::settings::Settings;
use cmail_delivery::time::UnixTime;
use log::{LevelFilter, warn};
use thiserror::Error;

use self::clock::Clock;
use self::daemon::{AskError, DaemonLink};
use self::printer::Printer;
use self::submit::Sendmail;
use self::words::{Action, ListWords, Options, Verb, Words};
use crate::config::Glance;
use crate::control::ControlPlace;
use crate::engine::EngineError;
use crate::logging;
use crate::selection::Selection;
use crate::shown;
use crate::store::{LedgerSettings, OrderError, QueuedMail, ReadError, Reader, Standing};
use crate::sysexits;

/// The name of the tool, whatever it is called as.
const PROGRAM: &str = "cmail-admin-queue";

/// The exit status where nothing fits what was asked for.
const NOTHING: u8 = 2;

/// Runs the tool with its command line, which begins with the name of the program. As `sendmail` it submits, as `mailq` it lists.
pub fn run(words: impl IntoIterator<Item = OsString>) -> ExitCode {
    let mut words: VecDeque<OsString> = words.into_iter().collect();
    let name = words.pop_front().unwrap_or_default();
    let mut lists_all = false;
    match Path::new(&name).file_name().and_then(OsStr::to_str) {
        Some("sendmail") => ["submit", "--"].iter().rev().for_each(|word| words.push_front(word.into())),
        Some("mailq") => {
            lists_all = true;
            words.push_front("list".into());
        }
        Some(_) | None => keep_hyphens(&mut words),
    }
    words.push_front(PROGRAM.into());
    let Words { mut options, action } = match Words::try_parse_from(words) {
        Ok(words) => words,
        Err(error) => return explain(error),
    };
    options.dbpath = options.dbpath.or_else(database_of_environment);
    log_to_standard_error(options.verbosity);
    let (options, verb) = match action {
        Action::Verb(verb) => {
            // Where mail is selected, there may be other mail.
            lists_all &= matches!(&*verb, Verb::List(words) if words.selection == Selection::default());
            (options, *verb)
        }
        Action::Submit(words) => match submit::sendmail(options, words.words) {
            Sendmail::Ended(code) => return code,
            Sendmail::List(options) => {
                lists_all = true;
                (options, Verb::List(ListWords::default()))
            }
        },
        Action::Replay(words) => return exit_code(replay::replay(&options, &words), false),
    };
    // What is asked of servers stands in no database.
    let needs_database = !matches!(verb, Verb::Explain(_) | Verb::Probe(_) | Verb::Dkim(_));
    exit_code(Tool::new(options, needs_database).and_then(|tool| tool.run(&verb)), lists_all)
}

/// Tells how a verb has ended, as far as it has not.
fn exit_code(done: Result<Outcome, ToolError>, lists_all: bool) -> ExitCode {
    match done {
        Ok(Outcome::Done) => ExitCode::SUCCESS,
        Ok(Outcome::Nothing) if lists_all => {
            // If the output is closed, that cannot be told.
            let _ = writeln!(io::stdout(), "the queue is empty");
            ExitCode::SUCCESS
        }
        Ok(Outcome::Nothing) => ExitCode::from(NOTHING),
        Ok(Outcome::Bad) => ExitCode::FAILURE,
        // The reader has seen enough.
        Err(ToolError::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(ToolError::Usage(error)) => explain(error),
        Err(error) => {
            complain(&error.to_string());
            ExitCode::FAILURE
        }
    }
}

/// Doubles a `--` directly behind `submit`. clap drops the first, and then the word behind it would be an option of sendmail, whatever a
/// script has put there.
fn keep_hyphens(words: &mut VecDeque<OsString>) {
    let mut pairs = words.iter().zip(words.iter().skip(1));
    if let Some(at) = pairs.position(|(verb, behind)| verb == "submit" && behind == "--") {
        words.insert(at + 1, "--".into());
    }
}

/// Returns the database that the environment names. An empty name is none, as shells and units of systemd write it.
fn database_of_environment() -> Option<PathBuf> {
    env::var_os("CMAIL_MASTER_DB").filter(|path| !path.is_empty()).map(PathBuf::from)
}

/// Prints the help, the version, or what is wrong with the command line. A value that may hold a password is not shown.
fn explain(mut error: clap::Error) -> ExitCode {
    let value = match error.get(ContextKind::InvalidValue) {
        Some(ContextValue::String(value)) => value.as_str(),
        _ => "",
    };
    if value.split_once('@').is_some_and(|(before, _)| before.contains(':')) {
        error.insert(ContextKind::InvalidValue, ContextValue::String("(not shown)".to_owned()));
    }
    // If they are closed, that cannot be told.
    let _ = error.print();
    if error.use_stderr() { ExitCode::from(sysexits::USAGE) } else { ExitCode::SUCCESS }
}

fn log_to_standard_error(verbosity: u8) {
    let level = match verbosity {
        0 => LevelFilter::Warn,
        1 | 2 => LevelFilter::Info,
        3 => LevelFilter::Debug,
        _ => LevelFilter::Trace,
    };
    let logger = env_logger::Builder::new()
        .filter_level(level)
        .format(|_, record| {
            complain(&record.args().to_string());
            Ok(())
        })
        .try_init();
    // There is no other logger in this process, and without one only notes are lost.
    drop(logger);
}

/// How a verb has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Done,
    /// Nothing fits what was asked for.
    Nothing,
    /// It was found out that mail would not go.
    Bad,
}

impl Outcome {
    fn found(count: u64) -> Self {
        if count == 0 { Self::Nothing } else { Self::Done }
    }
}

/// Why a verb has failed.
#[derive(Debug, Error)]
enum ToolError {
    #[error(
        "no database is named: give --dbpath FILE, set CMAIL_MASTER_DB, or name a configuration with --config ({} cannot be read: {error})",
        shown::path(.config)
    )]
    NoConfig { config: PathBuf, error: io::Error },
    #[error("the configuration {} names no database; give --dbpath FILE", shown::path(.0))]
    NoDatabase(PathBuf),
    #[error(transparent)]
    Usage(clap::Error),
    #[error(transparent)]
    Engine(#[from] EngineError),
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error(transparent)]
    Order(#[from] OrderError),
    #[error(transparent)]
    Ask(#[from] AskError),
    #[error("{0}")]
    NotDone(String),
    #[error("standard output cannot be written: {0}")]
    Output(#[from] io::Error),
}

/// The tool, with what its options and the configuration say.
struct Tool {
    options: Options,
    /// `None` if no database is named, for verbs that need none.
    database: Option<PathBuf>,
    settings: Settings,
    /// The lines of the configuration that say where mail goes.
    routes: Policies,
    ledger: LedgerSettings,
    control: ControlPlace,
    /// Where messages are handed over to the daemon, if it takes them.
    submit: Option<PathBuf>,
    clock: Clock,
}

impl Tool {
    fn new(options: Options, needs_database: bool) -> Result<Self, ToolError> {
        let (database, settings, routes, ledger, control, submit) = match Glance::at(&options.config) {
            Ok(glance) => {
                if glance.errors > 0 {
                    let config = shown::path(&options.config);
                    warn!(
                        "the configuration {config} has errors, and the lines without one are used; run: cmail-dispatchd {config} check"
                    );
                }
                let Glance { database: configured, settings, routes, ledger, control, submit, .. } = glance;
                let database = options.dbpath.clone().or(configured.clone());
                if database.is_none() && needs_database {
                    return Err(ToolError::NoDatabase(options.config));
                }
                // The configuration of another database says nothing of the daemon that works on this one.
                let meant = configured.as_deref().zip(database.as_deref());
                let is_meant = meant.is_some_and(|(configured, database)| is_same(configured, database));
                let control = if is_meant { control } else { ControlPlace::default() };
                (database, settings, routes, ledger, control, submit.filter(|_| is_meant))
            }
            Err(error) => match options.dbpath.clone() {
                None if needs_database => return Err(ToolError::NoConfig { config: options.config, error }),
                database => {
                    warn!(
                        "the configuration {} cannot be read ({error}), so mail is taken to be tried again by the defaults; name another \
                         with --config",
                        shown::path(&options.config)
                    );
                    let Glance { settings, routes, ledger, .. } = Glance::of_defaults();
                    (database, settings, routes, ledger, ControlPlace::default(), None)
                }
            },
        };
        let clock = Clock::new(options.utc);
        Ok(Self { options, database, settings, routes, ledger, control, submit, clock })
    }

    fn run(&self, verb: &Verb) -> Result<Outcome, ToolError> {
        match verb {
            Verb::List(words) => list::list(self, &words.selection),
            Verb::Summary(words) => summary::summary(self, words),
            Verb::Show(words) => show::show(self, &words.ids),
            Verb::History(words) => history::history(self, words),
            Verb::Retry(words) => orders::retry(self, words),
            Verb::Hold(words) => orders::hold(self, words),
            Verb::Release(words) => orders::release(self, words),
            Verb::Fail(words) => orders::fail(self, words),
            Verb::Drop(words) => orders::drop_mail(self, words),
            Verb::Redirect(words) => orders::redirect(self, words),
            Verb::Explain(words) => explain::explain(self, words),
            Verb::Probe(words) => explain::probe(self, words),
            Verb::Status => status::status(self),
            Verb::Reload => status::reload(self),
            Verb::Trace(words) => trace::trace(self, words),
            Verb::Top => top::top(self),
            Verb::Holds => holds::holds(self),
            Verb::Dkim(words) => dkim::dkim(self, words),
            Verb::Forget(words) => orders::forget(self, words),
        }
    }

    /// Gives the selected mail to `show`, in batches, until that breaks off. The next batch is read while one is shown.
    fn each_batch(
        &self,
        selection: &Selection,
        standing: Standing<'_>,
        mut show: impl FnMut(&[QueuedMail]) -> Result<ControlFlow<()>, ToolError>,
    ) -> Result<(), ToolError> {
        let reader = self.reader()?;
        let (sender, receiver) = mpsc::sync_channel(1);
        thread::scope(move |scope| {
            scope.spawn(move || {
                let mut next = Some(Cursor::BeforeFirst);
                while let Some(after) = next {
                    let batch = reader.mails(selection, standing, after);
                    next = batch.as_ref().ok().and_then(|batch| batch.next);
                    // It fails when no more is wanted.
                    if sender.send(batch).is_err() {
                        break;
                    }
                }
            });
            for batch in receiver {
                if show(&batch?.mails)?.is_break() {
                    break;
                }
            }
            Ok(())
        })
    }

    /// Returns the database, for what needs one.
    fn database(&self) -> Result<&Path, ToolError> {
        self.database.as_deref().ok_or_else(|| ToolError::NoDatabase(self.options.config.clone()))
    }

    fn reader(&self) -> Result<Reader, ToolError> {
        Ok(Reader::open(self.database()?)?)
    }

    /// Connects to the daemon, which may be silent for so long.
    fn daemon(&self, patience: Option<Duration>) -> Result<DaemonLink, AskError> {
        let database = self.database.as_deref().ok_or(AskError::NoDatabase)?;
        DaemonLink::connect(database, &self.control, patience)
    }

    fn printer(&self) -> Printer {
        Printer::new()
    }

    fn standing(&self) -> Standing<'_> {
        Standing { rules: RetryRules::of(&self.settings.schedule), now: now() }
    }
}

fn is_same(one: &Path, other: &Path) -> bool {
    let canonical = |path: &Path| fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    canonical(one) == canonical(other)
}

/// Prints a line on standard error, with the name of the tool.
fn complain(text: &str) {
    logging::say_as(PROGRAM, &printer::visible(text));
}

fn now() -> UnixTime {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    UnixTime(i64::try_from(since.as_secs()).unwrap_or(i64::MAX))
}
