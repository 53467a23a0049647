//! The domain of the author of a message.

use core::str;

use crate::address::Domain;

/// Most addresses of an author. A longer list is not read.
pub const AUTHORS_LIMIT: usize = 50;

/// Returns the domain that all addresses of a From field have; `None` if they have several, or if anything about the value of the field
/// is unclear: readers might show another author than the one whose domain would sign.
///
/// The value must be a list of mailboxes and groups with comments and folding (RFC 5322 section 3.4). Of its obsolete forms only dots in
/// names and empty places of the list are accepted, since all readers agree on them. A display name may be an address of the same domain,
/// as many programs write it.
pub fn author_domain(value: &[u8]) -> Option<Domain> {
    let text = str::from_utf8(value).ok()?;
    let is_blank = |character| matches!(character, '\t' | '\r' | '\n');
    if text.chars().any(|character| character.is_control() && !is_blank(character)) {
        return None;
    }
    let mut list = AddressList { rest: text, author: None, count: 0, before_group: None };
    list.read()?;
    list.author
}

/// A piece of the list. Blanks and comments are none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token<'a> {
    /// Atoms and the dots between them.
    Word(&'a str),
    /// A quoted string.
    Quoted,
    /// One of [`SPECIALS`].
    Special(char),
    /// The end of the list.
    End,
}

/// What stands between words. Others of RFC 5322's `specials` are nowhere allowed outside of quoted strings and comments.
const SPECIALS: &[char] = &['<', '>', '@', ',', ':', ';'];

struct AddressList<'a> {
    rest: &'a str,
    /// The domain of all addresses so far.
    author: Option<Domain>,
    /// The addresses so far.
    count: usize,
    /// Inside of a group: the addresses before it.
    before_group: Option<usize>,
}

/// `None` means that the list is unclear.
impl<'a> AddressList<'a> {
    /// Reads the whole list.
    fn read(&mut self) -> Option<()> {
        loop {
            let mut token = self.read_place()?;
            if token == Token::Special(';') {
                // A group without members might be shown as an author.
                self.before_group.take().filter(|before| *before < self.count)?;
                token = self.next()?;
            }
            match token {
                Token::Special(',') => {}
                Token::End if self.before_group.is_none() => return Some(()),
                Token::End | Token::Special(_) | Token::Word(_) | Token::Quoted => return None,
            }
        }
    }

    /// Reads one place of the list, which may be empty, and returns what follows it.
    fn read_place(&mut self) -> Option<Token<'a>> {
        let (mut words, mut token) = (0_usize, self.next()?);
        while matches!(token, Token::Word(_) | Token::Quoted) {
            words += 1;
            token = self.next()?;
        }
        match (token, words) {
            (Token::Special('@'), 1) => {
                self.read_domain()?;
                let token = self.next()?;
                // The name of an author may be an address, as long as it is one of the same domain.
                if token == Token::Special('<') { self.read_in_angle() } else { Some(token) }
            }
            (Token::Special('<'), _) => self.read_in_angle(),
            (Token::Special(':'), 1..) if self.before_group.is_none() => {
                self.before_group = Some(self.count);
                self.read_place()
            }
            (_, 0) => Some(token),
            (Token::Special(_) | Token::End | Token::Word(_) | Token::Quoted, _) => None,
        }
    }

    /// Reads an address behind its `<`, and returns what follows its `>`.
    fn read_in_angle(&mut self) -> Option<Token<'a>> {
        let is_local_part = matches!(self.next()?, Token::Word(_) | Token::Quoted);
        let is_address = is_local_part && self.next()? == Token::Special('@');
        if !is_address {
            return None;
        }
        self.read_domain()?;
        if self.next()? == Token::Special('>') { self.next() } else { None }
    }

    /// Reads the domain of an address.
    fn read_domain(&mut self) -> Option<()> {
        let Token::Word(domain) = self.next()? else { return None };
        let domain = Domain::parse(domain).ok()?;
        self.count += 1;
        let is_of_all = self.author.get_or_insert_with(|| domain.clone()) == &domain;
        (is_of_all && self.count <= AUTHORS_LIMIT).then_some(())
    }

    /// Takes the next token.
    fn next(&mut self) -> Option<Token<'a>> {
        loop {
            let mut behind = self.rest.chars();
            let Some(first) = behind.next() else { return Some(Token::End) };
            let behind = behind.as_str();
            match first {
                ' ' | '\t' | '\r' | '\n' => self.rest = behind,
                '(' => self.rest = comment(behind)?,
                '"' => {
                    self.rest = quoted(behind)?;
                    return Some(Token::Quoted);
                }
                _ if SPECIALS.contains(&first) => {
                    self.rest = behind;
                    return Some(Token::Special(first));
                }
                _ => {
                    let end = self.rest.find(|octet| !is_of_word(octet)).unwrap_or(self.rest.len());
                    let (word, behind) = self.rest.split_at_checked(end).filter(|_| end > 0)?;
                    self.rest = behind;
                    return Some(Token::Word(word));
                }
            }
        }
    }
}

/// Returns whether a character may stand in an atom (RFC 5322 section 3.2.3, RFC 6532 section 3.2), or is a dot.
fn is_of_word(character: char) -> bool {
    const SIGNS: &str = "!#$%&'*+-/=?^_`{|}~.";
    !character.is_ascii() || character.is_ascii_alphanumeric() || SIGNS.contains(character)
}

/// Returns what follows a quoted string.
fn quoted(text: &str) -> Option<&str> {
    let mut characters = text.chars();
    loop {
        match characters.next()? {
            '\\' => drop(characters.next()?),
            '"' => return Some(characters.as_str()),
            _ => {}
        }
    }
}

/// Returns what follows a comment, in which there may be others. A comment that looks like an address, or like the beginning of a quoted
/// string, is unclear: who looks only for these finds them in it.
fn comment(text: &str) -> Option<&str> {
    let (mut characters, mut depth) = (text.chars(), 1_usize);
    while depth > 0 {
        match characters.next()? {
            '\\' => drop(characters.next()?),
            '(' => depth += 1,
            ')' => depth -= 1,
            '<' | '>' | '"' => return None,
            _ => {}
        }
    }
    Some(characters.as_str())
}
