//! An independent reader of SMTP conversations that sees only the octets of both ends: which commands were sent, which reply
//! belongs to which, and that every command comes where it may. The replies come in the order of the commands (RFC 2920 section
//! 3.1); only that attributes them.

use std::collections::{BTreeSet, VecDeque};

use cmail_delivery::reply::{Reply, ReplyClass, ReplyCode, ReplyParser};

use crate::command::Command;
use crate::offers::{Offers, path};
use crate::transaction::Transaction;

/// The kind of the next octets of the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Commands,
    /// None: the octets after DATA depend on the reply to it.
    AwaitsData,
    /// Mail data of this transaction, up to the final dot.
    Data(usize),
}

/// A conversation so far.
#[derive(Debug)]
pub(crate) struct Conversation {
    /// True if the client means to keep to one command at a time, and to DATA, whatever is offered.
    one_at_a_time: bool,
    /// The extensions of the last reply to EHLO, in this state of TLS.
    offers: Offers,
    is_tls: bool,
    is_greeted: bool,
    is_challenged: bool,
    mode: Mode,
    /// Octets of a line whose end was not yet sent.
    partial: Vec<u8>,
    last_line: Vec<u8>,
    last: Option<Command>,
    /// Reverse-paths of transactions that were begun and can be sent.
    begun: Vec<String>,
    /// Reverse-paths of transactions that must be sent command by command.
    slow: BTreeSet<String>,
    unanswered: VecDeque<Command>,
    transactions: Vec<Transaction>,
    replies: ReplyParser,
    /// The number of lines of the running authentication that were sent after AUTH.
    responses: usize,
    /// RSET or a message was refused so that the client must say no more than QUIT.
    is_leaving: bool,
    /// A message that was refused so that a success may follow.
    doubted: Option<usize>,
    is_over: bool,
    /// 421 was the reply to a command, so that nothing else was the end.
    is_dismissed: bool,
    no_pipelining: bool,
    /// The server has taken a message, or refused something.
    has_decided: bool,
}

impl Conversation {
    pub(crate) fn new(one_at_a_time: bool) -> Self {
        Self {
            one_at_a_time,
            offers: Offers::default(),
            is_tls: false,
            is_greeted: false,
            is_challenged: false,
            mode: Mode::Commands,
            partial: Vec::new(),
            last_line: Vec::new(),
            last: None,
            begun: Vec::new(),
            slow: BTreeSet::new(),
            unanswered: VecDeque::from([Command::Greeting]),
            transactions: Vec::new(),
            replies: ReplyParser::default(),
            responses: 0,
            is_leaving: false,
            doubted: None,
            is_over: false,
            is_dismissed: false,
            no_pipelining: false,
            has_decided: false,
        }
    }

    /// RFC 3207 section 4.2: earlier replies do not count.
    pub(crate) fn tls_established(&mut self) {
        (self.is_tls, self.is_greeted) = (true, false);
        self.offers = Offers::default();
    }

    /// Begins a transaction with this reverse-path. If the server was found not to follow batches, it goes command by command.
    /// `is_sendable` is true if nothing forbids it before the server does.
    pub(crate) fn begin(&mut self, reverse_path: &str, is_sendable: bool) {
        if is_sendable {
            self.begun.push(reverse_path.to_owned());
        }
        if self.no_pipelining {
            self.slow.insert(reverse_path.to_owned());
        }
    }

    /// Takes octets of the client. Returns the commands that they end.
    pub(crate) fn receive(&mut self, octets: &[u8]) -> Vec<Command> {
        let mut commands = Vec::new();
        let mut rest = octets;
        while !rest.is_empty() {
            assert!(!self.is_over, "{} after the end", rest.escape_ascii());
            assert!(self.mode != Mode::AwaitsData, "{} behind DATA", rest.escape_ascii());
            let end = rest.iter().position(|&octet| octet == b'\n').map_or(rest.len(), |end| end + 1);
            let (piece, behind) = rest.split_at(end);
            rest = behind;
            self.partial.extend_from_slice(piece);
            if let Mode::Data(number) = self.mode {
                self.transactions[number].message.extend_from_slice(piece);
            }
            if piece.ends_with(b"\n") {
                let line = std::mem::take(&mut self.partial);
                commands.extend(self.take_line(line));
            }
        }
        commands
    }

