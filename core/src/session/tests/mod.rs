//! Dialogues as octets. Each is led twice, with the server's octets in one piece and one by one, with equal results.

mod auth;
mod end_of_data;
mod needs;
mod negotiation;
mod out_of_step;
mod pipelining;
mod probe;
mod properties;
mod refusals;
mod transactions;
mod wishes;

use alloc::string::{String, ToString as _};
use alloc::vec::Vec;
use core::mem;

use bytes::{Bytes, BytesMut};

use super::*;
use crate::address::Mailbox;
use crate::next_hop::{Credentials, TlsMode};
use crate::outbox::MailId;
use crate::time::Duration;
use crate::tls::{TlsVersion, Verification};

const BATCH: &str = "MAIL FROM:<s@example.org>\r\nRCPT TO:<r1@example.net>\r\nDATA\r\n";

/// A server and the parent of a session in one.
struct Talk {
    session: Session,
    now: Instant,
    /// How many octets the server says at once.
    piece: usize,
    outputs: Vec<SessionOutput>,
}

/// A session of each kind of server; the dialogue is the same with both.
fn dialogue(config: &SessionConfig, lead: impl Fn(&mut Talk)) {
    for piece in [usize::MAX, 1] {
        lead(&mut Talk::new(config.clone(), piece));
    }
}

fn config(tls: TlsMode) -> SessionConfig {
    SessionConfig {
        announce: "client.example.org".into(),
        tls,
        need: crate::tls::Need::Optional,
        plain_fallback: false,
        credentials: None,
        auth_unprotected: false,
        mechanism: None,
        padding_limit: 0,
        no_pipelining: false,
        trace: false,
    }
}

fn plain() -> SessionConfig {
    config(TlsMode::Plain)
}

fn with_credentials(mut config: SessionConfig, auth_unprotected: bool) -> SessionConfig {
    config.credentials = Some(Credentials { user: "user".into(), password: "pass-word".into() });
    config.auth_unprotected = auth_unprotected;
    config
}

impl Talk {
    fn new(config: SessionConfig, piece: usize) -> Self {
        let now = Instant::from_micros(1_000_000);
        let session = Session::new(config, Rng::from_seed([9; 32]), now);
        Self { session, now, piece, outputs: Vec::new() }
    }

    /// A session that is ready, with a server that offers `extensions`, one per line.
    fn make_ready(&mut self, extensions: &str) {
        self.server("220 mx\r\n").client("EHLO client.example.org\r\n");
        let lines: String = extensions
            .split_whitespace()
            .map(|line| line.replace('_', " "))
            .fold(String::new(), |lines, line| lines + "250-" + &line + "\r\n");
        self.server(&("250-mx\r\n".to_string() + &lines + "250 HELP\r\n"));
        assert_eq!(self.outputs(), [SessionOutput::Ready]);
    }

    fn server(&mut self, octets: &str) -> &mut Self {
        for piece in octets.as_bytes().chunks(self.piece) {
            self.session.handle_received(self.now, piece);
        }
        self
    }

    /// Everything that the client has to send is this.
    fn client(&mut self, expected: &str) -> &mut Self {
        assert_eq!(
            self.transmit().escape_ascii().to_string(),
            expected.as_bytes().escape_ascii().to_string()
        );
        self
    }

    /// Returns what the client sends now, and after the pause before the end of a message.
    fn transmit(&mut self) -> BytesMut {
        let mut octets = self.transmit_at_once();
        if let Pause::Until(end) = self.session.pause {
            self.now = end;
            self.session.handle_timeout(end);
            octets.unsplit(self.transmit_at_once());
        }
        octets
    }

    fn transmit_at_once(&mut self) -> BytesMut {
        let mut octets = BytesMut::new();
        while self.session.poll_transmit(self.now, 1000, &mut octets) {}
        octets
    }

    /// Ends the handshake with these facts.
    fn established(&mut self, tls: &Tls) -> &mut Self {
        self.session.handle_tls_established(self.now, tls);
        self
    }

    fn tls(&mut self, certificate_is_valid: bool) -> &mut Self {
        self.established(&Tls::new(TlsVersion::V1_3, Verification::for_tests(certificate_is_valid)))
    }

    fn closed(&mut self) -> &mut Self {
        self.session.handle_closed(self.now, CloseReason::EndOfFile);
        self
    }

    fn quit(&mut self) -> &mut Self {
        self.session.quit(self.now);
        self
    }

    fn supply(&mut self, octets: impl Into<Bytes>) -> &mut Self {
        self.session.supply_data(self.now, octets.into());
        self
    }

