//! The word `initdb` (contract, section 1).

use crate::support::daemon::Finished;
use crate::support::{Daemon, World, skip};
use nix::unistd::{Uid, User, chown};
use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

/// A world whose database is still to be made, as `new.db3` in the directory `home`.
fn world() -> World {
    let mut world = World::new();
    fs::create_dir(world.path("home")).unwrap();
    world.set("database", world.path("home/new.db3").display());
    world
}

fn initdb(world: &World, words: &[&str]) -> Finished {
    let words: Vec<&str> = words.iter().copied().chain(["initdb"]).collect();
    Daemon::run(&world.write_config(), &words)
}

/// Returns the user `nobody`, if the tests can become another user.
fn nobody() -> Option<User> {
    let nobody = User::from_name("nobody").unwrap().filter(|_| Uid::effective().is_root());
    if nobody.is_none() {
        skip("this needs root, and a user nobody");
    }
    nobody
}

/// The names in the directory of the database, sorted.
fn names(world: &World) -> Vec<String> {
    let entries = fs::read_dir(world.path("home")).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort_unstable();
    names
}

#[test]
fn initdb_says_in_one_line_what_it_has_created() {
    let world = world();
    let finished = initdb(&world, &[]);
    assert_eq!((finished.code(), finished.stderr.as_str()), (Some(0), ""));
    let text = finished.stdout;
    assert!(text.starts_with("created the database ") && text.lines().count() == 1, "{text}");
    assert!(text.contains("new.db3: schema version 9, rollback journal, owner "), "{text}");
    assert!(text.ends_with(", mode 0600\n"), "{text}");
    let database = rusqlite::Connection::open(world.path("home/new.db3")).unwrap();
    let mode: String = database.query_row("PRAGMA journal_mode", [], |row| row.get(0)).unwrap();
    assert_eq!(mode, "delete");
}

#[test]
fn initdb_by_root_is_the_users_and_the_groups_from_the_beginning() {
    let Some(nobody) = nobody() else { return };
    let mut world = world();
    world.set("user", "nobody").set("group", "daemon");
    fs::set_permissions(world.directory(), fs::Permissions::from_mode(0o755)).unwrap();
    // Where the user may create nothing, root creates nothing in its place.
    let finished = initdb(&world, &[]);
    assert_eq!(finished.code(), Some(1));
    assert!(finished.stderr.contains("the user nobody may not write its directory"), "{}", finished.stderr);
    assert!(names(&world).is_empty());
    chown(&world.path("home"), Some(nobody.uid), None).unwrap();
    let finished = initdb(&world, &[]);
    assert_eq!((finished.code(), finished.stderr.as_str()), (Some(0), ""));
    assert!(finished.stdout.ends_with("owner nobody:daemon, mode 0660\n"), "{}", finished.stdout);
    assert_eq!(names(&world), ["new.db3"]);
}

/// Puts a file of root's in the place of everything that appears in the directory, as the directory's owner may.
fn attack(directory: &Path, precious: &Path, is_over: &AtomicBool) {
    while !is_over.load(Ordering::Acquire) {
        for entry in fs::read_dir(directory).unwrap().flatten() {
            let path = entry.path();
            if !path.to_string_lossy().contains(".initdb-") {
                continue;
            }
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                let _ = fs::rename(&path, directory.join("moved"));
                let _ = fs::create_dir(&path);
                let _ = symlink(precious, path.join("database"));
            } else {
                let _ = fs::hard_link(precious, directory.join("trap"));
                let _ = fs::rename(directory.join("trap"), &path);
            }
        }
    }
}

#[test]
fn initdb_by_root_gives_no_other_file_away_whatever_the_user_does_meanwhile() {
    const ATTEMPTS: usize = 50;
    let Some(nobody) = nobody() else { return };
    let mut world = world();
    world.set("user", "nobody").set("group", "daemon");
    chown(&world.path("home"), Some(nobody.uid), None).unwrap();
    fs::set_permissions(world.directory(), fs::Permissions::from_mode(0o755)).unwrap();
    let precious = world.path("precious");
    fs::write(&precious, "root's").unwrap();
    let rights = || {
        let metadata = fs::metadata(&precious).unwrap();
        (metadata.uid(), metadata.gid(), metadata.mode())
    };
    let (before, home, is_over) = (rights(), world.path("home"), AtomicBool::new(false));
    let is_changed = std::thread::scope(|scope| {
        scope.spawn(|| attack(&home, &precious, &is_over));
        let is_changed = (0..ATTEMPTS).any(|attempt| {
            // With the privileges kept, what root does there is the more dangerous.
            initdb(&world, if attempt % 2 == 0 { &["nodrop"] } else { &[] });
            let _ = fs::remove_file(home.join("new.db3"));
            let _ = fs::remove_dir_all(home.join("moved"));
            rights() != before
        });
        is_over.store(true, Ordering::Release);
        is_changed
    });
    assert!(!is_changed, "a file of root's has other rights now: {:?}", rights());
}

/// As in an image of a system that is not running.
#[test]
fn no_journal_is_needed_where_nothing_is_logged() {
    let mut world = world();
    world.set("logformat", "journal");
    let made = initdb(&world, &[]);
    assert_eq!(made.code(), Some(0), "{}", made.stderr);
    assert_eq!(names(&world), ["new.db3"]);
}
