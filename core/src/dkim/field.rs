//! The header field of a signature.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use sha2::{Digest as _, Sha256};

use super::header::relax;
use super::{Digest, KeyId, SigningKey};
use crate::time::UnixTime;

/// The name of the field.
const NAME: &str = "DKIM-Signature";
/// It in lower case, as it is signed.
const RELAXED_NAME: &str = "dkim-signature";
/// Lines are folded at this length (RFC 5322 section 2.1.1).
const LINE_LIMIT_OCTETS: usize = 76;
/// What stands between two lines of the field.
const FOLD: &str = "\r\n\t";

/// A signature, as a key makes it.
pub type Signature = Bytes;

/// A field that waits for its signature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnsignedField {
    /// The key that signs it.
    pub key: KeyId,
    /// What is signed.
    pub digest: Digest,
    /// The field up to `b=`.
    text: String,
}

impl UnsignedField {
    /// Returns a field for a message with this digest of its body, of which these fields are signed.
    pub(super) fn new(key: &SigningKey, now: UnixTime, names: &[&str], fields: &[u8], body: &Digest) -> Self {
        let mut text = Folded::new();
        text.tag(&["v=1;"]);
        text.tag(&["a=", key.algorithm.name(), ";"]);
        text.tag(&["c=relaxed/relaxed;"]);
        text.tag(&["d=", key.domain.as_str(), ";"]);
        text.tag(&["s=", key.selector.as_str(), ";"]);
        let mut time = String::new();
        // Writing to a String cannot fail. A time before 1970 cannot be said.
        let _ = write!(time, "t={};", now.0.max(0));
        text.tag(&[&time]);
        for (index, name) in names.iter().enumerate() {
            let end = if index + 1 == names.len() { ";" } else { ":" };
            match index {
                0 => text.tag(&["h=", name, end]),
                _ => text.part(&[name, end]),
            }
        }
        text.tag(&["bh=", &BASE64.encode(body), ";"]);
        text.tag(&["b="]);
        let text = text.text;
        let mut signed = fields.to_vec();
        let value = text.strip_prefix(NAME).and_then(|rest| rest.strip_prefix(':')).unwrap_or_default();
        relax(RELAXED_NAME, value.as_bytes(), &mut signed);
        Self { key: key.id, digest: Sha256::digest(&signed).into(), text }
    }

    /// Returns the field with its signature and line end.
    pub fn signed(self, signature: &[u8]) -> String {
        let mut text = Folded { line_octets: line_octets(&self.text), text: self.text };
        let mut value = &*BASE64.encode(signature);
        while !value.is_empty() {
            let room = LINE_LIMIT_OCTETS.saturating_sub(text.line_octets);
            let (part, behind) = value.split_at_checked(room.min(value.len())).unwrap_or((value, ""));
            text.put(part);
            value = behind;
            if !value.is_empty() {
                text.fold();
            }
        }
        text.text.push_str("\r\n");
        text.text
    }
}

/// A field whose lines are folded where they get too long.
struct Folded {
    text: String,
    line_octets: usize,
}

impl Folded {
    fn new() -> Self {
        let mut folded = Self { text: String::with_capacity(512), line_octets: 0 };
        folded.put(NAME);
        folded.put(":");
        folded
    }

    /// Appends a tag, after a blank or in a new line.
    fn tag(&mut self, pieces: &[&str]) {
        let octets: usize = pieces.iter().map(|piece| piece.len()).sum();
        if self.line_octets + 1 + octets > LINE_LIMIT_OCTETS {
            self.fold()
        } else {
            self.put(" ")
        }
        pieces.iter().for_each(|piece| self.put(piece));
    }

    /// Appends a part of a tag, in a new line if it does not fit.
    fn part(&mut self, pieces: &[&str]) {
        let octets: usize = pieces.iter().map(|piece| piece.len()).sum();
        if self.line_octets + octets > LINE_LIMIT_OCTETS {
            self.fold();
        }
        pieces.iter().for_each(|piece| self.put(piece));
    }

    fn fold(&mut self) {
        self.text.push_str(FOLD);
        self.line_octets = 1;
    }

    fn put(&mut self, text: &str) {
        self.text.push_str(text);
        self.line_octets += text.len();
    }
}

/// Returns the length of the last line.
fn line_octets(text: &str) -> usize {
    text.rsplit('\n').next().map_or(0, str::len)
}

/// Returns the value of a tag in a tag list (RFC 6376 section 3.2), without white space in it.
pub(super) fn tag(list: &[u8], name: &[u8]) -> Option<Vec<u8>> {
    list.split(|octet| *octet == b';').find_map(|tag| {
        let equals = tag.iter().position(|octet| *octet == b'=')?;
        let (found, value) = tag.split_at_checked(equals)?;
        let value = value.iter().skip(1).copied().filter(|octet| !octet.is_ascii_whitespace());
        (found.trim_ascii() == name).then(|| value.collect())
    })
}
