//! How a program hands over a message: lines of words, the last of which says how long the message is that follows.
//!
//! ```text
//! sender a@example.net
//! recipient b@example.org
//! recipient c@example.org
//! data 1234
//! ```
//! Without `sender` it is the null reverse-path. Lines of `notify`, `ret` and `envid` say what the sender wants to be told. A line that is not known here is refused, so that nothing that a program asks for is left
//! undone in silence.

use std::mem;
use std::sync::Arc;

use cmail_delivery::address::{AddressError, Mailbox};
use cmail_delivery::dkim::SigningRules;
use cmail_delivery::dsn::{DsnError, DsnWishes, EnvelopeId, Notify, ReturnExtent};
use thiserror::Error;

use crate::clients::{line, words_of};
use crate::store::NewMail;
use crate::sysexits;

/// The longest envelope in octets: some thousand recipients.
pub(super) const ENVELOPE_LIMIT_OCTETS: usize = 256 * 1024;

/// A message that was handed over whole.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Submission {
    /// The sender; `None` for the null path.
    sender: Option<String>,
    recipients: Vec<String>,
    /// As `mail_submitter` has it.
    pub(super) submitter: String,
    wishes: DsnWishes,
    /// By these it is marked to be signed.
    signing: Arc<SigningRules>,
    data: Vec<u8>,
}

impl Submission {
    /// Has the message marked by these rules.
    pub(crate) fn sign_by(&mut self, signing: &Arc<SigningRules>) {
        self.signing = Arc::clone(signing);
    }

    /// Marks the message to be signed, if its author is of a domain with a key. To find that out takes up to some milliseconds.
    pub(crate) fn mark(&mut self) {
        self.wishes.message.sign = self.signing.mark_of_submitted(&self.data);
    }

    /// Returns what is to be put into the outbox.
    pub(crate) fn mail(&self) -> NewMail<'_> {
        NewMail {
            sender: self.sender.as_deref(),
            recipients: &self.recipients,
            submitter: &self.submitter,
            wishes: &self.wishes,
            data: &self.data,
        }
    }
}

/// Why a message is not taken.
#[derive(Debug, Error, PartialEq, Eq)]
pub(super) enum RequestError {
    #[error("this is no message: a % is not followed by two hexadecimal digits, or it is not UTF-8")]
    NotWords,
    #[error("cmail-dispatchd {version} does not know the line \"{0}\"; use the cmail-admin-queue of this version", version = env!("CARGO_PKG_VERSION"))]
    UnknownLine(String),
    #[error(
        "an envelope has at most {ENVELOPE_LIMIT_OCTETS} octets; submit the message for fewer recipients at once"
    )]
    EnvelopeTooLong,
    #[error("the address {0}: {1}")]
    Address(String, AddressError),
    #[error("the line {0}: {1}")]
    Wish(&'static str, DsnError),
    #[error(
        "the address {0} names a route, which no server follows any more; name only the address at its end"
    )]
    Route(String),
    #[error("a message has one sender, and this is its second: {0}")]
    SecondSender(String),
    #[error("no recipient is named")]
    NoRecipient,
    #[error(
        "a message of {octets} octets for {recipients} recipients is more than the {limit} octets that `submit_size` allows at once; submit it \
         for fewer recipients, or let the administrator allow more"
    )]
    TooLarge { octets: usize, recipients: usize, limit: usize },
    #[error("there is not enough memory for the message now; try again")]
    NoMemory,
}

impl RequestError {
    /// Returns the exit status that it means.
    pub(super) fn status(&self) -> u8 {
        match self {
            Self::NotWords | Self::UnknownLine(_) => sysexits::UNAVAILABLE,
            Self::EnvelopeTooLong
            | Self::Address(..)
            | Self::Wish(..)
            | Self::Route(_)
            | Self::SecondSender(_)
            | Self::NoRecipient
            | Self::TooLarge { .. } => sysexits::DATA,
            Self::NoMemory => sysexits::TEMPORARY,
        }
    }
}

