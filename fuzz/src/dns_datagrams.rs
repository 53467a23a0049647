//! DNS over UDP: garbage and forgeries are never an answer, whatever else comes leads to one answer that holds nothing
//! but what a server has said.

use std::net::SocketAddr;

use cmail_delivery::io::ConnectError;
use cmail_delivery::system_error::NetworkTrouble;

use crate::dns::Scene;

/// Checks datagrams: the first octet selects the lookup. Each datagram then has an octet for its kind, two for its length, and
/// its own.
pub fn check(octets: &[u8]) {
    let Some((&kind, mut rest)) = octets.split_first() else { return };
    let mut scene = Scene::new(kind);
    let mut strays = 0;
    while let [verb, high, low, behind @ ..] = rest {
        let length = usize::from(u16::from_be_bytes([*high & 7, *low])).min(behind.len());
        let (datagram, behind) = behind.split_at(length);
        rest = behind;
        let Some((query, asked)) = scene.query(*verb >> 4) else { break };
        let (now, before) = (scene.now, scene.outputs);
        match verb % 8 {
            0..=2 => {
                let octets = Scene::response(&asked, datagram);
                scene.note(&octets);
                scene.resolver.handle_datagram(now, query, asked.to, &octets);
            }
            3 => {
                let octets = [&asked.octets[..2], datagram].concat();
                scene.note(&octets);
                scene.resolver.handle_datagram(now, query, asked.to, &octets);
            }
            4 if !datagram.starts_with(&asked.octets[..2]) => {
                // Garbage, or an attacker who must guess the id (RFC 5452 section 9.1).
                scene.resolver.handle_datagram(now, query, asked.to, datagram);
                strays += 1;
                scene.drain();
                assert!(scene.outputs == before || strays >= 100, "an answer to somebody who guesses");
            }
            5 => {
                let forger = SocketAddr::from(([192, 0, 2, 3], 53));
                for from in [forger, SocketAddr::new(asked.to.ip(), 54)] {
                    let octets = Scene::response(&asked, datagram);
                    scene.resolver.handle_datagram(now, query, from, &octets);
                    scene.drain();
                    assert_eq!(scene.outputs, before, "an answer from elsewhere");
                }
            }
            6 => scene.resolver.handle_datagram_failed(
                now,
                query,
                ConnectError::remote(NetworkTrouble::Refused, "refused"),
            ),
            _ => scene.pass(),
        }
        scene.drain();
    }
    scene.finish();
}
