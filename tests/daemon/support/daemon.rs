//! The built binary as a child process.

use super::PATIENCE;
use super::shim::Shim;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

const PROGRAM: &str = env!("CARGO_BIN_EXE_cmail-dispatchd");

#[derive(Default)]
struct Output {
    text: Mutex<(String, bool)>,
    grown: Condvar,
}

/// A running daemon. It is killed when dropped; its standard error is shown when the test fails.
pub(crate) struct Daemon {
    child: Child,
    stderr: Arc<Output>,
}

/// What a program that ended left behind.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    pub(crate) took: Duration,
}

impl Finished {
    pub(crate) fn code(&self) -> Option<i32> {
        self.status.code()
    }
}

impl Daemon {
    pub(crate) fn spawn<S: AsRef<OsStr>>(config: &Path, words: &[S]) -> Self {
        let mut command = Command::new(PROGRAM);
        command.arg(config).args(words);
        Self::spawn_command(command)
    }

    /// With a variable in its environment.
    pub(crate) fn spawn_with_variables(variables: &[(&str, &OsStr)], config: &Path, words: &[&str]) -> Self {
        let mut command = Command::new(PROGRAM);
        command.envs(variables.iter().copied()).arg(config).args(words);
        Self::spawn_command(command)
    }

    /// With a limit on open files.
    pub(crate) fn spawn_with_descriptors(limit: u32, config: &Path, words: &[&str]) -> Self {
        Self::spawn_limited(&format!("-n {limit}"), config, words)
    }

    /// With a limit on memory, in KiB of address space.
    pub(crate) fn spawn_with_memory(limit_kib: u32, config: &Path, words: &[&str]) -> Self {
        Self::spawn_limited(&format!("-v {limit_kib}"), config, words)
    }

    /// With a limit that only a shell can set without unsafe code.
    fn spawn_limited(limit: &str, config: &Path, words: &[&str]) -> Self {
        let mut command = Command::new("sh");
        command.arg("-c").arg(format!("ulimit {limit} && exec \"$0\" \"$@\"")).arg(PROGRAM);
        command.arg(config).args(words);
        Self::spawn_command(command)
    }

    /// With clocks and a disk that the test has a hand in.
    pub(crate) fn spawn_with_shim(shim: &Shim, config: &Path, words: &[&str]) -> Self {
        let mut command = Command::new(PROGRAM);
        command.arg(config).args(words);
        shim.preload(&mut command);
        Self::spawn_command(command)
    }

    /// The same, to its end.
    pub(crate) fn run_with_shim(shim: &Shim, config: &Path, words: &[&str]) -> Finished {
        Self::spawn_with_shim(shim, config, words).finish()
    }

    /// With files of its own in the place of those of the system, which only root can do: nothing otherwise, which is
    /// told. Each is a source and what it stands for.
    pub(crate) fn spawn_with_files(files: &[(&Path, &str)], config: &Path, words: &[&str]) -> Option<Self> {
        let can = Command::new("unshare").args(["-m", "true"]).stderr(Stdio::null()).status();
        if !nix::unistd::Uid::effective().is_root() || !can.is_ok_and(|status| status.success()) {
            super::skip("it takes root, and a mount namespace");
            return None;
        }
        let mut script = "mount --make-rprivate /".to_owned();
        for (source, target) in files {
            script += &format!(" && mount --bind '{}' {target}", source.display());
        }
        let mut command = Command::new("unshare");
        command.args(["-m", "sh", "-c"]).arg(format!("{script} && exec \"$0\" \"$@\"")).arg(PROGRAM);
        command.arg(config).args(words);
        Some(Self::spawn_command(command))
    }

    /// With files that cannot grow beyond so many octets; [`Daemon::lift_file_size_limit`] ends that.
    pub(crate) fn spawn_with_file_size(limit: u64, config: &Path, words: &[&str]) -> Self {
        let mut command = Command::new("prlimit");
        command.arg(format!("--fsize={limit}:unlimited")).arg(PROGRAM).arg(config).args(words);
        Self::spawn_command(command)
    }

