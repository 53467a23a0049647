//! Reads a conversation from the octets alone, apart from what the core and the model servers think of it.

use std::collections::VecDeque;

use memchr::memmem;

use crate::facts::Verb;

/// What was found in the octets.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Sight {
    Command(Verb, Vec<u8>),
    FinalDot,
    Reply(Verb, u16, Vec<u8>),
}

/// One conversation.
#[derive(Debug)]
pub(crate) struct Wire {
    /// What is still to be replied to.
    expected: VecDeque<Verb>,
    is_data: bool,
    /// Whether the next line goes on with an authentication.
    is_challenged: bool,
    said: Vec<u8>,
    /// The last octets of the mail data.
    tail: Vec<u8>,
    heard: Vec<u8>,
    reply: Vec<u8>,
}

impl Wire {
    pub(crate) fn new() -> Self {
        Self {
            expected: VecDeque::from([Verb::Greeting]),
            is_data: false,
            is_challenged: false,
            said: Vec::new(),
            tail: Vec::new(),
            heard: Vec::new(),
            reply: Vec::new(),
        }
    }

    /// The client has said this.
    pub(crate) fn sent(&mut self, octets: &[u8]) -> Vec<Sight> {
        let mut sights = Vec::new();
        let mut rest = octets;
        while !rest.is_empty() {
            if self.is_data {
                rest = self.data(rest, &mut sights);
                continue;
            }
            let Some(end) = memchr::memchr(b'\n', rest) else {
                self.said.extend_from_slice(rest);
                break;
            };
            let (line, after) = rest.split_at(end + 1);
            self.said.extend_from_slice(line);
            rest = after;
            let line = std::mem::take(&mut self.said);
            let line = line.strip_suffix(b"\r\n").unwrap_or(&line).to_vec();
            let verb = if std::mem::take(&mut self.is_challenged) { Verb::AuthLine } else { verb_of(&line) };
            self.expected.push_back(verb);
            sights.push(Sight::Command(verb, line));
        }
        sights
    }

    /// The server has said this.
    pub(crate) fn received(&mut self, octets: &[u8]) -> Vec<Sight> {
        let mut sights = Vec::new();
        self.heard.extend_from_slice(octets);
        while let Some(end) = memchr::memchr(b'\n', &self.heard) {
            let line: Vec<u8> = self.heard.drain(..=end).collect();
            let code = line.get(..3).and_then(|code| std::str::from_utf8(code).ok()?.parse::<u16>().ok());
            let Some(code) = code else { continue };
            self.reply.extend_from_slice(&line);
            if line.get(3) == Some(&b'-') {
                continue;
            }
            let text = std::mem::take(&mut self.reply);
            let Some(to) = self.expected.pop_front() else { continue };
            self.is_data |= to == Verb::Data && code / 100 == 3;
            if self.is_data {
                self.tail = b"\r\n".to_vec();
            }
            // RFC 4954 section 4: only AUTH is answered with a challenge; elsewhere it is a reply out of turn.
            self.is_challenged = matches!(to, Verb::Auth | Verb::AuthLine) && code == 334;
            sights.push(Sight::Reply(to, code, text));
        }
        sights
    }

    /// TLS stands: nothing that is half said counts any more.
    pub(crate) fn tls_established(&mut self) {
        self.said.clear();
        self.heard.clear();
        self.reply.clear();
    }

    fn data<'a>(&mut self, octets: &'a [u8], sights: &mut Vec<Sight>) -> &'a [u8] {
        // The end of the data may begin in the octets before.
        let overlap = self.tail.len();
        let mut joined = std::mem::take(&mut self.tail);
        joined.extend_from_slice(octets);
        if let Some(found) = memmem::find(&joined, b"\r\n.\r\n") {
            self.is_data = false;
            self.expected.push_back(Verb::FinalDot);
            sights.push(Sight::FinalDot);
            return octets.get((found + 5).saturating_sub(overlap)..).unwrap_or_default();
        }
        self.tail = joined.split_off(joined.len().saturating_sub(4));
        &[]
    }
}

fn verb_of(line: &[u8]) -> Verb {
    let word = line.split(|octet| matches!(octet, b' ' | b':')).next().unwrap_or_default();
    match word.to_ascii_uppercase().as_slice() {
        b"EHLO" => Verb::Ehlo,
        b"HELO" => Verb::Helo,
        b"STARTTLS" => Verb::StartTls,
        b"AUTH" => Verb::Auth,
        b"NOOP" => Verb::Noop,
        b"RSET" => Verb::Rset,
        b"MAIL" => Verb::Mail,
        b"RCPT" => Verb::Rcpt,
        b"DATA" => Verb::Data,
        b"QUIT" => Verb::Quit,
        _ => Verb::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_conversation_is_read_however_it_is_cut() {
        let said: &[&[u8]] = &[b"EHLO x\r\n", b"DATA\r\n", b"a\r\n..b\r\n.\r\n", b"QUIT\r\n"];
        let heard: &[&[u8]] = &[b"220-a\r\n220 b\r\n", b"250 x\r\n", b"354 go\r\n", b"250 ok\r\n"];
        let run = |size: usize| {
            let mut wire = Wire::new();
            let mut sights = Vec::new();
            for (heard, said) in heard.iter().zip(said) {
                heard.chunks(size).for_each(|octets| sights.extend(wire.received(octets)));
                said.chunks(size).for_each(|octets| sights.extend(wire.sent(octets)));
            }
            sights
        };
        let whole = run(100);
        assert_eq!(whole, run(1));
        assert_eq!(whole.iter().filter(|sight| **sight == Sight::FinalDot).count(), 1);
        assert_eq!(whole.last(), Some(&Sight::Command(Verb::Quit, b"QUIT".to_vec())));
    }
}
