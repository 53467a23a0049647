//! SMTP replies (RFC 5321 section 4.2), parsed from whatever octets a server sends.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt::{self, Write as _};
use core::mem;

use thiserror::Error;

use crate::status::EnhancedStatus;

/// Longest line of a reply in octets without its line feed. RFC 5321 section 4.5.3.1.5 allows 512; real servers
/// exceed that, in lists of extensions and in texts with long links.
pub const REPLY_LINE_LIMIT_OCTETS: usize = 2048;
/// Most lines of one reply.
pub const REPLY_LINES_LIMIT: usize = 128;
/// Most octets of one reply, all lines together.
pub const REPLY_LIMIT_OCTETS: usize = 64 * 1024;
/// So many octets of a secret in a row give something away.
const ECHO_LEAST_OCTETS: usize = 8;

/// The three digits of a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReplyCode(u16);

impl ReplyCode {
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

    /// The code with these three digits; nothing if they are more.
    pub const fn new(code: u16) -> Option<Self> {
        if code <= 999 { Some(Self(code)) } else { None }
    }

    /// The number.
    pub const fn as_u16(self) -> u16 {
        self.0
    }

    /// What the first digit says: all that a decision may hang on where the code is unknown
    /// (RFC 5321 section 4.2).
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

/// A whole reply. Cheap to clone: the text is shared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    code: ReplyCode,
    lines: Arc<[Box<[u8]>]>,
    enhanced: Option<EnhancedStatus>,
}

impl Reply {
    /// A reply with these lines, which hold what stands behind code and separator.
    pub fn new(code: ReplyCode, lines: Vec<Box<[u8]>>) -> Self {
        // It should stand in every line; some servers put only one of their own below what they quote.
        let enhanced = lines.iter().find_map(|line| enhanced_status(code, line));
        Self { code, lines: lines.into(), enhanced }
    }

    /// The three digits.
    pub fn code(&self) -> ReplyCode {
        self.code
    }

    /// The meaning of the first digit.
    pub fn class(&self) -> ReplyClass {
        self.code.class()
    }

    /// The raw text of each line, without code, separator and line end; at least one line.
    pub fn lines(&self) -> impl Iterator<Item = &[u8]> {
        self.lines.iter().map(|line| &**line)
    }

    /// The enhanced status code of a 2yz, 4yz or 5yz reply (RFC 2034 section 4), if its class agrees with the code.
    pub fn enhanced(&self) -> Option<EnhancedStatus> {
        self.enhanced
    }

    /// The server's own words, code first, every line: what is not UTF-8 and what controls a terminal is replaced.
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
        text
    }

    /// The same reply with every occurrence of `secrets` in its text replaced by `***`: servers echo command lines,
    /// and some cut them short or write them in capitals.
    #[must_use]
    pub fn without(&self, secrets: &[Box<[u8]>]) -> Self {
        if secrets.is_empty() {
            return self.clone();
        }
        Self::new(self.code, self.lines.iter().map(|line| without_secrets(line, secrets)).collect())
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
    /// Beyond [`REPLY_LINE_LIMIT_OCTETS`].
    #[error("the server sent a reply line of more than {REPLY_LINE_LIMIT_OCTETS} octets")]
    LineTooLong,
    /// Beyond [`REPLY_LINES_LIMIT`].
    #[error("the server sent a reply of more than {REPLY_LINES_LIMIT} lines")]
    TooManyLines,
    /// Beyond [`REPLY_LIMIT_OCTETS`].
    #[error("the server sent a reply of more than {REPLY_LIMIT_OCTETS} octets")]
    TooManyOctets,
    /// The lines of a reply all begin with the same code (RFC 5321 section 4.2.1).
    #[error("the server changed the code within a reply from {0} to {1}")]
    CodeChanged(ReplyCode, ReplyCode),
    /// A line that does not begin with three digits and a separator.
    #[error("the server sent a line that is no SMTP reply")]
    NotAReply,
}

