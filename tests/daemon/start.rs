//! Starts on a database that other programs keep locked, or have left in some state (contract, sections 1, 3 and 4).

use crate::support::smtp_server::SmtpServer;
use crate::support::{Daemon, Mail, Script, World, skip};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, Uid, User, chown};
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::time::Duration;

/// How long a start or its end may take that waits for nothing.
const PROMPTLY: Duration = Duration::from_secs(3);

/// A world with a server for `example.org`.
fn world(journal_mode: &str) -> (World, SmtpServer) {
    let mut world = World::in_journal_mode(journal_mode);
    let server = SmtpServer::start(Script::new());
    world.set("portprio", server.port());
    world.route("example.org", &server);
    (world, server)
}

/// A world whose database was torn apart in the middle of a transaction, with five mails in it.
fn torn_world(journal_mode: &str) -> (World, SmtpServer) {
    let (world, server) = world(journal_mode);
    let mails = (0..5).map(|n| Mail::to(&format!("{n}@example.org")).data(n.to_string().repeat(5000)));
    world.database.insert_all(&mails.collect::<Vec<_>>());
    world.database.tear();
    (world, server)
}

fn journal(world: &World) -> PathBuf {
    world.path("master.db3-journal")
}

/// All five mails arrive as they were before the transaction.
fn assert_untorn(server: &SmtpServer) {
    let records = server.records();
    let mut found: Vec<String> = records
        .accepted()
        .iter()
        .map(|message| String::from_utf8_lossy(&message.data).trim_end().to_owned())
        .collect();
    found.sort();
    let expected: Vec<String> = (0..5).map(|n| n.to_string().repeat(5000)).collect();
    assert!(found == expected, "{} messages, or other data than before", found.len());
}

fn has_index(world: &World) -> bool {
    let query = "SELECT count(*) FROM sqlite_schema WHERE name = 'dispatch_faillog_mail'";
    world.database.another().query_row(query, [], |row| row.get::<_, i64>(0)).unwrap() == 1
}

#[test]
fn a_hot_journal_is_rolled_back_by_the_daemon_and_by_a_pass() {
    for journal_mode in ["delete", "truncate", "persist"] {
        let (world, server) = torn_world(journal_mode);
        let daemon = world.start();
        server.wait_for_messages(5);
        world.database.wait_until_empty();
        daemon.terminate();
        assert_untorn(&server);
        assert!(has_index(&world), "{journal_mode}: what the same start has to create is missing");
        let (world, server) = torn_world(journal_mode);
        let finished = world.run(&["deliver", "example.org"]);
        assert_eq!(finished.code(), Some(0), "{journal_mode}: {}", finished.stderr);
        assert_untorn(&server);
    }
}

#[test]
fn check_tells_of_a_hot_journal_and_changes_nothing() {
    let (world, _server) = torn_world("delete");
    let contents = || (fs::read(world.database.path()).unwrap(), fs::read(journal(&world)).unwrap());
    let (config, before) = (world.write_config(), contents());
    let names = || fs::read_dir(world.directory()).unwrap().count();
    let files = names();
    let finished = Daemon::run(&config, &["check"]);
    assert_eq!(finished.code(), Some(0), "{}", finished.stderr);
    assert!(
        finished.stderr.contains("hot journal") && finished.stderr.lines().count() == 1,
        "{}",
        finished.stderr
    );
    assert!(finished.stdout.contains("database"));
    assert!(contents() == before, "check has changed something");
    assert_eq!(names(), files);
}

#[test]
fn a_journal_that_was_left_cold_is_no_matter() {
    for journal_mode in ["truncate", "persist"] {
        let (world, server) = world(journal_mode);
        world.insert(&Mail::to("a@example.org"));
        assert!(journal(&world).exists());
        let finished = Daemon::run(&world.write_config(), &["check"]);
        assert_eq!((finished.code(), finished.stderr.as_str()), (Some(0), ""), "{journal_mode}");
        let daemon = world.start();
        world.database.wait_until_empty();
        daemon.terminate();
        assert_eq!(server.records().accepted().len(), 1);
    }
}

#[test]
fn a_write_ahead_log_that_a_killed_program_has_left_is_read() {
    let (mut world, server) = world("wal");
    world.insert(&Mail::to("a@example.org"));
    // What a killed program leaves: the database and its log, without the index of the log.
    fs::create_dir(world.path("left")).unwrap();
    for suffix in ["", "-wal"] {
        let from = world.path(&format!("master.db3{suffix}"));
        fs::copy(from, world.path(&format!("left/master.db3{suffix}"))).unwrap();
    }
    world.set("database", world.path("left/master.db3").display());
    let finished = Daemon::run(&world.write_config(), &["check"]);
    assert_eq!(finished.code(), Some(0), "{}", finished.stderr);
    assert_eq!(finished.stderr.matches("write-ahead log").count(), 1, "{}", finished.stderr);
    let finished = world.run(&["deliver", "example.org"]);
    assert_eq!(finished.code(), Some(0), "{}", finished.stderr);
    assert!(finished.stderr.contains("PRAGMA journal_mode=DELETE"), "{}", finished.stderr);
    assert_eq!(server.records().delivered_to(), ["a@example.org"]);
}

