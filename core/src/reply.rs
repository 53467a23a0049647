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

/// How much of a line of a reply is kept, in octets without its line feed. RFC 5321 section 4.5.3.1.5 allows 512; real
/// servers exceed that, in lists of extensions and in texts with long links.
pub const REPLY_LINE_LIMIT_OCTETS: usize = 2048;
/// How many lines of one reply are kept.
pub const REPLY_LINES_LIMIT: usize = 128;
/// How many octets of one reply are kept, all lines together.
pub const REPLY_LIMIT_OCTETS: usize = 64 * 1024;
/// Most octets of one reply, kept or not: a server that goes on for so long will never come to an end.
pub const REPLY_BOUND_OCTETS: usize = 1024 * 1024;
/// Stands at the end of the text of a reply that was cut.
const CUT_MARK: &str = " […]";

/// The three digits of a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReplyCode(u16);

impl ReplyCode {
    /// Closing the transmission channel: the reply to QUIT (RFC 5321 section 4.2.3).
    pub const SERVICE_CLOSING: Self = Self(221);
    /// Closing the transmission channel: said in reply to any command (RFC 5321 section 3.8).
    pub const SERVICE_NOT_AVAILABLE: Self = Self(421);
    /// Too many recipients, or no room (RFC 5321 section 4.5.3.1.10).
    pub const INSUFFICIENT_STORAGE: Self = Self(452);
    /// What older servers say for too many recipients (RFC 5321 section 4.5.3.1.10).
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

    /// The code with these three digits; nothing if they are more.
    pub const fn new(code: u16) -> Option<Self> {
        if code <= 999 { Some(Self(code)) } else { None }
    }

    /// The number.
    pub const fn as_u16(self) -> u16 {
        self.0
    }

    /// Returns what the first digit says: all that a decision may hang on where the code is unknown (RFC 5321 section 4.2).
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
    /// 4yz: refused for now.
    Transient,
    /// 5yz: refused for good.
    Permanent,
    /// Any other digit: no meaning in SMTP.
    Unknown,
}

/// A reply, or its beginning where it is too long to be kept: the code is that of every line. Cheap to clone: the text
/// is shared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    code: ReplyCode,
    lines: Arc<[Box<[u8]>]>,
    is_cut: bool,
    enhanced: Option<EnhancedStatus>,
}

impl Reply {
    /// A reply with these lines, which hold what stands behind code and separator.
    pub fn new(code: ReplyCode, lines: Vec<Box<[u8]>>) -> Self {
        // It should stand in every line; some servers put only one of their own below what they quote.
        let enhanced = lines.iter().find_map(|line| enhanced_status(code, line));
        Self { code, lines: lines.into(), is_cut: false, enhanced }
    }

    /// The three digits.
    pub fn code(&self) -> ReplyCode {
        self.code
    }

    /// The meaning of the first digit.
    pub fn class(&self) -> ReplyClass {
        self.code.class()
    }

    /// Returns whether the server said more than was kept.
    pub fn is_cut(&self) -> bool {
        self.is_cut
    }

    /// The raw text of each line, without code, separator and line end; at least one line.
    pub fn lines(&self) -> impl Iterator<Item = &[u8]> {
        self.lines.iter().map(|line| &**line)
    }

    /// Returns how many octets its lines have, without codes and line ends.
    pub fn octets(&self) -> usize {
        self.lines.iter().map(|line| line.len()).sum()
    }

    /// The enhanced status code of a 2yz, 4yz or 5yz reply (RFC 2034 section 4), if its class agrees with the code.
    pub fn enhanced(&self) -> Option<EnhancedStatus> {
        self.enhanced
    }

    /// Returns whether it says that the connection is not fit for what was asked: TLS or AUTH comes first (RFC 3207 section 4,
    /// RFC 4954 section 6), or encryption is needed (`5.7.10` in the registry of RFC 5248).
    pub fn is_about_the_channel(&self) -> bool {
        let needs_encryption = |code: EnhancedStatus| (code.class, code.subject, code.detail) == (5, 7, 10);
        matches!(self.code, ReplyCode::AUTH_REQUIRED | ReplyCode::ENCRYPTION_REQUIRED)
            || self.enhanced.is_some_and(needs_encryption)
    }

    /// The server's own words, code first, every line: what is not UTF-8 and what controls a terminal is replaced. A
    /// reply that was cut ends with `[…]`.
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

    /// The same reply with masked text: servers echo command lines. What it means is unchanged.
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

/// What a server sends instead of a reply.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum ReplyError {
    /// Beyond [`REPLY_BOUND_OCTETS`].
    #[error("the server sent a reply of more than {REPLY_BOUND_OCTETS} octets")]
    Endless,
    /// The lines of a reply all begin with the same code (RFC 5321 section 4.2.1).
    #[error("the server changed the code within a reply from {0} to {1}")]
    CodeChanged(ReplyCode, ReplyCode),
    /// A line that does not begin with three digits and a separator.
    #[error("the server sent a line that is no SMTP reply")]
    NotAReply,
}

/// Takes octets as they arrive and gives replies. The first error stays.
///
/// Of a reply beyond the limits of length it keeps the beginning, and reads on to its last line.
#[derive(Debug, Default)]
pub struct ReplyParser {
    /// The beginning of the line that is not yet complete. It holds no line feed, so it is never searched again.
    partial: Vec<u8>,
    /// The complete lines of the reply that is not yet complete, as far as they are kept.
    lines: Vec<Box<[u8]>>,
    /// Their code; there is one with the first complete line.
    code: Option<ReplyCode>,
    /// What the lines that are kept take, line feeds included.
    kept_octets: usize,
    /// What was received of the reply.
    octets: usize,
    /// True if some of the line that is not yet complete was not kept.
    line_is_cut: bool,
    /// True if some of the complete lines was not kept. Nothing behind it is kept either.
    is_cut: bool,
    error: Option<ReplyError>,
}

impl ReplyParser {
    /// Takes octets from the front of `octets` up to the end of a reply, or all of them.
    ///
    /// To be called until it returns nothing; then `octets` is empty.
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

    /// Returns whether no part of a reply is waiting for its rest.
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
        // A bare line feed is tolerated as the end of a line: it cannot be taken for anything else.
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

/// Code, whether it is the last line, and text: `250-text`, `250 text`, and `250` alone (RFC 5321 section 4.2.1).
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

/// RFC 2034 section 4: the class of the enhanced code agrees with the first digit of the reply code.
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
