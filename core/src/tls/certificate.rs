//! Reads what is needed of an X.509 certificate (RFC 5280 section 4.1), also of one that stricter readers refuse: DANE vouches for keys
//! whatever certificate they come in.

use alloc::vec::Vec;

use jiff::civil::DateTime;
use jiff::tz::Offset;

use crate::time::UnixTime;

/// The tags of DER (X.690 section 8.1.2), as far as they matter here.
mod tag {
    pub(super) const INTEGER: u8 = 0x02;
    pub(super) const BIT_STRING: u8 = 0x03;
    pub(super) const OCTET_STRING: u8 = 0x04;
    pub(super) const OBJECT_IDENTIFIER: u8 = 0x06;
    pub(super) const UTF8_STRING: u8 = 0x0c;
    pub(super) const PRINTABLE_STRING: u8 = 0x13;
    pub(super) const TELETEX_STRING: u8 = 0x14;
    pub(super) const IA5_STRING: u8 = 0x16;
    pub(super) const UTC_TIME: u8 = 0x17;
    pub(super) const GENERALIZED_TIME: u8 = 0x18;
    pub(super) const SEQUENCE: u8 = 0x30;
    pub(super) const SET: u8 = 0x31;
    /// `[0]`, constructed: the version of a certificate.
    pub(super) const VERSION: u8 = 0xa0;
    /// `[3]`, constructed: its extensions.
    pub(super) const EXTENSIONS: u8 = 0xa3;
    /// `[2]`, primitive: a DNS name among the alternative names.
    pub(super) const DNS_NAME: u8 = 0x82;
}

/// The object identifier of common names (RFC 5280 appendix A.1), without its header.
const COMMON_NAME: [u8; 3] = [0x55, 4, 3];
/// The object identifier of alternative names (RFC 5280 section 4.2.1.6), without its header.
const ALTERNATIVE_NAMES: [u8; 3] = [0x55, 29, 17];
/// The object identifier of name constraints (RFC 5280 section 4.2.1.10), without its header.
const NAME_CONSTRAINTS: [u8; 3] = [0x55, 29, 30];
/// Years of two digits from here on are of the twentieth century (RFC 5280 section 4.1.2.5.1).
const FIRST_SHORT_YEAR: i16 = 50;

/// A certificate, as far as it is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Certificate<'a> {
    /// All of it.
    pub der: &'a [u8],
    /// The SubjectPublicKeyInfo, with its header.
    pub key: &'a [u8],
    /// The name of its issuer, with its header.
    pub issuer: &'a [u8],
    /// The name of its subject, with its header.
    pub subject: &'a [u8],
    /// The first second of its time; `None` if it cannot be read.
    pub not_before: Option<UnixTime>,
    /// The last second of its time; `None` if it cannot be read.
    pub not_after: Option<UnixTime>,
    /// Its extensions, without a header; empty if it has none.
    extensions: &'a [u8],
}

impl<'a> Certificate<'a> {
    /// Reads a certificate, which must fill `der`.
    pub fn parse(der: &'a [u8]) -> Option<Self> {
        let mut whole = Reader(Reader::only(der, tag::SEQUENCE)?);
        let mut fields = Reader(whole.next_if(tag::SEQUENCE)?.content);
        whole.next_if(tag::SEQUENCE)?;
        whole.next_if(tag::BIT_STRING)?;
        whole.is_empty().then_some(())?;

        // Version 1 is not written.
        let _ = fields.next_if(tag::VERSION);
        fields.next_if(tag::INTEGER)?;
        fields.next_if(tag::SEQUENCE)?;
        let issuer = fields.next_if(tag::SEQUENCE)?;
        let mut validity = Reader(fields.next_if(tag::SEQUENCE)?.content);
        let (not_before, not_after) = (validity.next()?.time(), validity.next()?.time());
        let subject = fields.next_if(tag::SEQUENCE)?;
        let key = fields.next_if(tag::SEQUENCE)?;
        is_public_key(key.whole).then_some(())?;
        let mut extensions = &[][..];
        // Between the key and the extensions there may be unique identifiers.
        for field in fields.by_ref() {
            if field.tag == tag::EXTENSIONS {
                extensions = Reader::only(field.content, tag::SEQUENCE)?;
            }
        }
        fields.is_empty().then_some(())?;
        let (issuer, subject, key) = (issuer.whole, subject.whole, key.whole);
        Some(Self { der, key, issuer, subject, not_before, not_after, extensions })
    }

