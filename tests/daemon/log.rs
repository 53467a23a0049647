//! The log: it never holds up the daemon, it tells what is missing in it, and it gives no file of root away.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{MetadataExt as _, chown, symlink};
use std::path::Path;
use std::time::{Duration, Instant};

use crate::support::{Daemon, Mail, PATIENCE, Script, World, skip};
use nix::sys::signal::Signal;
use nix::sys::stat::Mode;
use nix::unistd::{Uid, User, mkfifo};

/// The contract gives five seconds to the end after SIGTERM; the rest is for a machine that has other things to do.
const END_LIMIT: Duration = Duration::from_millis(6500);

/// More than goes into a pipe and the queue of the log together, once it is logged as octets.
const LARGE_OCTETS: usize = 12 << 20;

fn large_mail() -> Mail {
    Mail::to("a@example.org")
        .data("0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcd\r\n".repeat(LARGE_OCTETS / 64))
}

#[test]
fn standard_error_that_nobody_reads_holds_up_neither_mail_nor_the_end() {
    let (mut world, server) = World::with_server(Script::new());
    world.set("verbosity", 4);
    let (mut daemon, _unread) = Daemon::spawn_unread(&world.write_config(), &["nodetach", "nodrop"]);
    world.insert(&large_mail());
    world.insert(&Mail::to("b@example.org"));
    world.database.wait_until_empty();
    assert_eq!(server.records().accepted().len(), 2);
    let asked = Instant::now();
    daemon.signal(Signal::SIGTERM);
    assert_eq!(daemon.wait_for_exit(PATIENCE).code(), Some(0));
    assert!(asked.elapsed() < END_LIMIT, "{:?}", asked.elapsed());
}

#[test]
fn lines_that_standard_error_does_not_take_in_time_are_counted() {
    let (mut world, _server) = World::with_server(Script::new());
    world.set("verbosity", 4);
    let (mut daemon, unread) = Daemon::spawn_unread(&world.write_config(), &["nodetach", "nodrop"]);
    world.insert(&large_mail());
    world.database.wait_until_empty();
    daemon.read(unread);
    let reason = " dropped because the log could not be written in time";
    let log = daemon.wait_for_output(reason);
    let told = log.lines().find(|line| line.contains(reason)).unwrap();
    assert!(told.split_whitespace().nth(2).unwrap().parse::<u64>().unwrap() > 0, "{told}");
    // There is room again.
    daemon.signal(Signal::SIGTERM);
    daemon.wait_for_output("cmail-dispatchd ends");
    assert_eq!(daemon.wait_for_exit(PATIENCE).code(), Some(0));
}

#[test]
fn a_log_file_that_takes_nothing_holds_up_neither_mail_nor_the_end() {
    let (mut world, server) = World::with_server(Script::new());
    let fifo = world.path("log");
    mkfifo(&fifo, Mode::S_IRWXU).unwrap();
    // Open for reading, and never read: as a disk that hangs.
    let _unread = OpenOptions::new().read(true).write(true).open(&fifo).unwrap();
    world.set("verbosity", 4).set("logfile", fifo.display());
    let mut daemon = world.start();
    world.insert(&large_mail());
    // The order to open the file again waits behind what cannot be written, and nothing waits for it.
    daemon.signal(Signal::SIGHUP);
    world.insert(&Mail::to("b@example.org"));
    world.database.wait_until_empty();
    assert_eq!(server.records().accepted().len(), 2);
    let asked = Instant::now();
    daemon.signal(Signal::SIGTERM);
    assert_eq!(daemon.wait_for_exit(PATIENCE).code(), Some(0));
    assert!(asked.elapsed() < END_LIMIT, "{:?}", asked.elapsed());
}

#[test]
fn a_named_pipe_without_a_reader_is_an_error_at_the_start() {
    let mut world = World::new();
    mkfifo(&world.path("log"), Mode::S_IRWXU).unwrap();
    world.set("logfile", world.path("log").display());
    let finished = world.run(&["genbounces"]);
    assert_eq!(finished.code(), Some(1));
    assert!(finished.stderr.contains("cannot be opened: No such device or address"), "{}", finished.stderr);
}

