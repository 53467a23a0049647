use std::os::unix::fs::symlink;
use std::process::{Command, Stdio};

use super::super::error::OpenError;
use super::super::fixture::Fixture;
use super::*;

fn lock_file(fixture: &Fixture) -> PathBuf {
    lock_file_of(&fixture.path)
}

fn acquire(path: &Path) -> Result<(DatabaseLock, DatabaseFile), OpenError> {
    let file = DatabaseFile::open(path)?;
    Ok((DatabaseLock::acquire(&file)?, file))
}

fn is_held(result: Result<(DatabaseLock, DatabaseFile), OpenError>) -> bool {
    matches!(result, Err(OpenError::Lock(LockError::Held { .. })))
}

#[test]
fn a_second_holder_is_told_who_the_first_is() {
    let fixture = Fixture::new();
    let lock = acquire(&fixture.path).unwrap();
    let text = acquire(&fixture.path).unwrap_err().to_string();
    assert!(text.contains(&format!("process {} works on", std::process::id())), "{text}");
    assert!(text.contains("master.db3"), "{text}");
    drop(lock);
    acquire(&fixture.path).unwrap();
}

#[test]
fn two_names_of_a_database_share_its_lock() {
    let fixture = Fixture::new();
    let elsewhere = tempfile::tempdir().unwrap();
    let alias = elsewhere.path().join("alias.db3");
    symlink(&fixture.path, &alias).unwrap();
    let _lock = acquire(&alias).unwrap();
    assert!(is_held(acquire(&fixture.path)));
    assert_eq!(std::fs::read_dir(elsewhere.path()).unwrap().count(), 1);
}

#[test]
fn a_second_holder_leaves_the_lock_file_as_it_is() {
    let fixture = Fixture::new();
    let _lock = acquire(&fixture.path).unwrap();
    let before = std::fs::read(lock_file(&fixture)).unwrap();
    assert_eq!(before, format!("{}\n", std::process::id()).as_bytes());
    assert!(acquire(&fixture.path).is_err());
    assert_eq!(std::fs::read(lock_file(&fixture)).unwrap(), before);
}

#[test]
fn a_holder_that_was_killed_does_not_block() {
    let fixture = Fixture::new();
    // A child that inherits the lock, as a daemon does, holds it after its parent has let go.
    let lock = acquire(&fixture.path).unwrap();
    let mut child = Command::new("cat")
        .stdin(Stdio::piped())
        .stdout(Stdio::from(lock.0.file.try_clone().unwrap()))
        .spawn()
        .unwrap();
    drop(lock);
    assert!(is_held(acquire(&fixture.path)));
    child.kill().unwrap();
    child.wait().unwrap();
    acquire(&fixture.path).unwrap();
}

#[test]
fn a_holder_that_has_not_written_its_name_is_named_too() {
    let fixture = Fixture::new();
    let lock = acquire(&fixture.path).unwrap();
    lock.0.file.set_len(0).unwrap();
    // The system knows it.
    let text = acquire(&fixture.path).unwrap_err().to_string();
    assert!(text.contains(&format!("process {} works on", std::process::id())), "{text}");
}

#[test]
fn a_stale_process_id_is_replaced_whatever_its_length() {
    let fixture = Fixture::new();
    std::fs::write(lock_file(&fixture), "2147483647\nand more").unwrap();
    let _lock = acquire(&fixture.path).unwrap();
    assert_eq!(std::fs::read_to_string(lock_file(&fixture)).unwrap(), format!("{}\n", std::process::id()));
}

#[test]
fn the_lock_file_has_the_rights_of_the_database() {
    for mode in [0o600, 0o660] {
        let fixture = Fixture::new();
        std::fs::set_permissions(&fixture.path, Permissions::from_mode(mode)).unwrap();
        let _lock = acquire(&fixture.path).unwrap();
        assert_eq!(std::fs::metadata(lock_file(&fixture)).unwrap().mode() & 0o777, mode);
    }
}

#[test]
fn the_lock_file_can_be_written_even_if_the_database_cannot() {
    let fixture = Fixture::new();
    std::fs::set_permissions(&fixture.path, Permissions::from_mode(0o440)).unwrap();
    drop(acquire(&fixture.path).unwrap());
    assert_eq!(std::fs::metadata(lock_file(&fixture)).unwrap().mode() & 0o777, 0o640);
}

#[test]
fn a_lock_file_that_leads_elsewhere_is_not_written_to() {
    let fixture = Fixture::new();
    let target = fixture.directory.path().join("precious");
    std::fs::write(&target, "precious").unwrap();
    symlink(&target, lock_file(&fixture)).unwrap();
    assert!(matches!(acquire(&fixture.path), Err(OpenError::Lock(LockError::Io { .. }))));
    std::fs::remove_file(lock_file(&fixture)).unwrap();
    std::fs::hard_link(&target, lock_file(&fixture)).unwrap();
    assert!(matches!(acquire(&fixture.path), Err(OpenError::Lock(LockError::NotALockFile(_)))));
    assert_eq!(std::fs::read_to_string(&target).unwrap(), "precious");
}

#[test]
fn what_does_not_exist_is_not_locked() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("none.db3");
    let text = acquire(&path).unwrap_err().to_string();
    assert!(text.contains("none.db3") && text.contains("initdb"), "{text}");
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
}

#[test]
fn another_name_of_the_file_is_not_locked_twice() {
    let fixture = Fixture::new();
    let elsewhere = tempfile::tempdir_in(fixture.directory.path()).unwrap();
    let link = elsewhere.path().join("link.db3");
    std::fs::hard_link(&fixture.path, &link).unwrap();
    let lock = acquire(&fixture.path).unwrap();
    let text = acquire(&link).unwrap_err().to_string();
    assert!(text.contains(&format!("process {} works on", std::process::id())), "{text}");
    drop(lock);
    acquire(&link).unwrap();
}

#[test]
fn what_can_be_locked_passes_the_check_and_nothing_is_created() {
    let fixture = Fixture::new();
    DatabaseLock::check(&fixture.path).unwrap();
    assert!(!lock_file(&fixture).exists());
    let _lock = acquire(&fixture.path).unwrap();
    // That it is held is another matter.
    DatabaseLock::check(&fixture.path).unwrap();
    let link = fixture.directory.path().join("link");
    std::fs::hard_link(lock_file(&fixture), link).unwrap();
    assert!(matches!(DatabaseLock::check(&fixture.path), Err(LockError::NotALockFile(_))));
}
