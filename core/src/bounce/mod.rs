//! The message that tells a sender what could not be delivered: a pure function of the records.
//!
//! It is a `multipart/report` (RFC 6522) of three parts: a text, a delivery status (RFC 3464), and the original or its
//! header section.

mod original;
mod quoted_printable;
mod report;
mod returned;

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use core::fmt::Write as _;

use bytes::Bytes;
use mail_builder::MessageBuilder;
use mail_builder::headers::HeaderType;
use mail_builder::headers::address::Address;
use mail_builder::headers::content_type::ContentType;
use mail_builder::headers::message_id::MessageId;
use mail_builder::headers::raw::Raw;
use mail_builder::mime::MimePart;

use crate::address::{Domain, Mailbox};
use crate::attempt::{Acceptance, Attempt};
use crate::outbox::{BounceOrder, FailedMessage, is_null_path};
use crate::rng::Rng;
use crate::schedule::RetryRules;
use crate::shown::one_line;
use crate::time::UnixTime;

use returned::{Extent, Returned};

pub use report::ATTEMPT_LIMIT;
pub use returned::needed_octets;

/// Longest address in To, in octets, because an address cannot be folded (RFC 5322 section 2.1.1).
const TO_LIMIT_OCTETS: usize = 900;
/// Approximate octets around the parts. Memory is allocated once, so that nothing is copied while the message grows.
const HEADERS_OCTETS: usize = 8 * 1024;
/// Randomness of a boundary in octets.
const BOUNDARY_OCTETS: usize = 24;
/// Randomness of a message identifier in octets.
const MESSAGE_ID_OCTETS: usize = 16;

/// The inputs of a bounce beside the message.
#[derive(Clone, Copy, Debug)]
pub struct BounceSettings<'a> {
    /// The name of this host: Reporting-MTA, and the domain of Message-ID.
    pub announce: &'a str,
    /// The address in From.
    pub bounce_from: &'a str,
    /// The largest original that is returned whole, in octets. Of larger ones, the header section is returned.
    pub return_limit_octets: u64,
}

/// Returns the header section of a message of which this is the beginning, with the empty line that ends it, if that is there: without
/// it, nothing would tell that the section is whole.
pub fn header_section(beginning: &[u8]) -> &[u8] {
    let fields = original::HeaderSection::find(beginning, false).octets;
    let rest = beginning.get(fields.len()..).unwrap_or_default();
    let empty_line = [&b"\r\n"[..], b"\n"].into_iter().find(|end| rest.starts_with(end));
    beginning.get(..fields.len() + empty_line.map_or(0, <[u8]>::len)).unwrap_or(fields)
}

/// Returns the identifier of a message of which this is the beginning, without its angle brackets, if it stands there.
pub fn message_id(head: &[u8]) -> Option<String> {
    original::message_id(original::HeaderSection::find(head, false).octets)
}

/// [`compose`]s an ordered bounce. Returns `None` if it has no recipient.
pub fn compose_ordered(order: &BounceOrder) -> Option<Bytes> {
    let settings = BounceSettings {
        announce: &order.announce,
        bounce_from: &order.bounce_from,
        return_limit_octets: order.return_limit_octets,
    };
    compose(settings, &order.message, order.now, &mut Rng::from_seed(order.seed.0))
}

