//! The program as its administrator meets it: words, exit codes, what it prints, and the files it leaves.

mod log_file;

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use nix::sys::signal::{self, Signal};
use nix::unistd::Pid;
use tempfile::TempDir;

/// A directory with a configuration, and everything that the configuration names.
struct Scene {
    directory: TempDir,
}

impl Scene {
    /// With these lines besides those that keep the program from the network.
    fn new(lines: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let text = format!("database master.db\nannounce host.example\nresolver 127.0.0.1:9\n{lines}");
        fs::write(directory.path().join("test.conf"), text).unwrap();
        Self { directory }
    }

    fn with_database(lines: &str) -> Self {
        let scene = Self::new(lines);
        assert_succeeds(&scene.run(["test.conf", "initdb"]));
        scene
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }

    fn command<const N: usize>(&self, words: [&str; N]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cmail-dispatchd"));
        // What is logged is up to the configuration alone.
        command.args(words).current_dir(&self.directory).env("RUST_LOG", "trace").stdin(Stdio::null());
        command
    }

    fn run<const N: usize>(&self, words: [&str; N]) -> Output {
        self.command(words).output().unwrap()
    }

    /// Starts a daemon in the foreground, and waits until it has written its pid file: it logs that it works then.
    fn start_in_foreground(&self) -> Foreground {
        let mut command = self.command(["test.conf", "nodetach"]);
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        while !line.contains(" works on ") {
            line.clear();
            assert_ne!(log.read_line(&mut line).unwrap(), 0, "the daemon ended");
        }
        Foreground { child, _log: log }
    }

    /// The names of all files, sorted.
    fn files(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.directory).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort_unstable();
        names
    }
}

/// A daemon that is a child of the test; killed when the test is over, if it still runs.
struct Foreground {
    child: Child,
    _log: BufReader<std::process::ChildStderr>,
}

impl Foreground {
    fn send(&self, signal: Signal) {
        signal::kill(Pid::from_raw(self.child.id().try_into().unwrap()), signal).unwrap();
    }
}

impl Drop for Foreground {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A daemon in the background; killed when the test is over, if it still runs.
struct Background {
    pid: Pid,
    lock: PathBuf,
}

impl Background {
    /// The daemon whose pid file this is.
    fn of(scene: &Scene, pid_file: &str) -> Self {
        let pid = scene.text(pid_file).strip_suffix('\n').unwrap().parse().unwrap();
        Self { pid: Pid::from_raw(pid), lock: scene.path("master.db.dispatch-lock") }
    }

