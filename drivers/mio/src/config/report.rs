//! Prints the table of directives: with a configuration's values for `check`, without them for `docs` and the manual
//! page.

use std::fmt::{self, Write as _};

use super::directive::{Directive, Fallback, Kind, Repeat};
use super::table::DIRECTIVES;
use super::{Config, OnReload};

/// Shows every directive with its effective value, in the syntax of the configuration file. A directive without a value
/// becomes a comment, so that the output is a configuration file with the same meaning.
impl fmt::Display for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = DIRECTIVES.iter().map(|directive| directive.name.len()).max().unwrap_or_default();
        for directive in &DIRECTIVES {
            let name = directive.name;
            match (directive.show)(self) {
                Some(values) => {
                    values.lines().try_for_each(|value| writeln!(f, "{name:width$} {value}"))?;
                }
                None => writeln!(f, "# {name}: {}", directive.default.plain())?,
            }
        }
        Ok(())
    }
}

/// Returns the table of all directives in Markdown, for `docs/configuration.md`.
pub fn manual_table() -> String {
    let mut table = String::from("| directive | default | meaning |\n|---|---|---|\n");
    for directive in &DIRECTIVES {
        // Writing to a String cannot fail.
        let _ = writeln!(
            table,
            "| `{} {}` | {} | {} |",
            directive.name,
            directive.kind.shape(),
            default(directive),
            meaning(directive)
        );
    }
    table
}

/// Returns the list of all directives in the language of man(7), for the manual page.
pub fn manual_page_list() -> String {
    let mut list = String::new();
    for directive in &DIRECTIVES {
        let Directive { name, kind, .. } = directive;
        let shape = roff(kind.shape());
        // Writing to a String cannot fail.
        let _ = writeln!(list, ".TP\n\\fB{name}\\fP \\fI{shape}\\fP");
        for sentence in meaning(directive).split_inclusive(". ") {
            let _ = writeln!(list, "{}", roff(sentence.trim_end()));
        }
        let _ = match directive.default {
            Fallback::Value(_) | Fallback::Described(_) => {
                writeln!(list, "Default: {}.", roff(&default(directive)))
            }
            Fallback::Required => writeln!(list, "Required."),
        };
    }
    list
}

/// Describes the default, in Markdown.
fn default(directive: &Directive) -> String {
    match directive.default {
        Fallback::Value(value) => format!("`{value}`"),
        Fallback::Described(text) => text.to_owned(),
        Fallback::Required => "required".to_owned(),
    }
}

/// Describes the directive's purpose, its range, what repeating it means, and whether a reload takes it: sentences in Markdown.
fn meaning(directive: &Directive) -> String {
    let range = match directive.kind {
        Kind::Number { min, max, .. } => format!(" From {min} to {max}."),
        Kind::Seconds { min, max, .. } => {
            format!(" From {min} to {max}, or with a unit, as `90s`, `15m`, `1h`, `5d`.")
        }
        Kind::Text { .. } => String::new(),
    };
    let repeat = match directive.repeat {
        Repeat::LastHolds => "",
        Repeat::Cumulative => " Several lines add up.",
        Repeat::Refused => " May be given only once.",
    };
    let on_reload = match directive.on_reload {
        OnReload::Taken => "",
        OnReload::AfterRestart { .. } => " Another value takes effect after a restart.",
    };
    format!("{}{range}{repeat}{on_reload}", directive.help)
}

/// Translates Markdown, whose only markup is code between backquotes, into the language of man(7).
fn roff(markdown: &str) -> String {
    // A line that begins with a control character would be a request.
    let mut text = String::from(if markdown.starts_with(['.', '\'']) { "\\&" } else { "" });
    let mut is_code = false;
    for character in markdown.chars() {
        match character {
            '`' => {
                is_code = !is_code;
                text.push_str(if is_code { "\\fB" } else { "\\fP" });
            }
            '\\' => text.push_str("\\e"),
            '-' => text.push_str("\\-"),
            '\'' => text.push_str("\\(cq"),
            '…' => text.push_str("..."),
            other => text.push(other),
        }
    }
    text
}