/// Takes octets as they arrive and gives replies. The first error stays.
#[derive(Debug, Default)]
pub struct ReplyParser {
    /// The beginning of the line that is not yet complete. It holds no line feed, so it is never searched again.
    partial: Vec<u8>,
    /// The complete lines of the reply that is not yet complete.
    lines: Vec<Box<[u8]>>,
    /// Their code; meaningless while there are none.
    code: Option<ReplyCode>,
    /// What they take, line feeds included.
    octets: usize,
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

    /// Whether no part of a reply is waiting for its rest.
    pub fn is_empty(&self) -> bool {
        self.partial.is_empty() && self.lines.is_empty()
    }

    fn parse_lines(&mut self, octets: &mut &[u8]) -> Result<Option<Reply>, ReplyError> {
        while !octets.is_empty() {
            let line_feed = memchr::memchr(b'\n', octets);
            let (line, rest) =
                octets.split_at_checked(line_feed.unwrap_or(octets.len())).unwrap_or((octets, &[]));
            if self.partial.len() + line.len() > REPLY_LINE_LIMIT_OCTETS {
                return Err(ReplyError::LineTooLong);
            }
            self.partial.extend_from_slice(line);
            *octets = rest.split_first().map_or(rest, |(_, rest)| rest);
            if line_feed.is_some() {
                let line = mem::take(&mut self.partial);
                if let Some(reply) = self.take_line(&line)? {
                    return Ok(Some(reply));
                }
            }
        }
        Ok(None)
    }