    /// Ends it and waits until it has: its lock is free then, and soon afterwards its log is written.
    fn terminate(self) {
        signal::kill(self.pid, Signal::SIGTERM).unwrap();
        File::open(&self.lock).unwrap().lock().unwrap();
        crate::support::wait_until_gone(self.pid);
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        // Another process may get its id once the lock is free.
        if File::open(&self.lock).is_ok_and(|lock| lock.try_lock().is_err()) {
            let _ = signal::kill(self.pid, Signal::SIGKILL);
        }
    }
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn assert_succeeds(output: &Output) {
    assert_eq!((output.status.code(), stderr(output)), (Some(0), String::new()));
}

/// The one line on standard error of a program that exited with status 1, without the program's name.
fn only_error(output: &Output) -> String {
    let text = stderr(output);
    assert_eq!(
        (output.status.code(), stdout(output).as_str(), text.lines().count()),
        (Some(1), "", 1),
        "{text}"
    );
    text.trim_end().strip_prefix("cmail-dispatchd: ").unwrap_or_else(|| panic!("{text}")).to_owned()
}

#[test]
fn help_and_version_are_printed() {
    let scene = Scene::new("");
    let help = scene.run(["--help"]);
    assert_succeeds(&help);
    for word in ["nodrop", "nodetach", "deliver", "handoff", "genbounces", "check", "initdb"] {
        assert!(stdout(&help).contains(word), "{word}");
    }
    let version = scene.run(["test.conf", "--version"]);
    assert_succeeds(&version);
    assert!(stdout(&version).starts_with("cmail-dispatchd ") && stdout(&version).ends_with('\n'));
}

#[test]
fn a_wrong_command_line_is_one_line_and_status_1() {
    let scene = Scene::new("");
    let usage = "usage: cmail-dispatchd CONFIG [nodrop] [nodetach] [deliver DOMAIN | ";
    assert!(only_error(&scene.run([])).contains(usage));
    for (words, meant) in [
        (["test.conf", "nodetatch"], "did you mean nodetach?"),
        (["test.conf", "chekc"], "did you mean check?"),
        (["chekc", "test.conf"], "did you mean check?"),
        (["test.conf", "start"], "see cmail-dispatchd --help"),
    ] {
        let error = only_error(&scene.run(words));
        assert!(error.contains(" is not a known word, and ") && error.ends_with(meant), "{error}");
    }
    assert!(only_error(&scene.run(["test.conf", "deliver"])).contains("needs an operand"));
    assert!(only_error(&scene.run(["test.conf", "check", "initdb"])).contains("cannot be used together"));
    assert!(only_error(&scene.run(["test.conf", "deliver", "a\nb"])).contains("needs a domain"));
    assert_eq!(scene.files(), ["test.conf"]);
}

#[test]
fn a_configuration_that_does_not_exist_is_an_error() {
    let error = only_error(&Scene::new("").run(["missing.conf"]));
    assert!(error.starts_with("missing.conf: the configuration file cannot be read: "), "{error}");
}

#[test]
fn every_error_of_a_configuration_is_told_whatever_is_to_be_done() {
    let scene = Scene::new("retries 0\nfoo bar\nlogfile log\n");
    for words in [
        ["test.conf", "nodetach"],
        ["test.conf", "check"],
        ["test.conf", "initdb"],
        ["test.conf", "genbounces"],
    ] {
        let output = scene.run(words);
        let text = stderr(&output);
        assert_eq!(output.status.code(), Some(1));
        assert!(text.contains("cmail-dispatchd: test.conf:4: retries: 0 is out of range"), "{text}");
        assert!(text.contains("cmail-dispatchd: test.conf:5: foo: unknown directive\n"), "{text}");
    }
    assert_eq!(scene.files(), ["test.conf"]);
}

#[test]
fn check_prints_a_configuration_with_the_same_meaning() {
    let scene = Scene::with_database("retries 7 # comment\nlogfile log\npidfile pid\n");
    let before = scene.files();
    let first = scene.run(["test.conf", "check"]);
    assert_succeeds(&first);
    assert!(stdout(&first).lines().any(|line| line.split_whitespace().eq(["retries", "7"])));
    assert!(stdout(&first).lines().any(|line| line.split_whitespace().eq(["concurrency", "500"])));
    let made = |name: &String| !before.contains(name) && !name.starts_with("master.db-");
    assert!(!scene.files().iter().any(made), "{:?}", scene.files());
    fs::write(scene.path("printed.conf"), &first.stdout).unwrap();
    assert_eq!(stdout(&scene.run(["printed.conf", "check"])), stdout(&first));
}

#[test]
fn check_looks_at_the_database_even_if_the_configuration_is_wrong() {
    let scene = Scene::new("retries 0\n");
    let output = scene.run(["test.conf", "check"]);
    let text = stderr(&output);
    assert_eq!(
        (output.status.code(), stdout(&output).as_str(), text.lines().count()),
        (Some(1), "", 2),
        "{text}"
    );
    assert!(text.contains("retries") && text.contains("master.db"), "{text}");
    assert_eq!(scene.files(), ["test.conf"]);
}

#[test]
fn a_lot_of_errors_is_told_of_in_part_and_counted() {
    let scene = Scene::new(&"nonsense here\n".repeat(57));
    for words in [["test.conf", "check"], ["test.conf", "nodetach"]] {
        let output = scene.run(words);
        let text = stderr(&output);
        let errors = text.lines().filter(|line| line.contains("nonsense: unknown directive")).count();
        assert_eq!((output.status.code(), errors), (Some(1), 20), "{text}");
        // One more of the 58 is that there is no database.
        let more = if words[1] == "check" { "and 38 more errors" } else { "and 37 more errors" };
        assert_eq!(text.lines().last(), Some(&*format!("cmail-dispatchd: {more}")), "{text}");
    }
}

#[test]
fn what_check_accepts_starts_and_what_would_not_start_it_refuses() {
    for (lines, is_right) in [
        ("logfile log\npidfile pid\n", true),
        ("logfile missing/log\n", false),
        ("logfile .\n", false),
        ("pidfile missing/pid\n", false),
        ("pidfile .\n", false),
        ("record missing\n", false),
        ("tls_trustfile missing\n", false),
    ] {
        let scene = Scene::with_database("");
        fs::write(scene.path("test.conf"), scene.text("test.conf") + lines).unwrap();
        let before = scene.files();
        let checked = scene.run(["test.conf", "check"]);
        assert_eq!(checked.status.success(), is_right, "{lines}: {}", stderr(&checked));
        assert_eq!(scene.files(), before, "{lines}");
        if is_right {
            assert_succeeds(&scene.run(["test.conf"]));
            Background::of(&scene, "pid").terminate();
        } else {
            assert_eq!(stderr(&checked).lines().count(), 1, "{lines}: {}", stderr(&checked));
            assert_eq!(scene.run(["test.conf", "nodetach"]).status.code(), Some(1), "{lines}");
        }
    }
}

#[test]
fn check_warns_where_the_user_could_not_open_the_log_of_root() {
    if !nix::unistd::Uid::effective().is_root() {
        return crate::support::skip("only root opens logs for others");
    }
    let logs = tempfile::tempdir().unwrap();
    let scene = Scene::new(&format!("user nobody\nlogfile {}\n", logs.path().join("log").display()));
    let nobody = nix::unistd::User::from_name("nobody").unwrap().unwrap();
    std::os::unix::fs::chown(&scene.directory, Some(nobody.uid.as_raw()), None).unwrap();
    scene.run(["test.conf", "initdb"]);
    let output = scene.run(["test.conf", "check"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(
        stderr(&output).contains("the user of the daemon could not open the log file"),
        "{}",
        stderr(&output)
    );
}

#[test]
fn check_warns_of_what_only_looks_wrong() {
    let scene = Scene::with_database("announce mail\nbounce_copy postmaster\n");
    let output = scene.run(["test.conf", "check"]);
    assert_eq!(output.status.code(), Some(0));
    let text = stderr(&output);
    for warning in
        ["warning: test.conf:4: announce: mail has no dot", "test.conf:5: bounce_copy: \"postmaster\" is no"]
    {
        assert!(text.contains(warning), "{text}");
    }
}

#[test]
fn check_warns_of_what_is_ignored() {
    let scene = Scene::with_database("ratelimit 10\ntls_priorities NORMAL\n");
    let output = scene.run(["test.conf", "check"]);
    assert_eq!(output.status.code(), Some(0));
    let text = stderr(&output);
    assert!(
        text.contains("warning: test.conf:4: ratelimit: ") && text.contains("test.conf:5: tls_priorities: "),
        "{text}"
    );
}

#[test]
fn initdb_leaves_an_existing_file_alone() {
    let scene = Scene::new("");
    fs::write(scene.path("master.db"), "precious").unwrap();
    assert!(only_error(&scene.run(["test.conf", "initdb"])).contains("master.db"));
    assert_eq!(scene.text("master.db"), "precious");
}

#[test]
fn a_missing_database_is_told_on_standard_error_and_in_the_log() {
    for words in [["test.conf", "nodetach"], ["test.conf", "nodrop"], ["test.conf", "genbounces"]] {
        let scene = Scene::new("logfile log\npidfile pid\n");
        let error = only_error(&scene.run(words));
        assert!(error.contains("master.db") && error.contains("initdb"), "{error}");
        assert!(scene.text("log").trim_end().ends_with(&error), "{words:?}");
        // Nothing else was left behind by a start that failed.
        assert_eq!(scene.files(), ["log", "test.conf"], "{words:?}");
    }
}

#[test]
fn one_pass_over_an_empty_outbox_succeeds_without_a_pid_file() {
    let scene = Scene::with_database("logfile log\npidfile pid\n");
    for words in [["test.conf", "deliver", "example.org"], ["handoff", "relay.example", "test.conf"]] {
        assert_succeeds(&scene.run(words));
    }
    assert_succeeds(&scene.run(["genbounces", "test.conf"]));
    assert!(!scene.path("pid").exists());
}

#[test]
fn a_daemon_in_the_foreground_has_a_pid_file_until_it_ends() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let scene = Scene::with_database("pidfile pid\nverbosity 1\n");
        let mut daemon = scene.start_in_foreground();
        assert_eq!(scene.text("pid"), format!("{}\n", daemon.child.id()));
        daemon.send(signal);
        assert_eq!(daemon.child.wait().unwrap().code(), Some(0));
        assert!(!scene.path("pid").exists());
    }
}

#[test]
fn a_second_daemon_names_the_first_and_leaves_its_files_alone() {
    let scene = Scene::with_database("pidfile pid\nverbosity 1\n");
    let daemon = scene.start_in_foreground();
    let pid = daemon.child.id();
    for words in [["test.conf", "nodetach"], ["test.conf", "genbounces"]] {
        let output = scene.run(words);
        assert_eq!(output.status.code(), Some(1));
        let named =
            stderr(&output).split(|c: char| !c.is_ascii_digit()).any(|number| number == pid.to_string());
        assert!(named, "{}", stderr(&output));
    }
    assert_eq!(scene.text("pid"), format!("{pid}\n"));
    // A check may look at any time.
    assert_succeeds(&scene.run(["test.conf", "check"]));
}

#[test]
fn a_daemon_that_was_killed_does_not_block_the_next_one() {
    let scene = Scene::with_database("pidfile pid\nverbosity 1\n");
    let mut daemon = scene.start_in_foreground();
    daemon.send(Signal::SIGKILL);
    daemon.child.wait().unwrap();
    let mut next = scene.start_in_foreground();
    assert_eq!(scene.text("pid"), format!("{}\n", next.child.id()));
    next.send(Signal::SIGTERM);
    assert_eq!(next.child.wait().unwrap().code(), Some(0));
}

#[test]
fn with_a_log_file_the_daemon_goes_into_the_background_once_it_has_started() {
    let scene = Scene::with_database("logfile log\npidfile pid\nverbosity 1\n");
    // The command ends although the daemon, which has the same standard error at first, goes on.
    let mut command = scene.command(["test.conf"]);
    assert_succeeds(&command.output().unwrap());
    let daemon = Background::of(&scene, "pid");
    let link = |name: &str| fs::read_link(format!("/proc/{}/{name}", daemon.pid)).unwrap();
    assert_eq!(link("cwd"), Path::new("/"));
    for stream in ["fd/0", "fd/1", "fd/2"] {
        assert_eq!(link(stream), Path::new("/dev/null"));
    }
    let stat = fs::read_to_string(format!("/proc/{}/stat", daemon.pid)).unwrap();
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap().split(' ').collect();
    let (session, terminal) = (fields[3], fields[4]);
    assert_ne!(session, daemon.pid.to_string(), "a leader of a session could get a terminal");
    assert_eq!(terminal, "0");
    crate::support::wait_for_file(&scene.path("log"), |text| text.contains(" works on "));
    daemon.terminate();
    assert!(!scene.path("pid").exists());
}

#[test]
fn output_that_nobody_reads_is_an_error_and_no_crash() {
    let scene = Scene::with_database("");
    let mut command = scene.command(["test.conf", "check"]);
    let output = command.stdout(File::create("/dev/full").unwrap()).output().unwrap();
    assert!(only_error(&output).starts_with("standard output cannot be written"), "{}", stderr(&output));
}

#[test]
fn a_root_daemon_becomes_its_user_for_good() {
    if !nix::unistd::Uid::effective().is_root() {
        // Only root can drop privileges: for other users the directives have no effect, which is all that can be tested.
        let scene = Scene::with_database("user root\ngroup root\n");
        assert_succeeds(&scene.run(["test.conf", "genbounces"]));
        return;
    }
    let scene = Scene::new("user nobody\npidfile pid\nlogfile log\nverbosity 1\n");
    let nobody = nix::unistd::User::from_name("nobody").unwrap().unwrap();
    std::os::unix::fs::chown(&scene.directory, Some(nobody.uid.as_raw()), None).unwrap();
    let created = stdout(&scene.run(["test.conf", "initdb"]));
    assert!(created.contains("owner nobody:") && created.ends_with(", mode 0600\n"), "{created}");
    let owner = |name: &str| std::os::unix::fs::MetadataExt::uid(&fs::metadata(scene.path(name)).unwrap());
    assert_eq!(owner("master.db"), nobody.uid.as_raw());
    assert_succeeds(&scene.run(["test.conf", "check"]));
    assert_succeeds(&scene.run(["test.conf"]));
    let daemon = Background::of(&scene, "pid");
    let status = fs::read_to_string(format!("/proc/{}/status", daemon.pid)).unwrap();
    let field = |name: &str| -> Vec<u32> {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.split_whitespace().map(|id| id.parse().unwrap()).collect()
    };
    assert_eq!(field("Uid:"), [nobody.uid.as_raw(); 4]);
    assert_eq!(field("Gid:"), [nobody.gid.as_raw(); 4]);
    assert!(!field("Groups:").contains(&0));
    for name in scene.files().iter().filter(|name| name.starts_with("master.db")) {
        assert_eq!(owner(name), nobody.uid.as_raw(), "{name}");
    }
    daemon.terminate();
    assert!(!scene.path("pid").exists());
}

#[test]
fn a_pid_file_that_cannot_be_removed_is_emptied() {
    if !nix::unistd::Uid::effective().is_root() {
        return;
    }
    // A directory that the daemon may look into, and one that it may not.
    for mode in [0o755, 0o700] {
        assert_is_emptied_in_a_directory_of_root(mode);
    }
}

fn assert_is_emptied_in_a_directory_of_root(mode: u32) {
    let scene = Scene::new("user nobody\nlogfile log\n");
    let run = tempfile::tempdir().unwrap();
    fs::set_permissions(&run, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
    let pid_file = run.path().join("pid");
    let conf = scene.text("test.conf") + &format!("pidfile {}\n", pid_file.display());
    fs::write(scene.path("test.conf"), conf).unwrap();
    let nobody = nix::unistd::User::from_name("nobody").unwrap().unwrap();
    std::os::unix::fs::chown(&scene.directory, Some(nobody.uid.as_raw()), None).unwrap();
    assert_succeeds(&scene.run(["test.conf", "initdb"]));
    assert_succeeds(&scene.run(["test.conf"]));
    Background::of(&scene, pid_file.to_str().unwrap()).terminate();
    assert_eq!(fs::read_to_string(&pid_file).unwrap(), "", "{mode:o}");
}

#[test]
fn a_locked_database_does_not_hold_up_the_end() {
    let scene = Scene::with_database("pidfile pid\nverbosity 1\ninterval 1\n");
    let database = rusqlite::Connection::open(scene.path("master.db")).unwrap();
    // Without a write-ahead log a locked database cannot even be read.
    database.pragma_update_and_check(None, "journal_mode", "DELETE", |_| Ok(())).unwrap();
    let mut daemon = scene.start_in_foreground();
    database.execute_batch("BEGIN EXCLUSIVE").unwrap();
    // Its looks at the outbox wait for the lock now.
    daemon.send(Signal::SIGUSR2);
    let begin = std::time::Instant::now();
    daemon.send(Signal::SIGTERM);
    assert!(daemon.child.wait().unwrap().success());
    // A lock is waited for longer than this by one who is not asked to stop.
    assert!(begin.elapsed() < std::time::Duration::from_secs(4), "{:?}", begin.elapsed());
}

#[test]
fn a_pass_names_what_the_database_refuses_and_ends() {
    let scene = Scene::with_database("verbosity 1\n");
    let database = rusqlite::Connection::open(scene.path("master.db")).unwrap();
    // Another program keeps every failed attempt from being recorded.
    database
        .execute_batch(
            "INSERT INTO outbox (mail_remote, mail_envelopeto) VALUES ('malformed:', 'a@example.org');
             CREATE TRIGGER full BEFORE INSERT ON faillog BEGIN SELECT raise(ABORT, 'refused'); END;",
        )
        .unwrap();
    let output = scene.run(["test.conf", "handoff", "malformed:"]);
    assert_eq!(output.status.code(), Some(0));
    let told = stderr(&output);
    let refused = "ERROR a failed attempt of mail 1 to <a@example.org> cannot be recorded: refused; ";
    assert!(told.contains(refused), "{told}");
    assert_eq!(stdout(&output), "delivered 0, failed 0, deferred 1\n");
}

#[test]
fn a_daemon_that_lacks_descriptors_fails_before_it_says_that_it_has_started() {
    let scene = Scene::with_database("logfile log\npidfile pid\n");
    for limit in 3..20 {
        let mut limited = Command::new("prlimit");
        limited.arg(format!("--nofile={limit}:{limit}")).arg(env!("CARGO_BIN_EXE_cmail-dispatchd"));
        let status = limited.arg("test.conf").current_dir(&scene.directory).stderr(Stdio::null()).status();
        if status.unwrap().success() {
            assert_ne!(scene.text("pid"), "", "the daemon runs");
            return Background::of(&scene, "pid").terminate();
        }
        assert!(!scene.path("pid").exists(), "{limit}");
    }
    panic!("so many descriptors are enough");
}

#[test]
fn a_configuration_named_like_a_word_is_found() {
    let scene = Scene::with_database("");
    fs::rename(scene.path("test.conf"), scene.path("check")).unwrap();
    assert_succeeds(&scene.run(["./check", "check"]));
}
