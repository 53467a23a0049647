use cmail_delivery::outbox::{Commit, Cursor, DATA_CHUNK_OCTETS, MailId, Scanned};
use mio::{Events, Poll, Token};

use super::super::fixture::{Fixture, open};
use super::*;

/// Longer than anything takes here; a test that waits so long has failed.
const PATIENCE: Duration = Duration::from_secs(30);

struct Scene {
    poll: Poll,
    /// As with the event loop: without it the last wake-up would be lost with the thread.
    _waker: Arc<Waker>,
    store: StoreHandle,
    other: rusqlite::Connection,
    _directory: tempfile::TempDir,
}

impl Scene {
    fn new() -> Self {
        let fixture = Fixture::new();
        fixture.mail(None, "a@example.org", b"data");
        let poll = Poll::new().unwrap();
        let waker = Arc::new(Waker::new(poll.registry(), Token(7)).unwrap());
        let Fixture { database, other, directory, .. } = fixture;
        let store = StoreHandle::spawn(database, Arc::clone(&waker)).unwrap();
        Self { poll, _waker: waker, store, other, _directory: directory }
    }

    /// Runs the event loop until `done` has something to say.
    fn wait<T>(&mut self, mut done: impl FnMut(&mut StoreHandle) -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        let mut events = Events::with_capacity(8);
        loop {
            if let Some(answer) = done(&mut self.store) {
                return answer;
            }
            let rest = deadline.checked_duration_since(Instant::now()).expect("nothing happened");
            self.poll.poll(&mut events, Some(rest)).unwrap();
        }
    }
}

fn scan() -> StoreRequest {
    StoreRequest::Scan { after: Cursor::BeforeFirst, limit: 10 }
}

#[test]
fn requests_are_answered_in_order_and_wake_the_event_loop() {
    let mut scene = Scene::new();
    scene.store.submit(RequestId(5), scan());
    scene.store.submit(
        RequestId(3),
        StoreRequest::Commit(Commit { delivered: vec![MailId(1).into()], ..Commit::default() }),
    );
    scene.store.submit(RequestId(4), scan());
    let replies: Vec<_> = (0..3).map(|_| scene.wait(StoreHandle::poll_reply)).collect();
    assert_eq!(replies.iter().map(|(id, _)| id.0).collect::<Vec<_>>(), [5, 3, 4]);
    let rows = |reply: &Reply| {
        let Ok(StoreReply::Scanned(Scanned { rows, .. })) = &reply.1 else { panic!("{reply:?}") };
        rows.len()
    };
    assert_eq!((rows(&replies[0]), rows(&replies[2])), (1, 0));
    assert_eq!(scene.store.poll_reply(), None);
}

#[test]
fn what_was_submitted_is_done_before_the_end() {
    let mut scene = Scene::new();
    scene.store.submit(
        RequestId(1),
        StoreRequest::Commit(Commit { delivered: vec![MailId(1).into()], ..Commit::default() }),
    );
    assert!(scene.store.shut_down(drop, || true));
    let left: i64 = scene.other.query_row("SELECT count(*) FROM outbox", [], |row| row.get(0)).unwrap();
    assert_eq!(left, 0);
}

/// The client of a message that is in the database must not submit it again.
#[test]
fn what_has_become_of_a_message_is_told_at_the_end() {
    let mut scene = Scene::new();
    let submission = || Box::new(Submission::to("b@example.org"));
    let now = Instant::now();
    scene.store.put_in(SubmissionId::new(1), submission(), now + PATIENCE);
    scene.store.put_in(SubmissionId::new(2), submission(), now);
    scene.store.submit(RequestId(1), scan());
    // They are done before this request is answered, and nobody has asked for them.
    assert!(scene.wait(StoreHandle::poll_reply).1.is_ok());
    let mut told = Vec::new();
    assert!(scene.store.shut_down(|submitted| told.push(submitted), || true));
    let [(first, Ok(ids)), (second, Err(SubmitError::Late))] = &told[..] else { panic!("{told:?}") };
    assert_eq!((*first, &ids[..], *second), (SubmissionId::new(1), &[MailId(2)][..], SubmissionId::new(2)));
}

/// As above, with answers that no turn of the loop has taken from the thread.
#[test]
fn what_is_committed_when_the_end_comes_is_told() {
    let mut scene = Scene::new();
    let submission = Box::new(Submission::to("b@example.org"));
    scene.store.put_in(SubmissionId::new(1), submission, Instant::now() + PATIENCE);
    let count = "SELECT count(*) FROM outbox";
    while scene.other.query_row(count, [], |row| row.get::<_, i64>(0)).unwrap() < 2 {}
    let mut told = Vec::new();
    assert!(scene.store.shut_down(|submitted| told.push(submitted), || true));
    assert!(matches!(&told[..], [(_, Ok(ids))] if ids == &[MailId(2)]), "{told:?}");
}

