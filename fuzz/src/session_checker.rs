//! What must hold of a conversation, whatever happens: each recipient comes back once, delivered only where the server has
//! taken responsibility; commands come in legal order, after the reply to the one before, and only where they may; the data
//! is what a plain reading makes of it; no secret is told.

use std::collections::BTreeSet;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use cmail_delivery::address::Mailbox;
use cmail_delivery::next_hop::TlsMode;
use cmail_delivery::outbox::MailId;
use cmail_delivery::reply::{ReplyClass, ReplyParser};
use cmail_delivery::session::{Outcome, Phase, Session, SessionConfig, SessionOutput, Transaction};
use cmail_delivery::time::{Duration, Instant};

use crate::script::{contains, naive_mail_data};

/// The longest bound of a phase but for long messages (RFC 5321 section 4.5.3.2).
const PHASE_LIMIT: Duration = Duration::from_secs(600);

/// The data of a transaction.
#[derive(Default)]
struct Message {
    /// What the session was given of it.
    known: Vec<u8>,
    total: usize,
    /// What it asked for.
    outstanding: Option<usize>,
    /// What it has sent.
    sent: Vec<u8>,
}

/// What was seen so far.
pub(crate) struct Checker {
    config: SessionConfig,
    secrets: Vec<String>,
    /// Recipients that are to come back.
    open: BTreeSet<MailId>,
    begun: i64,
    /// Those of the transaction that was begun last.
    running: Vec<MailId>,
    has_ended: bool,
    is_tls: bool,
    certificate_is_valid: bool,
    /// The reading of what the server says beside that of the session.
    replies: ReplyParser,
    reply_count: usize,
    /// Octets of a command whose end was not yet sent.
    partial: Vec<u8>,
    /// The last commands; `.` for the end of the data.
    last_line: Vec<u8>,
    verbs: Vec<String>,
    /// How many recipients of the running transaction the server has accepted.
    accepted: usize,
    is_authenticated: bool,
    /// What the server has replied since the final dot, if one was sent in this transaction.
    since_final_dot: Option<Vec<ReplyClass>>,
    message: Message,
    traced: Vec<u8>,
}

impl Checker {
    pub(crate) fn new(config: SessionConfig, password: &str) -> Self {
        let secrets =
            [password.to_owned(), STANDARD.encode(password), STANDARD.encode(format!("\0user\0{password}"))];
        Self {
            config,
            secrets: secrets.to_vec(),
            open: BTreeSet::new(),
            begun: 0,
            running: Vec::new(),
            has_ended: false,
            is_tls: false,
            certificate_is_valid: false,
            replies: ReplyParser::default(),
            reply_count: 0,
            partial: Vec::new(),
            last_line: Vec::new(),
            verbs: Vec::new(),
            accepted: 0,
            is_authenticated: false,
            since_final_dot: None,
            message: Message::default(),
            traced: Vec::new(),
        }
    }

    /// A transaction to begin; with `needs_more`, ten octets of its data are left out.
    pub(crate) fn begin(
        &mut self,
        session: &Session,
        recipients: u8,
        data: &[u8],
        needs_more: bool,
    ) -> Transaction {
        let total = data.len() + if needs_more { 10 } else { 0 };
        let is_ready = session.phase() == Phase::Ready;
        if is_ready {
            self.message = Message { known: data.to_vec(), total, ..Message::default() };
            (self.since_final_dot, self.accepted) = (None, 0);
            assert!(self.running.is_empty());
        }
        let mut chosen = Vec::new();
        for _ in 0..=recipients {
            self.begun += 1;
            let id = MailId(self.begun);
            if !self.has_ended {
                self.open.insert(id);
            }
            if is_ready {
                self.running.push(id);
            }
            chosen.push((id, mailbox(&format!("r{}@example.net", self.begun))));
        }
        Transaction {
            reverse_path: Some(mailbox("s@example.org")),
            recipients: chosen,
            data_octets: total as u64,
            head: Bytes::copy_from_slice(data),
        }
    }

    pub(crate) fn supply(&mut self, session: &Session, octets: &[u8]) {
        if session.phase() == Phase::MailData
            && let Some(limit) = self.message.outstanding.take()
        {
            self.message.known.extend_from_slice(&octets[..octets.len().min(limit)]);
        }
    }

    pub(crate) fn tls_established(&mut self, session: &Session, certificate_is_valid: bool) {
        if session.phase() == Phase::Tls {
            (self.is_tls, self.certificate_is_valid) = (true, certificate_is_valid);
        }
    }

    /// Reads along.
    pub(crate) fn server_says(&mut self, session: &Session, octets: &[u8]) {
        if matches!(session.phase(), Phase::Tls | Phase::Ended) {
            return;
        }
        let mut rest = octets;
        while let Ok(Some(reply)) = self.replies.parse(&mut rest) {
            self.reply_count += 1;
            let class = reply.class();
            if let Some(since) = &mut self.since_final_dot {
                since.push(class);
            }
            if class == ReplyClass::Completed {
                match session.phase() {
                    Phase::Rcpt => self.accepted += 1,
                    Phase::Auth => self.is_authenticated = true,
                    _ => {}
                }
            }
        }
    }

