//! The configuration: what the file says, completed by what this host says.
//!
//! [`DIRECTIVES`] is the one table of all directives. [`Directives::parse`] reads a file by it without asking the host
//! anything; [`Config::load`] completes the result.

mod credentials;
mod destination;
mod directive;
mod directives;
mod dkim;
mod errors;
mod glance;
mod parser;
mod policy_lines;
mod reload;
mod report;
mod settings;
mod table;
mod tls_policy;
mod values;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::{IpAddr, ToSocketAddrs as _};
use std::path::{self, Path, PathBuf};

use cmail_delivery::failure_pattern::FailurePattern;
use cmail_delivery::mail_pattern::MailPattern;
use cmail_delivery::policy::LocalAddresses;
use cmail_delivery::retry_rule::RetryRule;
use cmail_delivery::settings::{NameServer, ResolverSettings, Settings};
use cmail_delivery::tls::TlsPolicy;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::{self, PemObject as _};

pub use self::credentials::CredentialsError;
pub use self::destination::DestinationError;
pub(crate) use self::destination::{key_of, show_destination, value_of};
pub use self::directive::{Directive, Fallback, Kind, Located, Repeat};
pub use self::directives::Directives;
pub use self::errors::{ConfigError, ConfigWarning, Reason};
pub(crate) use self::glance::Glance;
pub use self::reload::{Change, Changes, OnReload};
pub use self::report::{manual_page_list, manual_table};
pub use self::table::DIRECTIVES;
pub use self::tls_policy::TlsPolicyError;
pub use self::values::ValueError;
pub(crate) use self::values::{seconds, show_port};

use crate::control::ControlPlace;
use crate::dkim::KeyRing;
use crate::logging::{LogFormat, journal};
use crate::monitor::MetricsAddress;
use crate::overview::CountedDestination;
use crate::privileges::{Account, Identity};
use crate::resolv_conf::{self, Dnssec, ResolvConf, ResolverSource};
use crate::shown;
use crate::store::LedgerSettings;

/// Most errors of a configuration that are told one by one; a longer list would not help.
pub(crate) const ERRORS_LIMIT: usize = 20;

/// A complete and valid configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// The file it comes from.
    pub file: PathBuf,
    /// The settings of the core.
    pub settings: Settings,
    /// How much is logged, 0 to 4.
    pub verbosity: u8,
    /// The format of the log.
    pub logformat: LogFormat,
    /// The log file; `None` for standard error. Absolute, like all paths here.
    pub logfile: Option<PathBuf>,
    /// The pid file.
    pub pidfile: Option<PathBuf>,
    /// The master database.
    pub database: PathBuf,
    /// The directory for recorded conversations.
    pub record: Option<PathBuf>,
    /// Where clients connect to ask for metrics.
    pub metrics: Option<MetricsAddress>,
    /// The destinations that the metrics count by themselves.
    pub(crate) metrics_destinations: Vec<CountedDestination>,
    /// Where the operator's tool asks the daemon.
    pub(crate) control: ControlPlace,
    /// Where users hand over messages who may not write the database.
    pub submit: Option<PathBuf>,
    /// The most octets of such a message, counted once for each recipient.
    pub submit_size_octets: usize,
    /// The user and group to become when started as root.
    pub identity: Identity,
    /// The file of trusted authorities, which holds at least one certificate; `None` for the system's trust store.
    pub trust_file: Option<PathBuf>,
    /// The files with secrets: credentials of relays, and keys to sign with.
    pub credentials_files: Vec<PathBuf>,
    /// The keys that mail is signed with.
    pub(crate) keys: KeyRing,
    /// What the ledger of attempts has, and for how long.
    pub(crate) ledger: LedgerSettings,
    /// The source of the resolver's settings.
    pub resolver: ResolverSource,
    /// What the administrator should know although it is not an error.
    pub warnings: Vec<ConfigWarning>,
    directives: Directives,
}

/// The facts about the host that complete a configuration, besides users, groups and the addresses of names.
#[derive(Debug)]
pub struct Environment {
    /// The host's name.
    pub host_name: io::Result<String>,
    /// The path of resolv.conf, which names the DNS servers.
    pub resolv_conf: PathBuf,
    /// The directory that relative paths begin in: that in which the program was started.
    pub directory: io::Result<PathBuf>,
    /// Whether a log is to be written, so that the place for it must be there.
    pub needs_log: bool,
}

