use super::*;

#[test]
fn the_file_tells_the_id_and_goes_away() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("pid");
    let mut pid_file = PidFile::open(&path).unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), "");
    pid_file.write().unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), format!("{}\n", process::id()));
    drop(pid_file);
    assert!(!path.exists());
}

#[test]
fn the_file_of_another_daemon_is_not_touched() {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), "4194304\n").unwrap();
    drop(PidFile::open(file.path()).unwrap());
    assert_eq!(fs::read_to_string(file.path()).unwrap(), "4194304\n");
}

#[test]
fn a_stale_file_is_taken_over() {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), "the id of a process that was killed\n").unwrap();
    let mut pid_file = PidFile::open(file.path()).unwrap();
    pid_file.write().unwrap();
    assert_eq!(fs::read_to_string(file.path()).unwrap(), format!("{}\n", process::id()));
    drop(pid_file);
    assert!(!file.path().exists());
}

#[test]
fn a_start_that_fails_leaves_no_new_file() {
    let directory = tempfile::tempdir().unwrap();
    drop(PidFile::open(&directory.path().join("pid")).unwrap());
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
}

#[test]
fn a_file_that_took_its_place_stays() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("pid");
    let mut pid_file = PidFile::open(&path).unwrap();
    pid_file.write().unwrap();
    fs::remove_file(&path).unwrap();
    fs::write(&path, "1\n").unwrap();
    drop(pid_file);
    assert_eq!(fs::read_to_string(&path).unwrap(), "1\n");
}

#[test]
fn a_file_that_cannot_be_found_any_more_is_emptied() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("pid");
    let mut pid_file = PidFile::open(&path).unwrap();
    pid_file.write().unwrap();
    fs::rename(&path, directory.path().join("moved")).unwrap();
    drop(pid_file);
    assert_eq!(fs::read_to_string(directory.path().join("moved")).unwrap(), "");
}

#[test]
fn only_regular_files_will_do() {
    let directory = tempfile::tempdir().unwrap();
    assert!(matches!(PidFile::open(directory.path()), Err(PidFileError::Open { .. })));
    assert!(matches!(PidFile::open(Path::new("/dev/null")), Err(PidFileError::NotAFile { .. })));
    let link = directory.path().join("link");
    std::os::unix::fs::symlink(directory.path().join("elsewhere"), &link).unwrap();
    assert!(matches!(PidFile::open(&link), Err(PidFileError::NotAFile { .. })));
    assert!(!directory.path().join("elsewhere").exists());
    fs::write(directory.path().join("other"), "").unwrap();
    fs::hard_link(directory.path().join("other"), directory.path().join("pid")).unwrap();
    let second_name = PidFile::open(&directory.path().join("pid"));
    assert!(matches!(second_name, Err(PidFileError::NotAFile { .. })));
    for name in ["link", "pid"] {
        let checked = PidFile::check(&directory.path().join(name));
        assert!(matches!(checked, Err(PidFileError::NotAFile { .. })), "{name}");
    }
}

#[test]
fn a_check_finds_what_a_start_would_find_and_creates_nothing() {
    let directory = tempfile::tempdir().unwrap();
    PidFile::check(&directory.path().join("pid")).unwrap();
    assert_eq!(fs::read_dir(&directory).unwrap().count(), 0);
    let missing = PidFile::check(&directory.path().join("missing/pid"));
    assert!(matches!(missing, Err(PidFileError::Open { .. })));
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), "7\n").unwrap();
    PidFile::check(file.path()).unwrap();
    assert_eq!(fs::read_to_string(file.path()).unwrap(), "7\n");
}
