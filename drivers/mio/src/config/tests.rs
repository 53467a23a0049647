mod retry;

use super::*;

use std::fs;
use std::net::SocketAddr;

use cmail_delivery::hold::HoldLine;
use cmail_delivery::next_hop::{Port, TlsMode};
use cmail_delivery::policy::{PolicyLine, RateLimit};
use cmail_delivery::settings::NameServer;
use cmail_delivery::time::Duration;
use proptest::prelude::*;

const FILE: &str = "test.conf";

fn environment() -> Environment {
    Environment {
        host_name: Ok("host.example".to_owned()),
        resolv_conf: "/nonexistent/resolv.conf".into(),
        directory: std::env::current_dir(),
        needs_log: true,
    }
}

fn load(text: impl AsRef<[u8]>) -> Result<Config, Rejection> {
    Config::from_octets(Path::new(FILE), text.as_ref(), &environment())
}

fn config(text: &str) -> Config {
    load(text).unwrap()
}

pub(super) fn errors(text: impl AsRef<[u8]>) -> Vec<String> {
    load(text).unwrap_err().errors.iter().map(ToString::to_string).collect()
}

pub(super) fn warnings(text: &str) -> Vec<String> {
    config(text).warnings.iter().map(ToString::to_string).collect()
}

fn name_server(address: &str) -> NameServer {
    address.parse::<SocketAddr>().unwrap().into()
}

#[test]
fn without_a_directive_its_default_holds() {
    let config = config("database /var/db\n");
    let settings = &config.settings;
    assert_eq!(config.database, Path::new("/var/db"));
    assert_eq!(
        (config.verbosity, &config.logfile, &config.pidfile, &config.trust_file),
        (0, &None, &None, &None)
    );
    assert_eq!(config.identity, Identity::default());
    assert_eq!((settings.policy.bind, &*settings.destinations), (LocalAddresses::default(), &[][..]));
    assert_eq!((&*settings.announce, &*settings.bounces.from), ("host.example", "postmaster@host.example"));
    assert!(settings.bounces.copies.is_empty());
    assert_eq!(settings.interval, Duration::from_secs(10));
    assert_eq!(
        (settings.schedule.retries, settings.schedule.retry_interval_s, settings.policy.padding),
        (5, 3600, 10)
    );
    let ports = [(25, TlsMode::StartTls), (25, TlsMode::Plain)].map(|(number, tls)| Port { number, tls });
    assert_eq!(*settings.policy.ports, ports);
    assert_eq!(settings.policy.rate_limit, None);
    assert_eq!(settings.resolver.servers, [name_server("127.0.0.1:53")]);
    assert_eq!((settings.resolver.timeout, settings.resolver.attempts), (Duration::from_secs(5), 2));
    assert_eq!((settings.concurrency, settings.policy.concurrency), (500, 10));
    assert_eq!((settings.policy.host_concurrency, settings.policy.idle), (20, Duration::from_secs(5)));
    assert_eq!(settings.bounces.return_limit_octets, 1_048_576);
    assert!(!settings.auth_insecure && !settings.told.conversations);
}

#[test]
fn a_file_that_is_written_serves_no_other_purpose() {
    assert_eq!(
        errors("database /var/db\npidfile /var/./db\nlogfile /var/db\n"),
        [
            "test.conf:3: logfile: the directive \"database\" in line 1 already uses this file",
            "test.conf:2: pidfile: the directive \"database\" in line 1 already uses this file",
        ]
    );
    assert_eq!(errors("database /db\nlogfile /log\npidfile /log\n").len(), 1);
    for (lines, told) in [
        ("control /s\nsubmit /s", "3: submit: the directive \"control\" in line 2"),
        ("submit /s\nmetrics /s", "2: submit: the directive \"metrics\" in line 3"),
        ("control /s\nmetrics /./s", "2: control: the directive \"metrics\" in line 3"),
        ("submit /db.dispatch-control", "2: submit: the directive \"control\" by default"),
        ("record /r\nsubmit /r", "3: submit: the directive \"record\" in line 2"),
        ("pidfile /p\nsubmit /p", "3: submit: the directive \"pidfile\" in line 2"),
        ("logfile /db-wal", "2: logfile: the directive \"database\" in line 1"),
        ("control /db", "2: control: the directive \"database\" in line 1"),
        ("logfile test.conf", "2: logfile: the configuration"),
    ] {
        assert_eq!(
            errors(format!("database /db\n{lines}\n")),
            [format!("test.conf:{told} already uses this file")],
            "{lines}"
        );
    }
}

