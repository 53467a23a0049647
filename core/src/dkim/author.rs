//! The domain of the author of a message.

use core::str;

use crate::address::Domain;

/// Returns the domain that all addresses of a From field have; `None` if they have several, or if anything about the value of the field
/// is unclear: readers might show another author than the one whose domain would sign.
pub fn author_domain(value: &[u8]) -> Option<Domain> {
    let mut addresses = Addresses { rest: value };
    let mut author: Option<Domain> = None;
    while !addresses.rest.is_empty() {
        let Some(domain) = addresses.next()? else { continue };
        let domain = Domain::parse(str::from_utf8(domain.trim_ascii()).ok()?).ok()?;
        if author.as_ref().is_some_and(|author| *author != domain) {
            return None;
        }
        author = Some(domain);
    }
    author
}

/// The addresses of a list (RFC 5322 section 3.4).
struct Addresses<'a> {
    rest: &'a [u8],
}

/// What was found of one address.
#[derive(Default)]
struct Found<'a> {
    /// What follows the last `@` outside of angle brackets.
    bare: Option<&'a [u8]>,
    /// The same inside of them.
    angle: Option<&'a [u8]>,
    /// There is anything at all.
    has_text: bool,
}

impl<'a> Addresses<'a> {
    /// Takes the next address. Returns its domain, or nothing where no address is, as between two commas; `None` if it is malformed.
    fn next(&mut self) -> Option<Option<&'a [u8]>> {
        let mut found = Found::default();
        let mut is_in_angle = false;
        while let Some((&octet, behind)) = self.rest.split_first() {
            match octet {
                b'"' => self.rest = quoted(behind)?,
                b'(' => {
                    self.rest = comment(behind)?;
                    continue;
                }
                b'<' if is_in_angle || found.angle.is_some() => return None,
                b'<' => {
                    is_in_angle = true;
                    self.rest = behind;
                }
                b'>' if !is_in_angle => return None,
                b'>' => {
                    // `<>` is no address.
                    found.angle?;
                    is_in_angle = false;
                    self.rest = behind;
                    continue;
                }
                b'@' => {
                    let (domain, behind) = domain(behind);
                    let place = if is_in_angle { &mut found.angle } else { &mut found.bare };
                    *place = Some(domain);
                    self.rest = behind;
                }
                b',' | b';' if !is_in_angle => {
                    self.rest = behind;
                    break;
                }
                // The name of a group.
                b':' if !is_in_angle => {
                    self.rest = behind;
                    found = Found::default();
                    continue;
                }
                b' ' | b'\t' | b'\r' | b'\n' => {
                    self.rest = behind;
                    continue;
                }
                _ => self.rest = behind,
            }
            if found.angle.is_some() && !is_in_angle {
                // Text behind the angle brackets.
                return None;
            }
            found.has_text = true;
        }
        match (is_in_angle, found.angle.or(found.bare)) {
            (true, _) => None,
            (false, Some(domain)) => Some(Some(domain)),
            (false, None) if found.has_text => None,
            (false, None) => Some(None),
        }
    }
}

/// Returns a domain at the beginning of `octets`, and what follows it.
fn domain(octets: &[u8]) -> (&[u8], &[u8]) {
    let ends = |octet: &u8| matches!(octet, b'>' | b'<' | b',' | b';' | b':' | b'(' | b'"' | b'@');
    let end = octets.iter().position(ends).unwrap_or(octets.len());
    octets.split_at_checked(end).unwrap_or((octets, &[]))
}

/// Returns what follows a quoted string.
fn quoted(octets: &[u8]) -> Option<&[u8]> {
    let mut rest = octets;
    loop {
        rest = match rest {
            [b'\\', _, behind @ ..] => behind,
            [b'"', behind @ ..] => return Some(behind),
            [_, behind @ ..] => behind,
            [] => return None,
        };
    }
}

/// Returns what follows a comment, in which there may be others.
fn comment(octets: &[u8]) -> Option<&[u8]> {
    let (mut rest, mut depth) = (octets, 1_usize);
    loop {
        rest = match rest {
            [b'\\', _, behind @ ..] => behind,
            [b'(', behind @ ..] => {
                depth += 1;
                behind
            }
            [b')', behind @ ..] => {
                depth -= 1;
                if depth == 0 {
                    return Some(behind);
                }
                behind
            }
            [_, behind @ ..] => behind,
            [] => return None,
        };
    }
}
