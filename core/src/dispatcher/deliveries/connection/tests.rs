use super::*;

const ONE: ConnectionId = ConnectionId(0);
const OTHER: ConnectionId = ConnectionId(2);

fn connections() -> (Connections, Lines) {
    let mut connections = Connections::new(HopId::NOWHERE);
    connections.insert(ONE);
    connections.insert(OTHER);
    (connections, Lines::default())
}

fn at(seconds: u64) -> Instant {
    Instant::from_micros(seconds * 1_000_000)
}

#[test]
fn a_connection_is_in_the_lines_that_it_says_it_is_in_and_in_none_when_it_ends() {
    let steps: [fn(&mut Connections, &mut Lines); 8] = [
        |connections, lines| connections.park(ONE, lines),
        |connections, lines| connections.stop(ONE, lines),
        |connections, lines| connections.hold_back(ONE, at(7), lines),
        |connections, lines| connections.free(ONE, lines),
        |connections, lines| connections.unpark(ONE, lines),
        |connections, lines| connections.send_off(ONE, lines),
        |connections, lines| connections.part(ONE, lines),
        |connections, lines| connections.free_all(lines),
    ];
    for first in steps {
        for second in steps {
            for third in steps {
                let (mut connections, mut lines) = connections();
                for step in [first, second, third] {
                    step(&mut connections, &mut lines);
                    lines.check([&connections].into_iter());
                }
                connections.remove(ONE, &mut lines);
                lines.check([&connections].into_iter());
                assert!(lines.parked().is_empty() && lines.stopped().is_empty());
                assert_eq!(
                    (lines.sent_off(), lines.first_parting(), lines.first_held_back()),
                    (0, None, None)
                );
            }
        }
    }
}

#[test]
fn who_came_first_is_first_in_line() {
    let (mut connections, mut lines) = connections();
    for connection in [OTHER, ONE, OTHER] {
        connections.park(connection, &mut lines);
    }
    let parked = lines.parked().into_iter().map(|(_, connection)| connection);
    assert_eq!(parked.collect::<Vec<_>>(), [OTHER, ONE]);
}

#[test]
fn mail_is_outdated_when_somebody_has_written_since_the_oldest_of_it_was_claimed() {
    let (mut connections, _) = connections();
    assert!(!connections.is_outdated(ONE, 5), "it has none");
    connections.note_claim(ONE, 5, false);
    connections.note_claim(ONE, 6, true);
    assert_eq!([5, 6].map(|changes| connections.is_outdated(ONE, changes)), [false, true]);
    connections.note_claim(ONE, 6, false);
    assert!(!connections.is_outdated(ONE, 6));
}