    /// Octets that went out; `before` is what the session was about before.
    pub(crate) fn sent(&mut self, session: &Session, before: Phase, octets: &[u8]) {
        if octets.is_empty() {
            return;
        }
        assert!(!self.has_ended, "something is sent after the end");
        if self.config.tls == TlsMode::Implicit {
            assert!(self.is_tls, "plain text before TLS");
        }
        if before == Phase::MailData {
            return self.sent_data(session, octets);
        }
        self.partial.extend_from_slice(octets);
        while let Some(end) = self.partial.iter().position(|&octet| octet == b'\n') {
            let line: Vec<u8> = self.partial.drain(..=end).collect();
            let text = line.strip_suffix(b"\r\n").expect("a bare LF");
            assert!(!text.iter().any(u8::is_ascii_control), "{}", line.escape_ascii());
            self.command(text);
            self.last_line = line;
        }
    }

    fn sent_data(&mut self, session: &Session, octets: &[u8]) {
        let message = &mut self.message;
        message.sent.extend_from_slice(octets);
        let expected = naive_mail_data(&message.known);
        let is_over = session.phase() == Phase::EndOfData;
        if is_over {
            assert_eq!(message.known.len(), message.total, "the final dot before the end of the data");
            assert_eq!(message.sent.escape_ascii().to_string(), expected.escape_ascii().to_string());
            assert_eq!(self.verbs.last().map(String::as_str), Some("DATA"));
            self.verbs.push(".".into());
            self.since_final_dot = Some(Vec::new());
        } else {
            let data = expected.strip_suffix(b".\r\n").unwrap_or_default();
            assert!(data.starts_with(&message.sent), "{}", message.sent.escape_ascii());
        }
    }

    /// Whether a command may come here (RFC 5321 section 4.1.4, RFC 3207 section 4, RFC 4954 section 4).
    fn command(&mut self, text: &[u8]) {
        let verb = String::from_utf8_lossy(text.split(|&octet| octet == b' ').next().unwrap_or_default())
            .into_owned();
        let last = self.verbs.last().map_or("", String::as_str);
        let is_greeted = matches!(last, "EHLO" | "HELO" | "NOOP") || (last == "RSET" && !self.has_begun());
        let is_negotiated = is_greeted || matches!(last, "AUTH" | "response" | "MAIL" | "." | "RSET");
        let verb = match verb.as_str() {
            "EHLO" | "HELO" | "STARTTLS" | "NOOP" | "RSET" | "AUTH" | "MAIL" | "RCPT" | "DATA" | "QUIT" => {
                verb
            }
            _ => "response".to_owned(),
        };
        let is_legal = match verb.as_str() {
            "EHLO" => last.is_empty() || (last == "STARTTLS" && self.is_tls),
            "HELO" => last == "EHLO",
            "STARTTLS" => is_greeted && self.config.tls == TlsMode::StartTls && !self.is_tls,
            "NOOP" => is_greeted && self.is_tls && self.config.padding_limit > 0,
            "RSET" => {
                matches!(last, "RCPT" | "DATA")
                    || (is_greeted && self.is_tls && self.config.padding_limit > 0)
            }
            "AUTH" => is_greeted || matches!(last, "AUTH" | "response"),
            "response" => matches!(last, "AUTH" | "response"),
            "MAIL" => is_negotiated && !self.open.is_empty(),
            "RCPT" => matches!(last, "MAIL" | "RCPT"),
            "DATA" => last == "RCPT" && self.accepted > 0,
            _ => last != "QUIT",
        };
        assert!(is_legal, "{verb} after {last:?}");
        self.verbs.push(verb.clone());
        assert!(self.verbs.len() <= self.reply_count, "{verb} before the reply to {:?}", self.verbs);
        if verb == "AUTH" || verb == "response" {
            assert!(self.config.credentials.is_some());
            let is_protected = self.is_tls && self.certificate_is_valid;
            assert!(is_protected || self.config.auth_unprotected, "credentials without protection");
        }
        if verb == "MAIL" {
            assert!(
                self.config.credentials.is_none() || self.is_authenticated,
                "mail without authentication"
            );
            let may_be_plain = self.config.tls == TlsMode::Plain || self.config.plain_fallback;
            assert!(self.is_tls || may_be_plain, "mail in plain text");
        }
    }

    fn has_begun(&self) -> bool {
        self.verbs.iter().any(|verb| verb == "MAIL")
    }

