//! The two parts of a bounce that report what has happened: one for people, one for programs.

use alloc::format;
use alloc::string::{String, ToString as _};
use alloc::vec::Vec;
use core::fmt::Write as _;

use mail_builder::headers::date::Date;

use super::Notice;
use crate::address::Mailbox;
use crate::attempt::{Acceptance, Attempt};
use crate::failure::{OwnFailure, StoredFailure, TEXT_LIMIT_OCTETS};
use crate::outbox::{FailedMail, FailedMessage, FaillogRow};
use crate::shown::{one_line, shortened, shortened_octets, truncated};
use crate::status::EnhancedStatus;
use crate::time::UnixTime;
use crate::wording::ServerName;

/// Most attempts reported for each recipient. The last ones are reported.
pub const ATTEMPT_LIMIT: usize = 100;
/// Octets of failure texts that one bounce reports, shared by its recipients. The last attempt of each is always reported.
const TEXTS_LIMIT_OCTETS: usize = 256 * 1024;
/// Octets of a failure text that are always reported, however many recipients share a bounce. Most replies of servers fit.
const TEXT_LEAST_OCTETS: usize = 512;
/// The column at which lines of the status part are folded, if they can be (RFC 5322 section 2.1.1).
const FOLD_COLUMN: usize = 76;
/// Longest run of characters without a place to fold at. One is made if a text has none. Even if every character is written in
/// the longest way, such a run fits a line of 998 octets (RFC 5322 section 2.1.1).
const WORD_LIMIT_CHARACTERS: usize = 90;
/// Longest address that is written on one line, in octets as written (RFC 5322 section 2.1.1, with room for the name of the
/// field). Any valid path is shorter (RFC 5321 section 4.5.3.1.3), unless nearly all of it must be written as numbers.
const ADDRESS_LIMIT_OCTETS: usize = 960;
/// The prefix of a diagnostic that did not come from a server (RFC 3464 section 2.3.6).
const OWN_DIAGNOSTIC_TYPE: &str = "X-Cmail; ";
/// The prefix of one that did (RFC 3461 section 9.2).
const SMTP_DIAGNOSTIC_TYPE: &str = "smtp; ";
/// 9999-12-31 23:59:59 UTC: later years have no date of RFC 5322.
const LAST_DATE: i64 = 253_402_300_799;

/// Returns a date of RFC 5322 section 3.3. A time outside its range becomes the nearest time within.
pub(super) fn date(time: UnixTime) -> Date {
    Date::new(time.0.clamp(0, LAST_DATE))
}

/// Returns an address as it can be shown, whole if it is valid, and whether it is valid and not ASCII.
pub(super) fn printable_address(octets: &[u8]) -> (String, bool) {
    match Mailbox::parse(octets) {
        Ok(mailbox) => (one_line(mailbox.as_str()), mailbox.needs_smtputf8()),
        Err(_) => (one_line(&shortened_octets(octets)), false),
    }
}

/// Returns the time of submission.
fn arrival(message: &FailedMessage) -> Option<UnixTime> {
    message.mails.iter().map(|mail| mail.row.submission).min()
}

/// Returns when mail that is late is tried for the last time, if that is known: with a number of retries it is not.
fn last_attempt(notice: Notice<'_>, mail: &FailedMail) -> Option<UnixTime> {
    match notice {
        Notice::GivenUp { .. } | Notice::Relayed(_) => None,
        Notice::Late(rules) => rules.line_about(&mail.row)?.end(&mail.row),
    }
}

/// Returns the attempt because of which a mail is given up.
fn decisive_attempt(mail: &FailedMail) -> Option<&FaillogRow> {
    mail.attempts.iter().rev().find(|attempt| attempt.fatal).or(mail.attempts.last())
}

