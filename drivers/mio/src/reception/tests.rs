use std::io::{BufRead as _, BufReader};
use std::os::unix::net::UnixStream;

use super::*;

#[test]
fn who_is_silent_for_too_long_is_told_and_makes_room() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("submit");
    let poll = mio::Poll::new().unwrap();
    let reception = Reception::open(&path, 1000).unwrap();
    let mut receptionist =
        Receptionist::new(reception, poll.registry().try_clone().unwrap(), Token(1)).unwrap();
    let client = UnixStream::connect(&path).unwrap();
    let now = Instant::now();
    receptionist.advance(now, false);
    assert_eq!(receptionist.next_tick(), Some(now + PATIENCE));
    receptionist.advance(now + PATIENCE, false);
    let mut line = String::new();
    BufReader::new(client).read_line(&mut line).unwrap();
    assert_eq!(
        line,
        "{\"v\":1,\"kind\":\"error\",\"status\":75,\"text\":\"the message was not handed over within 30 s\"}\n"
    );
    assert!(receptionist.clients.is_empty());
}

#[test]
fn a_daemon_that_stops_takes_no_more() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("submit");
    let poll = mio::Poll::new().unwrap();
    let reception = Reception::open(&path, 1000).unwrap();
    let mut receptionist =
        Receptionist::new(reception, poll.registry().try_clone().unwrap(), Token(1)).unwrap();
    let client = UnixStream::connect(&path).unwrap();
    receptionist.advance(Instant::now(), true);
    let mut line = String::new();
    BufReader::new(client).read_line(&mut line).unwrap();
    assert!(line.contains("the daemon is stopping; try again"), "{line}");
}