/// Returns the lines that hand over a message, which follows them.
pub(crate) fn envelope(mail: &NewMail<'_>) -> String {
    let mut lines: String = mail.sender.iter().map(|sender| line(&["sender", sender])).collect();
    let DsnWishes { notify, message, .. } = mail.wishes;
    let wishes = [
        ("notify", notify.map(|notify| notify.to_string())),
        ("ret", message.extent.map(|extent| extent.to_string())),
        ("envid", message.envelope_id.as_ref().map(|id| id.as_str().to_owned())),
    ];
    let wishes = wishes.into_iter().filter_map(|(name, value)| Some(line(&[name, &value?])));
    lines.extend(wishes);
    lines.extend(mail.recipients.iter().map(|recipient| line(&["recipient", recipient])));
    lines + &line(&["data", &mail.data.len().to_string()])
}

/// What was read of a message so far.
#[derive(Debug, Default)]
pub(super) struct Reading {
    submission: Submission,
    /// The beginning of the next line.
    line: Vec<u8>,
    envelope_octets: usize,
    /// The length of the message, once it is known.
    announced: Option<usize>,
}

impl Reading {
    /// Takes in octets. Returns the message once it is whole; what follows it is not looked at. `limit` is the most octets of a message,
    /// counted once for each recipient.
    pub(super) fn read(
        &mut self,
        mut octets: &[u8],
        limit: usize,
    ) -> Result<Option<Submission>, RequestError> {
        loop {
            if let Some(announced) = self.announced {
                let data = &mut self.submission.data;
                let missing = announced.saturating_sub(data.len());
                data.extend_from_slice(octets.get(..missing).unwrap_or(octets));
                return Ok((data.len() == announced).then(|| mem::take(&mut self.submission)));
            }
            let end = octets.iter().position(|octet| *octet == b'\n');
            let (part, rest) = octets.split_at(end.unwrap_or(octets.len()));
            self.envelope_octets += part.len() + 1;
            if self.envelope_octets > ENVELOPE_LIMIT_OCTETS {
                return Err(RequestError::EnvelopeTooLong);
            }
            self.line.extend_from_slice(part);
            if end.is_none() {
                return Ok(None);
            }
            octets = rest.get(1..).unwrap_or_default();
            let line = mem::take(&mut self.line);
            self.read_line(&line, limit)?;
        }
    }

    fn read_line(&mut self, line: &[u8], limit: usize) -> Result<(), RequestError> {
        let words = words_of(line).ok_or(RequestError::NotWords)?;
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        match words[..] {
            ["sender", sender] if self.submission.sender.is_some() => {
                return Err(RequestError::SecondSender(shortened(sender)));
            }
            ["sender", sender] => self.submission.sender = Some(address(sender)?),
            ["recipient", recipient] => self.submission.recipients.push(address(recipient)?),
            ["notify", value] => {
                let wish = |error| RequestError::Wish("notify", error);
                self.submission.wishes.notify = Some(Notify::parse(value).map_err(wish)?);
            }
            ["ret", value] => {
                let wish = |error| RequestError::Wish("ret", error);
                self.submission.wishes.message.extent = Some(ReturnExtent::parse(value).map_err(wish)?);
            }
            ["envid", value] => {
                let wish = |error| RequestError::Wish("envid", error);
                self.submission.wishes.message.envelope_id = Some(EnvelopeId::parse(value).map_err(wish)?);
            }
            // A number may not have a sign here.
            ["data", octets] if octets.bytes().all(|octet| octet.is_ascii_digit()) => {
                let octets = octets.parse().map_err(|_| unknown(line))?;
                self.expect_data(octets, limit)?;
            }
            _ => return Err(unknown(line)),
        }
        Ok(())
    }

    fn expect_data(&mut self, octets: usize, limit: usize) -> Result<(), RequestError> {
        let recipients = self.submission.recipients.len();
        if recipients == 0 {
            return Err(RequestError::NoRecipient);
        }
        if octets.saturating_mul(recipients) > limit {
            return Err(RequestError::TooLarge { octets, recipients, limit });
        }
        // The memory itself is taken as the message comes.
        self.submission.data.try_reserve_exact(octets).map_err(|_| RequestError::NoMemory)?;
        self.announced = Some(octets);
        Ok(())
    }
}

fn unknown(line: &[u8]) -> RequestError {
    RequestError::UnknownLine(shortened(&String::from_utf8_lossy(line)))
}

fn shortened(text: &str) -> String {
    text.chars().take(80).collect()
}

