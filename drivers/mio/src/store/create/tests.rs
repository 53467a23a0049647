use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use super::super::database::check;
use super::super::fixture::without_privileges;
use super::*;

#[test]
fn nothing_but_the_database_is_left_and_it_is_its_owners_alone() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("master.db3");
    let created = initdb(&path, None).unwrap().to_string();
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    let metadata = fs::metadata(&path).unwrap();
    assert_eq!((metadata.mode() & 0o777, metadata.nlink()), (0o600, 1));
    assert!(created.contains("master.db3: schema version 9, rollback journal, owner "), "{created}");
    assert!(created.ends_with(", mode 0600"), "{created}");
}

#[test]
fn a_database_of_a_group_is_the_groups_to_write_and_so_is_its_journal() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("master.db3");
    // Only root may give a file to any group; others still may give it to their own.
    let group = if Uid::effective().is_root() { Gid::from_raw(65_533) } else { Gid::effective() };
    let created = initdb(&path, Some(group)).unwrap().to_string();
    assert!(created.ends_with(", mode 0660"), "{created}");
    let connection = Connection::open(&path).unwrap();
    connection.execute_batch("BEGIN IMMEDIATE; INSERT INTO outbox (mail_envelopeto) VALUES ('r')").unwrap();
    for name in [path.clone(), with_suffix(&path, "-journal")] {
        let metadata = fs::metadata(name).unwrap();
        assert_eq!((metadata.gid(), metadata.mode() & 0o777), (group.as_raw(), 0o660));
    }
}

#[test]
fn a_group_that_the_file_cannot_be_given_to_opens_it_to_nobody() {
    let directory = tempfile::tempdir().unwrap();
    fs::set_permissions(directory.path(), Permissions::from_mode(0o777)).unwrap();
    let path = directory.path().join("master.db3");
    without_privileges(|| {
        assert!(initdb(&path, Some(Gid::from_raw(65_532))).unwrap().to_string().ends_with(", mode 0600"));
    });
}

#[test]
fn a_directory_that_may_not_be_written_is_an_error_that_says_what_to_do() {
    let directory = tempfile::tempdir().unwrap();
    fs::set_permissions(directory.path(), Permissions::from_mode(0o555)).unwrap();
    without_privileges(|| {
        let text = initdb(&directory.path().join("master.db3"), None).unwrap_err().to_string();
        assert!(
            text.contains("may not write its directory") && text.contains("give the directory"),
            "{text}"
        );
    });
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
}

#[test]
fn what_exists_is_left_as_it_is() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("master.db3");
    for content in ["", "something"] {
        fs::write(&path, content).unwrap();
        let text = initdb(&path, None).unwrap_err().to_string();
        assert!(text.contains("master.db3 already exists"), "{text}");
        assert_eq!(fs::read_to_string(&path).unwrap(), content);
    }
    fs::remove_file(&path).unwrap();
    std::os::unix::fs::symlink("nowhere", &path).unwrap();
    assert!(matches!(initdb(&path, None), Err(InitError::Exists(_))));
    assert!(!directory.path().join("nowhere").exists());
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
}

#[test]
fn the_journal_of_an_earlier_database_is_not_played_into_the_new_one() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("master.db3");
    for suffix in ["-wal", "-journal", "-shm"] {
        let leftover = with_suffix(&path, suffix);
        fs::write(&leftover, "x").unwrap();
        assert!(matches!(initdb(&path, None), Err(InitError::Leftover(found)) if found == leftover));
        fs::remove_file(&leftover).unwrap();
    }
    assert!(!path.exists());
}

#[test]
fn a_directory_that_does_not_exist_is_an_error_that_says_so() {
    let directory = tempfile::tempdir().unwrap();
    let text = initdb(&directory.path().join("none").join("master.db3"), None).unwrap_err().to_string();
    assert!(text.contains("master.db3 cannot be created") && text.contains("No such file"), "{text}");
}

#[test]
fn what_a_killed_run_has_left_is_not_in_the_way() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("master.db3");
    let left = with_suffix(&path, &format!(".initdb-{}-0", std::process::id()));
    fs::write(left, "half").unwrap();
    initdb(&path, None).unwrap();
    check(&path).unwrap();
}

#[test]
fn of_several_at_once_one_creates_the_database() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("master.db3");
    let barrier = Barrier::new(4);
    let created = thread::scope(|scope| {
        let runs: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    barrier.wait();
                    initdb(&path, None)
                })
            })
            .collect();
        runs.into_iter().map(|run| run.join().unwrap()).filter(Result::is_ok).count()
    });
    assert_eq!(created, 1);
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    check(&path).unwrap();
}

/// Whenever it is looked at, a run has made nothing yet or everything: a kill is such a moment.
#[test]
fn the_name_never_belongs_to_half_a_database() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("master.db3");
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let observer = scope.spawn(|| {
            while !is_over.load(Ordering::Acquire) {
                if let Ok(octets) = fs::read(&path) {
                    let elsewhere = tempfile::tempdir().unwrap();
                    let copy = elsewhere.path().join("copy.db3");
                    fs::write(&copy, octets).unwrap();
                    check(&copy).unwrap();
                    return;
                }
            }
            panic!("it never appeared");
        });
        initdb(&path, None).unwrap();
        while !observer.is_finished() && path.exists() {
            thread::yield_now();
        }
        is_over.store(true, Ordering::Release);
        observer.join().unwrap();
    });
}
