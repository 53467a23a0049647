use cmail_delivery::outbox::{Commit, MailId};
use mio::{Events, Poll, Token};

use super::super::fixture::Fixture;
use super::*;

/// Longer than anything takes here; a test that waits so long has failed.
const PATIENCE: Duration = Duration::from_secs(30);

struct Scene {
    poll: Poll,
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
        Self { poll, store: StoreHandle::spawn(database, waker).unwrap(), other, _directory: directory }
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
    StoreRequest::Scan { after: MailId(0), limit: 10 }
}

#[test]
fn requests_are_answered_in_order_and_wake_the_event_loop() {
    let mut scene = Scene::new();
    scene.store.submit(RequestId(5), scan());
    scene.store.submit(
        RequestId(3),
        StoreRequest::Commit(Commit { delivered: vec![MailId(1)], ..Commit::default() }),
    );
    scene.store.submit(RequestId(4), scan());
    let replies: Vec<_> = (0..3).map(|_| scene.wait(StoreHandle::poll_reply)).collect();
    assert_eq!(replies.iter().map(|(id, _)| id.0).collect::<Vec<_>>(), [5, 3, 4]);
    let rows = |reply: &Reply| {
        let Ok(StoreReply::Rows { rows, .. }) = &reply.1 else { panic!("{reply:?}") };
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
        StoreRequest::Commit(Commit { delivered: vec![MailId(1)], ..Commit::default() }),
    );
    scene.store.shutdown();
    let left: i64 = scene.other.query_row("SELECT count(*) FROM outbox", [], |row| row.get(0)).unwrap();
    assert_eq!(left, 0);
}

#[test]
fn a_lock_that_never_ends_does_not_hold_up_the_end() {
    let Fixture { other, directory, path, database } = Fixture::with_journal_mode("DELETE");
    drop(database);
    let database = Database::open_with_timeout(&path, PATIENCE).unwrap();
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
    scene.wait(|store| store.poll_changed().then_some(()));
    assert!(!scene.store.poll_changed());
}

/// A file event may come before the transaction is visible.
#[test]
fn a_write_that_becomes_visible_after_the_look_is_told_too() {
    let mut scene = Scene::new();
    scene.store.look();
    scene.store.submit(RequestId(1), scan());
    scene.wait(StoreHandle::poll_reply).1.unwrap();
    scene.other.execute("INSERT INTO outbox (mail_envelopeto) VALUES ('r')", []).unwrap();
    scene.wait(|store| store.poll_changed().then_some(()));
}

#[test]
fn own_writes_and_what_was_scanned_already_are_no_change() {
    let mut scene = Scene::new();
    scene.other.execute("INSERT INTO outbox (mail_envelopeto) VALUES ('r')", []).unwrap();
    scene.store.submit(RequestId(1), scan());
    scene.store.submit(
        RequestId(2),
        StoreRequest::Commit(Commit { delivered: vec![MailId(1)], ..Commit::default() }),
    );
    scene.store.look();
    // In order after the look, so that the look is over when it is answered.
    scene.store.submit(RequestId(3), scan());
    while scene.wait(StoreHandle::poll_reply).0 != RequestId(3) {}
    assert!(!scene.store.poll_changed());
}

#[test]
fn every_request_is_answered_even_if_the_thread_is_gone() {
    let (outgoing, replies) = channel();
    let (jobs, incoming) = channel();
    drop((outgoing, incoming));
    let mut store = StoreHandle {
        jobs: Some(jobs),
        replies,
        outstanding: BTreeSet::new(),
        changed: Arc::default(),
        hurry: Hurry::default(),
        thread: None,
    };
    store.submit(RequestId(1), scan());
    store.submit(RequestId(2), scan());
    for id in [1, 2] {
        let (answered, reply) = store.poll_reply().unwrap();
        assert_eq!(answered, RequestId(id));
        assert!(reply.unwrap_err().text.contains("restart"));
    }
    assert_eq!(store.poll_reply(), None);
}
