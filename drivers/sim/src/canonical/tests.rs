use super::*;

#[test]
fn every_line_end_becomes_crlf() {
    for (data, expected) in [
        (&b""[..], &b""[..]),
        (b"a", b"a\r\n"),
        (b"a\nb\rc\r\nd", b"a\r\nb\r\nc\r\nd\r\n"),
        (b"\r\r\n\n", b"\r\n\r\n\r\n"),
        (b"a\r", b"a\r\n"),
    ] {
        assert_eq!(canonical(data), expected, "{}", data.escape_ascii());
    }
}
