//! Writes the text of a faillog row, and reads stored ones.
//!
//! A bounce is made long after the attempts that led to it, from stored texts alone. These may come from earlier versions and
//! other programs, so reading never fails and yields printable text.

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::net::SocketAddr;

use crate::command::CommandName;
use crate::shown::{ELLIPSIS, one_line, truncated};
use crate::status::EnhancedStatus;

/// Longest text of a faillog row in octets.
pub const TEXT_LIMIT_OCTETS: usize = 4096;

/// Longest line of a reply that is kept, in octets, without its code. A server may send no longer line (RFC 5321 section
/// 4.5.3.1.5).
const LINE_LIMIT_OCTETS: usize = 512;
/// Longest host name that is kept, in octets.
const HOST_LIMIT_OCTETS: usize = 255;
/// Longest command that is kept, in octets.
const COMMAND_LIMIT_OCTETS: usize = 400;

/// The kinds of failures in which no server replied. Tools of administrators have always searched for these texts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum OwnFailure {
    /// The recipient's domain could not be looked up.
    Resolve,
    /// No host of the recipient's domain could be connected to and negotiated with.
    ReachMx,
    /// The same for a fixed relay.
    ReachRelay,
}

impl OwnFailure {
    /// Returns the beginning of the text.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Resolve => "Failed to resolve recipient domain",
            Self::ReachMx => "Failed to reach any MX",
            Self::ReachRelay => "Failed to connect or negotiate with handoff remote",
        }
    }
}

/// Writes the texts of faillog rows: at most [`TEXT_LIMIT_OCTETS`], without control characters but LF between lines.
#[derive(Debug)]
pub struct FailureText;

impl FailureText {
    /// Returns the server's own words, code first, with every line, then its name and address and the command that it answered:
    /// `550-5.1.1 no\n550 such user\n(mx.example.org [192.0.2.1]:25, in reply to RCPT TO)`.
    ///
    /// `reply` has the lines as they were received. `command` is a verb; an address may follow, but never a secret.
    pub fn server(reply: &str, host: &str, address: SocketAddr, command: &str) -> String {
        let host = truncated(
            &host.replace(
                |character: char| !(character.is_ascii_alphanumeric() || ".-_:[]".contains(character)),
                "?",
            ),
            HOST_LIMIT_OCTETS,
        );
        let command = truncated(&one_line(command), COMMAND_LIMIT_OCTETS);
        let origin =
            format!("\n({host} [{}]:{}, in reply to {command})", address.ip().to_canonical(), address.port());
        let mut text = reply_within(reply, TEXT_LIMIT_OCTETS.saturating_sub(origin.len()));
        text.push_str(&origin);
        text
    }

    /// Returns the fixed text, the detail, and the status for a bounce: `Failed to reach any MX: mx.example.org [192.0.2.1]:25:
    /// connection refused [4.4.1]`.
    pub fn own(failure: OwnFailure, status: EnhancedStatus, detail: &str) -> String {
        with_status(&format!("{}: {detail}", failure.as_str()), status)
    }

    /// Returns a text that has no fixed beginning, such as that of a message that is too long for a server.
    pub fn free(status: EnhancedStatus, text: &str) -> String {
        if split_code(&on_one_line(text)).is_some() {
            // Our words must not be taken for a server's.
            return with_status(&format!("Failed: {text}"), status);
        }
        with_status(text, status)
    }
}

/// A server's reply in a stored text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredReply {
    /// The code, 200 to 599.
    pub code: u16,
    /// The text of each line, without the code: at least one.
    pub lines: Vec<String>,
}

/// The server in a stored text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredRemote {
    /// Its name, or its address if it has none. It contains no white space.
    pub host: String,
    /// Address and port, as `[192.0.2.1]:25`.
    pub address: String,
}

/// The contents of a stored faillog text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredFailure {
    /// The server's reply, if a reply has failed the attempt.
    pub reply: Option<StoredReply>,
    /// The status: the server's or ours. Its class is that of the reply.
    pub status: Option<EnhancedStatus>,
    /// The server.
    pub remote: Option<StoredRemote>,
    /// The command that the server answered.
    pub command: Option<String>,
    /// The kind of failure, if the text begins with a fixed one.
    pub own: Option<OwnFailure>,
    /// The whole text, printable, its lines separated by LF.
    pub text: String,
}

impl StoredFailure {
    /// Reads a text. This never fails: a text that is not understood remains as text.
    pub fn parse(octets: &[u8]) -> Self {
        let octets = octets.get(..TEXT_LIMIT_OCTETS).unwrap_or(octets);
        let stored = String::from_utf8_lossy(octets);
        let lines: Vec<_> = stored.trim_end().lines().map(one_line).collect();
        let text = lines.join("\n");
        let origin = lines.last().and_then(|line| parse_origin(line));
        let (remote, command) =
            origin.map_or((None, None), |(remote, command)| (Some(remote), Some(command)));

        let reply = parse_reply(&lines);
        let status = match &reply {
            Some(reply) => reply.status(),
            None => lines.last().and_then(|line| trailing_status(line)),
        };
        let own = [OwnFailure::Resolve, OwnFailure::ReachMx, OwnFailure::ReachRelay]
            .into_iter()
            .find(|own| text.starts_with(own.as_str()));
        Self { reply, status, remote, command, own, text }
    }