#[test]
fn a_hot_journal_of_another_user_is_an_error_that_names_it() {
    let user = User::from_name("nobody").unwrap();
    let (true, Some(user)) = (Uid::effective().is_root(), user) else {
        skip("dropping privileges needs root and a user nobody");
        return;
    };
    // The daemon may not read it; nor, in a sticky directory of another user, delete it.
    for (directory_mode, journal_mode) in [(0o777, 0o600), (0o1777, 0o666)] {
        let (mut world, _server) = torn_world("delete");
        world.set("user", "nobody");
        chown(world.database.path(), Some(user.uid), Some(user.gid)).unwrap();
        let rights = fs::Permissions::from_mode;
        fs::set_permissions(world.directory(), rights(directory_mode)).unwrap();
        fs::set_permissions(journal(&world), rights(journal_mode)).unwrap();
        let before = fs::read(journal(&world)).unwrap();
        for words in [&["check"][..], &["nodetach"]] {
            let finished = Daemon::run(&world.write_config(), words);
            let told = &finished.stderr;
            assert_eq!(finished.code(), Some(1), "{words:?} {directory_mode:o}: {told}");
            assert!(told.contains("master.db3-journal") && told.contains("delete it"), "{words:?}: {told}");
        }
        assert!(fs::read(journal(&world)).unwrap() == before);
    }
}

/// A world with one mail whose database another program keeps locked, until its transaction ends.
fn locked_world() -> (World, SmtpServer, rusqlite::Connection) {
    let (world, server) = world("delete");
    world.insert(&Mail::to("a@example.org"));
    let other = world.database.another();
    other.execute_batch("BEGIN EXCLUSIVE").unwrap();
    (world, server, other)
}

#[test]
fn the_daemon_waits_for_a_locked_database_with_one_warning() {
    let (world, server, other) = locked_world();
    let mut daemon = world.start();
    daemon.wait_for_output("master.db3 is locked by another program, so the daemon waits for it");
    // Longer than any lock is waited for by one who gives up.
    std::thread::park_timeout(Duration::from_secs(6));
    assert!(daemon.is_running());
    other.execute_batch("COMMIT").unwrap();
    daemon.wait_for_output("is not locked any more");
    world.database.wait_until_empty();
    let output = daemon.terminate();
    assert_eq!(output.matches("is locked by another program").count(), 1, "{output}");
    assert_eq!(server.records().delivered_to(), ["a@example.org"]);
}

#[test]
fn a_signal_ends_the_wait_for_a_locked_database_at_once() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let (world, server, other) = locked_world();
        let mut daemon = world.start();
        daemon.wait_for_output("waits for it");
        daemon.signal(Signal::SIGHUP);
        daemon.signal(signal);
        assert_eq!(daemon.wait_for_exit(PROMPTLY).code(), Some(0), "{signal}");
        assert!(!daemon.stderr().contains("works on"));
        other.execute_batch("COMMIT").unwrap();
        assert_eq!(server.records().connections.len(), 0);
        assert_eq!(world.database.ids().len(), 1);
    }
}

#[test]
fn a_daemon_that_waits_for_the_database_has_started_for_the_one_who_started_it() {
    let (mut world, _server, other) = locked_world();
    world.set("logfile", world.path("log").display());
    world.set("pidfile", world.path("pid").display());
    let finished = Daemon::run(&world.write_config(), &["nodrop"]);
    assert_eq!(finished.code(), Some(0), "{}", finished.stderr);
    let pid = Pid::from_raw(fs::read_to_string(world.path("pid")).unwrap().trim().parse().unwrap());
    other.execute_batch("COMMIT").unwrap();
    world.database.wait_until_empty();
    kill(pid, Signal::SIGTERM).unwrap();
    let lock = fs::File::open(world.path("master.db3.dispatch-lock")).unwrap();
    lock.lock().unwrap();
    assert!(!world.path("pid").exists());
}

#[test]
fn passes_and_check_give_up_a_locked_database() {
    let (world, server, _other) = locked_world();
    let is_locked = "is locked by another process";
    for words in [&["deliver", "example.org"][..], &["genbounces"]] {
        let finished = world.run(words);
        assert_eq!(finished.code(), Some(1), "{words:?}");
        assert!(finished.stderr.contains(is_locked), "{words:?}: {}", finished.stderr);
        assert!(finished.took >= Duration::from_secs(5), "{words:?} {:?}", finished.took);
    }
    let finished = Daemon::run(&world.write_config(), &["check"]);
    assert_eq!(finished.code(), Some(1));
    assert!(finished.stderr.contains(is_locked), "{}", finished.stderr);
    assert!(finished.took < Duration::from_secs(5), "{:?}", finished.took);
    assert!(server.records().connections.is_empty());
}

