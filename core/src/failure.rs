//! The text of a faillog row: how it is written, and what can be read out of one that is stored.
//!
//! A bounce is made long after the attempts that led to it, from stored texts alone, and these may come from earlier
//! versions and other programs. So whatever is read here, it yields something printable.

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::{String, ToString as _};
use alloc::vec::Vec;
use core::net::SocketAddr;

use crate::command::CommandName;
use crate::shown::{ELLIPSIS, one_line, truncated};
use crate::status::EnhancedStatus;

/// Longest text of a faillog row in octets.
pub const TEXT_LIMIT_OCTETS: usize = 4096;

/// Longest line of a reply that is kept, in octets, without its code; a server may send no longer one (RFC 5321
/// section 4.5.3.1.5).
const LINE_LIMIT_OCTETS: usize = 512;
/// Longest host name that is kept, in octets.
const HOST_LIMIT_OCTETS: usize = 255;
/// Longest command that is kept, in octets.
const COMMAND_LIMIT_OCTETS: usize = 400;

/// What has failed where no server spoke. The texts are those that the administrators' tools have always looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum OwnFailure {
    /// The recipient's domain could not be looked up.
    Resolve,
    /// No host of the recipient's domain could be connected to and spoken with.
    ReachMx,
    /// The same of a fixed relay.
    ReachRelay,
}

impl OwnFailure {
    /// The beginning of the text.
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
    /// A server's own words, code first, every line, then the host that said them and the command that it answered:
    /// `550-5.1.1 no\n550 such user\n(mx.example.org [192.0.2.1]:25, in reply to RCPT TO)`.
    ///
    /// `reply` has the lines as they were received. `command` is a verb, an address may follow, a secret never.
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

    /// The fixed text, what exactly has happened, and the status that a bounce will give:
    /// `Failed to reach any MX: mx.example.org [192.0.2.1]:25: connection refused [4.4.1]`.
    pub fn own(failure: OwnFailure, status: EnhancedStatus, detail: &str) -> String {
        with_status(&format!("{}: {detail}", failure.as_str()), status)
    }

    /// A text for which there is no fixed beginning, such as a message that is too long for a server.
    pub fn free(status: EnhancedStatus, text: &str) -> String {
        if split_code(&on_one_line(text)).is_some() {
            // Nobody shall take our words for a server's.
            return with_status(&format!("Failed: {text}"), status);
        }
        with_status(text, status)
    }
}

/// A server's reply, as a stored text has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredReply {
    /// The code, 200 to 599.
    pub code: u16,
    /// The text of each line, without the code: at least one.
    pub lines: Vec<String>,
}

/// The server of a stored text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredRemote {
    /// Its name, or its address if it has none. It contains no white space.
    pub host: String,
    /// Address and port, as `[192.0.2.1]:25`.
    pub address: String,
}

/// What can be read out of the text of a faillog row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredFailure {
    /// The server's reply, if it was one that has failed the attempt.
    pub reply: Option<StoredReply>,
    /// The status: the server's, or the one we have given. Its class is that of the reply.
    pub status: Option<EnhancedStatus>,
    /// The server.
    pub remote: Option<StoredRemote>,
    /// The command that the server has answered.
    pub command: Option<String>,
    /// What has failed, if the text begins with one of the fixed ones.
    pub own: Option<OwnFailure>,
    /// The whole text, printable, its lines separated by LF.
    pub text: String,
}

impl StoredFailure {
    /// Reads a text. It never fails: what is not understood remains as text.
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