    /// Takes octets of the server. Returns the commands that they reply to, and how. An unasked or early reply ends the
    /// conversation.
    pub(crate) fn says(&mut self, octets: &[u8]) -> Vec<(Command, Reply)> {
        let mut answered = Vec::new();
        let mut rest = octets;
        while !self.is_over {
            match self.replies.parse(&mut rest) {
                Ok(Some(reply)) => {
                    let is_refusal = matches!(reply.class(), ReplyClass::Transient | ReplyClass::Permanent);
                    answered.extend(self.take_reply(reply));
                    self.has_decided |= is_refusal;
                }
                Ok(None) => break,
                Err(_) => self.is_over = true,
            }
        }
        answered
    }

    /// Transactions in the order of their MAIL.
    pub(crate) fn transactions(&self) -> &[Transaction] {
        &self.transactions
    }

    /// The commands that the server has got and not replied to, oldest first.
    pub(crate) fn unanswered(&self) -> impl Iterator<Item = Command> {
        let is_whole = |command: &Command| match *command {
            Command::Message(number) => self.transactions[number].is_sent,
            _ => true,
        };
        self.unanswered.iter().copied().take_while(is_whole)
    }

    /// Returns whether the server has sent a reply that ends any conversation.
    pub(crate) fn is_over(&self) -> bool {
        self.is_over
    }

    /// Returns whether it sent 421 instead of the reply that it owed (RFC 5321 section 3.8).
    pub(crate) fn is_dismissed(&self) -> bool {
        self.is_dismissed
    }

    /// Returns whether it was found not to follow batches.
    pub(crate) fn no_pipelining(&self) -> bool {
        self.no_pipelining
    }

    pub(crate) fn offers(&self, keyword: &str) -> bool {
        self.offers.has(keyword)
    }

    /// Returns the largest message that the server accepts.
    pub(crate) fn size_limit(&self) -> Option<usize> {
        self.offers.size_limit
    }

    /// Returns whether commands may be sent before the replies to earlier ones.
    pub(crate) fn may_batch(&self) -> bool {
        self.offers("PIPELINING") && !self.one_at_a_time
    }

    /// Returns whether everything that was sent is replied to, and nothing is begun, on either side.
    pub(crate) fn is_idle(&self) -> bool {
        self.unanswered.is_empty() && self.partial.is_empty() && self.replies.is_empty()
    }

    /// Returns whether nothing of the next reply has come.
    pub(crate) fn is_silent(&self) -> bool {
        self.replies.is_empty()
    }

    /// The transaction of which the message is being sent.
    pub(crate) fn sending(&self) -> Option<usize> {
        match self.mode {
            Mode::Data(number) => Some(number),
            Mode::Commands | Mode::AwaitsData => None,
        }
    }

    /// The last command line, without its end.
    pub(crate) fn last_line(&self) -> &[u8] {
        &self.last_line
    }

    pub(crate) fn is_tls(&self) -> bool {
        self.is_tls
    }

    pub(crate) fn responses(&self) -> usize {
        self.responses
    }

    fn take_line(&mut self, line: Vec<u8>) -> Option<Command> {
        let text = line.strip_suffix(b"\r\n").expect("a bare LF");
        assert!(!text.contains(&b'\r'), "a bare CR");
        if let Mode::Data(number) = self.mode {
            if text == b"." {
                let transaction = &mut self.transactions[number];
                transaction.is_sent = true;
                // RFC 2920 section 3.1
                let is_lone = transaction.message == b".\r\n";
                assert!(is_lone || transaction.accepted() > 0, "a message for nobody");
                self.mode = Mode::Commands;
                // Whatever the server replies to it, only QUIT follows.
                if transaction.early.is_some() {
                    (self.is_leaving, self.doubted) = (true, Some(number));
                }
            }
            return None;
        }
        assert!(!text.iter().any(u8::is_ascii_control), "{}", line.escape_ascii());
        let command = self.read(&String::from_utf8_lossy(text));
        self.check_order(command);
        if let (Command::Rset, Some(last)) = (command, self.transactions.last_mut()) {
            last.is_reset = true;
        }
        self.unanswered.push_back(command);
        self.last = Some(command);
        self.last_line = text.to_vec();
        match command {
            Command::Auth => self.responses = 0,
            Command::Response => (self.responses, self.is_challenged) = (self.responses + 1, false),
            Command::Data(_) => self.mode = Mode::AwaitsData,
            _ => {}
        }
        Some(command)
    }

