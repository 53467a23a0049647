//! One test's surroundings: a directory, a database, a DNS server and a configuration file.

use super::daemon::Finished;
use super::database::Failure;
use super::shim::Shim;
use super::{Behaviour, Daemon, Database, DnsServer, Mail, Script, SmtpServer};
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// The surroundings. The defaults make the daemon quick: it looks at the outbox every second and does not pad.
pub(crate) struct World {
    directory: TempDir,
    pub(crate) database: Database,
    pub(crate) dns: DnsServer,
    /// Stands between the daemon and the system, if it is there.
    pub(crate) shim: Option<Shim>,
    config: Vec<(String, String)>,
}

impl World {
    /// With a rollback journal, as `initdb` makes them, unless the environment names another mode: so the tests that do not
    /// choose one can be run in each.
    pub(crate) fn new() -> Self {
        let journal_mode = std::env::var("TEST_JOURNAL_MODE");
        Self::in_journal_mode(journal_mode.as_deref().unwrap_or("delete"))
    }

    pub(crate) fn in_journal_mode(journal_mode: &str) -> Self {
        let directory = TempDir::new().unwrap();
        let database = Database::create_in_mode(&directory.path().join("master.db3"), journal_mode);
        let dns = DnsServer::start();
        let mut world = Self { directory, database, dns, shim: None, config: Vec::new() };
        let path = world.database.path().display().to_string();
        world.set("database", path);
        world.set("verbosity", "3");
        world.set("announce", "client.example");
        world.set("interval", "1");
        world.set("tls_padding", "0");
        world.set("resolver", world.dns.address());
        // Bounces to the usual sender stay in the outbox, where a test can read them.
        world.dns.behave("client.example", Behaviour::ServFail);
        world
    }

    /// A world with one server that is the only MX of `example.org`, named `mx.example.org`.
    pub(crate) fn with_server(script: Script) -> (Self, SmtpServer) {
        let mut world = Self::new();
        let server = SmtpServer::start(script);
        world.set("portprio", server.port());
        world.route("example.org", &server);
        (world, server)
    }

    /// Sets a directive, in place of any earlier value.
    pub(crate) fn set(&mut self, directive: &str, value: impl ToString) -> &mut Self {
        self.config.retain(|(name, _)| name != directive);
        self.add(directive, value)
    }

    /// Leaves a directive away.
    pub(crate) fn unset(&mut self, directive: &str) -> &mut Self {
        self.config.retain(|(name, _)| name != directive);
        self
    }

    /// Adds a line, whatever is there already.
    pub(crate) fn add(&mut self, directive: &str, value: impl ToString) -> &mut Self {
        self.config.push((directive.to_owned(), value.to_string()));
        self
    }

    /// Makes the server the only MX of the domain, as `mx.` + domain.
    pub(crate) fn route(&self, domain: &str, server: &SmtpServer) {
        self.mx(domain, 10, &format!("mx.{domain}"), server);
    }

    /// Adds an MX and its address.
    pub(crate) fn mx(&self, domain: &str, preference: u16, host: &str, server: &SmtpServer) {
        self.dns.mx(domain, preference, host);
        self.dns.a(host, server.ip());
    }

    pub(crate) fn insert(&self, mail: &Mail) -> i64 {
        self.database.insert(mail)
    }

    /// Inserts one mail, makes one pass for `example.org`, and returns the mail's failures.
    pub(crate) fn failures_after_a_pass(&self, mail: &Mail) -> Vec<Failure> {
        let id = self.insert(mail);
        let finished = self.run(&["deliver", "example.org"]);
        assert_eq!(finished.code(), Some(0), "{}", finished.stderr);
        self.database.failures_of(id)
    }

    /// Like `failures_after_a_pass`, for a mail that must have failed exactly once.
    pub(crate) fn failure_after_a_pass(&self, mail: &Mail) -> Failure {
        let failures = self.failures_after_a_pass(mail);
        assert_eq!(failures.len(), 1, "{failures:?}");
        failures[0].clone()
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }

    pub(crate) fn config_text(&self) -> String {
        self.config.iter().map(|(name, value)| format!("{name} {value}\n")).collect()
    }

    /// Writes the configuration file and returns its place.
    pub(crate) fn write_config(&self) -> PathBuf {
        let path = self.path("dispatchd.conf");
        std::fs::write(&path, self.config_text()).unwrap();
        path
    }

    /// Starts the daemon in the foreground.
    pub(crate) fn start(&self) -> Daemon {
        match &self.shim {
            Some(shim) => Daemon::spawn_with_shim(shim, &self.write_config(), &["nodetach", "nodrop"]),
            None => Daemon::spawn(&self.write_config(), &["nodetach", "nodrop"]),
        }
    }

    /// Runs it to its end with further words.
    pub(crate) fn run(&self, words: &[&str]) -> Finished {
        let words: Vec<&str> = ["nodetach", "nodrop"].iter().chain(words).copied().collect();
        match &self.shim {
            Some(shim) => Daemon::run_with_shim(shim, &self.write_config(), &words),
            None => Daemon::run(&self.write_config(), &words),
        }
    }
}
