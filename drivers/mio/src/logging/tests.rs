use super::*;
use log::Log as _;
use std::fs;

fn say(logger: &Logger, target: &str, level: Level, text: &str) {
    logger.log(&Record::builder().target(target).level(level).args(format_args!("{text}")).build());
}

fn texts(path: &Path) -> Vec<String> {
    let text = fs::read_to_string(path).unwrap();
    text.lines().map(|line| line.split_once(' ').unwrap().1.to_owned()).collect()
}

#[test]
fn verbosity_decides_what_is_logged() {
    let directory = tempfile::tempdir().unwrap();
    for (verbosity, expected) in
        [(0, "EW"), (1, "EWI"), (2, "EWI"), (3, "EWID"), (4, "EWIDT"), (200, "EWIDT")]
    {
        let path = directory.path().join(verbosity.to_string());
        let logger = Log::open(Some(&path), None).unwrap().builder(verbosity).build();
        for level in Level::iter() {
            say(&logger, "cmail_delivery::session", level, &level.as_str()[..1]);
            say(&logger, "rustls::client", Level::Trace, "foreign");
        }
        let logged: String =
            fs::read_to_string(&path).unwrap().lines().filter_map(|line| line.chars().last()).collect();
        assert_eq!(logged, expected);
    }
}

#[test]
fn only_the_highest_verbosity_shows_lines_of_any_length() {
    let directory = tempfile::tempdir().unwrap();
    let long = "x".repeat(2 * line::LINE_LIMIT_OCTETS);
    for (verbosity, is_whole) in [(3, false), (4, true)] {
        let path = directory.path().join(verbosity.to_string());
        let logger = Log::open(Some(&path), None).unwrap().builder(verbosity).build();
        say(&logger, "cmail_dispatchd", Level::Warn, &long);
        assert_eq!(fs::read_to_string(&path).unwrap().contains(&long), is_whole, "{verbosity}");
    }
}

#[test]
fn a_log_file_that_was_moved_away_is_opened_anew_behind_what_was_logged_before() {
    for has_thread in [false, true] {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let log = Log::open(Some(&path), None).unwrap();
        let logger = log.builder(0).build();
        say(&logger, "cmail_dispatchd", Level::Warn, "at once");
        fs::rename(&path, directory.path().join("log.1")).unwrap();
        if has_thread {
            log.start_thread().unwrap();
        }
        say(&logger, "cmail_dispatchd", Level::Warn, "first");
        log.reopen();
        say(&logger, "cmail_dispatchd", Level::Warn, "second");
        assert!(log.shared.queue.drain(Duration::from_secs(60)));
        assert_eq!(texts(&directory.path().join("log.1")), ["WARN  at once", "WARN  first"]);
        assert_eq!(texts(&path), ["WARN  second"]);
    }
}

#[test]
fn a_log_file_that_cannot_be_reopened_goes_on_and_says_so() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("sub/log");
    fs::create_dir(directory.path().join("sub")).unwrap();
    let log = Log::open(Some(&path), None).unwrap();
    fs::rename(directory.path().join("sub"), directory.path().join("moved")).unwrap();
    log.reopen();
    say(&log.builder(0).build(), "cmail_dispatchd", Level::Warn, "still here");
    let lines = texts(&directory.path().join("moved/log"));
    let warning = format!("WARN  the log file {} cannot be opened: ", path.display());
    assert!(
        lines[0].starts_with(&warning) && lines[0].ends_with("; the log goes on in the old file"),
        "{lines:?}"
    );
    assert_eq!(lines[1], "WARN  still here");
}

/// Panics with a hook that must not disturb other tests: [`a_panic_is_one_line_on_standard_error_and_in_the_log`] runs it
/// in a separate process.
#[test]
#[ignore = "it panics, as its parent wants"]
fn panics_for_its_parent() {
    let Some(path) = std::env::var_os(LOG_OF_CHILD) else { return };
    let log = Log::open(Some(path.as_ref()), None).unwrap();
    log.start_thread().unwrap();
    log.report_panics();
    // As if it happened in the middle of logging.
    let _held = (lock(&log.shared.sink), io::stderr().lock());
    panic!("out of\norder");
}

const LOG_OF_CHILD: &str = "CMAIL_TEST_LOG_OF_CHILD";

#[test]
fn a_panic_is_one_line_on_standard_error_and_in_the_log() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let mut child = std::process::Command::new(std::env::current_exe().unwrap());
    child.args(["--exact", "logging::tests::panics_for_its_parent", "--ignored", "--nocapture"]);
    let output = child.env(LOG_OF_CHILD, file.path()).output().unwrap();
    let expected =
        "the thread logging::tests::panics_for_its_parent panicked at drivers/mio/src/logging/tests.rs:";
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.starts_with(&format!("cmail-dispatchd: {expected}")), "{stderr}");
    assert!(stderr.contains(": out of / order\n"), "{stderr}");
    let logged = texts(file.path());
    assert!(logged[0].starts_with(&format!("ERROR {expected}")), "{logged:?}");
    assert!(logged[0].ends_with(": out of / order") && logged.len() == 1, "{logged:?}");
}