#[test]
fn an_error_at_the_start_is_told_although_nobody_reads_standard_error() {
    let mut world = World::new();
    world.set("database", "/does/not/exist");
    world.set("logfile", world.path("log").display());
    let (mut daemon, _unread) = Daemon::spawn_full(&world.write_config(), &["nodetach", "nodrop"]);
    assert_eq!(daemon.wait_for_exit(PATIENCE).code(), Some(1));
    assert!(fs::read_to_string(world.path("log")).unwrap().contains(" ERROR "));
}

#[test]
fn a_log_that_may_grow_no_more_is_torn_and_goes_on_in_a_new_file() {
    /// In blocks of 512 octets, as `ulimit -f` counts them.
    const BLOCKS: u64 = 4096;
    let mut world = World::new();
    let log = world.path("log");
    // All but a few octets are used up.
    let used = BLOCKS * 512 - 40;
    File::create(&log).unwrap().set_len(used).unwrap();
    world.set("logfile", log.display());
    let daemon = Daemon::spawn_with_file_limit(BLOCKS, &world.write_config(), &["nodetach", "nodrop"]);
    daemon.wait_until_ready(&world);
    fs::rename(&log, world.path("log.1")).unwrap();
    daemon.signal(Signal::SIGHUP);
    daemon.wait_until_ready(&world);
    daemon.terminate();
    assert_eq!(fs::metadata(world.path("log.1")).unwrap().len(), BLOCKS * 512);
    let text = fs::read_to_string(&log).unwrap();
    let first = text.lines().next().unwrap();
    assert!(first.contains(" dropped because the log could not be written: File too large"), "{text}");
}

#[test]
fn a_line_after_a_torn_one_begins_on_a_line_of_its_own() {
    let mut world = World::new();
    fs::write(world.path("log"), "2026-11-22T11:12:06.117Z INFO  the power was l").unwrap();
    world.set("verbosity", 1);
    world.set("logfile", world.path("log").display());
    assert_eq!(world.run(&["genbounces"]).code(), Some(0));
    let text = fs::read_to_string(world.path("log")).unwrap();
    assert!(text.lines().next().unwrap().ends_with("the power was l"), "{text}");
    assert!(text.lines().skip(1).all(|line| line.starts_with("20") && line.contains("Z ")), "{text}");
    assert!(text.contains(" works on "), "{text}");
}

/// A world whose files belong to the user nobody, as root; skipped visibly otherwise.
fn world_of_nobody(why: &str) -> Option<(World, User)> {
    let user = User::from_name("nobody").unwrap();
    let (true, Some(user)) = (Uid::effective().is_root(), user) else {
        skip(why);
        return None;
    };
    let mut world = World::new();
    world.set("user", "nobody").set("verbosity", 1);
    let (uid, gid) = (Some(user.uid.as_raw()), Some(user.gid.as_raw()));
    for entry in fs::read_dir(world.directory()).unwrap() {
        chown(entry.unwrap().path(), uid, gid).unwrap();
    }
    chown(world.directory(), uid, gid).unwrap();
    Some((world, user))
}

fn start_as_root(world: &World, log: &Path) -> crate::support::daemon::Finished {
    let mut config = world.config_text();
    config.push_str(&format!("logfile {}\n", log.display()));
    let path = world.path("root.conf");
    fs::write(&path, config).unwrap();
    Daemon::run(&path, &["nodetach", "genbounces"])
}

#[test]
fn root_follows_no_link_of_the_daemons_user() {
    let Some((world, user)) = world_of_nobody("links can lead only root astray") else { return };
    let roots = tempfile::tempdir().unwrap();
    let secret = roots.path().join("secret");
    fs::write(&secret, "root's\n").unwrap();
    symlink(&secret, world.path("log")).unwrap();
    symlink(roots.path(), world.path("logs")).unwrap();
    for link in ["log", "logs"] {
        std::os::unix::fs::lchown(world.path(link), Some(user.uid.as_raw()), None).unwrap();
    }
    fs::hard_link(&secret, world.path("other")).unwrap();
    for (name, why) in [
        ("log", "is a symbolic link of user"),
        ("logs/secret", "is a symbolic link of user"),
        ("logs/new", "is a symbolic link of user"),
        ("other", "the file has a second name"),
    ] {
        let finished = start_as_root(&world, &world.path(name));
        assert_eq!(finished.code(), Some(1), "{name}: {}", finished.stderr);
        assert!(finished.stderr.contains(why), "{name}: {}", finished.stderr);
        let checked = Daemon::run(&world.path("root.conf"), &["check"]);
        assert_eq!(checked.code(), Some(1), "{name}: {}", checked.stderr);
    }
    assert_eq!(fs::read_to_string(&secret).unwrap(), "root's\n");
    assert_eq!(fs::metadata(&secret).unwrap().uid(), 0);
    assert_eq!(fs::read_dir(roots.path()).unwrap().count(), 1);
}