    pub(crate) fn output(&mut self, output: &SessionOutput) {
        assert!(!self.has_ended, "{output:?} after the end");
        let shown = format!("{output:?}");
        for secret in &self.secrets {
            assert!(!contains(shown.as_bytes(), secret.as_bytes()), "{shown}");
        }
        match output {
            SessionOutput::Verdicts(verdicts) => {
                for (id, _) in verdicts {
                    assert!(self.open.remove(id), "{id} is decided twice");
                }
                self.verdicts(verdicts);
            }
            SessionOutput::Ready => {
                assert!(self.open.is_empty(), "ready with recipients that are not decided")
            }
            SessionOutput::NeedData { offset, limit } => {
                let message = &mut self.message;
                assert_eq!(usize::try_from(*offset), Ok(message.known.len()));
                let limit = usize::try_from(*limit).expect("it fits");
                assert!(limit > 0 && message.known.len() + limit <= message.total);
                assert_eq!(message.outstanding.replace(limit), None, "asked for twice");
            }
            SessionOutput::Ended(_) => {
                self.has_ended = true;
                assert!(self.open.is_empty(), "the session ended without a verdict for {:?}", self.open);
            }
            SessionOutput::Sent(octets) | SessionOutput::SentData(octets) => {
                assert!(self.config.trace);
                self.traced.extend_from_slice(octets);
            }
            SessionOutput::Received(_) => assert!(self.config.trace),
            SessionOutput::StartTls => assert!(!self.is_tls),
            SessionOutput::Note(_) => {}
        }
    }

    /// RFC 5321 section 4.2.5: responsibility is taken by the first reply after the final dot, if it is 2yz.
    fn verdicts(&mut self, verdicts: &[(MailId, Outcome)]) {
        let is_undecided = |(_, outcome): &&(MailId, Outcome)| matches!(outcome, Outcome::Undecided);
        let undecided = verdicts.iter().filter(is_undecided).count();
        if !verdicts.iter().any(|(id, _)| self.running.contains(id)) {
            assert_eq!(undecided, verdicts.len(), "what was never begun is decided");
            return;
        }
        let ids: Vec<MailId> = verdicts.iter().map(|(id, _)| *id).collect();
        assert_eq!(ids.iter().collect::<BTreeSet<_>>(), self.running.iter().collect());
        let after_dot = self.since_final_dot.take();
        let taken = after_dot.as_ref().and_then(|replies| replies.first());
        for (_, outcome) in verdicts {
            if let Outcome::Delivered(reply) = outcome {
                assert_eq!(taken, Some(&ReplyClass::Completed), "delivered without a word of the server");
                assert_eq!(reply.class(), ReplyClass::Completed);
            }
        }
        // Who may have got it must not be sent to again in another conversation.
        assert!(after_dot.is_none() || undecided + self.accepted <= verdicts.len());
        self.running.clear();
    }

    pub(crate) fn check_state(&self, session: &Session, sent: &[u8]) {
        assert_eq!(self.has_ended, session.phase() == Phase::Ended);
        assert_eq!(session.is_tls(), self.is_tls);
        if self.config.trace && self.config.credentials.is_none() {
            assert!(self.traced.starts_with(sent), "what is traced is what is sent");
        }
        if self.has_ended {
            assert!(!session.wants_transmit());
        }
    }

    /// Only who waits for the owner alone has no deadline; and before the deadline nothing happens.
    pub(crate) fn check_deadline(&mut self, session: &mut Session, now: Instant) {
        let Some((deadline, _)) = session.poll_timeout() else {
            assert!(
                matches!(session.phase(), Phase::Ready | Phase::Ended),
                "no deadline in {}",
                session.phase()
            );
            return;
        };
        assert!(!matches!(session.phase(), Phase::Ready | Phase::Ended));
        assert!(deadline <= now + PHASE_LIMIT + Duration::from_secs(self.message.total as u64 / 1024));
        if deadline > now {
            let phase = session.phase();
            session.handle_timeout(now);
            assert_eq!((session.phase(), session.poll_output()), (phase, None));
        }
    }

    pub(crate) fn check_end(&self, session: &mut Session, now: Instant) {
        assert!(self.has_ended && self.open.is_empty());
        let mut octets = bytes::BytesMut::new();
        session.handle_received(now, b"250 ok\r\n");
        session.handle_timeout(now + PHASE_LIMIT);
        session.quit(now);
        assert!(!session.poll_transmit(now, 1000, &mut octets) && octets.is_empty());
        assert_eq!(session.poll_output(), None);
        let shown = format!("{session:?}");
        assert!(!self.secrets.iter().any(|secret| shown.contains(secret)), "{shown}");
    }

    pub(crate) fn last_line(&self) -> &[u8] {
        self.last_line.strip_suffix(b"\r\n").unwrap_or(&self.last_line)
    }

    /// What a server says to the last line of an authentication.
    pub(crate) fn auth_reply(&self) -> &'static [u8] {
        let responses = self.verbs.iter().rev().take_while(|verb| *verb == "response").count();
        match (self.last_line(), responses) {
            (b"AUTH LOGIN", 0) => b"334 VXNlcm5hbWU6\r\n",
            (line, 0) if line.starts_with(b"AUTH CRAM-MD5") => b"334 PDEuMkBteD4=\r\n",
            (line, 1) if line == b"dXNlcg==" => b"334 UGFzc3dvcmQ6\r\n",
            _ => b"235 2.7.0 ok\r\n",
        }
    }
}

fn mailbox(text: &str) -> Mailbox {
    Mailbox::parse(text.as_bytes()).expect("it is an address")
}
