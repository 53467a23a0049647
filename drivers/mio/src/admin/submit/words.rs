//! The command line of sendmail, as programs have used it for decades: options of one letter, with their values attached or behind them.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::PathBuf;

use cmail_delivery::dsn::{DsnError, DsnWishes, EnvelopeId, Notify, ReturnExtent};
use cmail_delivery::one_line::OneLine;
use thiserror::Error;

/// Options with a value.
const WITH_VALUE: &[u8] = b"ABCDFLMNORVXbefhopr";

/// Options without a value that change nothing here: they are about the queue, the terminal or the aliases of other programs.
const WITHOUT_EFFECT: &[u8] = b"EGUmnxs";

/// A command line of sendmail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SendmailWords {
    /// The configuration of the daemon: `-C`.
    pub(super) config: Option<PathBuf>,
    pub(super) task: Task,
}

/// What a command line of sendmail asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Task {
    /// Take a message.
    Submit(Request),
    /// Print the queue: `-bp`.
    List,
    /// Run the queue, which the daemon does by itself: `-q`.
    RunQueue,
    /// Print the options: `--help`.
    Help,
}

/// How a message is to be taken.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Request {
    /// The sender, of `-f` or `-r`.
    pub(super) sender: Option<OsString>,
    /// The name of the sender, of `-F`.
    pub(super) full_name: Option<OsString>,
    /// Whether the recipients are also in the header: `-t`.
    pub(super) reads_recipients: bool,
    /// Whether a lone dot is a line like others: `-i`.
    pub(super) ignores_dots: bool,
    /// Whether each mail is told with its id: `-v`.
    pub(super) is_verbose: bool,
    /// What the sender wants to be told: `-N`, `-R` and `-V`.
    pub(super) wishes: DsnWishes,
    /// The recipients, each a list of addresses.
    pub(super) recipients: Vec<OsString>,
}

/// Why a command line is not understood.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub(super) enum SendmailError {
    #[error("-{0} is not an option of sendmail that is known here")]
    Unknown(char),
    #[error("-{0} needs a value")]
    MissingValue(char),
    #[error(
        "-b{0} is not supported: the daemon takes mail from its database and from this command only; SMTP is the business of another program"
    )]
    Mode(String),
    #[error("-{letter} \"{value}\": {error}")]
    Dsn { letter: char, value: String, error: DsnError },
}

/// Parses the words behind the name of the program.
pub(super) fn parse(words: impl IntoIterator<Item = OsString>) -> Result<SendmailWords, SendmailError> {
    let mut words = words.into_iter();
    let mut reading = Reading::default();
    while let Some(word) = words.next() {
        match word.as_bytes() {
            b"--" => {
                reading.request.recipients.extend(words);
                break;
            }
            b"--help" => reading.other = Some(Task::Help),
            [b'-', letters @ ..] if !letters.is_empty() => {
                reading.read_letters(letters, &mut words)?;
            }
            _ => reading.request.recipients.push(word),
        }
    }
    let task = reading.other.unwrap_or(Task::Submit(reading.request));
    Ok(SendmailWords { config: reading.config, task })
}

/// What was read of a command line so far.
#[derive(Default)]
struct Reading {
    request: Request,
    config: Option<PathBuf>,
    /// Anything but a message to take.
    other: Option<Task>,
}

impl Reading {
    /// Reads the options of one word. The first with a value takes the rest of the word, or the next word.
    fn read_letters(
        &mut self,
        letters: &[u8],
        words: &mut impl Iterator<Item = OsString>,
    ) -> Result<(), SendmailError> {
        let mut rest = letters.iter();
        while let Some(&letter) = rest.next() {
            match letter {
                b'i' => self.request.ignores_dots = true,
                b't' => self.request.reads_recipients = true,
                b'v' => self.request.is_verbose = true,
                // What is to be debugged is attached if it is given.
                b'd' => return Ok(()),
                // Its value, a time between two runs, is attached if it is given.
                b'q' => {
                    self.other = Some(Task::RunQueue);
                    return Ok(());
                }
                letter if WITH_VALUE.contains(&letter) => {
                    let attached = rest.as_slice();
                    let value = if attached.is_empty() {
                        words.next().ok_or(SendmailError::MissingValue(letter.into()))?
                    } else {
                        OsStr::from_bytes(attached).to_owned()
                    };
                    return self.read_value(letter, value);
                }
                letter if WITHOUT_EFFECT.contains(&letter) => {}
                letter => return Err(SendmailError::Unknown(letter.into())),
            }
        }
        Ok(())
    }

    fn read_value(&mut self, letter: u8, value: OsString) -> Result<(), SendmailError> {
        match (letter, value.as_bytes()) {
            (b'f' | b'r', _) => self.request.sender = Some(value),
            (b'F', _) => self.request.full_name = Some(value),
            (b'C', _) => self.config = Some(value.into()),
            (b'o', b"i") => self.request.ignores_dots = true,
            (b'O', option)
                if option.eq_ignore_ascii_case(b"IgnoreDots")
                    || option.eq_ignore_ascii_case(b"IgnoreDots=true") =>
            {
                self.request.ignores_dots = true;
            }
            (b'b', b"m") => {}
            (b'b', b"p") => self.other = Some(Task::List),
            (b'b', mode) => {
                return Err(SendmailError::Mode(OneLine(String::from_utf8_lossy(mode)).to_string()));
            }
            (b'N' | b'R' | b'V', octets) => {
                let value = String::from_utf8_lossy(octets);
                let (letter, shown) = (char::from(letter), || OneLine(&*value).to_string());
                return self.read_wish(letter, &value).map_err(|error| SendmailError::Dsn {
                    letter,
                    value: shown(),
                    error,
                });
            }
            _ => {}
        }
        Ok(())
    }

    /// Reads what the sender wants to be told (RFC 3461).
    fn read_wish(&mut self, letter: char, value: &str) -> Result<(), DsnError> {
        let DsnWishes { notify, message, .. } = &mut self.request.wishes;
        match letter {
            'N' => *notify = Some(Notify::parse(value)?),
            'R' => message.extent = Some(ReturnExtent::parse(value)?),
            _ => message.envelope_id = Some(EnvelopeId::parse(value)?),
        }
        Ok(())
    }
}

/// Returns a word as text, or what is wrong with it.
pub(super) fn text(word: OsString) -> Result<String, String> {
    String::from_utf8(word.into_vec())
        .map_err(|error| format!("\"{}\" is not UTF-8 text", error.as_bytes().escape_ascii()))
}

#[cfg(test)]
mod tests;