    /// Whether the message was refused for its content or its size, so that other servers may refuse it too: for good after its
    /// data, or in words that say so (RFC 3463 sections 3.4, 3.7 and 3.8: x.3.4, x.6.z and x.7.z). A policy counts only where a
    /// server has spoken: one of our own is about a connection.
    pub fn is_about_content(&self) -> bool {
        let by_status = self.status.is_some_and(|status| match (status.subject, status.detail) {
            (3, 4) | (6, _) => true,
            (7, _) => self.reply.is_some(),
            _ => false,
        });
        let is_permanent = self.reply.as_ref().is_some_and(|reply| reply.code / 100 == 5);
        let is_to = |name: CommandName| self.command.as_deref() == Some(&*name.to_string());
        by_status || (is_permanent && [CommandName::MailData, CommandName::EndOfData].into_iter().any(is_to))
    }
}

impl StoredReply {
    /// The status at the beginning of the first line that has one. One whose class is not that of the code is none (RFC 2034
    /// section 4).
    fn status(&self) -> Option<EnhancedStatus> {
        let statuses = self.lines.iter().filter_map(|line| EnhancedStatus::parse_prefix(line.as_bytes()));
        statuses.map(|(status, _)| status).find(|status| u16::from(status.class) == self.code / 100)
    }
}