/// Returns an address, which must have a domain.
fn address(text: &str) -> Result<String, RequestError> {
    if text.starts_with('@') {
        return Err(RequestError::Route(shortened(text)));
    }
    let parsed = Mailbox::parse(text.as_bytes()).and_then(|mailbox| mailbox.domain().map(|_| mailbox));
    match parsed {
        Ok(mailbox) => Ok(mailbox.as_str().to_owned()),
        Err(error) => Err(RequestError::Address(shortened(text), error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Submission {
        pub(crate) fn to(recipient: &str) -> Self {
            Self { recipients: vec![recipient.to_owned()], ..Self::default() }
        }
    }

    fn mail<'a>(recipients: &'a [String], wishes: &'a DsnWishes, data: &'a [u8]) -> NewMail<'a> {
        NewMail { sender: Some("a b@example.net"), recipients, submitter: "", wishes, data }
    }

    fn refused(octets: &[u8]) -> String {
        Reading::default().read(octets, 1000).unwrap_err().to_string()
    }

    #[test]
    fn a_message_is_read_in_any_pieces() {
        let recipients = ["b@example.org".to_owned(), "ü%@example.org".to_owned()];
        let mut wishes = DsnWishes { notify: Notify::parse("never").ok(), ..DsnWishes::default() };
        wishes.message.extent = Some(ReturnExtent::Headers);
        wishes.message.envelope_id = EnvelopeId::parse("a b%").ok();
        let mail =
            NewMail { sender: Some("a@example.net"), ..mail(&recipients, &wishes, b"x\n\ndata 5\n\0") };
        let sent = [envelope(&mail).as_bytes(), mail.data].concat();
        for size in 1..=sent.len() {
            let mut reading = Reading::default();
            let mut pieces: Vec<_> =
                sent.chunks(size).map(|piece| reading.read(piece, 1000).unwrap()).collect();
            let read = pieces.pop().unwrap().unwrap();
            assert!(pieces.iter().all(Option::is_none));
            assert_eq!((read.mail().sender, read.mail().recipients), (mail.sender, mail.recipients));
            assert_eq!((read.mail().data, read.mail().wishes), (mail.data, mail.wishes));
        }
    }

    #[test]
    fn a_message_may_be_empty_and_its_sender_null() {
        let read = Reading::default().read(b"recipient b@example.org\r\ndata 0\n", 1000).unwrap().unwrap();
        assert_eq!((read.mail().sender, read.mail().data), (None, &b""[..]));
    }

    #[test]
    fn what_is_no_message_is_refused_with_a_sentence() {
        for (octets, told) in [
            (&b"recipient a@b.example c\n"[..], "does not know the line \"recipient a@b.example c\""),
            (b"GET / HTTP/1.1\r\n", "does not know the line \"GET / HTTP/1.1\r\""),
            (b"recipient b@example.org\ndata -1\n", "does not know the line \"data -1\""),
            (b"recipient b@example.org\ndata +3\n", "does not know the line \"data +3\""),
            (b"recipient b@example.org\ndata \n", "does not know the line \"data \""),
            (b"recipient @a.example,@b.example:c@example.org\n", "names a route"),
            (b"sender a@example.org\nsender b@example.org\n", "this is its second: b@example.org"),
            (b"recipient %\n", "is not followed by two hexadecimal digits"),
            (b"data 5\n", "no recipient is named"),
            (b"notify sometimes\n", "the line notify: it must be never"),
            (b"recipient root\n", "the address root: "),
            (b"sender a%0d%0a@example.org\n", "the address a\r\n@example.org: "),
        ] {
            assert!(refused(octets).contains(told), "{}", refused(octets));
        }
        let endless = b"x".repeat(ENVELOPE_LIMIT_OCTETS + 1);
        assert_eq!(refused(&endless), RequestError::EnvelopeTooLong.to_string());
    }

    #[test]
    fn a_message_counts_once_for_each_recipient() {
        let recipient = "recipient b@example.org\n";
        for (count, octets, is_taken) in [(1, 1000, true), (1, 1001, false), (2, 500, true), (2, 501, false)]
        {
            let text = format!("{}data {octets}\n", recipient.repeat(count));
            let read = Reading::default().read(text.as_bytes(), 1000);
            assert_eq!(read.is_ok(), is_taken, "{count} x {octets}");
        }
    }
}
