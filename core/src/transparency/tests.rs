use super::*;
use alloc::vec::Vec;
use proptest::prelude::*;

fn encode(pieces: &[&[u8]]) -> Vec<u8> {
    let mut out = BytesMut::new();
    let mut encoder = MailDataEncoder::default();
    for piece in pieces {
        encoder.encode(piece, &mut out);
    }
    encoder.finish(&mut out);
    out.to_vec()
}

/// Line by line and with the whole message at hand: slow and plain.
fn lines(data: &[u8]) -> Vec<Vec<u8>> {
    let mut lines = Vec::new();
    let mut line = Vec::new();
    let mut octets = data.iter().peekable();
    while let Some(octet) = octets.next() {
        match octet {
            b'\r' => {
                octets.next_if_eq(&&b'\n');
                lines.push(core::mem::take(&mut line));
            }
            b'\n' => lines.push(core::mem::take(&mut line)),
            octet => line.push(*octet),
        }
    }
    if !line.is_empty() {
        lines.push(line);
    }
    lines
}

fn model(data: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    for line in lines(data) {
        if line.first() == Some(&b'.') {
            out.push(b'.');
        }
        out.extend(line);
        out.extend(b"\r\n");
    }
    out.extend(b".\r\n");
    out
}

#[test]
fn dots_are_doubled_at_the_beginning_of_a_line_only() {
    // RFC 5321 section 4.5.2
    assert_eq!(encode(&[b".\r\na.b\r\n..\r\n"]), b"..\r\na.b\r\n...\r\n.\r\n");
    assert_eq!(encode(&[b"a\r", b"\n", b".", b"."]), b"a\r\n...\r\n.\r\n");
}

#[test]
fn bare_line_ends_become_whole_before_dots_are_doubled() {
    // RFC 5321 section 2.3.8
    assert_eq!(encode(&[b"a\n.\nb\r.\rc\n\r"]), b"a\r\n..\r\nb\r\n..\r\nc\r\n\r\n.\r\n");
}

#[test]
fn data_without_a_final_line_end_gets_one_and_other_data_none() {
    assert_eq!(encode(&[b"a"]), b"a\r\n.\r\n");
    assert_eq!(encode(&[b"a\r"]), b"a\r\n.\r\n");
    assert_eq!(encode(&[b"a\r\n"]), b"a\r\n.\r\n");
    assert_eq!(encode(&[]), b".\r\n");
    assert_eq!(encode(&[b""]), b".\r\n");
}

#[test]
fn nul_and_eight_bit_octets_pass() {
    assert_eq!(encode(&[b"\0\xff\r\n"]), b"\0\xff\r\n.\r\n");
}

fn data() -> impl Strategy<Value = Vec<u8>> {
    let octet = prop_oneof![Just(b'\r'), Just(b'\n'), Just(b'.'), Just(b'a'), any::<u8>()];
    prop::collection::vec(octet, 0..60)
}

proptest! {
    #[test]
    fn any_pieces_give_what_the_model_gives(data in data(), cuts in prop::collection::vec(0..60_usize, 0..6)) {
        let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(data.len())).collect();
        cuts.extend([0, data.len()]);
        cuts.sort_unstable();
        let pieces: Vec<&[u8]> = cuts.windows(2).map(|cut| &data[cut[0]..cut[1]]).collect();
        prop_assert_eq!(encode(&pieces), model(&data));
    }

    #[test]
    fn whole_blocks_give_what_the_model_gives(
        line in 1..80_usize,
        defects in prop::collection::vec((0..3 * BLOCK_OCTETS, prop::sample::select(&b"\r\n.a"[..])), 0..3),
        cut in 0..3 * BLOCK_OCTETS,
    ) {
        let lines = core::iter::repeat_n(b'a', line).chain(*b"\r\n").cycle();
        let mut data: Vec<u8> = lines.take(3 * BLOCK_OCTETS).collect();
        for (position, octet) in defects {
            data[position] = octet;
        }
        let (first, second) = data.split_at(cut);
        prop_assert_eq!(encode(&[first, second]), model(&data));
    }

    #[test]
    fn the_size_is_that_of_the_lines_with_their_ends(data in data()) {
        let expected: usize = lines(&data).iter().map(|line| line.len() + 2).sum();
        prop_assert_eq!(transmitted_octets(&data), expected as u64);
    }
}
