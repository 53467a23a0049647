//! One conversation of a model server.

use bytes::{Bytes, BytesMut};
use cmail_delivery::time::Duration;
use memchr::memmem;

use super::temperament::TlsConduct;
use super::{Act, Surroundings};

/// Longest line that a server reads.
const LINE_LIMIT: usize = 4096;
/// Replies that are none, or not fit where they come.
const GARBAGE: [&[u8]; 10] = [
    b"\r\n",
    b"hello\r\n",
    b"25\r\n",
    b"999 what\r\n",
    b"451-a\r\n452 b\r\n",
    b"\xff\xfe\x00\r\n",
    b"550\r\n",
    b"450 bare line feed\n",
    b"4 5 1\r\n",
    b"5xx no\r\n",
];

/// What the server waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expects {
    Handshake,
    Commands,
    /// The next line is a part of an authentication, of which so many are to come.
    AuthLines(u32),
    Data,
    Nothing,
}

/// A connection, as the server sees it.
#[derive(Debug)]
pub(crate) struct Conversation {
    expects: Expects,
    input: BytesMut,
    /// How much of the input was searched for the end of the data.
    searched: usize,
    is_tls: bool,
    sender: Option<String>,
    recipients: Vec<String>,
}

impl Conversation {
    /// A conversation that begins with TLS, or with the greeting.
    pub(crate) fn begin(implicit_tls: bool, around: &mut Surroundings<'_>) -> Self {
        let mut conversation = Self {
            expects: Expects::Commands,
            input: BytesMut::new(),
            searched: 0,
            is_tls: false,
            sender: None,
            recipients: Vec::new(),
        };
        if implicit_tls {
            conversation.expects = Expects::Handshake;
        } else {
            conversation.greet(around);
        }
        conversation
    }

    /// TLS stands.
    pub(crate) fn tls_established(&mut self, implicit: bool, around: &mut Surroundings<'_>) {
        self.is_tls = true;
        self.expects = Expects::Commands;
        self.input.clear();
        if implicit {
            self.greet(around);
        }
    }

    /// Octets from the client.
    pub(crate) fn received(&mut self, octets: &[u8], around: &mut Surroundings<'_>) {
        self.input.extend_from_slice(octets);
        loop {
            match self.expects {
                Expects::Handshake | Expects::Nothing => return self.input.clear(),
                Expects::Data => {
                    let Some(data) = self.take_data() else { return };
                    self.end_of_data(&data, around);
                }
                Expects::Commands | Expects::AuthLines(_) => {
                    let Some(line) = self.take_line() else { return };
                    self.line(&line, around);
                }
            }
        }
    }

    fn take_line(&mut self) -> Option<BytesMut> {
        match memmem::find(&self.input, b"\r\n") {
            Some(end) => {
                let line = self.input.split_to(end);
                let _ = self.input.split_to(2);
                Some(line)
            }
            None => {
                if self.input.len() > LINE_LIMIT {
                    self.expects = Expects::Nothing;
                }
                None
            }
        }
    }

    /// The message without its final dot and as it was before the dots were doubled.
    fn take_data(&mut self) -> Option<Bytes> {
        let end = if self.input.starts_with(b".\r\n") {
            0
        } else {
            let from = self.searched.saturating_sub(4);
            let found = memmem::find(self.input.get(from..).unwrap_or_default(), b"\r\n.\r\n");
            self.searched = self.input.len();
            from + found? + 2
        };
        self.searched = 0;
        let raw = self.input.split_to(end);
        let _ = self.input.split_to(3);
        if memmem::find(&raw, b"\r\n.").is_none() && !raw.starts_with(b".") {
            return Some(raw.freeze());
        }
        let mut data = Vec::with_capacity(raw.len());
        for line in raw.split_inclusive(|&octet| octet == b'\n') {
            data.extend_from_slice(line.strip_prefix(b".").unwrap_or(line));
        }
        Some(data.into())
    }

