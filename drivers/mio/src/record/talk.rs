//! Translates the octets of one connection to lines of a record.

use std::collections::VecDeque;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use cmail_delivery::io::ConnectionId;
use cmail_delivery::sasl::SCRAM_ITERATION_LIMIT;

use super::lines::{Given, Lines};
use super::mask::Mask;

/// Longest line that is kept until its end comes.
const LINE_LIMIT_OCTETS: usize = 8 * 1024;

/// The last command of the client, as far as it matters for the reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Said {
    Nothing,
    Ehlo,
    Auth { is_scram: bool },
    Data,
    Else,
}

/// The calls of the dispatcher in which something happened last.
#[derive(Debug, Default)]
struct Turns {
    /// The client sent something.
    said_in: Option<u64>,
    /// The server did.
    heard_in: Option<u64>,
    /// A message got its verdict while other replies were due: the client may go on at once.
    decided_in: Option<u64>,
}

/// A connection.
#[derive(Debug)]
pub(super) struct Talk {
    pub(super) connection: ConnectionId,
    /// Whether the TCP connection is established.
    pub(super) is_made: bool,
    /// Whether anything was given since.
    pub(super) is_used: bool,
    /// Whether a TLS handshake is under way.
    pub(super) is_handshaking: bool,
    /// Whether the client gives it up because others need its place.
    pub(super) is_given_up: bool,
    said: Said,
    /// Whether the client has said QUIT.
    pub(super) has_quit: bool,
    /// How many lines of the reply to EHLO were given.
    ehlo_lines: u32,
    /// The beginning of a line.
    partial: Vec<u8>,
    turns: Turns,
    /// The replies that are still to come, each with whether it answers a whole message.
    expected: VecDeque<bool>,
    data: Option<MailData>,
}

/// A message that is being sent.
#[derive(Debug)]
struct MailData {
    octets: u64,
    /// Its last octets, by which its end is known.
    tail: Vec<u8>,
    /// The slot of the server's 354.
    position: usize,
}

impl MailData {
    fn new(lines: &Lines) -> Self {
        Self { octets: 0, tail: b"\r\n".to_vec(), position: lines.position() }
    }
}

/// What the record has to know about a command.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Told {
    /// A transaction begins, with the path as it is in the command.
    Mail(String),
    /// The message has ended; its octets, with the final dot.
    FinalDot(u64),
    Nothing,
}

impl Talk {
    pub(super) fn new(connection: ConnectionId) -> Self {
        Self {
            connection,
            is_made: false,
            is_used: false,
            is_handshaking: false,
            is_given_up: false,
            said: Said::Nothing,
            has_quit: false,
            ehlo_lines: 0,
            partial: Vec::new(),
            turns: Turns::default(),
            // The greeting.
            expected: VecDeque::from([false]),
            data: None,
        }
    }

    /// Returns whether the server has sent something in this call.
    pub(super) fn has_heard_in(&self, call: u64) -> bool {
        self.turns.heard_in == Some(call)
    }

    /// Takes in octets of the server, as the core has read them.
    pub(super) fn received(&mut self, octets: &[u8], call: u64, lines: &mut Lines, mask: &mut Mask) {
        for piece in octets.split_inclusive(|&octet| octet == b'\n') {
            self.partial.extend_from_slice(piece);
            if piece.ends_with(b"\n") {
                self.flush(call, lines, mask);
            }
        }
        if self.partial.len() > LINE_LIMIT_OCTETS {
            self.flush(call, lines, mask);
        }
    }

    /// Records the beginning of a line, although its end is missing.
    pub(super) fn flush(&mut self, call: u64, lines: &mut Lines, mask: &mut Mask) {
        let partial = std::mem::take(&mut self.partial);
        if !partial.is_empty() {
            self.give(&partial, call, lines, mask);
        }
    }

