//! The lines that say when mail is tried again.

use super::*;

#[test]
fn a_retry_rule_is_shown_as_it_is_read_and_the_lines_add_up() {
    let text =
        "database /var/db\nretry sender:<> * 30m 3600 until 1d\nretry .example.com 4.2.2 90s until 432000\n";
    let config = config(text);
    let rules: Vec<String> = config.settings.schedule.rules.iter().map(ToString::to_string).collect();
    assert_eq!(rules, ["sender:<> * 30m 1h until 1d", ".example.com 4.2.2 90s until 5d"]);
    let lines: Vec<u32> = config.settings.schedule.rules.iter().map(|rule| rule.line).collect();
    assert_eq!(lines, [2, 3]);
    let shown = config.to_string();
    let shown: Vec<_> = shown.lines().filter(|line| line.starts_with("retry ")).map(str::trim_end).collect();
    assert_eq!(shown.len(), 2, "one line each: {shown:?}");
    assert_eq!(self::config(&config.to_string()).settings.schedule.rules.len(), 2);
}

#[test]
fn a_wrong_retry_rule_says_what_is_wrong_with_it() {
    for (value, error) in [
        ("* *", "a retry rule is MAIL FAILURE WAIT … until AGE, as in \"* * 15m 1h 4h until 5d\""),
        ("* * until 5d", "a retry rule is MAIL FAILURE WAIT … until AGE, as in \"* * 15m 1h 4h until 5d\""),
        ("* * 5m 1h", "a retry rule is MAIL FAILURE WAIT … until AGE, as in \"* * 15m 1h 4h until 5d\""),
        (
            "mx:*.example.com * 5m until 5d",
            "\"mx:*.example.com\" does not say which mail is meant: \"mx:\" is not known here, because the hosts of a domain are \
             looked up only when its mail is tried",
        ),
        ("* * 0 until 5d", "0 is out of range: it must be from 1 to 31536000"),
        (
            "* * soon until 5d",
            "\"soon\" is not a span of time: it must be a number of seconds, or a number followed by s, m, h or d",
        ),
    ] {
        let errors = errors(format!("database /var/db\nretry {value}\n"));
        assert_eq!(errors, [format!("{FILE}:2: retry: {error}")]);
    }
    let wrong = errors("database /var/db\nretry * conect 5m until 5d\n");
    assert!(
        wrong[0].contains("\"conect\" does not say which failures are meant: it must be \"*\", one of"),
        "{wrong:?}"
    );
}

#[test]
fn a_retry_rule_that_is_never_used_is_warned_of() {
    let text = "database /var/db\nannounce mx.example.org\nresolver 127.0.0.1\nretry * 45 5m until 5d\nretry example.org 45 1m until 1d\n";
    assert_eq!(
        warnings(&format!("{text}retry * * 1h until 5d\n")),
        [format!(
            "{FILE}:5: retry: line 4 is about the same mail and comes first, so this line is never used"
        )]
    );
}

#[test]
fn rules_that_leave_mail_without_one_are_warned_of() {
    let text = "database /var/db\nannounce mx.example.org\nresolver 127.0.0.1\nretry * connect 5m until 5d\n";
    let warned = warnings(text);
    assert_eq!(warned.len(), 1, "{warned:?}");
    assert!(warned[0].starts_with(&format!("{FILE}:4: retry: no line is about all the rest")), "{warned:?}");
    assert_eq!(warnings(&format!("{text}retry * * 5m until 5d\n")), [""; 0]);
}
