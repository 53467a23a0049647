//! Commands come only in legal order, and not before the reply to the one before, unless PIPELINING is offered
//! (RFC 2920); and a message is sent only while no reply is owed.

use std::collections::{BTreeMap, VecDeque};

use super::Checker;
use crate::facts::{Fact, Link, Scene, Verb};

/// Longest command line in octets, with its CRLF and what extensions add (RFC 5321 section 4.5.3.1.4).
const LINE_LIMIT: usize = 1024;

/// How a command that begins something stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Standing {
    #[default]
    Unsaid,
    Awaited,
    Accepted,
    Refused,
}

/// What was said of the message of a transaction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Content {
    #[default]
    None,
    /// DATA, whatever the reply is.
    Data,
    /// All of it was sent.
    Ended,
}

/// A transaction, from MAIL to RSET or to the end of its message.
#[derive(Clone, Copy, Debug, Default)]
struct Transaction {
    mail: Standing,
    /// RCPTs that are not replied to yet, and those that were accepted.
    asked: u32,
    accepted: u32,
    content: Content,
}

/// A conversation.
#[derive(Debug, Default)]
struct Talk {
    /// What was said and not yet replied to, and in which transaction.
    awaited: VecDeque<(Verb, u32)>,
    was_greeted: bool,
    /// Whether EHLO or HELO was accepted since the connection, or TLS, began.
    is_introduced: bool,
    /// The extensions that are offered.
    offered: Vec<String>,
    /// The number of the transaction that was begun last.
    number: u32,
    transaction: Transaction,
    /// Whether the next line goes on with an authentication.
    is_challenged: bool,
    /// Whether a message was refused before it was sent whole. Nobody knows whether another reply follows, so QUIT need not wait.
    is_refused_early: bool,
    has_quit: bool,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Commands {
    talks: BTreeMap<Link, Talk>,
}

impl Checker for Commands {
    fn name(&self) -> &'static str {
        "commands are in order"
    }

    fn see(&mut self, _: &Scene<'_>, fact: Fact<'_>) -> Result<(), String> {
        match fact {
            Fact::Connecting { link, .. } => {
                self.talks.insert(link, Talk::default());
            }
            Fact::Gone { link, .. } => {
                self.talks.remove(&link);
            }
            Fact::Stopped { .. } => self.talks.clear(),
            Fact::TlsEstablished { link, .. } => {
                if let Some(talk) = self.talks.get_mut(&link) {
                    // RFC 3207 section 4.2: what was known before does not count any more.
                    talk.is_introduced = false;
                    talk.offered.clear();
                }
            }
            Fact::Command { link, verb, line, .. } => {
                let Some(talk) = self.talks.get_mut(&link) else {
                    return Err(format!("[{link}] something is said on a connection that is over"));
                };
                talk.say(verb, line).map_err(|error| format!("[{link}] {error}: {}", line.escape_ascii()))?;
            }
            Fact::FinalDot { link, octets, .. } => {
                let talk = self.talks.get_mut(&link);
                return talk
                    .map_or(Ok(()), |talk| talk.end_message(octets))
                    .map_err(|e| format!("[{link}] {e}"));
            }
            Fact::Reply { link, to, code, text } => {
                if let Some(talk) = self.talks.get_mut(&link) {
                    talk.hear(to, code, text);
                }
            }
            _ => {}
        }
        Ok(())
    }
}

impl Talk {
    fn say(&mut self, verb: Verb, line: &[u8]) -> Result<(), String> {
        if !self.was_greeted {
            return Err("a command before the greeting".into());
        }
        if self.has_quit {
            return Err("a command after QUIT".into());
        }
        if line.len() + 2 > LINE_LIMIT || line.iter().any(u8::is_ascii_control) {
            return Err("an overlong line or a control character".into());
        }
        self.check_batch(verb)?;
        if !self.is_legal(verb, line) {
            return Err("a command where it is not allowed".into());
        }
        self.awaited.push_back((verb, self.number + u32::from(verb == Verb::Mail)));
        self.follow(verb);
        Ok(())
    }

    /// Whether anything may be said before the replies that are still to come.
    fn check_batch(&self, verb: Verb) -> Result<(), String> {
        let Some((awaited, _)) = self.awaited.back() else { return Ok(()) };
        if verb == Verb::Quit && *awaited == Verb::FinalDot && self.is_refused_early {
            return Ok(());
        }
        // RFC 2920 section 3: only where it is offered, and in the EHLO that counts.
        if !self.offers("PIPELINING") {
            return Err(format!("a command before the reply to {awaited:?}"));
        }
        match self.awaited.iter().find(|(verb, _)| ends_batch(*verb)) {
            Some((verb, _)) => Err(format!("a command in one batch with {verb:?}, which has to be its last")),
            None => Ok(()),
        }
    }

