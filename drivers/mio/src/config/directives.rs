//! The one table of all directives: the parser, the report of `check` and the manual's table are made from it.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use cmail_delivery::course::Transcripts;
use cmail_delivery::next_hop::Port;
use cmail_delivery::retry_rule::RetryRule;
use cmail_delivery::settings::RateLimit;
use cmail_delivery::time::{Duration, Span};

use super::OnReload;
use super::directive::{Directive, Fallback, Kind, Located, Repeat};
use super::values::{self, ValueError};
use crate::control::ControlPlace;
use crate::logging::LogFormat;
use crate::monitor::MetricsAddress;
use crate::store::LedgerSettings;

/// The content of a configuration file, not yet completed by facts about the host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Directives {
    pub(super) verbosity: u32,
    pub(super) logformat: LogFormat,
    pub(super) logfile: Option<Located<Box<str>>>,
    pub(super) pidfile: Option<Located<Box<str>>>,
    pub(super) user: Option<Located<Box<str>>>,
    pub(super) group: Option<Located<Box<str>>>,
    pub(super) database: Option<Located<Box<str>>>,
    pub(super) record: Option<Located<Box<str>>>,
    pub(super) metrics: Option<Located<MetricsAddress>>,
    pub(super) control: Option<Located<ControlPlace>>,
    pub(super) announce: Option<Box<str>>,
    pub(super) bounce_from: Option<Box<str>>,
    pub(super) bounce_copy: Vec<Box<str>>,
    pub(super) interval_s: u32,
    pub(super) retry_rules: Vec<RetryRule>,
    pub(super) delay_warnings: Vec<Duration>,
    pub(super) retries: u32,
    pub(super) retry_interval_s: u32,
    pub(super) tls_padding: u32,
    pub(super) tls_trustfile: Option<Located<Box<str>>>,
    pub(super) ports: Vec<Port>,
    pub(super) bind: Option<Located<Box<str>>>,
    pub(super) rate_limit: Option<RateLimit>,
    pub(super) resolver: Vec<SocketAddr>,
    pub(super) concurrency: u32,
    pub(super) destination_concurrency: u32,
    pub(super) host_concurrency: Option<u32>,
    pub(super) connection_idle_s: u32,
    pub(super) bounce_return_limit_octets: u32,
    pub(super) auth_insecure: bool,
    pub(super) ledger: LedgerSettings,
    pub(super) transcripts: Transcripts,
    /// The line of each directive; the last one, where there are several.
    pub(super) lines: BTreeMap<&'static str, usize>,
    /// What the administrator should know although it is not an error: the directive, and a sentence.
    pub(super) warnings: Vec<Located<(&'static str, String)>>,
}

/// The largest number of most directives. The C program took such numbers too.
const LARGE: u32 = i32::MAX as u32;

