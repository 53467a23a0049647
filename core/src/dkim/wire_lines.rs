//! The lines of a stored message as they go over the wire, whatever ends them.

/// Splits a message into lines, piece by piece. CR, LF and CRLF end a line, as in
/// [`MailDataEncoder`](crate::transparency::MailDataEncoder), which sends each of them as CRLF.
#[derive(Debug, Default)]
pub(super) struct WireLines {
    /// The last octet was a CR. A LF that follows belongs to it.
    is_after_cr: bool,
}

/// A part of a line.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Part<'a> {
    /// Octets of a line, not empty. More of the same line may follow.
    Text(&'a [u8]),
    /// The end of a line.
    End,
}

impl WireLines {
    /// Takes the next part from the beginning of `octets`; `None` if nothing is left there.
    pub(super) fn next<'a>(&mut self, octets: &mut &'a [u8]) -> Option<Part<'a>> {
        if octets.is_empty() {
            return None;
        }
        if core::mem::take(&mut self.is_after_cr)
            && let [b'\n', behind @ ..] = *octets
        {
            *octets = behind;
        }
        let end = memchr::memchr2(b'\r', b'\n', octets).unwrap_or(octets.len());
        let (text, behind) = octets.split_at_checked(end).unwrap_or((octets, &[]));
        if !text.is_empty() {
            *octets = behind;
            return Some(Part::Text(text));
        }
        let (first, behind) = behind.split_first()?;
        self.is_after_cr = *first == b'\r';
        *octets = behind;
        Some(Part::End)
    }
}