/// What a notice tells of.
#[derive(Clone, Copy, Debug)]
enum Notice<'a> {
    /// Mail that is given up. Originals up to this size in octets are returned whole.
    GivenUp { return_limit_octets: u64 },
    /// Mail that is late, and is tried again by these rules. Only its header section is returned.
    Late(RetryRules<'a>),
    /// Mail that this attempt has delivered to a server that does not tell the sender. Only its header section is returned.
    Relayed(&'a Attempt<Acceptance>),
}

/// Composes what tells the sender of `message` that it is late, and will be tried again by these rules. Returns `None` if `message` has
/// no recipient, or a null sender.
pub fn compose_warning(
    announce: &str,
    bounce_from: &str,
    rules: RetryRules<'_>,
    message: &FailedMessage,
    now: UnixTime,
    rng: &mut Rng,
) -> Option<Bytes> {
    compose_notice(Notice::Late(rules), announce, bounce_from, message, now, rng)
}

/// Composes what tells the sender of `message`, which has one recipient, that this attempt has delivered it to a server that does not do
/// so (RFC 3461 section 5.2.2). Returns `None` if `message` has no recipient, or a null sender.
pub fn compose_relayed(
    attempt: &Attempt<Acceptance>,
    announce: &str,
    bounce_from: &str,
    message: &FailedMessage,
    now: UnixTime,
    rng: &mut Rng,
) -> Option<Bytes> {
    compose_notice(Notice::Relayed(attempt), announce, bounce_from, message, now, rng)
}

/// Composes the one bounce for all recipients of `message`. Returns `None` if `message` has no recipient, or a null sender, which
/// is never answered (RFC 5321 section 6.1).
///
/// Every octet comes from the arguments, so equal arguments give equal octets.
pub fn compose(
    settings: BounceSettings<'_>,
    message: &FailedMessage,
    now: UnixTime,
    rng: &mut Rng,
) -> Option<Bytes> {
    let BounceSettings { announce, bounce_from, return_limit_octets } = settings;
    compose_notice(Notice::GivenUp { return_limit_octets }, announce, bounce_from, message, now, rng)
}

fn compose_notice(
    notice: Notice<'_>,
    announce: &str,
    bounce_from: &str,
    message: &FailedMessage,
    now: UnixTime,
    rng: &mut Rng,
) -> Option<Bytes> {
    let sender = message.mails.first()?.row.sender.as_deref().filter(|sender| !is_null_path(sender))?;
    let announce = host_name(announce);
    let (sender, sender_is_international) = to(sender);
    let returned = Returned::of(message, notice);
    let types = PartTypes::new(message, &returned, sender_is_international);
    let returned = if types.is_global && !sender_is_international { returned.in_ascii() } else { returned };
    let readable = report::readable_part(notice, &announce, message, &returned.sentence());
    let status = report::status_part(notice, &announce, message, sender_is_international);
    let status_encoding = original::transfer_encoding(status.as_bytes());

    let message_id = format!("{}@{announce}", random_token::<MESSAGE_ID_OCTETS>(rng));
    let boundary = boundary(&[readable.as_bytes(), status.as_bytes(), &returned.octets], rng);
    let readable_octets = readable.len();
    let parts = vec![
        MimePart::new("text/plain", readable).header("Content-Description", Raw::new("Notification")),
        part(types.status, "Delivery report", status_encoding, status.as_bytes()),
        part(types.returned, types.returned_description, returned.encoding, &returned.octets),
    ];
    // RFC 2045 section 6.4: a multipart is 8bit if one of its parts is.
    let encoding = if [status_encoding, returned.encoding].contains(&"8bit") { "8bit" } else { "7bit" };
    let report = ContentType::new("multipart/report")
        .attribute("report-type", "delivery-status")
        .attribute("boundary", boundary);
    let mut builder = MessageBuilder::new()
        .header("From", from(bounce_from))
        .header("To", sender)
        .subject(match notice {
            Notice::GivenUp { .. } => "Undelivered mail returned to sender",
            Notice::Late(_) => "Mail is late, and is still being tried",
            Notice::Relayed(_) => "Mail was delivered to the next server",
        })
        .date(report::date(now))
        .message_id(message_id)
        // RFC 3834 section 5.
        .header("Auto-Submitted", Raw::new("auto-replied"));
    if let Some(id) = original::message_id(returned.header) {
        let references = original::references(returned.header, &id);
        builder = builder.in_reply_to(id).references(MessageId::new_list(references.into_iter()));
    }
    let body = MimePart::new(report, parts).transfer_encoding(encoding);
    let parts_octets = readable_octets + status.len() + returned.octets.len();
    let mut octets = Vec::with_capacity(parts_octets + HEADERS_OCTETS);
    builder.body(body).serialize(&mut octets);
    Some(octets.into())
}

/// The media types of the parts.
struct PartTypes {
    status: &'static str,
    returned: &'static str,
    returned_description: &'static str,
    /// True if the original is a message of RFC 6532.
    is_global: bool,
}

impl PartTypes {
    /// Returns those of RFC 6522 section 3. For a status that is not ASCII, which only a sender with a non-ASCII address can
    /// read, and for an original that is a message of RFC 6532, it returns those of RFC 6533.
    fn new(message: &FailedMessage, returned: &Returned<'_>, sender_is_international: bool) -> Self {
        let status = match sender_is_international {
            true => "message/global-delivery-status",
            false => "message/delivery-status",
        };
        let goes_to_international =
            message.mails.iter().any(|mail| report::printable_address(&mail.row.recipient).1);
        let has_international_header =
            !returned.header.is_ascii() && core::str::from_utf8(returned.header).is_ok();
        let is_global = sender_is_international || (goes_to_international && has_international_header);
        let (returned, returned_description) = match (returned.extent, is_global) {
            (Extent::Whole, false) => ("message/rfc822", "Undelivered message"),
            (Extent::Whole, true) => ("message/global", "Undelivered message"),
            (Extent::Header, false) => ("text/rfc822-headers", "Message headers"),
            (Extent::Header, true) => ("message/global-headers", "Message headers"),
            (Extent::Large | Extent::Asked | Extent::Refused | Extent::HardToSend, false) => {
                ("text/rfc822-headers", "Undelivered message headers")
            }
            (Extent::Large | Extent::Asked | Extent::Refused | Extent::HardToSend, true) => {
                ("message/global-headers", "Undelivered message headers")
            }
        };
        Self { status, returned, returned_description, is_global }
    }
}

/// Returns a part whose octets are not changed.
fn part<'a>(
    media_type: &'static str,
    description: &'static str,
    encoding: &'static str,
    octets: &'a [u8],
) -> MimePart<'a> {
    MimePart::new(media_type, octets)
        .header("Content-Description", Raw::new(description))
        .transfer_encoding(encoding)
}

