//! The page about limits has those of the code, with their values.

use std::ffi::OsStr;
use std::path::Path;

use super::{holds, pages, sources};

/// A constant of the code.
struct Constant {
    /// The module that defines it.
    module: String,
    name: String,
    /// As it is written.
    value: String,
}

impl Constant {
    /// Returns whether it limits something: the name says so.
    fn is_limit(&self) -> bool {
        self.name.split('_').any(|word| ["LIMIT", "SPAN", "TIMEOUT"].contains(&word))
    }

    /// Returns whether a name, with its module before it or without, is its own.
    fn is_called(&self, name: &str) -> bool {
        match name.split_once("::") {
            Some((module, name)) => self.module == module && self.name == name,
            None => self.name == name,
        }
    }

    /// Returns the ways in which the page may write its value: with its unit, as a number or as a word.
    fn ways_to_write(&self) -> Vec<String> {
        let in_parentheses =
            |name: &str| product(self.value.strip_prefix(name)?.strip_prefix('(')?.strip_suffix(')')?);
        let range = self.value.split_once("..=").and_then(|(least, most)| product(least).zip(product(most)));
        if let Some(seconds) = in_parentheses("Duration::from_secs") {
            spans(seconds * 1000)
        } else if let Some(millis) = in_parentheses("Duration::from_millis") {
            spans(millis)
        } else if let Some((least, most)) = range {
            vec![format!("{least} to {most}")]
        } else if let Some(number) = product(&self.value) {
            let as_span = match self.name.rsplit('_').next().unwrap_or_default() {
                "SECONDS" | "S" => spans(number * 1000),
                "MS" => spans(number),
                _ => Vec::new(),
            };
            numbers(number).into_iter().chain(as_span).collect()
        } else {
            Vec::new()
        }
    }
}

/// Returns the number that a constant is written as, such as `64 * 1024` or `1 << 16`.
fn product(text: &str) -> Option<u64> {
    if let Some((number, bits)) = text.split_once("<<") {
        return Some(product(number)? << product(bits)?);
    }
    text.split('*').map(|factor| factor.trim().replace('_', "").parse::<u64>().ok()).product()
}

fn numbers(number: u64) -> Vec<String> {
    let word = match number {
        2 => Some("half".to_owned()),
        8 => Some("eight".to_owned()),
        _ => None,
    };
    let binary =
        [(10, "KiB"), (20, "MiB")].into_iter().filter_map(|(bits, unit)| whole(number, 1 << bits, unit));
    [number.to_string()].into_iter().chain(word).chain(binary).collect()
}

fn spans(millis: u64) -> Vec<String> {
    let units = [(1, "ms"), (1000, "s"), (60_000, "min"), (3_600_000, "h"), (86_400_000, "d")];
    let whole = units.into_iter().filter_map(|(unit, name)| whole(millis, unit, name));
    let hundredths = format!("{}.{:02} s", millis / 1000, millis % 1000 / 10);
    whole.chain([hundredths]).collect()
}

/// Writes a number by a unit that it is a multiple of.
fn whole(number: u64, unit: u64, name: &str) -> Option<String> {
    number.is_multiple_of(unit).then(|| format!("{} {name}", number / unit))
}

/// Returns the name of the module that a file is.
fn module(path: &Path) -> String {
    let stem = path.file_stem().and_then(OsStr::to_str).unwrap_or_default();
    let parent = path.parent().and_then(Path::file_name).and_then(OsStr::to_str).unwrap_or_default();
    if stem == "mod" { parent } else { stem }.to_owned()
}

/// Returns whether a file is there for tests alone.
fn is_of_tests(path: &Path) -> bool {
    let words = path.iter().filter_map(OsStr::to_str);
    words.into_iter().any(|word| ["tests", "tests.rs", "testing.rs", "fixture.rs"].contains(&word))
}

fn constants_of(path: &Path, text: &str) -> Vec<Constant> {
    let found = text.split("const ").skip(1).filter_map(|rest| {
        let (name, rest) = rest.split_once(": ")?;
        let value = rest.split_once('=')?.1;
        let is_name = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
        let value = value.split_once(';')?.0.trim().to_owned();
        name.chars().all(is_name).then(|| Constant { module: module(path), name: name.to_owned(), value })
    });
    found.collect()
}

fn constants() -> Vec<Constant> {
    let files = sources().into_iter().filter(|(path, _)| !is_of_tests(path));
    files.flat_map(|(path, text)| constants_of(&path, &text)).collect()
}

/// Returns the rows of the page: the values that they tell, and the names.
fn rows() -> Vec<(String, Vec<String>)> {
    let (_, page) = pages().into_iter().find(|(name, _)| name == "limits.md").unwrap();
    let of_row = |row: &str| {
        let [_, _, told, names, _] = row.split('|').collect::<Vec<_>>()[..] else { panic!("{row}") };
        (told.to_owned(), names.split('`').skip(1).step_by(2).map(str::to_owned).collect())
    };
    page.lines().filter(|line| line.starts_with("| ")).map(of_row).collect()
}