    pub(crate) fn lift_file_size_limit(&self) {
        let mut command = Command::new("prlimit");
        command.arg(format!("--pid={}", self.pid())).arg("--fsize=unlimited:unlimited");
        assert!(command.status().unwrap().success());
    }

    /// With a standard error that nobody reads: the other end of the pipe is closed.
    pub(crate) fn spawn_unheard(config: &Path, words: &[&str]) -> Self {
        let mut command = Command::new(PROGRAM);
        command.arg(config).args(words).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        drop(child.stderr.take());
        Self { child, stderr: Arc::default() }
    }

    /// With a limit on the size of files, in blocks of 512 octets.
    pub(crate) fn spawn_with_file_limit(blocks: u64, config: &Path, words: &[&str]) -> Self {
        let mut command = Command::new("sh");
        // What a shell ignores is ignored by what it executes.
        let script = format!("trap '' XFSZ; ulimit -f {blocks} && exec \"$0\" \"$@\"");
        command.arg("-c").arg(script).arg(PROGRAM);
        command.arg(config).args(words);
        Self::spawn_command(command)
    }

    /// With a standard error that is a pipe which nobody reads until the test does.
    pub(crate) fn spawn_unread(config: &Path, words: &[&str]) -> (Self, ChildStderr) {
        let mut command = Command::new(PROGRAM);
        command.arg(config).args(words).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let unread = child.stderr.take().unwrap();
        (Self { child, stderr: Arc::default() }, unread)
    }

    /// With a standard error that is a pipe without room.
    pub(crate) fn spawn_full(config: &Path, words: &[&str]) -> (Self, File) {
        let (reader, writer) = nix::unistd::pipe().unwrap();
        let mut writer = File::from(writer);
        nix::fcntl::fcntl(&writer, nix::fcntl::FcntlArg::F_SETFL(nix::fcntl::OFlag::O_NONBLOCK)).unwrap();
        while writer.write(&[b'x'; 4096]).is_ok() {}
        nix::fcntl::fcntl(&writer, nix::fcntl::FcntlArg::F_SETFL(nix::fcntl::OFlag::empty())).unwrap();
        let mut command = Command::new(PROGRAM);
        command.arg(config).args(words).stdin(Stdio::null()).stdout(Stdio::null()).stderr(writer);
        (Self { child: command.spawn().unwrap(), stderr: Arc::default() }, reader.into())
    }

    /// Begins to read a standard error that was not read so far.
    pub(crate) fn read(&self, unread: ChildStderr) {
        let sink = Arc::clone(&self.stderr);
        std::thread::spawn(move || collect(unread, &sink));
    }

