use super::*;
use bytes::BytesMut;
use cmail_delivery::transparency::{MailDataEncoder, transmitted_octets};
use proptest::prelude::*;

/// Reads what a shape has written, independently of the simulator.
fn octets_of(text: &str) -> Vec<u8> {
    let mut octets = Vec::new();
    for run in text.split(' ') {
        let (string, times) = run.rsplit_once("\"*").unwrap_or((run.trim_end_matches('"'), "1"));
        let string = string.trim_start_matches('"');
        let string = string.replace("\\r", "\r").replace("\\n", "\n");
        let mut part = Vec::new();
        for (number, plain) in string.split("\\xff").enumerate() {
            part.extend_from_slice(if number > 0 { b"\xff" } else { b"" });
            part.extend_from_slice(plain.as_bytes());
        }
        octets.extend(part.repeat(times.parse().unwrap()));
    }
    octets
}

fn wire_octets(data: &[u8]) -> usize {
    let (mut encoder, mut out) = (MailDataEncoder::default(), BytesMut::new());
    encoder.encode(data, &mut out);
    encoder.finish(&mut out);
    out.len()
}

#[test]
fn a_message_becomes_a_few_runs() {
    let text = Shape::of(b"Subject: x\r\n\r\n.secret\r\nmore\r\n", 29).to_text();
    assert_eq!(text, "\".\" \"x\"*26 \"\\r\\n\"");
    assert_eq!(Shape::of(b"", 0).to_text(), "\"\"");
}

#[test]
fn of_a_large_message_only_the_lengths_are_the_same() {
    let head = vec![b'a'; DATA_CHUNK_OCTETS];
    let mut shape = Shape::of(&head, 100_000);
    assert_eq!(octets_of(&shape.to_text()).len(), 100_000);
    shape.sent_as(100_013);
    let data = octets_of(&shape.to_text());
    assert_eq!((data.len(), wire_octets(&data)), (100_000, 100_013));
}

proptest! {
    #[test]
    fn other_octets_look_the_same_on_the_wire(
        data in prop::collection::vec(prop_oneof![
            Just(b'.'), Just(b'\r'), Just(b'\n'), Just(b'a'), Just(b'\xe4'),
        ], 0..40),
    ) {
        let other = octets_of(&Shape::of(&data, data.len() as u64).marked(17).to_text());
        prop_assert_eq!(other.len(), data.len());
        prop_assert_eq!(wire_octets(&other), wire_octets(&data));
        prop_assert_eq!(transmitted_octets(&other), transmitted_octets(&data));
        prop_assert_eq!(other.is_ascii(), data.is_ascii());
    }
}
