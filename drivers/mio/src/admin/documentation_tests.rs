//! What the documentation tells to type is understood: command lines, configurations, names of limits, texts of failures.

mod limits;

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use clap::Parser as _;
use cmail_delivery::flight::FoundFlight;
use cmail_delivery::ids::MailId;

use super::words::Words;
use crate::args;
use crate::config::Directives;

/// A text of the documentation, and the page where it stands.
struct Told {
    page: String,
    text: String,
}

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Returns the pages for users, by name, with their texts.
fn pages() -> Vec<(String, String)> {
    let in_docs = fs::read_dir(workspace().join("docs")).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<PathBuf> =
        in_docs.filter(|path| path.extension().is_some_and(|extension| extension == "md")).collect();
    files.extend(["README.md", "CONTRIBUTING.md", "SECURITY.md"].map(|name| workspace().join(name)));
    files.sort_unstable();
    let name = |path: &Path| path.file_name().unwrap().to_str().unwrap().to_owned();
    files.iter().map(|path| (name(path), fs::read_to_string(path).unwrap())).collect()
}

/// Returns the blocks of code in a language.
fn blocks(language: &str) -> Vec<Told> {
    let begin = format!("{language}\n");
    let of_page = |(page, text): &(String, String)| -> Vec<Told> {
        let fenced = text.split("```").skip(1).step_by(2);
        let blocks = fenced.filter_map(|block| block.strip_prefix(&begin));
        blocks.map(|text| Told { page: page.clone(), text: text.to_owned() }).collect()
    };
    pages().iter().flat_map(of_page).collect()
}

/// Returns what stands between backquotes, outside of blocks.
fn quotations() -> Vec<Told> {
    let of_page = |(page, text): &(String, String)| -> Vec<Told> {
        let prose: String = text.split("```").step_by(2).collect();
        let quoted = prose.split('`').skip(1).step_by(2).map(str::to_owned);
        quoted.map(|text| Told { page: page.clone(), text }).collect()
    };
    pages().iter().flat_map(of_page).collect()
}

/// Returns the words of a command line as a shell divides them, up to a comment, or `None` if this is none of the program.
fn words_of(line: &str, program: &str) -> Option<Vec<String>> {
    let begin = line.match_indices(program).map(|(at, _)| at).find(|at| {
        let before = &line[..*at];
        before.is_empty() || before.ends_with("./") || before.ends_with("| ")
    })?;
    let mut words = Vec::new();
    let mut word = String::new();
    let mut quote = None;
    for c in line[begin..].chars() {
        match (quote, c) {
            (None, '#') if word.is_empty() => break,
            (None, ' ') => words.extend((!word.is_empty()).then(|| std::mem::take(&mut word))),
            (None, '\'' | '"') => quote = Some(c),
            (Some(open), _) if open == c => quote = None,
            (None | Some(_), _) => word.push(c),
        }
    }
    words.extend((!word.is_empty()).then_some(word));
    (words.first()? == program).then_some(words)
}

/// Puts something in the place of each word that stands for something.
fn filled_in(word: &str) -> String {
    let filled = match word {
        "ID" => "41",
        "DOMAIN" => "example.org",
        "ADDRESS" => "bob@example.org",
        "RELAY" => "relay.example.net:587/starttls",
        _ => word,
    };
    filled.to_owned()
}

/// Returns the reason if the program does not understand a command line.
fn misunderstood(words: &[String]) -> Option<String> {
    let words: Vec<OsString> = words.iter().map(|word| filled_in(word).into()).collect();
    if words[0] == "cmail-dispatchd" {
        args::parse(words.into_iter().skip(1)).err().map(|error| error.to_string())
    } else {
        let error = Words::try_parse_from(words).err()?;
        error.use_stderr().then(|| error.to_string())
    }
}

const PROGRAMS: [&str; 2] = ["cmail-dispatchd", "cmail-admin-queue"];

#[test]
fn every_command_line_of_the_documentation_is_understood() {
    let mut understood = 0;
    for Told { page, text } in blocks("sh") {
        for words in text.lines().flat_map(|line| PROGRAMS.map(|program| words_of(line, program))).flatten() {
            assert_eq!(misunderstood(&words), None, "{page}: {words:?}");
            understood += 1;
        }
    }
    // A quotation may name a verb only, without what else belongs to it.
    for Told { page, text } in quotations() {
        for words in PROGRAMS.iter().filter_map(|program| words_of(&text, program)) {
            if words.len() > 2 {
                assert_eq!(misunderstood(&words), None, "{page}: {words:?}");
                understood += 1;
            }
        }
    }
    assert!(understood > 50, "{understood}");
}

#[test]
fn every_configuration_of_the_documentation_is_right() {
    let samples = blocks("conf");
    assert!(samples.len() > 5);
    for Told { page, text } in samples {
        let whole = format!("database /var/lib/cmail/master.db\n{text}");
        let (_, errors) = Directives::parse(Path::new("sample.conf"), whole.as_bytes());
        assert!(errors.is_empty(), "{page}: {errors:?}");
    }
}