/// Returns the part for people: what of the message is attached, as `returned` says, its recipients, and for each, what happened
/// at every attempt.
pub(super) fn readable_part(
    notice: Notice<'_>,
    announce: &str,
    message: &FailedMessage,
    returned: &str,
) -> String {
    let mut text = format!("This is the mail system at {announce}.\n\n");
    text.push_str(match notice {
        Notice::GivenUp { .. } => {
            "Your message could not be delivered to the recipients below, and it will\n\
             not be tried again. Below each recipient stands what has happened at every\n\
             attempt, in the words of the server that refused the message where there\n\
             was one.\n\n"
        }
        Notice::Late(_) => {
            "Your message is late: it could not be delivered yet to the recipients below.\n\
             You need not send it again: it is still being tried. Below each recipient\n\
             stands what has happened at every attempt, in the words of the server that\n\
             refused the message where there was one.\n\n"
        }
        Notice::Relayed(_) => {
            "Your message was delivered to the next mail server on the way to the\n\
             recipient below. That server does not tell when it arrives: unless it fails\n\
             there, this is the only report.\n\n"
        }
    });
    if let Some(arrival) = arrival(message) {
        text.push_str(&format!("The message was submitted on {}.\n", readable_date(arrival)));
    }
    text.push_str(returned);
    let budget_octets = TEXTS_LIMIT_OCTETS / message.mails.len().max(1);
    let text_limit = text_limit_octets(message);
    for mail in &message.mails {
        let (address, _) = printable_address(&mail.row.recipient);
        text.push_str(&format!("\n<{}>\n", shortened(&address)));
        if let Some(end) = last_attempt(notice, mail) {
            text.push_str(&format!("  It is tried until {}.\n", readable_date(end)));
        }
        if let Notice::Relayed(attempt) = notice {
            text.push_str(&format!("  Delivered on {}:\n", readable_date(attempt.at)));
            for line in accepted_text(attempt, text_limit).lines() {
                text.push_str(&format!("    {line}\n"));
            }
            continue;
        }
        let attempts = told_attempts(&mail.attempts, budget_octets);
        match mail.attempts.len() - attempts.len() {
            0 => {}
            left_out => text.push_str(&format!("  (Earlier attempts that are not shown: {left_out}.)\n")),
        }
        if attempts.is_empty() {
            text.push_str("  (No attempt is on record.)\n");
        }
        for attempt in attempts {
            text.push_str(&format!("  Attempt on {}:\n", readable_date(attempt.time)));
            let failure = StoredFailure::parse(&attempt.text);
            for line in truncated(&failure.text, text_limit).lines() {
                text.push_str(&format!("    {line}\n"));
            }
        }
    }
    text
}

/// Returns which server has taken a mail, and what it said.
fn accepted_text(attempt: &Attempt<Acceptance>, limit_octets: usize) -> String {
    let Acceptance { server, reply } = &attempt.result;
    let server = ServerName(&server.host, server.address);
    let text: String = format!("{server}: {}", reply.text());
    let lines: Vec<String> = truncated(&text, limit_octets).lines().map(one_line).collect();
    lines.join("\n")
}

/// Returns how much of one failure text is reported. Otherwise many recipients, each with a verbose server, would make a huge
/// bounce.
fn text_limit_octets(message: &FailedMessage) -> usize {
    (TEXTS_LIMIT_OCTETS / message.mails.len().max(1)).clamp(TEXT_LEAST_OCTETS, TEXT_LIMIT_OCTETS)
}

/// Returns the last attempts, as many as fit, but at least one.
fn told_attempts(attempts: &[FaillogRow], budget_octets: usize) -> &[FaillogRow] {
    let mut left_octets = budget_octets;
    let told = attempts
        .iter()
        .rev()
        .take(ATTEMPT_LIMIT)
        .enumerate()
        .take_while(|(number, attempt)| {
            let rest = left_octets.checked_sub(attempt.text.len().min(TEXT_LIMIT_OCTETS));
            left_octets = rest.unwrap_or(0);
            rest.is_some() || *number == 0
        })
        .count();
    attempts.get(attempts.len() - told..).unwrap_or(attempts)
}

fn readable_date(time: UnixTime) -> String {
    date(time).to_rfc822().replace("+0000", "UTC")
}

/// Returns the part for programs (RFC 3464 section 2), in UTF-8 if `is_international` (RFC 6533 section 4), else in ASCII.
pub(super) fn status_part(
    notice: Notice<'_>,
    announce: &str,
    message: &FailedMessage,
    is_international: bool,
) -> String {
    let text_limit_octets = text_limit_octets(message);
    let mut part = StatusPart { text: String::new(), is_international, text_limit_octets };
    // RFC 3464 section 2.2: the fields about the message.
    if let Some(id) = message.wishes().and_then(|wishes| wishes.envelope_id.as_ref()) {
        // Every octet of it counts, so it is not folded.
        part.text.push_str(&format!("Original-Envelope-Id: {}\r\n", id.as_str()));
    }
    part.field("Reporting-MTA", &format!("dns; {announce}"));
    if let Some(arrival) = arrival(message) {
        part.field("Arrival-Date", &date(arrival).to_rfc822());
    }
    for mail in &message.mails {
        // RFC 3464 section 2.3: an empty line, and the fields about a recipient.
        part.text.push_str("\r\n");
        part.recipient(notice, mail);
    }
    part.text
}

