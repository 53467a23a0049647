use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;

use super::super::tests::{errors, warnings};

#[test]
fn lines_about_destinations_that_say_less_than_they_seem_to_are_warned_of() {
    let text = "database /db\nresolver 192.0.2.1\ndestination * via relay.example:25\ndestination a.example padding 1\n\
                destination remote:relay.example concurrency 30\ndestination b.example via none concurrency 20\n";
    assert_eq!(
        warnings(text),
        [
            "test.conf:4: destination: mail to a.example goes via relay.example:25, so what this line says of connections has no \
             effect; say it of that relay, as in \"destination remote:relay.example …\"",
            "test.conf:5: destination: concurrency 30 is more than the 20 connections that there may be to one host; add \
             \"host_concurrency 30\"",
        ]
    );
}

#[test]
fn what_is_needed_of_tls_where_all_mail_goes_by_a_relay_is_warned_of_unless_it_is_said_of_that_relay() {
    let via = "database /db\nresolver 127.0.0.1\ndestination * via relay.example:25\n";
    for (line, what) in [
        ("tls_policy * dane-only", "*"),
        ("tls_policy [192.0.2.1] encrypt", "[192.0.2.1]"),
        ("tls_policy a.example none", "a.example"),
    ] {
        let expected = format!(
            "test.conf:4: tls_policy: mail to {what} goes via relay.example:25, so what this line says of TLS has no effect; say it of \
             that relay, as in \"tls_policy relay:relay.example …\""
        );
        assert_eq!(warnings(&format!("{via}{line}\n")), [expected]);
    }
    for lines in [
        "tls_policy * may",
        "tls_policy relay:relay.example verify",
        "tls_policy * encrypt\ntls_policy relay:relay.example encrypt",
        "tls_policy * dane-only\ndestination a.example via none",
        "tls_policy [192.0.2.1] encrypt\ndestination [192.0.2.1] via none",
    ] {
        assert_eq!(warnings(&format!("{via}{lines}\n")), [""; 0], "{lines}");
    }
}

#[test]
fn lines_about_destinations_that_cannot_work_together_are_errors() {
    let text = "database /db\ndestination a.example via r.example padding 1\ndestination b.example via r.example padding 2\n\
                destination c.example bind ::1 family ipv4\ndestination d.example bind no.such.host.invalid\n";
    let errors = errors(text);
    assert_eq!(errors.len(), 3, "{errors:?}");
    for (error, beginning) in errors.iter().zip([
        "test.conf:4: destination: bind has no address of the family",
        "test.conf:5: destination: \"no.such.host.invalid\" has no address: ",
        "test.conf:3: destination: line 2 sends mail via the same relay and says something else of it",
    ]) {
        assert!(error.starts_with(beginning), "{error}");
    }
}

#[test]
fn credentials_that_could_only_go_in_the_clear_are_an_error() {
    let directory = tempfile::tempdir().unwrap();
    let login = directory.path().join("login");
    let create = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&login);
    create.unwrap().write_all(b"user:secret").unwrap();
    let text = |relay: &str, more: &str| {
        format!("database /db\ndestination * via {relay} credentials {}\n{more}", login.display())
    };
    for (relay, more) in
        [("192.0.2.9:587", ""), ("[2001:db8::1]:25", "auth_insecure no\n"), ("r.example", "portprio 25\n")]
    {
        let errors = errors(text(relay, more));
        let [error] = &errors[..] else { panic!("{errors:?}") };
        let beginning =
            format!("test.conf:2: destination: via {relay}: credentials are not sent without TLS");
        assert!(
            error.starts_with(&beginning) && error.contains("write /starttls or /tls behind its port"),
            "{error}"
        );
    }
    for (relay, more) in [
        ("192.0.2.9:587/starttls", ""),
        ("192.0.2.9:465/tls", ""),
        ("r.example", ""),
        ("127.0.0.1:25", ""),
        ("[::1]:25", ""),
        ("192.0.2.9:587", "auth_insecure yes\n"),
    ] {
        warnings(&text(relay, more));
    }
}

#[test]
fn what_stands_where_credentials_stand_is_not_told_unless_it_is_a_file() {
    let errors = errors("database /db\ndestination * via r.example:587/starttls credentials TOPsecret99\n");
    let [error] = &errors[..] else { panic!("{errors:?}") };
    assert!(error.contains("write name and password into a file"), "{error}");
    assert!(!error.contains("TOPsecret99"), "{error}");
}

#[test]
fn lines_that_contradict_each_other_are_warned_of() {
    let text = "database /db\nresolver 192.0.2.1\ndestination a.example idle 1 padding 1\ndestination a.example idle 2 padding 1\n\
                destination a.example idle 3\ndestination * idle 4\n";
    assert_eq!(
        warnings(text),
        [
            "test.conf:4: destination: this line overrides idle of line 3, which is about the same destinations",
            "test.conf:5: destination: this line overrides idle of line 4, which is about the same destinations",
        ]
    );
}

#[test]
fn lines_that_leave_no_address_together_are_warned_of() {
    let none = "destination: with what other lines and directives say of these connections, bind has no address of the family";
    for (lines, warned) in [
        ("destination * bind ::1\ndestination a.example family ipv4\n", 4),
        ("bind ::1\ndestination .example family ipv4\n", 4),
        ("destination * bind ::1\ndestination mx:*.example family ipv4\n", 4),
        ("destination * bind ::1\ndestination a.example via r.example family ipv4\n", 4),
        ("destination a.example via r.example:26 family ipv4\ndestination remote:r.example bind ::1\n", 3),
    ] {
        let warnings = warnings(&format!("database /db\nresolver 192.0.2.1\n{lines}"));
        let found = |warning: &String| warning.starts_with(&format!("test.conf:{warned}: {none}"));
        assert!(warnings.len() == 1 && warnings.iter().all(found), "{lines}: {warnings:?}");
    }
}
