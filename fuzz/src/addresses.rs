//! Addresses and domains: what passes is safe in a command line, and reads as itself.

use bytes::BytesMut;
use cmail_delivery::address::{
    AddressError, DOMAIN_LIMIT_OCTETS, Domain, LABEL_LIMIT_OCTETS, MailDomain, Mailbox, is_destination,
};
use cmail_delivery::command::Command;

/// Checks the octets as a mailbox, as a domain, and as the part after an `@`.
pub fn check(octets: &[u8]) {
    if let Ok(mailbox) = Mailbox::parse(octets) {
        check_mailbox(octets, &mailbox);
    }
    let Ok(text) = str::from_utf8(octets) else { return };
    check_domain(text);
    match MailDomain::parse(text) {
        Ok(MailDomain::Literal(address)) => {
            let literal =
                if address.is_ipv6() { format!("[IPv6:{address}]") } else { format!("[{address}]") };
            assert_eq!(MailDomain::parse(&literal), Ok(MailDomain::Literal(address)));
            assert!(text.starts_with('[') && text.ends_with(']'));
        }
        Ok(MailDomain::Name(name)) => assert_eq!(Domain::parse(text), Ok(name)),
        Err(error) => assert!(matches!(error, AddressError::Domain(_))),
    }
}

fn check_mailbox(octets: &[u8], mailbox: &Mailbox) {
    let text = mailbox.as_str();
    assert_eq!(Mailbox::parse(text.as_bytes()).as_ref(), Ok(mailbox));
    assert_eq!(mailbox.to_string(), text);
    assert_eq!(mailbox.needs_smtputf8(), !mailbox.local_part().is_ascii());
    assert!(octets.starts_with(mailbox.local_part().as_bytes()), "the local part keeps its octets");

    let (at, closed) = naive_path(text);
    assert!(closed, "an open quoted string");
    match (at, mailbox.domain()) {
        (None, domain) => assert_eq!(domain, Err(AddressError::NoDomain)),
        (Some(_), Err(AddressError::NoDestination(address))) => assert!(!is_destination(address)),
        (Some(at), domain) => assert_eq!(domain, MailDomain::parse(&text[at + 1..])),
    }
    for (command, before) in [
        (Command::Rcpt { forward_path: mailbox, wishes: None }, "RCPT TO:<"),
        (
            Command::Mail {
                reverse_path: Some(mailbox),
                size: None,
                body_8bit: false,
                smtputf8: false,
                wishes: None,
            },
            "MAIL FROM:<",
        ),
    ] {
        let mut line = BytesMut::new();
        command.write(&mut line);
        assert_eq!(line.escape_ascii().to_string(), format!("{before}{text}>\r\n").escape_ascii_text());
    }
}

/// Returns the position of the last `@` outside of quoted strings, and whether all of these are closed. No octet may end the path
/// or the line.
fn naive_path(text: &str) -> (Option<usize>, bool) {
    let (mut at, mut is_quoted, mut is_escaped) = (None, false, false);
    for (position, octet) in text.bytes().enumerate() {
        assert!(octet == b'\t' || !octet.is_ascii_control(), "{text:?}");
        if is_escaped {
            is_escaped = false;
        } else if is_quoted && octet == b'\\' {
            is_escaped = true;
        } else if octet == b'"' {
            is_quoted = !is_quoted;
        } else if !is_quoted {
            assert!(!matches!(octet, b' ' | b'\t' | b'<' | b'>'), "{text:?}");
            at = if octet == b'@' { Some(position) } else { at };
        }
    }
    (at, !is_quoted && !is_escaped)
}

fn check_domain(text: &str) {
    let Ok(domain) = Domain::parse(text) else { return };
    let name = domain.as_str();
    assert!((1..=DOMAIN_LIMIT_OCTETS).contains(&name.len()));
    for label in name.split('.') {
        assert!((1..=LABEL_LIMIT_OCTETS).contains(&label.len()));
        assert!(!label.starts_with('-') && !label.ends_with('-'));
        assert!(
            label.bytes().all(|octet| matches!(octet, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_')),
            "{name:?}"
        );
    }
    assert_eq!(Domain::parse(name).as_ref(), Ok(&domain));
    assert_eq!(Domain::parse(&name.to_ascii_uppercase()).as_ref(), Ok(&domain));
    if text.is_ascii() && !text.ends_with('.') {
        assert_eq!(Domain::parse(&format!("{text}.")).as_ref(), Ok(&domain));
        let mailbox = Mailbox::parse(format!("a@{text}").as_bytes()).expect("a valid domain is valid there");
        assert_eq!(mailbox.domain(), Ok(MailDomain::Name(domain)));
    }
}

trait EscapeAsciiText {
    fn escape_ascii_text(&self) -> String;
}

impl EscapeAsciiText for String {
    fn escape_ascii_text(&self) -> String {
        self.as_bytes().escape_ascii().to_string()
    }
}
