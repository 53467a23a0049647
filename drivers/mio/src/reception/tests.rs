use std::io::Write as _;
use std::io::{BufRead as _, BufReader};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use super::*;

/// A receptionist, at a path.
struct Scene {
    receptionist: Receptionist,
    path: PathBuf,
    _directory: tempfile::TempDir,
    _poll: mio::Poll,
}

impl Scene {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("submit");
        let poll = mio::Poll::new().unwrap();
        let reception = Reception::open(&path, 1000).unwrap();
        let receptionist =
            Receptionist::new(reception, poll.registry().try_clone().unwrap(), Token(1)).unwrap();
        Self { receptionist, path, _directory: directory, _poll: poll }
    }

    /// Returns the next message, if none is being written.
    fn next(&mut self) -> Option<(SubmissionId, Box<Submission>, Instant)> {
        // Where a name is slow to be found, its number stands for it.
        self.receptionist.poll_submission(Instant::now() + Duration::from_secs(1))
    }

    /// A client whose message is whole.
    fn client(&mut self) -> UnixStream {
        let mut client = UnixStream::connect(&self.path).unwrap();
        client.write_all(b"recipient b@example.org\ndata 0\n").unwrap();
        self.receptionist.on_event(Token(1));
        self.receptionist.advance(Instant::now(), false);
        client
    }
}

fn answer(client: UnixStream) -> String {
    let mut line = String::new();
    BufReader::new(client).read_line(&mut line).unwrap();
    line
}

#[test]
fn the_message_of_a_client_that_has_hung_up_is_not_written() {
    let (mut scene, now) = (Scene::new(), Instant::now());
    let under_way = scene.client();
    assert!(scene.next().is_some());
    let gone = scene.client();
    let silent = scene.client();
    // It says nothing more, and waits for its answer.
    silent.shutdown(std::net::Shutdown::Write).unwrap();
    drop(gone);
    scene.receptionist.advance(now, false);
    assert_eq!((scene.receptionist.clients.len(), scene.receptionist.queue.len()), (2, 1));
    scene.receptionist.tell(SubmissionId(0), Ok(vec![MailId(7)]), now);
    assert!(answer(under_way).contains("\"mails\":[7]"));
    let (id, ..) = scene.next().unwrap();
    assert_eq!(id, SubmissionId(2));
    scene.receptionist.tell(id, Ok(vec![MailId(8)]), now);
    assert!(answer(silent).contains("\"mails\":[8]"));
}

#[test]
fn a_message_that_has_waited_for_too_long_is_refused() {
    let (mut scene, now) = (Scene::new(), Instant::now());
    let first = scene.client();
    let (id, _, until) = scene.next().unwrap();
    assert!((now + PATIENCE..=Instant::now() + PATIENCE).contains(&until));
    let waits = scene.client();
    let tick = scene.receptionist.next_tick().unwrap();
    assert!(tick >= until);
    scene.receptionist.advance(tick, false);
    assert!(
        answer(waits).contains("\"status\":75,\"text\":\"the database was busy for too long; try again\"")
    );
    assert!(scene.receptionist.queue.is_empty());
    // What is being written cannot be called back.
    scene.receptionist.tell(id, Ok(vec![MailId(7)]), now + PATIENCE);
    assert!(answer(first).contains("\"mails\":[7]"));
}

#[test]
fn a_busy_database_is_told_to_all_who_wait() {
    let (mut scene, now) = (Scene::new(), Instant::now());
    let clients: Vec<UnixStream> = (0..3).map(|_| scene.client()).collect();
    let (id, ..) = scene.next().unwrap();
    scene.receptionist.tell(id, Err(SubmitError::Late), now);
    for client in clients {
        assert!(answer(client).contains("the database was busy for too long; try again"));
    }
    assert!(scene.next().is_none() && !scene.receptionist.has_clients());
}

#[test]
fn a_daemon_that_stops_tells_those_whose_message_waits() {
    let (mut scene, now) = (Scene::new(), Instant::now());
    let under_way = scene.client();
    let (id, ..) = scene.next().unwrap();
    let waits = scene.client();
    scene.receptionist.advance(now, true);
    assert!(answer(waits).contains("the daemon is stopping; try again"));
    scene.receptionist.tell(id, Ok(vec![MailId(7)]), now);
    assert!(answer(under_way).contains("\"mails\":[7]"));
    assert!(!scene.receptionist.has_clients());
}

#[test]
fn who_is_silent_for_too_long_is_told_and_makes_room() {
    let (mut scene, now) = (Scene::new(), Instant::now());
    let client = UnixStream::connect(&scene.path).unwrap();
    scene.receptionist.advance(now, false);
    assert_eq!(scene.receptionist.next_tick(), Some(now + PATIENCE));
    scene.receptionist.advance(now + PATIENCE, false);
    assert_eq!(
        answer(client),
        "{\"v\":1,\"kind\":\"error\",\"status\":75,\"text\":\"the message was not handed over within 30 s\"}\n"
    );
    assert!(!scene.receptionist.has_clients());
}

#[test]
fn a_daemon_that_stops_takes_no_more() {
    let mut scene = Scene::new();
    let client = UnixStream::connect(&scene.path).unwrap();
    scene.receptionist.advance(Instant::now(), true);
    assert!(answer(client).contains("the daemon is stopping; try again"));
}
