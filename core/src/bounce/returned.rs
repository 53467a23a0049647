//! What comes back of the original, and in what form.

use alloc::borrow::Cow;
use alloc::format;
use alloc::string::String;

use super::original::{self, HeaderSection};
use super::quoted_printable;
use crate::failure::StoredFailure;
use crate::outbox::{DATA_CHUNK_OCTETS, FailedMail, FailedMessage, HEADER_LIMIT_OCTETS};

/// Most octets of a header section that come back. Any header that mail programs write is shorter, and few servers take a
/// longer one.
const RETURNED_HEADER_LIMIT_OCTETS: usize = 256 * 1024;

/// Returns how many octets of an original a bounce needs, where originals up to `return_limit_octets` come back whole: all of it,
/// or its header section, up to [`HEADER_LIMIT_OCTETS`]. `beginning` has its first [`DATA_CHUNK_OCTETS`].
pub fn needed_octets(beginning: &[u8], data_octets: u64, return_limit_octets: u64) -> u64 {
    if data_octets <= return_limit_octets {
        return data_octets;
    }
    let beginning = beginning.get(..DATA_CHUNK_OCTETS).unwrap_or(beginning);
    let has_end = !HeaderSection::find(beginning, false).is_cut;
    data_octets.min(if has_end { DATA_CHUNK_OCTETS as u64 } else { HEADER_LIMIT_OCTETS as u64 })
}

/// How much comes back; if that is not all, why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Extent {
    Whole,
    /// The header section: the original is larger than what comes back whole.
    Large,
    /// The header section: a server has refused the original for what it is, and the sender's server may do the same with
    /// a bounce that holds it.
    Refused,
    /// The header section: no message may hold what the original holds.
    HardToSend,
}

/// The third part of a bounce.
#[derive(Debug)]
pub(super) struct Returned<'a> {
    pub(super) extent: Extent,
    /// The header section as far as it is known, which may be more than comes back.
    pub(super) header: &'a [u8],
    /// True if fields of the header section are missing.
    pub(super) is_cut: bool,
    /// What comes back, as the encoding wants it.
    pub(super) octets: Cow<'a, [u8]>,
    /// The transfer encoding.
    pub(super) encoding: &'static str,
}

impl<'a> Returned<'a> {
    pub(super) fn of(message: &'a FailedMessage, return_limit_octets: u64) -> Self {
        let original: &[u8] = &message.original;
        let is_complete = u64::try_from(original.len()).is_ok_and(|octets| octets >= message.data_octets);
        let section = HeaderSection::find(original, is_complete);
        let header = section.octets;
        let extent = if !is_complete || message.data_octets > return_limit_octets {
            Extent::Large
        } else if message.mails.iter().any(was_refused_for_its_content) {
            Extent::Refused
        } else if original::is_hard_to_send(original) {
            Extent::HardToSend
        } else {
            let encoding = original::transfer_encoding(original);
            let octets = Cow::Borrowed(original);
            return Self { extent: Extent::Whole, header, is_cut: false, octets, encoding };
        };
        let (octets, is_cut) = section.within(RETURNED_HEADER_LIMIT_OCTETS);
        // RFC 6522 section 4: a header section that is broken may be encoded so.
        let is_hard_to_send = original::is_hard_to_send(&octets);
        let encoding = original::transfer_encoding(&octets);
        let returned = Self { extent, header, is_cut, octets, encoding };
        if is_hard_to_send { returned.in_quoted_printable() } else { returned }
    }

    /// The same in an encoding that leaves nothing but ASCII: a sender of ASCII may use a server that takes no other message of
    /// RFC 6532 (RFC 6533 section 4.5).
    pub(super) fn in_ascii(self) -> Self {
        if self.encoding == "8bit" { self.in_quoted_printable() } else { self }
    }

    fn in_quoted_printable(self) -> Self {
        let octets = quoted_printable::encode(&self.octets).into();
        Self { octets, encoding: "quoted-printable", ..self }
    }

    /// Says what comes back and why no more, in lines for people.
    pub(super) fn sentence(&self) -> String {
        let extent = match self.extent {
            Extent::Whole => "The message itself is attached.\n",
            Extent::Large => "The message is large: only its headers are attached.\n",
            Extent::Refused => {
                "A server has refused the message for what it contains, or for its size, and\n\
                 might refuse this report too if it held the message: only its headers are\n\
                 attached.\n"
            }
            Extent::HardToSend => {
                "The message has lines of more than 998 octets, or NUL characters, for which\n\
                 a server might refuse this report: only its headers are attached.\n"
            }
        };
        let cut = if self.is_cut { "The headers are long: some of them are left out.\n" } else { "" };
        format!("{extent}{cut}")
    }
}

/// Returns whether what has failed a mail was about the message itself: the attempt that was fatal, or any if it was tried too
/// often.
fn was_refused_for_its_content(mail: &FailedMail) -> bool {
    let has_fatal = mail.attempts.iter().any(|attempt| attempt.fatal);
    let decisive = mail.attempts.iter().filter(|attempt| attempt.fatal || !has_fatal);
    decisive.map(|attempt| StoredFailure::parse(&attempt.text)).any(|failure| failure.is_about_content())
}
