//! Shows values and paths in errors: on one line, and shortened.

use std::fmt;
use std::path::Path;

use cmail_delivery::one_line::OneLine;

/// Most characters of a value that are shown: enough to find it, on a readable line.
const VALUE_LIMIT_CHARACTERS: usize = 80;
/// Most characters of a path that are shown. The end of a path matters most, and no usable path is longer.
const PATH_LIMIT_CHARACTERS: usize = 4096;

/// Displays a text on one line, shortened.
pub(crate) struct Shown<'a> {
    text: std::borrow::Cow<'a, str>,
    limit_characters: usize,
}

/// Shows the name or the value of a directive.
pub(crate) fn value(text: &str) -> Shown<'_> {
    Shown { text: text.into(), limit_characters: VALUE_LIMIT_CHARACTERS }
}

/// Shows the path of a file.
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
