//! One conversation, with any order of octets, time, TLS and requests of its owner. `session_checker` has the invariants, and
//! pieces of any size are the same.

use bytes::{Bytes, BytesMut};
use cmail_delivery::io::{CertificateTrouble, CloseReason, Tls, TlsVersion, Verification};
use cmail_delivery::next_hop::{Credentials, TlsMode};
use cmail_delivery::rng::Rng;
use cmail_delivery::session::{Phase, Session, SessionConfig, SessionOutput};
use cmail_delivery::system_error::{NetworkTrouble, SystemError, TlsTrouble};
use cmail_delivery::time::{Duration, Instant};
use cmail_delivery::tls::Need;

use crate::command::Command;
use crate::script::{number, secret_for, steps};
use crate::session_checker::{Checker, pause_end};

/// Most steps of a script that are taken.
const STEPS_LIMIT: usize = 300;

/// Checks the conversation that a script describes, with the server's octets in one piece and octet by octet.
pub fn check(octets: &[u8]) {
    let [whole, in_octets] = [usize::MAX, 1].map(|piece| Talk::run(octets, piece));
    assert_eq!((whole.sent, whole.outputs), (in_octets.sent, in_octets.outputs));
}

/// Verbs: `C` configuration, once: letters of `s` STARTTLS, `i` implicit TLS, `f` plain fallback, `a` credentials,
/// `u` unprotected, `p` padding, `t` trace, `c` cautious, and what polite servers offer: `l` PIPELINING, `d` DSN; `R` a line of the server, `r` octets of it, `E` a line in which it echoes the last one of the client; `P` what a polite server would do,
/// `A` the same with all that it has not answered; `V` and `v` TLS with and without a valid certificate, `X` without
/// success; `K` closed, `k` broken; `.` seconds pass; `W` the connection takes so many octets; `B` a transaction for so
/// many recipients whose data follows, `b` the same with ten more octets, `S` octets of it (`|` is LF and `^` CR); `Q` quit.
struct Talk {
    session: Session,
    checker: Checker,
    now: Instant,
    /// The extensions that a polite server offers beside the usual.
    offers: String,
    /// The number of octets that the server sends at once.
    piece: usize,
    /// The octets sent, and the outputs without those for received octets.
    sent: Vec<u8>,
    outputs: Vec<SessionOutput>,
}

impl Talk {
    fn run(octets: &[u8], piece: usize) -> Self {
        let password = secret_for(octets);
        let configured = steps(octets).next().filter(|(verb, _)| *verb == b'C');
        let letters = configured.map_or(&[][..], |(_, letters)| letters);
        let config = config(letters, &password);
        let offer = |letter, line: &'static str| if letters.contains(&letter) { line } else { "" };
        let offers = [offer(b'l', "250-PIPELINING\r\n"), offer(b'd', "250-DSN\r\n")].concat();
        let now = Instant::from_micros(5);
        let session = Session::new(config.clone(), Rng::from_seed([4; 32]), now);
        let checker = Checker::new(config, &password);
        let mut talk = Self { session, checker, now, offers, piece, sent: Vec::new(), outputs: Vec::new() };
        talk.take_outputs();
        for (verb, argument) in steps(octets).take(STEPS_LIMIT) {
            talk.step(verb, argument);
        }
        // In the end the connection breaks: then nothing may stay open.
        talk.step(b'K', b"");
        talk.checker.check_end(&mut talk.session, talk.now);
        talk
    }

    fn step(&mut self, verb: u8, argument: &[u8]) {
        match verb {
            b'R' => self.server(&[argument, b"\r\n"].concat()),
            b'r' => self.server(argument),
            b'E' => {
                let line = [argument, self.checker.conversation.last_line(), b"\r\n"].concat();
                self.server(&line);
            }
            b'P' => self.polite(1),
            b'A' => self.polite(usize::MAX),
            b'V' | b'v' => self.tls_established(verb == b'V'),
            b'X' => self.session.handle_tls_failed(self.now, SystemError::new(TlsTrouble::Alert, "alert")),
            b'K' => self.closed(CloseReason::EndOfFile),
            b'k' => self.closed(CloseReason::Broken(SystemError::new(NetworkTrouble::Reset, "reset"))),
            b'.' => {
                self.now = self.now + Duration::from_secs(number(argument, 1) % 10_000);
                self.session.handle_timeout(self.now);
            }
            b'W' => self.transmit(usize::try_from(number(argument, 1000) % 10_000).unwrap_or(0)),
            b'B' | b'b' => {
                let (recipients, data) = argument.split_first().unwrap_or((&b'1', &[]));
                let transaction =
                    self.checker.begin(&self.session, recipients % 4, &message(data), verb == b'b');
                self.session.begin(self.now, transaction);
            }
            b'S' => {
                let octets = Bytes::from(message(argument));
                self.checker.supply(&octets);
                self.session.supply_data(self.now, octets);
            }
            b'Q' => {
                self.checker.quit();
                self.session.quit(self.now);
            }
            _ => return,
        }
        self.take_outputs();
        self.checker.check_liveness(&self.session, self.now);
        self.checker.check_deadline(&mut self.session, self.now);
    }

