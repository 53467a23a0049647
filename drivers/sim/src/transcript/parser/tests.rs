use super::*;

#[test]
fn what_cannot_be_understood_is_refused() {
    for text in [
        "X: a",
        "+ 5",
        "+ m",
        "! perhaps",
        "! eof now",
        "! takes",
        "! takes all",
        "S| a",
        "S: a\n@ seed 1",
        "@ nothing 1",
        "@ seed x",
    ] {
        assert!(parse(text).is_err(), "{text}");
    }
}

#[test]
fn observed_lines_are_left_out() {
    let transcript = parse("@ seed 1\nC+ 192.0.2.1:25\n\nS: 220 a\nC: EHLO b\n# end\n").unwrap();
    let lines: Vec<&str> = transcript.lines.iter().map(|line| line.text.as_str()).collect();
    assert_eq!((lines, transcript.start), (vec!["@ seed 1", "", "S: 220 a", "# end"], 1));
}
