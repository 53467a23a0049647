//! Reads a conversation from the octets alone, independently of the core and of the model servers.

use std::collections::VecDeque;

use memchr::memmem;

use crate::facts::Verb;

/// The end of mail data (RFC 5321 section 4.1.1.4).
const END_OF_DATA: &[u8] = b"\r\n.\r\n";

/// A finding in the octets.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Sight {
    Command(Verb, Vec<u8>),
    /// A message of this many octets is complete, without its final dot. It is kept only if that is wanted; leading dots are
    /// still doubled.
    FinalDot {
        octets: u64,
        message: Vec<u8>,
    },
    Reply(Verb, u16, Vec<u8>),
}

/// The state of the client's octets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Saying {
    Lines,
    Data,
}

/// One conversation.
#[derive(Debug)]
pub(crate) struct Wire {
    /// The commands that are still to be replied to.
    expected: VecDeque<Verb>,
    saying: Saying,
    /// True if the next line goes on with an authentication.
    is_challenged: bool,
    said: Vec<u8>,
    /// The last octets of the mail data.
    tail: Vec<u8>,
    /// Octets of the message so far, and the message, if it is kept.
    octets: u64,
    message: Vec<u8>,
    keeps_messages: bool,
    heard: Vec<u8>,
    reply: Vec<u8>,
    /// True if something was received that is not a reply, or an impossible one: nothing after it is understood.
    is_garbled: bool,
}

impl Wire {
    pub(crate) fn new() -> Self {
        Self {
            expected: VecDeque::from([Verb::Greeting]),
            saying: Saying::Lines,
            is_challenged: false,
            said: Vec::new(),
            tail: Vec::new(),
            octets: 0,
            message: Vec::new(),
            keeps_messages: false,
            heard: Vec::new(),
            reply: Vec::new(),
            is_garbled: false,
        }
    }

    /// Returns a wire that keeps the sent messages.
    pub(crate) fn with_messages() -> Self {
        Self { keeps_messages: true, ..Self::new() }
    }

    /// Processes octets of the client.
    pub(crate) fn sent(&mut self, octets: &[u8]) -> Vec<Sight> {
        let mut sights = Vec::new();
        let mut rest = octets;
        while !rest.is_empty() {
            rest = match self.saying {
                Saying::Lines => self.line(rest, &mut sights),
                Saying::Data => self.data(rest, &mut sights),
            };
        }
        sights
    }

    /// Processes octets of the server.
    pub(crate) fn received(&mut self, octets: &[u8]) -> Vec<Sight> {
        let mut sights = Vec::new();
        let mut rest = octets;
        while let Some(end) = memchr::memchr(b'\n', rest) {
            let (line, after) = rest.split_at(end + 1);
            rest = after;
            if self.heard.is_empty() {
                sights.extend(self.reply_line(line));
            } else {
                let mut whole = std::mem::take(&mut self.heard);
                whole.extend_from_slice(line);
                sights.extend(self.reply_line(&whole));
            }
        }
        self.heard.extend_from_slice(rest);
        sights
    }

    /// Processes a line of the server. Returns the reply that it ends.
    fn reply_line(&mut self, line: &[u8]) -> Option<Sight> {
        let code = line.get(..3).and_then(|code| std::str::from_utf8(code).ok()?.parse::<u16>().ok());
        // RFC 5321 section 4.2.1: all lines of a reply have the same code.
        let goes_on = self.reply.is_empty() || self.reply.get(..3) == line.get(..3);
        self.is_garbled |= code.is_none() || !goes_on;
        let code = code.filter(|_| !self.is_garbled)?;
        self.reply.extend_from_slice(line);
        if line.get(3) == Some(&b'-') {
            return None;
        }
        let text = std::mem::take(&mut self.reply);
        let Some(to) = self.expected.pop_front() else {
            // In the middle of a message no reply is owed, but one may be meant.
            return (self.saying == Saying::Data).then_some(Sight::Reply(Verb::Unknown, code, text));
        };
        // RFC 5321 section 4.1.1.5: RSET is never refused. If more commands followed it, one reply too many is as likely as a
        // server without RSET, and it is unknown what the next ones answer.
        self.is_garbled |= to == Verb::Rset && code / 100 != 2 && !self.expected.is_empty();
        if to == Verb::Data && code / 100 == 3 {
            self.saying = Saying::Data;
            self.tail = b"\r\n".to_vec();
        }
        // RFC 4954 section 4: only AUTH is answered with a challenge; elsewhere it is a reply out of turn.
        self.is_challenged = matches!(to, Verb::Auth | Verb::AuthLine) && code == 334;
        Some(Sight::Reply(to, code, text))
    }