#[test]
fn a_link_that_root_has_made_for_the_log_is_followed() {
    let Some((world, user)) = world_of_nobody("only root can make such a link") else { return };
    let roots = tempfile::tempdir().unwrap();
    let (link, data) = (roots.path().join("cmail.log"), roots.path().join("data.log"));
    symlink(&data, &link).unwrap();
    let finished = start_as_root(&world, &link);
    assert_eq!(finished.code(), Some(0), "{}", finished.stderr);
    assert!(fs::read_to_string(&data).unwrap().contains(" works on "));
    assert_eq!(fs::metadata(&data).unwrap().uid(), user.uid.as_raw());
}

#[test]
fn a_log_that_a_first_start_by_root_has_left_is_the_users() {
    let Some((world, user)) = world_of_nobody("only root can leave such a file") else { return };
    let log = world.path("log");
    File::create(&log).unwrap();
    assert_eq!(fs::metadata(&log).unwrap().uid(), 0);
    assert_eq!(start_as_root(&world, &log).code(), Some(0));
    assert_eq!(fs::metadata(&log).unwrap().uid(), user.uid.as_raw());
    // Now the user can start with it, as the unit does.
    let mut command = std::process::Command::new("setpriv");
    command.args([
        format!("--reuid={}", user.uid),
        format!("--regid={}", user.gid),
        "--clear-groups".to_owned(),
        env!("CARGO_BIN_EXE_cmail-dispatchd").to_owned(),
    ]);
    let output = command.arg(world.path("root.conf")).args(["nodetach", "genbounces"]).output();
    let Ok(output) = output else { return skip("there is no setpriv") };
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    if stderr.contains("failed to execute") {
        return skip("the user nobody may not execute the program");
    }
    assert!(output.status.success(), "{stderr}");
}

#[test]
fn standard_error_can_be_named_as_the_log_file() {
    let mut world = World::new();
    if !Path::new("/dev/stderr").exists() {
        return skip("there is no /dev/stderr");
    }
    world.set("logfile", "/dev/stderr").set("verbosity", 1);
    let finished = world.run(&["genbounces"]);
    assert_eq!(finished.code(), Some(0), "{}", finished.stderr);
    assert!(finished.stderr.contains(" works on "), "{}", finished.stderr);
}

#[test]
fn a_new_log_is_not_for_everybody() {
    let mut world = World::new();
    world.set("logfile", world.path("log").display());
    assert_eq!(world.run(&["genbounces"]).code(), Some(0));
    assert_eq!(fs::metadata(world.path("log")).unwrap().mode() & 0o027, 0);
}

/// Where there is one, `tests/systemd.sh` finds a verdict in the journal of a systemd.
#[test]
fn a_journal_that_is_not_there_is_an_error_of_check_start_and_reload() {
    if Path::new("/run/systemd/journal/socket").exists() {
        return skip("there is a journal here");
    }
    let mut world = World::new();
    let daemon = world.start();
    daemon.wait_until_ready(&world);
    world.set("logformat", "journal");
    let told = ": logformat: the journal of systemd cannot be written (/run/systemd/journal/socket: ";
    let reloaded = crate::support::tool::run(&world, &["reload"]);
    assert_eq!(reloaded.code(), Some(1));
    assert!(reloaded.stderr.contains(told), "{}", reloaded.stderr);
    daemon.terminate();
    for words in [&["check"][..], &["nodetach", "nodrop"]] {
        let finished = world.run(words);
        assert_eq!(finished.code(), Some(1));
        assert!(finished.stderr.contains(told), "{}", finished.stderr);
    }
}
