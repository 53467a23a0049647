//! The configuration file: the output of `check` for one has the same meaning, each line is read separately, and every error
//! names its line.

use std::io;
use std::path::Path;

use cmail_dispatchd::config::{Config, DIRECTIVES, Directives, Environment};

/// Directives whose values are looked up on this host, so that their meaning is not in the file.
const LOOKED_UP: [&str; 4] = ["user", "group", "tls_trustfile", "bind"];

/// Checks a configuration file.
pub fn check(octets: &[u8]) {
    let file = Path::new("fuzz.conf");
    let (directives, errors) = Directives::parse(file, octets);
    let lines = octets.split(|&octet| octet == b'\n').count();
    for error in &errors {
        assert!(error.line.is_none_or(|line| (1..=lines).contains(&line)));
        let text = error.to_string();
        assert!(text.starts_with("fuzz.conf:") && !text.chars().any(char::is_control), "{text:?}");
        assert!(error.line.is_some() || &*error.directive == "database");
    }
    // A refused line changes nothing.
    let kept: Vec<&[u8]> = octets
        .split(|&octet| octet == b'\n')
        .zip(1..)
        .map(|(text, line)| if errors.iter().any(|error| error.line == Some(line)) { &b""[..] } else { text })
        .collect();
    let (again, left) = Directives::parse(file, &kept.join(&b'\n'));
    assert_eq!(again, directives);
    assert!(left.iter().all(|error| error.line.is_none()), "{left:?}");
    check_round_trip(file, &kept);
}

fn check_round_trip(file: &Path, lines: &[&[u8]]) {
    let is_ours = |line: &&[u8]| {
        let text = String::from_utf8_lossy(line);
        !LOOKED_UP
            .iter()
            .any(|name| text.trim_start_matches([' ', '\t', '\r', '\x0b', '\x0c']).starts_with(name))
    };
    let lines: Vec<&[u8]> = lines.iter().copied().filter(is_ours).collect();
    let environment = Environment {
        host_name: Err(io::ErrorKind::NotFound.into()),
        resolv_conf: "/dev/null".into(),
        directory: Ok("/".into()),
        needs_log: true,
    };
    let Ok(config) = Config::from_octets(file, &lines.join(&b'\n'), &environment) else { return };
    let printed = config.to_string();
    let (_, errors) = Directives::parse(file, printed.as_bytes());
    assert!(errors.is_empty(), "{errors:?} in\n{printed}");
    let again =
        Config::from_octets(file, printed.as_bytes(), &environment).expect("what is printed is valid");
    assert_eq!(again.to_string(), printed);
    assert_eq!(format!("{:?}", again.settings), format!("{:?}", config.settings));
    assert_eq!(again.verbosity, config.verbosity);
    assert_eq!(
        (&again.database, &again.logfile, &again.pidfile),
        (&config.database, &config.logfile, &config.pidfile)
    );
    for directive in &DIRECTIVES {
        assert!(printed.lines().any(|line| line.trim_start_matches("# ").starts_with(directive.name)));
    }
}