/// All directives, in the order in which they are shown.
pub static DIRECTIVES: [Directive; 35] = [
    Directive {
        name: "database",
        kind: Kind::Text { shape: "PATH", set: |to, text| path(&mut to.database, text) },
        default: Fallback::Required,
        repeat: Repeat::Refused,
        on_reload: OnReload::AfterRestart {
            keep: |to, from| {
                to.database.clone_from(&from.database);
                to.directives.database.clone_from(&from.directives.database);
            },
        },
        help: "The master database. It must exist and have schema version 9; the word `initdb` creates it.",
        show: |config| located(&config.directives.database),
    },
    Directive {
        name: "user",
        kind: Kind::Text { shape: "NAME", set: |to, text| name(&mut to.user, text) },
        default: Fallback::Described("the user who starts the program"),
        repeat: Repeat::LastHolds,
        on_reload: OnReload::AfterRestart {
            keep: |to, from| {
                to.identity.user.clone_from(&from.identity.user);
                to.directives.user.clone_from(&from.directives.user);
            },
        },
        help: "The user to become when started as root. The group becomes the user's primary group unless `group` is given.",
        show: |config| located(&config.directives.user),
    },
    Directive {
        name: "group",
        kind: Kind::Text { shape: "NAME", set: |to, text| name(&mut to.group, text) },
        default: Fallback::Described("the primary group of `user`"),
        repeat: Repeat::LastHolds,
        on_reload: OnReload::AfterRestart {
            keep: |to, from| {
                to.identity.group = from.identity.group;
                to.directives.group.clone_from(&from.directives.group);
            },
        },
        help: "The group to become when started as root.",
        show: |config| located(&config.directives.group),
    },
    Directive {
        name: "logfile",
        kind: Kind::Text { shape: "PATH", set: |to, text| path(&mut to.logfile, text) },
        default: Fallback::Described("standard error"),
        repeat: Repeat::LastHolds,
        on_reload: OnReload::AfterRestart {
            keep: |to, from| {
                to.logfile.clone_from(&from.logfile);
                to.directives.logfile.clone_from(&from.directives.logfile);
            },
        },
        help: "The file that the log is appended to. SIGHUP and SIGUSR1 reopen it. Without it the daemon stays in the foreground.",
        show: |config| located(&config.directives.logfile),
    },
    Directive {
        name: "verbosity",
        kind: Kind::Number { shape: "LEVEL", min: 0, max: 4, set: |to, number| to.verbosity = number },
        default: Fallback::Value("0"),
        repeat: Repeat::LastHolds,
        on_reload: OnReload::Taken,
        help: "How much is logged: 0 errors and warnings, 1 and 2 also the outcome of each mail, 3 also details for debugging, 4 also all input and output, mail included.",
        show: |config| Some(config.directives.verbosity.to_string()),
    },
    Directive {
        name: "logformat",
        kind: Kind::Text {
            shape: "text, logfmt or json",
            set: |to, text| {
                to.logformat = values::log_format(text.value)?;
                Ok(())
            },
        },
        default: Fallback::Value("text"),
        repeat: Repeat::LastHolds,
        on_reload: OnReload::Taken,
        help: "How lines of the log are written: as sentences, as `key=value` pairs, or as JSON objects. All say the same.",
        show: |config| Some(config.logformat.to_string()),
    },
    Directive {
        name: "pidfile",
        kind: Kind::Text { shape: "PATH", set: |to, text| path(&mut to.pidfile, text) },
        default: Fallback::Described("none"),
        repeat: Repeat::Refused,
        on_reload: OnReload::AfterRestart {
            keep: |to, from| {
                to.pidfile.clone_from(&from.pidfile);
                to.directives.pidfile.clone_from(&from.directives.pidfile);
            },
        },
        help: "The file that the daemon writes its process id to. It is removed at exit, or emptied where it cannot be removed.",
        show: |config| located(&config.directives.pidfile),
    },
    Directive {
        name: "record",
        kind: Kind::Text { shape: "DIRECTORY", set: |to, text| path(&mut to.record, text) },
        default: Fallback::Described("none"),
        repeat: Repeat::LastHolds,
        on_reload: OnReload::AfterRestart {
            keep: |to, from| {
                to.record.clone_from(&from.record);
                to.directives.record.clone_from(&from.directives.record);
                to.settings.trace = super::traces(to.directives.verbosity, to.record.is_some());
            },
        },
        help: "The directory for recorded conversations: each pass over a destination becomes a file that can be replayed. Secrets, mail data, names and addresses are replaced. The directory must exist, and the user of the daemon must be able to write it.",
        show: |config| located(&config.directives.record),
    },
    Directive {
        name: "metrics",
        kind: Kind::Text { shape: "ADDRESS:PORT, PATH or off", set: set_metrics },
        default: Fallback::Value("off"),
        repeat: Repeat::LastHolds,
        on_reload: OnReload::AfterRestart {
            keep: |to, from| {
                to.metrics.clone_from(&from.metrics);
                to.directives.metrics.clone_from(&from.directives.metrics);
                to.settings.tells_course = super::tells_course(&to.directives);
            },
        },
        help: "Where the daemon answers HTTP requests about itself: `/metrics` for Prometheus, `/ready` and `/live`, and `/`, a page for people. \
               An address and port, or the path of a socket; the daemon opens it as its user. Everybody who can connect may read \
               there how much mail there is for whom, and what failed.",
        show: |config| {
            let metrics = config.directives.metrics.as_ref();
            Some(metrics.map_or_else(|| "off".to_owned(), |metrics| metrics.value.to_string()))
        },
    },
    Directive {
        name: "control",
        kind: Kind::Text { shape: "PATH or off", set: set_control },
        default: Fallback::Described("beside the database: its path with `.dispatch-control` at the end"),
        repeat: Repeat::LastHolds,
        on_reload: OnReload::AfterRestart {
            keep: |to, from| {
                to.control.clone_from(&from.control);
                to.directives.control.clone_from(&from.directives.control);
            },
        },
        help: "The path of the socket by which `cmail-admin-queue` asks the daemon. Only the user of the daemon and root may connect to it;                the daemon makes it as its user, and works without it where that is not possible.",
        show: |config| match &config.control {
            ControlPlace::BesideDatabase => None,
            ControlPlace::At(_) | ControlPlace::Off => Some(config.control.to_string()),
        },
    },
    Directive {
        name: "announce",
        kind: Kind::Text { shape: "NAME", set: set_announce },
        default: Fallback::Described("the host's name"),
        repeat: Repeat::LastHolds,
        on_reload: OnReload::Taken,
        help: "The name that EHLO announces to servers, and the domain of Message-IDs: a domain name or an address literal.",
        show: |config| Some(config.settings.announce.to_string()),
    },
    Directive {
        name: "bind",
        kind: Kind::Text { shape: "HOST", set: |to, text| name(&mut to.bind, text) },
        default: Fallback::Described("none"),
        repeat: Repeat::LastHolds,
        on_reload: OnReload::Taken,
        help: "The local address that mail is sent from, or a name that has this address. Of IPv4 and IPv6, only those are used that it has an address of.",
        show: |config| located(&config.directives.bind),
    },
    Directive {
        name: "portprio",
        kind: Kind::Text { shape: "PORT[@tls or @starttls] …", set: set_ports },
        default: Fallback::Value("25@starttls 25"),
        repeat: Repeat::LastHolds,
        on_reload: OnReload::Taken,
        help: "The ports to try on each server, in this order: with TLS from the beginning (`@tls`), with STARTTLS (`@starttls`), or in plain text.",
        show: |config| Some(join(config.directives.ports.iter().map(values::show_port))),
    },
    Directive {
        name: "resolver",
        kind: Kind::Text { shape: "ADDRESS[:PORT] …", set: add_resolvers },
        default: Fallback::Described("the servers of `/etc/resolv.conf`"),
        repeat: Repeat::Cumulative,
        on_reload: OnReload::Taken,
        help: "The DNS servers to ask. Write an IPv6 address with a port as `[::1]:53`. The options `timeout` and `attempts` of `/etc/resolv.conf` always apply.",
        show: |config| Some(join(config.settings.resolver.servers.iter().map(SocketAddr::to_string))),
    },
    Directive {
        name: "interval",
        kind: Kind::Seconds { min: 1, max: LARGE, set: |to, seconds| to.interval_s = seconds },
        default: Fallback::Value("10"),
        repeat: Repeat::LastHolds,
        on_reload: OnReload::Taken,
        help: "The longest time between two looks at the outbox.",
        show: |config| Some(config.directives.interval_s.to_string()),
    },
    Directive {
        name: "retries",
        kind: Kind::Number { shape: "COUNT", min: 1, max: LARGE, set: |to, number| to.retries = number },
        default: Fallback::Value("5"),
        repeat: Repeat::LastHolds,
        on_reload: OnReload::Taken,
        help: "A mail that has failed this often is returned to its sender.",
        show: |config| Some(config.settings.retries.to_string()),
    },
    Directive {
        name: "retryinterval",
        kind: Kind::Seconds { min: 0, max: LARGE, set: |to, seconds| to.retry_interval_s = seconds },
        default: Fallback::Value("3600"),
        repeat: Repeat::LastHolds,
        on_reload: OnReload::Taken,
        help: "A mail that has failed is tried again once more than this time has passed.",
        show: |config| Some(config.settings.retry_interval_s.to_string()),
    },
    Directive {
        name: "retry",
        kind: Kind::Text { shape: "MAIL FAILURE WAIT … until AGE", set: add_retry_rule },
        default: Fallback::Described("none"),
        repeat: Repeat::Cumulative,
        on_reload: OnReload::Taken,
        help: "When failed mail is tried again: after its first failure once the first WAIT has passed, after its second one once the second has, and so on; the last one repeats, and each is made longer or shorter by up to a tenth. Mail that still fails when AGE has passed since its submission is returned to its sender. MAIL is `*`, `example.com`, `.example.com` (with all domains below it), `remote:HOST` (the host of `mail_remote`), or `sender:` with a domain, an address or `<>`. FAILURE is `*`, `dns`, `connect`, `tls`, `auth`, `greeting`, `sender`, `recipient`, `content`, `lost`, `uncertain`, `local`, the code of a reply (`421`, `45`, `4`), or a status (`4.2.2`, `4.2`); it is about the last failure. The first line that is about a mail and its failure decides; `retries` and `retryinterval` count only for mail that no line is about.",
        show: |config| show_lines(config.directives.retry_rules.iter().map(RetryRule::to_string)),
    },
    Directive {
        name: "delay_warning",
        kind: Kind::Text { shape: "AGE …", set: set_delay_warnings },
        default: Fallback::Described("none"),
        repeat: Repeat::LastHolds,
        on_reload: OnReload::Taken,
        help: "The ages of mail, as in `4h 24h`, at which its sender is told that it is late and still being tried. It is told when the next attempt after that age fails, once for each age. Bounces and other mail with the null sender are never told of.",
        show: |config| {
            let ages = &config.directives.delay_warnings;
            (!ages.is_empty()).then(|| join(ages.iter().map(|age| Span(age.as_secs()).to_string())))
        },
    },
    Directive {
        name: "concurrency",
        kind: Kind::Number {
            shape: "COUNT",
            min: 1,
            max: 1_000_000,
            set: |to, number| to.concurrency = number,
        },
        default: Fallback::Value("500"),
        repeat: Repeat::LastHolds,
        on_reload: OnReload::Taken,
        help: "The most connections at once. There are fewer if the limit of open files is too low for them.",
        show: |config| Some(config.settings.concurrency.to_string()),
    },
    Directive {
        name: "destination_concurrency",
        kind: Kind::Number {
            shape: "COUNT",
            min: 1,
            max: 1_000_000,
            set: |to, number| to.destination_concurrency = number,
        },
        default: Fallback::Value("10"),
        repeat: Repeat::LastHolds,
        on_reload: OnReload::Taken,
        help: "The most connections at once per destination.",
        show: |config| Some(config.settings.destination_concurrency.to_string()),
    },
    Directive {
        name: "host_concurrency",
        kind: Kind::Number {
            shape: "COUNT",
            min: 1,
            max: 2_000_000,
            set: |to, number| to.host_concurrency = Some(number),
        },
        default: Fallback::Described("twice `destination_concurrency`"),
        repeat: Repeat::LastHolds,
        on_reload: OnReload::Taken,
        help: "The most connections at once to one address and port, for all destinations that share it together.",
        show: |config| Some(config.settings.host_concurrency.to_string()),
    },
    Directive {
        name: "connection_idle",
        kind: Kind::Seconds { min: 0, max: 3600, set: |to, seconds| to.connection_idle_s = seconds },
        default: Fallback::Value("5"),
        repeat: Repeat::LastHolds,
        on_reload: OnReload::Taken,
        help: "How long an idle connection is kept open for more mail to the same destination. It is closed earlier if another destination needs its place. With 0 it is closed at once.",
        show: |config| Some(config.directives.connection_idle_s.to_string()),
    },
    Directive {
        name: "ratelimit",
        kind: Kind::Text { shape: "COUNT/s, COUNT/min or COUNT/h", set: set_rate },
        default: Fallback::Described("none"),
        repeat: Repeat::LastHolds,
        on_reload: OnReload::Taken,
        help: "The most messages per destination, in bursts of up to one second's worth. COUNT is from 1 to 1000000. A plain number is accepted for the sake of old files, and ignored with a warning.",
        show: |config| config.settings.rate_limit.as_ref().map(values::show_rate),
    },
    Directive {
        name: "ledger",
        kind: Kind::Text {
            shape: "all, failures or off",
            set: |to, text| {
                to.ledger.entries = values::ledger_entries(text.value)?;
                Ok(())
            },
        },
        default: Fallback::Value("all"),
        repeat: Repeat::LastHolds,
        on_reload: OnReload::AfterRestart {
            keep: |to, from| {
                to.ledger.entries = from.ledger.entries;
                to.directives.ledger.entries = from.directives.ledger.entries;
                to.settings.tells_course = super::tells_course(&to.directives);
            },
        },
        help: "Which attempts are recorded in the table `dispatch_attempts` of the database, where they outlive their mail: all, only \
               those that failed, or none.",
        show: |config| Some(config.directives.ledger.entries.to_string()),
    },
    Directive {
        name: "ledger_keep",
        kind: Kind::Text {
            shape: "AGE COUNT",
            set: |to, text| {
                to.ledger.keep = values::retention(text.value)?;
                Ok(())
            },
        },
        default: Fallback::Value("7d 500000"),
        repeat: Repeat::LastHolds,
        on_reload: OnReload::AfterRestart {
            keep: |to, from| {
                to.ledger.keep = from.ledger.keep;
                to.directives.ledger.keep = from.directives.ledger.keep;
            },
        },
        help: "How old recorded attempts get, and how many there are at most. The oldest are deleted.",
        show: |config| Some(values::show_retention(config.directives.ledger.keep)),
    },
    Directive {
        name: "ledger_addresses",
        kind: Kind::Text {
            shape: "full, domain or none",
            set: |to, text| {
                to.ledger.addresses = values::ledger_addresses(text.value)?;
                Ok(())
            },
        },
        default: Fallback::Value("full"),
        repeat: Repeat::LastHolds,
        on_reload: OnReload::AfterRestart {
            keep: |to, from| {
                to.ledger.addresses = from.ledger.addresses;
                to.directives.ledger.addresses = from.directives.ledger.addresses;
            },
        },
        help: "How much of the addresses of sender and recipient is recorded with an attempt. Transcripts and replies may hold whole addresses.",
        show: |config| Some(config.directives.ledger.addresses.to_string()),
    },
    Directive {
        name: "transcripts",
        kind: Kind::Text {
            shape: "failed, all or none",
            set: |to, text| {
                to.transcripts = values::transcripts(text.value)?;
                Ok(())
            },
        },
        default: Fallback::Value("failed"),
        repeat: Repeat::LastHolds,
        on_reload: OnReload::Taken,
        help: "Of which connections the conversation is recorded in the table `dispatch_connections`, with times, and without \
               passwords and mail data: those on which mail failed, all, or none. Needs `ledger`.",
        show: |config| Some(show_transcripts(config.directives.transcripts).to_owned()),
    },
    Directive {
        name: "tls_padding",
        kind: Kind::Number { shape: "COUNT", min: 0, max: 1000, set: |to, number| to.tls_padding = number },
        default: Fallback::Value("10"),
        repeat: Repeat::LastHolds,
        on_reload: OnReload::Taken,
        help: "The most NOOP and RSET commands that are sent once TLS has begun. Their number is random, so that the sizes of what follows reveal less. With 0 none is sent.",
        show: |config| Some(config.settings.tls_padding.to_string()),
    },
    Directive {
        name: "tls_trustfile",
        kind: Kind::Text { shape: "PATH", set: |to, text| path(&mut to.tls_trustfile, text) },
        default: Fallback::Described("the system's trust store"),
        repeat: Repeat::LastHolds,
        on_reload: OnReload::Taken,
        help: "A PEM file with the certificates to trust when a server has to be verified because credentials are sent to it.",
        show: |config| located(&config.directives.tls_trustfile),
    },
    Directive {
        name: "tls_priorities",
        kind: Kind::Text { shape: "…", set: warn_of_priorities },
        default: Fallback::Described("ignored"),
        repeat: Repeat::LastHolds,
        on_reload: OnReload::Taken,
        help: "Accepted for the sake of old files, and ignored with a warning.",
        show: |_| None,
    },
    Directive {
        name: "auth_insecure",
        kind: Kind::Text { shape: "yes or no", set: set_auth_insecure },
        default: Fallback::Value("no"),
        repeat: Repeat::LastHolds,
        on_reload: OnReload::Taken,
        help: "Whether credentials may be sent without TLS, or to a server whose certificate is not valid.",
        show: |config| Some(if config.settings.auth_insecure { "yes" } else { "no" }.to_owned()),
    },
    Directive {
        name: "bounce_from",
        kind: Kind::Text { shape: "ADDRESS", set: set_bounce_from },
        default: Fallback::Described("`postmaster@` and the value of `announce`"),
        repeat: Repeat::LastHolds,
        on_reload: OnReload::Taken,
        help: "The From: address of bounces.",
        show: |config| Some(config.settings.bounce_from.to_string()),
    },
    Directive {
        name: "bounce_copy",
        kind: Kind::Text { shape: "ADDRESS …", set: add_bounce_copies },
        default: Fallback::Described("none"),
        repeat: Repeat::Cumulative,
        on_reload: OnReload::Taken,
        help: "Additional recipients of every bounce.",
        show: |config| {
            let copies = &config.settings.bounce_copy;
            (!copies.is_empty()).then(|| join(copies.iter().map(|address| address.to_string())))
        },
    },
    Directive {
        name: "bounce_return_limit",
        kind: Kind::Number {
            shape: "OCTETS",
            min: 0,
            max: 64 << 20,
            set: |to, number| to.bounce_return_limit_octets = number,
        },
        default: Fallback::Value("1048576"),
        repeat: Repeat::LastHolds,
        on_reload: OnReload::Taken,
        help: "Originals up to this size come back whole in a bounce. Of larger ones, and of those that were refused for their content or size, only the header comes back.",
        show: |config| Some(config.settings.bounce_return_limit_octets.to_string()),
    },
];