#[test]
fn a_write_ahead_log_that_one_program_has_for_itself_is_waited_for_too() {
    let (mut world, server) = world("delete");
    // A connection has a log for itself only if there is no other.
    let path = world.path("alone.db3");
    fs::copy(world.database.path(), &path).unwrap();
    world.set("database", path.display());
    let other = rusqlite::Connection::open(&path).unwrap();
    other.execute_batch("PRAGMA locking_mode = EXCLUSIVE; PRAGMA journal_mode = WAL").unwrap();
    crate::support::database::insert(&other, &Mail::to("a@example.org"));
    let daemon = world.start();
    daemon.wait_for_output("waits for it");
    drop(other);
    server.wait_for_messages(1);
    daemon.terminate();
}

#[test]
fn a_reader_that_delays_the_rollback_of_a_hot_journal_is_waited_for() {
    let (world, server) = torn_world("delete");
    // The lock of a reader that was there before the other program was killed.
    let file = fs::OpenOptions::new().read(true).open(world.database.path()).unwrap();
    let shared =
        |kind| nix::libc::flock { l_type: kind, l_whence: 0, l_start: 0x4000_0002, l_len: 510, l_pid: 0 };
    let set = |kind: i32| {
        let lock = shared(i16::try_from(kind).unwrap());
        nix::fcntl::fcntl(&file, nix::fcntl::FcntlArg::F_SETLK(&lock)).unwrap();
    };
    set(nix::libc::F_RDLCK);
    let daemon = world.start();
    daemon.wait_for_output("waits for it");
    set(nix::libc::F_UNLCK);
    server.wait_for_messages(5);
    world.database.wait_until_empty();
    daemon.terminate();
    assert_untorn(&server);
}

#[test]
fn a_second_process_is_kept_off_whatever_its_name_of_the_file_is() {
    for journal_mode in ["wal", "delete"] {
        let (mut world, _server) = world(journal_mode);
        let first = world.start();
        first.wait_until_ready(&world);
        fs::create_dir(world.path("elsewhere")).unwrap();
        let link = world.path("elsewhere/link.db3");
        fs::hard_link(world.database.path(), &link).unwrap();
        let own = world.path("master.db3.dispatch-lock");
        let before = fs::read_to_string(&own).unwrap();
        world.set("database", link.display());
        for words in [&[][..], &["genbounces"], &["deliver", "example.org"]] {
            let second = world.run(words);
            assert_eq!(second.code(), Some(1), "{words:?}: {}", second.stderr);
            let named = format!("process {} works on the database", first.pid());
            assert!(second.stderr.contains(&named), "{words:?}: {}", second.stderr);
        }
        assert_eq!(fs::read_to_string(&own).unwrap(), before);
        // The locks of SQLite are still there: nothing has opened and closed the file meanwhile.
        first.wait_until_ready(&world);
        first.kill();
        let name = world.database.path().display().to_string();
        world.set("database", name);
        assert_eq!(world.run(&["genbounces"]).code(), Some(0), "a killed holder does not block");
    }
}

#[test]
fn what_check_accepts_of_the_database_starts() {
    let user = User::from_name("nobody").unwrap();
    let (true, Some(_)) = (Uid::effective().is_root(), user) else {
        skip("dropping privileges needs root and a user nobody");
        return;
    };
    let rights = fs::Permissions::from_mode;
    for (directory_mode, database_mode, lock_mode, is_right) in [
        (0o777, 0o666, None, true),
        (0o777, 0o666, Some(0o666), true),
        (0o777, 0o644, None, false),
        (0o755, 0o666, None, false),
        (0o777, 0o666, Some(0o600), false),
    ] {
        let (mut world, _server) = world("delete");
        world.set("user", "nobody").set("verbosity", 0);
        fs::set_permissions(world.directory(), rights(directory_mode)).unwrap();
        fs::set_permissions(world.database.path(), rights(database_mode)).unwrap();
        if let Some(mode) = lock_mode {
            let lock = world.path("master.db3.dispatch-lock");
            fs::write(&lock, "").unwrap();
            fs::set_permissions(&lock, rights(mode)).unwrap();
        }
        let config = world.write_config();
        let (check, start) = (Daemon::run(&config, &["check"]), Daemon::run(&config, &["genbounces"]));
        let expected = Some(i32::from(!is_right));
        assert_eq!(check.code(), expected, "{directory_mode:o} {database_mode:o}: {}", check.stderr);
        assert_eq!(start.code(), expected, "{directory_mode:o} {database_mode:o}: {}", start.stderr);
        if !is_right {
            assert_eq!(check.stderr, start.stderr);
        }
    }
}