impl Environment {
    /// Returns the environment of this process.
    pub fn of_this_host() -> Self {
        Self {
            host_name: host_name(),
            resolv_conf: resolv_conf::PATH.into(),
            directory: std::env::current_dir(),
            needs_log: true,
        }
    }

    /// Returns the environment as it is now, in which relative paths begin where they did.
    pub fn refreshed(&self) -> Self {
        let directory = self.absolute(Path::new("."));
        let needs_log = self.needs_log;
        Self { host_name: host_name(), resolv_conf: self.resolv_conf.clone(), directory, needs_log }
    }

    /// Returns the absolute form of a path.
    pub fn absolute(&self, path: &Path) -> io::Result<PathBuf> {
        if path.is_absolute() || path.as_os_str().is_empty() {
            return path::absolute(path);
        }
        match &self.directory {
            Ok(directory) => path::absolute(directory.join(path)),
            Err(error) => Err(io::Error::new(error.kind(), error.to_string())),
        }
    }
}

impl Config {
    /// Reads and completes the configuration file, or returns everything that is wrong with it.
    pub fn load(file: &Path, environment: &Environment) -> Result<Self, Rejection> {
        match fs::read(file) {
            Ok(octets) => Self::from_octets(file, &octets, environment),
            Err(error) => {
                let errors = vec![ConfigError::new(file, None, "", Reason::Unreadable(error))];
                Err(Rejection { errors, ..Rejection::default() })
            }
        }
    }

    /// Reads and completes a configuration file where no database is needed; one that is not there counts as empty.
    pub(crate) fn without_database(
        file: &Path,
        environment: &Environment,
        keys: SigningKeys,
    ) -> Result<Self, Rejection> {
        let mut octets = match fs::read(file) {
            Ok(octets) => octets,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(_) => return Self::load(file, environment),
        };
        if Directives::parse(file, &octets).0.database.is_none() {
            // Nothing can ever be opened there.
            octets.extend_from_slice(b"\ndatabase /\n");
        }
        Self::completed(file, &octets, environment, keys)
    }

    /// Completes the configuration file whose content is `octets`.
    pub fn from_octets(file: &Path, octets: &[u8], environment: &Environment) -> Result<Self, Rejection> {
        Self::completed(file, octets, environment, SigningKeys::Read)
    }

    fn completed(
        file: &Path,
        octets: &[u8],
        environment: &Environment,
        signing_keys: SigningKeys,
    ) -> Result<Self, Rejection> {
        let (directives, errors) = Directives::parse(file, octets);
        let mut completion = Completion {
            file,
            environment,
            signing_keys,
            errors,
            warnings: Vec::new(),
            credentials_files: Vec::new(),
        };
        let database = directives.database.as_ref();
        let database = database.and_then(|text| environment.absolute(Path::new(&*text.value)).ok());
        match completion.complete(directives) {
            Some(config) if completion.errors.is_empty() => Ok(config),
            Some(_) | None => {
                Err(Rejection { errors: completion.errors, warnings: completion.warnings, database })
            }
        }
    }
}

fn host_name() -> io::Result<String> {
    Ok(nix::unistd::gethostname()?.to_string_lossy().into_owned())
}

/// Everything that is wrong with a configuration; it has at least one error.
#[derive(Debug, Default)]
pub struct Rejection {
    /// The errors.
    pub errors: Vec<ConfigError>,
    /// What else the administrator should know.
    pub warnings: Vec<ConfigWarning>,
    /// The database, if the file names one, so that `check` can check it too.
    pub database: Option<PathBuf>,
}

/// What SQLite and this program keep beside the database, by what their paths have more than its path.
const BESIDE_DATABASE: [&str; 3] = ["-journal", "-wal", "-shm"];

/// Whether the keys of `dkim_key` lines are read, which only the daemon may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SigningKeys {
    /// They are, and each must be usable.
    Read,
    /// Nothing is to be signed.
    Unread,
}

/// Completes [`Directives`] to a [`Config`]. It goes on after an error, to find all of them.
struct Completion<'a> {
    file: &'a Path,
    environment: &'a Environment,
    signing_keys: SigningKeys,
    errors: Vec<ConfigError>,
    warnings: Vec<ConfigWarning>,
    credentials_files: Vec<PathBuf>,
}