impl Directives {
    fn warn(&mut self, line: usize, directive: &'static str, text: impl Into<String>) {
        self.warnings.push(Located { line, value: (directive, text.into()) });
    }
}

fn set_announce(to: &mut Directives, text: Located<&str>) -> Result<(), ValueError> {
    let name = values::announce(text.value)?;
    if values::lacks_dot(&name) {
        to.warn(text.line, "announce", format!("{name} {}", values::WITHOUT_DOT));
    }
    to.announce = Some(name);
    Ok(())
}

fn set_bounce_from(to: &mut Directives, text: Located<&str>) -> Result<(), ValueError> {
    let (address, warning) = values::address(text.value)?;
    if let Some(warning) = warning {
        to.warn(text.line, "bounce_from", warning);
    }
    to.bounce_from = Some(address);
    Ok(())
}

fn path(slot: &mut Option<Located<Box<str>>>, text: Located<&str>) -> Result<(), ValueError> {
    *slot = Some(Located { line: text.line, value: values::path(text.value)? });
    Ok(())
}

/// Stores a name that is looked up on this host later.
fn name(slot: &mut Option<Located<Box<str>>>, text: Located<&str>) -> Result<(), ValueError> {
    *slot = Some(Located { line: text.line, value: text.value.into() });
    Ok(())
}

