//! The operator's tool as a child process.

use super::World;
use super::daemon::Finished;
use serde_json::Value;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io::{Read, Write};
use std::process::{Command, Stdio};
use std::time::Instant;

pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_cmail-admin-queue");

/// Returns a command that runs the tool, without the variables of whoever runs the tests.
pub(crate) fn command() -> Command {
    let mut command = Command::new(PROGRAM);
    command.env_remove("CMAIL_MASTER_DB").env("TZ", "UTC").stdin(Stdio::null());
    command
}

/// Runs a command to its end, with this on its standard input.
pub(crate) fn finish(mut command: Command, input: &[u8]) -> Finished {
    let started = Instant::now();
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    // It need not read all of it.
    let writer = std::thread::spawn(move || drop(stdin.write_all(&input)));
    let mut stderr = child.stderr.take().unwrap();
    let reader = std::thread::spawn(move || {
        let mut text = Vec::new();
        let _ = stderr.read_to_end(&mut text);
        String::from_utf8_lossy(&text).into_owned()
    });
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    Finished {
        status: output.status,
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: reader.join().unwrap(),
        took: started.elapsed(),
    }
}

/// Runs the tool with the configuration of a world.
pub(crate) fn run(world: &World, words: &[impl AsRef<OsStr>]) -> Finished {
    let mut command = command();
    command.arg("--config").arg(world.write_config()).args(words);
    finish(command, b"")
}

/// Runs the tool, which must be done well, and returns what it prints.
pub(crate) fn output(world: &World, words: &[impl AsRef<OsStr>]) -> String {
    let finished = run(world, words);
    assert_eq!(finished.code(), Some(0), "{}{}", finished.stdout, finished.stderr);
    assert_eq!(finished.stderr, "");
    finished.stdout
}

/// Runs the tool with `--json`, and returns its records.
pub(crate) fn records(world: &World, words: &[&str]) -> Vec<Value> {
    let words: Vec<&str> = ["--json"].iter().chain(words).copied().collect();
    output(world, &words).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Returns the names of the fields of a record, without its version and kind, sorted.
pub(crate) fn fields_of(record: &Value) -> Vec<String> {
    assert_eq!(record["v"], 1);
    let mut fields: Vec<String> = record.as_object().unwrap().keys().cloned().collect();
    fields.retain(|name| name != "v" && name != "kind");
    fields.sort();
    fields
}

/// Returns the kinds of records that the documentation lists, each with its fields, sorted.
pub(crate) fn documented_fields() -> BTreeMap<String, Vec<String>> {
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/json.md")).unwrap();
    let mut documented = BTreeMap::new();
    for section in page.split("\n## `").skip(1) {
        let (kind, rest) = section.split_once('`').unwrap();
        let field = |line: &str| Some(line.strip_prefix("| `")?.split_once('`')?.0.to_owned());
        let mut fields: Vec<String> = rest.lines().filter_map(field).collect();
        fields.sort();
        documented.insert(kind.to_owned(), fields);
    }
    documented
}
