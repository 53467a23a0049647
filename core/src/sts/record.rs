//! The TXT record that says which policy of a domain is the current one (RFC 8461 section 3.1).

use alloc::boxed::Box;
use core::fmt;
use core::str;

use thiserror::Error;

/// What stands before a domain in the name of its record.
pub const RECORD_LABEL: &str = "_mta-sts";

/// Longest id in octets (RFC 8461 section 3.1).
const ID_LIMIT_OCTETS: usize = 32;

/// Longest name of a field in octets (RFC 8461 section 3.1).
const NAME_LIMIT_OCTETS: usize = 32;

/// WSP in the grammar.
const BLANKS: [char; 2] = [' ', '\t'];

/// What tells one policy of a domain from the others. Nothing says which of two is the later one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PolicyId(Box<str>);

/// Why the TXT records of a domain say nothing of a policy.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum RecordTrouble {
    /// None of them is about MTA-STS.
    #[error("there is no MTA-STS record")]
    Absent,
    /// More than one is about MTA-STS.
    #[error("there is more than one MTA-STS record")]
    Several,
    /// The one that is about MTA-STS is not made as it must be.
    #[error("the MTA-STS record is malformed")]
    Malformed,
}

impl PolicyId {
    /// Parses 1 to 32 letters and digits.
    pub fn parse(text: &str) -> Option<Self> {
        let is_valid = (1..=ID_LIMIT_OCTETS).contains(&text.len())
            && text.bytes().all(|octet| octet.is_ascii_alphanumeric());
        is_valid.then(|| Self(text.into()))
    }

    /// Returns the id as it stands in the record.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for PolicyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Returns the id of the current policy, as the TXT records of `_mta-sts` below a domain tell it, the strings of each joined.
///
/// Records about other things do not count. Of those about MTA-STS there must be one.
pub fn find<'a>(texts: impl IntoIterator<Item = &'a [u8]>) -> Result<PolicyId, RecordTrouble> {
    let mut fields = texts.into_iter().filter_map(fields_of_record);
    let found = fields.next().ok_or(RecordTrouble::Absent)?;
    if fields.next().is_some() {
        return Err(RecordTrouble::Several);
    }
    current_id(found).ok_or(RecordTrouble::Malformed)
}

/// Returns what follows the version, if the record is about MTA-STS. Blanks may stand before the semicolon, as the grammar has it.
fn fields_of_record(record: &[u8]) -> Option<&[u8]> {
    let rest = record.strip_prefix(b"v=STSv1")?;
    let blanks = rest.iter().take_while(|octet| matches!(octet, b' ' | b'\t')).count();
    rest.get(blanks..)?.strip_prefix(b";")
}

/// Returns the first id of some fields, if all of them are made as they must be.
fn current_id(fields: &[u8]) -> Option<PolicyId> {
    let fields = str::from_utf8(fields).ok()?.trim_end_matches(BLANKS);
    let fields = fields.strip_suffix(';').unwrap_or(fields);
    let mut id = None;
    for field in fields.split(';') {
        let (name, value) = field.trim_matches(BLANKS).split_once('=')?;
        if name == "id" {
            // Of a field that is there twice only the first counts.
            if id.is_none() {
                id = Some(PolicyId::parse(value)?);
            }
        } else if !(is_name(name) && is_value(value)) {
            return None;
        }
    }
    id
}

fn is_name(text: &str) -> bool {
    let is_inner = |octet: u8| octet.is_ascii_alphanumeric() || matches!(octet, b'_' | b'-' | b'.');
    text.len() <= NAME_LIMIT_OCTETS
        && text.starts_with(|first: char| first.is_ascii_alphanumeric())
        && text.bytes().all(is_inner)
}

fn is_value(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|octet| octet.is_ascii_graphic() && !matches!(octet, b'=' | b';'))
}

#[cfg(test)]
mod tests;