#[test]
fn a_trust_file_that_was_cut_off_is_told_in_words() {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), "-----BEGIN CERTIFICATE-----\nAAAA\n").unwrap();
    let [error] = &errors(format!("database /db\ntls_trustfile {}\n", file.path().display()))[..] else {
        panic!();
    };
    assert!(error.ends_with("is not valid PEM: a section has no end"), "{error}");
}

#[test]
fn a_line_that_is_not_utf_8_names_its_directive() {
    assert_eq!(
        errors(b"database /d\n\tlogfile /caf\xe9\n"),
        ["test.conf:2: logfile: the line is not UTF-8 text"]
    );
}

#[test]
fn a_byte_order_mark_at_the_beginning_is_no_part_of_a_directive() {
    assert_eq!(config("\u{feff}database /d\n").database, Path::new("/d"));
    assert_eq!(errors("database /d\n\u{feff}interval 5\n").len(), 1);
}

#[test]
fn every_directive_reaches_its_setting() {
    let config = config(
        "database /d b/x\nuser root\ngroup root\nlogfile /l\npidfile /p\nverbosity 4\nannounce Mail.Example\n\
         bind 127.0.0.1\nportprio 465@TLS 587@starttls 26\nresolver 192.0.2.1 [::1]:5353\ninterval 1\nretries 2\n\
         retryinterval 0\nconcurrency 3\ndestination_concurrency 4\nhost_concurrency 6\nconnection_idle 0\n\
         ratelimit 7/min\ntls_padding 0\n\
         auth_insecure yes\nbounce_from mailer@example.org\nbounce_copy a@example.org b@example.org\n\
         bounce_return_limit 0\n",
    );
    let settings = &config.settings;
    assert_eq!(config.database, Path::new("/d b/x"));
    assert_eq!(config.logfile.as_deref(), Some(Path::new("/l")));
    assert_eq!(config.pidfile.as_deref(), Some(Path::new("/p")));
    assert_eq!((config.identity.uid().unwrap().as_raw(), config.identity.gid().unwrap().as_raw()), (0, 0));
    let bind = LocalAddresses { ipv4: Some([127, 0, 0, 1].into()), ipv6: None };
    assert_eq!(settings.policy.bind, bind);
    assert!(config.verbosity == 4 && settings.told.conversations);
    assert_eq!((&*settings.announce, &*settings.bounces.from), ("Mail.Example", "mailer@example.org"));
    assert_eq!(settings.bounces.copies, ["a@example.org".into(), "b@example.org".into()]);
    let ports = [(465, TlsMode::Implicit), (587, TlsMode::StartTls), (26, TlsMode::Plain)];
    assert_eq!(*settings.policy.ports, ports.map(|(number, tls)| Port { number, tls }));
    let servers = ["192.0.2.1:53", "[::1]:5353"].map(name_server);
    assert_eq!(settings.resolver.servers, servers);
    assert_eq!(settings.interval, Duration::from_secs(1));
    assert_eq!(
        (settings.schedule.retries, settings.schedule.retry_interval_s, settings.policy.padding),
        (2, 0, 0)
    );
    assert_eq!((settings.concurrency, settings.policy.concurrency), (3, 4));
    assert_eq!((settings.policy.host_concurrency, settings.policy.idle), (6, Duration::ZERO));
    assert_eq!(settings.policy.rate_limit, Some(RateLimit { transactions: 7, per: Duration::from_secs(60) }));
    assert_eq!(settings.bounces.return_limit_octets, 0);
    assert!(settings.auth_insecure);
    assert!(config.warnings.is_empty());
}

