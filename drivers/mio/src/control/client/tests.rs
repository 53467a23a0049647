use std::collections::VecDeque;

use super::*;

/// A socket that gives and takes what a test has prepared. Without more to give it has nothing for now; an empty piece is its end.
#[derive(Debug, Default)]
struct Scripted {
    reads: VecDeque<Vec<u8>>,
    room: usize,
    written: Vec<u8>,
}

impl Read for Scripted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some(mut piece) = self.reads.pop_front() else { return Err(io::ErrorKind::WouldBlock.into()) };
        let rest = piece.split_off(piece.len().min(buffer.len()));
        buffer[..piece.len()].copy_from_slice(&piece);
        if !rest.is_empty() {
            self.reads.push_front(rest);
        }
        Ok(piece.len())
    }
}

impl Write for Scripted {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        let count = octets.len().min(self.room);
        if count == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.room -= count;
        self.written.extend_from_slice(&octets[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn client() -> Client<Scripted> {
    Client::new(Scripted::default(), Instant::now())
}

impl Client<Scripted> {
    fn receive(&mut self, octets: &[u8]) -> Progress {
        self.stream.reads.push_back(octets.to_vec());
        self.on_event(false);
        self.advance(Instant::now())
    }
}

#[test]
fn a_request_in_pieces_makes_no_difference() {
    let mut client = client();
    for octet in b"status" {
        assert_eq!(client.receive(&[*octet]), Progress::Waits);
        assert!(!client.is_busy(), "there is nothing to read");
    }
    assert_eq!(client.receive(b"\n"), Progress::Asks(b"status".to_vec()));
}

#[test]
fn the_next_request_is_taken_when_the_answer_is() {
    let mut client = client();
    assert_eq!(client.receive(b"one\ntwo\n"), Progress::Asks(b"one".to_vec()));
    client.answer(AskId(1));
    assert_eq!((client.advance(Instant::now()), client.is_busy()), (Progress::Waits, false));
    client.tell(b"answer\n");
    client.end(b"end\n", false);
    assert!(client.is_busy(), "there is something to send");
    assert_eq!(
        (client.advance(Instant::now()), client.is_busy()),
        (Progress::Waits, false),
        "there is no room"
    );
    client.stream.room = 5;
    client.on_event(false);
    assert_eq!((client.advance(Instant::now()), client.is_busy()), (Progress::Waits, false));
    client.stream.room = 100;
    client.on_event(false);
    assert_eq!(client.advance(Instant::now()), Progress::Asks(b"two".to_vec()));
    assert_eq!(client.stream.written, b"answer\nend\n");
}

#[test]
fn a_client_that_sends_nothing_more_still_gets_its_answers() {
    let mut client = client();
    client.stream.room = 100;
    client.stream.reads.extend([b"one\ntwo\nthr".to_vec(), Vec::new()]);
    assert_eq!(client.advance(Instant::now()), Progress::Asks(b"one".to_vec()));
    client.answer(AskId(1));
    client.end(b"end\n", false);
    assert_eq!(client.advance(Instant::now()), Progress::Asks(b"two".to_vec()));
    client.answer(AskId(2));
    client.end(b"end\n", false);
    assert_eq!(client.advance(Instant::now()), Progress::IsOver);
    assert_eq!(client.stream.written, b"end\nend\n");
}

#[test]
fn a_request_without_an_end_is_not_read_for_ever() {
    let mut client = client();
    assert_eq!(client.receive(&b"x".repeat(REQUEST_LIMIT_OCTETS)), Progress::Waits);
    assert_eq!(client.receive(b"x"), Progress::AsksTooMuch);
    client.end(b"error\n", true);
    client.stream.room = 100;
    assert_eq!(client.receive(b"\nstatus\n"), Progress::IsOver);
    assert_eq!(client.stream.written, b"error\n");
}

#[test]
fn who_watches_does_so_until_it_leaves() {
    let mut client = client();
    assert_eq!(client.receive(b"trace\n"), Progress::Asks(b"trace".to_vec()));
    client.watch(AskId(1));
    client.tell(b"line\n");
    // It need not read to be found gone, and what it sends is no request.
    assert_eq!((client.receive(b"status\n"), client.asked()), (Progress::Waits, Some(AskId(1))));
    assert!(!client.is_busy(), "neither is there room nor anything to read");
    client.stream.room = 100;
    assert_eq!(client.receive(b""), Progress::IsOver);
    assert_eq!(client.stream.written, b"line\n");
}

#[test]
fn who_watches_and_never_stops_sending_leaves_the_others_their_turn() {
    let mut client = client();
    assert_eq!(client.receive(b"trace\n"), Progress::Asks(b"trace".to_vec()));
    client.watch(AskId(1));
    let pieces = 10 * WATCHER_READS;
    client.stream.reads.extend((0..pieces).map(|_| b"x".to_vec()));
    client.on_event(false);
    assert_eq!(client.advance(Instant::now()), Progress::Waits);
    assert_eq!((client.stream.reads.len(), client.is_busy()), (pieces - WATCHER_READS, true));
    client.stream.reads.push_back(Vec::new());
    let turns = std::iter::repeat_with(|| client.advance(Instant::now()));
    assert!(turns.take(pieces).any(|progress| progress == Progress::IsOver), "it has left");
}
