//! The formats of the log.

use std::fmt::{self, Write as _};
use std::sync::atomic::{AtomicU8, Ordering};

use cmail_delivery::one_line::{OneLine, is_misleading};
use jiff::Timestamp;
use log::kv::{self, VisitSource};
use log::{Level, Record};
use serde::{Serialize, Serializer};
use serde_json::{Number, Value};

use super::{journal, line};

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
    /// As fields of the journal of systemd.
    Journal,
}

impl LogFormat {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Text, Self::Logfmt, Self::Json, Self::Journal];
}

impl fmt::Display for LogFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Text => "text",
            Self::Logfmt => "logfmt",
            Self::Json => "json",
            Self::Journal => "journal",
        })
    }
}

/// The format of the log, which a reload may change.
#[derive(Debug, Default)]
pub(super) struct FormatCell(AtomicU8);

impl FormatCell {
    pub(super) fn set(&self, format: LogFormat) {
        let index = LogFormat::ALL.iter().position(|known| *known == format).unwrap_or(0);
        self.0.store(u8::try_from(index).unwrap_or(0), Ordering::Relaxed);
    }

    pub(super) fn get(&self) -> LogFormat {
        LogFormat::ALL.get(usize::from(self.0.load(Ordering::Relaxed))).copied().unwrap_or_default()
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
        self.line(&record.args(format_args!("{text}")).build(), false)
    }

    /// Makes a line of a record, with its end. Unless it `is_whole`, long values in it are cut.
    pub(super) fn line(self, record: &Record<'_>, is_whole: bool) -> String {
        let value_limit = (!is_whole).then_some(line::VALUE_LIMIT_OCTETS);
        match self {
            Self::Text => text(record, is_whole),
            Self::Logfmt => {
                let mut line = String::new();
                for (index, (key, value)) in pairs(record, value_limit).into_iter().enumerate() {
                    // Writing to memory does not fail.
                    let _ = write!(line, "{}{key}={}", if index == 0 { "" } else { " " }, Logfmt(&value));
                }
                line.push('\n');
                line
            }
            Self::Json => json(&pairs(record, value_limit)),
            Self::Journal => {
                let mut pairs = pairs(record, value_limit);
                // What programs show of the journal is the sentence alone.
                if let Some(end) = record.key_values().get(PARENTHESIS.into())
                    && let Some((_, Value::String(message))) = pairs.last_mut()
                {
                    // Writing to memory does not fail.
                    let _ = write!(message, " {end}");
                }
                format!("{}{}", journal::MARK, json(&pairs))
            }
        }
    }
}

fn text(record: &Record<'_>, is_whole: bool) -> String {
    let limit_octets = (!is_whole).then_some(line::LINE_LIMIT_OCTETS);
    match record.key_values().get(PARENTHESIS.into()) {
        // However long the sentence is, its end is there.
        Some(end) => {
            let value_limit = limit_octets.map(|_| line::VALUE_LIMIT_OCTETS);
            let sentence = line::cut(OneLine(record.args()), value_limit);
            line::line(record.level(), format_args!("{sentence} {end}"), limit_octets)
        }
        None => line::line(record.level(), record.args(), limit_octets),
    }
}

/// Writes an object. What misleads can stand only within its texts, where JSON may have it escaped.
fn json(pairs: &[(String, Value)]) -> String {
    // Writing to memory does not fail.
    let object = serde_json::to_string(&Object(pairs)).unwrap_or_default();
    let mut line = String::with_capacity(object.len() + 1);
    for part in object.split_inclusive(is_misleading) {
        line.push_str(part.strip_suffix(is_misleading).unwrap_or(part));
        if let Some(misleading) = part.chars().next_back().filter(|last| is_misleading(*last)) {
            let _ = write!(line, "{}", Escaped(misleading));
        }
    }
    line.push('\n');
    line
}

/// An object whose keys keep their order.
struct Object<'a>(&'a [(String, Value)]);

impl Serialize for Object<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(key, value)| (key, value)))
    }
}

/// A character as JSON and logfmt escape it.
struct Escaped(char);

