//! Tells the service manager that has started the daemon how it stands: sd_notify(3).
//!
//! Without `NOTIFY_SOCKET` in the environment nothing of this happens. The socket never makes the daemon wait: what a manager
//! does not read is lost.

use std::env;
use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::{Duration, Instant};

use log::warn;
use sd_notify::NotifyState;

/// The shortest time between two lines of status.
const STATUS_INTERVAL: Duration = Duration::from_secs(10);

/// The watchdog is told so many times in the time after which it acts.
const WATCHDOG_FRACTION: u32 = 3;

/// How much more time the start gets, while another program keeps the database locked. It is asked for at each
/// [`EXTENSION_INTERVAL`].
const START_EXTENSION: Duration = Duration::from_secs(30);
const EXTENSION_INTERVAL: Duration = Duration::from_secs(5);

/// The service manager.
#[derive(Debug)]
pub struct ServiceManager {
    socket: UnixDatagram,
    /// Whether the log has said that the manager cannot be told.
    has_complained: bool,
    /// The status that was sent last.
    status: String,
    next_status: Instant,
    /// How often the watchdog is told, and when next; nothing if there is none.
    watchdog: Option<(Duration, Instant)>,
    next_extension: Instant,
}

impl ServiceManager {
    /// Returns the service manager, if the environment names one. To be called by the process that it has started: the
    /// environment names that one.
    pub fn of_environment() -> Option<Self> {
        let path = env::var_os("NOTIFY_SOCKET")?;
        let socket = connect(&path)
            .inspect_err(|error| {
                warn!("the socket {} of the service manager cannot be used: {error}", path.display())
            })
            .ok()?;
        let now = Instant::now();
        // A watchdog of no time is none.
        let watchdog = sd_notify::watchdog_enabled().filter(|limit| !limit.is_zero());
        let watchdog = watchdog.map(|limit| (limit / WATCHDOG_FRACTION, now));
        let (status, has_complained) = (String::new(), false);
        Some(Self { socket, has_complained, status, next_status: now, watchdog, next_extension: now })
    }

    /// The daemon works from now on.
    pub fn ready(&mut self) {
        self.tell(&[NotifyState::MainPid(std::process::id()), NotifyState::Ready]);
    }

    /// The start takes longer, for a reason.
    pub fn extend_start(&mut self, why: &str) {
        let now = Instant::now();
        if now < self.next_extension {
            return;
        }
        self.next_extension = now + EXTENSION_INTERVAL;
        let extension_us = u32::try_from(START_EXTENSION.as_micros()).unwrap_or(u32::MAX);
        self.tell(&[
            NotifyState::MainPid(std::process::id()),
            NotifyState::ExtendTimeoutUsec(extension_us),
            NotifyState::Status(why),
        ]);
    }

    /// The configuration is read again.
    pub fn reloading(&mut self) {
        match NotifyState::monotonic_usec_now() {
            // Without the time systemd would wait for it in vain.
            Ok(time) => self.tell(&[NotifyState::Reloading, time]),
            Err(error) => warn!("the monotonic clock cannot be read: {error}"),
        }
    }

    /// That is over, whether the configuration was taken or not.
    pub fn reloaded(&mut self) {
        self.tell(&[NotifyState::Ready]);
    }

    /// The daemon ends.
    pub fn stopping(&mut self) {
        self.tell(&[NotifyState::Stopping]);
    }

    /// Returns when to call [`tick`](Self::tick).
    pub fn next_tick(&self) -> Instant {
        self.watchdog.map_or(self.next_status, |(_, at)| at.min(self.next_status))
    }

    /// Tells what is due: the status, if it has changed, and the watchdog, unless something is wrong.
    pub fn tick(&mut self, now: Instant, status: impl FnOnce() -> String, is_healthy: impl FnOnce() -> bool) {
        if now >= self.next_status {
            self.next_status = now + STATUS_INTERVAL;
            let status = status();
            if status != self.status {
                self.tell(&[NotifyState::Status(&status)]);
                self.status = status;
            }
        }
        if let Some((interval, at)) = &mut self.watchdog
            && now >= *at
        {
            *at = now + *interval;
            if is_healthy() {
                self.tell(&[NotifyState::Watchdog]);
            }
        }
    }

    fn tell(&mut self, states: &[NotifyState<'_>]) {
        let lines: String = states.iter().map(|state| format!("{state}\n")).collect();
        let told = self.socket.send(lines.as_bytes());
        if let Err(error) = told
            && !std::mem::replace(&mut self.has_complained, true)
        {
            warn!("the service manager cannot be told how the daemon stands: {error}");
        }
    }
}

/// Connects to a socket by its path, or by its abstract name after an `@`.
fn connect(path: &OsStr) -> io::Result<UnixDatagram> {
    let address = match path.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(path)?,
    };
    let socket = UnixDatagram::unbound()?;
    socket.connect_addr(&address)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}
