//! The queue id that a server gives to a mail, as it says it in its reply to the final dot.
//!
//! RFC 5321 leaves the text of a reply to the server (section 4.2). Those below are the forms of the servers that carry most
//! mail; of any other text nothing is taken.

/// Longest id that is taken, in octets. Longer words are no ids.
const LIMIT_OCTETS: usize = 128;

/// Words after which the id stands, as the next word. They are compared without case, and may stand anywhere in the text.
const BEFORE: [&str; 7] = [
    // Postfix: "Ok: queued as 4bX1Yz2Qk9z1".
    "queued as ",
    // Exim: "OK id=1tGk2x-000000001aB-0cDe"; Maddy and others too.
    // Microsoft: "<…> [InternalId=1234567890, Hostname=…] Queued mail for delivery".
    "id=",
    // KumoMTA: "OK ids=d7ef132b5d3d11ee8e2e000c29c4f1a5".
    "ids=",
    // Stalwart: "Message queued with id 1a2b3c4d5e6f."
    "queued with id ",
    // Haraka: "Message Queued (AB12CD34-….1)".
    "message queued (",
    // qmail: "ok 1733000000 qp 12345".
    " qp ",
    // Courier: "Ok. 0000000000AB12.00000000674AC0DE.00001F4B".
    "ok. ",
];

/// Words before which the id stands, as the word before.
const AFTER: [&str; 3] = [
    // Sendmail: "4AU8X1Ab012345 Message accepted for delivery"; OpenSMTPD: "1a2b3c4d Message accepted for delivery".
    " message accepted for delivery",
    // Google: "OK  1733000000 d2e1a72fcca58-7252de1a2b3si123.45 - gsmtp".
    " - gsmtp",
    // Dovecot and Cyrus over LMTP: "<a@example.org> 1KbZLx0HC2c Saved".
    " saved",
];

/// Returns the id in the text of a reply to the final dot, without its code and its enhanced status, if it has a known form.
pub fn remote_id(text: &str) -> Option<&str> {
    let lower = text.to_ascii_lowercase();
    let after_word = BEFORE.iter().filter_map(|words| {
        let begin = lower.find(words)? + words.len();
        text.get(begin..).and_then(|rest| rest.split(is_delimiter).next())
    });
    let before_word = AFTER.iter().filter_map(|words| {
        let end = lower.find(words)?;
        text.get(..end).and_then(|rest| rest.rsplit(is_delimiter).next())
    });
    after_word.chain(before_word).map(|id| id.trim_end_matches('.')).find(|id| is_id(id))
}

fn is_delimiter(character: char) -> bool {
    character.is_whitespace() || matches!(character, ',' | ';' | '(' | ')' | '[' | ']' | '<' | '>' | '"')
}

/// Returns whether a word may be an id: printable ASCII with a digit. Words of a language have none.
fn is_id(word: &str) -> bool {
    let is_short = (2..=LIMIT_OCTETS).contains(&word.len());
    is_short
        && word.bytes().all(|octet| octet.is_ascii_graphic())
        && word.bytes().any(|octet| octet.is_ascii_digit())
}

#[cfg(test)]
mod tests;
