//! Replays every transcript, in all ways; with `UPDATE_TRANSCRIPTS=1` it writes what is observed into them.
#![allow(clippy::unwrap_used, reason = "a file that cannot be read fails the test")]

use std::fs;
use std::path::{Path, PathBuf};

use cmail_delivery_sim::replay;

/// So many transcripts there are at least: a directory that is not found is no success.
const LEAST_FILES: usize = 140;

fn transcripts() -> Vec<PathBuf> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/transcripts");
    let mut files: Vec<PathBuf> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "smtp"))
        .collect();
    files.sort();
    files
}

#[test]
fn every_transcript_replays_as_it_is_written() {
    let is_update = std::env::var_os("UPDATE_TRANSCRIPTS").is_some_and(|value| value == "1");
    let files = transcripts();
    assert!(files.len() >= LEAST_FILES, "only {} transcripts are there", files.len());
    let mut failures = Vec::new();
    for path in files {
        let written = fs::read_to_string(&path).unwrap();
        match replay(&written) {
            Ok(observed) if observed == written => {}
            Ok(observed) if is_update => fs::write(&path, observed).unwrap(),
            Ok(observed) => {
                let line = observed.lines().zip(written.lines()).position(|(a, b)| a != b);
                let line = line.unwrap_or(observed.lines().count().min(written.lines().count()));
                let found = observed.lines().nth(line).unwrap_or("nothing");
                failures.push(format!("{}:{}: \"{found}\" is observed", path.display(), line + 1));
            }
            Err(error) => failures.push(format!("{}: {error}", path.display())),
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn every_transcript_says_why_it_is_there() {
    for path in transcripts() {
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.starts_with("# "), "{}", path.display());
    }
}
