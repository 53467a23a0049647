//! Signatures as a receiver reads them (RFC 6376), without the core's code. The signatures of the simulation tell what was signed.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use cmail_delivery::dkim::KeyId;
use sha2::{Digest as _, Sha256};

/// The name of the field.
const NAME: &[u8] = b"DKIM-Signature:";

/// Returns the signatures at the beginning of a message whose lines end with CRLF, and the message without them.
pub(crate) fn divide(message: &[u8]) -> (Vec<&[u8]>, &[u8]) {
    let (mut signatures, mut rest) = (Vec::new(), message);
    while rest.starts_with(NAME) {
        let (signature, behind) = first_field(rest);
        signatures.push(signature);
        rest = behind;
    }
    (signatures, rest)
}

/// Returns the key that has signed a message. The error says what is wrong with the signature.
pub(crate) fn verify(signature: &[u8], message: &[u8]) -> Result<KeyId, String> {
    let value = signature.get(NAME.len()..).unwrap_or_default();
    let tags = tags(value);
    let tag = |name: &str| tags.get(name).map(String::as_str).unwrap_or_default();
    let (header, body) = divide_at_empty_line(message);
    if tag("bh") != BASE64.encode(Sha256::digest(relaxed_body(body))) {
        return Err("the digest of the body is another one".into());
    }
    let mut fields: BTreeMap<Vec<u8>, Vec<Vec<u8>>> = BTreeMap::new();
    let mut rest = header;
    while !rest.is_empty() {
        let (field, behind) = first_field(rest);
        rest = behind;
        let (name, relaxed) = relaxed_field(field);
        fields.entry(name).or_default().push(relaxed);
    }
    let mut signed = Sha256::new();
    for name in tag("h").split(':') {
        // The last one first; those that are not there count as empty.
        if let Some(field) = fields.get_mut(name.as_bytes()).and_then(Vec::pop) {
            signed.update(field);
            signed.update(b"\r\n");
        }
    }
    let end = [&b" b="[..], b"\tb="].into_iter().filter_map(|tag| memchr::memmem::find(signature, tag)).min();
    let unsigned = signature.get(..end.map_or(signature.len(), |end| end + 3)).unwrap_or_default();
    signed.update(relaxed_field(unsigned).1);
    let made = BASE64.decode(tag("b")).map_err(|error| format!("b= is no base64: {error}"))?;
    let Some((key, digest)) = made.split_first_chunk::<8>() else { return Err("b= is too short".into()) };
    if *digest != signed.finalize()[..] {
        return Err("the digest of the header fields is another one".into());
    }
    Ok(KeyId(u64::from_be_bytes(*key)))
}

/// Returns the domain of the address in the From field of a message.
pub(crate) fn author_domain(message: &[u8]) -> Option<String> {
    let mut rest = divide_at_empty_line(message).0;
    while !rest.is_empty() {
        let (field, behind) = first_field(rest);
        rest = behind;
        let (name, relaxed) = relaxed_field(field);
        if name == b"from" {
            let text = String::from_utf8_lossy(&relaxed).into_owned();
            let (_, domain) = text.rsplit_once('@')?;
            return Some(domain.trim_end_matches('>').to_ascii_lowercase());
        }
    }
    None
}

/// Returns the first field with its line end, and what follows.
fn first_field(header: &[u8]) -> (&[u8], &[u8]) {
    let is_end = |at: &usize| !matches!(header.get(at + 2), Some(b' ' | b'\t'));
    let end = memchr::memmem::find_iter(header, b"\r\n").find(is_end).map_or(header.len(), |at| at + 2);
    header.split_at(end)
}

/// Returns the header section without the empty line behind it, and the body.
fn divide_at_empty_line(message: &[u8]) -> (&[u8], &[u8]) {
    if let Some(body) = message.strip_prefix(b"\r\n") {
        return (&[], body);
    }
    match memchr::memmem::find(message, b"\r\n\r\n") {
        Some(at) => (message.get(..at + 2).unwrap_or_default(), message.get(at + 4..).unwrap_or_default()),
        None => (message, &[]),
    }
}

/// Returns the tags of a list, without white space in them.
fn tags(list: &[u8]) -> BTreeMap<String, String> {
    let text: String = String::from_utf8_lossy(list).chars().filter(|it| !it.is_ascii_whitespace()).collect();
    let pairs = text.split(';').filter_map(|tag| tag.split_once('='));
    pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

/// Returns a text with a blank for each run of white space, and none at its end.
fn with_single_blanks(text: &[u8]) -> Vec<u8> {
    let mut single = Vec::with_capacity(text.len());
    for &octet in text {
        match octet {
            b' ' | b'\t' if single.last() == Some(&b' ') => {}
            b' ' | b'\t' => single.push(b' '),
            _ => single.push(octet),
        }
    }
    if single.last() == Some(&b' ') {
        single.pop();
    }
    single
}

/// Returns the name of a field in lower case, and the field in the form `relaxed` without its line end (RFC 6376 section 3.4.2).
fn relaxed_field(field: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let colon = memchr::memchr(b':', field).unwrap_or(field.len());
    let (name, value) = field.split_at(colon);
    let name = name.to_ascii_lowercase();
    let value: Vec<u8> =
        value.iter().skip(1).copied().filter(|octet| !matches!(octet, b'\r' | b'\n')).collect();
    let value = with_single_blanks(value.trim_ascii_start());
    let relaxed = [&name[..], b":", &value].concat();
    (name, relaxed)
}

/// Returns a body in the form `relaxed` (RFC 6376 section 3.4.4).
fn relaxed_body(body: &[u8]) -> Vec<u8> {
    let mut relaxed = Vec::with_capacity(body.len());
    let mut end = 0;
    let body = body.strip_suffix(b"\r\n").unwrap_or(body);
    let mut rest = Some(body).filter(|body| !body.is_empty());
    while let Some(text) = rest {
        let line = match memchr::memmem::find(text, b"\r\n") {
            Some(at) => {
                rest = text.get(at + 2..);
                text.get(..at).unwrap_or_default()
            }
            None => {
                rest = None;
                text
            }
        };
        let line = with_single_blanks(line);
        relaxed.extend_from_slice(&line);
        relaxed.extend_from_slice(b"\r\n");
        if !line.is_empty() {
            end = relaxed.len();
        }
    }
    relaxed.truncate(end);
    relaxed
}