/// Returns the value of To, and whether it is an address that is not ASCII.
fn to(sender: &[u8]) -> (HeaderType<'static>, bool) {
    let is_writable = |text: &str| text.len() <= TO_LIMIT_OCTETS && one_line(text) == text;
    match Mailbox::parse(sender) {
        Ok(mailbox) if is_writable(mailbox.as_str()) => {
            let address = Address::new_address(None::<&str>, mailbox.as_str().to_owned());
            (address.into(), mailbox.needs_smtputf8())
        }
        // An address that cannot be written becomes an empty group (RFC 5322 section 3.4).
        Ok(_) | Err(_) => (Raw::new("undisclosed-recipients:;").into(), false),
    }
}

/// Returns the value of From. A configured text that is not a bare address is used as it is.
fn from(bounce_from: &str) -> HeaderType<'static> {
    match Mailbox::parse(bounce_from.as_bytes()) {
        Ok(mailbox) => Address::new_address(Some("Mail Delivery System"), mailbox.as_str().to_owned()).into(),
        Err(_) => Raw::new(one_line(bounce_from)).into(),
    }
}

/// Returns the announced name in the form that it has in header fields.
fn host_name(announce: &str) -> String {
    if let Ok(domain) = Domain::parse(announce) {
        return domain.as_str().to_owned();
    }
    let is_safe = |character: char| character.is_ascii_alphanumeric() || "-._:[]".contains(character);
    let name: String = announce.chars().filter(|&character| is_safe(character)).take(255).collect();
    if name.is_empty() { "localhost".to_owned() } else { name }
}

/// Returns a boundary that occurs in none of the parts (RFC 2046 section 5.1.1). The authors of the parts cannot have guessed it;
/// its absence is checked all the same.
fn boundary(parts: &[&[u8]], rng: &mut Rng) -> String {
    loop {
        // This beginning cannot occur in quoted-printable text (RFC 2045 section 6.7).
        let boundary = format!("=_{}", random_token::<BOUNDARY_OCTETS>(rng));
        let occurs = |part: &&[u8]| memchr::memmem::find(part, boundary.as_bytes()).is_some();
        if !parts.iter().any(occurs) {
            return boundary;
        }
    }
}

/// Returns random octets in hexadecimal.
fn random_token<const OCTETS: usize>(rng: &mut Rng) -> String {
    let mut octets = [0; OCTETS];
    rng.fill(&mut octets);
    octets.iter().fold(String::new(), |mut token, octet| {
        // Writing to a String cannot fail.
        let _ = write!(token, "{octet:02x}");
        token
    })
}

#[cfg(test)]
mod tests;
