//! The verb `replay`: what a record of a conversation shows, and whether it would go the same way today.

use std::fs;
use std::path::Path;

use serde::Serialize;

use super::printer::Printer;
use super::words::{Options, ReplayWords};
use super::{Outcome, ToolError, complain};
use crate::shown;

/// What has come of a replay: the fields of the record `replay`.
#[derive(Debug, Serialize)]
struct Replayed<'a> {
    file: String,
    as_written: bool,
    observed: &'a str,
}

/// Replays each record. Fails if one goes otherwise than it is written, or cannot be replayed.
pub(super) fn replay(options: &Options, words: &ReplayWords) -> Result<Outcome, ToolError> {
    let mut printer = Printer::new();
    let mut others = 0;
    for file in &words.files {
        let name = shown::path(file).to_string();
        let (written, observed) = match observe(file) {
            Ok(texts) => texts,
            Err(text) => {
                complain(&format!("{name}: {text}"));
                others += 1;
                continue;
            }
        };
        let as_written = written == observed;
        if options.json {
            printer.record("replay", Replayed { file: name, as_written, observed: &observed })?;
        } else {
            for line in observed.lines() {
                printer.line(format_args!("{line}"))?;
            }
            match first_difference(&written, &observed) {
                None => printer.line(format_args!("{name}: it goes as it is written"))?,
                Some((number, line)) => printer.line(format_args!(
                    "{name}: it goes otherwise than it is written, from line {number} on, where the record has: {line}"
                ))?,
            }
        }
        printer.flush()?;
        others += u32::from(!as_written);
    }
    match others {
        0 => Ok(Outcome::Done),
        1 => Err(ToolError::NotDone(
            "1 record goes otherwise than it is written, or cannot be replayed".to_owned(),
        )),
        _ => Err(ToolError::NotDone(format!(
            "{others} records go otherwise than they are written, or cannot be replayed"
        ))),
    }
}

/// Returns a record, and what is observed when it is replayed.
fn observe(file: &Path) -> Result<(String, String), String> {
    let written = fs::read_to_string(file).map_err(|error| error.to_string())?;
    // Settings and comments alone show nothing.
    if written.lines().all(|line| line.trim().is_empty() || line.starts_with(['#', '@'])) {
        return Err("there is no record of a conversation in it".to_owned());
    }
    let observed = cmail_delivery_sim::replay(&written).map_err(|error| error.to_string())?;
    Ok((written, observed))
}

/// Returns the number and the text of the first line of a record that is not observed.
fn first_difference<'a>(written: &'a str, observed: &str) -> Option<(usize, &'a str)> {
    if written == observed {
        return None;
    }
    let (mut lines, mut seen) = (written.lines().enumerate(), observed.lines());
    let differs = |(_, line): &(usize, &str)| seen.next() != Some(line);
    let found = lines.find(differs).map(|(at, line)| (at + 1, line));
    Some(found.unwrap_or((written.lines().count() + 1, "nothing more")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_without_a_conversation_is_no_record() {
        let directory = tempfile::tempdir().unwrap();
        for content in ["", "\n \n", "# a comment\n@ set auth_insecure yes\n"] {
            let file = directory.path().join("record");
            fs::write(&file, content).unwrap();
            assert_eq!(
                observe(&file),
                Err("there is no record of a conversation in it".to_owned()),
                "{content:?}"
            );
        }
    }
}