#[test]
fn comments_and_white_space_do_not_count() {
    let text = b"# Caf\xe9 \xff\r\n\r\n\t database \x0b\x0c /db \t # comment \xff\r\n#\n   \nretries\t7#8";
    let config = load(text).unwrap();
    assert_eq!(config.database, Path::new("/db"));
    assert_eq!(config.settings.schedule.retries, 7);
}

#[test]
fn a_line_may_be_long() {
    let addresses: Vec<String> = (0..10_000).map(|number| format!("a{number}@example.org")).collect();
    let config = config(&format!("database /db\nbounce_copy {}\n", addresses.join(" ")));
    assert_eq!(config.settings.bounces.copies.len(), 10_000);
}

#[test]
fn all_errors_are_reported_with_their_place() {
    let text = b"verbosty 1\nretries\ninterval 0\nretries many\nportprio 25 25@ssl\nannounce a b\nuser no-such-user\n\
        group no-such-group\n\xff x\ntls_trustfile /nonexistent/pem\ndatabase /a\ndatabase /a\nbounce_from\ta@b.example\n\
        Retries 5\nauth_insecure maybe\nresolver ns.example\nratelimit fast\nbind 192.0.2.300.\n";
    let errors = errors(text);
    let mut places: Vec<_> =
        errors.iter().map(|error| error.split(' ').take(2).collect::<Vec<_>>().join(" ")).collect();
    places.sort_unstable();
    let mut expected: Vec<_> = [
        "1: verbosty:",
        "2: retries:",
        "3: interval:",
        "4: retries:",
        "5: portprio:",
        "6: announce:",
        "7: user:",
        "8: group:",
        "9: the",
        "10: tls_trustfile:",
        "12: database:",
        "14: Retries:",
        "15: auth_insecure:",
        "16: resolver:",
        "17: ratelimit:",
        "18: bind:",
    ]
    .map(|place| format!("{FILE}:{place}"))
    .to_vec();
    expected.sort_unstable();
    assert_eq!(places, expected);
    assert_eq!(errors[0], "test.conf:1: verbosty: unknown directive; did you mean verbosity?");
    assert_eq!(errors[2], "test.conf:3: interval: 0 is out of range: it must be from 1 to 2147483647");
}

#[test]
fn no_more_of_an_original_comes_back_than_memory_should_hold() {
    let most = config("database /db\nbounce_return_limit 67108864\n");
    assert_eq!(most.settings.bounces.return_limit_octets, 64 << 20);
    assert_eq!(
        errors("database /db\nbounce_return_limit 67108865\n"),
        ["test.conf:2: bounce_return_limit: 67108865 is out of range: it must be from 0 to 67108864"]
    );
}

#[test]
fn the_database_is_required_and_named_once() {
    assert_eq!(errors(""), ["test.conf: database: the directive is missing, and there is no default"]);
    assert_eq!(
        errors("database /a\npidfile /p\n\npidfile /p\n"),
        ["test.conf:4: pidfile: the directive is already given on line 2, and may be given only once"]
    );
    // A database without a name is not missing as well.
    assert_eq!(errors("database\n"), ["test.conf:1: database: the value is missing"]);
}

#[test]
fn the_last_of_several_holds_unless_they_add_up() {
    let config = config(
        "database /db\nretries 3\nretries 4\nportprio 465@tls\nportprio 26\nbounce_copy a@example.org\n\
         bounce_copy b@example.org\nresolver 192.0.2.1\nresolver 192.0.2.2\n",
    );
    assert_eq!(config.settings.schedule.retries, 4);
    assert_eq!(*config.settings.policy.ports, [Port { number: 26, tls: TlsMode::Plain }]);
    assert_eq!(config.settings.bounces.copies.len(), 2);
    assert_eq!(config.settings.resolver.servers.len(), 2);
}