/// Writes header fields so that no value can become another field.
struct StatusPart {
    text: String,
    is_international: bool,
    /// Longest diagnostic, in octets.
    text_limit_octets: usize,
}

impl StatusPart {
    fn recipient(&mut self, notice: Notice<'_>, mail: &FailedMail) {
        // RFC 3461 section 6.3.
        if let Some(original) = &mail.row.wishes.original_recipient {
            let (kind, address) = original.parts();
            self.address("Original-Recipient", kind, address, false);
        }
        let (address, needs_utf8) = printable_address(&mail.row.recipient);
        // RFC 6533 section 3: the type of an address that is not ASCII is `utf-8-addr-xtext` if it is written in ASCII, or
        // `utf-8-address` in UTF-8.
        let kind = if needs_utf8 { "utf-8" } else { "rfc822" };
        self.address("Final-Recipient", kind, &address, needs_utf8 && !self.is_international);
        self.field(
            "Action",
            match notice {
                Notice::GivenUp { .. } => "failed",
                Notice::Late(_) => "delayed",
                Notice::Relayed(_) => "relayed",
            },
        );
        if let Notice::Relayed(attempt) = notice {
            return self.acceptance(attempt);
        }
        let attempt = decisive_attempt(mail);
        let failure = attempt.map(|attempt| StoredFailure::parse(&attempt.text));
        let is_fatal = attempt.is_some_and(|attempt| attempt.fatal);
        self.field("Status", &status(failure.as_ref(), is_fatal).to_string());
        if let Some(failure) = failure {
            if let Some(remote) = &failure.remote {
                self.field("Remote-MTA", &format!("dns; {}", mta_name(&remote.host)));
            }
            if !failure.text.is_empty() {
                let limit = self.text_limit_octets + OWN_DIAGNOSTIC_TYPE.len();
                self.field("Diagnostic-Code", &truncated(&diagnostic(&failure), limit));
            }
        }
        if let Some(attempt) = mail.attempts.last() {
            self.field("Last-Attempt-Date", &date(attempt.time).to_rfc822());
        }
        if let Some(end) = last_attempt(notice, mail) {
            self.field("Will-Retry-Until", &date(end).to_rfc822());
        }
    }

    /// Writes how the mail was taken (RFC 3461 section 6.3).
    fn acceptance(&mut self, attempt: &Attempt<Acceptance>) {
        let Acceptance { server, reply } = &attempt.result;
        let success = reply.enhanced().filter(|status| status.class == 2);
        self.field("Status", &success.unwrap_or(EnhancedStatus::SUCCESS).to_string());
        self.field("Remote-MTA", &format!("dns; {}", mta_name(&server.host.to_string())));
        let limit = self.text_limit_octets + SMTP_DIAGNOSTIC_TYPE.len();
        self.field("Diagnostic-Code", &truncated(&format!("{SMTP_DIAGNOSTIC_TYPE}{}", reply.text()), limit));
        self.field("Last-Attempt-Date", &date(attempt.at).to_rfc822());
    }

    /// Writes an address, in which every space counts. One that is too long for a line, and thus not an address anyway, is
    /// folded.
    fn address(&mut self, name: &str, kind: &str, address: &str, is_xtext: bool) {
        let mut written = String::new();
        for character in one_line(address).chars() {
            if is_xtext && !is_plain_xtext(character) {
                embed(&mut written, character);
            } else {
                self.put(&mut written, character);
            }
        }
        if written.len() > ADDRESS_LIMIT_OCTETS {
            return self.field(name, &format!("{kind}; {address}"));
        }
        self.text.push_str(&format!("{name}: {kind}; {written}\r\n"));
    }