    fn spawn_command(mut command: Command) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let stderr = Arc::new(Output::default());
        let (sink, source) = (Arc::clone(&stderr), child.stderr.take().unwrap());
        std::thread::spawn(move || collect(source, &sink));
        Self { child, stderr }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(i32::try_from(self.child.id()).unwrap()), signal).unwrap();
    }

    /// By number, since not all signals have names.
    pub(crate) fn signal_by_number(&self, number: i32) {
        let mut command = Command::new("sh");
        command.arg("-c").arg(format!("kill -{number} {}", self.pid()));
        assert!(command.status().unwrap().success(), "signal {number}");
    }

    /// Asks it to end, and asserts that it does so in time and well.
    pub(crate) fn terminate(mut self) -> String {
        let asked = Instant::now();
        self.signal(Signal::SIGTERM);
        let status = self.wait_for_exit(Duration::from_secs(10));
        assert_eq!(status.code(), Some(0), "exit status {status}; {}", self.stderr());
        let took = asked.elapsed();
        assert!(took < Duration::from_secs(7), "the daemon took {took:?} to end");
        self.stderr()
    }

    /// As if the machine had lost power, for the process at least.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    pub(crate) fn stderr(&self) -> String {
        self.stderr.text.lock().unwrap().0.clone()
    }

    /// Blocks until it delivers: a mail put into the outbox for this purpose was looked at.
    pub(crate) fn wait_until_ready(&self, world: &super::World) {
        let probe = world.insert(&super::Mail::to("probe@probe.invalid").null_sender());
        world.database.wait("the daemon works", |database| database.row(probe).is_none());
    }

    /// Blocks until no SIGTERM is pending for the process, so that what follows happens after it was taken.
    pub(crate) fn wait_for_signal_taken(&self) {
        let deadline = Instant::now() + PATIENCE;
        let pending = || {
            let status =
                std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap_or_default();
            let masks =
                status.lines().filter(|line| line.starts_with("SigPnd:") || line.starts_with("ShdPnd:"));
            masks
                .filter_map(|line| u64::from_str_radix(line[7..].trim(), 16).ok())
                .any(|mask| mask & (1 << 14) != 0)
        };
        while pending() {
            assert!(Instant::now() < deadline, "SIGTERM is never taken");
            std::thread::park_timeout(Duration::from_millis(10));
        }
    }

    /// Blocks until standard error holds this text.
    pub(crate) fn wait_for_output(&self, text: &str) -> String {
        self.wait_for_outputs(text, 1)
    }

    /// Blocks until standard error holds this text so many times.
    pub(crate) fn wait_for_outputs(&self, text: &str, count: usize) -> String {
        let guard = self.stderr.text.lock().unwrap();
        let is_there = |output: &str| output.matches(text).count() >= count;
        let missing = |(output, ended): &mut (String, bool)| !is_there(output) && !*ended;
        let (guard, _) = self.stderr.grown.wait_timeout_while(guard, PATIENCE, missing).unwrap();
        assert!(is_there(&guard.0), "{text:?} did not appear {count} times in:\n{}", guard.0);
        guard.0.clone()
    }

    /// Blocks until the process ended, or panics. A child's end cannot be waited for with a limit by std,
    /// so this asks in a bounded loop.
    pub(crate) fn wait_for_exit(&mut self, limit: Duration) -> ExitStatus {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < deadline, "the daemon did not end within {limit:?}");
            std::thread::park_timeout(Duration::from_millis(10));
        }
    }

    /// Runs it to its end, as the one-shot modes do.
    pub(crate) fn run<S: AsRef<OsStr>>(config: &Path, words: &[S]) -> Finished {
        Self::spawn(config, words).finish()
    }

    /// The same, started in another directory.
    pub(crate) fn run_in(directory: &Path, config: &Path, words: &[&str]) -> Finished {
        Self::spawn_in(directory, config, words).finish()
    }

    /// Starts it in another directory.
    pub(crate) fn spawn_in(directory: &Path, config: &Path, words: &[&str]) -> Self {
        let mut command = Command::new(PROGRAM);
        command.current_dir(directory).arg(config).args(words);
        Self::spawn_command(command)
    }

    fn finish(mut self) -> Finished {
        let started = Instant::now();
        let daemon = &mut self;
        let mut stdout = daemon.child.stdout.take().unwrap();
        let reader = std::thread::spawn(move || {
            let mut text = String::new();
            let _ = stdout.read_to_string(&mut text);
            text
        });
        let status = daemon.wait_for_exit(PATIENCE * 2);
        let guard = daemon.stderr.text.lock().unwrap();
        let ended = daemon.stderr.grown.wait_timeout_while(guard, PATIENCE, |output| !output.1).unwrap();
        let stderr = ended.0.0.clone();
        drop(ended);
        Finished { status, stdout: reader.join().unwrap(), stderr, took: started.elapsed() }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- the daemon said ---\n{}", self.stderr());
        }
    }
}

fn collect(source: impl Read, sink: &Output) {
    let mut lines = BufReader::new(source);
    let mut line = Vec::new();
    while lines.read_until(b'\n', &mut line).is_ok_and(|count| count > 0) {
        sink.text.lock().unwrap().0.push_str(&String::from_utf8_lossy(&line));
        sink.grown.notify_all();
        line.clear();
    }
    sink.text.lock().unwrap().1 = true;
    sink.grown.notify_all();
}