    /// Returns the DNS names among its alternative names; one that is not ASCII is left out.
    pub fn dns_names(&self) -> Vec<&'a str> {
        let lists =
            self.extensions().filter(|(id, _)| *id == ALTERNATIVE_NAMES).filter_map(|(_, value)| value);
        let names = lists.flat_map(|list| Reader(Reader::only(list, tag::SEQUENCE).unwrap_or_default()));
        names.filter(|name| name.tag == tag::DNS_NAME).filter_map(|name| name.ascii()).collect()
    }

    /// Returns whether there is a DNS name among its alternative names, or may be one, because they cannot be read.
    pub fn may_have_dns_names(&self) -> bool {
        self.extensions().filter(|(id, _)| *id == ALTERNATIVE_NAMES).any(|(_, value)| {
            let Some(list) = value.and_then(|value| Reader::only(value, tag::SEQUENCE)) else { return true };
            let mut names = Reader(list);
            names.any(|name| name.tag == tag::DNS_NAME) || !names.is_empty()
        })
    }

    /// Returns whether it limits the names for which those that it vouches for may stand.
    pub fn constrains_names(&self) -> bool {
        self.extensions().any(|(id, _)| id == NAME_CONSTRAINTS)
    }

    /// Returns the identifiers of its extensions, without their headers, and what each says, which is `None` if it cannot be read.
    fn extensions(&self) -> impl Iterator<Item = (&'a [u8], Option<&'a [u8]>)> {
        Reader(self.extensions).filter_map(|extension| {
            let mut fields = Reader(extension.content);
            let id = fields.next_if(tag::OBJECT_IDENTIFIER)?;
            // Before it there may be whether it is critical.
            let value = fields.find(|field| field.tag == tag::OCTET_STRING);
            Some((id.content, value.map(|value| value.content)))
        })
    }

    /// Returns the common names of its subject; one that is not ASCII is left out.
    pub fn common_names(&self) -> Vec<&'a str> {
        let mut names = Vec::new();
        let mut sets = Reader(Reader::only(self.subject, tag::SEQUENCE).unwrap_or_default());
        while let Some(set) = sets.next_if(tag::SET) {
            let mut attributes = Reader(set.content);
            while let Some(attribute) = attributes.next_if(tag::SEQUENCE) {
                let mut fields = Reader(attribute.content);
                let is_common_name =
                    fields.next_if(tag::OBJECT_IDENTIFIER).is_some_and(|id| id.content == COMMON_NAME);
                if is_common_name {
                    names.extend(fields.next().filter(Element::is_text).and_then(|text| text.ascii()));
                }
            }
        }
        names
    }
}

/// Returns whether this is a SubjectPublicKeyInfo, whatever the key in it.
pub fn is_public_key(der: &[u8]) -> bool {
    let read = || {
        let mut fields = Reader(Reader::only(der, tag::SEQUENCE)?);
        fields.next_if(tag::SEQUENCE)?;
        fields.next_if(tag::BIT_STRING)?;
        fields.is_empty().then_some(())
    };
    read().is_some()
}

/// Returns how many bits the modulus of an RSA key has (RFC 3279 section 2.3.1), of a SubjectPublicKeyInfo that holds one.
pub fn rsa_bits(key: &[u8]) -> Option<usize> {
    let mut fields = Reader(Reader::only(key, tag::SEQUENCE)?);
    fields.next_if(tag::SEQUENCE)?;
    // Before the key stands how many bits of its last octet do not count, which is 0.
    let (_, key) = fields.next_if(tag::BIT_STRING)?.content.split_first()?;
    let modulus = Reader(Reader::only(key, tag::SEQUENCE)?).next_if(tag::INTEGER)?.content;
    let unused = modulus.iter().take_while(|octet| **octet == 0).count();
    let digits = modulus.get(unused..)?;
    let first = digits.first()?;
    Some(digits.len() * 8 - usize::try_from(first.leading_zeros()).ok()?)
}