fn set_metrics(to: &mut Directives, text: Located<&str>) -> Result<(), ValueError> {
    let address = values::metrics(text.value)?;
    to.metrics = address.map(|value| Located { line: text.line, value });
    Ok(())
}

fn set_control(to: &mut Directives, text: Located<&str>) -> Result<(), ValueError> {
    to.control = Some(Located { line: text.line, value: values::control(text.value)? });
    Ok(())
}

fn set_ports(to: &mut Directives, text: Located<&str>) -> Result<(), ValueError> {
    to.ports = values::words(text.value).map(values::port).collect::<Result<_, _>>()?;
    Ok(())
}

fn set_delay_warnings(to: &mut Directives, text: Located<&str>) -> Result<(), ValueError> {
    to.delay_warnings = values::words(text.value).map(values::warning_age).collect::<Result<_, _>>()?;
    Ok(())
}

fn add_retry_rule(to: &mut Directives, text: Located<&str>) -> Result<(), ValueError> {
    let rule = values::retry_rule(text.value, u32::try_from(text.line).unwrap_or(u32::MAX))?;
    if let Some(earlier) = to.retry_rules.iter().find(|earlier| earlier.leaves_nothing_to(&rule)) {
        let warning = format!(
            "line {} is about the same mail and comes first, so this line is never used",
            earlier.line
        );
        to.warn(text.line, "retry", warning);
    }
    to.retry_rules.push(rule);
    Ok(())
}

