//! Mail data on its way to the wire: however it is cut, the result is that of a plain line-by-line reading.

use bytes::BytesMut;
use cmail_delivery::transparency::{MailDataEncoder, transmitted_octets};

use crate::script::{naive_lines, naive_mail_data};

/// Checks mail data; its first four octets say where it is cut.
pub fn check(octets: &[u8]) {
    let (cuts, data) = octets.split_at_checked(4).unwrap_or((&[], octets));
    let whole = encode(data, &[]);
    assert_eq!(whole.escape_ascii().to_string(), naive_mail_data(data).escape_ascii().to_string());
    assert_eq!(whole, encode(data, cuts));
    assert_eq!(whole, encode(data, &[1]));

    // The message that a server restores (RFC 5321 section 4.5.2).
    let received = receive(&whole);
    assert_eq!(received, naive_lines(data));
    let octets: usize = received.iter().map(|line| line.len() + 2).sum();
    assert_eq!(transmitted_octets(data), octets as u64);
}

fn encode(data: &[u8], cuts: &[u8]) -> Vec<u8> {
    let mut encoder = MailDataEncoder::default();
    let mut sent = BytesMut::new();
    let mut rest = data;
    for cut in cuts.iter().cycle().take(data.len()) {
        let (piece, behind) = rest.split_at(usize::from(cut % 16).min(rest.len()));
        rest = behind;
        let before = sent.len();
        encoder.encode(piece, &mut sent);
        assert!(sent.len() - before <= 2 * piece.len() + 2);
    }
    encoder.encode(rest, &mut sent);
    encoder.finish(&mut sent);
    sent.to_vec()
}

/// The lines that a server stores, having found the final dot at the very end.
fn receive(sent: &[u8]) -> Vec<Vec<u8>> {
    let mut lines = Vec::new();
    let mut rest = sent;
    loop {
        let end = rest.windows(2).position(|pair| pair == b"\r\n").expect("a line without an end");
        let line = &rest[..end];
        rest = &rest[end + 2..];
        assert!(!line.iter().any(|octet| matches!(octet, b'\r' | b'\n')), "a bare CR or LF");
        if line == b"." {
            assert!(rest.is_empty(), "a final dot before the end");
            return lines;
        }
        lines.push(line.strip_prefix(b".").unwrap_or(line).to_vec());
    }
}
