//! The invariants of a conversation: each recipient is returned once, with the verdict of the replies to its own transaction, in
//! the order of the transactions; commands come in legal order (`conversation`), and only where they may; the data is that of a
//! plain reading; no secret appears.

use std::collections::BTreeSet;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::{Bytes, BytesMut};
use cmail_delivery::address::Mailbox;
use cmail_delivery::dsn::{DsnWishes, EnvelopeId, MessageWishes, Notify, OriginalRecipient, ReturnExtent};
use cmail_delivery::ending::Unfit;
use cmail_delivery::next_hop::TlsMode;
use cmail_delivery::outbox::MailId;
use cmail_delivery::reply::ReplyClass;
use cmail_delivery::session::{
    EndCause, Outcome, Phase, Recipient, Session, SessionConfig, SessionEnd, SessionOutput, Transaction,
};
use cmail_delivery::time::{Duration, Instant};

use crate::command::Command;
use crate::conversation::Conversation;
use crate::script::{contains, naive_mail_data, naive_text};
use crate::transaction::{Verdict, is_farewell};

/// The longest bound of a phase except for long messages (RFC 5321 section 4.5.3.2).
const PHASE_LIMIT: Duration = Duration::from_secs(600);

/// The longest pause before the end of a message.
const PAUSE_LIMIT: Duration = Duration::from_millis(100);

/// A transaction that was begun.
struct Begun {
    ids: Vec<MailId>,
    /// The octets of its data that the session was given.
    known: Vec<u8>,
    total: usize,
    /// The octets that it has requested.
    outstanding: Option<usize>,
    /// True if all of it was given at once.
    is_whole: bool,
    is_decided: bool,
}

/// The observed facts.
pub(crate) struct Checker {
    config: SessionConfig,
    secrets: Vec<String>,
    pub(crate) conversation: Conversation,
    /// Recipients that are to come back.
    open: BTreeSet<MailId>,
    recipients: i64,
    /// Transactions that were begun when they could be, in that order; and those that were not, until they come back.
    begun: Vec<Begun>,
    handed_back: Vec<Vec<MailId>>,
    /// True if the session has said that a transaction may begin, and none has since.
    is_announced: bool,
    quits: bool,
    /// The number of messages that may have been taken without a reply.
    uncertain: usize,
    has_ended: bool,
    is_tls: bool,
    certificate_is_valid: bool,
    is_authenticated: bool,
    traced: Vec<u8>,
}

impl Checker {
    pub(crate) fn new(config: SessionConfig, password: &str) -> Self {
        let secrets =
            [password.to_owned(), STANDARD.encode(password), STANDARD.encode(format!("\0user\0{password}"))];
        Self {
            conversation: Conversation::new(config.no_pipelining),
            config,
            secrets: secrets.to_vec(),
            open: BTreeSet::new(),
            recipients: 0,
            begun: Vec::new(),
            handed_back: Vec::new(),
            is_announced: false,
            quits: false,
            uncertain: 0,
            has_ended: false,
            is_tls: false,
            certificate_is_valid: false,
            is_authenticated: false,
            traced: Vec::new(),
        }
    }

    /// Begins a transaction. With `needs_more`, ten octets of its data are left out.
    pub(crate) fn begin(
        &mut self,
        session: &Session,
        recipients: u8,
        data: &[u8],
        needs_more: bool,
    ) -> Transaction {
        let total = data.len() + if needs_more { 10 } else { 0 };
        let is_leaving = session.phase() == Phase::Quit || self.conversation.is_leaving();
        let begins = self.is_announced && !self.quits && !is_leaving && !self.has_ended;
        // No other transaction has this number, so that MAIL identifies it.
        let reverse_path = if begins { reverse_path(self.begun.len()) } else { "x@example.org".to_owned() };
        let mut chosen = Vec::new();
        for _ in 0..=recipients {
            self.recipients += 1;
            let id = MailId(self.recipients);
            chosen.push(Recipient { wishes: wishes(id), ..Recipient::new(id, mailbox(&forward_path(id))) });
        }
        let ids: Vec<MailId> = chosen.iter().map(|recipient| recipient.id).collect();
        if !self.has_ended {
            self.open.extend(&ids);
        }
        if begins {
            self.is_announced = false;
            let (known, is_whole) = (data.to_vec(), !needs_more);
            let size = if is_whole { naive_text(data).len() } else { total };
            let is_sendable = self.conversation.size_limit().is_none_or(|limit| size <= limit);
            self.conversation.begin(&reverse_path, is_sendable);
            self.begun.push(Begun { ids, known, total, outstanding: None, is_whole, is_decided: false });
        } else if !self.has_ended {
            self.handed_back.push(ids);
        }
        Transaction {
            signatures: Bytes::new(),
            reverse_path: Some(mailbox(&reverse_path)),
            recipients: chosen,
            data_octets: total as u64,
            head: Bytes::copy_from_slice(data),
            is_probe: false,
        }
    }