    fn closed(&mut self, reason: CloseReason) {
        self.session.handle_closed(self.now, reason);
    }

    fn server(&mut self, octets: &[u8]) {
        for piece in octets.chunks(self.piece) {
            self.checker.server_says(&self.session, piece);
            self.session.handle_received(self.now, piece);
        }
    }

    fn tls_established(&mut self, certificate_is_valid: bool) {
        self.checker.tls_established(&self.session, certificate_is_valid);
        let unverified = Verification::Unverified(CertificateTrouble::UnknownIssuer);
        let verification = if certificate_is_valid { Verification::Verified } else { unverified };
        self.session.handle_tls_established(self.now, &Tls::new(TlsVersion::V1_3, verification));
    }

    /// Takes the octets of the session, and replies as a polite server, to this many commands.
    fn polite(&mut self, commands: usize) {
        for _ in 0..4 {
            self.transmit(10_000);
        }
        self.take_outputs();
        if self.session.phase() == Phase::Tls {
            return self.tls_established(true);
        }
        let conversation = &self.checker.conversation;
        let commands: Vec<Command> = conversation.unanswered().take(commands).collect();
        let replies: String = commands.into_iter().map(|command| self.polite_reply(command)).collect();
        self.server(replies.as_bytes());
    }

    fn polite_reply(&self, command: Command) -> String {
        let conversation = &self.checker.conversation;
        let reply = match command {
            Command::Greeting | Command::StartTls => "220 mx",
            Command::Ehlo => {
                return format!(
                    "250-mx\r\n{}250-STARTTLS\r\n250-AUTH LOGIN PLAIN CRAM-MD5\r\n250-8BITMIME\r\n250 SIZE 100000\r\n",
                    self.offers
                );
            }
            Command::Auth | Command::Response => match (conversation.last_line(), conversation.responses()) {
                (b"AUTH LOGIN", 0) => "334 VXNlcm5hbWU6",
                (line, 0) if line.starts_with(b"AUTH CRAM-MD5") => "334 PDEuMkBteD4=",
                (b"dXNlcg==", 1) => "334 UGFzc3dvcmQ6",
                _ => "235 2.7.0 ok",
            },
            Command::Data(_) => "354 go",
            Command::Quit => "221 bye",
            Command::Helo
            | Command::Noop
            | Command::Rset
            | Command::Mail(_)
            | Command::Rcpt(..)
            | Command::Message(_) => "250 2.0.0 ok",
        };
        format!("{reply}\r\n")
    }

    fn transmit(&mut self, limit: usize) {
        if let Some(end) = pause_end(&self.session, self.now).filter(|_| !self.session.wants_transmit()) {
            self.now = self.now.max(end);
            self.session.handle_timeout(self.now);
        }
        let mut octets = BytesMut::new();
        let wanted = self.session.wants_transmit() && limit > 0;
        assert_eq!(self.session.poll_transmit(self.now, limit, &mut octets), !octets.is_empty());
        assert!(octets.len() <= 2 * limit + 10, "{} octets for {limit}", octets.len());
        // Only the next octet shows whether a CR ends a line.
        let may_be_empty = !wanted || self.checker.conversation.sending().is_some();
        assert!(wanted || octets.is_empty());
        assert!(!octets.is_empty() || may_be_empty, "nothing is sent");
        self.sent.extend_from_slice(&octets);
        self.take_outputs_before(|checker| checker.sent(&octets));
    }

    fn take_outputs(&mut self) {
        self.take_outputs_before(|_| {});
    }

    fn take_outputs_before(&mut self, first: impl FnOnce(&mut Checker)) {
        first(&mut self.checker);
        while let Some(output) = self.session.poll_output() {
            self.checker.output(&output);
            if !matches!(output, SessionOutput::Received(_)) {
                self.outputs.push(output);
            }
        }
        self.checker.check_state(&self.session, &self.sent);
    }
}

fn config(letters: &[u8], password: &str) -> SessionConfig {
    let has = |letter| letters.contains(&letter);
    SessionConfig {
        announce: "client.example.org".into(),
        tls: match (has(b'i'), has(b's')) {
            (true, _) => TlsMode::Implicit,
            (false, true) => TlsMode::StartTls,
            (false, false) => TlsMode::Plain,
        },
        need: Need::Optional,
        plain_fallback: has(b'f'),
        credentials: has(b'a').then(|| Credentials { user: "user".into(), password: password.into() }),
        auth_unprotected: has(b'u'),
        mechanism: None,
        padding_limit: if has(b'p') { 3 } else { 0 },
        no_pipelining: has(b'c'),
        trace: has(b't'),
    }
}

/// Mail data of an argument.
fn message(argument: &[u8]) -> Vec<u8> {
    let octet = |&octet| match octet {
        b'|' => b'\n',
        b'^' => b'\r',
        octet => octet,
    };
    argument.iter().map(octet).collect()
}

#[cfg(test)]
mod tests;