    /// Writes a field. Every line of `value` begins a new line. No line consists only of white space, because it might be taken
    /// for the end of the fields (RFC 5322 section 3.2.2).
    fn field(&mut self, name: &str, value: &str) {
        self.text.push_str(name);
        self.text.push(':');
        let mut line_octets = name.len() + 1;
        for (number, line) in value.lines().enumerate() {
            let mut is_first = true;
            for word in line.split(' ').flat_map(short_words) {
                let folds = if is_first { number > 0 } else { line_octets + 1 + word.len() > FOLD_COLUMN };
                is_first = false;
                if folds {
                    self.text.push_str("\r\n");
                    line_octets = 0;
                }
                self.text.push(' ');
                let before = self.text.len();
                self.word(word);
                line_octets += 1 + self.text.len() - before;
            }
        }
        self.text.push_str("\r\n");
    }

    /// Writes a text that stays on its line.
    fn word(&mut self, word: &str) {
        let mut text = core::mem::take(&mut self.text);
        one_line(word).chars().for_each(|character| self.put(&mut text, character));
        self.text = text;
    }

    /// Writes a character. One that is not ASCII is written in the notation of RFC 6533 section 3, unless UTF-8 is allowed.
    fn put(&self, text: &mut String, character: char) {
        if character.is_ascii() || self.is_international {
            text.push(character);
        } else {
            embed(text, character);
        }
    }
}

/// Returns whether a character stands for itself in an address that is written in ASCII (RFC 6533 section 3, `QCHAR`).
fn is_plain_xtext(character: char) -> bool {
    character.is_ascii_graphic() && !matches!(character, '\\' | '+' | '=')
}

/// Writes a character by its number (RFC 6533 section 3, `EmbeddedUnicodeChar`).
fn embed(text: &mut String, character: char) {
    // Writing to a String cannot fail.
    let _ = write!(text, "\\x{{{:02X}}}", u32::from(character));
}

/// Splits a word into non-empty pieces that fit a line.
fn short_words(word: &str) -> impl Iterator<Item = &str> {
    let mut rest = word;
    core::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let end = rest.char_indices().nth(WORD_LIMIT_CHARACTERS).map_or(rest.len(), |(end, _)| end);
        let (piece, after) = rest.split_at_checked(end)?;
        rest = after;
        Some(piece)
    })
}

/// Returns the status of a recipient: the recorded one, or one that fits the failure (RFC 3463).
fn status(failure: Option<&StoredFailure>, is_fatal: bool) -> EnhancedStatus {
    let on_record = failure.and_then(|failure| failure.status);
    if let Some(status) = on_record.filter(|status| matches!(status.class, 4 | 5)) {
        return status;
    }
    let code_class = failure.and_then(|failure| failure.reply.as_ref()).map(|reply| reply.code / 100);
    match failure.and_then(|failure| failure.own) {
        Some(OwnFailure::Resolve) if is_fatal => EnhancedStatus::BAD_DOMAIN,
        Some(OwnFailure::Resolve) => EnhancedStatus::DNS_FAILURE,
        Some(OwnFailure::ReachMx | OwnFailure::ReachRelay) => EnhancedStatus::NO_ANSWER,
        None if is_fatal || code_class == Some(5) => EnhancedStatus::UNDEFINED_PERMANENT,
        None => EnhancedStatus::DELIVERY_TIME_EXPIRED,
    }
}

/// Returns the name of a server (RFC 3464 section 2.1.2). An address is written in brackets (RFC 5321 section 4.1.3).
fn mta_name(host: &str) -> String {
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    match bare.parse() {
        Ok(core::net::IpAddr::V4(address)) => format!("[{address}]"),
        Ok(core::net::IpAddr::V6(address)) => format!("[IPv6:{address}]"),
        Err(_) => one_line(host),
    }
}

/// Returns the value of Diagnostic-Code (RFC 3464 section 2.3.6): every line of a reply, or our own words under a type of our
/// own.
fn diagnostic(failure: &StoredFailure) -> String {
    let Some(reply) = &failure.reply else { return format!("{OWN_DIAGNOSTIC_TYPE}{}", failure.text) };
    let mut value = String::from(SMTP_DIAGNOSTIC_TYPE);
    let last = reply.lines.len().saturating_sub(1);
    for (number, line) in reply.lines.iter().enumerate() {
        let (separator, end) = if number == last { (' ', "") } else { ('-', "\n") };
        value.push_str(&format!("{}{separator}{line}{end}", reply.code));
    }
    value
}