#[test]
fn what_is_ignored_is_warned_of() {
    let text = "resolver 192.0.2.1\ndatabase /db\nratelimit 10\ntls_priorities NORMAL:-VERS-TLS1.0\n";
    let warnings = warnings(text);
    assert_eq!(warnings.len(), 2);
    assert!(warnings[0].starts_with("test.conf:3: ratelimit: a plain number is ignored"), "{}", warnings[0]);
    assert!(
        warnings[1].starts_with("test.conf:4: tls_priorities: the directive is ignored"),
        "{}",
        warnings[1]
    );
    assert_eq!(config(text).settings.policy.rate_limit, None);
}

#[test]
fn what_only_looks_wrong_is_warned_of() {
    let text = "database /db\nresolver 192.0.2.1\nannounce mail\nbounce_from <>\nbounce_copy a@b.example postmaster\n";
    let warnings = warnings(text);
    assert_eq!(warnings.len(), 3, "{warnings:?}");
    assert!(warnings[0].starts_with("test.conf:3: announce: mail has no dot"), "{warnings:?}");
    assert!(
        warnings[1].starts_with("test.conf:4: bounce_from: \"<>\" is not a mail address: "),
        "{warnings:?}"
    );
    assert!(
        warnings[2].starts_with("test.conf:5: bounce_copy: \"postmaster\" is not a mail address: "),
        "{warnings:?}"
    );
    let settings = config(text).settings;
    assert_eq!(
        (&*settings.announce, &*settings.bounces.from, settings.bounces.copies.len()),
        ("mail", "<>", 2)
    );
    for announce in ["[192.0.2.1]", "a.b"] {
        let text = format!("database /db\nresolver 192.0.2.1\nannounce {announce}\n");
        assert_eq!(config(&text).warnings, []);
    }
    let short = Environment { host_name: Ok("mail".to_owned()), ..environment() };
    let config = Config::from_octets(Path::new(FILE), b"database /db\nresolver 192.0.2.1\n", &short).unwrap();
    assert!(
        config.warnings[0].to_string().starts_with("test.conf: announce: the host's name mail has no dot")
    );
    // Nothing but text stands in a header field.
    assert_eq!(errors("database /db\nbounce_from a\rb\n").len(), 1);
}

#[test]
fn long_values_are_shortened() {
    let long = "x".repeat(100_000);
    let errors = errors(format!("database /db\n{long} 1\nretries {long}\nuser {long}\n"));
    assert!(errors.len() == 3 && errors.iter().all(|error| error.len() < 200), "{errors:?}");
}

#[test]
fn spans_of_time_may_have_a_unit() {
    let config = config("database /db\nretryinterval 1h\ninterval 2m\nconnection_idle 90s\n");
    assert_eq!(config.settings.schedule.retry_interval_s, 3600);
    assert_eq!(config.settings.interval, Duration::from_secs(120));
    assert_eq!(config.settings.policy.idle, Duration::from_secs(90));
    let error = &errors("database /db\nretryinterval 60x\n")[0];
    assert!(error.starts_with("test.conf:2: retryinterval: \"60x\" is not a span of time"), "{error}");
}

#[test]
fn an_unreadable_resolv_conf_matters_only_without_resolvers() {
    let found = warnings("database /db\n");
    assert!(found[0].contains(" /nonexistent/resolv.conf cannot be read"), "{found:?}");
    assert!(warnings("database /db\nresolver 192.0.2.1\n").is_empty());
}

