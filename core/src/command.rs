//! SMTP commands (RFC 5321 section 4.1), written so that nothing in them can end a line early.

use alloc::string::{String, ToString as _};
use core::fmt;

use bytes::{BufMut as _, BytesMut};

use crate::address::Mailbox;
use crate::dsn::{DsnWishes, MessageWishes, xtext};

/// Longest command line in octets with its CRLF, extensions apart (RFC 5321 section 4.5.3.1.4). An AUTH command
/// keeps to it (RFC 4954 section 4).
pub const COMMAND_LINE_LIMIT_OCTETS: usize = 512;

/// A command of a client.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Command<'a> {
    /// Greets, and asks for extensions.
    Ehlo(&'a str),
    /// Greets without extensions.
    Helo(&'a str),
    /// Asks for TLS (RFC 3207).
    StartTls,
    /// Does nothing.
    Noop,
    /// Abandons the transaction.
    Rset,
    /// Begins a transaction.
    Mail {
        /// The address for bounces; `None` is the null reverse-path.
        reverse_path: Option<&'a Mailbox>,
        /// The message's size in octets (RFC 1870 section 6).
        size: Option<u64>,
        /// True if the data has 8-bit octets (RFC 6152 section 3).
        body_8bit: bool,
        /// True if an address of the envelope is not ASCII (RFC 6531 section 3.4).
        smtputf8: bool,
        /// What the sender wants of reports (RFC 3461 sections 4.3 and 4.4); `None` if the server does not offer DSN.
        wishes: Option<&'a MessageWishes>,
    },
    /// Names a recipient.
    Rcpt {
        /// The address.
        forward_path: &'a Mailbox,
        /// What the sender wants to be told of it (RFC 3461 sections 4.1 and 4.2); `None` if the server does not offer DSN.
        wishes: Option<&'a DsnWishes>,
    },
    /// Announces the data.
    Data,
    /// The final dot of data that was announced for no recipient (RFC 2920 section 3.1).
    EndOfData,
    /// Ends the conversation.
    Quit,
    /// Begins authentication (RFC 4954 section 4).
    Auth {
        /// The name of the mechanism.
        mechanism: &'a str,
        /// The response in base64, or `=` if it is empty.
        initial_response: Option<&'a str>,
    },
    /// Continues authentication: base64, or `*` to cancel it.
    AuthLine(&'a str),
}

impl Command<'_> {
    /// Appends the command line. Control characters in arguments are left out: CR and LF end a command, and no input from outside
    /// may do that.
    pub fn write(&self, line: &mut BytesMut) {
        self.write_with_secret(line, |secret| secret);
    }

    /// Returns the command line for a log, with `***` instead of what authenticates. The asterisk that cancels an authentication
    /// (RFC 4954 section 4) is not a secret.
    pub fn masked(&self) -> BytesMut {
        let mut line = BytesMut::new();
        self.write_with_secret(&mut line, |secret| if secret == "*" { secret } else { "***" });
        line
    }

    /// Returns the name of the command in texts.
    pub fn name(&self) -> CommandName {
        match self {
            Self::Ehlo(_) => CommandName::Ehlo,
            Self::Helo(_) => CommandName::Helo,
            Self::StartTls => CommandName::StartTls,
            Self::Noop => CommandName::Noop,
            Self::Rset => CommandName::Rset,
            Self::Mail { .. } => CommandName::Mail,
            Self::Rcpt { .. } => CommandName::Rcpt,
            Self::Data => CommandName::Data,
            Self::EndOfData => CommandName::EndOfData,
            Self::Quit => CommandName::Quit,
            Self::Auth { .. } | Self::AuthLine(_) => CommandName::Auth,
        }
    }

    fn write_with_secret(&self, line: &mut BytesMut, shown: impl Fn(&str) -> &str) {
        match *self {
            Self::Ehlo(name) => put(line, &["EHLO ", name]),
            Self::Helo(name) => put(line, &["HELO ", name]),
            Self::StartTls => put(line, &["STARTTLS"]),
            Self::Noop => put(line, &["NOOP"]),
            Self::Rset => put(line, &["RSET"]),
            Self::Mail { reverse_path, size, body_8bit, smtputf8, wishes } => {
                put(line, &["MAIL FROM:<", reverse_path.map_or("", Mailbox::as_str), ">"]);
                if let Some(size) = size {
                    put(line, &[" SIZE=", &decimal(size)]);
                }
                if body_8bit {
                    put(line, &[" BODY=8BITMIME"]);
                }
                if smtputf8 {
                    put(line, &[" SMTPUTF8"]);
                }
                if let Some(wishes) = wishes {
                    put_message_wishes(line, wishes);
                }
            }
            Self::Rcpt { forward_path, wishes } => {
                put(line, &["RCPT TO:<", forward_path.as_str(), ">"]);
                if let Some(wishes) = wishes {
                    put_recipient_wishes(line, wishes);
                }
            }
            Self::Data => put(line, &["DATA"]),
            Self::EndOfData => put(line, &["."]),
            Self::Quit => put(line, &["QUIT"]),
            Self::Auth { mechanism, initial_response } => {
                put(line, &["AUTH ", mechanism]);
                if let Some(response) = initial_response {
                    put(line, &[" ", shown(response)]);
                }
            }
            Self::AuthLine(response) => put(line, &[shown(response)]),
        }
        line.put_slice(b"\r\n");
    }
}

impl fmt::Debug for Command<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.masked().escape_ascii())
    }
}

