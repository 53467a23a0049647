//! Reads octets as scripts: a step language, and a few functions that the targets share.

use std::fmt::Write as _;

/// The steps of a script: one for each line, whose first octet is the verb and whose rest is the argument.
pub(crate) fn steps(octets: &[u8]) -> impl Iterator<Item = (u8, &[u8])> {
    octets
        .split(|&octet| octet == b'\n')
        .filter_map(|line| line.split_first())
        .map(|(&verb, rest)| (verb, rest))
}

/// A number at the beginning of an argument; `fallback` if there is none.
pub(crate) fn number(argument: &[u8], fallback: u64) -> u64 {
    let digits = argument.iter().take_while(|octet| octet.is_ascii_digit()).take(9);
    digits.fold(None, |sum, digit| Some(sum.unwrap_or(0) * 10 + u64::from(digit - b'0'))).unwrap_or(fallback)
}

/// A secret that the octets cannot hold but by unlikely chance: it is a hash (FNV-1a) of them.
pub(crate) fn secret_for(octets: &[u8]) -> String {
    let hash = octets.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, &octet| {
        (hash ^ u64::from(octet)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    let mut secret = String::from("pw-");
    write!(secret, "{hash:016x}").expect("a string takes any text");
    secret
}

/// Returns whether `part` stands somewhere in `whole`.
pub(crate) fn contains(whole: &[u8], part: &[u8]) -> bool {
    !part.is_empty() && whole.windows(part.len()).any(|window| window == part)
}

/// Mail data as it has to go over the wire, made line by line with the whole message at hand: slow and plain.
pub(crate) fn naive_mail_data(data: &[u8]) -> Vec<u8> {
    let mut sent = Vec::new();
    for line in naive_lines(data) {
        if line.starts_with(b".") {
            sent.push(b'.');
        }
        sent.extend_from_slice(&line);
        sent.extend_from_slice(b"\r\n");
    }
    sent.extend_from_slice(b".\r\n");
    sent
}

/// A message with whole line ends: what a server stores, and what RFC 1870 section 3 counts.
pub(crate) fn naive_text(data: &[u8]) -> Vec<u8> {
    naive_lines(data).into_iter().flat_map(|line| [line, b"\r\n".to_vec()].concat()).collect()
}

/// The lines of a message, whether they end in CRLF, CR, LF or with the message.
pub(crate) fn naive_lines(data: &[u8]) -> Vec<Vec<u8>> {
    let mut lines = Vec::new();
    let mut line = Vec::new();
    let mut octets = data.iter().copied().peekable();
    while let Some(octet) = octets.next() {
        match octet {
            b'\r' => {
                octets.next_if_eq(&b'\n');
                lines.push(std::mem::take(&mut line));
            }
            b'\n' => lines.push(std::mem::take(&mut line)),
            octet => line.push(octet),
        }
    }
    if !line.is_empty() {
        lines.push(line);
    }
    lines
}