#[test]
fn a_disk_that_hangs_is_waited_for_only_as_long_as_is_wanted() {
    let mut scene = Scene::new();
    let (release, hangs) = channel::<()>();
    let (outgoing, answers) = channel();
    // As a thread whose call to the system does not return.
    let thread = std::thread::spawn(move || {
        let _outgoing: Sender<Answer> = outgoing;
        let _ = hangs.recv();
    });
    let healthy = scene.store.thread.replace(thread);
    drop((scene.store.jobs.take(), std::mem::replace(&mut scene.store.answers, answers)));
    healthy.unwrap().join().unwrap();
    let mut asked = 0;
    let is_done = scene.store.shut_down(drop, || {
        asked += 1;
        asked < 3
    });
    assert_eq!((is_done, asked), (false, 3));
    drop(release);
}

#[test]
fn a_lock_that_never_ends_does_not_hold_up_the_end() {
    let Fixture { other, directory, path, database } = Fixture::with_journal_mode("DELETE");
    drop(database);
    let database = open(&path, PATIENCE).unwrap();
    let poll = Poll::new().unwrap();
    let waker = Arc::new(Waker::new(poll.registry(), Token(7)).unwrap());
    let mut store = StoreHandle::spawn(database, waker).unwrap();
    other.execute_batch("BEGIN EXCLUSIVE").unwrap();
    let begin = Instant::now();
    for id in 1..=3 {
        store.submit(RequestId(id), scan());
    }
    drop(store);
    assert!(begin.elapsed() < PATIENCE, "{:?}", begin.elapsed());
    drop(directory);
}

#[test]
fn a_write_of_another_process_is_told_once() {
    let mut scene = Scene::new();
    scene.other.execute("INSERT INTO outbox (mail_envelopeto) VALUES ('r')", []).unwrap();
    scene.store.look();
    scene.wait(|store| store.take_changed().then_some(()));
    assert!(!scene.store.take_changed());
}

/// A file event may come before the transaction is visible.
#[test]
fn a_write_that_becomes_visible_after_the_look_is_told_too() {
    let mut scene = Scene::new();
    scene.store.look();
    scene.store.submit(RequestId(1), scan());
    scene.wait(StoreHandle::poll_reply).1.unwrap();
    scene.other.execute("INSERT INTO outbox (mail_envelopeto) VALUES ('r')", []).unwrap();
    scene.wait(|store| store.take_changed().then_some(()));
}

#[test]
fn own_writes_and_what_was_scanned_already_are_no_change() {
    let mut scene = Scene::new();
    scene.other.execute("INSERT INTO outbox (mail_envelopeto) VALUES ('r')", []).unwrap();
    scene.store.submit(RequestId(1), scan());
    scene.store.submit(
        RequestId(2),
        StoreRequest::Commit(Commit { delivered: vec![MailId(1).into()], ..Commit::default() }),
    );
    scene.store.look();
    // In order after the look, so that the look is over when it is answered.
    scene.store.submit(RequestId(3), scan());
    while scene.wait(StoreHandle::poll_reply).0 != RequestId(3) {}
    assert!(!scene.store.take_changed());
}

#[test]
fn the_end_of_the_thread_wakes_the_event_loop_and_is_told() {
    let mut scene = Scene::new();
    assert!(!scene.store.has_ended());
    // The thread ends when its jobs do.
    scene.store.jobs = None;
    scene.wait(|store| {
        assert_eq!(store.poll_reply(), None);
        store.has_ended().then_some(())
    });
    scene.store.submit(RequestId(1), scan());
    assert_eq!(scene.store.poll_reply(), None);
}

#[test]
fn large_messages_that_are_read_alternately_come_whole_and_do_not_mix() {
    let fixture = Fixture::new();
    let size = 3 * 1024 * 1024 + 4711;
    let mut mails: Vec<_> = (0..7u8)
        .map(|first| {
            let data: Vec<u8> = (0..size).map(|n| (n / 5) as u8 ^ first | 1).collect();
            (fixture.mail(None, "r@example.org", &data), data, Vec::new())
        })
        .collect();
    let poll = Poll::new().unwrap();
    let waker = Arc::new(Waker::new(poll.registry(), Token(7)).unwrap());
    let Fixture { database, other, directory, .. } = fixture;
    let store = StoreHandle::spawn(database, Arc::clone(&waker)).unwrap();
    let mut scene = Scene { poll, _waker: waker, store, other, _directory: directory };
    while mails.iter().any(|(_, data, read)| read.len() < data.len()) {
        for (id, data, read) in &mut mails {
            let limit = (data.len() - read.len()).min(DATA_CHUNK_OCTETS) as u32;
            let ask = StoreRequest::ReadData { id: *id, offset: read.len() as u64, limit };
            scene.store.submit(RequestId(id.0 as u64), ask);
        }
        for _ in 0..mails.len() {
            let (request, reply) = scene.wait(StoreHandle::poll_reply);
            let Ok(StoreReply::Data(octets)) = reply else { panic!("{reply:?}") };
            let mail = mails.iter_mut().find(|(id, ..)| id.0 as u64 == request.0).unwrap();
            mail.2.extend_from_slice(&octets);
        }
    }
    assert!(mails.iter().all(|(_, data, read)| data == read));
}

