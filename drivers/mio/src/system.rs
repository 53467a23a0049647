//! The system's files: resolv.conf, the hosts file and the trusted certificates. They are read at the start, after a change,
//! and when the administrator asks for it. If one cannot be read, what was read before stays in use.

use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use cmail_delivery::settings::{Hosts, ResolverSettings};
use log::{info, warn};

use crate::config::Config;
use crate::hosts;
use crate::logging::event;
use crate::resolv_conf::ResolverSource;
use crate::shown;
use crate::tls::{self, TlsContext, TlsFiles};

/// The longest time between two looks at the files. A look costs a few system calls, and this is soon enough for a network
/// that comes up after the daemon.
const LONGEST_LOOK_INTERVAL: Duration = Duration::from_secs(10);

/// Why the files are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Occasion {
    /// It is time to find out whether they have changed.
    Schedule,
    /// The administrator asks to reread all of them.
    Request,
}

/// The content of the files that were reread.
#[derive(Debug, Default)]
pub struct SystemNews {
    /// The names of `/etc/hosts`.
    pub hosts: Option<Hosts>,
    /// The settings of the resolver.
    pub resolver: Option<ResolverSettings>,
    /// The trusted certificates.
    pub tls: Option<TlsContext>,
}

/// The system's files, and which version of each was read.
#[derive(Debug)]
pub struct System {
    resolver: ResolverSource,
    resolver_file: Watched,
    /// The settings that the resolver has.
    resolver_settings: ResolverSettings,
    /// Whether a name server is behind an interface that does not exist yet.
    lacks_interface: bool,
    hosts_path: PathBuf,
    hosts_file: Watched,
    trust_file: Option<PathBuf>,
    /// Whether the system's authorities are trusted besides those of the file, where hosts of domains are judged.
    verifies_hosts: bool,
    trust_files: Watched,
    look_interval: Duration,
    next_look: Instant,
}

impl System {
    /// Notes the present version of each file. To be called before the files are read, so that no later change is missed.
    pub fn new(config: &Config, hosts_path: &Path) -> Self {
        let look_interval = config.settings.interval.min(LONGEST_LOOK_INTERVAL);
        Self {
            // It was read with the configuration, before this: so the first look rereads it.
            resolver_file: Watched::never_seen([config.resolver.file.clone()]),
            resolver: config.resolver.clone(),
            resolver_settings: config.settings.resolver.clone(),
            lacks_interface: false,
            hosts_path: hosts_path.to_owned(),
            hosts_file: Watched::new([hosts_path.to_owned()]),
            trust_files: Watched::new(tls::files(config.trust_file.as_deref())),
            trust_file: config.trust_file.clone(),
            verifies_hosts: TlsFiles::of(None, &config.settings).verifies_hosts,
            look_interval,
            next_look: Instant::now() + look_interval,
        }
    }

    /// Goes by another configuration. `reads_trust_file` tells that its trusted certificates are those of another file.
    pub fn reconfigure(&mut self, config: &Config, reads_trust_file: bool) {
        // The servers may come from the file only now, or not from it any more.
        if self.resolver != config.resolver {
            self.resolver_file = Watched::never_seen([config.resolver.file.clone()]);
        }
        self.resolver = config.resolver.clone();
        self.resolver_settings = config.settings.resolver.clone();
        self.look_interval = config.settings.interval.min(LONGEST_LOOK_INTERVAL);
        self.next_look = self.next_look.min(Instant::now() + self.look_interval);
        self.verifies_hosts = TlsFiles::of(None, &config.settings).verifies_hosts;
        if reads_trust_file {
            self.trust_files = Watched::new(tls::files(config.trust_file.as_deref()));
            self.trust_file.clone_from(&config.trust_file);
        }
    }

    /// Returns the settings that the resolver has.
    pub fn resolver_settings(&self) -> &ResolverSettings {
        &self.resolver_settings
    }

    /// Returns when to look for changes next.
    pub fn next_look(&self) -> Instant {
        self.next_look
    }

    /// Rereads the files that have changed, if it is time to look for changes.
    pub fn look(&mut self, now: Instant) -> Option<SystemNews> {
        if now < self.next_look {
            return None;
        }
        self.next_look = now + self.look_interval;
        Some(self.read(Occasion::Schedule))
    }

