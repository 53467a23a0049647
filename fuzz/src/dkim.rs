//! Signatures of messages: however a message is cut, a verifier that goes by the text of RFC 6376 finds in what goes over the wire
//! exactly what was signed, and the author that a reader sees is of the domain that signs.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use cmail_delivery::address::Domain;
use cmail_delivery::dkim::{
    Algorithm, Digest, Drafted, FIELDS_LIMIT, KeyId, SignMark, SignedMail, Signing, SigningKey, SigningRules,
    Unsigned, author, author_domain,
};
use cmail_delivery::time::UnixTime;
use sha2::{Digest as _, Sha256};

use crate::script::naive_lines;

const DOMAIN: &str = "example.org";

/// Checks a message; the first four octets say where it is cut, and whether it begins with an author of a domain that signs.
pub fn check(octets: &[u8]) {
    let (cuts, rest) = octets.split_at_checked(4).unwrap_or((&[], octets));
    author_domain(rest);
    let has_author = cuts.first().is_some_and(|octet| octet % 2 == 1);
    let beginning: &[u8] = if has_author { b"From: A <a@example.org>\r\n" } else { b"" };
    let message = [beginning, rest].concat();
    let drafted = draft(&message, &[], None);
    assert_eq!(draft(&message, cuts, None), drafted);
    assert_eq!(draft(&message, &[1], None), drafted);
    let Ok(drafted) = drafted else { return };
    assert_eq!(draft(&message, cuts, Some(drafted.body)).as_ref(), Ok(&drafted));
    assert_eq!(author(&message), Domain::parse(DOMAIN).ok());
    assert_eq!(drafted.fields.len(), 2);
    for field in drafted.fields {
        let digest = field.digest;
        let signature = field.signed(&digest);
        assert!(signature.len() < FIELDS_LIMIT * 32 + 1024, "{} octets", signature.len());
        verify(&signature, &message, &digest);
    }
}

fn signing() -> Signing {
    let domain = |text: &str| Domain::parse(text).expect("it is a domain");
    let key = |id, selector: &str, algorithm| SigningKey {
        id: KeyId(id),
        domain: domain(DOMAIN),
        selector: domain(selector),
        algorithm,
    };
    let keys = vec![key(1, "one", Algorithm::RsaSha256), key(2, "two", Algorithm::Ed25519Sha256)];
    let rules = SigningRules { keys, mail: SignedMail::All };
    Signing { rules: Arc::new(rules), now: UnixTime(1_700_000_000) }
}

fn draft(message: &[u8], cuts: &[u8], body: Option<Digest>) -> Result<Drafted, Unsigned> {
    let mut draft = signing().draft(SignMark::Wanted, body).expect("all mail is signed");
    let mut rest = message;
    for cut in cuts.iter().cycle().take(message.len()) {
        let (piece, behind) = rest.split_at(usize::from(cut % 16).min(rest.len()));
        rest = behind;
        if draft.add(piece).is_break() {
            return draft.finish();
        }
    }
    // There is nothing more, whether more is wanted or not.
    let _ = draft.add(rest);
    draft.finish()
}