    pub(crate) fn supply(&mut self, octets: &[u8]) {
        if let Some(begun) = self.begun.last_mut()
            && let Some(limit) = begun.outstanding.take()
        {
            begun.known.extend_from_slice(&octets[..octets.len().min(limit)]);
        }
    }

    pub(crate) fn quit(&mut self) {
        self.quits = true;
    }

    pub(crate) fn tls_established(&mut self, session: &Session, certificate_is_valid: bool) {
        if session.phase() == Phase::Tls {
            (self.is_tls, self.certificate_is_valid) = (true, certificate_is_valid);
            self.conversation.tls_established();
        }
    }

    /// Reads along.
    pub(crate) fn server_says(&mut self, session: &Session, octets: &[u8]) {
        if matches!(session.phase(), Phase::Tls | Phase::Ended) {
            return;
        }
        for (command, reply) in self.conversation.says(octets) {
            let is_auth = matches!(command, Command::Auth | Command::Response);
            self.is_authenticated |= is_auth && reply.class() == ReplyClass::Completed;
        }
    }

    /// Octets that went out.
    pub(crate) fn sent(&mut self, octets: &[u8]) {
        if octets.is_empty() {
            return;
        }
        assert!(!self.has_ended, "something is sent after the end");
        if self.config.tls == TlsMode::Implicit {
            assert!(self.is_tls, "plain text before TLS");
        }
        for command in self.conversation.receive(octets) {
            self.check_command(command);
        }
        // Only the last message can have changed.
        if let Some(number) = self.conversation.transactions().len().checked_sub(1) {
            self.check_message(number);
        }
    }

    /// Asserts that the configuration allows a command.
    fn check_command(&self, command: Command) {
        let config = &self.config;
        match command {
            Command::StartTls => assert_eq!(config.tls, TlsMode::StartTls),
            Command::Noop => assert!(config.padding_limit > 0),
            Command::Rset if self.conversation.transactions().is_empty() => assert!(config.padding_limit > 0),
            Command::Auth | Command::Response => {
                assert!(config.credentials.is_some());
                let is_protected = self.is_tls && self.certificate_is_valid;
                assert!(is_protected || config.auth_unprotected, "credentials without protection");
            }
            Command::Mail(number) => {
                assert!(config.credentials.is_none() || self.is_authenticated, "mail without authentication");
                let may_be_plain = config.tls == TlsMode::Plain || config.plain_fallback;
                assert!(self.is_tls || may_be_plain, "mail in plain text");
                let all = self.conversation.transactions();
                let same = all.iter().filter(|seen| seen.reverse_path == all[number].reverse_path).count();
                assert_eq!(same, 1, "{} is sent twice", all[number].reverse_path);
                let begun = self.begun_as(&all[number].reverse_path);
                assert!(!begun.is_decided);
            }
            Command::Rcpt(number, recipient) => {
                let seen = &self.conversation.transactions()[number];
                let id = self.begun_as(&seen.reverse_path).ids.get(recipient);
                assert_eq!(id.map(|id| forward_path(*id)), Some(seen.recipients[recipient].0.clone()));
            }
            _ => {}
        }
    }

    fn begun_as(&self, path: &str) -> &Begun {
        let mut begun = self.begun.iter().enumerate();
        begun.find(|(number, _)| reverse_path(*number) == path).expect("a transaction of nobody").1
    }

    /// Asserts that the sent octets of a message are the beginning of those of a plain reading.
    fn check_message(&self, number: usize) {
        let seen = &self.conversation.transactions()[number];
        let begun = self.begun_as(&seen.reverse_path);
        if seen.accepted() == 0 {
            assert!(b".\r\n".starts_with(&seen.message), "{}", seen.message.escape_ascii());
            return;
        } else if !seen.is_sent {
            let expected = naive_mail_data(&begun.known);
            let data = expected.strip_suffix(b".\r\n").unwrap_or_default();
            assert!(data.starts_with(&seen.message), "{}", seen.message.escape_ascii());
        } else {
            let expected = naive_mail_data(&begun.known);
            assert_eq!(seen.message.escape_ascii().to_string(), expected.escape_ascii().to_string());
        }
        if seen.is_sent {
            assert_eq!(begun.known.len(), begun.total, "the end of the message before the end of the data");
        }
        if seen.is_sent && seen.is_batched {
            assert_eq!(seen.recipients.len(), begun.ids.len(), "a message without all of its envelope");
        }
    }

