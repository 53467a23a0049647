//! Texts of faillog rows: a written text is printable and bounded and reads as its source, and any other stored text reads as
//! something printable.

use std::net::SocketAddr;

use cmail_delivery::failure::{FailureText, OwnFailure, StoredFailure, TEXT_LIMIT_OCTETS};
use cmail_delivery::reply::ReplyParser;
use cmail_delivery::status::EnhancedStatus;

/// Checks octets as a stored text, and as host, command and reply, separated by LF.
pub fn check(octets: &[u8]) {
    check_stored(octets);
    let text = String::from_utf8_lossy(octets);
    let mut parts = text.splitn(3, '\n');
    let (host, command) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let said = parts.next().unwrap_or_default();
    check_server(said, host, command);
    check_own(said);
    check_reply_of_a_server(octets);
}

fn is_printable(text: &str) -> bool {
    let steers = |character: char| character.is_control() || matches!(character, '\u{2028}' | '\u{2029}');
    !text.chars().any(|character| steers(character) && character != '\n')
}

/// Reading yields something printable, from which the same is read again.
fn check_stored(octets: &[u8]) -> StoredFailure {
    let stored = StoredFailure::parse(octets);
    assert!(is_printable(&stored.text), "{:?}", stored.text);
    if stored.text.len() <= TEXT_LIMIT_OCTETS {
        let again = StoredFailure::parse(stored.text.as_bytes());
        assert_eq!(again, StoredFailure { text: again.text.clone(), ..stored.clone() });
        assert_eq!(again.text, stored.text.trim_end());
    }
    if let Some(reply) = &stored.reply {
        assert!((200..600).contains(&reply.code) && !reply.lines.is_empty());
        assert!(reply.lines.iter().all(|line| !line.contains('\n')));
        let class = stored.status.map(|status| u16::from(status.class));
        assert!(class.is_none_or(|class| class == reply.code / 100));
    }
    if let Some(remote) = &stored.remote {
        assert!(!remote.host.is_empty() && !remote.host.contains(char::is_whitespace));
        assert!(!remote.address.contains(char::is_whitespace));
    }
    stored
}

/// A text that is written is stored as it is.
fn check_written(text: &str) -> StoredFailure {
    assert!(text.len() <= TEXT_LIMIT_OCTETS, "{} octets", text.len());
    assert!(is_printable(text), "{text:?}");
    let stored = check_stored(text.as_bytes());
    assert_eq!(stored.text, text);
    stored
}

fn check_server(said: &str, host: &str, command: &str) {
    let address = SocketAddr::from(([192, 0, 2, 1], 25));
    let text = FailureText::server(said, host, address, command);
    let stored = check_written(&text);
    if let Some(remote) = &stored.remote {
        assert_eq!(remote.address, "[192.0.2.1]:25");
    }
    // Without a name there is none to read.
    assert_eq!(stored.remote.is_some(), !host.is_empty());
    if let Some(reply) = &stored.reply {
        assert!(text.starts_with(&format!("{}", reply.code)));
        assert!(text.lines().count() > reply.lines.len(), "the origin is no line of the reply");
    }
    assert_eq!(stored.own.is_some(), said_own(&text));
}

fn said_own(text: &str) -> bool {
    let own = [OwnFailure::Resolve, OwnFailure::ReachMx, OwnFailure::ReachRelay];
    own.iter().any(|own| text.starts_with(own.as_str()))
}

fn check_own(detail: &str) {
    let status = EnhancedStatus::NO_ANSWER;
    for own in [OwnFailure::Resolve, OwnFailure::ReachMx, OwnFailure::ReachRelay] {
        let text = FailureText::own(own, status, detail);
        assert!(text.starts_with(own.as_str()) && !text.contains('\n'));
        let stored = check_written(&text);
        assert_eq!((stored.own, stored.status), (Some(own), Some(status)));
        assert_eq!((stored.reply, stored.remote), (None, None), "our own words are nobody else's");
    }
    let text = FailureText::free(EnhancedStatus::MESSAGE_TOO_LONG, detail);
    // A text of nothing is only a status.
    let stored = check_stored(text.as_bytes());
    assert_eq!(stored.status, Some(EnhancedStatus::MESSAGE_TOO_LONG), "{text:?}");
    assert_eq!((stored.reply, stored.remote), (None, None), "{text:?}");
}

/// A reply as a server sends it comes back with its code, its status and its lines, as far as these are kept.
fn check_reply_of_a_server(mut octets: &[u8]) {
    let Ok(Some(reply)) = ReplyParser::default().parse(&mut octets) else { return };
    let address = SocketAddr::from(([192, 0, 2, 1], 25));
    let text = FailureText::server(&reply.text(), "mx.example.org", address, "RCPT TO");
    let stored = check_written(&text);
    assert_eq!(stored.command.as_deref(), Some("RCPT TO"));
    if !(200..600).contains(&reply.code().as_u16()) {
        return;
    }
    let kept = stored.reply.expect("a server has spoken");
    assert_eq!(kept.code, reply.code().as_u16());
    assert!(kept.lines.len() <= reply.lines().count());
    assert_eq!(stored.status.is_some(), reply.enhanced().is_some());
    assert_eq!(stored.status, reply.enhanced());
    for (kept, said) in kept.lines.iter().zip(reply.lines()) {
        if said.len() <= 500 && said.iter().all(|octet| octet.is_ascii_graphic()) && kept != "…" {
            assert_eq!(kept.as_bytes(), said);
        }
    }
}