    fn take_line(&mut self, line: &[u8]) -> Result<Option<Reply>, ReplyError> {
        self.octets += line.len() + 1;
        if self.octets > REPLY_LIMIT_OCTETS {
            return Err(ReplyError::TooManyOctets);
        }
        // A bare line feed is tolerated as the end of a line: it cannot be taken for anything else.
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let (code, is_last, text) = split_line(line).ok_or(ReplyError::NotAReply)?;
        match self.code {
            Some(begun) if begun != code => return Err(ReplyError::CodeChanged(begun, code)),
            Some(_) | None => self.code = Some(code),
        }
        if self.lines.len() == REPLY_LINES_LIMIT {
            return Err(ReplyError::TooManyLines);
        }
        self.lines.push(text.into());
        if !is_last {
            return Ok(None);
        }
        self.code = None;
        self.octets = 0;
        Ok(Some(Reply::new(code, mem::take(&mut self.lines))))
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

/// The text with every occurrence of `secrets`, and of any part of one that is long enough to be of use, replaced by
/// `***`.
pub(crate) fn without_secrets(text: &[u8], secrets: &[Box<[u8]>]) -> Box<[u8]> {
    secrets.iter().fold(text.into(), |text, secret| mask(&text, secret))
}

fn mask(text: &[u8], secret: &[u8]) -> Box<[u8]> {
    let (folded, secret) = (text.to_ascii_lowercase(), secret.to_ascii_lowercase());
    let (mut masked, mut at) = (Vec::with_capacity(text.len()), 0);
    while let Some(octet) = text.get(at) {
        match echo_octets(folded.get(at..).unwrap_or_default(), &secret) {
            0 => {
                masked.push(*octet);
                at += 1;
            }
            echo => {
                masked.extend_from_slice(b"***");
                at += echo;
            }
        }
    }
    masked.into()
}

/// How many octets at the beginning of `text` are a part of `secret` that is not to be shown.
fn echo_octets(text: &[u8], secret: &[u8]) -> usize {
    let Some(beginning) = text.get(..secret.len().min(ECHO_LEAST_OCTETS)) else { return 0 };
    memchr::memmem::find_iter(secret, beginning)
        .filter_map(|from| secret.get(from..))
        .map(|part| part.iter().zip(text).take_while(|(ours, theirs)| ours == theirs).count())
        .max()
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;
    use proptest::prelude::*;

    fn parse_all(mut octets: &[u8]) -> (Vec<Reply>, Option<ReplyError>) {
        let mut parser = ReplyParser::default();
        let mut replies = Vec::new();
        loop {
            match parser.parse(&mut octets) {
                Ok(Some(reply)) => replies.push(reply),
                Ok(None) => return (replies, None),
                Err(error) => return (replies, Some(error)),
            }
        }
    }

    fn parse_in_pieces(octets: &[u8], piece: usize) -> (Vec<Reply>, Option<ReplyError>) {
        let mut parser = ReplyParser::default();
        let mut replies = Vec::new();
        for mut piece in octets.chunks(piece) {
            loop {
                match parser.parse(&mut piece) {
                    Ok(Some(reply)) => replies.push(reply),
                    Ok(None) => break,
                    Err(error) => return (replies, Some(error)),
                }
            }
        }
        (replies, None)
    }

    fn one(octets: &[u8]) -> Reply {
        let (mut replies, error) = parse_all(octets);
        assert_eq!((replies.len(), error), (1, None), "{}", octets.escape_ascii());
        replies.remove(0)
    }

    fn error(octets: &[u8]) -> ReplyError {
        parse_all(octets).1.unwrap()
    }

    #[test]
    fn multi_line_replies_are_one_also_without_text() {
        // RFC 5321 section 4.2.1
        let reply = one(b"250-first\r\n250-\r\n250\r\n");
        assert_eq!(reply.code().as_u16(), 250);
        assert_eq!(reply.lines().collect::<Vec<_>>(), [&b"first"[..], b"", b""]);
        assert_eq!(reply.text(), "250-first\n250-\n250");
        assert_eq!(one(b"220 \r\n").text(), "220");
    }

    #[test]
    fn bare_line_feeds_end_lines_and_odd_octets_are_text() {
        let reply = one(b"550-a\0b\n550 \xff\x1b[2J\tx\n");
        assert_eq!(reply.lines().collect::<Vec<_>>(), [&b"a\0b"[..], b"\xff\x1b[2J\tx"]);
        assert_eq!(reply.text(), "550-a\u{fffd}b\n550 \u{fffd}\u{fffd}[2J x");
    }

    #[test]
    fn enhanced_codes_are_taken_only_where_they_have_a_meaning() {
        // RFC 2034 section 4
        assert_eq!(one(b"550 5.1.1 no\r\n").enhanced(), Some(EnhancedStatus::new(5, 1, 1)));
        assert_eq!(one(b"250-2.1.5 yes\r\n250 x\r\n").enhanced(), Some(EnhancedStatus::new(2, 1, 5)));
        let below = one(b"550-they say:\r\n550-4.2.2 full\r\n550 5.1.1 no\r\n");
        assert_eq!(below.enhanced(), Some(EnhancedStatus::new(5, 1, 1)));
        for text in ["354 2.0.0 go", "450 5.1.1 contradiction", "250 no code", "550 x\r\n"] {
            assert_eq!(one(format_line(text).as_bytes()).enhanced(), None, "{text}");
        }
    }

    fn format_line(text: &str) -> String {
        alloc::format!("{}\r\n", text.trim_end())
    }

    #[test]
    fn every_misbehaviour_has_its_name() {
        assert_eq!(error(b"hello\r\n"), ReplyError::NotAReply);
        assert_eq!(error(b"\r\n"), ReplyError::NotAReply);
        assert_eq!(error(b"25\r\n"), ReplyError::NotAReply);
        assert_eq!(error(b"250=x\r\n"), ReplyError::NotAReply);
        assert_eq!(error(b"2 50 x\r\n"), ReplyError::NotAReply);
        let code = |code| ReplyCode::new(code).unwrap();
        assert_eq!(error(b"250-a\r\n550 b\r\n"), ReplyError::CodeChanged(code(250), code(550)));
        assert_eq!(error(&vec![b'2'; REPLY_LINE_LIMIT_OCTETS + 1]), ReplyError::LineTooLong);
        assert_eq!(error(&b"250-\r\n".repeat(REPLY_LINES_LIMIT + 1)), ReplyError::TooManyLines);
        let long = [&b"250-"[..], &[b'a'; 2000], b"\r\n"].concat();
        assert_eq!(error(&long.repeat(REPLY_LIMIT_OCTETS / long.len() + 1)), ReplyError::TooManyOctets);
    }

    #[test]
    fn the_first_error_stays() {
        let mut parser = ReplyParser::default();
        assert!(parser.parse(&mut &b"what\r\n"[..]).is_err());
        assert_eq!(parser.parse(&mut &b"250 fine\r\n"[..]), Err(ReplyError::NotAReply));
    }

    #[test]
    fn the_limits_are_those_of_one_reply() {
        let octets = b"250 ok\r\n".repeat(REPLY_LIMIT_OCTETS);
        assert_eq!(parse_all(&octets), (vec![one(b"250 ok\r\n"); REPLY_LIMIT_OCTETS], None));
    }

    #[test]
    fn a_reply_at_its_limits_is_taken() {
        let line = [&b"250 "[..], &vec![b'a'; REPLY_LINE_LIMIT_OCTETS - 5], b"\r\n"].concat();
        assert_eq!(one(&line).lines().next().unwrap().len(), REPLY_LINE_LIMIT_OCTETS - 5);
        let lines = [b"250-\r\n".repeat(REPLY_LINES_LIMIT - 1), b"250 \r\n".to_vec()].concat();
        assert_eq!(one(&lines).lines().count(), REPLY_LINES_LIMIT);
    }

    #[test]
    fn secrets_are_masked_wherever_they_are_echoed() {
        let secrets = [Box::from(&b"c2VjcmV0"[..]), Box::from(&b"hunter2"[..])];
        let reply = one(b"500-AUTH PLAIN c2VjcmV0 c2VjcmV0?\r\n500 hunter2\r\n").without(&secrets);
        assert_eq!(reply.text(), "500-AUTH PLAIN *** ***?\n500 ***");
    }

    #[test]
    fn an_echo_that_was_cut_short_or_put_into_other_case_is_masked_too() {
        let secrets = [Box::from(&b"AHVzZXIAcGFzcy13b3Jk"[..]), Box::from(&b"tiger"[..])];
        for (echo, masked) in [
            ("500 What is \"AUTH PLAIN AHVzZXIAcGFz...\"?", "500 What is \"AUTH PLAIN ***...\"?"),
            ("500 AHVzZXIA...zcy13b3Jk", "500 ***...***"),
            ("500 AUTH PLAIN AHVZZXIACGFZCY13B3JK", "500 AUTH PLAIN ***"),
            ("500 AHVzZXI TIGER tige", "500 AHVzZXI *** tige"),
        ] {
            assert_eq!(one(format_line(echo).as_bytes()).without(&secrets).text(), masked);
        }
    }

    fn reply_like() -> impl Strategy<Value = Vec<u8>> {
        let line = prop_oneof![
            Just(&b"250-ok\r\n"[..]),
            Just(&b"250 ok\r\n"[..]),
            Just(&b"550\n"[..]),
            Just(&b"354 5.1.1 \0\xff\r\n"[..]),
            Just(&b"250 a\rb\r\r\n"[..]),
            Just(&b"x\r\n"[..]),
            Just(&b"250-"[..]),
        ];
        prop::collection::vec(line, 0..12).prop_map(|lines| lines.concat())
    }

    proptest! {
        #[test]
        fn pieces_make_no_difference(octets in reply_like(), piece in 1..7_usize) {
            prop_assert_eq!(parse_in_pieces(&octets, piece), parse_all(&octets));
        }

        #[test]
        fn pieces_of_rubbish_make_no_difference(
            octets in prop::collection::vec(any::<u8>(), 0..200), piece in 1..50_usize,
        ) {
            prop_assert_eq!(parse_in_pieces(&octets, piece), parse_all(&octets));
        }
    }
}
