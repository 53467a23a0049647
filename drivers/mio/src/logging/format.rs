//! The formats of the log.

use std::fmt::{self, Write as _};
use std::sync::atomic::{AtomicU8, Ordering};

use jiff::Timestamp;
use log::kv::{self, VisitSource};
use log::{Level, Record};
use serde_json::{Map, Number, Value};

use super::line;

/// How a line of the log is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// As a sentence, with the time and the level before it.
    #[default]
    Text,
    /// As `key=value` pairs.
    Logfmt,
    /// As a JSON object.
    Json,
}

impl fmt::Display for LogFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Text => "text",
            Self::Logfmt => "logfmt",
            Self::Json => "json",
        })
    }
}

/// The format of the log, which a reload may change.
#[derive(Debug, Default)]
pub(super) struct FormatCell(AtomicU8);

impl FormatCell {
    const ALL: [LogFormat; 3] = [LogFormat::Text, LogFormat::Logfmt, LogFormat::Json];

    pub(super) fn set(&self, format: LogFormat) {
        let index = Self::ALL.iter().position(|known| *known == format).unwrap_or(0);
        self.0.store(u8::try_from(index).unwrap_or(0), Ordering::Relaxed);
    }

    pub(super) fn get(&self) -> LogFormat {
        Self::ALL.get(usize::from(self.0.load(Ordering::Relaxed))).copied().unwrap_or_default()
    }
}

/// The key of a record's word for what has happened. A record without it is a note.
pub(crate) const EVENT: &str = "event";

/// The key of what ends a sentence in a line of text, and stands nowhere else, since all of it has keys of its own.
pub(crate) const PARENTHESIS: &str = "parenthesis";

impl LogFormat {
    /// Makes a line of what the log has to say of itself.
    pub(super) fn own_line(self, level: Level, text: &str) -> String {
        let mut record = Record::builder();
        record.level(level);
        self.line(&record.args(format_args!("{text}")).build(), Some(line::LINE_LIMIT_OCTETS))
    }

    /// Makes a line of a record, with its end. One in the form of text is cut at a limit, if there is one.
    pub(super) fn line(self, record: &Record<'_>, limit_octets: Option<usize>) -> String {
        match self {
            Self::Text => text(record, limit_octets),
            Self::Logfmt => {
                let mut line = String::new();
                for (index, (key, value)) in pairs(record).into_iter().enumerate() {
                    // Writing to memory does not fail.
                    let _ = write!(line, "{}{key}={}", if index == 0 { "" } else { " " }, Logfmt(&value));
                }
                line.push('\n');
                line
            }
            Self::Json => {
                let pairs = pairs(record).into_iter().map(|(key, value)| (key.to_owned(), value));
                format!("{}\n", Value::Object(pairs.collect::<Map<_, _>>()))
            }
        }
    }
}

fn text(record: &Record<'_>, limit_octets: Option<usize>) -> String {
    match record.key_values().get(PARENTHESIS.into()) {
        Some(end) => line::line(record.level(), format_args!("{} {end}", record.args()), limit_octets),
        None => line::line(record.level(), record.args(), limit_octets),
    }
}

/// Returns all that a record says, in the order in which it is written. The sentence comes last.
fn pairs(record: &Record<'_>) -> Vec<(String, Value)> {
    let mut found = Pairs::default();
    // Collecting does not fail.
    let _ = record.key_values().visit(&mut found);
    let mut found = found.0;
    found.retain(|(key, _)| key != PARENTHESIS);
    if !found.iter().any(|(key, _)| key == EVENT) {
        found.insert(0, (EVENT.to_owned(), "note".into()));
    }
    let time = format!("{:.3}", Timestamp::now());
    let level = match record.level() {
        Level::Error => "error",
        Level::Warn => "warning",
        Level::Info => "info",
        Level::Debug => "debug",
        Level::Trace => "trace",
    };
    let mut pairs = vec![("time".to_owned(), time.into()), ("level".to_owned(), level.into())];
    pairs.append(&mut found);
    pairs.push(("message".to_owned(), record.args().to_string().into()));
    pairs
}

