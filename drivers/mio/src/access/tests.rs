use super::*;

#[test]
fn a_file_that_is_missing_could_be_written_where_its_directory_is() {
    let directory = tempfile::tempdir().unwrap();
    could_write(&directory.path().join("new")).unwrap();
    assert!(could_write(directory.path()).is_err(), "a directory is no file");
    assert!(could_write(&directory.path().join("missing/new")).is_err());
    assert_eq!(fs::read_dir(&directory).unwrap().count(), 0);
}
