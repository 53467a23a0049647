//! Sends what is logged to the journal of systemd, with its fields.
//!
//! The thread that writes the log does that, because a journal that hangs must not hold up the daemon. So a record comes to it as a line, as
//! all lines do: a JSON object behind a mark.

use std::fmt;
use std::io;

use log::kv::{self, Key, Source, VisitSource};
use log::{Level, Record};
use serde_json::{Map, Value};
use systemd_journal_logger::JournalLog;

use super::line;

/// What a line for the journal begins with (RFC 7464). Nothing else that is logged has a control character.
pub(super) const MARK: char = '\u{1e}';

/// What the names of fields begin with. The journal shows them in capitals.
const PREFIX: &str = "CMAIL_";

/// Checks that there is a journal that takes records.
pub(crate) fn check() -> io::Result<()> {
    JournalLog::empty().map(drop)
}

/// The journal, once something was sent there.
#[derive(Default)]
pub(super) struct Journal(Option<JournalLog>);

impl fmt::Debug for Journal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Journal").field(&self.0.is_some()).finish()
    }
}

impl Journal {
    /// Sends a line, which is given with its mark.
    pub(super) fn send(&mut self, line: &[u8]) -> io::Result<()> {
        let object = line.get(MARK.len_utf8()..).unwrap_or_default();
        let fields: Map<String, Value> = serde_json::from_slice(object)?;
        let text = |name: &str| fields.get(name).and_then(Value::as_str).unwrap_or_default();
        let level = match text("level") {
            "error" => Level::Error,
            "warning" => Level::Warn,
            "info" => Level::Info,
            "debug" => Level::Debug,
            _ => Level::Trace,
        };
        let own = |name: &str| matches!(name, "level" | "time" | line::MESSAGE);
        let others = fields.iter().filter(|(name, _)| !own(name));
        let pairs = Fields(others.map(|(name, value)| (format!("{PREFIX}{name}"), value)).collect());
        let mut record = Record::builder();
        record.level(level).target(env!("CARGO_PKG_NAME")).key_values(&pairs);
        let journal = match &mut self.0 {
            Some(journal) => journal,
            none => none.insert(JournalLog::new()?),
        };
        journal.journal_send(&record.args(format_args!("{}", text(line::MESSAGE))).build())
    }
}

/// The fields of a record that the journal does not have by itself.
struct Fields<'a>(Vec<(String, &'a Value)>);

impl Source for Fields<'_> {
    fn visit<'kvs>(&'kvs self, visitor: &mut dyn VisitSource<'kvs>) -> Result<(), kv::Error> {
        for (name, value) in &self.0 {
            let text = value.as_str().map(kv::Value::from);
            let value = text.unwrap_or_else(|| kv::Value::from_display(value));
            visitor.visit_pair(Key::from_str(name), value)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logging::LogFormat;

    /// What the journal gets: level, sentence, fields.
    fn sent(record: &Record<'_>) -> Map<String, Value> {
        let line = LogFormat::Journal.line(record, false);
        let object = line.strip_prefix(MARK).unwrap();
        serde_json::from_str(object).unwrap()
    }

    #[test]
    fn a_record_is_a_sentence_with_its_end_and_fields_of_its_own() {
        let pairs =
            [("event", kv::Value::from("delivered")), ("mail", 7.into()), ("parenthesis", "(try=1)".into())];
        let mut record = Record::builder();
        record.level(Level::Warn).key_values(&pairs);
        let fields = sent(&record.args(format_args!("mail 7\ngoes")).build());
        assert_eq!(
            (&fields["message"], &fields["level"]),
            (&"mail 7\ngoes (try=1)".into(), &"warning".into())
        );
        assert_eq!((&fields["mail"], &fields["event"]), (&7.into(), &"delivered".into()));
        assert!(!fields.contains_key("parenthesis"));
    }
}
