//! Finds out which process holds a lock.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use cmail_delivery::one_line::OneLine;
use nix::errno::Errno;
use nix::sys::signal::kill;
use nix::sys::stat::{major, minor};
use nix::unistd::Pid;

use super::paths::FileId;

/// Returns the process that has locked a file by `flock`; `None` if the system does not show it, as in another container.
pub(super) fn flock_holder(id: FileId) -> Option<i32> {
    lock_holder(id, "FLOCK")
}

/// Returns the process that keeps a part of a file from being read by others, as SQLite does while it writes; `None` if the system does
/// not show it.
pub(super) fn range_lock_holder(id: FileId) -> Option<i32> {
    lock_holder(id, "POSIX")
}

fn lock_holder(id: FileId, kind: &str) -> Option<i32> {
    let place = format!("{:02x}:{:02x}:{}", major(id.device), minor(id.device), id.inode);
    let locks = std::fs::read_to_string("/proc/locks").ok()?;
    locks.lines().find_map(|line| holder_in(line, kind, &place))
}

/// Names a process with its program.
pub(super) fn described(pid: i32) -> String {
    let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    match name.trim() {
        "" => format!("process {pid}"),
        name => format!("process {pid} ({})", OneLine(name)),
    }
}

/// Returns the process that a line of `/proc/locks` names, such as `1: FLOCK  ADVISORY  WRITE 4711 fd:01:131 0 EOF`.
fn holder_in(line: &str, kind: &str, place: &str) -> Option<i32> {
    let words: Vec<&str> = line.split_whitespace().collect();
    match words[..] {
        [_, found_kind, _, "WRITE", pid, found, ..] if found_kind == kind && found == place => {
            pid.parse().ok().filter(|pid| *pid > 0)
        }
        _ => None,
    }
}

/// Returns the living process that the lock file names.
pub(super) fn holder(path: &Path) -> Option<i32> {
    let mut text = String::new();
    File::open(path).ok()?.take(32).read_to_string(&mut text).ok()?;
    let pid = text.strip_suffix('\n')?.parse().ok().filter(|pid| *pid > 0)?;
    match kill(Pid::from_raw(pid), None) {
        Ok(()) | Err(Errno::EPERM) => Some(pid),
        Err(_) => None,
    }
}

#[cfg(test)]
mod tests;
