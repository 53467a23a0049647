use super::*;
use alloc::vec;
use proptest::prelude::*;

fn parse_all(mut octets: &[u8]) -> (Vec<Reply>, Option<ReplyError>) {
    let mut parser = ReplyParser::default();
    let mut replies = Vec::new();
    loop {
        match parser.parse(&mut octets) {
            Ok(Some(reply)) => replies.push(reply),
            Ok(None) => return (replies, None),
            Err(error) => return (replies, Some(error)),
        }
    }
}

fn parse_in_pieces(octets: &[u8], piece: usize) -> (Vec<Reply>, Option<ReplyError>) {
    let mut parser = ReplyParser::default();
    let mut replies = Vec::new();
    for mut piece in octets.chunks(piece) {
        loop {
            match parser.parse(&mut piece) {
                Ok(Some(reply)) => replies.push(reply),
                Ok(None) => break,
                Err(error) => return (replies, Some(error)),
            }
        }
    }
    (replies, None)
}

fn one(octets: &[u8]) -> Reply {
    let (mut replies, error) = parse_all(octets);
    assert_eq!((replies.len(), error), (1, None), "{}", octets.escape_ascii());
    replies.remove(0)
}

fn error(octets: &[u8]) -> ReplyError {
    parse_all(octets).1.unwrap()
}

#[test]
fn multi_line_replies_are_one_also_without_text() {
    // RFC 5321 section 4.2.1
    let reply = one(b"250-first\r\n250-\r\n250\r\n");
    assert_eq!(reply.code().as_u16(), 250);
    assert_eq!(reply.lines().collect::<Vec<_>>(), [&b"first"[..], b"", b""]);
    assert_eq!(reply.text(), "250-first\n250-\n250");
    assert_eq!(one(b"220 \r\n").text(), "220");
}

#[test]
fn bare_line_feeds_end_lines_and_odd_octets_are_text() {
    let reply = one(b"550-a\0b\n550 \xff\x1b[2J\tx\n");
    assert_eq!(reply.lines().collect::<Vec<_>>(), [&b"a\0b"[..], b"\xff\x1b[2J\tx"]);
    assert_eq!(reply.text(), "550-a\u{fffd}b\n550 \u{fffd}\u{fffd}[2J x");
}

#[test]
fn enhanced_codes_are_taken_only_where_they_have_a_meaning() {
    // RFC 2034 section 4
    assert_eq!(one(b"550 5.1.1 no\r\n").enhanced(), Some(EnhancedStatus::new(5, 1, 1)));
    assert_eq!(one(b"250-2.1.5 yes\r\n250 x\r\n").enhanced(), Some(EnhancedStatus::new(2, 1, 5)));
    let below = one(b"550-they say:\r\n550-4.2.2 full\r\n550 5.1.1 no\r\n");
    assert_eq!(below.enhanced(), Some(EnhancedStatus::new(5, 1, 1)));
    for text in ["354 2.0.0 go", "450 5.1.1 contradiction", "250 no code", "550 x\r\n"] {
        assert_eq!(one(format_line(text).as_bytes()).enhanced(), None, "{text}");
    }
}

fn format_line(text: &str) -> String {
    alloc::format!("{}\r\n", text.trim_end())
}

#[test]
fn every_misbehaviour_has_its_name() {
    assert_eq!(error(b"hello\r\n"), ReplyError::NotAReply);
    assert_eq!(error(b"\r\n"), ReplyError::NotAReply);
    assert_eq!(error(b"25\r\n"), ReplyError::NotAReply);
    assert_eq!(error(b"250=x\r\n"), ReplyError::NotAReply);
    assert_eq!(error(b"2 50 x\r\n"), ReplyError::NotAReply);
    let code = |code| ReplyCode::new(code).unwrap();
    assert_eq!(error(b"250-a\r\n550 b\r\n"), ReplyError::CodeChanged(code(250), code(550)));
}

#[test]
fn a_line_beyond_the_limit_keeps_its_code_and_its_beginning() {
    for (begin, end) in [("250 ", ""), ("250-", "250 behind\r\n")] {
        let reply = one(alloc::format!("{begin}{}\r\n{end}", "a".repeat(3000)).as_bytes());
        let kept = "a".repeat(REPLY_LINE_LIMIT_OCTETS - 4);
        assert_eq!(reply.text(), alloc::format!("250 {kept} […]"));
        assert!(reply.is_cut());
    }
}

#[test]
fn lines_and_octets_beyond_the_limits_are_read_past() {
    let lines = [b"550-5.1.1 no\r\n".repeat(REPLY_LINES_LIMIT + 200), b"550 5.1.1 no\r\n".to_vec()].concat();
    let long = [&b"550-"[..], &[b'a'; 2000], b"\r\n"].concat().repeat(REPLY_LIMIT_OCTETS / 2006 + 9);
    for octets in [lines, [long, b"550\r\n".to_vec()].concat()] {
        let (replies, error) = parse_all(&[&octets[..], b"250 next\r\n"].concat());
        assert_eq!((replies.len(), error), (2, None));
        assert!(replies[0].is_cut() && replies[0].text().ends_with(" […]"));
        assert!(replies[0].lines().map(|line| line.len() + 6).sum::<usize>() <= REPLY_LIMIT_OCTETS);
        assert!(replies[0].lines().count() <= REPLY_LINES_LIMIT);
        assert_eq!((replies[0].code().as_u16(), replies[1].text().as_str()), (550, "250 next"));
        assert!(!replies[1].is_cut());
    }
}

