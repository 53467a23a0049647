//! The command line: `CONFIG [nodrop] [nodetach] [deliver X | handoff X | genbounces | check | initdb]`.
//!
//! The words come in any order. The first word that is not a keyword is the configuration file; a file that is named like
//! a keyword is given with its directory, as in `./check`.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use cmail_delivery::address::{AddressError, MailDomain};
use cmail_delivery::dispatcher::{Mode, Selection};
use cmail_delivery::next_hop::NextHop;
use cmail_delivery::one_line::OneLine;
use thiserror::Error;

use crate::suggestion::nearest;

/// The usage line.
const USAGE: &str = "cmail-dispatchd CONFIG [nodrop] [nodetach] [deliver DOMAIN | handoff REMOTE | genbounces | check | initdb]";

/// All keywords.
const KEYWORDS: [&str; 7] = ["nodrop", "nodetach", "deliver", "handoff", "genbounces", "check", "initdb"];

/// What `--help` prints.
pub const HELP: &str = "\
Usage: cmail-dispatchd CONFIG [nodrop] [nodetach] [WORD]

Delivers the mail in the outbox of the cmail database that the file CONFIG names.
The words come in any order.

  nodrop           keep the privileges that the program was started with
  nodetach         stay in the foreground (also without it if CONFIG names no logfile)

At most one of:

  deliver DOMAIN   one pass: deliver the due mail of this destination domain, then exit
  handoff REMOTE   one pass: deliver the due mail whose mail_remote is exactly REMOTE, then exit
  genbounces       one pass: create bounces for all mail that has to be given up, then exit
  check            check the configuration and print every directive with its effective value
  initdb           create the database that CONFIG names

  --help           print this text
  --version        print the version

Signals: HUP reopens the log file and rereads resolv.conf, hosts and the trusted certificates, USR1
only reopens the log file, USR2 retries all mail that has not been given up, TERM and INT end the
program within five seconds.
";

/// What the command line asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// `--help`.
    Help,
    /// `--version`.
    Version,
    /// Anything that needs a configuration.
    Run(Invocation),
}

/// A command line with a configuration file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invocation {
    /// The configuration file.
    pub config: PathBuf,
    /// Whether to drop privileges when started as root: not with `nodrop`.
    pub drop_privileges: bool,
    /// Whether the daemon may go into the background: not with `nodetach`.
    pub detach: bool,
    /// What to do.
    pub action: Action,
}

/// What the program does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Deliver and bounce until a signal asks to stop, or make a single pass.
    Work(Mode),
    /// Check and print the configuration.
    Check,
    /// Create the database.
    InitDatabase,
}

impl Action {
    /// Whether this is the daemon itself, which may detach and has a pid file.
    pub fn is_daemon(&self) -> bool {
        *self == Self::Work(Mode::Daemon)
    }
}

/// Why a command line is wrong. The operand of `handoff` is never repeated: it may hold a password.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum UsageError {
    /// No word names the configuration file.
    #[error("no configuration file was given; usage: {USAGE}")]
    NoConfig,
    /// A word after the configuration file is not a keyword.
    #[error(
        "{word} is not a known word, and {config} is already the configuration file; {}",
        advice(.meant),
        word = plain(.word),
        config = plain(.config.as_os_str())
    )]
    UnknownWord {
        /// The word.
        word: OsString,
        /// The word that was taken for the configuration file.
        config: PathBuf,
        /// The keyword that one of the two resembles.
        meant: Option<&'static str>,
    },
    /// A word with a leading hyphen.
    #[error("{} is not a known option; see cmail-dispatchd --help", plain(.0))]
    UnknownOption(OsString),
    /// Two words that exclude each other.
    #[error("\"{0}\" and \"{1}\" cannot be used together")]
    Exclusive(&'static str, &'static str),
    /// Nothing follows a word that needs an operand.
    #[error("\"{0}\" needs an operand: the {1} whose mail is to be delivered")]
    MissingOperand(&'static str, &'static str),
    /// The operand of `deliver` is not a domain.
    #[error("\"deliver\" needs a domain, but {operand} is not a domain: {reason}", operand = plain(.operand))]
    Domain {
        /// The operand.
        operand: OsString,
        /// Why it is not a domain.
        reason: AddressError,
    },
}

