//! SMTP replies (RFC 5321 section 4.2), parsed from whatever octets a server sends.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt::{self, Write as _};
use core::mem;

use thiserror::Error;

use crate::secrets::Secrets;
use crate::status::EnhancedStatus;

/// Octets of a line of a reply that are kept, without its line feed. RFC 5321 section 4.5.3.1.5 allows 512; real servers exceed
/// that in lists of extensions and in texts with long links.
pub const REPLY_LINE_LIMIT_OCTETS: usize = 2048;
/// Lines of one reply that are kept.
pub const REPLY_LINES_LIMIT: usize = 128;
/// Octets of one reply that are kept, all lines together.
pub const REPLY_LIMIT_OCTETS: usize = 64 * 1024;
/// Most octets of one reply, kept or not. A server that exceeds this will not come to an end.
pub const REPLY_BOUND_OCTETS: usize = 1024 * 1024;
/// Marks the end of the text of a reply that was cut.
const CUT_MARK: &str = " […]";

/// The three digits of a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReplyCode(u16);

impl ReplyCode {
    /// Closing the transmission channel: the reply to QUIT (RFC 5321 section 4.2.3).
    pub const SERVICE_CLOSING: Self = Self(221);
    /// Closing the transmission channel, in reply to any command (RFC 5321 section 3.8).
    pub const SERVICE_NOT_AVAILABLE: Self = Self(421);
    /// Too many recipients, or no room (RFC 5321 section 4.5.3.1.10).
    pub const INSUFFICIENT_STORAGE: Self = Self(452);
    /// Too many recipients, as older servers say it (RFC 5321 section 4.5.3.1.10).
    pub const EXCEEDED_STORAGE: Self = Self(552);
    /// The command is not known (RFC 5321 section 4.2.3).
    pub const SYNTAX_ERROR: Self = Self(500);
    /// The command is not implemented (RFC 5321 section 4.2.4).
    pub const COMMAND_NOT_IMPLEMENTED: Self = Self(502);
    /// The command is not expected here (RFC 5321 section 4.2.2).
    pub const BAD_SEQUENCE_OF_COMMANDS: Self = Self(503);
    /// A challenge of an authentication exchange (RFC 4954 section 4).
    pub const AUTH_CHALLENGE: Self = Self(334);
    /// The authentication mechanism is not supported (RFC 4954 section 4).
    pub const AUTH_MECHANISM_UNKNOWN: Self = Self(504);
    /// The mechanism is too weak for this user (RFC 4954 section 6).
    pub const AUTH_MECHANISM_TOO_WEAK: Self = Self(534);
    /// The credentials are not valid (RFC 4954 section 6).
    pub const AUTH_CREDENTIALS_INVALID: Self = Self(535);
    /// Authentication, or TLS, comes first (RFC 4954 section 6, RFC 3207 section 4).
    pub const AUTH_REQUIRED: Self = Self(530);
    /// The mechanism needs TLS (RFC 4954 section 6).
    pub const ENCRYPTION_REQUIRED: Self = Self(538);

    /// Returns the code with these three digits, or `None` if the number has more.
    pub const fn new(code: u16) -> Option<Self> {
        if code <= 999 { Some(Self(code)) } else { None }
    }

    /// Returns the number.
    pub const fn as_u16(self) -> u16 {
        self.0
    }

    /// Returns the meaning of the first digit: a client may decide only by it if it does not know the code (RFC 5321 section
    /// 4.2).
    pub const fn class(self) -> ReplyClass {
        match self.0 / 100 {
            2 => ReplyClass::Completed,
            3 => ReplyClass::Intermediate,
            4 => ReplyClass::Transient,
            5 => ReplyClass::Permanent,
            _ => ReplyClass::Unknown,
        }
    }
}

impl fmt::Display for ReplyCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:03}", self.0)
    }
}

/// The meaning of the first digit of a reply (RFC 5321 section 4.2.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplyClass {
    /// 2yz: done.
    Completed,
    /// 3yz: go on.
    Intermediate,
    /// 4yz: refused temporarily.
    Transient,
    /// 5yz: refused permanently.
    Permanent,
    /// Any other digit: no meaning in SMTP.
    Unknown,
}

/// A reply, or the beginning of one that is too long. All its lines have its code. Cheap to clone, because the text is shared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    code: ReplyCode,
    lines: Arc<[Box<[u8]>]>,
    is_cut: bool,
    enhanced: Option<EnhancedStatus>,
}