#[test]
fn what_is_read_past_is_still_a_reply() {
    let beginning = b"250-\r\n".repeat(REPLY_LINES_LIMIT + 1);
    assert_eq!(error(&[&beginning[..], b"what\r\n"].concat()), ReplyError::NotAReply);
    let code = |code| ReplyCode::new(code).unwrap();
    let changed = ReplyError::CodeChanged(code(250), code(550));
    assert_eq!(error(&[&beginning[..], b"550 x\r\n"].concat()), changed);
}

#[test]
fn a_reply_without_an_end_is_an_error_at_the_bound() {
    for octets in [b"250-\r\n".repeat(REPLY_BOUND_OCTETS / 6 + 1), vec![b'2'; REPLY_BOUND_OCTETS + 1]] {
        for piece in [1, 4096, octets.len()] {
            assert_eq!(parse_in_pieces(&octets, piece), (vec![], Some(ReplyError::Endless)));
            let within = &octets[..REPLY_BOUND_OCTETS];
            assert_eq!(parse_in_pieces(within, piece), (vec![], None));
        }
    }
}

#[test]
fn a_reply_that_was_cut_stays_so_without_its_secrets() {
    let line = [b"500 hunter2 ", &[b'a'; REPLY_LINE_LIMIT_OCTETS][..], b"\r\n"].concat();
    let mut secrets = Secrets::default();
    secrets.keep(b"hunter2");
    let masked = one(&line).without(&secrets);
    assert!(masked.is_cut() && masked.text().starts_with("500 *** a"));
}

#[test]
fn the_first_error_stays() {
    let mut parser = ReplyParser::default();
    assert!(parser.parse(&mut &b"what\r\n"[..]).is_err());
    assert_eq!(parser.parse(&mut &b"250 fine\r\n"[..]), Err(ReplyError::NotAReply));
}

#[test]
fn the_limits_are_those_of_one_reply() {
    let octets = b"250 ok\r\n".repeat(REPLY_LIMIT_OCTETS);
    assert_eq!(parse_all(&octets), (vec![one(b"250 ok\r\n"); REPLY_LIMIT_OCTETS], None));
}

#[test]
fn a_reply_at_its_limits_is_taken() {
    let line = [&b"250 "[..], &vec![b'a'; REPLY_LINE_LIMIT_OCTETS - 5], b"\r\n"].concat();
    assert_eq!(one(&line).lines().next().unwrap().len(), REPLY_LINE_LIMIT_OCTETS - 5);
    let lines = [b"250-\r\n".repeat(REPLY_LINES_LIMIT - 1), b"250 \r\n".to_vec()].concat();
    assert_eq!(one(&lines).lines().count(), REPLY_LINES_LIMIT);
}

#[test]
fn a_masked_reply_means_the_same() {
    let mut secrets = Secrets::default();
    secrets.keep(b"1");
    secrets.keep(b"hunter2");
    let reply = one(b"535-5.7.1 no\r\n535 hunter2 is wrong\r\n");
    let masked = reply.without(&secrets);
    assert_eq!((masked.text().as_str(), masked.enhanced()), ("535-***\n535 *** is wrong", reply.enhanced()));
}

fn reply_like() -> impl Strategy<Value = Vec<u8>> {
    let line = prop_oneof![
        Just(b"250-ok\r\n".to_vec()),
        Just(b"250 ok\r\n".to_vec()),
        Just(b"550\n".to_vec()),
        Just(b"354 5.1.1 \0\xff\r\n".to_vec()),
        Just(b"250 a\rb\r\r\n".to_vec()),
        Just(b"x\r\n".to_vec()),
        Just(b"250-".to_vec()),
        Just(vec![b'a'; REPLY_LINE_LIMIT_OCTETS - 1]),
        Just(b"250-\r\n".repeat(REPLY_LINES_LIMIT)),
    ];
    prop::collection::vec(line, 0..12).prop_map(|lines| lines.concat())
}

proptest! {
    #[test]
    fn pieces_make_no_difference(octets in reply_like(), piece in 1..7_usize) {
        prop_assert_eq!(parse_in_pieces(&octets, piece), parse_all(&octets));
    }

    #[test]
    fn pieces_of_rubbish_make_no_difference(
        octets in prop::collection::vec(any::<u8>(), 0..200), piece in 1..50_usize,
    ) {
        prop_assert_eq!(parse_in_pieces(&octets, piece), parse_all(&octets));
    }
}
