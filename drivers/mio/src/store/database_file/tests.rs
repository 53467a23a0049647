use super::super::fixture::Fixture;
use super::*;

#[test]
fn the_file_knows_whether_its_name_leads_to_it() {
    let fixture = Fixture::new();
    let file = DatabaseFile::open(&fixture.path).unwrap();
    assert!(file.is_in_place());
    let moved = fixture.directory.path().join("moved");
    fs::rename(&fixture.path, &moved).unwrap();
    assert!(!file.is_in_place());
    fs::copy(&moved, &fixture.path).unwrap();
    assert!(!file.is_in_place());
    fs::rename(&moved, &fixture.path).unwrap();
    assert!(file.is_in_place());
}

#[test]
fn the_lock_of_a_file_ends_with_it() {
    let fixture = Fixture::new();
    let (first, second) =
        (DatabaseFile::open(&fixture.path).unwrap(), DatabaseFile::open(&fixture.path).unwrap());
    first.lock().unwrap();
    first.lock().unwrap();
    assert!(matches!(second.lock(), Err(LockError::Held { .. })));
    drop(first);
    second.lock().unwrap();
}

#[test]
fn a_file_of_a_local_filesystem_has_a_flock_of_its_own() {
    let fixture = Fixture::new();
    assert!(DatabaseFile::open(&fixture.path).unwrap().has_flock());
}
