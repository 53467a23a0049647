//! What a service manager is told: sd_notify(3).

use std::ffi::OsStr;
use std::os::unix::net::UnixDatagram;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::support::{Daemon, Mail, PATIENCE, Script, World};

/// A service manager, and all that it was told.
struct Manager {
    socket: UnixDatagram,
    told: Vec<String>,
}

impl Manager {
    fn new(world: &World) -> Self {
        let socket = UnixDatagram::bind(world.path("notify")).unwrap();
        Self { socket, told: Vec::new() }
    }

    /// Starts the daemon with a watchdog that wants a word within this time.
    fn start(&self, world: &World, watchdog: Duration, words: &[&str]) -> Daemon {
        let (path, watchdog_us) = (world.path("notify"), watchdog.as_micros().to_string());
        let variables = [("NOTIFY_SOCKET", path.as_os_str()), ("WATCHDOG_USEC", OsStr::new(&watchdog_us))];
        Daemon::spawn_with_variables(&variables, &world.write_config(), words)
    }

    /// Blocks until it is told something that begins so, and returns all lines of that message.
    fn wait_for(&mut self, beginning: &str) -> Vec<String> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "{beginning} was not told, but {:?}", self.told);
            self.socket.set_read_timeout(Some(left)).unwrap();
            let mut octets = [0; 4096];
            let Ok(length) = self.socket.recv(&mut octets) else { continue };
            let text = String::from_utf8(octets[..length].to_vec()).unwrap();
            self.told.push(text.clone());
            let lines: Vec<String> = text.lines().map(str::to_owned).collect();
            if lines.iter().any(|line| line.starts_with(beginning)) {
                return lines;
            }
        }
    }

    fn has(&self, line: &str) -> bool {
        self.told.iter().any(|text| text.lines().any(|told| told == line))
    }
}

#[test]
fn readiness_status_watchdog_reload_and_the_end_are_told() {
    let (mut world, server) = World::with_server(Script::new().always("RCPT", "450 4.2.0 later"));
    let id = world.insert(&Mail::to("a@example.org"));
    let mut manager = Manager::new(&world);
    let daemon = manager.start(&world, Duration::from_millis(300), &["nodetach", "nodrop"]);
    let ready = manager.wait_for("READY=1");
    assert!(ready.contains(&format!("MAINPID={}", daemon.pid())), "{ready:?}");
    world.database.wait_for_failure(id);
    manager.wait_for("STATUS=1 mail waits, ");
    for _ in 0..3 {
        manager.wait_for("WATCHDOG=1");
    }
    // The time must come with it, or systemd waits in vain.
    for (value, is_right) in [("3", true), ("many", false)] {
        world.set("retries", value);
        world.write_config();
        daemon.signal(Signal::SIGHUP);
        let reloading = manager.wait_for("RELOADING=1");
        assert!(reloading.iter().any(|line| line.starts_with("MONOTONIC_USEC=")), "{reloading:?}");
        manager.wait_for("READY=1");
        daemon.wait_for_output(if is_right { "retries is 3 now" } else { "is not taken" });
    }
    assert!(!manager.has("STOPPING=1"));
    daemon.signal(Signal::SIGTERM);
    manager.wait_for("STOPPING=1");
    daemon.terminate();
    assert_eq!(server.records().count("RCPT"), 1);
}

#[test]
fn a_daemon_in_the_background_tells_its_own_process_id() {
    let (mut world, _server) = World::with_server(Script::new());
    world.set("logfile", world.path("log").display());
    world.set("pidfile", world.path("pid").display());
    let mut manager = Manager::new(&world);
    let mut starter = manager.start(&world, Duration::from_millis(300), &["nodrop"]);
    let ready = manager.wait_for("READY=1");
    let started = starter.wait_for_exit(PATIENCE);
    assert!(started.success());
    let pid = std::fs::read_to_string(world.path("pid")).unwrap().trim().to_owned();
    assert!(ready.contains(&format!("MAINPID={pid}")), "{ready:?}");
    manager.wait_for("WATCHDOG=1");
    let killed = std::process::Command::new("kill").arg(&pid).status().unwrap();
    assert!(killed.success());
    manager.wait_for("STOPPING=1");
    world.database.wait("the daemon ends", |_| !world.path("pid").exists());
}

#[test]
fn a_start_that_waits_for_the_database_asks_for_more_time() {
    // With a write-ahead log the daemon would not have to wait.
    let world = World::in_journal_mode("delete");
    world.database.connection.execute_batch("BEGIN EXCLUSIVE").unwrap();
    let mut manager = Manager::new(&world);
    let daemon = manager.start(&world, Duration::from_secs(60), &["nodetach", "nodrop"]);
    let extended = manager.wait_for("EXTEND_TIMEOUT_USEC=");
    assert!(extended.iter().any(|line| line.starts_with("STATUS=waits for the database")), "{extended:?}");
    assert!(!manager.has("READY=1"));
    world.database.connection.execute_batch("COMMIT").unwrap();
    manager.wait_for("READY=1");
    daemon.terminate();
}

#[test]
fn a_manager_that_reads_nothing_holds_up_nothing() {
    let (world, server) = World::with_server(Script::new());
    let manager = Manager::new(&world);
    let daemon = manager.start(&world, Duration::from_millis(3), &["nodetach", "nodrop"]);
    daemon.wait_for_output("the service manager cannot be told how the daemon stands");
    world.insert(&Mail::to("a@example.org"));
    server.wait_for_messages(1);
    world.database.wait_until_empty();
    let log = daemon.terminate();
    assert_eq!(log.matches("the service manager cannot be told").count(), 1, "{log}");
}