/// Collects the pairs of a record.
#[derive(Default)]
struct Pairs(Vec<(String, Value)>);

impl<'kvs> VisitSource<'kvs> for Pairs {
    fn visit_pair(&mut self, key: kv::Key<'kvs>, value: kv::Value<'kvs>) -> Result<(), kv::Error> {
        let number = value.to_i64().map(Number::from).or_else(|| Number::from_f64(value.to_f64()?));
        let value = number.map_or_else(|| Value::String(value.to_string()), Value::Number);
        self.0.push((key.to_string(), value));
        Ok(())
    }
}

/// Writes a value of logfmt: quoted if it would not be one word otherwise, and on one line.
struct Logfmt<'a>(&'a Value);

impl fmt::Display for Logfmt<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Value::String(text) = self.0 else { return self.0.fmt(f) };
        let is_word =
            |character: char| character > ' ' && !matches!(character, '"' | '=' | '\\' | '\u{7f}'..='\u{9f}');
        if !text.is_empty() && text.chars().all(is_word) {
            return f.write_str(text);
        }
        f.write_char('"')?;
        for character in text.chars() {
            match character {
                '"' | '\\' => write!(f, "\\{character}")?,
                '\n' => f.write_str("\\n")?,
                '\r' => f.write_str("\\r")?,
                '\t' => f.write_str("\\t")?,
                control if control.is_control() => write!(f, "\\u{:04x}", u32::from(control))?,
                other => f.write_char(other)?,
            }
        }
        f.write_char('"')
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(format: LogFormat, pairs: &[(&str, kv::Value<'_>)], text: &str) -> String {
        let mut record = Record::builder();
        record.level(Level::Info).key_values(&pairs);
        format.line(&record.args(format_args!("{text}")).build(), None)
    }

    fn some() -> Vec<(&'static str, kv::Value<'static>)> {
        vec![
            ("event", "delivered".into()),
            ("mail", 7.into()),
            ("c", 0.12.into()),
            ("text", "250 \"ok\"\nqueued".into()),
            ("message_id", "a@b".into()),
            (PARENTHESIS, "(try=1)".into()),
        ]
    }

    #[test]
    fn text_is_the_sentence_with_what_ends_it() {
        let line = lines(LogFormat::Text, &some(), "mail 7 is gone");
        assert!(line.ends_with(" INFO  mail 7 is gone (try=1)\n"), "{line}");
        assert!(lines(LogFormat::Text, &[], "a note").ends_with(" INFO  a note\n"));
    }

    #[test]
    fn logfmt_quotes_what_is_no_word() {
        let line = lines(LogFormat::Logfmt, &some(), "mail 7 is gone");
        let expected = "level=info event=delivered mail=7 c=0.12 text=\"250 \\\"ok\\\"\\nqueued\" message_id=a@b message=\"mail 7 is gone\"\n";
        assert!(line.starts_with("time=") && line.ends_with(expected), "{line}");
        let hostile = lines(LogFormat::Logfmt, &[("text", "".into())], "x\u{1b}[2J=\u{85}");
        assert!(hostile.ends_with("event=note text=\"\" message=\"x\\u001b[2J=\\u0085\"\n"), "{hostile}");
    }

    #[test]
    fn json_is_one_object_a_line() {
        let line = lines(LogFormat::Json, &some(), "mail 7 is gone\n\"now\"");
        assert_eq!(line.matches('\n').count(), 1);
        let object: Value = serde_json::from_str(&line).unwrap();
        assert_eq!((&object["mail"], &object["c"]), (&7.into(), &0.12.into()));
        assert_eq!(object["text"], "250 \"ok\"\nqueued");
        assert_eq!(object["message"], "mail 7 is gone\n\"now\"");
        assert!(object["time"].is_string() && object.get(PARENTHESIS).is_none());
    }
}
