//! What the table of directives looks like: with a configuration's values for `check`, without them in the manual.

use std::fmt::{self, Write as _};

use super::Config;
use super::directives::{DIRECTIVES, Fallback, Kind, Repeat};

/// Every directive with its effective value, in the syntax of the configuration file. A directive that has no value is
/// a comment, so that the whole is a configuration file with the same meaning.
impl fmt::Display for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = DIRECTIVES.iter().map(|directive| directive.name.len()).max().unwrap_or_default();
        for directive in &DIRECTIVES {
            let name = directive.name;
            match (directive.show)(self) {
                Some(value) => writeln!(f, "{name:width$} {value}")?,
                None => {
                    let described = match directive.default {
                        Fallback::Value(text) | Fallback::Described(text) => text.replace('`', ""),
                        Fallback::Required => String::new(),
                    };
                    writeln!(f, "# {name}: {described}")?;
                }
            }
        }
        Ok(())
    }
}

/// The table of all directives in Markdown, as the manual has it.
pub fn manual_table() -> String {
    let mut table = String::from("| directive | default | meaning |\n|---|---|---|\n");
    for directive in &DIRECTIVES {
        let default = match directive.default {
            Fallback::Value(value) => format!("`{value}`"),
            Fallback::Described(text) => text.to_owned(),
            Fallback::Required => "required".to_owned(),
        };
        let range = match directive.kind {
            Kind::Number { min, max, .. } => format!(" From {min} to {max}."),
            Kind::Text { .. } => String::new(),
        };
        let repeat = match directive.repeat {
            Repeat::LastHolds => "",
            Repeat::Cumulative => " The values of several lines add up.",
            Repeat::Refused => " May be given only once.",
        };
        // Writing to a String cannot fail.
        let _ = writeln!(
            table,
            "| `{} {}` | {default} | {}{range}{repeat} |",
            directive.name,
            directive.kind.shape(),
            directive.help
        );
    }
    table
}