impl fmt::Display for Escaped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.encode_utf16(&mut [0; 2]).iter().try_for_each(|unit| write!(f, "\\u{unit:04x}"))
    }
}

/// Returns all that a record says, in the order in which it is written, with texts cut at a limit. The sentence comes last.
fn pairs(record: &Record<'_>, limit_octets: Option<usize>) -> Vec<(String, Value)> {
    let mut found = Pairs { pairs: Vec::new(), limit_octets };
    // Collecting does not fail.
    let _ = record.key_values().visit(&mut found);
    let mut found = found.pairs;
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
    pairs.push((line::MESSAGE.to_owned(), line::cut(record.args(), limit_octets).into()));
    pairs
}

/// Collects the pairs of a record.
struct Pairs {
    pairs: Vec<(String, Value)>,
    /// The longest text.
    limit_octets: Option<usize>,
}

impl<'kvs> VisitSource<'kvs> for Pairs {
    fn visit_pair(&mut self, key: kv::Key<'kvs>, value: kv::Value<'kvs>) -> Result<(), kv::Error> {
        let number = value.to_i64().map(Number::from).or_else(|| Number::from_f64(value.to_f64()?));
        let value = number.map_or_else(|| Value::String(line::cut(value, self.limit_octets)), Value::Number);
        self.pairs.push((key.to_string(), value));
        Ok(())
    }
}

/// Writes a value of logfmt: quoted if it would not be one word otherwise, and on one line.
struct Logfmt<'a>(&'a Value);

impl fmt::Display for Logfmt<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Value::String(text) = self.0 else { return self.0.fmt(f) };
        let is_word = |character: char| {
            character > ' ' && !matches!(character, '"' | '=' | '\\') && !is_misleading(character)
        };
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
                misleading if is_misleading(misleading) => Escaped(misleading).fmt(f)?,
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
        format.line(&record.args(format_args!("{text}")).build(), false)
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
        let at = |key: &str| line.find(&format!("\"{key}\":")).unwrap();
        assert!(
            line.starts_with("{\"time\":") && at("level") < at("event") && at("c") < at("message"),
            "{line}"
        );
    }

    #[test]
    fn what_misleads_is_escaped_in_every_format() {
        let hostile = "a\u{7f}b\u{85}c\u{9b}d\u{2028}e\u{2029}f\u{202e}g\u{2066}h";
        for format in LogFormat::ALL {
            let line = lines(format, &[("text", hostile.into())], hostile);
            let line = line.trim_start_matches(journal::MARK);
            assert_eq!(line.matches(is_misleading).collect::<Vec<_>>(), ["\n"], "{line}");
        }
        let json = lines(LogFormat::Json, &[("text", hostile.into())], hostile);
        let object: Value = serde_json::from_str(&json).unwrap();
        assert_eq!((&object["text"], &object["message"]), (&hostile.into(), &hostile.into()));
        let logfmt = lines(LogFormat::Logfmt, &[("text", "\u{2028}".into())], "x");
        assert!(logfmt.contains("text=\"\\u2028\""), "{logfmt}");
    }

    #[test]
    fn long_texts_are_cut_in_every_format_and_the_line_stays_whole() {
        let reply = "\"é\" ".repeat(64 * 1024 / 5);
        let pairs = [("text", reply.as_str().into()), (PARENTHESIS, "(try=1)".into())];
        for format in LogFormat::ALL {
            let line = lines(format, &pairs, &reply);
            assert!(line.len() < 3 * line::LINE_LIMIT_OCTETS && line.contains(" octets more)"), "{format}");
            assert_eq!(line.matches('\n').count(), 1, "{format}");
        }
        let object: Value = serde_json::from_str(&lines(LogFormat::Json, &pairs, &reply)).unwrap();
        for key in ["text", "message"] {
            let text = object[key].as_str().unwrap();
            assert!(text.len() <= line::VALUE_LIMIT_OCTETS && text.ends_with(" octets more)"), "{text}");
        }
        assert!(lines(LogFormat::Text, &pairs, &reply).ends_with(" octets more) (try=1)\n"));
    }
}