    fn give(&mut self, line: &[u8], call: u64, lines: &mut Lines, mask: &mut Mask) {
        self.is_used = true;
        let octets = self.masked(line, mask);
        // A replay must not let the client go on between what was read together.
        let is_unexpected = self.expected.is_empty() && self.turns.heard_in == Some(call);
        if self.turns.said_in == Some(call) || self.turns.decided_in == Some(call) || is_unexpected {
            lines.give_joined(&octets);
        } else {
            lines.give(Given::Server { octets, is_joined: false });
        }
        self.turns.heard_in = Some(call);
        if line.get(3) != Some(&b'-') {
            let is_decided = self.expected.pop_front().unwrap_or_default();
            if is_decided && !self.expected.is_empty() {
                self.turns.decided_in = Some(call);
            }
        }
        if self.said == Said::Data && line.starts_with(b"3") && line.get(3) != Some(&b'-') {
            self.data = Some(MailData::new(lines));
        }
    }

    /// Takes in a command line, whose secrets are already masked.
    pub(super) fn sent(&mut self, octets: &[u8], call: u64, lines: &mut Lines, mask: &mut Mask) -> Told {
        let line = String::from_utf8_lossy(octets);
        let line = line.trim_end_matches(['\r', '\n']);
        self.turns.said_in = Some(call);
        if line == "*" {
            self.spoil_proof(lines);
        }
        let verb = line.split([' ', ':']).next().unwrap_or_default();
        if verb == "." {
            // The end of an empty message without recipients.
            return self.sent_data(octets, call, lines);
        }
        self.expected.push_back(false);
        self.said = match verb {
            "EHLO" => Said::Ehlo,
            "AUTH" => Said::Auth { is_scram: line.contains(" SCRAM-") },
            "***" | "*" => self.said,
            "DATA" => Said::Data,
            _ => Said::Else,
        };
        self.has_quit |= verb == "QUIT";
        self.ehlo_lines = 0;
        lines.client(call, format!("C: {}", mask.command(line).as_bytes().escape_ascii()));
        if verb == "MAIL" {
            let path = line.split_once('<').and_then(|(_, path)| path.rsplit_once('>'));
            return Told::Mail(path.map_or_else(String::new, |(path, _)| path.to_owned()));
        }
        Told::Nothing
    }

    /// Takes in mail data, of which only the length and the end are recorded.
    pub(super) fn sent_data(&mut self, octets: &[u8], call: u64, lines: &mut Lines) -> Told {
        let Some(data) = &mut self.data else { return Told::Nothing };
        data.octets += octets.len() as u64;
        data.tail.extend_from_slice(octets);
        let surplus = data.tail.len().saturating_sub(5);
        data.tail.drain(..surplus);
        let octets = data.octets;
        if !data.tail.ends_with(b"\r\n.\r\n") {
            return Told::Nothing;
        }
        self.expected.push_back(true);
        self.data = None;
        lines.client(call, format!("C. {octets} octets, final dot"));
        Told::FinalDot(octets)
    }

    /// Ends the connection, and records how much of an unfinished message was sent.
    pub(super) fn end(&mut self, call: u64, lines: &mut Lines) {
        if let Some(data) = self.data.take() {
            lines.client(call, format!("C. {} octets, no final dot", data.octets));
            lines.give_before(data.position, format!("! takes {}", data.octets));
        }
    }

    /// Notes that TLS is established, and drops a half received line.
    pub(super) fn tls_established(&mut self) {
        self.partial.clear();
        self.is_handshaking = false;
    }

