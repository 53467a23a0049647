//! Lines by which programs and the daemon speak with each other: words with a space between them. Octets of a word that have a meaning
//! here, or none on a line, are written as `%` and two hexadecimal digits.

use std::fmt::Write as _;

/// Returns the line of some words, with its end.
pub(crate) fn line(words: &[&str]) -> String {
    let mut line = String::new();
    for (place, word) in words.iter().enumerate() {
        if place > 0 {
            line.push(' ');
        }
        for octet in word.bytes() {
            if octet.is_ascii_graphic() && octet != b'%' {
                line.push(octet.into());
            } else {
                // Writing to a String cannot fail.
                let _ = write!(line, "%{octet:02x}");
            }
        }
    }
    line.push('\n');
    line
}

/// Returns the words of a line, which is given without its end; nothing if a `%` is not followed by two hexadecimal digits, or a word is
/// not UTF-8.
pub(crate) fn words_of(line: &[u8]) -> Option<Vec<String>> {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    line.split(|octet| *octet == b' ').map(decoded).collect()
}

fn decoded(word: &[u8]) -> Option<String> {
    let mut octets = Vec::new();
    let mut rest = word;
    while let Some((&first, behind)) = rest.split_first() {
        rest = behind;
        if first == b'%' {
            let (digits, behind) = rest.split_at_checked(2)?;
            rest = behind;
            let digits = str::from_utf8(digits)
                .ok()
                .filter(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()))?;
            octets.push(u8::from_str_radix(digits, 16).ok()?);
        } else {
            octets.push(first);
        }
    }
    String::from_utf8(octets).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_survive_the_line() {
        for word in ["status", "a b", "100%", "ü\n", ""] {
            for words in [["x", word], [word, "x"]] {
                let line = line(&words);
                let coded = line.strip_suffix('\n').unwrap();
                assert!(coded.bytes().all(|octet| octet.is_ascii_graphic() || octet == b' '), "{coded}");
                assert_eq!(words_of(coded.as_bytes()).unwrap(), words);
            }
        }
    }
}