    /// Forgets everything unfinished, because TLS is established.
    pub(crate) fn tls_established(&mut self) {
        self.said.clear();
        self.heard.clear();
        self.reply.clear();
    }

    /// Returns the number of octets of an unfinished message.
    pub(crate) fn unfinished(&self) -> Option<u64> {
        (self.saying != Saying::Lines).then_some(self.octets)
    }

    fn line<'a>(&mut self, octets: &'a [u8], sights: &mut Vec<Sight>) -> &'a [u8] {
        let Some(end) = memchr::memchr(b'\n', octets) else {
            self.said.extend_from_slice(octets);
            return &[];
        };
        let (line, rest) = octets.split_at(end + 1);
        self.said.extend_from_slice(line);
        let mut line = std::mem::take(&mut self.said);
        line.truncate(line.len() - if line.ends_with(b"\r\n") { 2 } else { 0 });
        let is_auth = std::mem::take(&mut self.is_challenged);
        let verb = if is_auth { Verb::AuthLine } else { verb_of(&line) };
        self.expected.push_back(verb);
        sights.push(Sight::Command(verb, line));
        rest
    }

    fn data<'a>(&mut self, octets: &'a [u8], sights: &mut Vec<Sight>) -> &'a [u8] {
        // The end of the data may begin in the octets before.
        let overlap = self.tail.len();
        self.tail.extend_from_slice(octets.get(..END_OF_DATA.len() - 1).unwrap_or(octets));
        let across = memmem::find(&self.tail, END_OF_DATA).map(|found| found + END_OF_DATA.len() - overlap);
        let end = across.or_else(|| memmem::find(octets, END_OF_DATA).map(|found| found + END_OF_DATA.len()));
        let Some((last, rest)) = end.and_then(|end| octets.split_at_checked(end)) else {
            self.keep(octets);
            let kept = END_OF_DATA.len() - 1;
            if let Some((_, last)) = octets.split_last_chunk::<4>() {
                self.tail = last.to_vec();
            }
            self.tail.drain(..self.tail.len().saturating_sub(kept));
            return &[];
        };
        self.keep(last);
        self.octets = self.octets.saturating_sub(3);
        self.message.truncate(self.message.len().saturating_sub(3));
        self.saying = Saying::Lines;
        self.expected.push_back(Verb::FinalDot);
        self.end_message(sights);
        rest
    }

    fn keep(&mut self, octets: &[u8]) {
        self.octets += octets.len() as u64;
        if self.keeps_messages {
            self.message.extend_from_slice(octets);
        }
    }

    fn end_message(&mut self, sights: &mut Vec<Sight>) {
        let (octets, message) = (std::mem::take(&mut self.octets), std::mem::take(&mut self.message));
        sights.push(Sight::FinalDot { octets, message });
    }
}

/// The commands by name.
const VERBS: [(&[u8], Verb); 10] = [
    (b"EHLO", Verb::Ehlo),
    (b"HELO", Verb::Helo),
    (b"STARTTLS", Verb::StartTls),
    (b"AUTH", Verb::Auth),
    (b"NOOP", Verb::Noop),
    (b"RSET", Verb::Rset),
    (b"MAIL", Verb::Mail),
    (b"RCPT", Verb::Rcpt),
    (b"DATA", Verb::Data),
    (b"QUIT", Verb::Quit),
];

fn verb_of(line: &[u8]) -> Verb {
    let word = line.split(|octet| matches!(octet, b' ' | b':')).next().unwrap_or_default();
    let verb = VERBS.iter().find(|(name, _)| word.eq_ignore_ascii_case(name)).map(|&(_, verb)| verb);
    verb.unwrap_or(Verb::Unknown)
}

#[cfg(test)]
mod tests;