impl Reply {
    /// Returns a reply with these lines, which contain the text after code and separator.
    pub fn new(code: ReplyCode, lines: Vec<Box<[u8]>>) -> Self {
        // It should be in every line. Some servers have one only in their own line, below a quoted reply.
        let enhanced = lines.iter().find_map(|line| enhanced_status(code, line));
        Self { code, lines: lines.into(), is_cut: false, enhanced }
    }

    /// Returns the three digits.
    pub fn code(&self) -> ReplyCode {
        self.code
    }

    /// Returns the meaning of the first digit.
    pub fn class(&self) -> ReplyClass {
        self.code.class()
    }

    /// Returns whether the server sent more than was kept.
    pub fn is_cut(&self) -> bool {
        self.is_cut
    }

    /// Returns the raw text of each line, without code, separator and line end: at least one line.
    pub fn lines(&self) -> impl Iterator<Item = &[u8]> {
        self.lines.iter().map(|line| &**line)
    }

    /// Returns the total octets of its lines, without codes and line ends.
    pub fn octets(&self) -> usize {
        self.lines.iter().map(|line| line.len()).sum()
    }

    /// Returns the enhanced status code of a 2yz, 4yz or 5yz reply (RFC 2034 section 4), if its class agrees with the code.
    pub fn enhanced(&self) -> Option<EnhancedStatus> {
        self.enhanced
    }

    /// Returns whether it says that the connection is unsuitable for the command: TLS or AUTH comes first (RFC 3207 section 4,
    /// RFC 4954 section 6), or encryption is needed (`5.7.10` in the registry of RFC 5248).
    pub fn is_about_the_channel(&self) -> bool {
        let needs_encryption = |code: EnhancedStatus| (code.class, code.subject, code.detail) == (5, 7, 10);
        matches!(self.code, ReplyCode::AUTH_REQUIRED | ReplyCode::ENCRYPTION_REQUIRED)
            || self.enhanced.is_some_and(needs_encryption)
    }

    /// Returns the server's own words, code first, with every line. Octets that are not UTF-8 or control a terminal are replaced.
    /// A reply that was cut ends with `[…]`.
    pub fn text(&self) -> String {
        let mut text = String::new();
        for (index, line) in self.lines.iter().enumerate() {
            if index > 0 {
                text.push('\n');
            }
            let is_last = index + 1 == self.lines.len();
            let separator = match (is_last, line.is_empty()) {
                (false, _) => "-",
                (true, false) => " ",
                (true, true) => "",
            };
            // Writing to a string cannot fail.
            let _ = write!(text, "{}{separator}", self.code);
            text.extend(String::from_utf8_lossy(line).chars().map(printable));
        }
        if self.is_cut {
            text.push_str(CUT_MARK);
        }
        text
    }

    /// Returns the same reply with masked text, because servers echo command lines. Its meaning is unchanged.
    #[must_use]
    pub fn without(&self, secrets: &Secrets) -> Self {
        if secrets.is_empty() {
            return self.clone();
        }
        let lines = self.lines.iter().map(|line| secrets.mask_line(line)).collect();
        Self { lines, ..self.clone() }
    }
}

impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text())
    }
}

/// The reason why octets of a server are not a reply.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum ReplyError {
    /// Beyond [`REPLY_BOUND_OCTETS`].
    #[error("the server sent a reply of more than {REPLY_BOUND_OCTETS} octets")]
    Endless,
    /// The lines of a reply have different codes (RFC 5321 section 4.2.1).
    #[error("the server changed the code within a reply from {0} to {1}")]
    CodeChanged(ReplyCode, ReplyCode),
    /// A line that does not begin with three digits and a separator.
    #[error("the server sent a line that is no SMTP reply")]
    NotAReply,
}

/// Parses replies from octets as they arrive. The first error is final.
///
/// It keeps the beginning of a reply beyond the limits of length, and reads on to its last line.
#[derive(Debug, Default)]
pub struct ReplyParser {
    /// The beginning of an incomplete line. It contains no line feed, so it is never searched again.
    partial: Vec<u8>,
    /// The kept lines of an incomplete reply.
    lines: Vec<Box<[u8]>>,
    /// The code of the reply, from its first complete line on.
    code: Option<ReplyCode>,
    /// The octets of the kept lines, with line feeds.
    kept_octets: usize,
    /// The octets of the reply that were received.
    octets: usize,
    /// True if part of the incomplete line was not kept.
    line_is_cut: bool,
    /// True if part of the complete lines was not kept. Nothing after that part is kept either.
    is_cut: bool,
    error: Option<ReplyError>,
}

