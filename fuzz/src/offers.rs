//! The extensions that a server offers, and the parameters of commands that belong to them.

use std::collections::BTreeSet;

use cmail_delivery::reply::Reply;

/// What a reply to EHLO offers.
#[derive(Debug, Default)]
pub(crate) struct Offers {
    keywords: BTreeSet<String>,
    /// The largest message in octets, if the server says one.
    pub(crate) size_limit: Option<usize>,
}

impl Offers {
    /// Returns what a reply to EHLO offers.
    pub(crate) fn of(reply: &Reply) -> Self {
        let mut offers = Self::default();
        for line in reply.lines().skip(1).filter_map(|line| str::from_utf8(line).ok()) {
            let mut words = line.split_ascii_whitespace();
            let Some(keyword) = words.next().map(str::to_ascii_uppercase) else { continue };
            if keyword == "SIZE" {
                offers.size_limit =
                    words.next().and_then(|limit| limit.parse().ok()).filter(|limit| *limit > 0);
            }
            offers.keywords.insert(keyword);
        }
        offers
    }

    pub(crate) fn has(&self, keyword: &str) -> bool {
        self.keywords.contains(keyword)
    }

    /// Returns whether authentication is offered, in whichever form.
    pub(crate) fn has_auth(&self) -> bool {
        self.keywords.iter().any(|keyword| keyword.starts_with("AUTH"))
    }

    /// Asserts that parameters of MAIL are offered.
    pub(crate) fn check_mail(&self, parameters: &str) {
        for parameter in parameters.split_whitespace() {
            let keyword = match parameter.split_once('=').unwrap_or((parameter, "")) {
                ("SIZE", _) => "SIZE",
                ("BODY", "8BITMIME") => "8BITMIME",
                ("SMTPUTF8", "") => "SMTPUTF8",
                ("RET", "FULL" | "HDRS") => "DSN",
                ("ENVID", id) if is_xtext(id) => "DSN",
                _ => panic!("{parameter:?} is no parameter of MAIL"),
            };
            assert!(self.has(keyword), "{parameter:?}, but {keyword} is not offered");
        }
    }

    /// Asserts that parameters of RCPT are those of RFC 3461 section 4, and offered.
    pub(crate) fn check_rcpt(&self, parameters: &str) {
        for parameter in parameters.split_whitespace() {
            let is_known = match parameter.split_once('=').unwrap_or((parameter, "")) {
                ("NOTIFY", "NEVER") => true,
                ("NOTIFY", events) => {
                    events.split(',').all(|event| ["SUCCESS", "FAILURE", "DELAY"].contains(&event))
                }
                ("ORCPT", original) => original.split_once(';').is_some_and(|(_, address)| is_xtext(address)),
                _ => false,
            };
            assert!(is_known, "{parameter:?} is no parameter of RCPT");
            assert!(self.has("DSN"), "{parameter:?}, but DSN is not offered");
        }
    }
}

/// Returns the path of MAIL or RCPT, and the parameters after it.
pub(crate) fn path<'a>(argument: &'a str, keyword: &str) -> (&'a str, &'a str) {
    let path = argument.strip_prefix(keyword).expect("a path");
    let (mut is_quoted, mut is_escaped) = (false, false);
    // Only in quotes a path has such a bracket; parameters may have others.
    let end = path.find(|character| {
        let is_end = character == '>' && !is_quoted;
        is_quoted ^= character == '"' && !is_escaped;
        is_escaped = character == '\\' && is_quoted && !is_escaped;
        is_end
    });
    let (path, rest) = path.split_at(end.expect("the end of a path"));
    (path, &rest[1..])
}

/// Returns whether a text is the value of a parameter (RFC 3461 section 4).
fn is_xtext(text: &str) -> bool {
    let is_plain = |octet: u8| octet.is_ascii_graphic() && !b"+=".contains(&octet);
    let is_hexadecimal = |octet: &u8| octet.is_ascii_digit() || (b'A'..=b'F').contains(octet);
    let mut pieces = text.split('+');
    let first = pieces.next().unwrap_or_default();
    !text.is_empty()
        && first.bytes().all(is_plain)
        && pieces.all(|piece| {
            piece.split_at_checked(2).is_some_and(|(code, rest)| {
                code.as_bytes().iter().all(is_hexadecimal) && rest.bytes().all(is_plain)
            })
        })
}
