//! The header section of a message, and what of it is signed.

use alloc::string::String;
use alloc::vec::Vec;

use super::author::author_domain;
use super::draft::HEADER_LIMIT_OCTETS;
use super::field::tag;
use super::{FIELDS_LIMIT, Unsigned};
use crate::address::Domain;

/// Fields that are signed once more often than they occur (RFC 6376 section 8.15), so that adding another one, which readers might show
/// instead, breaks the signature.
/// No server on the way adds them where they are missing.
const GUARDED: [&str; 8] =
    ["from", "to", "cc", "subject", "reply-to", "mime-version", "content-type", "content-transfer-encoding"];

/// Fields that are signed once more than they are there, if they are there at all: some servers add them where they are missing, or
/// lists would.
const GUARDED_IF_PRESENT: [&str; 14] = [
    "date",
    "message-id",
    "sender",
    "in-reply-to",
    "references",
    "auto-submitted",
    "list-id",
    "list-unsubscribe",
    "list-unsubscribe-post",
    "content-disposition",
    "content-id",
    "tls-required",
    "tls-report-domain",
    "tls-report-submitter",
];

/// The header section of a message, whose lines end with CRLF.
#[derive(Debug)]
pub(super) struct Header<'a> {
    fields: Vec<Field<'a>>,
}

/// A field of it.
#[derive(Debug)]
struct Field<'a> {
    /// In lower case.
    name: String,
    /// What follows the colon, without the line end at its end.
    value: &'a [u8],
}

impl<'a> Header<'a> {
    /// Parses a header section. It must have nothing but fields, since receivers disagree on where it ends otherwise.
    pub(super) fn parse(octets: &'a [u8]) -> Result<Self, Unsigned> {
        if octets.len() > HEADER_LIMIT_OCTETS {
            return Err(Unsigned::LongHeader);
        }
        let mut fields = Vec::new();
        let mut rest = octets;
        while !rest.is_empty() {
            let (field, behind) = rest.split_at_checked(end_of_field(rest)).unwrap_or((rest, &[]));
            rest = behind;
            fields.push(Field::parse(field).ok_or(Unsigned::MalformedHeader)?);
        }
        Ok(Self { fields })
    }

    /// Returns the domain of the author: of all addresses of the only From.
    pub(super) fn author(&self) -> Result<Domain, Unsigned> {
        let mut from = self.named("from");
        match (from.next(), from.next()) {
            (Some(only), None) => author_domain(only.value).ok_or(Unsigned::UnclearAuthor),
            (None, _) => Err(Unsigned::NoAuthor),
            (Some(_), Some(_)) => Err(Unsigned::SeveralAuthors),
        }
    }

    /// Returns whether there is a signature of a domain.
    pub(super) fn is_signed_by(&self, domain: &Domain) -> bool {
        self.named("dkim-signature").any(|field| {
            let value = tag(field.value, b"d");
            let value = value.as_deref().and_then(|value| core::str::from_utf8(value).ok());
            value.and_then(|value| Domain::parse(value).ok()).as_ref() == Some(domain)
        })
    }

    /// Returns what is signed: the names for `h=`, and the canonicalized fields.
    pub(super) fn signed(&self) -> Result<(Vec<&'static str>, Vec<u8>), Unsigned> {
        let (mut names, mut octets) = (Vec::new(), Vec::new());
        let lists = [(&GUARDED[..], true), (&GUARDED_IF_PRESENT[..], false)];
        let listed =
            lists.into_iter().flat_map(|(list, always)| list.iter().map(move |name| (*name, always)));
        for (name, always) in listed {
            // Those at the bottom come first (RFC 6376 section 5.4.2).
            let before = names.len();
            for field in self.named(name).rev() {
                relax(name, field.value, &mut octets);
                octets.extend_from_slice(b"\r\n");
                names.push(name);
            }
            if always || names.len() > before {
                names.push(name);
            }
        }
        if names.len() > FIELDS_LIMIT { Err(Unsigned::ManyFields) } else { Ok((names, octets)) }
    }

    fn named(&self, name: &str) -> impl DoubleEndedIterator<Item = &Field<'a>> {
        self.fields.iter().filter(move |field| field.name == name)
    }
}

impl<'a> Field<'a> {
    fn parse(octets: &'a [u8]) -> Option<Self> {
        let (name, value) = octets.split_at_checked(memchr::memchr(b':', octets)?)?;
        // Blanks before the colon, as old programs wrote them, are no part of a field to many verifiers.
        let name = core::str::from_utf8(name).ok()?;
        if name.is_empty() || !name.bytes().all(|octet| octet.is_ascii_graphic()) {
            return None;
        }
        let value = value.get(1..).unwrap_or_default();
        let value = value.strip_suffix(b"\r\n").unwrap_or(value);
        // To some readers a line of nothing but blanks ends the header section.
        let is_blank = |line: &[u8]| line.iter().all(u8::is_ascii_whitespace);
        if value.split(|octet| *octet == b'\n').skip(1).any(is_blank) {
            return None;
        }
        Some(Self { name: name.to_ascii_lowercase(), value })
    }
}

/// Returns where the first field ends, with its line end: before the next line that does not begin with white space.
fn end_of_field(octets: &[u8]) -> usize {
    for at in memchr::memchr_iter(b'\n', octets) {
        let next = octets.get(at + 1);
        if !matches!(next, Some(b' ' | b'\t')) {
            return at + 1;
        }
    }
    octets.len()
}

/// Appends a field as `relaxed` canonicalizes it (RFC 6376 section 3.4.2), without a line end.
pub(super) fn relax(name: &str, value: &[u8], to: &mut Vec<u8>) {
    to.extend_from_slice(name.as_bytes());
    to.push(b':');
    let words = value.split(|octet| matches!(octet, b' ' | b'\t' | b'\r' | b'\n'));
    for (index, word) in words.filter(|word| !word.is_empty()).enumerate() {
        if index > 0 {
            to.push(b' ');
        }
        to.extend_from_slice(word);
    }
}
