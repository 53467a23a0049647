//! The one table of all directives: the parser, the report of `check` and the manual's table are made from it.

use cmail_delivery::course::Transcripts;
use cmail_delivery::hold::HoldLine;
use cmail_delivery::retry_rule::RetryRule;
use cmail_delivery::settings::NameServer;
use cmail_delivery::time::Span;

use super::OnReload;
use super::directive::{Directive, Fallback, Kind, Located, Repeat};
use super::directives::{
    add_bounce_copies, add_destination, add_hold_line, add_metrics_destinations, add_resolvers,
    add_retry_rule, add_tls_policy, name, path, set_announce, set_auth_insecure, set_bounce_from,
    set_control, set_delay_warnings, set_metrics, set_ports, set_rate, set_submit, warn_of_priorities,
};
use super::{dkim, settings, tls_policy, values};
use crate::control::ControlPlace;

/// The largest number of most directives. The C program took such numbers too.
const LARGE: u32 = i32::MAX as u32;

/// All directives, in the order in which they are shown.
pub static DIRECTIVES: [Directive; 47] = [
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
            shape: "text, logfmt, json or journal",
            set: |to, text| {
                to.logformat = values::log_format(text.value)?;
                Ok(())
            },
        },
        default: Fallback::Value("text"),
        repeat: Repeat::LastHolds,
        on_reload: OnReload::Taken,
        help: "How the log is written: as sentences, as `key=value` pairs, as JSON objects, or, with `journal`, as fields of the journal of systemd instead of lines in a file or on standard error: `CMAIL_MAIL`, `CMAIL_RECIPIENT` and so on. All say the same.",
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
                to.settings.told = settings::told(&to.directives);
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
                to.settings.told = settings::told(&to.directives);
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
        name: "metrics_destinations",
        kind: Kind::Text { shape: "NAME …", set: add_metrics_destinations },
        default: Fallback::Described("none"),
        repeat: Repeat::Cumulative,
        on_reload: OnReload::Taken,
        help: "The destinations whose mail and attempts the metrics count by themselves; all others are counted together as `other`. A domain, an address in brackets, or a relay as HOST, HOST:PORT or HOST:PORT/MODE.",
        show: |config| {
            let names = &config.metrics_destinations;
            (!names.is_empty()).then(|| join(names.iter().map(|named| named.name.to_string())))
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
        help: "The path of the socket by which `cmail-admin-queue` asks the daemon. Only the user of the daemon and root may connect to it; the daemon makes it as its user, and works without it where that is not possible.",
        show: |config| match &config.control {
            ControlPlace::BesideDatabase => None,
            ControlPlace::At(_) | ControlPlace::Off => Some(config.control.to_string()),
        },
    },
    Directive {
        name: "submit",
        kind: Kind::Text { shape: "PATH or off", set: set_submit },
        default: Fallback::Value("off"),
        repeat: Repeat::LastHolds,
        on_reload: OnReload::AfterRestart {
            keep: |to, from| {
                to.submit.clone_from(&from.submit);
                to.directives.submit.clone_from(&from.directives.submit);
            },
        },
        help: "The path of the socket by which users hand over mail who may not write the database: `cmail-admin-queue submit`, also as `sendmail`, uses it by itself. Everybody may connect to it; the daemon makes it as its user, and notes who has handed over a mail in `mail_submitter`.",
        show: |config| Some(located(&config.directives.submit).unwrap_or_else(|| "off".to_owned())),
    },
    Directive {
        name: "submit_size",
        kind: Kind::Number {
            shape: "OCTETS",
            min: 1,
            max: values::SUBMIT_SIZE_MAX_OCTETS,
            set: |to, number| to.submit_size_octets = number,
        },
        default: Fallback::Value("26214400"),
        repeat: Repeat::LastHolds,
        on_reload: OnReload::Taken,
        help: "The largest message that is taken by the socket `submit`, counted once for each of its recipients, as the database stores it. Up to 10 are taken at once, and the daemon holds them in memory meanwhile.",
        show: |config| Some(config.submit_size_octets.to_string()),
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
        show: |config| Some(join(config.settings.resolver.servers.iter().map(NameServer::to_string))),
    },
    Directive {
        name: "dnssec",
        kind: Kind::Text {
            shape: "auto, trust or off",
            set: |to, text| values::dnssec(text.value).map(|dnssec| to.dnssec = dnssec),
        },
        default: Fallback::Value("auto"),
        repeat: Repeat::LastHolds,
        on_reload: OnReload::Taken,
        help: "Which DNS servers are believed if they say that DNSSEC vouches for an answer, for destinations whose `tls_policy` is `dane`, `dane-only` or `auto`: with `auto` those on this machine (loopback addresses), and those of `/etc/resolv.conf` if it has the option `trust-ad`; with `trust` all; with `off` none. A server that is believed must validate, and nobody may be able to change its answers on their way here; so do not use a forwarder on this machine that only hands on what another server says. The program does not validate itself. A server that is believed and does not validate is told of at the start.",
        show: |config| Some(values::show_dnssec(config.directives.dnssec).to_owned()),
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
        show: |config| Some(config.settings.schedule.retries.to_string()),
    },
    Directive {
        name: "retryinterval",
        kind: Kind::Seconds { min: 0, max: LARGE, set: |to, seconds| to.retry_interval_s = seconds },
        default: Fallback::Value("3600"),
        repeat: Repeat::LastHolds,
        on_reload: OnReload::Taken,
        help: "A mail that has failed is tried again once more than this time has passed.",
        show: |config| Some(config.settings.schedule.retry_interval_s.to_string()),
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
            max: values::CONCURRENCY_MAX,
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
            max: values::CONCURRENCY_MAX,
            set: |to, number| to.destination_concurrency = number,
        },
        default: Fallback::Value("10"),
        repeat: Repeat::LastHolds,
        on_reload: OnReload::Taken,
        help: "The most connections at once per destination.",
        show: |config| Some(config.settings.policy.concurrency.to_string()),
    },
    Directive {
        name: "host_concurrency",
        kind: Kind::Number {
            shape: "COUNT",
            min: 1,
            max: values::HOST_CONCURRENCY_MAX,
            set: |to, number| to.host_concurrency = Some(number),
        },
        default: Fallback::Described("twice `destination_concurrency`"),
        repeat: Repeat::LastHolds,
        on_reload: OnReload::Taken,
        help: "The most connections at once to one address and port, for all destinations that share it together.",
        show: |config| Some(config.settings.policy.host_concurrency.to_string()),
    },
    Directive {
        name: "connection_idle",
        kind: Kind::Seconds {
            min: 0,
            max: values::IDLE_MAX_S,
            set: |to, seconds| to.connection_idle_s = seconds,
        },
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
        show: |config| config.settings.policy.rate_limit.as_ref().map(values::show_rate),
    },
    Directive {
        name: "destination",
        kind: Kind::Text { shape: "DESTINATION KEY VALUE …", set: add_destination },
        default: Fallback::Described("none"),
        repeat: Repeat::Cumulative,
        on_reload: OnReload::Taken,
        help: "How mail goes to some destinations, where that is to be other than the directives above and `bind`, `portprio` and `tls_padding` say. DESTINATION is `*`, `example.com`, `.example.com` (with all domains below it), `remote:HOST` (a relay), or `mx:HOST` and `mx:*.example.com` (all domains, while their mail goes to such a host). The keys are: `concurrency`, `host_concurrency`, `ratelimit`, `idle`, `bind` and `padding`, like those directives; `ports`, like `portprio`, with commas between the ports; `recipients`, the most recipients of a transaction (from 1 to 100); `messages`, the most messages on a connection; `family`, `any`, `ipv4` or `ipv6`; `pipelining`, `yes` or `no`, and `chunking no`, which is so anyway. `via HOST:PORT/MODE` sends the mail to a relay, as if `mail_remote` named it, and bounces too; mail that has a `mail_remote` goes there. `credentials PATH` names a file with one line, USER:PASSWORD, for that relay, which no other users may read. What else stands on a line with `via` is said of the relay. With `none`, `ratelimit`, `messages`, `bind` and `via` have no value again. All lines about a destination hold together. Where two say different things by the same key, the one holds that names the destination more closely: `remote:HOST` and a domain; then a domain with those below it, the longer the closer; then `mx:HOST`, then `mx:*.example.com`, the longer the closer; then `*`; and of equal ones the last.",
        show: |config| show_lines(config.directives.destinations.iter().map(ToString::to_string)),
    },
    Directive {
        name: "hold",
        kind: Kind::Text { shape: "MAIL REASON", set: add_hold_line },
        default: Fallback::Described("none"),
        repeat: Repeat::Cumulative,
        on_reload: OnReload::Taken,
        help: "Which mail is held as long as the line is there: it is neither tried nor given up, its sender is not told that it is late, and what comes later is held too. MAIL is as in `retry` lines; the rest of the line is the reason, which the log and the operator's tool tell. The first line that is about a mail is told. `cmail-admin-queue release ID` sends one mail although the line stands. Mail is released when the line is taken away and the file is read again, and its age by `retry` lines counts from then.",
        show: |config| show_lines(config.directives.hold_lines.iter().map(HoldLine::to_string)),
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
                to.settings.told = settings::told(&to.directives);
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
        name: "uncertain",
        kind: Kind::Text {
            shape: "retry, hold or off",
            set: |to, text| values::uncertain(text.value).map(|uncertain| to.uncertain = uncertain),
        },
        default: Fallback::Value("off"),
        repeat: Repeat::LastHolds,
        on_reload: OnReload::Taken,
        help: "What is done with mail that may have arrived already: its connection was lost after the whole message was sent, or the program was killed while it was on its way. With `retry` it is sent again, and the log and the ledger say so; with `hold` it is held until it is released, failed or dropped. Both note in the table `dispatch_flights` which mail each connection sends next, at most 16 messages, before it is sent, which takes time. With `off` nothing is noted, and such mail is sent again.",
        show: |config| Some(values::show_uncertain(config.settings.uncertain).to_owned()),
    },
    Directive {
        name: "tls_padding",
        kind: Kind::Number {
            shape: "COUNT",
            min: 0,
            max: values::PADDING_MAX as u32,
            set: |to, number| to.tls_padding = number,
        },
        default: Fallback::Value("10"),
        repeat: Repeat::LastHolds,
        on_reload: OnReload::Taken,
        help: "The most NOOP and RSET commands that are sent once TLS has begun. Their number is random, so that the sizes of what follows reveal less. With 0 none is sent.",
        show: |config| Some(config.settings.policy.padding.to_string()),
    },
    Directive {
        name: "tls_trustfile",
        kind: Kind::Text { shape: "PATH", set: |to, text| path(&mut to.tls_trustfile, text) },
        default: Fallback::Described("the system's trust store"),
        repeat: Repeat::LastHolds,
        on_reload: OnReload::Taken,
        help: "A PEM file with certificates to trust: authorities, or those of servers themselves. Where a relay has to be verified, because credentials are sent to it or a `tls_policy` line says so, they count instead of the system's trust store. Where the host of a domain has to be verified (`verify`, `sts` and `auto` of `tls_policy`), and where an MTA-STS policy is fetched over HTTPS, they count together with it.",
        show: |config| located(&config.directives.tls_trustfile),
    },
    Directive {
        name: "tls_policy",
        kind: Kind::Text { shape: "DESTINATION LEVEL OPTION=VALUE …", set: add_tls_policy },
        default: Fallback::Described("`* may`"),
        repeat: Repeat::Cumulative,
        on_reload: OnReload::Taken,
        help: "What is needed of TLS before mail goes to some destinations. DESTINATION is `*` (all but relays), `example.com`, `.example.com` (with all domains below it), an address literal such as `[192.0.2.1]`, or `relay:HOST`; mail that goes by a relay is judged by lines about that relay alone. Of several lines the one holds that names the destination most closely; two about the same are an error. LEVEL is `none` (TLS is never tried, for hosts whose TLS is broken: entries of `portprio` with `@starttls` count as plain, those with `@tls` are left out), `may` (as `portprio` says, with plain text where that fails), `encrypt` (nothing goes in plain text, and anybody may be the server), `verify` (the certificate is one of a trusted authority, for the name of the host; where MX records lead to the host, whoever can forge DNS answers can choose that name, unless `names` is given), `pin` (the key of the server is one of those that are named; neither names nor dates count), `dane` (where DNSSEC vouches for TLSA records of the host, RFC 7672, the server must prove itself by them; if none of them can be used, nothing goes in plain text; where there are none, as `else` says), `dane-only` (as `dane`, and no mail goes to a host without such records, nor by MX records that DNSSEC does not vouch for), `sts` (where the domain publishes an MTA-STS policy, RFC 8461, that is to be enforced, mail goes only to the hosts that it names, and these need a certificate of a trusted authority for their names; a policy in testing mode is judged, told of in the log, and stops nothing; where there is no policy, as `else` says), or `auto` (as `dane` where there are TLSA records, else as `sts`). `sts` and `auto` are not for relays. If the TLSA records of a host cannot be looked up, it is not used. See `dnssec`. Trusted are the system's authorities together with `tls_trustfile`; for relays that file alone, if it is there. The options are: `min=1.3`, the earliest version where TLS is needed; for `verify`, `names=A:B:.C`, the names of which the certificate must have one instead of that of the host, `.C` being any name with one label before C; for `pin`, `spki=SHA256`, the SHA-256 of the public key as 64 hexadecimal digits, once for each key; for `dane`, `sts` and `auto`, `else=encrypt` instead of `else=may`; for `dane` and `auto`, `insecure_mx=encrypt` or `insecure_mx=may` instead of `insecure_mx=dane`, what TLSA records are worth at hosts of MX records that DNSSEC does not vouch for; `sni=NAME`, the name that the server is asked for; `groups=classic`, to offer no post-quantum key exchange; `cert=PATH` with `key=PATH`, as in `tls_client_cert`. Mail that finds no server that is good enough fails temporarily, and its text says why.",
        show: |config| show_lines(config.directives.tls_policies.iter().map(tls_policy::show_line)),
    },
    Directive {
        name: "tls_client_cert",
        kind: Kind::Text { shape: "PATH", set: |to, text| path(&mut to.tls_client_cert, text) },
        default: Fallback::Described("none"),
        repeat: Repeat::LastHolds,
        on_reload: OnReload::Taken,
        help: "A PEM file with the certificate by which the daemon says who it is to relays that ask, and with those that vouch for it. It is read before privileges are dropped, and again with the configuration. Other servers see it only where a `tls_policy` line says so, since it tells them who is asking.",
        show: |config| located(&config.directives.tls_client_cert),
    },
    Directive {
        name: "tls_client_key",
        kind: Kind::Text { shape: "PATH", set: |to, text| path(&mut to.tls_client_key, text) },
        default: Fallback::Described("none"),
        repeat: Repeat::LastHolds,
        on_reload: OnReload::Taken,
        help: "The PEM file with the private key of `tls_client_cert`.",
        show: |config| located(&config.directives.tls_client_key),
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
        show: |config| Some(config.settings.bounces.from.to_string()),
    },
    Directive {
        name: "dkim_key",
        kind: Kind::Text { shape: "DOMAIN SELECTOR PATH", set: dkim::add_key },
        default: Fallback::Described("none"),
        repeat: Repeat::Cumulative,
        on_reload: OnReload::Taken,
        help: "A key that mail of authors of DOMAIN is signed with (DKIM), and the file that holds it: PEM, RSA of 2048 to 4096 bits or Ed25519, \
               without a password, read before privileges are dropped and at each reload. Its public key is published as \
               SELECTOR`._domainkey.`DOMAIN; `cmail-admin-queue dkim` makes a key, prints that record and checks it. Several lines for one \
               domain: mail gets a signature by each key. Bounces, warnings and reports are signed if DOMAIN is that of `bounce_from`.",
        show: dkim::show_keys,
    },
    Directive {
        name: "dkim_sign",
        kind: Kind::Text { shape: "marked or from", set: dkim::set_mail },
        default: Fallback::Value("marked"),
        repeat: Repeat::LastHolds,
        on_reload: OnReload::Taken,
        help: "Which other mail is signed, if all addresses of its only From: are of one domain with a `dkim_key`: with `marked`, that which was \
               marked when it was submitted, as mail of local users is; with `from`, all of it. `from` is not for an outbox through which \
               mail of strangers is forwarded too, since a forged From: would leave signed. Mail that has a signature of that domain is left alone.",
        show: dkim::show_mail,
    },
    Directive {
        name: "bounce_copy",
        kind: Kind::Text { shape: "ADDRESS …", set: add_bounce_copies },
        default: Fallback::Described("none"),
        repeat: Repeat::Cumulative,
        on_reload: OnReload::Taken,
        help: "Additional recipients of every bounce.",
        show: |config| {
            let copies = &config.settings.bounces.copies;
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
        show: |config| Some(config.settings.bounces.return_limit_octets.to_string()),
    },
];

const fn show_transcripts(transcripts: Transcripts) -> &'static str {
    match transcripts {
        Transcripts::Never => "none",
        Transcripts::OfFailures => "failed",
        Transcripts::Always => "all",
    }
}

fn located(slot: &Option<Located<Box<str>>>) -> Option<String> {
    slot.as_ref().map(|text| text.value.to_string())
}

/// Shows a value of several lines; nothing if there is none.
pub(super) fn show_lines(lines: impl Iterator<Item = String>) -> Option<String> {
    let lines: Vec<_> = lines.collect();
    if lines.is_empty() { None } else { Some(lines.join("\n")) }
}

fn join(words: impl Iterator<Item = String>) -> String {
    words.collect::<Vec<_>>().join(" ")
}