fn add_resolvers(to: &mut Directives, text: Located<&str>) -> Result<(), ValueError> {
    let servers: Vec<_> = values::words(text.value).map(values::resolver).collect::<Result<_, _>>()?;
    to.resolver.extend(servers);
    Ok(())
}

fn add_bounce_copies(to: &mut Directives, text: Located<&str>) -> Result<(), ValueError> {
    let found: Vec<_> = values::words(text.value).map(values::address).collect::<Result<_, _>>()?;
    for (address, warning) in found {
        to.bounce_copy.push(address);
        if let Some(warning) = warning {
            to.warn(text.line, "bounce_copy", warning);
        }
    }
    Ok(())
}

fn set_rate(to: &mut Directives, text: Located<&str>) -> Result<(), ValueError> {
    to.rate_limit = values::rate(text.value)?;
    if to.rate_limit.is_none() {
        let warning = "a plain number is ignored; to limit the rate, write it as N/s, N/min or N/h";
        to.warn(text.line, "ratelimit", warning);
    }
    Ok(())
}

fn warn_of_priorities(to: &mut Directives, text: Located<&str>) -> Result<(), ValueError> {
    let warning = "the directive is ignored: the daemon uses TLS 1.2 and 1.3 with the cipher suites that are safe today";
    to.warn(text.line, "tls_priorities", warning);
    Ok(())
}

const fn show_transcripts(transcripts: Transcripts) -> &'static str {
    match transcripts {
        Transcripts::Never => "none",
        Transcripts::OfFailures => "failed",
        Transcripts::Always => "all",
    }
}

fn set_auth_insecure(to: &mut Directives, text: Located<&str>) -> Result<(), ValueError> {
    to.auth_insecure = values::yes_no(text.value)?;
    Ok(())
}

fn located(slot: &Option<Located<Box<str>>>) -> Option<String> {
    slot.as_ref().map(|text| text.value.to_string())
}

/// Shows a value of several lines; nothing if there is none.
fn show_lines(lines: impl Iterator<Item = String>) -> Option<String> {
    let lines: Vec<_> = lines.collect();
    if lines.is_empty() { None } else { Some(lines.join("\n")) }
}

fn join(words: impl Iterator<Item = String>) -> String {
    words.collect::<Vec<_>>().join(" ")
}