    fn greet(&mut self, around: &mut Surroundings<'_>) {
        let is_crowded =
            around.temperament.connection_limit.is_some_and(|limit| around.memory.open > limit.max(1));
        if is_crowded {
            self.say(around, b"421 4.7.0 too many connections\r\n");
            return self.close(around);
        }
        match around.temperament.greeting {
            None if around.dice.chance(300) => self.say(around, b"220-mx.example\r\n220 ESMTP\r\n"),
            None => self.say(around, b"220 mx.example ESMTP\r\n"),
            Some(refusal) => {
                self.say(around, format!("{refusal}\r\n").as_bytes());
                if refusal.starts_with("421") {
                    self.close(around);
                }
            }
        }
    }

    fn line(&mut self, line: &[u8], around: &mut Surroundings<'_>) {
        if around.dice.chance(around.temperament.shed) {
            self.say(around, b"421 4.3.2 shedding load\r\n");
            return self.close(around);
        }
        if around.dice.chance(around.temperament.garbage) {
            let garbage = around.dice.pick(&GARBAGE).copied().unwrap_or_default();
            return self.say(around, garbage);
        }
        if let Expects::AuthLines(left) = self.expects {
            return self.auth_line(left, line, around);
        }
        let text = String::from_utf8_lossy(line).into_owned();
        let verb = text.split([' ', ':']).next().unwrap_or_default().to_ascii_uppercase();
        match verb.as_str() {
            "EHLO" => self.ehlo(&text, around),
            "HELO" => self.say(around, b"250 mx.example\r\n"),
            "STARTTLS" => self.starttls(around),
            "AUTH" => self.auth(&text, around),
            "NOOP" | "RSET" => self.padding(&verb, around),
            "MAIL" => self.mail(&text, around),
            "RCPT" => self.rcpt(&text, around),
            "DATA" => self.data(around),
            "QUIT" => {
                self.say(around, b"221 2.0.0 bye\r\n");
                self.close(around);
            }
            _ => self.unknown(&text, around),
        }
        if around.dice.chance(around.temperament.unasked) {
            self.say(around, b"450 nobody asked\r\n");
        }
    }

    fn unknown(&mut self, text: &str, around: &mut Surroundings<'_>) {
        if around.temperament.echoes {
            self.say(around, format!("500 5.5.2 I do not know {text}\r\n").as_bytes());
        } else {
            self.say(around, b"500 5.5.2 unknown command\r\n");
        }
    }

    fn ehlo(&mut self, text: &str, around: &mut Surroundings<'_>) {
        if !around.temperament.knows_ehlo {
            return self.unknown(text, around);
        }
        let offered = &around.temperament.extensions;
        let mut lines = vec!["mx.example greets you".to_owned()];
        lines.extend(offered.size.map(|limit| format!("SIZE {limit}")));
        let keywords = [
            (offered.starttls && !self.is_tls, "STARTTLS"),
            (offered.eight_bit_mime, "8BITMIME"),
            (offered.pipelining, "PIPELINING"),
        ];
        lines.extend(
            keywords.iter().filter(|(is_offered, _)| *is_offered).map(|(_, name)| (*name).to_owned()),
        );
        if !offered.auth.is_empty() {
            lines.push(format!("AUTH {}", offered.auth));
        }
        let mut reply = String::new();
        for (number, line) in lines.iter().enumerate() {
            let separator = if number + 1 == lines.len() { ' ' } else { '-' };
            reply.push_str(&format!("250{separator}{line}\r\n"));
        }
        self.abandon();
        self.say(around, reply.as_bytes());
    }

    fn starttls(&mut self, around: &mut Surroundings<'_>) {
        match around.temperament.tls {
            TlsConduct::Refused => self.say(around, b"454 4.7.0 TLS not available\r\n"),
            TlsConduct::Injected => {
                self.say(around, b"220 go ahead\r\n250-mx.example\r\n250 AUTH PLAIN\r\n");
                self.expects = Expects::Handshake;
            }
            TlsConduct::Works | TlsConduct::Fails | TlsConduct::Hangs => {
                self.say(around, b"220 2.0.0 go ahead\r\n");
                self.expects = Expects::Handshake;
            }
        }
    }

