//! Replies: octets mean the same however they are cut, their meaning is that of a plain reading, the limits hold, and a reply
//! that is written out reads as itself.

use cmail_delivery::reply::{
    REPLY_BOUND_OCTETS, REPLY_LIMIT_OCTETS, REPLY_LINE_LIMIT_OCTETS, REPLY_LINES_LIMIT, Reply, ReplyCode,
    ReplyError, ReplyParser,
};
use cmail_delivery::secrets::Secrets;

/// The replies in `octets`, and the end of the reading.
type Reading = (Vec<Reply>, Result<(), ReplyError>);
/// Code, lines, and whether some are missing.
type Plain = (ReplyCode, Vec<Vec<u8>>, bool);

/// Checks the octets of a server.
pub fn check(octets: &[u8]) {
    let whole = parse(octets, octets.len());
    let plain: Vec<Plain> = whole.0.iter().map(plainly).collect();
    assert_eq!((plain, whole.1), naive(octets));
    let piece = octets.first().map_or(1, |first| usize::from(*first % 13) + 1);
    for piece in [1, piece] {
        assert_eq!(whole, parse(octets, piece), "in pieces of {piece}");
    }
    for reply in &whole.0 {
        check_limits(reply);
        check_round_trip(reply);
        check_masking(reply);
    }
}

fn parse(octets: &[u8], piece: usize) -> Reading {
    let mut parser = ReplyParser::default();
    let mut replies = Vec::new();
    for mut piece in octets.chunks(piece.max(1)) {
        loop {
            match parser.parse(&mut piece) {
                Ok(Some(reply)) => {
                    assert!(parser.is_empty());
                    replies.push(reply);
                }
                Ok(None) => {
                    assert!(piece.is_empty());
                    break;
                }
                Err(error) => {
                    assert_eq!(parser.parse(&mut &b"250 ok\r\n"[..]), Err(error), "the first error stays");
                    return (replies, Err(error));
                }
            }
        }
    }
    (replies, Ok(()))
}

fn plainly(reply: &Reply) -> Plain {
    (reply.code(), reply.lines().map(<[u8]>::to_vec).collect(), reply.is_cut())
}

/// The same with all octets at hand, line by line.
fn naive(octets: &[u8]) -> (Vec<Plain>, Result<(), ReplyError>) {
    let mut replies = Vec::new();
    let mut begun: Option<ReplyCode> = None;
    let (mut kept, mut is_cut, mut kept_octets, mut received) = (Vec::new(), false, 0, 0);
    for line in octets.split_inclusive(|&octet| octet == b'\n') {
        received += line.len();
        if received > REPLY_BOUND_OCTETS {
            return (replies, Err(ReplyError::Endless));
        }
        let Some(line) = line.strip_suffix(b"\n") else { break };
        let beginning = &line[..line.len().min(REPLY_LINE_LIMIT_OCTETS)];
        let text = beginning.strip_suffix(b"\r").unwrap_or(beginning);
        let is_reply = text.len() >= 3 && text[..3].iter().all(u8::is_ascii_digit);
        if !is_reply || !matches!(text.get(3), None | Some(b' ' | b'-')) {
            return (replies, Err(ReplyError::NotAReply));
        }
        let code = reply_code(text[..3].iter().fold(0, |code, digit| code * 10 + u16::from(digit - b'0')));
        if let Some(begun) = begun.filter(|begun| *begun != code) {
            return (replies, Err(ReplyError::CodeChanged(begun, code)));
        }
        begun = Some(code);
        kept_octets += beginning.len() + 1;
        if !is_cut && kept.len() < REPLY_LINES_LIMIT && kept_octets <= REPLY_LIMIT_OCTETS {
            kept.push(text.get(4..).unwrap_or_default().to_vec());
            is_cut = beginning.len() < line.len();
        } else {
            is_cut = true;
        }
        if text.get(3) != Some(&b'-') {
            replies.push((code, std::mem::take(&mut kept), is_cut));
            (begun, is_cut, kept_octets, received) = (None, false, 0, 0);
        }
    }
    (replies, Ok(()))
}

fn reply_code(code: u16) -> ReplyCode {
    ReplyCode::new(code).expect("three digits")
}

fn check_limits(reply: &Reply) {
    let octets: usize = reply.lines().map(|line| line.len() + "250 ".len()).sum();
    assert!(octets <= REPLY_LIMIT_OCTETS + REPLY_LINES_LIMIT);
    assert!((1..=REPLY_LINES_LIMIT).contains(&reply.lines().count()));
    assert!(reply.lines().all(|line| line.len() <= REPLY_LINE_LIMIT_OCTETS && !line.contains(&b'\n')));
    if let Some(status) = reply.enhanced() {
        assert_eq!(u16::from(status.class), reply.code().as_u16() / 100);
        let first = reply.lines().next().unwrap_or_default();
        assert!(matches!(first.first(), Some(b'2' | b'4' | b'5')));
    }
}

/// Written out, raw or as text, it reads as a reply of the same code, lines and text.
fn check_round_trip(reply: &Reply) {
    let mut raw = Vec::new();
    let count = reply.lines().count();
    for (number, line) in reply.lines().enumerate() {
        let separator = if number + 1 == count { b' ' } else { b'-' };
        raw.extend_from_slice(reply.code().to_string().as_bytes());
        raw.push(separator);
        raw.extend_from_slice(line);
        raw.extend_from_slice(b"\r\n");
    }
    if fits(&raw) {
        let lines = reply.lines().map(Box::from).collect();
        assert_eq!(parse(&raw, raw.len()), (vec![Reply::new(reply.code(), lines)], Ok(())));
    }
    let text = reply.text();
    assert!(!reply.is_cut() || text.ends_with(" […]"), "{text:?}");
    assert!(!text.chars().any(|character| character.is_control() && character != '\n'), "{text:?}");
    assert_eq!(text.lines().count(), count);
    let wire = text.replace('\n', "\r\n") + "\r\n";
    if fits(wire.as_bytes()) {
        let (replies, end) = parse(wire.as_bytes(), wire.len());
        assert_eq!((replies.len(), end), (1, Ok(())));
        assert_eq!((replies[0].code(), replies[0].text()), (reply.code(), text));
    }
}

/// Replacing what is not UTF-8 makes a text longer, and so does a CR that was missing.
fn fits(wire: &[u8]) -> bool {
    wire.len() <= REPLY_LIMIT_OCTETS
        && wire.split(|&octet| octet == b'\n').all(|line| line.len() <= REPLY_LINE_LIMIT_OCTETS)
}

/// A secret is not found in a reply without it.
fn check_masking(reply: &Reply) {
    let first = reply.lines().next().unwrap_or_default();
    let Some(secret) = first.get(first.len() / 3..first.len() * 2 / 3).filter(|secret| secret.len() >= 4)
    else {
        return;
    };
    // Its replacement could be a part of it.
    if !secret.contains(&b'*') {
        let mut secrets = Secrets::default();
        secrets.keep(secret);
        let masked = reply.without(&secrets);
        assert!(!masked.lines().any(|line| crate::script::contains(line, secret)));
        assert_eq!((masked.lines().count(), masked.is_cut()), (reply.lines().count(), reply.is_cut()));
    }
    assert_eq!(reply.without(&Secrets::default()), *reply);
}