/// As much of a reply as fits, every line with its code.
fn reply_within(reply: &str, limit_octets: usize) -> String {
    let mut code = None;
    let mut lines: Vec<String> = Vec::new();
    for line in reply.trim_end_matches(['\r', '\n']).lines() {
        let line = one_line(line);
        let (line_code, text) = split_code(&line).map_or((None, &*line), |(code, text)| (Some(code), text));
        if lines.is_empty() {
            code = line_code;
        }
        // A line that has another code, or none, keeps what it has, after the code that it should have.
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

/// A text of our own, on one line, and its status.
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

/// The reply at the beginning of a text: the lines that have its code.
fn parse_reply(lines: &[String]) -> Option<StoredReply> {
    let (code, _) = split_code(lines.first()?)?;
    let lines = lines
        .iter()
        .map_while(|line| split_code(line).filter(|(line_code, _)| *line_code == code))
        .map(|(_, text)| text.to_owned())
        .collect();
    Some(StoredReply { code, lines })
}

/// Splits the code from a line of a reply (RFC 5321 section 4.2): the text after it may be missing.
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
mod tests {
    use super::*;
    use proptest::prelude::*;

    const STATUS: EnhancedStatus = EnhancedStatus::new(5, 1, 1);

    fn address() -> SocketAddr {
        "192.0.2.1:25".parse().unwrap()
    }

    fn server(reply: &str) -> String {
        FailureText::server(reply, "mx.example.org", address(), "RCPT TO")
    }

    fn parse(text: &str) -> StoredFailure {
        StoredFailure::parse(text.as_bytes())
    }

    #[test]
    fn a_servers_words_come_first_then_who_it_was_and_what_it_answered() {
        let text = server("550-5.1.1 no such user\r\n550 5.1.1 really\r\n");
        assert_eq!(
            text,
            "550-5.1.1 no such user\n550 5.1.1 really\n(mx.example.org [192.0.2.1]:25, in reply to RCPT TO)"
        );
        let stored = parse(&text);
        let reply = stored.reply.unwrap();
        assert_eq!(
            (reply.code, reply.lines),
            (550, ["5.1.1 no such user", "5.1.1 really"].map(String::from).to_vec())
        );
        assert_eq!(stored.status, Some(STATUS));
        let remote = stored.remote.unwrap();
        assert_eq!((&*remote.host, &*remote.address), ("mx.example.org", "[192.0.2.1]:25"));
        assert_eq!(stored.command.as_deref(), Some("RCPT TO"));
        assert_eq!(stored.text, text);
    }

    #[test]
    fn an_ipv6_server_keeps_its_address() {
        let text =
            FailureText::server("450 later", "[2001:db8::1]", "[2001:db8::1]:25".parse().unwrap(), "DATA");
        let remote = parse(&text).remote.unwrap();
        assert_eq!((&*remote.host, &*remote.address), ("[2001:db8::1]", "[2001:db8::1]:25"));
    }

    #[test]
    fn our_own_texts_begin_as_ever_and_keep_their_status() {
        let text =
            FailureText::own(OwnFailure::ReachMx, EnhancedStatus::NO_ANSWER, "mx.example.org: refused");
        assert_eq!(text, "Failed to reach any MX: mx.example.org: refused [4.4.1]");
        let stored = parse(&text);
        assert_eq!((stored.reply, stored.status), (None, Some(EnhancedStatus::NO_ANSWER)));
        assert_eq!(stored.own, Some(OwnFailure::ReachMx));
    }

    #[test]
    fn our_own_words_are_never_taken_for_a_servers() {
        for text in ["550 5.7.1 not us", "550\nnot us", "550\tnot us", " 550"] {
            let stored = parse(&FailureText::free(STATUS, text));
            assert_eq!((stored.reply, stored.status), (None, Some(STATUS)), "{text:?}");
        }
        let stored =
            parse(&FailureText::free(STATUS, "message too long\n(mx [192.0.2.1]:25, in reply to DATA)"));
        assert_eq!((stored.remote, stored.status), (None, Some(STATUS)));
    }

    #[test]
    fn no_line_of_a_reply_is_taken_for_ours() {
        let text = server("550-no\n(evil.example [203.0.113.1]:25, in reply to DATA)");
        assert_eq!(parse(&text).remote.unwrap().host, "mx.example.org");
        assert!(text.starts_with("550-no\n550 (evil.example"));
    }

    #[test]
    fn a_status_of_another_class_than_the_reply_is_none() {
        // RFC 2034 section 4.
        assert_eq!(parse("450 5.1.1 what?").status, None);
        assert_eq!(parse("450 4.1.1 well").status, Some(EnhancedStatus::new(4, 1, 1)));
        let below = server("550-they say:\n550-4.2.2 full\n550 5.1.1 no");
        assert_eq!(parse(&below).status, Some(EnhancedStatus::new(5, 1, 1)));
    }

    #[test]
    fn a_refusal_for_content_or_size_is_told_from_others() {
        let said = |reply: &str, command: &str| {
            let address = "192.0.2.1:25".parse().unwrap();
            FailureText::server(reply, "mx.example.org", address, command)
        };
        let too_long = FailureText::free(EnhancedStatus::MESSAGE_TOO_LONG, "the message has 5 octets");
        let ours = FailureText::own(OwnFailure::ReachRelay, EnhancedStatus::POLICY, "no TLS");
        for (text, expected) in [
            (said("550 no", "end of data"), true),
            (said("500 Line too long", "mail data"), true),
            (said("451 later", "end of data"), false),
            (said("451 4.7.1 looks like spam", "end of data"), true),
            (said("552 5.3.4 too big", "MAIL FROM"), true),
            (said("550 5.6.1 no 8-bit", "DATA"), true),
            (said("550 5.7.1 virus", "RCPT TO"), true),
            (said("550 5.1.1 who?", "RCPT TO"), false),
            (said("550 5.3.5 oh", "RCPT TO"), false),
            (said("554 no", "DATA"), false),
            (too_long, true),
            (ours, false),
        ] {
            assert_eq!(parse(&text).is_about_content(), expected, "{text}");
        }
    }

    #[test]
    fn texts_of_other_programs_are_understood_as_far_as_possible() {
        let stored = parse("550 User unknown\r\n");
        assert_eq!(
            stored.reply,
            Some(StoredReply { code: 550, lines: ["User unknown".to_owned()].to_vec() })
        );
        assert_eq!((stored.status, stored.remote, stored.command), (None, None, None));

        let stored = parse("Failed to reach any MX");
        assert_eq!((stored.reply, stored.status, stored.own), (None, None, Some(OwnFailure::ReachMx)));

        for text in ["", "5", "550x", "999 what", "5.1.1", "[5.1.1", "x]", "[]", "ends with [192.0.2.1]"] {
            let stored = parse(text);
            assert_eq!((stored.reply, stored.status, stored.remote), (None, None, None), "{text}");
        }
        assert_eq!(StoredFailure::parse(b"gr\xfc\xdfe \0").text, "gr\u{fffd}\u{fffd}e ?");
    }

    #[test]
    fn an_endless_reply_is_cut_between_lines() {
        let reply = "550-all work and no play makes Jack a dull boy\n".repeat(500);
        let text = server(&reply);
        assert!(text.len() <= TEXT_LIMIT_OCTETS && text.len() > TEXT_LIMIT_OCTETS - 200, "{}", text.len());
        assert!(text.contains("\n550 …\n(mx.example.org"));
        let lines = parse(&text).reply.unwrap().lines;
        assert!(lines.iter().rev().skip(1).all(|line| line == "all work and no play makes Jack a dull boy"));
    }

    #[test]
    fn nothing_that_steers_a_terminal_is_stored() {
        let text = server("550 \x1b[2J\rgone\u{85}\u{2028}");
        assert!(text.starts_with("550 ?[2J?gone??\n"), "{text}");
    }

    fn is_storable(text: &str) -> bool {
        text.len() <= TEXT_LIMIT_OCTETS && !text.chars().any(|c| c.is_control() && c != '\n')
    }

    proptest! {
        #[test]
        fn a_servers_reply_survives_being_stored(
            code in 400..600u16,
            lines in prop::collection::vec("([ -~äß€]{0,30}[!-~äß€])?", 1..6),
            host in "[a-z0-9.-]{1,20}",
            octets in any::<[u8; 4]>(),
            port in any::<u16>(),
            command in "[ -~]{0,20}",
        ) {
            let last = lines.len() - 1;
            let reply: Vec<_> = lines.iter().enumerate()
                .map(|(number, line)| format!("{code}{}{line}", if number == last { ' ' } else { '-' }))
                .collect();
            let address = SocketAddr::from((octets, port));
            let text = FailureText::server(&reply.join("\r\n"), &host, address, &command);
            prop_assert!(is_storable(&text));
            let stored = parse(&text);
            prop_assert_eq!(stored.reply, Some(StoredReply { code, lines }));
            let expected = StoredRemote { host, address: format!("[{}]:{port}", address.ip()) };
            prop_assert_eq!(stored.remote, Some(expected));
            prop_assert_eq!(stored.command, Some(command));
            prop_assert_eq!(stored.text, text);
        }

        #[test]
        fn our_own_status_survives_whatever_the_detail(
            detail in "(?s).{0,60}",
            repeat in prop_oneof![Just(1usize), Just(200)],
            class in 4..=5u8,
            subject in 0..1000u16,
            number in 0..1000u16,
        ) {
            let status = EnhancedStatus::new(class, subject, number);
            let detail = detail.repeat(repeat);
            for text in [
                FailureText::own(OwnFailure::Resolve, status, &detail),
                FailureText::free(status, &detail),
            ] {
                prop_assert!(is_storable(&text), "{:?}", text);
                let stored = parse(&text);
                prop_assert_eq!((stored.reply, stored.status, stored.remote), (None, Some(status), None));
            }
        }

        #[test]
        fn every_server_text_is_storable_and_names_the_server(
            reply in "(?s)(.{0,40}|[2-5][0-9]{2}[ -].{0,700}\n){0,8}",
            host in ".{1,300}",
            command in "(?s).{0,500}",
        ) {
            let text = FailureText::server(&reply, &host, address(), &command);
            prop_assert!(is_storable(&text), "{:?}", text);
            let remote = parse(&text).remote;
            prop_assert_eq!(remote.map(|remote| remote.address), Some("[192.0.2.1]:25".to_owned()));
        }

        #[test]
        fn everything_stored_is_printable(octets in prop::collection::vec(any::<u8>(), 0..200)) {
            let stored = StoredFailure::parse(&octets);
            prop_assert!(!stored.text.chars().any(|c| c.is_control() && c != '\n'));
        }
    }
}
