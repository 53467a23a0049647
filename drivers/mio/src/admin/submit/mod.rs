//! The verb `submit`, which is also `sendmail`: puts a message into the outbox.

mod addresses;
mod message;
mod socket;
mod words;

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io::{self, Write as _};
use std::process::ExitCode;

use clap::CommandFactory as _;
use cmail_delivery::address::{AddressError, Mailbox};
use jiff::ZonedDateTime;
use nix::unistd::{User, getuid};
use thiserror::Error;

use self::addresses::{ListError, addresses, qualified};
use self::message::{Message, MessageError, Origin};
use self::socket::{HandoverError, hand_over};
use self::words::{Request, SendmailError, Task, text};
use super::printer::visible;
use super::words::{Options, Words};
use super::{Tool, ToolError, complain};
use crate::store::{NewMail, SubmitError, submit};
use crate::sysexits;

/// Randomness of a Message-ID in octets.
const MESSAGE_ID_OCTETS: usize = 16;

/// What a command line of sendmail has come to.
pub(super) enum Sendmail {
    /// It is done, or has failed, with this status.
    Ended(ExitCode),
    /// The queue is to be printed.
    List(Options),
}

/// Why a message was not taken. Each reason has a status of sysexits.h, by which the caller knows whether to try again.
#[derive(Debug, Error)]
enum Refusal {
    #[error(transparent)]
    Words(#[from] SendmailError),
    #[error("{0}")]
    NotText(String),
    #[error("the sender: {0}")]
    Sender(AddressError),
    #[error("the recipients: {0}")]
    List(#[from] ListError),
    #[error("the recipient {recipient}: {error}")]
    Recipient { recipient: String, error: AddressError },
    #[error("no recipient is given; name one on the command line, or with -t in the header")]
    NoRecipient,
    #[error(transparent)]
    Message(#[from] MessageError),
    #[error("the system provides no random octets: {0}")]
    Entropy(getrandom::Error),
    #[error(transparent)]
    Tool(#[from] ToolError),
    #[error(transparent)]
    Store(#[from] SubmitError),
    #[error(transparent)]
    Handover(#[from] HandoverError),
}

impl Refusal {
    /// Returns the status of sysexits.h.
    fn status(&self) -> u8 {
        match self {
            Self::Words(_) | Self::NotText(_) => sysexits::USAGE,
            Self::Sender(_) | Self::List(_) | Self::Recipient { .. } | Self::NoRecipient => sysexits::DATA,
            Self::Message(MessageError::Unreadable(_)) | Self::Entropy(_) => sysexits::TEMPORARY,
            Self::Message(_) => sysexits::DATA,
            Self::Tool(ToolError::NoConfig { error, .. })
                if error.kind() == io::ErrorKind::PermissionDenied =>
            {
                sysexits::NOT_ALLOWED
            }
            Self::Tool(_) => sysexits::CONFIGURATION,
            Self::Store(error) => error.status(),
            Self::Handover(error) => error.status(),
        }
    }
}

/// Takes a message from standard input, as these words of sendmail ask for.
pub(super) fn sendmail(mut options: Options, words: Vec<OsString>) -> Sendmail {
    let taken = words::parse(words).map_err(Refusal::from).and_then(|words| {
        if let Some(config) = words.config {
            options.config = config;
        }
        match words.task {
            Task::List => Ok(Some(options.clone())),
            Task::RunQueue => Ok(None),
            Task::Help => {
                let mut all = Words::command();
                let help =
                    all.find_subcommand_mut("submit").map(|submit| submit.render_long_help().to_string());
                // That it is not read cannot be told.
                let _ = io::stdout().write_all(help.unwrap_or_default().as_bytes());
                Ok(None)
            }
            Task::Submit(request) => take(&Tool::new(options.clone(), true)?, request).map(|()| None),
        }
    });
    match taken {
        Ok(Some(options)) => Sendmail::List(options),
        Ok(None) => Sendmail::Ended(ExitCode::SUCCESS),
        Err(refusal) => {
            complain(&refusal.to_string());
            Sendmail::Ended(ExitCode::from(refusal.status()))
        }
    }
}

fn take(tool: &Tool, request: Request) -> Result<(), Refusal> {
    let host = &*tool.settings.announce;
    let user = User::from_uid(getuid()).ok().flatten();
    let user_name = user.as_ref().map_or_else(|| getuid().to_string(), |user| user.name.clone());
    let own = || qualified(&user_name, host).map_err(Refusal::Sender);
    let sender = match request.sender {
        Some(sender) => sender_of(&text(sender).map_err(Refusal::NotText)?, host)?,
        None => Some(own()?),
    };
    let full_name = match request.full_name {
        Some(name) => Some(text(name).map_err(Refusal::NotText)?),
        None => {
            user.map(|user| user.gecos.to_string_lossy().split(',').next().unwrap_or_default().to_owned())
        }
    };
    let mut named = Vec::new();
    for list in request.recipients {
        named.extend(addresses(&text(list).map_err(Refusal::NotText)?)?);
    }
    if named.is_empty() && !request.reads_recipients {
        return Err(Refusal::NoRecipient);
    }
    let mut message = Message::read(io::stdin().lock(), !request.ignores_dots)?;
    if request.reads_recipients {
        named.extend(message.recipients()?);
    }
    let recipients = distinct(&named, host)?;
    let from = sender.clone().map_or_else(own, Ok)?;
    message.complete(&Origin {
        from: &from,
        full_name: full_name.as_deref(),
        date: &date(),
        message_id: &message_id(host)?,
        host,
    });
    let data = message.into_octets();
    let mut wishes = request.wishes;
    wishes.message.sign = tool.settings.signing.mark_of_submitted(&data);
    let mail = NewMail {
        sender: sender.as_ref().map(Mailbox::as_str),
        recipients: &recipients,
        submitter: &format!("local:{user_name}"),
        wishes: &wishes,
        data: &data,
    };
    let ids = match (submit(tool.database()?, &mail, &mut |warning| complain(warning)), &tool.submit) {
        // The daemon finds out who the submitter is.
        (Err(SubmitError::NotAllowed(_)), Some(socket)) => hand_over(socket, &mail)?,
        (submitted, _) => submitted?,
    };
    if request.is_verbose {
        for (id, recipient) in ids.iter().zip(&recipients) {
            // The mail is taken, even if that is not read.
            let _ = writeln!(io::stdout(), "{}", visible(&format!("mail {} to <{recipient}>", id.0)));
        }
    }
    Ok(())
}

/// Parses the sender; `None` for the null path.
fn sender_of(text: &str, host: &str) -> Result<Option<Mailbox>, Refusal> {
    match addresses(text)?.as_slice() {
        [] => Ok(None),
        [address] => qualified(address, host).map(Some).map_err(Refusal::Sender),
        _ => Err(Refusal::Sender(AddressError::UnquotedSpecial)),
    }
}

/// Parses the recipients, each once.
fn distinct(named: &[String], host: &str) -> Result<Vec<String>, Refusal> {
    let (mut seen, mut recipients) = (BTreeSet::new(), Vec::new());
    for recipient in named {
        let mailbox = qualified(recipient, host)
            .map_err(|error| Refusal::Recipient { recipient: recipient.clone(), error })?;
        if seen.insert(mailbox.canonical()) {
            recipients.push(mailbox.as_str().to_owned());
        }
    }
    if recipients.is_empty() { Err(Refusal::NoRecipient) } else { Ok(recipients) }
}

/// Returns the present time in the form of RFC 5322 section 3.3.
fn date() -> String {
    jiff::fmt::rfc2822::to_string(&ZonedDateTime::now()).unwrap_or_default()
}

fn message_id(host: &str) -> Result<String, Refusal> {
    let mut random = [0; MESSAGE_ID_OCTETS];
    getrandom::fill(&mut random).map_err(Refusal::Entropy)?;
    let digits: String = random.iter().map(|octet| format!("{octet:02x}")).collect();
    Ok(format!("{digits}@{host}"))
}