    /// Masks a line of the server.
    fn masked(&mut self, line: &[u8], mask: &mut Mask) -> Vec<u8> {
        let end = line.iter().rposition(|octet| !matches!(octet, b'\r' | b'\n')).map_or(0, |last| last + 1);
        let (line, line_end) = line.split_at(end);
        let line = String::from_utf8_lossy(line);
        let has_code = line.len() > 4 && line.bytes().take(3).all(|octet| octet.is_ascii_digit());
        let (code, text) = if has_code { line.split_at_checked(4) } else { None }.unwrap_or(("", &line));
        let text = match self.said {
            Said::Nothing => {
                learn_name(text, mask);
                mask.text(text)
            }
            Said::Ehlo => {
                self.ehlo_lines += 1;
                // The first line begins with the server's name; the others with keywords.
                if self.ehlo_lines == 1 { mask.text(text) } else { mask.keywords(text) }
            }
            Said::Auth { is_scram } if code.starts_with("334") => challenge(text, is_scram, mask),
            Said::Auth { is_scram: true } if code.starts_with('2') => proved(text, mask),
            Said::Auth { .. } | Said::Data | Said::Else => mask.text(text),
        };
        [code.as_bytes(), text.as_bytes(), line_end].concat()
    }

    /// Replaces a proof of the server that the client did not accept, so that it does not accept it in a replay either.
    fn spoil_proof(&self, lines: &mut Lines) {
        let Some(octets) = lines.last_of_server() else { return };
        let line = String::from_utf8_lossy(octets).into_owned();
        let (Some(begin), Some(end)) = (line.find('{'), line.find('}')) else { return };
        let what = line.get(begin + 1..end).unwrap_or_default();
        let other = match what.split_once(' ') {
            Some(("scram-first", iterations)) => {
                let is_usual =
                    iterations.parse().is_ok_and(|count| (1..=SCRAM_ITERATION_LIMIT).contains(&count));
                if !is_usual {
                    return;
                }
                format!("r=of-somebody-else,s=c2FsdA==,i={iterations}")
            }
            _ if what == "scram-final" => format!("v={}", STANDARD.encode([0; 32])),
            _ => return,
        };
        let (before, after) =
            (line.get(..begin).unwrap_or_default(), line.get(end + 1..).unwrap_or_default());
        *octets = format!("{before}{}{after}", STANDARD.encode(other)).into_bytes();
    }
}

/// A server's name in its greeting may be a single word; then the protocol follows (RFC 5321 section 4.3.1).
fn learn_name(text: &str, mask: &mut Mask) {
    let mut words = text.split_whitespace();
    let (Some(name), Some(next)) = (words.next(), words.next()) else { return };
    let is_word = name.bytes().all(|octet| octet.is_ascii_alphanumeric() || octet == b'-');
    if is_word && next.to_ascii_uppercase().contains("SMTP") {
        mask.host_name(name);
    }
}

/// Masks a challenge. Instead of SCRAM's proof, a placeholder lets the replay compute one from another password.
fn challenge(text: &str, is_scram: bool, mask: &mut Mask) -> String {
    let decoded = STANDARD.decode(text.trim()).ok().and_then(|octets| String::from_utf8(octets).ok());
    let Some(decoded) = decoded else { return mask.text(text) };
    if is_scram {
        return scram_placeholder(&decoded).unwrap_or_else(|| STANDARD.encode(mask.text(&decoded)));
    }
    STANDARD.encode(mask.text(&decoded))
}

/// Masks a success, in whose text some servers prove that they know the password.
fn proved(text: &str, mask: &mut Mask) -> String {
    let words = text.split(' ').map(|word| {
        let decoded = STANDARD.decode(word).ok().and_then(|octets| String::from_utf8(octets).ok());
        match decoded.as_deref().filter(|text| text.starts_with("v=")).and_then(scram_placeholder) {
            Some(placeholder) => placeholder,
            None => mask.text(word),
        }
    });
    words.collect::<Vec<_>>().join(" ")
}

fn scram_placeholder(message: &str) -> Option<String> {
    if message.starts_with("v=") {
        return Some("{scram-final}".to_owned());
    }
    let iterations = message.strip_prefix("r=")?.rsplit_once(",i=")?.1;
    iterations.bytes().all(|octet| octet.is_ascii_digit()).then(|| format!("{{scram-first {iterations}}}"))
}

#[cfg(test)]
mod tests;