    fn is_legal(&self, verb: Verb, line: &[u8]) -> bool {
        let Transaction { mail, asked, accepted, content } = self.transaction;
        let is_idle = matches!(mail, Standing::Unsaid | Standing::Refused) || content == Content::Ended;
        let is_open = matches!(mail, Standing::Awaited | Standing::Accepted);
        // Somebody has to be there for whom the message is, as far as is known.
        let has_recipient = is_open && asked + accepted > 0;
        match verb {
            Verb::Ehlo | Verb::Helo => is_idle,
            Verb::StartTls => self.is_introduced && is_idle && self.offers("STARTTLS"),
            Verb::Auth => self.is_introduced && is_idle && self.offers_mechanism(line),
            Verb::AuthLine => self.is_challenged,
            Verb::Noop | Verb::Rset => self.is_introduced,
            Verb::Mail => self.is_introduced && is_idle && self.offers_parameters(line),
            Verb::Rcpt => is_open && content == Content::None,
            Verb::Data => has_recipient && content == Content::None,
            Verb::Quit => true,
            Verb::Greeting | Verb::FinalDot | Verb::Unknown => false,
        }
    }

    /// What a legal command leads to.
    fn follow(&mut self, verb: Verb) {
        match verb {
            Verb::Mail => {
                self.number += 1;
                self.transaction = Transaction { mail: Standing::Awaited, ..Transaction::default() };
            }
            Verb::Rcpt => self.transaction.asked += 1,
            Verb::Data => self.transaction.content = Content::Data,
            Verb::Rset => {
                self.number += 1;
                self.transaction = Transaction::default();
            }
            Verb::Quit => self.has_quit = true,
            _ => {}
        }
    }

    /// All of a message is sent: by the final dot.
    fn end_message(&mut self, octets: u64) -> Result<(), String> {
        let content = std::mem::replace(&mut self.transaction.content, Content::Ended);
        let accepted = self.transaction.accepted;
        if content == Content::Data {
            if let Some((awaited, _)) = self.awaited.front() {
                return Err(format!("a message before the reply to {awaited:?}"));
            }
            self.awaited.push_back((Verb::FinalDot, self.number));
            // RFC 2920 section 3.1: who has asked for it nevertheless gets a lone dot.
            if accepted == 0 && octets > 0 {
                return Err(format!("a message of {octets} octets, though no recipient was accepted"));
            }
        }
        Ok(())
    }

    fn hear(&mut self, to: Verb, code: u16, text: &[u8]) {
        let number = match self.awaited.front() {
            Some(&(verb, number)) if verb == to => {
                self.awaited.pop_front();
                number
            }
            Some(_) | None => self.number,
        };
        let is_success = code / 100 == 2;
        self.is_challenged = matches!(to, Verb::Auth | Verb::AuthLine) && code == 334;
        match to {
            Verb::Greeting => self.was_greeted = true,
            Verb::Unknown => self.is_refused_early |= code / 100 == 5,
            Verb::Ehlo | Verb::Helo if is_success => {
                self.is_introduced = true;
                let text = String::from_utf8_lossy(text).to_ascii_uppercase();
                let keyword = |line: &str| line.get(4..).unwrap_or_default().trim_end().to_owned();
                // Only the reply to EHLO says what is offered (RFC 5321 section 4.1.1.1).
                let count = if to == Verb::Ehlo { usize::MAX } else { 0 };
                self.offered = text.lines().skip(1).take(count).map(keyword).collect();
            }
            _ if number == self.number => self.hear_of_transaction(to, code),
            _ => {}
        }
    }

    /// A reply to what belongs to the transaction that was begun last.
    fn hear_of_transaction(&mut self, to: Verb, code: u16) {
        let is_success = code / 100 == 2;
        let transaction = &mut self.transaction;
        match to {
            Verb::Mail if transaction.mail == Standing::Awaited => {
                transaction.mail = if is_success { Standing::Accepted } else { Standing::Refused };
            }
            Verb::Rcpt => {
                transaction.asked = transaction.asked.saturating_sub(1);
                transaction.accepted += u32::from(is_success);
            }
            _ => {}
        }
    }

    fn offers(&self, name: &str) -> bool {
        self.offered.iter().any(|line| line.split(' ').next() == Some(name))
    }

