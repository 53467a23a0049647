//! Shows texts from outside on one line of a log, so that none can forge a line of its own.

use core::fmt::{self, Write as _};

/// Returns whether a character must not be shown as it is: a control character, a separator of lines or paragraphs, which some
/// programs take for a line end, or a control of bidirectional text, which shows what follows in another order.
pub fn is_misleading(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Shows a text on one line. Line ends between its lines become ` / `, those at its end are dropped, and other misleading characters
/// are escaped. Everything else is unchanged.
///
/// ```
/// # use cmail_delivery::one_line::OneLine;
/// assert_eq!(OneLine("550-no\r\n550 \"never\"\r\n").to_string(), r#"550-no / 550 "never""#);
/// assert_eq!(OneLine("a\u{1b}[2J").to_string(), "a\\u{1b}[2J");
/// ```
#[derive(Clone, Copy, Debug)]
pub struct OneLine<T>(pub T);

impl<T: fmt::Display> fmt::Display for OneLine<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(Joining { to: f, has_text: false, has_ended: false }, "{}", self.0)
    }
}

/// Writes text on, on one line.
struct Joining<'a, 'b> {
    to: &'a mut fmt::Formatter<'b>,
    /// True if any text was written.
    has_text: bool,
    /// True if a line has ended, so that the next text begins another.
    has_ended: bool,
}

impl fmt::Write for Joining<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        // Nearly every text is plain ASCII, and there are some for each mail.
        if text.bytes().all(|octet| matches!(octet, b' '..=b'~')) {
            return self.write_plain(text);
        }
        for part in text.split_inclusive(is_misleading) {
            let misleading = part.chars().next_back().filter(|last| is_misleading(*last));
            let plain = part.strip_suffix(is_misleading).unwrap_or(part);
            self.write_plain(plain)?;
            match misleading {
                Some('\r' | '\n') => self.has_ended = true,
                Some(other) => {
                    self.begin()?;
                    write!(self.to, "{}", other.escape_default())?;
                }
                None => {}
            }
        }
        Ok(())
    }
}

impl Joining<'_, '_> {
    fn write_plain(&mut self, text: &str) -> fmt::Result {
        if text.is_empty() {
            return Ok(());
        }
        self.begin()?;
        self.to.write_str(text)
    }

    /// Writes a separator if the text begins a further line.
    fn begin(&mut self) -> fmt::Result {
        let separates = core::mem::take(&mut self.has_ended) && self.has_text;
        self.has_text = true;
        if separates { self.to.write_str(" / ") } else { Ok(()) }
    }
}

/// Shows octets as text: UTF-8 as it is, anything else as `\xff`.
#[derive(Clone, Copy, Debug)]
pub struct Octets<'a>(pub &'a [u8]);

impl fmt::Display for Octets<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for chunk in self.0.utf8_chunks() {
            f.write_str(chunk.valid())?;
            write!(f, "{}", chunk.invalid().escape_ascii())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