/// Returns the files of core and driver with their texts.
fn sources() -> Vec<(PathBuf, String)> {
    fn add(directory: &Path, files: &mut Vec<(PathBuf, String)>) {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            // What a test asks for is not what the program says.
            if path.file_stem().is_some_and(|stem| stem == "documentation_tests") {
                continue;
            }
            if path.is_dir() {
                add(&path, files);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                files.push((path, text));
            }
        }
    }
    let mut files = Vec::new();
    add(&workspace().join("core/src"), &mut files);
    add(&workspace().join("drivers/mio/src"), &mut files);
    files
}

/// Returns the code of core and driver, each text of several lines as one.
fn code() -> String {
    let code: String = sources().into_iter().map(|(_, text)| text).collect();
    let mut pieces = code.split("\\\n");
    let first = pieces.next().unwrap().to_owned();
    pieces.fold(first, |joined, piece| joined + piece.trim_start())
}

/// Returns whether a text holds another one that is not part of a longer number or word.
fn holds(text: &str, part: &str) -> bool {
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    text.match_indices(part).any(|(at, _)| {
        let (before, after) = (&text[..at], &text[at + part.len()..]);
        !before.ends_with(is_part) && !before.ends_with('.') && !after.starts_with(is_part)
    })
}

#[test]
fn the_page_about_upgrades_names_each_table_that_the_program_adds() {
    let code = code();
    let added = code.split("CREATE TABLE IF NOT EXISTS ").skip(1);
    let mut added: Vec<&str> = added.filter_map(|rest| rest.split([' ', '(']).next()).collect();
    added.sort_unstable();
    added.dedup();
    let (_, page) = pages().into_iter().find(|(name, _)| name == "upgrade.md").unwrap();
    let rows = page.lines().filter(|line| line.starts_with("| `dispatch_"));
    let columns = rows.map(|row| row.split(" | ").next().unwrap());
    let mut told: Vec<&str> = columns.flat_map(|column| column.split('`').skip(1).step_by(2)).collect();
    told.sort_unstable();
    assert_eq!(told, added);
}

/// Pages whose tables are about words of the program: directives, keys, columns, metrics.
const PAGES_OF_WORDS: [&str; 5] =
    ["configuration.md", "monitoring.md", "queue.md", "submission.md", "tls-and-dkim.md"];

#[test]
fn every_word_in_the_tables_of_the_documentation_is_one_of_the_program() {
    let code = code();
    let mut words = 0;
    for (page, text) in pages() {
        let text = match &*page {
            "operation.md" => text.split("\n## ").find(|section| section.starts_with("The log\n")).unwrap(),
            _ if PAGES_OF_WORDS.contains(&&*page) => &text,
            _ => continue,
        };
        for row in text.lines().filter(|line| line.starts_with("| `")) {
            let column = row.split(" | ").next().unwrap();
            for quoted in column.split('`').skip(1).step_by(2) {
                let word = quoted.split([' ', '{']).next().unwrap();
                // The library for metrics adds this to the names of counters.
                let name = word.strip_suffix("_total").unwrap_or(word);
                assert!(holds(&code, name), "{page}: the program does not know {word}");
                words += 1;
            }
        }
    }
    assert!(words > 150, "{words}");
}

/// The shortest piece of a text that is looked for.
const PIECE: usize = 12;

#[test]
fn every_text_of_the_troubleshooting_page_is_one_of_the_program() {
    let code = code();
    let (_, page) = pages().into_iter().find(|(name, _)| name == "troubleshooting.md").unwrap();
    let mut found = 0;
    for row in page.lines().filter(|line| line.starts_with("| `")) {
        let column = row.split(" | ").next().unwrap();
        for text in column.split('`').skip(1).step_by(2) {
            // What the program fills in.
            let text =
                ["tls_policy", "AUTH"].iter().fold(text.to_owned(), |text, word| text.replace(word, "…"));
            let is_filled_in = |c: char| c.is_ascii_digit() || ['…', ':', ',', '(', ')'].contains(&c);
            for piece in text.split(is_filled_in).map(|piece| piece.trim_matches([' ', ';'])) {
                if piece.len() >= PIECE {
                    assert!(code.contains(&piece.replace('"', "\\\"")), "the program does not say: {piece}");
                    found += 1;
                }
            }
        }
    }
    assert!(found > 30, "{found}");
}

#[test]
fn the_sample_of_a_start_after_a_kill_is_what_the_log_says() {
    let flight = FoundFlight {
        number: 1,
        next_hop: "example.org".into(),
        remote: Some("192.0.2.1:25".parse().unwrap()),
        mails: [3, 7].map(MailId).into(),
        is_held: false,
    };
    let line = format!(" WARN  {flight}\n");
    let samples = blocks("text");
    assert!(samples.iter().any(|Told { page, text }| page == "queue.md" && text.ends_with(&line)), "{line}");
}
