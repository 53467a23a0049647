use std::os::unix::fs::symlink;
use std::process::{Command, Stdio};

use super::super::fixture::Fixture;
use super::*;

fn lock_file(fixture: &Fixture) -> PathBuf {
    with_suffix(&fixture.path, ".dispatch-lock")
}

#[test]
fn a_second_holder_is_told_who_the_first_is() {
    let fixture = Fixture::new();
    let lock = DatabaseLock::acquire(&fixture.path).unwrap();
    let text = DatabaseLock::acquire(&fixture.path).unwrap_err().to_string();
    assert!(text.contains(&format!("process {} works on", std::process::id())), "{text}");
    assert!(text.contains("master.db3"), "{text}");
    drop(lock);
    DatabaseLock::acquire(&fixture.path).unwrap();
}

#[test]
fn two_names_of_a_database_share_its_lock() {
    let fixture = Fixture::new();
    let elsewhere = tempfile::tempdir().unwrap();
    let alias = elsewhere.path().join("alias.db3");
    symlink(&fixture.path, &alias).unwrap();
    let _lock = DatabaseLock::acquire(&alias).unwrap();
    assert!(matches!(DatabaseLock::acquire(&fixture.path), Err(LockError::Held { .. })));
    assert_eq!(std::fs::read_dir(elsewhere.path()).unwrap().count(), 1);
}

#[test]
fn a_second_holder_leaves_the_lock_file_as_it_is() {
    let fixture = Fixture::new();
    let _lock = DatabaseLock::acquire(&fixture.path).unwrap();
    let before = std::fs::read(lock_file(&fixture)).unwrap();
    assert_eq!(before, format!("{}\n", std::process::id()).as_bytes());
    assert!(DatabaseLock::acquire(&fixture.path).is_err());
    assert_eq!(std::fs::read(lock_file(&fixture)).unwrap(), before);
}

#[test]
fn a_holder_that_was_killed_does_not_block() {
    let fixture = Fixture::new();
    // A child that inherits the lock, as a daemon does, holds it after its parent has let go.
    let lock = DatabaseLock::acquire(&fixture.path).unwrap();
    let mut child = Command::new("cat")
        .stdin(Stdio::piped())
        .stdout(Stdio::from(lock.file.try_clone().unwrap()))
        .spawn()
        .unwrap();
    drop(lock);
    assert!(matches!(DatabaseLock::acquire(&fixture.path), Err(LockError::Held { .. })));
    child.kill().unwrap();
    child.wait().unwrap();
    DatabaseLock::acquire(&fixture.path).unwrap();
}

#[test]
fn a_holder_without_a_name_is_still_a_holder() {
    let fixture = Fixture::new();
    let lock = DatabaseLock::acquire(&fixture.path).unwrap();
    lock.file.set_len(0).unwrap();
    assert!(matches!(DatabaseLock::acquire(&fixture.path), Err(LockError::HeldByUnknown { .. })));
}

#[test]
fn a_stale_process_id_is_replaced_whatever_its_length() {
    let fixture = Fixture::new();
    std::fs::write(lock_file(&fixture), "2147483647\nand more").unwrap();
    let _lock = DatabaseLock::acquire(&fixture.path).unwrap();
    assert_eq!(std::fs::read_to_string(lock_file(&fixture)).unwrap(), format!("{}\n", std::process::id()));
}

#[test]
fn the_lock_file_has_the_rights_of_the_database() {
    for mode in [0o600, 0o660] {
        let fixture = Fixture::new();
        std::fs::set_permissions(&fixture.path, Permissions::from_mode(mode)).unwrap();
        let _lock = DatabaseLock::acquire(&fixture.path).unwrap();
        assert_eq!(std::fs::metadata(lock_file(&fixture)).unwrap().mode() & 0o777, mode);
    }
}

#[test]
fn the_lock_file_can_be_written_even_if_the_database_cannot() {
    let fixture = Fixture::new();
    std::fs::set_permissions(&fixture.path, Permissions::from_mode(0o440)).unwrap();
    drop(DatabaseLock::acquire(&fixture.path).unwrap());
    assert_eq!(std::fs::metadata(lock_file(&fixture)).unwrap().mode() & 0o777, 0o640);
}

#[test]
fn a_lock_file_that_leads_elsewhere_is_not_written_to() {
    let fixture = Fixture::new();
    let target = fixture.directory.path().join("precious");
    std::fs::write(&target, "precious").unwrap();
    symlink(&target, lock_file(&fixture)).unwrap();
    assert!(matches!(DatabaseLock::acquire(&fixture.path), Err(LockError::Io { .. })));
    std::fs::remove_file(lock_file(&fixture)).unwrap();
    std::fs::hard_link(&target, lock_file(&fixture)).unwrap();
    assert!(matches!(DatabaseLock::acquire(&fixture.path), Err(LockError::NotALockFile(_))));
    assert_eq!(std::fs::read_to_string(&target).unwrap(), "precious");
}

#[test]
fn what_does_not_exist_is_not_locked() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("none.db3");
    let text = DatabaseLock::acquire(&path).unwrap_err().to_string();
    assert!(text.contains("none.db3") && text.contains("initdb"), "{text}");
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
}