#[test]
fn timeouts_of_resolv_conf_hold_for_given_resolvers_too() {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), "nameserver 192.0.2.9\noptions timeout:7 attempts:3\n").unwrap();
    let environment = Environment { resolv_conf: file.path().into(), ..environment() };
    for (line, server) in [("", "192.0.2.9:53"), ("resolver 192.0.2.1:54\n", "192.0.2.1:54")] {
        let text = format!("database /db\n{line}");
        let config = Config::from_octets(Path::new(FILE), text.as_bytes(), &environment).unwrap();
        let resolver = config.settings.resolver;
        assert_eq!(resolver.servers, [name_server(server)]);
        assert_eq!((resolver.timeout, resolver.attempts), (Duration::from_secs(7), 3));
    }
}

#[test]
fn a_host_without_a_usable_name_needs_the_directive() {
    for host_name in [Ok("(none)".to_owned()), Ok(String::new()), Err(io::Error::other("broken"))] {
        let environment = Environment { host_name, ..environment() };
        let load = |text: &str| Config::from_octets(Path::new(FILE), text.as_bytes(), &environment);
        let errors = load("database /db\n").unwrap_err().errors;
        assert_eq!((errors.len(), &*errors[0].directive), (1, "announce"));
        assert_eq!(&*load("database /db\nannounce a.example\n").unwrap().settings.announce, "a.example");
        // A wrong announce is one error, not two.
        assert_eq!(load("database /db\nannounce a b\n").unwrap_err().errors.len(), 1);
    }
}

#[test]
fn a_trust_file_must_hold_certificates() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("roots.pem");
    let text = format!("database /db\ntls_trustfile {}\n", path.display());
    assert!(errors(&text)[0].contains("cannot be read"));
    fs::write(&path, "no certificate\n").unwrap();
    assert!(errors(&text)[0].contains("contains no certificate"));
    fs::write(&path, "-----BEGIN CERTIFICATE-----\n!!!\n-----END CERTIFICATE-----\n").unwrap();
    assert!(errors(&text)[0].contains("is not valid PEM"), "{:?}", errors(&text));
    let certified = rcgen::generate_simple_self_signed(["host.example".to_owned()]).unwrap();
    fs::write(&path, certified.cert.pem()).unwrap();
    assert_eq!(config(&text).trust_file, Some(path));
}

#[test]
fn relative_paths_are_found_after_the_daemon_has_left_its_directory() {
    let config = config("database db\nlogfile log/x\npidfile ./pid\n");
    let here = std::env::current_dir().unwrap();
    assert_eq!(config.database, here.join("db"));
    assert_eq!(config.logfile, Some(here.join("log/x")));
    assert_eq!(config.pidfile, Some(here.join("pid")));
}

#[test]
fn a_rejection_still_names_the_database() {
    assert_eq!(load("database /db\nfoo bar\n").unwrap_err().database.as_deref(), Some(Path::new("/db")));
    let missing = Config::load(Path::new("/nonexistent.conf"), &environment()).unwrap_err();
    assert!(
        missing.errors[0]
            .to_string()
            .starts_with("/nonexistent.conf: the configuration file cannot be read: ")
    );
}

#[test]
fn the_report_shows_every_directive_once_and_its_default() {
    let report = config("database /db\n").to_string();
    for directive in &DIRECTIVES {
        let name = directive.name;
        let is_line_of = |line: &&str| {
            let code = line.strip_prefix("# ").unwrap_or(line);
            code.split([' ', ':']).next() == Some(name)
        };
        assert_eq!(report.lines().filter(is_line_of).count(), 1, "{name}");
    }
    for line in [
        "retryinterval           3600",
        "portprio                25@starttls 25",
        "# logfile: standard error",
    ] {
        assert!(report.lines().any(|found| found == line), "{line} is missing in\n{report}");
    }
}

#[test]
fn names_in_the_table_are_unique_and_defaults_parse() {
    let mut names: Vec<_> = DIRECTIVES.iter().map(|directive| directive.name).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), DIRECTIVES.len());
    for directive in &DIRECTIVES {
        if let Fallback::Value(value) = directive.default {
            assert_eq!(directive.kind.read(&mut Directives::default(), Located { line: 1, value }), Ok(()));
        }
    }
}