/// The command that a reply answers, as texts name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CommandName {
    /// The connection itself, answered by the greeting.
    Greeting,
    /// EHLO.
    Ehlo,
    /// HELO.
    Helo,
    /// STARTTLS.
    StartTls,
    /// NOOP.
    Noop,
    /// RSET.
    Rset,
    /// AUTH, with the lines that follow it.
    Auth,
    /// MAIL.
    Mail,
    /// RCPT.
    Rcpt,
    /// DATA.
    Data,
    /// The mail data, before its final dot.
    MailData,
    /// The final dot.
    EndOfData,
    /// QUIT.
    Quit,
    /// No command: the server spoke unasked.
    Nothing,
}

impl CommandName {
    /// All of them.
    pub const ALL: [Self; 14] = [
        Self::Greeting,
        Self::Ehlo,
        Self::Helo,
        Self::StartTls,
        Self::Noop,
        Self::Rset,
        Self::Auth,
        Self::Mail,
        Self::Rcpt,
        Self::Data,
        Self::MailData,
        Self::EndOfData,
        Self::Quit,
        Self::Nothing,
    ];

    /// Returns it as texts write it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Greeting => "greeting",
            Self::Ehlo => "EHLO",
            Self::Helo => "HELO",
            Self::StartTls => "STARTTLS",
            Self::Noop => "NOOP",
            Self::Rset => "RSET",
            Self::Auth => "AUTH",
            Self::Mail => "MAIL FROM",
            Self::Rcpt => "RCPT TO",
            Self::Data => "DATA",
            Self::MailData => "mail data",
            Self::EndOfData => "end of data",
            Self::Quit => "QUIT",
            Self::Nothing => "no command",
        }
    }
}

impl fmt::Display for CommandName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

fn put_message_wishes(line: &mut BytesMut, wishes: &MessageWishes) {
    if let Some(extent) = wishes.extent {
        put(line, &[" RET=", &extent.to_string()]);
    }
    if let Some(id) = &wishes.envelope_id {
        put(line, &[" ENVID=", &xtext(id.as_str())]);
    }
}

fn put_recipient_wishes(line: &mut BytesMut, wishes: &DsnWishes) {
    if let Some(notify) = wishes.notify {
        put(line, &[" NOTIFY=", &notify.to_string()]);
    }
    if let Some(recipient) = &wishes.original_recipient {
        put(line, &[" ORCPT=", &recipient.parameter()]);
    }
}

fn put(line: &mut BytesMut, parts: &[&str]) {
    for part in parts {
        line.extend(part.bytes().filter(|octet| !octet.is_ascii_control()));
    }
}

fn decimal(number: u64) -> String {
    alloc::format!("{number}")
}

#[cfg(test)]
mod tests;
