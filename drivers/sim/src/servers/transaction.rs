//! Transactions of model servers.

use bytes::Bytes;
use cmail_delivery::time::Duration;
use memchr::memmem;

use super::conversation::Expects;
use super::temperament::{Limits, Tiredness};
use super::{Act, Conversation, Surroundings};

/// The refusal of a server that accepts no more messages on a connection, and never used on a connection that has brought none.
pub(crate) const ENOUGH: &str = "that is enough for one connection";
/// The period in which it counts messages.
const HOUR: Duration = Duration::from_secs(3600);

/// The result of a transaction.
#[derive(Debug, Default)]
pub(super) struct Transaction {
    pub(super) sender: Option<String>,
    pub(super) recipients: Vec<String>,
}

impl Conversation {
    pub(super) fn mail(&mut self, text: &str, around: &mut Surroundings<'_>) {
        if self.transaction.sender.is_some() {
            return self.say(around, b"503 5.5.1 nested MAIL\r\n");
        }
        self.transactions += 1;
        if around.temperament.extensions.limits.mails.is_some_and(|most| self.transactions > most) {
            return self.say(around, b"452 4.5.3 more than I have announced\r\n");
        }
        if self.refuse_beyond_limit(&[Tiredness::AtMail, Tiredness::Leaves, Tiredness::OutOfStep], around)
            || self.refuse_for_an_hour(around)
            || self.refuse(around)
        {
            return;
        }
        self.transaction.sender = Some(path_of(text));
        self.say(around, b"250 2.1.0 ok\r\n");
    }

    pub(super) fn rcpt(&mut self, text: &str, around: &mut Surroundings<'_>) {
        if self.transaction.sender.is_none() {
            return self.say(around, b"503 5.5.1 MAIL first\r\n");
        }
        let recipient = path_of(text);
        // Some addresses do not exist, whatever the server is like.
        if recipient.starts_with("nobody") {
            // A server that says more than was asked must not be quoted: its words come out of turn.
            let is_quotable = around.temperament.unasked == 0 && around.temperament.garbage == 0;
            let who = if is_quotable { recipient.as_str() } else { "this address" };
            return self.say(around, format!("550 5.1.1 <{who}>: no such user\r\n").as_bytes());
        }
        if self.refuse_beyond_limit(&[Tiredness::AtRcpt], around) || self.refuse(around) {
            return;
        }
        if let Some(delay_s) = around.temperament.greylist_s {
            let first = *around.memory.greylist.entry(recipient.clone()).or_insert(around.now);
            if around.now.saturating_duration_since(first) < Duration::from_secs(delay_s) {
                return self.say(around, b"451 4.7.1 greylisted, try again later\r\n");
            }
        }
        let Limits { recipients, domains, .. } = around.temperament.extensions.limits;
        self.domains.insert(domain_of(&recipient));
        let announced = recipients.unwrap_or(usize::MAX);
        let limit = around.temperament.recipient_limit.unwrap_or(usize::MAX).min(announced);
        let is_of_too_many_domains = domains.is_some_and(|most| self.domains.len() > most);
        if self.transaction.recipients.len() >= limit || is_of_too_many_domains {
            return self.say(around, b"452 4.5.3 too many recipients\r\n");
        }
        self.transaction.recipients.push(recipient);
        self.say(around, b"250 2.1.5 ok\r\n");
    }

    pub(super) fn data(&mut self, around: &mut Surroundings<'_>) {
        if self.transaction.recipients.is_empty() && !around.temperament.takes_nobody {
            return self.say(around, b"503 5.5.1 no valid recipients\r\n");
        }
        if self.refuse_beyond_limit(&[Tiredness::AtData], around) || self.refuse(around) {
            return;
        }
        self.expects = Expects::Data;
        self.say(around, b"354 end with a dot\r\n");
    }

    pub(super) fn end_of_data(&mut self, data: &Bytes, around: &mut Surroundings<'_>) {
        if around.dice.chance(around.temperament.out_of_step_at_end) {
            self.say(around, b"500 5.5.2 what is this?\r\n");
        }
        self.decide(data, around);
        if self.expects == Expects::Commands && around.dice.chance(around.temperament.twice) {
            self.say(around, b"250 2.0.0 as I said\r\n");
        }
    }

    fn decide(&mut self, data: &Bytes, around: &mut Surroundings<'_>) {
        self.expects = Expects::Commands;
        self.messages += 1;
        let recipients = std::mem::take(&mut self.transaction).recipients;
        let temperament = around.temperament;
        if recipients.is_empty() {
            // RFC 2920 section 3.1: a server that said 354 without a valid recipient gets a lone dot, and may even accept it.
            let replies: [&[u8]; 2] =
                [b"250 2.0.0 queued for nobody\r\n", b"554 5.5.1 no valid recipients\r\n"];
            return self.say_one_of(&replies, around);
        }
        if around.dice.chance(temperament.drop_before) {
            return self.drop(around);
        }
        if self.refuse(around) {
            return;
        }
        around.memory.hour.1 += 1;
        around.acts.push(Act::Accept { number: self.messages, recipients, data: data.clone() });
        if around.dice.chance(temperament.drop_after) {
            return self.drop(around);
        }
        if around.dice.chance(temperament.mute_after) {
            self.expects = Expects::Nothing;
            return;
        }
        self.say(around, b"250 2.0.0 queued\r\n");
    }

    /// Refuses if the connection has brought as many messages as it may, and the server refuses at this command. Returns whether
    /// it does.
    fn refuse_beyond_limit(&mut self, here: &[Tiredness], around: &mut Surroundings<'_>) -> bool {
        let Some((_, tiredness)) = around
            .temperament
            .message_limit
            .filter(|&(limit, tiredness)| self.messages >= limit && here.contains(&tiredness))
        else {
            return false;
        };
        let code = match tiredness {
            Tiredness::AtMail => "452 4.5.3",
            Tiredness::AtRcpt => "452",
            Tiredness::AtData => "451 4.4.5",
            Tiredness::Leaves => "421 4.7.0",
            Tiredness::OutOfStep => "500",
        };
        self.say(around, format!("{code} {ENOUGH}\r\n").as_bytes());
        if tiredness == Tiredness::Leaves {
            self.close(around);
        }
        true
    }

    /// Refuses if this hour has brought as many messages as it may. Returns whether it does.
    fn refuse_for_an_hour(&mut self, around: &mut Surroundings<'_>) -> bool {
        let Some(limit) = around.temperament.hourly_limit else { return false };
        let (began, taken) = &mut around.memory.hour;
        if around.now.saturating_duration_since(*began) >= HOUR {
            (*began, *taken) = (around.now, 0);
        }
        let is_over = *taken >= limit;
        if is_over {
            self.say(around, b"450 4.7.1 that is enough for an hour\r\n");
        }
        is_over
    }

    /// Decides whether the server refuses what it could do.
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

    /// Returns the message without its final dot and without doubled dots.
    pub(super) fn take_data(&mut self) -> Option<Bytes> {
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
}

/// Returns the text between the angle brackets.
fn path_of(text: &str) -> String {
    let begin = text.find('<').map_or(text.len(), |position| position + 1);
    // Parameters may have one, too.
    let end = text.rfind("> ").or(text.rfind('>')).unwrap_or(text.len());
    text.get(begin..end).unwrap_or_default().to_owned()
}

/// Returns the domain of an address in lower case.
fn domain_of(address: &str) -> String {
    address.rsplit_once('@').map_or("", |(_, domain)| domain).to_ascii_lowercase()
}