    pub(crate) fn output(&mut self, output: &SessionOutput) {
        assert!(!self.has_ended, "{output:?} after the end");
        let shown = format!("{output:?}");
        for secret in &self.secrets {
            assert!(!contains(shown.as_bytes(), secret.as_bytes()), "{shown}");
        }
        match output {
            SessionOutput::Verdicts(verdicts) => {
                for (Recipient { id, .. }, _) in verdicts {
                    assert!(self.open.remove(id), "{id} is decided twice");
                }
                self.verdicts(verdicts);
            }
            SessionOutput::Ready => self.ready(),
            SessionOutput::NeedData { id, offset, limit } => {
                let begun = self.begun.last_mut().expect("data of nothing");
                assert!(begun.ids.contains(id), "data of another message");
                assert_eq!(usize::try_from(*offset), Ok(begun.known.len()));
                let limit = usize::try_from(*limit).expect("it fits");
                assert!(limit > 0 && begun.known.len() + limit <= begun.total);
                assert_eq!(begun.outstanding.replace(limit), None, "asked for twice");
            }
            SessionOutput::Ended(end) => self.ended(end),
            SessionOutput::Sent(octets) | SessionOutput::SentData(octets) => {
                assert!(self.config.trace);
                self.traced.extend_from_slice(octets);
            }
            SessionOutput::Received(_) => assert!(self.config.trace),
            SessionOutput::StartTls => assert!(!self.is_tls),
            SessionOutput::Authenticated(_) | SessionOutput::Note(_) => {}
        }
    }

    /// Asserts that a transaction may begin: none is under way, or the last message is sent whole.
    fn ready(&mut self) {
        assert!(!std::mem::replace(&mut self.is_announced, true), "ready twice");
        let Some(last) = self.begun.last().filter(|last| !last.is_decided) else {
            assert!(self.conversation.may_batch() || self.open.is_empty());
            return;
        };
        let path = reverse_path(self.begun.len() - 1);
        let seen = self.conversation.transactions().last().filter(|seen| seen.reverse_path == path);
        // The lone dot of a message without recipients is on its way, or RSET.
        let is_sent = seen.is_some_and(|seen| seen.is_sent || seen.accepted() == 0 || seen.is_data_refused());
        assert!(self.conversation.may_batch() && is_sent, "ready with {:?} under way", last.ids);
    }

    /// The verdicts of one transaction, which are those of the oldest that has none and is not in doubt.
    fn verdicts(&mut self, verdicts: &[(Recipient, Outcome)]) {
        let mut ids: Vec<MailId> = verdicts.iter().map(|(recipient, _)| recipient.id).collect();
        ids.sort();
        if let Some(position) = self.handed_back.iter().position(|handed_back| *handed_back == ids) {
            self.handed_back.remove(position);
            let is_undecided = |(_, outcome): &(_, _)| *outcome == Outcome::Undecided;
            assert!(verdicts.iter().all(is_undecided), "what was never begun is decided");
            return;
        }
        // The server's last reply decides a message in doubt.
        let is_next = |number: usize, begun: &Begun| {
            !begun.is_decided && (begun.ids == ids || !self.conversation.is_in_doubt(&reverse_path(number)))
        };
        let mut begun = self.begun.iter().enumerate();
        let number = begun.position(|(number, begun)| is_next(number, begun)).expect("verdicts of nothing");
        let begun = &mut self.begun[number];
        assert_eq!(begun.ids, ids, "verdicts of another transaction");
        begun.is_decided = true;
        let begun = &self.begun[number];
        let path = reverse_path(number);
        let seen = self.conversation.transactions().iter().position(|seen| seen.reverse_path == path);
        for (recipient, outcome) in verdicts {
            match seen {
                Some(seen) => self.check_verdict(seen, begun, recipient.id, outcome),
                None => self.check_unsent(begun, outcome),
            }
        }
        let is_uncertain = |(_, outcome): &(_, _)| Verdict::Uncertain.is(outcome, true);
        self.uncertain += usize::from(verdicts.iter().any(is_uncertain));
    }

    /// RFC 5321 section 4.2.5: responsibility is taken by the reply to the message, if it is 2yz.
    fn check_verdict(&self, number: usize, begun: &Begun, id: MailId, outcome: &Outcome) {
        let seen = &self.conversation.transactions()[number];
        let recipient = begun.ids.iter().position(|other| *other == id).expect("it is one of them");
        let expected = seen.verdict(recipient, self.conversation.is_uncertain(number));
        let is_masked = self.config.credentials.is_some();
        assert!(expected.is(outcome, is_masked), "{id}: {expected:?}, not {outcome:?}, after {seen:#?}");
        if matches!(expected, Verdict::Uncertain) {
            assert!(!self.is_announced || self.conversation.may_batch());
        }
    }

