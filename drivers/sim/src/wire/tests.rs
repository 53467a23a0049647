use super::*;

/// Returns what is seen of a conversation that is cut into pieces of this size.
fn read(turns: &[(&[u8], &[u8])], size: usize) -> Vec<Sight> {
    let mut wire = Wire::with_messages();
    let mut sights = Vec::new();
    for (heard, said) in turns {
        heard.chunks(size).for_each(|octets| sights.extend(wire.received(octets)));
        said.chunks(size).for_each(|octets| sights.extend(wire.sent(octets)));
    }
    sights
}

fn messages(sights: &[Sight]) -> Vec<(u64, &[u8])> {
    let message = |sight| match sight {
        &Sight::FinalDot { octets, ref message, .. } => Some((octets, message.as_slice())),
        Sight::Command(..) | Sight::Reply(..) => None,
    };
    sights.iter().filter_map(message).collect()
}

fn commands(sights: &[Sight]) -> Vec<Verb> {
    let verb = |sight: &Sight| match sight {
        Sight::Command(verb, _) => Some(*verb),
        Sight::FinalDot { .. } | Sight::Reply(..) => None,
    };
    sights.iter().filter_map(verb).collect()
}

#[test]
fn a_conversation_is_read_however_it_is_cut() {
    let turns: &[(&[u8], &[u8])] = &[
        (b"220-a\r\n220 b\r\n", b"EHLO x\r\n"),
        (b"250 x\r\n", b"DATA\r\n"),
        (b"354 go\r\n", b"a\r\n..b\r\n.\r\n"),
        (b"250 ok\r\n", b"QUIT\r\n"),
    ];
    let whole = read(turns, 100);
    assert_eq!(whole, read(turns, 1));
    assert_eq!(messages(&whole), [(8, &b"a\r\n..b\r\n"[..])]);
    assert_eq!(whole.last(), Some(&Sight::Command(Verb::Quit, b"QUIT".to_vec())));
}

#[test]
fn what_comes_after_something_that_is_no_reply_is_not_understood() {
    for garbage in [&b"hello\r\n"[..], b"\r\n", b"451-a\r\n452 b\r\n"] {
        let heard = [b"220 a\r\n", garbage, b"250 ok\r\n"].concat();
        let sights = read(&[(&heard, b"NOOP\r\n"), (b"250 ok\r\n", b"")], 100);
        let replies = sights.iter().filter(|sight| matches!(sight, Sight::Reply(..))).count();
        assert_eq!(replies, 1, "{}", garbage.escape_ascii());
    }
}

#[test]
fn what_comes_after_a_refused_rset_is_not_understood_if_more_was_said() {
    let replies = |said: &[u8]| {
        let turns: &[(&[u8], &[u8])] = &[(b"220 a\r\n", said), (b"500 what?\r\n250 a\r\n250 b\r\n", b"")];
        let sights = read(turns, 100);
        sights.iter().filter(|sight| matches!(sight, Sight::Reply(..))).count()
    };
    assert_eq!(replies(b"RSET\r\nMAIL FROM:<>\r\nRCPT TO:<a@b>\r\n"), 2);
    assert_eq!(replies(b"MAIL FROM:<>\r\nRSET\r\nMAIL FROM:<>\r\n"), 4);
    assert_eq!(replies(b"RSET\r\n"), 2);
}

#[test]
fn what_comes_with_the_final_dot_is_read_as_commands() {
    let turns: &[(&[u8], &[u8])] = &[
        (b"220 a\r\n", b"MAIL FROM:<>\r\nRCPT TO:<a@b>\r\nDATA\r\n"),
        (b"250 a\r\n250 b\r\n354 c\r\n", b".\r\nMAIL FROM:<>\r\nRCPT TO:<a@b>\r\nDATA\r\n"),
        (b"250 a\r\n250 b\r\n250 c\r\n354 d\r\n", b"x\r\n.\r\n"),
    ];
    let whole = read(turns, 100);
    assert_eq!(whole, read(turns, 1));
    assert_eq!(messages(&whole), [(0, &b""[..]), (3, &b"x\r\n"[..])]);
    assert_eq!(commands(&whole), [Verb::Mail, Verb::Rcpt, Verb::Data, Verb::Mail, Verb::Rcpt, Verb::Data]);
}