    fn auth(&mut self, text: &str, around: &mut Surroundings<'_>) {
        let mut words = text.split(' ').skip(1);
        let mechanism = words.next().unwrap_or_default();
        let has_initial = words.next().is_some();
        if around.dice.chance(around.temperament.auth_refused) {
            let reply = match (around.temperament.echoes, around.dice.below(3)) {
                (true, _) => format!("535 5.7.8 cannot do {text}\r\n"),
                (false, 0) => "504 5.5.4 not this one\r\n".to_owned(),
                (false, 1) => "454 4.7.0 later\r\n".to_owned(),
                (false, _) => "535 5.7.8 wrong\r\n".to_owned(),
            };
            return self.say(around, reply.as_bytes());
        }
        match (mechanism, has_initial) {
            ("PLAIN", true) => self.say(around, b"235 2.7.0 welcome\r\n"),
            ("PLAIN", false) => self.challenge(1, b"334 \r\n", around),
            // "Username:" and "Password:".
            ("LOGIN", true) => self.challenge(1, b"334 UGFzc3dvcmQ6\r\n", around),
            ("LOGIN", false) => self.challenge(2, b"334 VXNlcm5hbWU6\r\n", around),
            ("CRAM-MD5", _) => self.challenge(1, b"334 PDE4OTYuNjk3MTcwOTUyQG14LmV4YW1wbGU+\r\n", around),
            _ => self.say(around, b"504 5.5.4 unknown mechanism\r\n"),
        }
    }

    fn challenge(&mut self, left: u32, reply: &[u8], around: &mut Surroundings<'_>) {
        self.expects = Expects::AuthLines(left);
        self.say(around, reply);
    }

    fn auth_line(&mut self, left: u32, line: &[u8], around: &mut Surroundings<'_>) {
        self.expects = Expects::Commands;
        if line == b"*" {
            return self.say(around, b"501 5.7.0 given up\r\n");
        }
        if left > 1 {
            return self.challenge(left - 1, b"334 UGFzc3dvcmQ6\r\n", around);
        }
        if around.temperament.echoes && around.dice.chance(500) {
            let echo = format!("535 5.7.8 not with {}\r\n", String::from_utf8_lossy(line));
            return self.say(around, echo.as_bytes());
        }
        self.say(around, b"235 2.7.0 welcome\r\n");
    }

    fn padding(&mut self, verb: &str, around: &mut Surroundings<'_>) {
        if around.dice.chance(around.temperament.hates_padding) {
            if around.dice.chance(500) {
                return self.close(around);
            }
            return self.say(around, b"502 5.5.1 not here\r\n");
        }
        if verb == "RSET" {
            self.abandon();
        }
        self.say(around, b"250 2.0.0 ok\r\n");
    }

    fn mail(&mut self, text: &str, around: &mut Surroundings<'_>) {
        if self.sender.is_some() {
            return self.say(around, b"503 5.5.1 nested MAIL\r\n");
        }
        if self.refuse(around) {
            return;
        }
        self.sender = Some(path_of(text));
        self.say(around, b"250 2.1.0 ok\r\n");
    }

