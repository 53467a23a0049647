use super::*;

const PIN: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

fn parse(text: &str) -> Result<TlsPolicyLine, TlsPolicyError> {
    TlsPolicyLine::parse(text, 1, &[])
}

#[test]
fn lines_are_shown_as_they_are_written() {
    for text in [
        "* may",
        "example.org none",
        ".example.org encrypt min=1.3 sni=a.example groups=classic",
        "relay:relay.example.net verify",
        "example.org verify names=mx.example.org:.example.net",
        "[192.0.2.1] encrypt",
        "[IPv6:2001:db8::1] encrypt",
        &format!("example.org pin spki={PIN} spki={}", PIN.replace('0', "f")),
        "example.org may cert=/etc/c.pem key=/etc/k.pem",
        "* sts else=may",
        "example.org sts else=encrypt min=1.3 groups=classic",
        "* auto else=may insecure_mx=dane",
        "example.org auto else=encrypt insecure_mx=may",
    ] {
        assert_eq!(parse(text).map(|line| show_line(&line)).as_deref(), Ok(text));
    }
    assert_eq!(show_line(&parse("remote:a.example verify").unwrap()), "relay:a.example verify");
    assert_eq!(show_line(&parse("a.example encrypt min=1.2 groups=all").unwrap()), "a.example encrypt");
}

#[test]
fn an_option_that_a_level_does_not_use_is_an_error() {
    let values = [
        ("min", "1.3"),
        ("names", "a.example"),
        ("sni", "a.example"),
        ("spki", PIN),
        ("else", "may"),
        ("insecure_mx", "may"),
        ("cert", "/c"),
        ("key", "/k"),
        ("groups", "classic"),
    ];
    for level in LEVELS {
        for (option, value) in values {
            let uses = OPTIONS.iter().any(|(name, users)| *name == option && users.contains(&level));
            let found = parse(&format!("a.example {level} {option}={value}"));
            let refused = matches!(found, Err(TlsPolicyError::Unused { .. }));
            assert_eq!(refused, !uses, "{level} {option}: {found:?}");
        }
    }
}

#[test]
fn dane_warns_of_name_servers_that_are_not_believed() {
    let warnings = |text: &str| crate::config::tests::warnings(&format!("database /db\n{text}\n"));
    assert_eq!(warnings("tls_policy * dane\nresolver 127.0.0.1"), [""; 0]);
    assert_eq!(warnings("tls_policy * encrypt\nresolver 192.0.2.1"), [""; 0]);
    let none = warnings("tls_policy * dane\nresolver 192.0.2.1");
    assert!(
        none.len() == 1 && none[0].contains("no name server is believed to validate (192.0.2.1:53)"),
        "{none:?}"
    );
    let some = warnings("tls_policy * dane\nresolver 127.0.0.1 192.0.2.1");
    assert!(some.len() == 1 && some[0].contains("192.0.2.1:53 is not believed to validate"), "{some:?}");
    assert!(none[0].contains("only if those validate, and nobody can change their answers"), "{none:?}");
    let trusted = warnings("tls_policy * dane\nresolver 192.0.2.1 ::1\ndnssec trust");
    assert!(
        trusted.len() == 1 && trusted[0].contains("192.0.2.1:53 is believed, and is not on"),
        "{trusted:?}"
    );
    assert_eq!(warnings("tls_policy * dane\nresolver ::1 127.0.0.1\ndnssec trust"), [""; 0]);
}

#[test]
fn each_mistake_has_its_error() {
    for (text, expected) in [
        ("sender:a@b.example may", "does not say which destinations"),
        ("mx:a.example may", "is said of a domain"),
        ("a.example", "must go on with what is needed"),
        ("a.example encrpyt", "did you mean encrypt"),
        ("a.example encrypt mim=1.3", "did you mean min"),
        ("a.example encrypt min", "1.2 or 1.3"),
        ("a.example encrypt min=1.1", "1.2 or 1.3"),
        ("a.example encrypt min=1.2 min=1.3", "given twice"),
        ("a.example verify names=a..b", "names with colons"),
        ("a.example verify names=", "names with colons"),
        ("a.example pin", "at least one spki"),
        ("a.example pin spki=1234", "64 hexadecimal"),
        ("a.example may cert=/c", "both"),
        ("a.example may key=/k", "both"),
        ("a.example may groups=some", "classic or all"),
        ("relay:a.example sts", "sts cannot be meant for a relay"),
        ("relay:a.example auto", "auto cannot be meant for a relay"),
        ("a.example sts sni=b.example", "the level sts does not use it"),
        ("a.example sts insecure_mx=may", "the level sts does not use it"),
    ] {
        let error = parse(text).unwrap_err().to_string();
        assert!(error.contains(expected), "{text}: {error}");
    }
}

#[test]
fn a_second_line_about_the_same_destinations_is_an_error() {
    let first = parse("remote:a.example may").unwrap();
    let second = TlsPolicyLine::parse("relay:a.example encrypt", 9, std::slice::from_ref(&first));
    assert_eq!(second, Err(TlsPolicyError::Repeated(1)));
    assert!(TlsPolicyLine::parse(".a.example encrypt", 9, &[first]).is_ok());
}