#[test]
fn mail_that_was_deleted_has_no_more_data_once_what_was_read_ahead_is_used_up() {
    let mut scene = Scene::new();
    let size = 40 * DATA_CHUNK_OCTETS;
    let insert = "INSERT INTO outbox (mail_id, mail_envelopeto, mail_data) VALUES (9, 'r', CAST(zeroblob(?1) AS TEXT))";
    scene.other.execute(insert, [size as i64]).unwrap();
    let mut read = 0;
    loop {
        let ask = StoreRequest::ReadData { id: MailId(9), offset: read, limit: DATA_CHUNK_OCTETS as u32 };
        scene.store.submit(RequestId(1), ask);
        let Ok(StoreReply::Data(octets)) = scene.wait(StoreHandle::poll_reply).1 else { panic!("no data") };
        if octets.is_empty() {
            break;
        }
        read += octets.len() as u64;
        scene.other.execute("DELETE FROM outbox WHERE mail_id = 9", []).unwrap();
    }
    assert!(0 < read && read < size as u64, "{read}");
}

/// A large message whose reading gives way to whatever waits, and its data.
fn scene_without_patience(chunks: usize) -> (Scene, Vec<u8>) {
    let Fixture { other, directory, path, database } = Fixture::with_journal_mode("DELETE");
    drop(database);
    let database = open(&path, PATIENCE).unwrap();
    let octets = 0..chunks * DATA_CHUNK_OCTETS;
    let data: Vec<u8> = octets.map(|position| b'a' + (position / 1009 % 26) as u8).collect();
    let insert = "INSERT INTO outbox (mail_id, mail_envelopeto, mail_data) VALUES (9, 'r', CAST(?1 AS TEXT))";
    other.execute(insert, [&data[..]]).unwrap();
    let poll = Poll::new().unwrap();
    let waker = Arc::new(Waker::new(poll.registry(), Token(7)).unwrap());
    let mut store = StoreHandle::spawn_with_patience(database, Arc::clone(&waker), Duration::ZERO).unwrap();
    store.read_ahead.announce(MailId(9), 0..data.len() as u64);
    (Scene { poll, _waker: waker, store, other, _directory: directory }, data)
}

/// Reads the large message while there is always a scan that waits. Returns the data, and how much of them had come when the
/// first scan was answered.
fn read_beside_scans(scene: &mut Scene) -> (Vec<u8>, usize) {
    let read = |offset| StoreRequest::ReadData { id: MailId(9), offset, limit: DATA_CHUNK_OCTETS as u32 };
    // Nothing is read before both wait.
    scene.other.execute_batch("BEGIN EXCLUSIVE").unwrap();
    scene.store.submit(RequestId(1), read(0));
    scene.store.submit(RequestId(2), scan());
    scene.other.execute_batch("COMMIT").unwrap();
    let (mut found, mut at_first_scan) = (Vec::new(), None);
    loop {
        match scene.wait(StoreHandle::poll_reply) {
            (RequestId(2), Ok(StoreReply::Scanned(_))) => {
                at_first_scan.get_or_insert(found.len());
                scene.store.submit(RequestId(2), scan());
            }
            (RequestId(1), Ok(StoreReply::Data(octets))) => {
                found.extend_from_slice(&octets);
                if octets.is_empty() {
                    return (found, at_first_scan.unwrap());
                }
                scene.store.submit(RequestId(1), read(found.len() as u64));
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn the_reading_of_a_large_message_gives_way_to_requests_and_goes_on_afterwards() {
    let (mut scene, data) = scene_without_patience(100);
    let (found, at_first_scan) = read_beside_scans(&mut scene);
    assert!(found == data);
    assert!(at_first_scan < data.len() / 2, "{at_first_scan}");
}

#[test]
fn however_much_waits_a_large_message_is_read_in_few_pieces() {
    let (mut scene, data) = scene_without_patience(400);
    assert!(read_beside_scans(&mut scene).0 == data);
    // The numbers of jobs and announcements are one sequence.
    let pieces = scene.store.read_ahead.last_number() - 1;
    assert!((2..=9).contains(&pieces), "{pieces}");
}