    fn rcpt(&mut self, text: &str, around: &mut Surroundings<'_>) {
        if self.sender.is_none() {
            return self.say(around, b"503 5.5.1 MAIL first\r\n");
        }
        let recipient = path_of(text);
        // Some addresses do not exist, whatever the server is like.
        if recipient.starts_with("nobody") {
            // Who says more than was asked for must not be quoted: its words come out of turn.
            let is_quotable = around.temperament.unasked == 0 && around.temperament.garbage == 0;
            let who = if is_quotable { recipient.as_str() } else { "this address" };
            return self.say(around, format!("550 5.1.1 <{who}>: no such user\r\n").as_bytes());
        }
        if self.refuse(around) {
            return;
        }
        if let Some(delay_s) = around.temperament.greylist_s {
            let first = *around.memory.greylist.entry(recipient.clone()).or_insert(around.now);
            if around.now.saturating_duration_since(first) < Duration::from_secs(delay_s) {
                return self.say(around, b"451 4.7.1 greylisted, try again later\r\n");
            }
        }
        if around.temperament.recipient_limit.is_some_and(|limit| self.recipients.len() >= limit) {
            return self.say(around, b"452 4.5.3 too many recipients\r\n");
        }
        self.recipients.push(recipient);
        self.say(around, b"250 2.1.5 ok\r\n");
    }

    fn data(&mut self, around: &mut Surroundings<'_>) {
        if self.recipients.is_empty() {
            return self.say(around, b"503 5.5.1 no valid recipients\r\n");
        }
        if self.refuse(around) {
            return;
        }
        self.expects = Expects::Data;
        self.say(around, b"354 end with a dot\r\n");
    }

    fn end_of_data(&mut self, data: &Bytes, around: &mut Surroundings<'_>) {
        self.expects = Expects::Commands;
        let recipients = std::mem::take(&mut self.recipients);
        self.sender = None;
        let temperament = around.temperament;
        if around.dice.chance(temperament.drop_before) {
            return self.drop(around);
        }
        if self.refuse(around) {
            return;
        }
        around.acts.push(Act::Accept { recipients, data: data.clone() });
        if around.dice.chance(temperament.drop_after) {
            return self.drop(around);
        }
        if around.dice.chance(temperament.mute_after) {
            self.expects = Expects::Nothing;
            return;
        }
        self.say(around, b"250 2.0.0 queued\r\n");
    }

    /// Whether the server refuses what it could do.
    fn refuse(&mut self, around: &mut Surroundings<'_>) -> bool {
        if around.dice.chance(around.temperament.busy) {
            let replies: [&[u8]; 4] =
                [b"451 4.3.0 busy\r\n", b"450 later\r\n", b"452 4.3.1 full\r\n", b"421 4.3.2 gone\r\n"];
            let reply = around.dice.pick(&replies).copied().unwrap_or_default();
            self.say(around, reply);
            if reply.starts_with(b"421") {
                self.close(around);
            }
            return true;
        }
        if around.dice.chance(around.temperament.strict) {
            let replies: [&[u8]; 4] =
                [b"550-5.7.1 no\r\n550 5.7.1 never\r\n", b"554 no\r\n", b"552 5.2.2 full\r\n", b"556 no\r\n"];
            let reply = around.dice.pick(&replies).copied().unwrap_or_default();
            self.say(around, reply);
            return true;
        }
        false
    }

    fn abandon(&mut self) {
        self.sender = None;
        self.recipients.clear();
    }

    fn say(&mut self, around: &mut Surroundings<'_>, octets: &[u8]) {
        let delay = Duration::from_millis(around.dice.below(around.temperament.slowness_s * 1000 + 1));
        let pause = Duration::from_millis(around.dice.below(around.temperament.dribble_s * 1000 + 1));
        around.acts.push(Act::Say { octets: Bytes::copy_from_slice(octets), delay, pause });
    }

    fn close(&mut self, around: &mut Surroundings<'_>) {
        self.expects = Expects::Nothing;
        around.acts.push(Act::Close);
    }

    fn drop(&mut self, around: &mut Surroundings<'_>) {
        self.expects = Expects::Nothing;
        around.acts.push(if around.dice.chance(500) { Act::Close } else { Act::Reset });
    }
}

/// What stands between the angle brackets.
fn path_of(text: &str) -> String {
    let begin = text.find('<').map_or(text.len(), |position| position + 1);
    let end = text.rfind('>').unwrap_or(text.len());
    text.get(begin..end).unwrap_or_default().to_owned()
}
