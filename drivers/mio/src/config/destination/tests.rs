use super::*;

fn parse(text: &str) -> Result<DestinationLine, String> {
    DestinationLine::parse(text, 1).map_err(|error| error.to_string())
}

#[test]
fn a_line_is_written_as_it_is_read() {
    for text in [
        "gmail.com concurrency 5 host_concurrency 9 ratelimit 10/s recipients 50 messages 100",
        ".lan ports 465@tls,25@starttls,25 via relay.lan:25 bind 10.0.0.2 padding 0 chunking no",
        "* via [2001:db8::1]:587/starttls credentials /etc/cmail/relay.login family ipv6 pipelining no",
        "mx:*.example.net idle 90s family ipv4",
        "remote:relay.lan ratelimit none messages none bind none pipelining yes family any",
        "example.org via none idle 0s",
    ] {
        let parsed = parse(text).unwrap();
        assert_eq!(parsed.to_string(), text);
        assert_eq!(parse(&parsed.to_string()), Ok(parsed));
    }
    assert_eq!(parse(" * \t idle  1m ").unwrap().to_string(), "* idle 1m");
}

#[test]
fn what_cannot_work_is_refused_with_key_and_reason() {
    for (text, reason) in [
        ("gmail.com", "nothing is said of the destinations"),
        (
            "sender:<> concurrency 1",
            "\"sender:<>\" does not say which destinations are meant: \"sender:\" is not known",
        ),
        ("* concurency 5", "\"concurency\" is not known here (did you mean concurrency?)"),
        ("* tls yes", "\"tls\" is not known here: it must be one of concurrency, "),
        ("* concurrency", "concurrency: the value is missing"),
        ("* idle 1 concurrency 5 idle 2", "idle: it is given twice on this line"),
        ("* concurrency 0", "concurrency: 0 is out of range: it must be from 1 to 1000000"),
        ("* recipients 101", "recipients: 101 is out of range: it must be from 1 to 100"),
        ("* ratelimit 10", "ratelimit: \"10\" is not a rate"),
        ("* idle 2h", "idle: 2h is out of range: it must be from 0 to 3600"),
        ("* ports 25,smtp", "ports: \"smtp\" is not a port"),
        ("* padding 1001", "padding: 1001 is out of range"),
        ("* pipelining maybe", "pipelining: \"maybe\" is neither \"yes\" nor \"no\""),
        ("* family inet", "family: \"inet\" is not known here: it must be any, ipv4 or ipv6"),
        ("* chunking yes", "chunking: it must be no: messages are always sent by DATA"),
        (
            "* via relay:25/ssl",
            "via: it must be HOST, HOST:PORT, HOST:PORT/starttls or HOST:PORT/tls, or none; ",
        ),
        ("mx:mx.example.org via relay:25", "via: it cannot stand on a line about mx:mx.example.org"),
        ("remote:relay via other:25", "via: it cannot stand on a line about remote:relay"),
        ("* credentials /secret", "credentials: they are those of a relay"),
        ("* credentials /secret via none", "credentials: they are those of a relay"),
    ] {
        let error = parse(text).unwrap_err();
        assert!(error.starts_with(reason), "{text}: {error}");
    }
}

#[test]
fn a_password_on_the_line_is_refused_and_not_told() {
    for text in [
        "* via user:secret@relay:25",
        "* via user:secret@",
        "* via user:secret@a@relay:99999",
        "* via relay:25/starttls user:secret",
        "* via relay:25/starttls credentials user:secret",
        "* credentials user:secret via relay:25/starttls",
        "* user:secret via relay:25/starttls",
        "via user:secret@relay:25/starttls",
    ] {
        let error = DestinationLine::parse(text, 1).unwrap_err();
        let wanted = ["write name and password into a file", "does not say which destinations are meant"];
        assert!(wanted.iter().any(|wanted| error.to_string().contains(wanted)), "{text}: {error}");
        assert!(!format!("{error} {error:?}").contains("secret"), "{text}: {error:?}");
    }
}

#[test]
fn a_word_that_may_be_a_password_is_not_told() {
    for (text, reason) in [
        (
            "* via relay:25/tls credentials user secret",
            "a word that is not repeated, since it may be a password",
        ),
        ("* via relay:25/tls secret", "a word that is not repeated, since it may be a password"),
        ("user:secret@relay:25 idle 5", "a word that is not repeated, since it may be a password"),
        ("* concurrency user:secret", "concurrency: this is no value of it"),
        ("* via relay:25/tls bind user:secret", "bind: this is no value of it"),
        ("* via relay:25/user:secret", "via: it must be HOST"),
        ("* via user:secret", "via: it must be HOST"),
    ] {
        let error = DestinationLine::parse(text, 1).unwrap_err();
        assert!(error.to_string().starts_with(reason), "{text}: {error}");
        assert!(!format!("{error} {error:?}").contains("secret"), "{text}: {error:?}");
    }
    let slip = parse("* via relay:25/tls concurency 5").unwrap_err();
    assert!(slip.contains("is not known here (did you mean concurrency?)"), "{slip}");
}
