//! Octets as strings in quotation marks.

/// Reads a string in quotation marks. Returns the text after it.
pub(crate) fn unquote(text: &str) -> Result<(Vec<u8>, &str), String> {
    let mut rest = text.strip_prefix('"').ok_or("a string in quotation marks is missing")?;
    let mut octets = Vec::new();
    loop {
        let mut characters = rest.chars();
        let character = characters.next().ok_or("a quotation mark is missing")?;
        rest = characters.as_str();
        if character == '"' {
            return Ok((octets, rest));
        }
        if character != '\\' {
            octets.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
            continue;
        }
        let escaped = characters.next().ok_or("something is missing after \"\\\"")?;
        rest = characters.as_str();
        octets.push(match escaped {
            'r' => b'\r',
            'n' => b'\n',
            't' => b'\t',
            '0' => 0,
            '\\' => b'\\',
            '"' => b'"',
            'x' => {
                let digits = rest.get(..2).ok_or("two digits are missing after \"\\x\"")?;
                rest = rest.get(2..).unwrap_or_default();
                u8::from_str_radix(digits, 16).map_err(|error| format!("\\x{digits}: {error}"))?
            }
            other => return Err(format!("\"\\{other}\" stands for nothing")),
        });
    }
}

/// Writes octets as a string that [`unquote`] reads.
pub(crate) fn quote(octets: &[u8]) -> String {
    // The escapes are the same here, except that an apostrophe needs none.
    format!("\"{}\"", octets.escape_ascii()).replace("\\'", "'")
}

#[cfg(test)]
mod tests;