    /// Reads the names of `/etc/hosts`; `None`, with a warning, if it cannot be read.
    pub fn hosts(&self) -> Option<Hosts> {
        let read = hosts::read(&self.hosts_path);
        let path = shown::path(&self.hosts_path);
        read.inspect_err(|error| warn!(event = event::RELOAD; "{path} cannot be read: {error}")).ok()
    }

    /// Reads all files on request, else those that have changed.
    pub fn read(&mut self, occasion: Occasion) -> SystemNews {
        let is_requested = occasion == Occasion::Request;
        let resolver = self.read_resolver(is_requested);
        let mut news = SystemNews { resolver, ..SystemNews::default() };
        if self.hosts_file.note_change() | is_requested {
            news.hosts = self.hosts();
        }
        if self.trust_files.note_change() | is_requested {
            news.tls = self.trust();
        }
        if !is_requested && news.hosts.is_some() {
            info!(event = event::RELOAD; "{} has changed and was read again", shown::path(&self.hosts_path));
        }
        if !is_requested && news.tls.is_some() {
            info!(event = event::RELOAD; "the trusted certificates have changed and were read again");
        }
        news
    }

    fn read_resolver(&mut self, is_requested: bool) -> Option<ResolverSettings> {
        let is_first = self.resolver_file.was_never_seen();
        let has_changed = self.resolver_file.note_change();
        if !has_changed && !is_requested && !self.lacks_interface {
            return None;
        }
        let path = self.resolver.file.clone();
        let path = shown::path(&path);
        let file = match self.resolver.read() {
            Ok(file) => file,
            Err(error) => {
                // The first failure was reported with the configuration.
                if self.resolver.given.is_empty() && !is_first {
                    warn!(event = event::RELOAD; "{path} cannot be read, so the name servers stay as they are: {error}");
                }
                return is_requested.then(|| self.resolver_settings.clone());
            }
        };
        let settings = self.resolver.settings(&file);
        self.lacks_interface = file.lacks_interface;
        let is_news = settings != self.resolver_settings;
        if is_news || (has_changed && !is_first) || is_requested {
            for (line, complaint) in self.resolver.complaints(file) {
                warn!(event = event::RELOAD; "{path}:{line}: {complaint}");
            }
        }
        if is_news {
            let servers: Vec<String> = settings.servers.iter().map(ToString::to_string).collect();
            info!(event = event::RELOAD; "{path} has changed: name servers {}", servers.join(", "));
        }
        self.resolver_settings = settings.clone();
        (is_news || is_requested || (has_changed && !is_first)).then_some(settings)
    }

    fn trust(&self) -> Option<TlsContext> {
        match TlsContext::load_trust(self.trust_file.as_deref(), self.verifies_hosts) {
            Ok(context) if context.trusts_anybody() => Some(context),
            // The reason was logged when the certificates were read.
            Ok(_) => None,
            Err(error) => {
                warn!(event = event::RELOAD; "{error}; the certificates that were read before stay trusted");
                None
            }
        }
    }
}

/// Files and directories, and the version of each that was seen last.
#[derive(Debug)]
struct Watched {
    paths: Vec<PathBuf>,
    /// `None` before the first look.
    versions: Option<Vec<[Option<FileVersion>; 2]>>,
}

/// A version of a file. Only the kernel sets the time of the last change of an inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct FileVersion {
    device: u64,
    inode: u64,
    octets: u64,
    changed: (i64, i64),
}

impl From<Metadata> for FileVersion {
    fn from(metadata: Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            octets: metadata.size(),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

impl Watched {
    fn new(paths: impl IntoIterator<Item = PathBuf>) -> Self {
        let mut watched = Self::never_seen(paths);
        watched.note_change();
        watched
    }

    fn never_seen(paths: impl IntoIterator<Item = PathBuf>) -> Self {
        Self { paths: paths.into_iter().collect(), versions: None }
    }

    fn was_never_seen(&self) -> bool {
        self.versions.is_none()
    }

    /// Notes the present versions of the files, and returns whether they have changed since the last call. To be called
    /// before the files are read.
    fn note_change(&mut self) -> bool {
        // If a file is a symbolic link, the link or its target may change.
        let version = |path: &PathBuf| {
            [fs::symlink_metadata(path), fs::metadata(path)]
                .map(|metadata| metadata.ok().map(FileVersion::from))
        };
        let now = Some(self.paths.iter().map(version).collect());
        let has_changed = self.versions != now;
        self.versions = now;
        has_changed
    }
}

#[cfg(test)]
mod tests;