/// Returns the identifier of the algorithm of a SubjectPublicKeyInfo, without its header.
pub fn algorithm(key: &[u8]) -> Option<&[u8]> {
    Some(Reader(Reader::only(key, tag::SEQUENCE)?).next_if(tag::SEQUENCE)?.content)
}

/// Returns the content of a sequence, without its header.
pub fn content(der: &[u8]) -> Option<&[u8]> {
    Reader::only(der, tag::SEQUENCE)
}

/// Reads elements of DER one after the other.
struct Reader<'a>(&'a [u8]);

/// An element of DER.
#[derive(Clone, Copy)]
struct Element<'a> {
    tag: u8,
    content: &'a [u8],
    /// With its header.
    whole: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Returns the content of the only element.
    fn only(octets: &'a [u8], tag: u8) -> Option<&'a [u8]> {
        let mut reader = Self(octets);
        let element = reader.next_if(tag)?;
        reader.is_empty().then_some(element.content)
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Takes the next element if it has this tag.
    fn next_if(&mut self, tag: u8) -> Option<Element<'a>> {
        if self.0.first() == Some(&tag) { self.next() } else { None }
    }
}

impl<'a> Iterator for Reader<'a> {
    type Item = Element<'a>;

    /// Takes the next element. Nothing is taken if there is none, or it cannot be read.
    fn next(&mut self) -> Option<Element<'a>> {
        let octets = self.0;
        let (&tag, rest) = octets.split_first()?;
        // No tag of several octets occurs in a certificate.
        if tag & 0x1f == 0x1f {
            return None;
        }
        let (&first, rest) = rest.split_first()?;
        let (length, rest) = if first < 0x80 {
            (usize::from(first), rest)
        } else {
            // A length that could be shorter is read too: some certificates have such. An indefinite one is not.
            let count = usize::from(first & 0x7f);
            let (digits, rest) = rest.split_at_checked(count).filter(|_| (1..=4).contains(&count))?;
            let length = digits.iter().fold(0_u32, |length, digit| length << 8 | u32::from(*digit));
            (usize::try_from(length).ok()?, rest)
        };
        let (content, rest) = rest.split_at_checked(length)?;
        let whole = octets.get(..octets.len().checked_sub(rest.len())?)?;
        self.0 = rest;
        Some(Element { tag, content, whole })
    }
}

impl<'a> Element<'a> {
    /// Returns its content as text, unless that is not ASCII, or has a NUL, which other readers may take for its end.
    fn ascii(&self) -> Option<&'a str> {
        let text = core::str::from_utf8(self.content).ok()?;
        (text.is_ascii() && !text.contains('\0')).then_some(text)
    }

    /// Returns whether it is a string that may be a common name.
    fn is_text(&self) -> bool {
        matches!(self.tag, tag::UTF8_STRING | tag::PRINTABLE_STRING | tag::TELETEX_STRING | tag::IA5_STRING)
    }

    /// Returns the time that it tells (RFC 5280 section 4.1.2.5).
    fn time(&self) -> Option<UnixTime> {
        let text = self.ascii()?.strip_suffix('Z')?;
        if !text.bytes().all(|octet| octet.is_ascii_digit()) {
            return None;
        }
        let (year, rest) = match self.tag {
            tag::UTC_TIME => {
                let (year, rest) = text.split_at_checked(2)?;
                let year: i16 = year.parse().ok()?;
                (year + if year < FIRST_SHORT_YEAR { 2000 } else { 1900 }, rest)
            }
            tag::GENERALIZED_TIME => {
                let (year, rest) = text.split_at_checked(4)?;
                (year.parse().ok()?, rest)
            }
            _ => return None,
        };
        if rest.len() != 10 {
            return None;
        }
        let two = |at: usize| rest.get(at..at + 2)?.parse::<i8>().ok();
        let at = DateTime::new(year, two(0)?, two(2)?, two(4)?, two(6)?, two(8)?, 0).ok()?;
        Some(UnixTime(Offset::UTC.to_timestamp(at).ok()?.as_second()))
    }
}

#[cfg(test)]
pub(super) mod tests;