impl ReplyParser {
    /// Consumes `octets` up to the end of a reply, or all of them.
    ///
    /// Call it until it returns `None`; then `octets` is empty.
    pub fn parse(&mut self, octets: &mut &[u8]) -> Result<Option<Reply>, ReplyError> {
        if let Some(error) = self.error {
            return Err(error);
        }
        let result = self.parse_lines(octets);
        if let Err(error) = result {
            *self = Self { error: Some(error), ..Self::default() };
        }
        result
    }

    /// Returns whether it holds no part of an incomplete reply.
    pub fn is_empty(&self) -> bool {
        self.octets == 0
    }

    fn parse_lines(&mut self, octets: &mut &[u8]) -> Result<Option<Reply>, ReplyError> {
        while !octets.is_empty() {
            let line_feed = memchr::memchr(b'\n', octets);
            let (line, rest) =
                octets.split_at_checked(line_feed.unwrap_or(octets.len())).unwrap_or((octets, &[]));
            self.octets += line.len() + usize::from(line_feed.is_some());
            if self.octets > REPLY_BOUND_OCTETS {
                return Err(ReplyError::Endless);
            }
            self.extend_line(line);
            *octets = rest.split_first().map_or(rest, |(_, rest)| rest);
            if line_feed.is_some()
                && let Some(reply) = self.end_line()?
            {
                return Ok(Some(reply));
            }
        }
        Ok(None)
    }

    fn extend_line(&mut self, octets: &[u8]) {
        let room = REPLY_LINE_LIMIT_OCTETS.saturating_sub(self.partial.len());
        self.line_is_cut |= octets.len() > room;
        self.partial.extend_from_slice(octets.get(..room).unwrap_or(octets));
    }

    fn end_line(&mut self) -> Result<Option<Reply>, ReplyError> {
        let line = mem::take(&mut self.partial);
        let line_is_cut = mem::take(&mut self.line_is_cut);
        // A bare line feed is tolerated as the end of a line, because it is unambiguous.
        let (code, is_last, text) =
            split_line(line.strip_suffix(b"\r").unwrap_or(&line)).ok_or(ReplyError::NotAReply)?;
        match self.code {
            Some(begun) if begun != code => return Err(ReplyError::CodeChanged(begun, code)),
            Some(_) | None => self.code = Some(code),
        }
        if !self.is_cut {
            self.kept_octets += line.len() + 1;
            let has_room = self.lines.len() < REPLY_LINES_LIMIT && self.kept_octets <= REPLY_LIMIT_OCTETS;
            if has_room {
                self.lines.push(text.into());
            }
            self.is_cut = line_is_cut || !has_room;
        }
        if !is_last {
            return Ok(None);
        }
        let Self { lines, is_cut, .. } = mem::take(self);
        Ok(Some(Reply { is_cut, ..Reply::new(code, lines) }))
    }
}

/// Returns the code, whether it is the last line, and the text: `250-text`, `250 text`, and `250` alone (RFC 5321 section 4.2.1).
fn split_line(line: &[u8]) -> Option<(ReplyCode, bool, &[u8])> {
    let (digits, rest) = line.split_at_checked(3)?;
    let mut code = 0;
    for digit in digits {
        if !digit.is_ascii_digit() {
            return None;
        }
        code = code * 10 + u16::from(digit - b'0');
    }
    let code = ReplyCode::new(code)?;
    match rest.split_first() {
        None => Some((code, true, rest)),
        Some((b' ', text)) => Some((code, true, text)),
        Some((b'-', text)) => Some((code, false, text)),
        Some(_) => None,
    }
}

/// Returns the enhanced code. RFC 2034 section 4: its class agrees with the first digit of the reply code.
fn enhanced_status(code: ReplyCode, text: &[u8]) -> Option<EnhancedStatus> {
    let (status, _) = EnhancedStatus::parse_prefix(text)?;
    (u16::from(status.class) == code.as_u16() / 100).then_some(status)
}

fn printable(character: char) -> char {
    match character {
        '\t' => ' ',
        control if control.is_control() => char::REPLACEMENT_CHARACTER,
        other => other,
    }
}

#[cfg(test)]
mod tests;