/// Parses the words of a command line, without the name of the program.
pub fn parse(words: impl IntoIterator<Item = OsString>) -> Result<Command, UsageError> {
    let mut words = words.into_iter();
    let mut config = None;
    let mut drop_privileges = true;
    let mut detach = true;
    let mut action = ChosenAction(None);
    while let Some(word) = words.next() {
        match word.to_str() {
            Some("--help" | "-h") => return Ok(Command::Help),
            Some("--version" | "-V") => return Ok(Command::Version),
            Some("nodrop") => drop_privileges = false,
            Some("nodetach") => detach = false,
            Some("deliver") => {
                let domain = operand(words.next(), "deliver", "domain")?;
                action.choose("deliver", || {
                    Ok(Mode::Deliver(Selection::Domain(parse_domain(&domain)?)).into())
                })?;
            }
            Some("handoff") => {
                let remote = operand(words.next(), "handoff", "remote")?;
                let selection = Selection::Remote(remote.as_bytes().into());
                action.choose("handoff", || Ok(Mode::Deliver(selection).into()))?;
            }
            Some("genbounces") => action.choose("genbounces", || Ok(Mode::GenerateBounces.into()))?,
            Some("check") => action.choose("check", || Ok(Action::Check))?,
            Some("initdb") => action.choose("initdb", || Ok(Action::InitDatabase))?,
            Some(_) | None => match &config {
                _ if word.as_bytes().starts_with(b"-") => return Err(UsageError::UnknownOption(word)),
                None if !word.is_empty() => config = Some(PathBuf::from(word)),
                None => return Err(UsageError::NoConfig),
                Some(config) => return Err(unknown(word, config)),
            },
        }
    }
    let config = config.ok_or(UsageError::NoConfig)?;
    let action = action.0.map_or(Action::Work(Mode::Daemon), |(_, action)| action);
    Ok(Command::Run(Invocation { config, drop_privileges, detach, action }))
}

fn unknown(word: OsString, config: &Path) -> UsageError {
    let meant = [&*word, config.as_os_str()].into_iter().find_map(|word| nearest(word.to_str()?, KEYWORDS));
    UsageError::UnknownWord { word, config: config.to_owned(), meant }
}

fn advice(meant: &Option<&'static str>) -> String {
    match meant {
        Some(meant) => format!("did you mean {meant}?"),
        None => "see cmail-dispatchd --help".to_owned(),
    }
}

/// Shows a word of the command line on one line.
fn plain(word: &OsStr) -> String {
    OneLine(word.display()).to_string()
}

impl From<Mode> for Action {
    fn from(mode: Mode) -> Self {
        Self::Work(mode)
    }
}

/// The one keyword that chooses the action, if one was given.
struct ChosenAction(Option<(&'static str, Action)>);

impl ChosenAction {
    fn choose(
        &mut self,
        word: &'static str,
        action: impl FnOnce() -> Result<Action, UsageError>,
    ) -> Result<(), UsageError> {
        if let Some((earlier, _)) = self.0 {
            return Err(UsageError::Exclusive(earlier, word));
        }
        self.0 = Some((word, action()?));
        Ok(())
    }
}

fn operand(
    word: Option<OsString>,
    keyword: &'static str,
    what: &'static str,
) -> Result<OsString, UsageError> {
    word.filter(|word| !word.is_empty()).ok_or(UsageError::MissingOperand(keyword, what))
}

fn parse_domain(operand: &OsStr) -> Result<NextHop, UsageError> {
    let parsed = operand.to_str().ok_or(AddressError::NotUtf8).and_then(MailDomain::parse);
    parsed.map(NextHop::from).map_err(|reason| UsageError::Domain { operand: operand.to_owned(), reason })
}

#[cfg(test)]
mod tests;
