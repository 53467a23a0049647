use super::*;
use std::fs;

/// The owner of a directory that is not root's, if the test can make one.
fn other() -> Option<Owner> {
    let owner = Owner { uid: Uid::from_raw(65_534), gid: Gid::from_raw(65_534) };
    Uid::effective().is_root().then_some(owner)
}

#[test]
fn a_log_that_root_creates_or_has_left_is_the_users() {
    let Some(owner) = other() else { return };
    let uid_of = |path: &Path| fs::metadata(path).unwrap().uid();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log");
    LogFile::new(&path, Some(owner)).open().unwrap();
    assert_eq!(uid_of(&path), owner.uid.as_raw(), "a new one, in a directory of root");
    let left = directory.path().join("left");
    fs::write(&left, "").unwrap();
    LogFile::new(&left, Some(owner)).open().unwrap();
    assert_eq!(uid_of(&left), 0, "an old one, in a directory of root");
    std::os::unix::fs::chown(directory.path(), Some(owner.uid.as_raw()), None).unwrap();
    LogFile::new(&left, Some(owner)).open().unwrap();
    assert_eq!(uid_of(&left), owner.uid.as_raw(), "an old one, in a directory of the user");
    let kept = directory.path().join("kept");
    LogFile::new(&kept, None).open().unwrap();
    assert_eq!(uid_of(&kept), 0, "root goes on as root");
}

#[test]
fn a_named_pipe_without_a_reader_does_not_hold_up_the_start() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log");
    unistd::mkfifo(&path, Mode::S_IRWXU).unwrap();
    assert!(LogFile::new(&path, None).open().is_err());
}

#[test]
fn it_is_seen_whether_a_file_ends_in_the_middle_of_a_line() {
    let file = tempfile::NamedTempFile::new().unwrap();
    for (text, expected) in [("", false), ("a\n", false), ("a\nb", true)] {
        fs::write(file.path(), text).unwrap();
        assert_eq!(is_torn(&LogFile::new(file.path(), None).open().unwrap()), expected, "{text:?}");
    }
}

#[test]
fn a_check_finds_what_a_start_would_find_and_creates_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| LogFile::new(&directory.path().join(name), None);
    at("log").check().unwrap();
    assert_eq!(fs::read_dir(&directory).unwrap().count(), 0);
    for name in ["missing/log", ""] {
        assert!(at(name).check().is_err() && at(name).open().is_err(), "{name:?}");
    }
    fs::write(directory.path().join("log"), "").unwrap();
    at("log").check().unwrap();
}
