use super::*;

#[test]
fn a_file_is_never_overwritten_and_nobody_elses_to_read() {
    use std::os::unix::fs::PermissionsExt as _;
    let directory = tempfile::TempDir::new().unwrap();
    let begun = UnixTime(1_795_342_500);
    for _ in 0..2 {
        let mut records = RecordDirectory::open(directory.path()).unwrap();
        records.write(begun, "relay [2001:db8::1]:25", |_| "text".to_owned());
    }
    let mut names: Vec<_> =
        fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
    names.sort();
    let ends = ["-0001-2001_db8__1__25.smtp", "-0002-2001_db8__1__25.smtp"];
    for (path, end) in names.iter().zip(ends) {
        assert!(path.to_str().unwrap().ends_with(&format!("20261122T101500Z{end}")), "{path:?}");
        assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o777, FILE_MODE);
    }
    assert_eq!(names.len(), 2);
}

#[test]
fn what_is_no_directory_cannot_be_used() {
    let file = tempfile::NamedTempFile::new().unwrap();
    for path in [file.path(), Path::new("/nonexistent/records")] {
        let text = RecordDirectory::open(path).unwrap_err().to_string();
        assert!(text.contains("directive record") && text.contains(path.to_str().unwrap()), "{text}");
    }
}

#[test]
fn a_directory_that_vanishes_stops_nothing() {
    let directory = tempfile::TempDir::new().unwrap();
    let mut records = RecordDirectory::open(directory.path()).unwrap();
    fs::remove_dir(directory.path()).unwrap();
    records.write(UnixTime(0), "example.org", |_| "text".to_owned());
    assert!(records.is_failing);
    fs::create_dir(directory.path()).unwrap();
    records.write(UnixTime(0), "example.org", |_| "text".to_owned());
    assert!(!records.is_failing);
}