impl Completion<'_> {
    /// Returns the configuration unless there are errors.
    fn complete(&mut self, directives: Directives) -> Option<Config> {
        for Located { line, value: (directive, text) } in &directives.warnings {
            self.warn(Some(*line), directive, text.clone());
        }
        let logfile = self.absolute_path("logfile", &directives.logfile);
        let pidfile = self.absolute_path("pidfile", &directives.pidfile);
        let database = self.absolute_path("database", &directives.database);
        let record = self.absolute_path("record", &directives.record);
        let metrics = self.metrics(&directives);
        let control = self.control(&directives);
        let submit = self.absolute_path("submit", &directives.submit);
        let identity = self.identity(&directives);
        let trust_file = self.trust_file(&directives);
        self.check_journal(&directives);
        self.check_retry_rules(&directives);
        let bind = self.bind(&directives);
        let announce = self.announce(&directives);
        let (resolver, resolver_settings) = self.resolver(&directives);
        let mut destinations = self.policy_lines(&directives.destinations);
        let client = self.relay_client(&directives.tls_client_cert, &directives.tls_client_key);
        destinations.extend(self.tls_policies(&directives.tls_policies, &client));
        let socket_of_metrics = metrics.as_ref().and_then(MetricsAddress::path);
        let socket_of_control = database.as_ref().and_then(|database| control.path(database));
        let named = [
            ("database", database.as_deref()),
            ("tls_trustfile", trust_file.as_deref()),
            ("logfile", logfile.as_deref()),
            ("pidfile", pidfile.as_deref()),
            ("record", record.as_deref()),
            ("metrics", socket_of_metrics),
            ("control", socket_of_control.as_deref()),
            ("submit", submit.as_deref()),
        ];
        self.tell_apart(&named, &directives.lines);
        let (keys, signing) = match self.signing_keys {
            SigningKeys::Read => self.signing(&directives.dkim),
            SigningKeys::Unread => (KeyRing::default(), directives.dkim.rules_without_keys().into()),
        };
        let mut settings = settings::settings(&directives, announce?, resolver_settings, bind, destinations);
        settings.policy.tls = TlsPolicy { client, ..TlsPolicy::default() }.into();
        settings.signing = signing;
        self.check_relays(&settings);
        self.check_policy_lines(&settings);
        Some(Config {
            file: self.environment.absolute(self.file).unwrap_or_else(|_| self.file.to_owned()),
            settings,
            verbosity: u8::try_from(directives.verbosity).unwrap_or(u8::MAX),
            logformat: directives.logformat,
            logfile,
            pidfile,
            database: database?,
            record,
            metrics,
            metrics_destinations: directives.metrics_destinations.clone(),
            control,
            submit,
            submit_size_octets: usize::try_from(directives.submit_size_octets).unwrap_or(usize::MAX),
            identity,
            trust_file,
            credentials_files: std::mem::take(&mut self.credentials_files),
            keys,
            ledger: directives.ledger,
            resolver,
            warnings: std::mem::take(&mut self.warnings),
            directives,
        })
    }

    fn fail(&mut self, line: Option<usize>, directive: &str, reason: Reason) {
        self.errors.push(ConfigError::new(self.file, line, directive, reason));
    }

    fn warn(&mut self, line: Option<usize>, directive: &'static str, text: String) {
        self.warnings.push(ConfigWarning { file: self.file.to_owned(), line, directive, text });
    }

    /// Returns an absolute path, because the daemon leaves its working directory.
    fn absolute_path(&mut self, directive: &str, text: &Option<Located<Box<str>>>) -> Option<PathBuf> {
        let text = text.as_ref()?;
        match self.environment.absolute(Path::new(&*text.value)) {
            Ok(path) => Some(path),
            Err(error) => {
                let path = PathBuf::from(&*text.value);
                self.fail(Some(text.line), directive, Reason::WorkingDirectory { path, error });
                None
            }
        }
    }

    /// Returns where clients connect to ask for metrics, by an absolute path if it is one.
    fn metrics(&mut self, directives: &Directives) -> Option<MetricsAddress> {
        let Located { line, value } = directives.metrics.as_ref()?;
        match value {
            MetricsAddress::Tcp(address) => Some(MetricsAddress::Tcp(*address)),
            MetricsAddress::Unix(path) => {
                let text = Some(Located { line: *line, value: path.to_string_lossy().into() });
                self.absolute_path("metrics", &text).map(MetricsAddress::Unix)
            }
        }
    }

    /// Returns where the operator's tool asks the daemon, by an absolute path if it is one.
    fn control(&mut self, directives: &Directives) -> ControlPlace {
        let Some(Located { line, value }) = &directives.control else { return ControlPlace::BesideDatabase };
        match value {
            ControlPlace::BesideDatabase | ControlPlace::Off => value.clone(),
            ControlPlace::At(path) => {
                let text = Some(Located { line: *line, value: path.to_string_lossy().into() });
                self.absolute_path("control", &text).map_or(ControlPlace::Off, ControlPlace::At)
            }
        }
    }

    fn identity(&mut self, directives: &Directives) -> Identity {
        let mut identity = Identity::default();
        if let Some(Located { line, value: name }) = &directives.user {
            match Account::of_user(name) {
                Ok(Some(account)) => identity.user = Some(account),
                Ok(None) => self.fail(Some(*line), "user", Reason::UnknownUser(name.clone())),
                Err(error) => {
                    self.fail(Some(*line), "user", Reason::AccountLookup { name: name.clone(), error });
                }
            }
        }
        if let Some(Located { line, value: name }) = &directives.group {
            match crate::privileges::group_id(name) {
                Ok(Some(group)) => identity.group = Some(group),
                Ok(None) => self.fail(Some(*line), "group", Reason::UnknownGroup(name.clone())),
                Err(error) => {
                    self.fail(Some(*line), "group", Reason::AccountLookup { name: name.clone(), error });
                }
            }
        }
        identity
    }

    /// Refuses two directives that name the same file: writing the log or the pid file would destroy a database, and of two sockets one
    /// would be gone.
    fn tell_apart(&mut self, named: &[(&'static str, Option<&Path>)], lines: &BTreeMap<&'static str, usize>) {
        let mut users: BTreeMap<PathBuf, String> = BTreeMap::new();
        if let Ok(file) = self.environment.absolute(self.file) {
            users.insert(file, "the configuration".to_owned());
        }
        users.extend(
            self.credentials_files.iter().map(|path| (path.clone(), "a destination line".to_owned())),
        );
        for &(directive, path) in named {
            let Some(path) = path else { continue };
            let line = lines.get(directive).copied();
            if let Some(other) = users.get(path) {
                self.fail(line, directive, Reason::SameFile { other: other.clone() });
                continue;
            }
            let place = line.map_or("by default".to_owned(), |line| format!("in line {line}"));
            let user = format!("the directive \"{directive}\" {place}");
            if directive == "database" {
                for suffix in BESIDE_DATABASE {
                    let mut beside = path.as_os_str().to_owned();
                    beside.push(suffix);
                    users.insert(beside.into(), user.clone());
                }
            }
            users.insert(path.to_owned(), user);
        }
    }

    /// Refuses to log to a journal that is not there.
    fn check_journal(&mut self, directives: &Directives) {
        if directives.logformat != LogFormat::Journal || !self.environment.needs_log {
            return;
        }
        let line = directives.lines.get("logformat").copied();
        if let Err(error) = journal::check() {
            self.fail(line, "logformat", Reason::NoJournal(error));
        }
        if let Some(text) = &directives.logfile {
            let warning = "nothing is written to this file, because `logformat journal` logs to the journal; the directive lets the daemon \
                           go into the background all the same";
            self.warn(Some(text.line), "logfile", warning.to_owned());
        }
    }

    /// Warns if failed mail may be left that no retry rule is about.
    fn check_retry_rules(&mut self, directives: &Directives) {
        let Some(last) = directives.retry_rules.last() else { return };
        let is_about_all =
            |rule: &RetryRule| rule.mail == MailPattern::All && rule.failure == FailurePattern::All;
        if !directives.retry_rules.iter().any(is_about_all) {
            let text = format!(
                "no line is about all the rest (\"retry * * …\"), so mail that no line is about is given up after {} failures, and those \
                 count that came while another line was about it",
                directives.retries
            );
            self.warn(usize::try_from(last.line).ok(), "retry", text);
        }
    }

    fn trust_file(&mut self, directives: &Directives) -> Option<PathBuf> {
        let path = self.absolute_path("tls_trustfile", &directives.tls_trustfile)?;
        if let Err(reason) = check_certificates(&path) {
            let line = directives.tls_trustfile.as_ref().map(|text| text.line);
            self.fail(line, "tls_trustfile", reason);
        }
        Some(path)
    }

    fn bind(&mut self, directives: &Directives) -> LocalAddresses {
        let Some(Located { line, value: host }) = &directives.bind else { return LocalAddresses::default() };
        match addresses_of(host) {
            Ok(addresses) => LocalAddresses::of(&addresses),
            Err(error) => {
                self.fail(Some(*line), "bind", Reason::BindHost { host: host.clone(), error });
                LocalAddresses::default()
            }
        }
    }

    fn announce(&mut self, directives: &Directives) -> Option<Box<str>> {
        if let Some(announce) = &directives.announce {
            return Some(announce.clone());
        }
        let announce = match &self.environment.host_name {
            Ok(name) => values::announce(name).map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        // A directive that is there and wrong has been reported already.
        let is_reported = self.errors.iter().any(|error| &*error.directive == "announce");
        match announce {
            Ok(announce) => {
                if values::lacks_dot(&announce) {
                    self.warn(
                        None,
                        "announce",
                        format!("the host's name {announce} {}", values::WITHOUT_DOT),
                    );
                }
                Some(announce)
            }
            Err(reason) if !is_reported => {
                self.fail(None, "announce", Reason::HostName(reason));
                None
            }
            Err(_) => None,
        }
    }

    /// Warns of name servers that are not believed to validate, since DANE depends on those that are, and of those that are believed although
    /// their answers come over a network.
    fn warn_of_servers(&mut self, dnssec: Dnssec, settings: &ResolverSettings) {
        let named = |is_meant: &dyn Fn(&NameServer) -> bool| {
            let meant: Vec<String> =
                settings.servers.iter().filter(|server| is_meant(server)).map(ToString::to_string).collect();
            meant.join(", ")
        };
        let others = named(&|server| !server.is_believed);
        let is_nobody = settings.servers.iter().all(|server| !server.is_believed);
        let distant = named(&|server| !server.address.ip().to_canonical().is_loopback());
        let text = if is_nobody {
            format!(
                "no name server is believed to validate ({others}), so DANE has no effect, and destinations with dane-only get no mail; \
                 use a resolver that validates on this machine; only if those validate, and nobody can change their answers on the way \
                 here, write `dnssec trust`"
            )
        } else if !others.is_empty() {
            format!(
                "{others} is not believed to validate: as long as only it answers, mail for destinations with DANE waits"
            )
        } else if dnssec == Dnssec::Trust && !distant.is_empty() {
            format!(
                "{distant} is believed, and is not on this machine: whoever can change its answers on their way here decides where mail \
                 goes and which server proves itself by DANE; a resolver that validates on this machine needs no trust"
            )
        } else {
            return;
        };
        self.warn(None, "dnssec", text);
    }

    fn resolver(&mut self, directives: &Directives) -> (ResolverSource, ResolverSettings) {
        let source = ResolverSource {
            file: self.environment.resolv_conf.clone(),
            given: directives.resolver.clone(),
            dnssec: if Self::wants_dane(&directives.tls_policies) { directives.dnssec } else { Dnssec::Off },
        };
        let file = source.read().unwrap_or_else(|error| {
            if source.given.is_empty() {
                let path = shown::path(&source.file);
                let text =
                    format!("{path} cannot be read, so the daemon asks the DNS server of this host: {error}");
                self.warn(None, "resolver", text);
            }
            ResolvConf::default()
        });
        let settings = source.settings(&file);
        if Self::wants_dane(&directives.tls_policies) {
            self.warn_of_servers(directives.dnssec, &settings);
        }
        for (line, text) in source.complaints(file) {
            let file = source.file.clone();
            self.warnings.push(ConfigWarning { file, line: Some(line), directive: "", text });
        }
        (source, settings)
    }
}

/// Returns the addresses of a host.
fn addresses_of(host: &str) -> io::Result<Vec<IpAddr>> {
    Ok((host, 0).to_socket_addrs()?.map(|address| address.ip()).collect())
}

/// Checks that a file holds certificates in PEM; it may hold other sections too.
fn check_certificates(path: &Path) -> Result<(), Reason> {
    let unreadable = |error| Reason::TrustFileUnreadable { path: path.to_owned(), error };
    let pem = fs::read(path).map_err(unreadable)?;
    let mut count = 0;
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let damaged = |error| Reason::TrustFileDamaged { path: path.to_owned(), error: pem_text(&error) };
        certificate.map_err(damaged)?;
        count += 1;
    }
    if count == 0 { Err(Reason::TrustFileEmpty { path: path.to_owned() }) } else { Ok(()) }
}

/// Describes an error of PEM, without quoting octets of the file.
fn pem_text(error: &pem::Error) -> String {
    if matches!(error, pem::Error::MissingSectionEnd { .. }) {
        return "a section has no end".to_owned();
    }
    error.to_string()
}