    /// Returns whether the message was refused for its content or size, so that other servers may refuse it too: permanently
    /// after its data, or with a status that says so (RFC 3463 sections 3.4, 3.7 and 3.8: x.3.4, x.6.z and x.7.z). A policy
    /// status counts only if it is a server's: ours concern connections.
    pub fn is_about_content(&self) -> bool {
        let by_status = self.status.is_some_and(|status| match (status.subject, status.detail) {
            (3, 4) | (6, _) => true,
            (7, _) => self.reply.is_some(),
            _ => false,
        });
        let is_permanent = self.reply.as_ref().is_some_and(|reply| reply.code / 100 == 5);
        let is_about_data = matches!(self.answered(), Some(CommandName::MailData | CommandName::EndOfData));
        by_status || (is_permanent && is_about_data)
    }

    /// Returns the command that the server answered, if the text names one.
    pub fn answered(&self) -> Option<CommandName> {
        let named = self.command.as_deref()?;
        CommandName::ALL.into_iter().find(|command| named.starts_with(command.name()))
    }
}

impl StoredReply {
    /// Returns the status at the beginning of the first line that has one. It counts only if its class is that of the code (RFC
    /// 2034 section 4).
    fn status(&self) -> Option<EnhancedStatus> {
        let statuses = self.lines.iter().filter_map(|line| EnhancedStatus::parse_prefix(line.as_bytes()));
        statuses.map(|(status, _)| status).find(|status| u16::from(status.class) == self.code / 100)
    }
}

/// Returns as much of a reply as fits, every line with its code.
fn reply_within(reply: &str, limit_octets: usize) -> String {
    let mut code = None;
    let mut lines: Vec<String> = Vec::new();
    for line in reply.trim_end_matches(['\r', '\n']).lines() {
        let line = one_line(line);
        let (line_code, text) = split_code(&line).map_or((None, &*line), |(code, text)| (Some(code), text));
        if lines.is_empty() {
            code = line_code;
        }
        // A line with another code, or without one, is kept whole after the code that it should have.
        let text = if line_code == code { text } else { &line };
        lines.push(truncated(text, LINE_LIMIT_OCTETS));
    }
    if lines.is_empty() {
        lines.push(String::new());
    }
    let prefix_octets = if code.is_some() { "550-\n".len() } else { "\n".len() };
    let mut left_octets = limit_octets.saturating_sub(prefix_octets + ELLIPSIS.len());
    let fitting = lines
        .iter()
        .take_while(|line| {
            let rest = left_octets.checked_sub(line.len() + prefix_octets);
            left_octets = rest.unwrap_or(0);
            rest.is_some()
        })
        .count();
    if fitting < lines.len() {
        lines.truncate(fitting);
        lines.push(ELLIPSIS.to_owned());
    }
    let last = lines.len() - 1;
    let lines: Vec<_> = lines
        .iter()
        .enumerate()
        .map(|(number, text)| match code {
            None => text.clone(),
            Some(code) if number == last => format!("{code} {text}"),
            Some(code) => format!("{code}-{text}"),
        })
        .collect();
    lines.join("\n")
}

/// Returns a text of our own, on one line, with its status.
fn with_status(text: &str, status: EnhancedStatus) -> String {
    let status = format!(" [{status}]");
    let mut text = truncated(&on_one_line(text), TEXT_LIMIT_OCTETS.saturating_sub(status.len()));
    text.push_str(&status);
    text
}

fn on_one_line(text: &str) -> String {
    let lines: Vec<_> = text.lines().map(one_line).collect();
    lines.join(" / ").trim().to_owned()
}

/// Returns the reply at the beginning of a text: the lines that have its code.
fn parse_reply(lines: &[String]) -> Option<StoredReply> {
    let (code, _) = split_code(lines.first()?)?;
    let lines = lines
        .iter()
        .map_while(|line| split_code(line).filter(|(line_code, _)| *line_code == code))
        .map(|(_, text)| text.to_owned())
        .collect();
    Some(StoredReply { code, lines })
}

/// Splits the code from a line of a reply (RFC 5321 section 4.2). The text after it may be missing.
fn split_code(line: &str) -> Option<(u16, &str)> {
    let (code, rest) = line.split_at_checked(3)?;
    if !code.bytes().all(|octet| octet.is_ascii_digit()) {
        return None;
    }
    let text = if rest.is_empty() { rest } else { rest.strip_prefix([' ', '-'])? };
    let code = code.parse().ok().filter(|code| (200..600).contains(code))?;
    Some((code, text))
}

/// Reads `(mx.example.org [192.0.2.1]:25, in reply to RCPT TO)`.
fn parse_origin(line: &str) -> Option<(StoredRemote, String)> {
    let (server, command) = line.strip_prefix('(')?.strip_suffix(')')?.split_once(", in reply to ")?;
    let (host, address) = server.rsplit_once(" [")?;
    if host.is_empty() || host.contains(char::is_whitespace) || address.contains(char::is_whitespace) {
        return None;
    }
    Some((StoredRemote { host: host.to_owned(), address: format!("[{address}") }, command.to_owned()))
}

/// Reads the status at the end of a text of our own.
fn trailing_status(line: &str) -> Option<EnhancedStatus> {
    let (_, status) = line.strip_suffix(']')?.rsplit_once('[')?;
    let (status, octets) = EnhancedStatus::parse_prefix(status.as_bytes())?;
    (octets == line.len() - line.rfind('[')? - 2 && matches!(status.class, 4 | 5)).then_some(status)
}

#[cfg(test)]
mod tests;
