//! Texts of a configuration as errors show them.

use std::fmt;
use std::path::Path;

use cmail_delivery::one_line::OneLine;

/// Most characters of a value that are shown: enough to find it, on a line that can be read.
const VALUE_LIMIT_CHARACTERS: usize = 80;
/// The same of a path, of which the end matters most: no path that leads anywhere is longer.
const PATH_LIMIT_CHARACTERS: usize = 4096;

/// A text on one line, shortened.
pub(crate) struct Shown<'a> {
    text: std::borrow::Cow<'a, str>,
    limit_characters: usize,
}

/// The name or the value of a directive.
pub(crate) fn value(text: &str) -> Shown<'_> {
    Shown { text: text.into(), limit_characters: VALUE_LIMIT_CHARACTERS }
}

/// The path of a file.
pub(crate) fn path(path: &Path) -> Shown<'_> {
    Shown { text: path.to_string_lossy(), limit_characters: PATH_LIMIT_CHARACTERS }
}

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.text.char_indices().nth(self.limit_characters) {
            None => write!(f, "{}", OneLine(&self.text)),
            Some((end, _)) => write!(f, "{}…", OneLine(self.text.get(..end).unwrap_or_default())),
        }
    }
}