    fn pass(&mut self, seconds: u64) -> &mut Self {
        self.now = self.now + Duration::from_secs(seconds);
        self.session.handle_timeout(self.now);
        self
    }

    fn begin(&mut self, transaction: Transaction) -> &mut Self {
        self.session.begin(self.now, transaction);
        self
    }

    fn outputs(&mut self) -> Vec<SessionOutput> {
        self.outputs.extend(core::iter::from_fn(|| self.session.poll_output()));
        mem::take(&mut self.outputs)
    }

    /// The verdicts, as short words, and what came after them.
    fn verdicts(&mut self) -> (Vec<(i64, String)>, Vec<SessionOutput>) {
        let mut outputs = self.outputs();
        outputs.retain(|output| !matches!(output, SessionOutput::NeedData { .. }));
        let rest = outputs.split_off(1);
        let SessionOutput::Verdicts(verdicts) = outputs.remove(0) else { panic!("verdicts are missing") };
        (verdicts.into_iter().map(|(recipient, outcome)| (recipient.id.0, word(&outcome))).collect(), rest)
    }

    /// The last output of all.
    fn end(&mut self) -> SessionEnd {
        let outputs = self.outputs();
        let Some(SessionOutput::Ended(end)) = outputs.last() else { panic!("no end in {outputs:?}") };
        assert_eq!(self.session.phase(), Phase::Ended);
        assert_eq!(self.session.poll_timeout(), None);
        assert!(!self.session.wants_transmit());
        end.clone()
    }
}

fn word(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Delivered(reply) => alloc::format!("delivered {}", reply.text()),
        Outcome::Rejected { reply, command, fatal } => {
            let kind = if *fatal { "fatal" } else { "failed" };
            alloc::format!("{kind} {} {command}", reply.text())
        }
        Outcome::Accepted(reply) => alloc::format!("accepted {}", reply.text()),
        Outcome::Unfit(why) => alloc::format!("fatal {} {why}", why.status()),
        Outcome::Uncertain(cause) => alloc::format!("uncertain: {cause}"),
        Outcome::Refused(Refusal { kind, reply, command }) => {
            alloc::format!("{kind:?} {} {command}", reply.text())
        }
        Outcome::Undecided => "undecided".into(),
    }
}

fn mailbox(text: &str) -> Mailbox {
    Mailbox::parse(text.as_bytes()).unwrap()
}

fn recipient(id: i64, address: &str) -> Recipient {
    Recipient::new(MailId(id), mailbox(address))
}

/// A message from s@example.org for recipients r1, r2, … of example.net, whole.
fn mail(recipients: i64, data: &'static str) -> Transaction {
    Transaction {
        signatures: Bytes::new(),
        reverse_path: Some(mailbox("s@example.org")),
        recipients: (1..=recipients)
            .map(|number| recipient(number, &alloc::format!("r{number}@example.net")))
            .collect(),
        data_octets: data.len() as u64,
        head: Bytes::from_static(data.as_bytes()),
        is_probe: false,
    }
}

fn all(recipients: i64, word: &str) -> Vec<(i64, String)> {
    (1..=recipients).map(|number| (number, word.to_string())).collect()
}

fn reply_text(cause: &EndCause) -> String {
    let EndCause::Refused(reply, command) = cause else { panic!("not refused: {cause:?}") };
    alloc::format!("{} {command}", reply.text())
}

fn lost(end: &SessionEnd) -> String {
    assert!(end.cause.is_loss() && !end.cause.is_out_of_step(), "{end:?}");
    end.cause.to_string()
}

fn out_of_step(end: &SessionEnd) -> String {
    assert!(end.cause.is_out_of_step(), "{end:?}");
    end.cause.to_string()
}

/// A message whose recipients have other ids than those of the one before.
fn next_mail(first: i64, data: &'static str) -> Transaction {
    let mut transaction = mail(1, data);
    transaction.recipients[0].id = MailId(first);
    transaction
}

fn ready() -> Vec<SessionOutput> {
    [SessionOutput::Ready].into()
}

fn one(id: i64, word: &str) -> Vec<(i64, String)> {
    [(id, word.to_string())].into()
}

/// The verdicts of each transaction, without what else was said.
fn verdicts_of(outputs: Vec<SessionOutput>) -> Vec<Vec<(i64, String)>> {
    let verdicts = |output| {
        let SessionOutput::Verdicts(verdicts) = output else { return None };
        Some(verdicts.iter().map(|(recipient, outcome)| (recipient.id.0, word(outcome))).collect())
    };
    outputs.into_iter().filter_map(verdicts).collect()
}