    /// Returns the command in a line. Updates the transaction that it begins or continues.
    fn read(&mut self, text: &str) -> Command {
        if self.is_challenged {
            return Command::Response;
        }
        let current = self.transactions.len().checked_sub(1);
        let (verb, argument) = text.split_once(' ').unwrap_or((text, ""));
        match (verb, current) {
            ("EHLO", _) => Command::Ehlo,
            ("HELO", _) => Command::Helo,
            ("STARTTLS", _) => Command::StartTls,
            ("NOOP", _) => Command::Noop,
            ("RSET", _) => Command::Rset,
            ("AUTH", _) => Command::Auth,
            ("QUIT", _) => Command::Quit,
            ("MAIL", _) => {
                let (path, parameters) = path(argument, "FROM:<");
                self.offers.check_mail(parameters);
                let is_batched = self.may_batch() && !self.slow.contains(path);
                self.transactions.push(Transaction::new(path, is_batched));
                Command::Mail(self.transactions.len() - 1)
            }
            ("RCPT", Some(number)) => {
                let (path, parameters) = path(argument, "TO:<");
                self.offers.check_rcpt(parameters);
                let recipients = &mut self.transactions[number].recipients;
                recipients.push((path.to_owned(), None));
                Command::Rcpt(number, recipients.len() - 1)
            }
            ("DATA", Some(number)) => Command::Data(number),
            _ => panic!("{text:?} is no command here"),
        }
    }

    /// Asserts that a command may come here (RFC 5321 section 4.1.4, RFC 3207 section 4, RFC 4954 section 4, RFC 2920 section
    /// 3.1).
    fn check_order(&self, command: Command) {
        let is_answered = self.unanswered.is_empty();
        let has_begun = !self.transactions.is_empty();
        let is_negotiating = is_answered && self.is_greeted && !has_begun;
        let is_legal = (command == Command::Quit || !self.is_leaving)
            && match command {
                Command::Greeting => false,
                Command::Ehlo => {
                    is_answered
                        && (self.last.is_none() || (self.last == Some(Command::StartTls) && self.is_tls))
                }
                Command::Helo => is_answered && self.last == Some(Command::Ehlo) && !self.is_greeted,
                Command::StartTls => is_negotiating && !self.is_tls && self.offers("STARTTLS"),
                Command::Noop => is_negotiating && self.is_tls,
                Command::Rset if has_begun => self.may_reset(),
                Command::Rset => is_negotiating && self.is_tls,
                Command::Auth => is_negotiating && self.offers.has_auth(),
                Command::Response => is_answered && self.is_challenged,
                Command::Mail(number) => self.may_begin(number),
                Command::Rcpt(number, recipient) => {
                    let transaction = &self.transactions[number];
                    self.last
                        == Some(
                            recipient
                                .checked_sub(1)
                                .map_or(Command::Mail(number), |before| Command::Rcpt(number, before)),
                        )
                        && (transaction.is_batched || (is_answered && transaction.has_room()))
                }
                Command::Data(number) => self.may_send_message(number),
                Command::Message(_) => false,
                // A message that was refused early may have no other reply.
                Command::Quit => (is_answered || self.doubted.is_some()) && self.last != Some(Command::Quit),
            };
        assert!(is_legal, "{command:?} after {:?}, without a reply: {:?}", self.last, self.unanswered);
    }