    /// What was not sent at all is undecided, or longer than the server takes (RFC 1870 section 6.1).
    fn check_unsent(&self, begun: &Begun, outcome: &Outcome) {
        let size = if begun.is_whole { naive_text(&begun.known).len() } else { begun.total };
        match outcome {
            Outcome::Undecided => {}
            Outcome::Refused(refusal) => {
                assert!(is_farewell(refusal), "{refusal:?} without a word to the server")
            }
            Outcome::Unfit(Unfit::TooLong { .. }) => {
                assert!(self.conversation.size_limit().is_some_and(|limit| limit < size));
            }
            Outcome::Delivered(_)
            | Outcome::Accepted(_)
            | Outcome::Rejected { .. }
            | Outcome::Unfit(Unfit::NeedsSmtpUtf8)
            | Outcome::Uncertain(_) => panic!("{outcome:?} without a word to the server"),
        }
    }

    fn ended(&mut self, end: &SessionEnd) {
        self.has_ended = true;
        assert!(self.open.is_empty(), "the session ended without a verdict for {:?}", self.open);
        let conversation = &self.conversation;
        // The session may have been leaving for another reason when nothing was asked.
        if conversation.is_dismissed() {
            let is_421 = matches!(&end.cause, EndCause::Refused(reply, _) if reply.code().as_u16() == 421);
            assert!(is_421, "{end:?} after 421");
        }
        assert!(self.uncertain <= 1, "more than one message without a verdict");
        // A server that cannot follow gets one command at a time.
        if conversation.no_pipelining() {
            assert!(end.no_pipelining, "{end:?}");
        }
        if end.no_pipelining {
            assert!(conversation.transactions().iter().any(|seen| seen.is_batched), "{end:?}");
        }
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
        assert!(self.has_ended || !self.conversation.is_over(), "the session outlives what nothing outlives");
        assert!(self.handed_back.is_empty(), "{:?} are not handed back", self.handed_back);
    }

    /// Asserts that a session that waits for no reply and has nothing to send waits for its owner, and says so.
    pub(crate) fn check_liveness(&self, session: &Session, now: Instant) {
        let is_pausing = pause_end(session, now).is_some();
        if self.has_ended || session.wants_transmit() || is_pausing || session.phase() == Phase::Tls {
            return;
        }
        if self.conversation.sending().is_some() {
            let is_asked = self.begun.last().is_some_and(|begun| begun.outstanding.is_some());
            assert!(is_asked || !self.conversation.is_silent(), "a message that is not sent on");
        } else if self.conversation.is_idle() {
            assert!(self.is_announced, "nothing to wait for in {}", session.phase());
        }
    }

    /// Asserts that a session has no deadline only if it waits for its owner, and that nothing happens before the deadline.
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
        let longest = self.begun.iter().map(|begun| begun.total).max().unwrap_or(0);
        assert!(deadline <= now + PHASE_LIMIT + Duration::from_secs(longest as u64 / 1024));
        if deadline > now {
            let phase = session.phase();
            session.handle_timeout(now);
            assert_eq!((session.phase(), session.poll_output()), (phase, None));
        }
    }

    pub(crate) fn check_end(&self, session: &mut Session, now: Instant) {
        assert!(self.has_ended && self.open.is_empty());
        assert!(self.begun.iter().all(|begun| begun.is_decided));
        let mut octets = BytesMut::new();
        session.handle_received(now, b"250 ok\r\n");
        session.handle_timeout(now + PHASE_LIMIT);
        session.quit(now);
        assert!(!session.poll_transmit(now, 1000, &mut octets) && octets.is_empty());
        assert_eq!(session.poll_output(), None);
        let shown = format!("{session:?}");
        assert!(!self.secrets.iter().any(|secret| shown.contains(secret)), "{shown}");
    }
}

/// Returns when the end of a message may be sent, if that is soon.
pub(crate) fn pause_end(session: &Session, now: Instant) -> Option<Instant> {
    let (deadline, phase) = session.poll_timeout()?;
    (phase == Phase::MailData && deadline <= now + PAUSE_LIMIT).then_some(deadline)
}

fn reverse_path(number: usize) -> String {
    format!("s{number}@example.org")
}

fn forward_path(id: MailId) -> String {
    format!("r{}@example.net", id.0)
}

fn mailbox(text: &str) -> Mailbox {
    Mailbox::parse(text.as_bytes()).expect("it is an address")
}

/// What the sender of a recipient wants to be told.
fn wishes(id: MailId) -> DsnWishes {
    let bit = |number: i64| id.0 & number != 0;
    DsnWishes {
        notify: Some(Notify { success: bit(1), failure: bit(2), delay: bit(4) }),
        original_recipient: OriginalRecipient::parse(&format!("rfc822;was+{}=<a b>", id.0)).ok(),
        message: MessageWishes {
            sign: Default::default(),
            extent: Some(ReturnExtent::Full),
            envelope_id: EnvelopeId::parse("a+b =").ok(),
        },
    }
}
