//! One conversation of a model server.

use std::collections::BTreeSet;

use bytes::{Bytes, BytesMut};
use cmail_delivery::time::Duration;
use memchr::memmem;

use super::temperament::{BatchConduct, Limits, TlsConduct};
use super::transaction::Transaction;
use super::{Act, Surroundings};

/// Longest line that a server reads.
const LINE_LIMIT: usize = 4096;
/// Lines that a server does not understand before it closes the connection.
const ERROR_LIMIT: u32 = 20;
/// Malformed replies, and replies that do not fit where they come.
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

/// What the server expects next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Expects {
    Handshake,
    Commands,
    /// A line of an authentication; this many are to come.
    AuthLines(u32),
    Data,
    Nothing,
}

/// A connection, as the server sees it.
#[derive(Debug)]
pub(crate) struct Conversation {
    pub(super) expects: Expects,
    pub(super) input: BytesMut,
    /// How much of the input was searched for the end of the data.
    pub(super) searched: usize,
    is_tls: bool,
    pub(super) transaction: Transaction,
    /// How many messages have come to their end.
    pub(super) messages: u32,
    /// How many transactions were begun.
    pub(super) transactions: u32,
    /// The domains of the recipients that were asked for.
    pub(super) domains: BTreeSet<String>,
    /// Lines that were no commands.
    errors: u32,
}

impl Conversation {
    /// A conversation that begins with TLS, or with the greeting.
    pub(crate) fn begin(implicit_tls: bool, around: &mut Surroundings<'_>) -> Self {
        let mut conversation = Self {
            expects: Expects::Commands,
            input: BytesMut::new(),
            searched: 0,
            is_tls: false,
            transaction: Transaction::default(),
            messages: 0,
            transactions: 0,
            domains: BTreeSet::new(),
            errors: 0,
        };
        if implicit_tls {
            conversation.expects = Expects::Handshake;
        } else {
            conversation.greet(around);
        }
        conversation
    }

    /// Begins the conversation inside TLS.
    pub(crate) fn tls_established(&mut self, implicit: bool, around: &mut Surroundings<'_>) {
        self.is_tls = true;
        self.expects = Expects::Commands;
        self.input.clear();
        if implicit {
            self.greet(around);
        }
    }

    /// Processes octets from the client.
    pub(crate) fn received(&mut self, octets: &[u8], around: &mut Surroundings<'_>) {
        self.input.extend_from_slice(octets);
        // Octets that were there before a command are one batch with it (RFC 2920 section 3.1).
        let mut position = 0;
        loop {
            match self.expects {
                Expects::Handshake | Expects::Nothing => return self.input.clear(),
                Expects::Data => {
                    let Some(data) = self.take_data() else {
                        if !self.input.is_empty() && around.dice.chance(around.temperament.out_of_step) {
                            self.say(around, b"500 5.5.2 what is this?\r\n");
                        }
                        return;
                    };
                    self.end_of_data(&data, around);
                }
                Expects::Commands | Expects::AuthLines(_) => {
                    let Some(line) = self.take_line() else { return };
                    if !self.spoil_batch(position, around) {
                        self.line(&line, around);
                    }
                    if around.temperament.batches == BatchConduct::LosesInput {
                        let lost = ["MAIL", "DATA"].iter().any(|verb| line.starts_with(verb.as_bytes()));
                        self.input.truncate(if lost { 0 } else { self.input.len() });
                    }
                }
            }
            position += 1;
        }
    }

    /// Returns whether a server that cannot cope with several commands at once does something other than obey this one.
    fn spoil_batch(&mut self, position: u32, around: &mut Surroundings<'_>) -> bool {
        match around.temperament.batches {
            BatchConduct::Works | BatchConduct::LosesInput => return false,
            BatchConduct::RefusesSecond if position == 1 => {
                let replies: [&[u8]; 2] = [b"503 5.5.1 one at a time\r\n", b"500 5.5.1 not now\r\n"];
                self.say_one_of(&replies, around);
            }
            BatchConduct::Drops if position == 0 && !self.input.is_empty() => self.drop(around),
            BatchConduct::Leaves if position > 0 && around.dice.chance(500) => {
                self.say(around, b"421 4.7.0 not so fast\r\n");
                self.close(around);
            }
            BatchConduct::RefusesSecond | BatchConduct::Drops | BatchConduct::Leaves => return false,
        }
        true
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
        if around.temperament.is_mute {
            return;
        }
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
        // Between the replies to a batch it would be taken for one of them, and a later reply for that to the message.
        if self.input.is_empty() && around.dice.chance(around.temperament.unasked) {
            self.say(around, b"450 nobody asked\r\n");
        }
    }

    pub(super) fn unknown(&mut self, text: &str, around: &mut Surroundings<'_>) {
        self.errors += 1;
        if self.errors > ERROR_LIMIT {
            self.say(around, b"421 4.7.0 too many errors\r\n");
            return self.close(around);
        }
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
            (offered.dsn, "DSN"),
        ];
        lines.extend(
            keywords.iter().filter(|(is_offered, _)| *is_offered).map(|(_, name)| (*name).to_owned()),
        );
        let Limits { mails, recipients, domains } = offered.limits;
        let limits = [
            mails.map(|most| format!(" MAILMAX={most}")),
            recipients.map(|most| format!(" RCPTMAX={most}")),
            domains.map(|most| format!(" RCPTDOMAINMAX={most}")),
        ];
        if limits.iter().any(Option::is_some) {
            lines.push(format!("LIMITS{}", limits.into_iter().flatten().collect::<String>()));
        }
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
            TlsConduct::Works
            | TlsConduct::Fails
            | TlsConduct::Hangs
            | TlsConduct::HangsIfLarge
            | TlsConduct::DropsIfLarge => {
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

    pub(super) fn abandon(&mut self) {
        self.transaction = Transaction::default();
    }

    pub(super) fn say(&mut self, around: &mut Surroundings<'_>, octets: &[u8]) {
        let delay = Duration::from_millis(around.dice.below(around.temperament.slowness_s * 1000 + 1));
        let pause = Duration::from_millis(around.dice.below(around.temperament.dribble_s * 1000 + 1));
        around.acts.push(Act::Say { octets: Bytes::copy_from_slice(octets), delay, pause });
    }

    pub(super) fn say_one_of(&mut self, replies: &[&[u8]], around: &mut Surroundings<'_>) {
        let reply = around.dice.pick(replies).copied().unwrap_or_default();
        self.say(around, reply);
    }

    pub(super) fn close(&mut self, around: &mut Surroundings<'_>) {
        self.expects = Expects::Nothing;
        around.acts.push(Act::Close);
    }

    pub(super) fn drop(&mut self, around: &mut Surroundings<'_>) {
        self.expects = Expects::Nothing;
        around.acts.push(if around.dice.chance(500) { Act::Close } else { Act::Reset });
    }
}