/// Returns what is wrong with a limit that the page tells.
fn mistake(constants: &[Constant], name: &str, told: &str) -> Option<String> {
    let called: Vec<&Constant> = constants.iter().filter(|found| found.is_called(name)).collect();
    let [constant] = called[..] else {
        let modules: Vec<&str> = called.iter().map(|found| &*found.module).collect();
        return Some(format!(
            "{name} must be one constant, with its module before it if need be: {modules:?}"
        ));
    };
    let is_told = constant.ways_to_write().iter().any(|way| holds(told, way));
    (!is_told).then(|| format!("{name} is {}, and not {told}", constant.value))
}

#[test]
fn every_limit_of_the_documentation_is_that_of_the_code() {
    let (constants, rows) = (constants(), rows());
    let limits = || rows.iter().flat_map(|(told, names)| names.iter().map(move |name| (told, name)));
    let mistakes: Vec<String> = limits().filter_map(|(told, name)| mistake(&constants, name, told)).collect();
    assert!(mistakes.is_empty(), "{mistakes:#?}");
    assert!(limits().count() > 150);
}

/// Limits that the page leaves out, and why.
const LEFT_OUT: [(&str, &[&str]); 6] = [
    (
        "a protocol, a file format or the system fixes it, and nobody can run into it",
        &[
            "bounce::TO_LIMIT_OCTETS",
            "original::LINE_LIMIT_OCTETS",
            "original::MESSAGE_ID_LIMIT_OCTETS",
            "quoted_printable::LINE_LIMIT_OCTETS",
            "report::WORD_LIMIT_CHARACTERS",
            "report::ADDRESS_LIMIT_OCTETS",
            "field::LINE_LIMIT_OCTETS",
            "holder::LINE_LIMIT",
            "message::LABELS_LIMIT",
            "extensions::LIMIT_DIGITS",
            "policy::MAX_AGE_LIMIT_DIGITS",
            "failures::DIGITS_LIMIT",
            "dkim::STRING_LIMIT_OCTETS",
            "place::LINKS_LIMIT",
            "socket_file::PATH_LIMIT_OCTETS",
        ],
    ),
    (
        "others on the page make it up",
        &[
            "refresh::REFRESH_LIMIT",
            "clients::CLIENTS_LIMIT",
            "message::MESSAGE_LIMIT_OCTETS",
            "credentials::FILE_LIMIT_OCTETS",
        ],
    ),
    (
        "it divides work into parts, all of which are done",
        &[
            "bounces::READ_LIMIT",
            "check::EACH_TIME_LIMIT",
            "recall::RECALL_LIMIT",
            "outbox_scan::SCAN_LIMIT_ROWS",
            "outbox_scan::READY_LIMIT",
            "rescan::SLICE_LIMIT_ROWS",
            "set_aside::RETRY_BACKLOG_LIMIT",
            "order::ORDER_PART_LIMIT",
            "ledger::PRUNE_LIMIT_ROWS",
            "pool::KEPT_LIMIT",
            "pruner::LIMIT_ROWS",
            "scan::SINGLE_LIMIT",
        ],
    ),
    (
        "it shortens what is shown",
        &[
            "inspect::SLOW_LIMIT",
            "inspect::TROUBLED_LIMIT",
            "wording::REPLY_LIMIT_CHARACTERS",
            "printer::ADDRESS_LIMIT_OCTETS",
            "observed::FAILURE_LIMIT_OCTETS",
            "survey::RESULT_SPAN",
            "shown::VALUE_LIMIT_CHARACTERS",
            "shown::PATH_LIMIT_CHARACTERS",
            "line::MARK_LIMIT_OCTETS",
            "tracer::LINE_LIMIT_OCTETS",
            "talk::LINE_LIMIT_OCTETS",
            "mask::ODD_PARTS_LIMIT",
            "writer::NAME_LIMIT_OCTETS",
            "suggestion::WORD_LIMIT_OCTETS",
        ],
    ),
    (
        "it bounds what the tool reads, once",
        &[
            "daemon::RECORD_LIMIT_OCTETS",
            "dns_texts::ANSWER_LIMIT_OCTETS",
            "dns_texts::SERVER_LIMIT",
            "socket::ANSWER_LIMIT_OCTETS",
        ],
    ),
    (
        "it is about the values of directives, which their table tells",
        &["values::RATE_LIMIT_MAX", "values::SPAN_UNITS"],
    ),
];

#[test]
fn every_limit_of_the_code_is_in_the_documentation_unless_there_is_a_reason() {
    let told: Vec<String> = rows().into_iter().flat_map(|(_, names)| names).collect();
    let left_out = || LEFT_OUT.iter().flat_map(|(_, names)| *names);
    let constants = constants();
    let is_either_way = |constant: &Constant| {
        let is_told = told.iter().any(|name| constant.is_called(name));
        is_told != left_out().any(|name| constant.is_called(name))
    };
    let wrong: Vec<String> = constants
        .iter()
        .filter(|constant| constant.is_limit() && !is_either_way(constant))
        .map(|Constant { module, name, .. }| format!("{module}::{name}"))
        .collect();
    assert!(wrong.is_empty(), "neither in docs/limits.md nor left out, or both: {wrong:?}");
    for name in left_out() {
        assert!(constants.iter().any(|constant| constant.is_called(name)), "there is no {name}");
    }
}
