//! DNS over TCP: a stream means the same however it is cut, and leads to one answer that holds nothing but what a server
//! has said.

use cmail_delivery::io::CloseReason;
use cmail_delivery::resolver::Answer;

use crate::dns::Scene;

/// Checks streams: the first octet selects the lookup, the second how the streams are cut. Each message then has an octet for its
/// kind, two for its length, and its own.
pub fn check(octets: &[u8]) {
    let [kind, cut, rest @ ..] = octets else { return };
    let whole = run(*kind, rest, usize::MAX);
    assert_eq!(whole, run(*kind, rest, 1));
    assert_eq!(whole, run(*kind, rest, usize::from(*cut % 32) + 1));
}

fn run(kind: u8, mut rest: &[u8], piece: usize) -> (Option<Answer>, usize) {
    let mut scene = Scene::new(kind);
    while let [verb, high, low, behind @ ..] = rest {
        let length = usize::from(u16::from_be_bytes([*high & 7, *low])).min(behind.len());
        let (message, behind) = behind.split_at(length);
        rest = behind;
        // Truncated answers lead to connections (RFC 7766 section 5).
        while let Some((query, asked)) = scene.query(0) {
            let octets = Scene::response(&asked, &[0x83, 0x80, 0, 0, 0]);
            scene.resolver.handle_datagram(scene.now, query, asked.to, &octets);
            scene.drain();
        }
        let Some((connection, asked)) = scene.connect() else { break };
        let stream = match verb % 8 {
            0..=2 => framed(&Scene::response(&asked, message)),
            3 => framed(&[&asked.octets[..2], message].concat()),
            4 => framed(message),
            5 => message.to_vec(),
            6 => {
                scene.resolver.handle_closed(scene.now, connection, CloseReason::EndOfFile);
                scene.connections.remove(&connection);
                scene.drain();
                continue;
            }
            _ => {
                scene.pass();
                continue;
            }
        };
        if verb % 8 <= 3 {
            scene.note(&stream[2..]);
        } else {
            // The records that are cut out of it are not known here.
            scene.note(&[]);
        }
        for piece in stream.chunks(piece) {
            scene.resolver.handle_received(scene.now, connection, piece);
            scene.drain();
        }
    }
    scene.finish();
    (scene.answer.take(), scene.outputs)
}

fn framed(message: &[u8]) -> Vec<u8> {
    let length = u16::try_from(message.len()).expect("a message of a few KiB");
    [&length.to_be_bytes()[..], message].concat()
}