    /// Returns whether MAIL may come: the server holds no transaction any more when it reads it.
    fn may_begin(&self, number: usize) -> bool {
        let is_batched = self.transactions[number].is_batched;
        let is_first = number.checked_sub(1).is_none_or(|before| {
            let transaction = &self.transactions[before];
            let is_answered = !self.unanswered.iter().any(|command| command.transaction() == Some(before));
            transaction.is_reset || transaction.is_ended() || (is_answered && !transaction.is_open())
        });
        let is_in_time = self.unanswered.is_empty() || is_batched;
        let is_after_mail = self
            .unanswered
            .iter()
            .all(|command| command.transaction().is_some() || *command == Command::Rset);
        self.is_greeted
            && self.last != Some(Command::StartTls)
            && is_first
            && is_in_time
            && is_after_mail
            && self.doubted.is_none_or(|_| is_batched)
    }

    fn may_send_message(&self, number: usize) -> bool {
        let transaction = &self.transactions[number];
        matches!(self.last, Some(Command::Rcpt(last, _)) if last == number)
            && (transaction.is_batched || (self.unanswered.is_empty() && transaction.accepted() > 0))
    }

    /// Returns whether RSET may come: a transaction was left open.
    fn may_reset(&self) -> bool {
        let Some(transaction) = self.transactions.last() else { return false };
        !transaction.is_reset
            && self.unanswered.is_empty()
            && transaction.is_open()
            && !transaction.is_ended()
    }

    fn take_reply(&mut self, reply: Reply) -> Option<(Command, Reply)> {
        // Nothing depends any more on the reply to QUIT, or where only QUIT may follow, except a message in doubt.
        if self.is_leaving || self.unanswered.back() == Some(&Command::Quit) {
            return self.take_last_words(reply);
        }
        let asked = self.unanswered.front().copied();
        let message = match asked {
            Some(Command::Message(number)) => Some(&mut self.transactions[number]),
            _ => None,
        };
        if reply.code() == ReplyCode::SERVICE_NOT_AVAILABLE {
            (self.is_over, self.is_dismissed) = (true, asked.is_some());
            if let Some(transaction) = message.filter(|transaction| transaction.is_sent) {
                transaction.end = Some(reply);
            }
            if let Some(Command::Mail(number) | Command::Rcpt(number, _) | Command::Data(number)) = asked {
                let transaction = &self.transactions[number];
                self.no_pipelining |= transaction.is_batched && transaction.lacks_room();
            }
            return None;
        }
        if let Some(transaction) = message.filter(|transaction| !transaction.is_sent) {
            // 5yz may be about a line of the message, which goes on.
            self.is_over = reply.class() != ReplyClass::Permanent;
            if matches!(reply.class(), ReplyClass::Transient | ReplyClass::Permanent) {
                transaction.early.get_or_insert(reply);
            }
            return None;
        }
        let Some(command) = asked.filter(|command| command.may_be_answered_by(&reply)) else {
            // It has had enough. With one command at a time there is no doubt which replies came before.
            let is_out_of_step = is_misunderstood(&reply) && reply.enhanced().is_none() && self.has_decided;
            let is_single = self.transactions.last().is_some_and(|transaction| !transaction.is_batched);
            if asked.is_none() && is_out_of_step && is_single {
                self.is_over = true;
            } else {
                self.fall_out_of_step();
            }
            return None;
        };
        self.unanswered.pop_front();
        self.answer(command, &reply);
        Some((command, reply))
    }

    /// Processes a reply while only that to QUIT is waited for. It may concern a message in doubt.
    fn take_last_words(&mut self, reply: Reply) -> Option<(Command, Reply)> {
        let code = reply.code().as_u16();
        let doubted = self.doubted.filter(|_| code != 221);
        let decides = matches!(reply.class(), ReplyClass::Completed | ReplyClass::Transient);
        self.is_over = doubted.is_none() || code == 421;
        let number = doubted.filter(|_| decides)?;
        self.transactions[number].end = Some(reply.clone());
        self.doubted = None;
        self.unanswered.retain(|command| *command != Command::Message(number));
        Some((Command::Message(number), reply))
    }

    /// Disbelieves all that the server says from now on, and what it has said since its last checkpoint.
    fn fall_out_of_step(&mut self) {
        self.is_over = true;
        self.transactions.iter_mut().for_each(Transaction::disbelieve);
    }