#[test]
fn the_documentation_has_the_table_of_directives() {
    assert_section(
        "docs/configuration.md",
        ["<!-- directives -->\n", "<!-- /directives -->"],
        &manual_table(),
    );
}

#[test]
fn the_manual_page_has_the_list_of_directives() {
    let markers = [".\\\" directives\n", ".\\\" /directives"];
    assert_section("drivers/mio/cmail-dispatchd.8", markers, &manual_page_list());
}

#[test]
fn the_manual_page_is_that_of_this_version() {
    let page = fs::read_to_string(in_workspace("drivers/mio/cmail-dispatchd.8")).unwrap();
    let title = page.lines().find(|line| line.starts_with(".TH ")).unwrap();
    assert!(title.contains(concat!("dispatchd ", env!("CARGO_PKG_VERSION"), "\"")), "{title}");
}

/// Compares what stands between two markers of a file with what is generated, or writes it there if `UPDATE_DOCS` is
/// set.
fn assert_section(file: &str, [begin, end]: [&str; 2], generated: &str) {
    let path = in_workspace(file);
    let text = fs::read_to_string(&path).unwrap();
    let (before, rest) = text.split_once(begin).expect("the section's beginning is marked");
    let (section, after) = rest.split_once(end).expect("the section's end is marked");
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(&path, format!("{before}{begin}{generated}{end}{after}")).unwrap();
        return;
    }
    let how = "UPDATE_DOCS=1 cargo test -p cmail-dispatchd config::";
    assert_eq!(section, generated, "{file} is not up to date; run: {how}");
}

/// A file of the workspace.
fn in_workspace(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(file)
}

#[test]
fn the_example_configurations_are_right() {
    for name in ["dispatchd.conf", "quickstart.conf"] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../example-configs").join(name);
        // Parsed only: the users and files that they name belong to another host.
        let (directives, errors) = Directives::parse(&path, &fs::read(&path).unwrap());
        assert!(errors.is_empty(), "{errors:?}");
        assert!(directives.warnings.is_empty() && directives.database.is_some(), "{name}");
    }
}

#[test]
fn the_long_example_shows_every_directive() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../example-configs/dispatchd.conf");
    let text = fs::read_to_string(path).unwrap();
    for directive in DIRECTIVES.iter().filter(|directive| directive.name != "tls_priorities") {
        let shown = text.lines().any(|line| {
            let code = line.strip_prefix('#').unwrap_or(line);
            code.split_once(' ').is_some_and(|(name, value)| name == directive.name && !value.is_empty())
        });
        assert!(shown, "{} is missing", directive.name);
    }
    // What is commented out would be accepted too.
    let is_directive = |code: &&str| code.starts_with(|first: char| first.is_ascii_lowercase());
    let commented_out: Vec<&str> =
        text.lines().filter_map(|line| line.strip_prefix('#').filter(is_directive)).collect();
    let everything = format!("{text}{}\n", commented_out.join("\n"));
    let (_, errors) = Directives::parse(Path::new(FILE), everything.as_bytes());
    assert!(errors.is_empty(), "{errors:?}");
    // It shows a default, where there is one.
    for (name, value) in commented_out.iter().filter_map(|code| code.split_once(' ')) {
        let directive = DIRECTIVES.iter().find(|directive| directive.name == name).unwrap();
        if let Fallback::Value(default) = directive.default {
            assert_eq!(value, default, "{name}");
        }
    }
}

#[test]
fn the_service_runs_a_command_line_that_is_right() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../example-configs/cmail-dispatchd.service");
    let unit = fs::read_to_string(path).unwrap();
    let command = unit.lines().find_map(|line| line.strip_prefix("ExecStart=")).unwrap();
    let mut words = command.split(' ');
    assert!(words.next().unwrap().ends_with("/cmail-dispatchd"));
    let crate::args::Command::Run(invocation) = crate::args::parse(words.map(Into::into)).unwrap() else {
        panic!("{command}")
    };
    assert!(invocation.action.is_daemon() && !invocation.detach);
}

