//! Reads lists of addresses, as a header field (RFC 5322 section 3.4) or a command line has them.
//!
//! Crates that parse mail want an `@` in each address, or take a name for one. On the command lines of sendmail and in the mail of cron
//! most addresses are local names.

use cmail_delivery::address::{AddressError, Mailbox};
use thiserror::Error;

/// Why a list is no list of addresses.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub(super) enum ListError {
    #[error("\"{0}\" is no address: words stand beside it, and it is not in angle brackets")]
    Words(String),
    #[error("\"{0}\" stands behind an address without a comma between them")]
    Behind(String),
    #[error("a colon stands behind the address \"{0}\"; write a comma")]
    Colon(String),
    #[error("a quoted string, a comment or an angle bracket is not closed in \"{0}\"")]
    Unclosed(String),
}

/// An address of a list.
#[derive(Debug, PartialEq, Eq)]
struct Listed {
    /// As it is written, without name, comments and source route.
    address: String,
    /// Where it ends in the list, in octets.
    end: usize,
}

/// Returns the addresses of a list as they are written, without names, comments and groups. The null path is left out.
pub(super) fn addresses(list: &str) -> Result<Vec<String>, ListError> {
    Ok(listed(list)?.into_iter().map(|listed| listed.address).collect())
}

/// Returns a list in which each address without a domain is one of this host; `None` if there is none such in it.
pub(super) fn qualified_list(list: &str, host: &str) -> Option<String> {
    let found = listed(list).ok()?;
    let mut qualified = list.to_owned();
    let is_local = |address: &str| {
        Mailbox::parse(address.as_bytes())
            .is_ok_and(|mailbox| mailbox.domain() == Err(AddressError::NoDomain))
    };
    // From the last one on, so that the others stay where they are.
    for Listed { end, .. } in found.iter().rev().filter(|listed| is_local(&listed.address)) {
        qualified.insert_str(*end, &format!("@{host}"));
    }
    (qualified != list).then_some(qualified)
}

fn listed(list: &str) -> Result<Vec<Listed>, ListError> {
    let unclosed = || ListError::Unclosed(list.trim().to_owned());
    let (mut found, mut entry) = (Vec::new(), Entry::default());
    let mut rest = list.chars();
    while let Some(character) = rest.next() {
        match character {
            '(' => skip_comment(&mut rest).ok_or_else(unclosed)?,
            '"' => entry.push_str(&quoted(&mut rest, '"').ok_or_else(unclosed)?)?,
            '[' => entry.push_str(&quoted(&mut rest, ']').ok_or_else(unclosed)?)?,
            '<' => {
                let path = path(&mut rest).ok_or_else(unclosed)?;
                if entry.path.is_some() {
                    return Err(ListError::Behind(path));
                }
                entry.path = Some(path);
                entry.end = (list.len() - rest.as_str().len()).saturating_sub(">".len());
            }
            ',' | ';' => found.extend(std::mem::take(&mut entry).address()?),
            // What stands before it is the name of a group.
            ':' => entry = entry.begin_group()?,
            space if space.is_ascii_whitespace() => entry.has_space = !entry.plain.is_empty(),
            other => entry.push_str(other.encode_utf8(&mut [0; 4]))?,
        }
        let is_plain = !matches!(character, '(' | '<' | ',' | ';' | ':') && !character.is_ascii_whitespace();
        if is_plain && entry.path.is_none() {
            entry.end = list.len() - rest.as_str().len();
        }
    }
    found.extend(entry.address()?);
    Ok(found)
}

/// Parses an address. One without a domain is an address of this host.
pub(super) fn qualified(address: &str, host: &str) -> Result<Mailbox, AddressError> {
    let mailbox = Mailbox::parse(address.as_bytes())?;
    match mailbox.domain() {
        Ok(_) => Ok(mailbox),
        Err(AddressError::NoDomain) => Mailbox::parse(format!("{address}@{host}").as_bytes()),
        Err(error) => Err(error),
    }
}

/// What stands between two commas.
#[derive(Default)]
struct Entry {
    /// What stands outside of angle brackets: an address, or a name.
    plain: String,
    /// What stands in angle brackets.
    path: Option<String>,
    /// Where the address ends in the list, in octets.
    end: usize,
    /// White space was read after `plain`.
    has_space: bool,
    /// Words are separated by white space, so that they are no address.
    has_words: bool,
}

impl Entry {
    fn push_str(&mut self, text: &str) -> Result<(), ListError> {
        if self.path.is_some() {
            return Err(ListError::Behind(text.to_owned()));
        }
        // Around the `@` and the dots there may be white space (RFC 5322 section 4.4).
        let is_joined = self.plain.ends_with(['@', '.']) || text == "@" || text == ".";
        self.has_words |= self.has_space && !is_joined;
        self.has_space = false;
        self.plain.push_str(text);
        Ok(())
    }

    /// Takes what was read for the name of a group. An address is none: a wrong comma must not cost a recipient.
    fn begin_group(self) -> Result<Self, ListError> {
        match self.path {
            Some(path) => Err(ListError::Colon(path)),
            // The `@` of a quoted string makes no address.
            None if self.plain.rsplit('"').next().is_some_and(|end| end.contains('@')) => {
                Err(ListError::Colon(self.plain))
            }
            None => Ok(Self::default()),
        }
    }

    fn address(self) -> Result<Option<Listed>, ListError> {
        let address = match self.path {
            Some(path) => path,
            None if self.has_words => return Err(ListError::Words(self.plain)),
            None => self.plain,
        };
        Ok((!address.is_empty()).then_some(Listed { address, end: self.end }))
    }
}

/// Reads to the end of a quoted string or of a literal. Returns it with its delimiters.
fn quoted(rest: &mut std::str::Chars<'_>, end: char) -> Option<String> {
    let mut text = String::from(if end == '"' { '"' } else { '[' });
    loop {
        let character = rest.next()?;
        text.push(character);
        if character == '\\' {
            text.push(rest.next()?);
        } else if character == end {
            return Some(text);
        }
    }
}

/// Reads to the end of a comment, which may hold others.
fn skip_comment(rest: &mut std::str::Chars<'_>) -> Option<()> {
    let mut depth = 1_u32;
    while depth > 0 {
        match rest.next()? {
            '(' => depth += 1,
            ')' => depth -= 1,
            '\\' => drop(rest.next()?),
            _ => {}
        }
    }
    Some(())
}

/// Reads to the end of what stands in angle brackets. Returns it without white space and without a source route, which is ignored (RFC 5321
/// section 3.3).
fn path(rest: &mut std::str::Chars<'_>) -> Option<String> {
    let mut path = String::new();
    loop {
        match rest.next()? {
            '>' => return Some(path),
            '"' => path.push_str(&quoted(rest, '"')?),
            '[' => path.push_str(&quoted(rest, ']')?),
            '(' => skip_comment(rest)?,
            ':' if path.starts_with('@') => path.clear(),
            space if space.is_ascii_whitespace() => {}
            other => path.push(other),
        }
    }
}

#[cfg(test)]
mod tests;