    /// Returns whether a transaction was begun after this one.
    fn has_another_behind(&self, number: usize) -> bool {
        let is_sent = self.transactions.len() > number + 1;
        self.begun.last().map_or(is_sent, |last| *last != self.transactions[number].reverse_path)
    }

    /// Returns whether the reply to this message may have answered something else, and a reply to the envelope after it may have
    /// answered the message.
    pub(crate) fn is_uncertain(&self, number: usize) -> bool {
        let has_success_behind = || self.transactions.iter().skip(number + 1).any(Transaction::is_open);
        self.doubted == Some(number) && has_success_behind()
    }

    /// Returns whether the message of this reverse-path was refused so that a success may follow, and only QUIT may be said.
    pub(crate) fn is_in_doubt(&self, reverse_path: &str) -> bool {
        self.is_leaving
            && self.doubted.is_some_and(|number| self.transactions[number].reverse_path == reverse_path)
    }

    /// Returns whether only QUIT may follow.
    pub(crate) fn is_leaving(&self) -> bool {
        self.is_leaving
    }

    fn answer(&mut self, command: Command, reply: &Reply) {
        let is_completed = reply.class() == ReplyClass::Completed;
        match command {
            Command::Ehlo => {
                self.is_greeted = is_completed;
                self.offers = if is_completed { Offers::of(reply) } else { Offers::default() };
            }
            Command::Helo => self.is_greeted = is_completed,
            Command::Auth | Command::Response => {
                self.is_challenged = reply.code() == ReplyCode::AUTH_CHALLENGE;
            }
            Command::Rset if !self.transactions.is_empty() => self.answer_reset(is_completed),
            // A server that refuses padding gets only one command at a time.
            Command::Noop | Command::Rset => self.one_at_a_time |= !is_completed,
            Command::Greeting | Command::StartTls | Command::Quit => {}
            Command::Mail(number)
            | Command::Rcpt(number, _)
            | Command::Data(number)
            | Command::Message(number) => self.answer_transaction(number, command, reply),
        }
    }

    fn answer_reset(&mut self, is_completed: bool) {
        let reset = self.transactions.iter_mut().rfind(|transaction| transaction.is_reset);
        let Some(transaction) = reset else { return };
        if is_completed {
            transaction.is_confirmed = true;
        } else if transaction.is_batched {
            // It is never refused, so the reply answers something else.
            self.fall_out_of_step();
        } else {
            self.is_leaving = true;
        }
    }

    fn answer_transaction(&mut self, number: usize, command: Command, reply: &Reply) {
        let transaction = &mut self.transactions[number];
        self.no_pipelining |= transaction.answer(command, reply, self.has_decided);
        let is_for_somebody = transaction.accepted() > 0;
        let is_doubtful = (500..=504).contains(&reply.code().as_u16()) && is_for_somebody;
        match command {
            Command::Data(_) if reply.class() == ReplyClass::Intermediate => {
                self.mode = Mode::Data(number);
                self.unanswered.push_back(Command::Message(number));
                if self.doubted.take().is_some() {
                    // The earlier reply to the message was in its place. QUIT cannot be sent here.
                    self.is_over = true;
                }
            }
            Command::Data(_) => {
                self.mode = Mode::Commands;
                if let Some(doubted) = self.doubted {
                    let is_uncertain = self.is_uncertain(doubted);
                    self.transactions.iter_mut().for_each(Transaction::disbelieve);
                    (self.is_leaving, self.is_over) = (true, is_uncertain);
                }
            }
            Command::Message(_) if reply.class() == ReplyClass::Completed => {
                self.has_decided |= is_for_somebody;
            }
            Command::Message(_) if is_doubtful => {
                (self.doubted, self.is_leaving) = (Some(number), !self.has_another_behind(number));
            }
            _ => {}
        }
    }
}

/// Returns whether a reply says that the server cannot follow (RFC 5321 section 4.2.2), rather than concerning the mail.
pub(crate) fn is_misunderstood(reply: &Reply) -> bool {
    matches!(reply.code().as_u16(), 500 | 502 | 503)
}