/// Verifies a signature of a message as it goes over the wire.
fn verify(signature: &str, message: &[u8], digest: &Digest) {
    let lines = naive_lines(message);
    let end = lines.iter().position(Vec::is_empty).unwrap_or(lines.len());
    let (header, body) = (&lines[..end], lines.get(end + 1..).unwrap_or_default());
    let signature = signature.strip_suffix("\r\n").expect("it is whole lines");
    assert!(signature.split("\r\n").all(|line| line.len() <= 78), "{signature}");
    let mut fields = fields(header);
    assert_author(&fields);

    // RFC 6376 section 3.5.
    let tags: Vec<(&str, String)> = signature
        .strip_prefix("DKIM-Signature:")
        .expect("it is a signature")
        .split(';')
        .map(|tag| tag.split_once('=').expect("a tag has a value"))
        .map(|(name, value)| (name.trim(), value.chars().filter(|c| !c.is_ascii_whitespace()).collect()))
        .collect();
    let tag = |wanted: &str| {
        let mut found = tags.iter().filter(|(name, _)| *name == wanted);
        let value = &found.next().unwrap_or_else(|| panic!("there is no {wanted}= in {signature}")).1;
        assert!(found.next().is_none(), "{wanted}= is twice in {signature}");
        value.as_str()
    };
    assert_eq!((tag("v"), tag("c"), tag("d")), ("1", "relaxed/relaxed", DOMAIN));
    assert_eq!(tag("b"), BASE64.encode(digest));

    // RFC 6376 sections 3.4.4 and 3.7.
    let mut body: Vec<Vec<u8>> = body.iter().map(|line| reduced(line)).collect();
    while body.last().is_some_and(Vec::is_empty) {
        body.pop();
    }
    let body: Vec<u8> = body.into_iter().flat_map(|line| [&line[..], b"\r\n"].concat()).collect();
    assert_eq!(tag("bh"), BASE64.encode(Sha256::digest(&body)));

    // RFC 6376 sections 3.4.2 and 5.4.2: the fields from the bottom, and names without a field are the empty string.
    let mut input = Vec::new();
    for name in tag("h").split(':') {
        if let Some(at) =
            fields.iter().rposition(|field| name_of(field).eq_ignore_ascii_case(name.as_bytes()))
        {
            input.extend(relaxed(&fields.remove(at)));
            input.extend(b"\r\n");
        }
    }
    let (before, _) = signature.rsplit_once("b=").expect("b= is the last tag");
    input.extend(relaxed(format!("{before}b=").as_bytes()));
    assert_eq!(Sha256::digest(&input).as_slice(), digest);
    // Nobody can add another author, recipient or subject.
    assert!(fields.iter().all(|field| {
        !["from", "to", "subject"].iter().any(|name| name_of(field).eq_ignore_ascii_case(name.as_bytes()))
    }));
}

/// Returns the fields of a header section, each with the line ends in it.
fn fields(lines: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let mut fields: Vec<Vec<u8>> = Vec::new();
    for line in lines {
        if line.starts_with(b" ") || line.starts_with(b"\t") {
            let field = fields.last_mut().expect("a section does not begin with a continuation");
            field.extend([b"\r\n", &line[..]].concat());
        } else {
            assert!(line.contains(&b':'), "what has other lines is not signed");
            fields.push(line.clone());
        }
    }
    fields
}

fn name_of(field: &[u8]) -> &[u8] {
    field.split(|octet| *octet == b':').next().unwrap_or_default()
}

/// Returns a field as the algorithm `relaxed` canonicalizes it.
fn relaxed(field: &[u8]) -> Vec<u8> {
    let name = name_of(field);
    let value: Vec<u8> =
        field[name.len() + 1..].iter().copied().filter(|octet| !b"\r\n".contains(octet)).collect();
    let value = reduced(&value);
    [&name.to_ascii_lowercase()[..], b":", value.strip_prefix(b" ").unwrap_or(&value)].concat()
}

/// Returns a line with one space for each run of blanks, and none at its end.
fn reduced(line: &[u8]) -> Vec<u8> {
    let mut reduced: Vec<u8> = Vec::new();
    for &octet in line {
        match octet {
            b' ' | b'\t' if reduced.last() == Some(&b' ') => {}
            b' ' | b'\t' => reduced.push(b' '),
            _ => reduced.push(octet),
        }
    }
    if reduced.last() == Some(&b' ') {
        reduced.pop();
    }
    reduced
}

/// Asserts that whoever looks for addresses in From:, as roughly as may be, finds only those of the domain that signs.
fn assert_author(fields: &[Vec<u8>]) {
    let mut authors = fields.iter().filter(|field| name_of(field).eq_ignore_ascii_case(b"from"));
    let (Some(author), None) = (authors.next(), authors.next()) else { panic!("there is not one author") };
    let text = std::str::from_utf8(&author[5..]).expect("it is text");
    let mut characters = text.chars();
    let (mut plain, mut depth, mut is_quoted) = (String::new(), 0, false);
    while let Some(character) = characters.next() {
        match character {
            '\\' => drop(characters.next()),
            '"' if depth == 0 => {
                is_quoted = !is_quoted;
                plain.push('q');
            }
            '(' if !is_quoted => depth += 1,
            ')' if !is_quoted => depth -= 1,
            _ if !is_quoted && depth == 0 => plain.push(character),
            _ => {}
        }
    }
    assert!(plain.contains('@'), "{text}");
    for behind in plain.split('@').skip(1) {
        let domain = behind.split(['<', '>', ',', ';', ':']).next().unwrap_or_default();
        assert_eq!(Domain::parse(domain.trim()).as_ref().map(Domain::as_str), Ok(DOMAIN), "{text}");
    }
}