/// A line that is often right.
fn line() -> impl Strategy<Value = String> {
    let number = prop_oneof![0..20u64, any::<u64>()].prop_map(|number| number.to_string());
    let text = prop_oneof![
        Just("yes".to_owned()),
        Just("off".to_owned()),
        "[a-z]{1,6}@[a-z]{1,6}\\.example",
        "([a-zA-Z]{1,6}\\.){0,2}example",
        "[0-9]{1,5}(@(tls|StartTLS))?( [0-9]{1,4}@tls)?",
        "[0-9]{1,3}/(s|min|h)",
        "192\\.0\\.2\\.[0-9]{1,2}(:[0-9]{1,5})?( \\[::1\\]:53)?",
        "/[a-z ]{1,10}[a-z]",
        "root",
        "127\\.0\\.0\\.1",
        "(\\*|\\.example|mx:\\*\\.example) (concurrency [0-9]{1,3}|idle [0-9]{1,3}[sm]?)( bind 127\\.0\\.0\\.1)?",
    ];
    let name = prop::sample::select(DIRECTIVES.iter().map(|directive| directive.name).collect::<Vec<_>>());
    (name, "[ \t]{1,3}", prop_oneof![number, text])
        .prop_map(|(name, space, value)| format!("{name}{space}{value}"))
}

/// All that a configuration is, but for the lines that its values stand on.
fn meaning(config: &Config) -> String {
    let Config {
        file: _,
        settings,
        verbosity,
        logformat,
        logfile,
        pidfile,
        database,
        record,
        metrics,
        metrics_destinations,
        control,
        submit,
        submit_size_octets,
        identity,
        trust_file,
        credentials_files: _,
        keys: _,
        ledger,
        warnings: _,
        resolver: _,
        directives: _,
    } = config;
    let mut settings = settings.clone();
    settings.destinations =
        settings.destinations.iter().cloned().map(|line| PolicyLine { line: 0, ..line }).collect();
    settings.schedule.hold_lines =
        settings.schedule.hold_lines.iter().cloned().map(|line| HoldLine { line: 0, ..line }).collect();
    format!(
        "{settings:?} {verbosity} {logformat} {logfile:?} {pidfile:?} {database:?} {record:?} {metrics:?} {metrics_destinations:?} {control:?} {submit:?} {submit_size_octets} {identity:?} {trust_file:?} {ledger:?}"
    )
}

proptest! {
    #[test]
    fn a_printed_configuration_is_one_with_the_same_meaning(lines in prop::collection::vec(line(), 0..12)) {
        // Lines that are wrong, or one too many, are left out one by one.
        let mut text = String::from("database /db\n");
        for line in lines {
            let longer = format!("{text}{line}\n");
            if load(&longer).is_ok() {
                text = longer;
            }
        }
        let first = config(&text);
        let printed = first.to_string();
        let second = config(&printed);
        prop_assert_eq!(meaning(&first), meaning(&second));
        prop_assert_eq!(&second.to_string(), &printed);
    }

    #[test]
    fn any_octets_are_a_configuration_or_errors_of_one_line_each(
        octets in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        if let Err(rejection) = load(&octets) {
            prop_assert!(!rejection.errors.is_empty());
            for error in rejection.errors {
                prop_assert!(!error.to_string().contains(char::is_control), "{}", error);
            }
        }
    }

    #[test]
    fn any_value_of_any_directive_is_accepted_or_refused_in_one_line(
        name in prop::sample::select(DIRECTIVES.iter().map(|directive| directive.name).collect::<Vec<_>>()),
        value in "\\PC{0,10}[\\x00-\\x1f@/:.0-9]{0,4}\\PC{0,5}",
    ) {
        let (_, errors) = Directives::parse(Path::new(FILE), format!("{name} {value}").as_bytes());
        for error in errors {
            prop_assert!(!error.to_string().contains(char::is_control), "{}", error);
        }
    }
}
