use super::*;

const ONE: ConnectionId = ConnectionId(0);
const OTHER: ConnectionId = ConnectionId(2);

fn connections() -> (Connections, WaitLists) {
    let mut connections = Connections::new(HopId::UNROUTABLE);
    connections.insert(ONE);
    connections.insert(OTHER);
    (connections, WaitLists::default())
}

fn at(seconds: u64) -> Instant {
    Instant::from_micros(seconds * 1_000_000)
}

#[test]
fn a_connection_is_in_the_lines_that_it_says_it_is_in_and_in_none_when_it_ends() {
    let steps: [fn(&mut Connections, &mut WaitLists); 8] = [
        |connections, wait_lists| connections.park(ONE, wait_lists),
        |connections, wait_lists| connections.stop(ONE, wait_lists),
        |connections, wait_lists| connections.hold_back(ONE, at(7), wait_lists),
        |connections, wait_lists| connections.free(ONE, wait_lists),
        |connections, wait_lists| connections.unpark(ONE, wait_lists),
        |connections, wait_lists| connections.send_off(ONE, wait_lists),
        |connections, wait_lists| connections.part(ONE, wait_lists),
        |connections, wait_lists| connections.free_all(wait_lists),
    ];
    for first in steps {
        for second in steps {
            for third in steps {
                let (mut connections, mut wait_lists) = connections();
                for step in [first, second, third] {
                    step(&mut connections, &mut wait_lists);
                    wait_lists.check([&connections].into_iter());
                }
                connections.remove(ONE, &mut wait_lists);
                wait_lists.check([&connections].into_iter());
                assert!(wait_lists.parked().is_empty() && wait_lists.stopped().is_empty());
                assert_eq!(
                    (wait_lists.sent_off(), wait_lists.first_parting(), wait_lists.first_held_back()),
                    (0, None, None)
                );
            }
        }
    }
}

#[test]
fn who_came_first_is_first_in_line() {
    let (mut connections, mut wait_lists) = connections();
    for connection in [OTHER, ONE, OTHER] {
        connections.park(connection, &mut wait_lists);
    }
    let parked = wait_lists.parked().into_iter().map(|(_, connection)| connection);
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
