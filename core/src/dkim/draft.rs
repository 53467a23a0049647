//! The signatures of a message, drafted while it is read.

use alloc::vec::Vec;
use core::ops::ControlFlow;

use super::body_hash::BodyHash;
use super::field::UnsignedField;
use super::header::Header;
use super::wire_lines::{Part, WireLines};
use super::{Signing, SigningKey};
use crate::address::Domain;

/// Longest header section that is signed, in octets. Who has written a message with a longer one is not found out.
pub const HEADER_LIMIT_OCTETS: usize = 1024 * 1024;

/// Returns the domain of the author of a message: see [`author_domain`](super::author_domain).
pub fn author(message: &[u8]) -> Option<Domain> {
    let (mut octets, mut has_text, mut lines, mut rest) = (Vec::new(), false, WireLines::default(), message);
    while let Some(part) = lines.next(&mut rest) {
        if add_to_header(&mut octets, &mut has_text, &part) {
            break;
        }
    }
    if octets.len() > HEADER_LIMIT_OCTETS {
        return None;
    }
    Header::parse(&octets)?.author()
}

/// The signatures of one message. It is fed with the stored octets of the message, in pieces of any size.
#[derive(Debug)]
pub struct Draft {
    signing: Signing,
    lines: WireLines,
    stage: Stage,
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
    /// Nothing is signed.
    Unsigned,
}

impl Draft {
    pub(super) fn new(signing: Signing) -> Self {
        let stage = Stage::Header { octets: Vec::new(), has_text: false };
        Self { signing, lines: WireLines::default(), stage }
    }

    /// Adds the next octets of the message. Breaks if the message is not signed, so that the rest of it need not be read.
    pub fn add(&mut self, octets: &[u8]) -> ControlFlow<()> {
        let mut rest = octets;
        while let Some(part) = self.lines.next(&mut rest) {
            let is_header_over = match &mut self.stage {
                Stage::Header { octets, has_text } => add_to_header(octets, has_text, &part),
                Stage::Body { hash, .. } => {
                    hash.add(&part);
                    false
                }
                Stage::Unsigned => return ControlFlow::Break(()),
            };
            if is_header_over {
                self.end_header();
            }
        }
        if matches!(self.stage, Stage::Unsigned) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    /// Returns the fields to sign, after the whole message; none if it is not signed.
    pub fn finish(mut self) -> Vec<UnsignedField> {
        if let Stage::Header { octets, has_text } = &mut self.stage {
            if *has_text {
                octets.extend_from_slice(b"\r\n");
            }
            self.end_header();
        }
        let Stage::Body { keys, names, fields, hash } = self.stage else { return Vec::new() };
        let (body, now) = (hash.finish(), self.signing.now);
        keys.iter().map(|key| UnsignedField::new(key, now, &names, &fields, &body)).collect()
    }

    /// Decides by the whole header section whether the message is signed.
    fn end_header(&mut self) {
        let Stage::Header { octets, .. } = core::mem::replace(&mut self.stage, Stage::Unsigned) else {
            return;
        };
        if octets.len() > HEADER_LIMIT_OCTETS {
            return;
        }
        let Some(header) = Header::parse(&octets) else { return };
        let Some(author) = header.author() else { return };
        let keys: Vec<SigningKey> = self.signing.rules.keys_of(&author).cloned().collect();
        if !keys.is_empty() && !header.is_signed_by(&author) {
            let (names, fields) = header.signed();
            self.stage = Stage::Body { keys, names, fields, hash: BodyHash::default() };
        }
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
