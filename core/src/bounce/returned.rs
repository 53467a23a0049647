//! The part of the original that a bounce returns, and its form.

use alloc::borrow::Cow;
use alloc::format;
use alloc::string::String;

use super::original::{self, HeaderSection};
use super::{Notice, quoted_printable};
use crate::dsn::ReturnExtent;
use crate::failure::StoredFailure;
use crate::outbox::{DATA_CHUNK_OCTETS, FailedMail, FailedMessage, HEADER_LIMIT_OCTETS};

/// Most octets of a header section that are returned. Headers written by mail programs are shorter, and few servers accept longer
/// ones.
const RETURNED_HEADER_LIMIT_OCTETS: usize = 256 * 1024;

/// Returns how many octets of an original a bounce needs, if originals up to `return_limit_octets` are returned whole: all of it,
/// or its header section, up to [`HEADER_LIMIT_OCTETS`]. `beginning` holds its first [`DATA_CHUNK_OCTETS`].
pub fn needed_octets(beginning: &[u8], data_octets: u64, return_limit_octets: u64) -> u64 {
    if data_octets <= return_limit_octets {
        return data_octets;
    }
    let beginning = beginning.get(..DATA_CHUNK_OCTETS).unwrap_or(beginning);
    let has_end = !HeaderSection::find(beginning, false).is_cut;
    data_octets.min(if has_end { DATA_CHUNK_OCTETS as u64 } else { HEADER_LIMIT_OCTETS as u64 })
}

/// How much is returned, and the reason if it is not the whole original.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Extent {
    Whole,
    /// The header section, because the sender wants no more (RFC 3461 section 4.3).
    Asked,
    /// The header section, because the original is larger than the limit.
    Large,
    /// The header section, because a server has refused the content of the original. The sender's server may refuse a bounce that
    /// contains it for the same reason.
    Refused,
    /// The header section, because the original contains octets that no message may contain.
    HardToSend,
    /// The header section, because the mail has not failed (RFC 3461 section 4.3).
    Header,
}

/// The third part of a bounce.
#[derive(Debug)]
pub(super) struct Returned<'a> {
    pub(super) extent: Extent,
    /// The known part of the header section, which may be more than is returned.
    pub(super) header: &'a [u8],
    /// True if fields of the header section are missing.
    pub(super) is_cut: bool,
    /// The returned octets, in their transfer encoding.
    pub(super) octets: Cow<'a, [u8]>,
    /// The transfer encoding.
    pub(super) encoding: &'static str,
}

impl<'a> Returned<'a> {
    pub(super) fn of(message: &'a FailedMessage, notice: Notice<'_>) -> Self {
        let original: &[u8] = &message.original;
        let is_complete = u64::try_from(original.len()).is_ok_and(|octets| octets >= message.data_octets);
        let section = HeaderSection::find(original, is_complete);
        let header = section.octets;
        let return_limit_octets = match notice {
            Notice::GivenUp { return_limit_octets } => Some(return_limit_octets),
            Notice::Late(_) | Notice::Relayed(_) => None,
        };
        let Some(return_limit_octets) = return_limit_octets else {
            return Self::header_only(Extent::Header, &section);
        };
        let wants_header =
            message.wishes().is_some_and(|wishes| wishes.extent == Some(ReturnExtent::Headers));
        let extent = if wants_header {
            Extent::Asked
        } else if !is_complete || message.data_octets > return_limit_octets {
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
        Self::header_only(extent, &section)
    }

    fn header_only(extent: Extent, section: &HeaderSection<'a>) -> Self {
        let header = section.octets;
        let (octets, is_cut) = section.within(RETURNED_HEADER_LIMIT_OCTETS);
        // RFC 6522 section 4: a broken header section may be encoded in this way.
        let is_hard_to_send = original::is_hard_to_send(&octets);
        let encoding = original::transfer_encoding(&octets);
        let returned = Self { extent, header, is_cut, octets, encoding };
        if is_hard_to_send { returned.in_quoted_printable() } else { returned }
    }

    /// Returns the same in an encoding that is all ASCII: a sender with an ASCII address may use a server that accepts no other
    /// message of RFC 6532 (RFC 6533 section 4.5).
    pub(super) fn in_ascii(self) -> Self {
        if self.encoding == "8bit" { self.in_quoted_printable() } else { self }
    }

    fn in_quoted_printable(self) -> Self {
        let octets = quoted_printable::encode(&self.octets).into();
        Self { octets, encoding: "quoted-printable", ..self }
    }

    /// Returns lines for people that say what is returned, and why not more.
    pub(super) fn sentence(&self) -> String {
        let extent = match self.extent {
            Extent::Whole => "The message itself is attached.\n",
            Extent::Asked => "As you have asked, only the headers of the message are attached.\n",
            Extent::Large => "The message is large: only its headers are attached.\n",
            Extent::Refused => {
                "A server has refused the message for what it contains, or for its size, and\n\
                 might refuse this report too if it held the message: only its headers are\n\
                 attached.\n"
            }
            Extent::Header => "The headers of the message are attached.\n",
            Extent::HardToSend => {
                "The message has lines of more than 998 octets, or NUL characters, for which\n\
                 a server might refuse this report: only its headers are attached.\n"
            }
        };
        let cut = if self.is_cut { "The headers are long: some of them are left out.\n" } else { "" };
        format!("{extent}{cut}")
    }
}

/// Returns whether a mail has failed because of the message itself: in the fatal attempt, or in any attempt if there were too
/// many.
fn was_refused_for_its_content(mail: &FailedMail) -> bool {
    let has_fatal = mail.attempts.iter().any(|attempt| attempt.fatal);
    let decisive = mail.attempts.iter().filter(|attempt| attempt.fatal || !has_fatal);
    decisive.map(|attempt| StoredFailure::parse(&attempt.text)).any(|failure| failure.is_about_content())
}
