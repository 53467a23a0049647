//! The signatures of a message, drafted while it is read.

use alloc::vec::Vec;
use core::ops::ControlFlow;

use super::body_hash::BodyHash;
use super::field::UnsignedField;
use super::header::Header;
use super::wire_lines::{Part, WireLines};
use super::{Digest, Signing, SigningKey, Unsigned};
use crate::address::Domain;

/// Longest header section that is signed, in octets. Who has written a message with a longer one is not found out.
pub const HEADER_LIMIT_OCTETS: usize = 256 * 1024;

/// Returns the domain of the author of a message: see [`author_domain`](super::author_domain).
pub fn author(message: &[u8]) -> Option<Domain> {
    let (mut octets, mut has_text, mut lines, mut rest) = (Vec::new(), false, WireLines::default(), message);
    while let Some(part) = lines.next(&mut rest) {
        if add_to_header(&mut octets, &mut has_text, &part) {
            break;
        }
    }
    Header::parse(&octets).ok()?.author().ok()
}

/// The signatures of one message. It is fed with the stored octets of the message, in pieces of any size.
#[derive(Debug)]
pub struct Draft {
    signing: Signing,
    /// The digest of the body, if it is known already.
    body: Option<Digest>,
    lines: WireLines,
    stage: Stage,
}

/// The signatures of a message, which are to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Drafted {
    /// Their fields: at least one.
    pub fields: Vec<UnsignedField>,
    /// The digest of the body, by which the same message can be drafted without its body.
    pub body: Digest,
}

#[derive(Debug)]
enum Stage {
    Header {
        /// The header section so far, with CRLF line ends.
        octets: Vec<u8>,
        /// The line has text.
        has_text: bool,
    },
    Body {
        keys: Vec<SigningKey>,
        names: Vec<&'static str>,
        fields: Vec<u8>,
        hash: BodyHash,
    },
    Unsigned(Unsigned),
}

impl Draft {
    pub(super) fn new(signing: Signing, body: Option<Digest>) -> Self {
        let stage = Stage::Header { octets: Vec::new(), has_text: false };
        Self { signing, body, lines: WireLines::default(), stage }
    }

    /// Returns how it signs.
    pub fn signing(&self) -> &Signing {
        &self.signing
    }

    /// Adds the next octets of the message. Breaks if the rest of it need not be read, because the message is not signed, or because the
    /// digest of its body is known.
    pub fn add(&mut self, octets: &[u8]) -> ControlFlow<()> {
        let mut rest = octets;
        while let Some(part) = self.lines.next(&mut rest) {
            let is_header_over = match &mut self.stage {
                Stage::Header { octets, has_text } => add_to_header(octets, has_text, &part),
                Stage::Body { hash, .. } => {
                    hash.add(&part);
                    false
                }
                Stage::Unsigned(_) => break,
            };
            if is_header_over {
                self.end_header();
                if self.needs_no_more() {
                    break;
                }
            }
        }
        if self.needs_no_more() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    fn needs_no_more(&self) -> bool {
        match self.stage {
            Stage::Header { .. } => false,
            Stage::Body { .. } => self.body.is_some(),
            Stage::Unsigned(_) => true,
        }
    }

    /// Returns the signatures to be made, after the whole message or after a break; or why there are none.
    pub fn finish(mut self) -> Result<Drafted, Unsigned> {
        if let Stage::Header { octets, has_text } = &mut self.stage {
            if *has_text {
                octets.extend_from_slice(b"\r\n");
            }
            self.end_header();
        }
        let (keys, names, fields, hash) = match self.stage {
            Stage::Body { keys, names, fields, hash } => (keys, names, fields, hash),
            Stage::Unsigned(why) => return Err(why),
            // It was ended above.
            Stage::Header { .. } => return Err(Unsigned::MalformedHeader),
        };
        let body = self.body.unwrap_or_else(|| hash.finish());
        let now = self.signing.now;
        let fields = keys.iter().map(|key| UnsignedField::new(key, now, &names, &fields, &body)).collect();
        Ok(Drafted { fields, body })
    }

    /// Decides by the whole header section whether the message is signed.
    fn end_header(&mut self) {
        let octets = match &mut self.stage {
            Stage::Header { octets, .. } => core::mem::take(octets),
            Stage::Body { .. } | Stage::Unsigned(_) => return,
        };
        self.stage = self.signed_part(&octets).unwrap_or_else(Stage::Unsigned);
    }

    /// Returns what of a header section is signed.
    fn signed_part(&self, octets: &[u8]) -> Result<Stage, Unsigned> {
        let header = Header::parse(octets)?;
        let author = header.author()?;
        let keys: Vec<SigningKey> = self.signing.rules.keys_of(&author).cloned().collect();
        if keys.is_empty() {
            return Err(Unsigned::NoKey(author));
        }
        if header.is_signed_by(&author) {
            return Err(Unsigned::AlreadySigned(author));
        }
        let (names, fields) = header.signed()?;
        Ok(Stage::Body { keys, names, fields, hash: BodyHash::default() })
    }
}

/// Adds a part to a header section. Returns whether that has ended it.
fn add_to_header(octets: &mut Vec<u8>, has_text: &mut bool, part: &Part<'_>) -> bool {
    match part {
        Part::Text(text) => {
            octets.extend_from_slice(text);
            *has_text = true;
        }
        Part::End if *has_text => {
            octets.extend_from_slice(b"\r\n");
            *has_text = false;
        }
        Part::End => return true,
    }
    octets.len() > HEADER_LIMIT_OCTETS
}