    fn offers_mechanism(&self, line: &[u8]) -> bool {
        let line = String::from_utf8_lossy(line).to_ascii_uppercase();
        let mechanism = line.split(' ').nth(1).unwrap_or_default();
        let offers = |line: &String| {
            line.split([' ', '=']).next() == Some("AUTH")
                && line.split([' ', '=']).any(|word| word == mechanism)
        };
        self.offered.iter().any(offers)
    }

    fn offers_parameters(&self, line: &[u8]) -> bool {
        let line = String::from_utf8_lossy(line).to_ascii_uppercase();
        let parameters = line.rsplit_once('>').map_or("", |(_, parameters)| parameters);
        parameters.split_ascii_whitespace().all(|parameter| {
            let name = parameter.split('=').next().unwrap_or_default();
            self.offers(match name {
                "BODY" => "8BITMIME",
                other => other,
            })
        })
    }
}

/// Whether nothing may be said after this before its reply (RFC 2920 section 3.1; RFC 3207 section 4; RFC 4954 section
/// 4).
fn ends_batch(verb: Verb) -> bool {
    match verb {
        Verb::Greeting
        | Verb::Ehlo
        | Verb::Helo
        | Verb::StartTls
        | Verb::Auth
        | Verb::AuthLine
        | Verb::Noop
        | Verb::Data
        | Verb::Quit
        | Verb::Unknown => true,
        Verb::Rset | Verb::Mail | Verb::Rcpt | Verb::FinalDot => false,
    }
}

#[cfg(test)]
mod tests {
    use cmail_delivery::io::{ConnectionId, Purpose};
    use cmail_delivery::next_hop::{Port, TlsMode};
    use cmail_delivery::time::{Instant, Now, UnixTime};

    use super::*;
    use crate::dialogue::Dialogue;
    use crate::dice::Dice;
    use crate::map::Map;
    use crate::outbox::Outbox;
    use crate::swarm::Options;
    use crate::witness::Witness;

    const PLAIN: &str = "250 x\r\n";
    const PIPELINING: &str = "250-x\r\n250 PIPELINING\r\n";

    /// What is said of a conversation after EHLO: what the client says, and then what the server does.
    fn objection(ehlo_reply: &str, turns: &[(&str, &str)]) -> Option<String> {
        let mut settings = Options::draw(&mut Dice::new(1), 1).settings();
        // So that nobody is promised TLS.
        settings.ports = [Port { number: 25, tls: TlsMode::Plain }].into();
        let (outbox, map) = (Outbox::new(), Map::default());
        let now = Now::new(Instant::default(), UnixTime(0));
        let scene = Scene { now, said_since: now.monotonic, settings: &settings, outbox: &outbox, map: &map };
        let mut witness = Witness::new(Dialogue::Off);
        let link = Link { epoch: 1, id: ConnectionId(1) };
        let remote = ([192, 0, 2, 1], 25).into();
        witness.see(&scene, Fact::Connecting { link, remote, purpose: Purpose::Smtp });
        witness.see(&scene, Fact::Received { link, octets: b"220 x\r\n" });
        let mut tls = false;
        for (said, heard) in std::iter::once(&("EHLO a\r\n", ehlo_reply)).chain(turns) {
            if *said == "tls" {
                witness.see(&scene, Fact::StartTls { link });
                witness.see(&scene, Fact::TlsEstablished { link, valid: true });
                tls = true;
                continue;
            }
            witness.see(&scene, Fact::Sent { link, octets: said.as_bytes(), tls });
            witness.see(&scene, Fact::Received { link, octets: heard.as_bytes() });
        }
        witness.violation.map(|violation| violation.text)
    }

    fn assert_legal(ehlo_reply: &str, turns: &[(&str, &str)]) {
        assert_eq!(objection(ehlo_reply, turns), None, "{turns:?}");
    }

    fn assert_illegal(ehlo_reply: &str, turns: &[(&str, &str)], why: &str) {
        let objection = objection(ehlo_reply, turns).unwrap_or_default();
        assert!(objection.contains(why), "\"{objection}\" of {turns:?}");
    }

    const ENVELOPE: (&str, &str) = ("MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\n", "250 a\r\n250 b\r\n");

    #[test]
    fn commands_one_by_one_are_legal_whatever_is_offered() {
        for offer in [PLAIN, PIPELINING] {
            let turns = [
                ("MAIL FROM:<a@b>\r\n", "250 a\r\n"),
                ("RCPT TO:<c@d>\r\n", "250 a\r\n"),
                ("DATA\r\n", "354 a\r\n"),
                ("x\r\n.\r\n", "250 a\r\n"),
                ("QUIT\r\n", "221 a\r\n"),
            ];
            assert_legal(offer, &turns);
        }
    }

    #[test]
    fn batches_are_legal_where_pipelining_is_offered() {
        let all = "MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nRCPT TO:<e@d>\r\nDATA\r\n";
        let next = "x\r\n.\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\n";
        let turns = [
            (all, "250 a\r\n550 b\r\n250 c\r\n354 d\r\n"),
            (next, "250 a\r\n550 b\r\n503 c\r\n503 d\r\n"),
            ("MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\n", "250 a\r\n550 b\r\n354 c\r\n"),
            (".\r\nQUIT\r\n", "250 a\r\n221 b\r\n"),
        ];
        assert_legal(PIPELINING, &turns);
        assert_illegal(PLAIN, &turns, "before the reply to Mail");
    }

    #[test]
    fn what_was_offered_before_tls_does_not_count_after_it() {
        let offer = "250-x\r\n250-STARTTLS\r\n250 PIPELINING\r\n";
        let starttls = [("STARTTLS\r\n", "220 a\r\n"), ("tls", "")];
        let again = |offer| [&starttls[..], &[("EHLO a\r\n", offer), ENVELOPE]].concat();
        assert_legal(offer, &again(PIPELINING));
        assert_illegal(offer, &again(PLAIN), "before the reply to Mail");
    }

    #[test]
    fn what_has_to_be_last_in_a_batch_is_last() {
        // RFC 2920 section 3.1
        let why = "which has to be its last";
        assert_illegal(PIPELINING, &[("NOOP\r\nMAIL FROM:<a@b>\r\n", "")], why);
        assert_illegal(PIPELINING, &[("EHLO a\r\nMAIL FROM:<a@b>\r\n", "")], why);
        assert_illegal(PIPELINING, &[ENVELOPE, ("DATA\r\nRSET\r\n", "")], why);
        let offer = "250-x\r\n250-PIPELINING\r\n250-STARTTLS\r\n250 AUTH PLAIN\r\n";
        assert_illegal(offer, &[("STARTTLS\r\nNOOP\r\n", "")], why);
        assert_legal(PIPELINING, &[("RSET\r\nMAIL FROM:<a@b>\r\nQUIT\r\n", "250 a\r\n250 b\r\n221 c\r\n")]);
    }

    #[test]
    fn a_message_for_nobody_is_a_lone_dot() {
        let refused = ("MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\n", "250 a\r\n550 b\r\n354 c\r\n");
        assert_legal(PIPELINING, &[refused, (".\r\n", "554 a\r\n"), ENVELOPE]);
        assert_illegal(PIPELINING, &[refused, ("x\r\n.\r\n", "")], "no recipient was accepted");
    }

    #[test]
    fn data_without_a_recipient_is_not_asked_for() {
        let why = "where it is not allowed";
        let envelope = ("MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\n", "250 a\r\n550 b\r\n");
        assert_illegal(PIPELINING, &[envelope, ("DATA\r\n", "")], why);
        assert_illegal(PIPELINING, &[("RCPT TO:<c@d>\r\n", "")], why);
        assert_illegal(PIPELINING, &[ENVELOPE, ("MAIL FROM:<a@b>\r\n", "")], why);
    }

    #[test]
    fn quit_waits_for_the_reply_to_a_message_unless_that_was_refused_early() {
        let envelope = [
            ("MAIL FROM:<a@b>\r\n", "250 a\r\n"),
            ("RCPT TO:<c@d>\r\n", "250 a\r\n"),
            ("DATA\r\n", "354 a\r\n"),
        ];
        let and = |said: &'static [(&str, &str)]| [&envelope[..], said].concat();
        assert_legal(PLAIN, &and(&[("x\r\n", "500 a\r\n"), (".\r\nQUIT\r\n", "250 a\r\n221 a\r\n")]));
        assert_illegal(PLAIN, &and(&[("x\r\n.\r\nQUIT\r\n", "")]), "before the reply to FinalDot");
        assert_illegal(PLAIN, &and(&[("x\r\n", "500 a\r\n"), (".\r\nRSET\r\n", "")]), "before the reply to");
    }

    #[test]
    fn a_message_is_sent_only_while_no_reply_is_owed() {
        let turns = [("MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\n", "250 a\r\n250 a\r\n354 a\r\n")];
        let behind = [&turns[..], &[("x\r\n.\r\n", "250 a\r\n")]].concat();
        assert_legal(PIPELINING, &behind);
    }
}
