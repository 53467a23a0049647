//! What other programs change in mail that is known, in an outbox that is too long for a world.

use crate::dsn::DsnWishes;
use crate::hold::Hold;
use std::collections::BTreeMap;

use super::*;
use crate::outbox::{Cursor, Row, Scanned};

/// As many rows for the interval as a million would be for one of 10 s.
const ROWS: i64 = 200_000;
const INTERVAL: Duration = Duration::from_secs(2);
/// How long the database takes for a thousand rows: six times as long as was measured.
const TIME_PER_THOUSAND_ROWS: Duration = Duration::from_millis(4);

/// A dispatcher, and a database that holds nothing but mail that waits.
struct Outbox {
    now: Now,
    dispatcher: Dispatcher,
    rows: BTreeMap<MailId, Row>,
    data_version: i64,
    /// When the walk asked for something, and how much that was.
    slices: Vec<(Instant, usize)>,
}

fn row(id: i64, fail_count: u32) -> Row {
    Row {
        id: MailId(id),
        remote: None,
        sender: None,
        recipient: Bytes::from_static(b"r@example.org"),
        submission: UnixTime(0),
        data_octets: id.unsigned_abs(),
        fail_count,
        last_try: UnixTime(1_000_000),
        fatal: false,
        last_failure: None,
        hold: Hold::default(),
        wishes: DsnWishes::default(),
    }
}

impl Outbox {
    fn new() -> Self {
        let now = Now::new(Instant::from_micros(0), UnixTime(1_000_000));
        let settings = Settings { interval: INTERVAL, ..settings() };
        let mut outbox = Self {
            now,
            dispatcher: Dispatcher::new(now, settings, Hosts::new(), Mode::Daemon, [1; 32]),
            rows: (1..=ROWS).map(|id| (MailId(id), row(id, 1))).collect(),
            data_version: 1,
            slices: Vec::new(),
        };
        outbox.run_for(Duration::from_secs(5));
        assert_eq!(outbox.dispatcher.indexed(), outbox.rows.len());
        assert!(outbox.slices.is_empty());
        outbox
    }

    /// Another program changes something, and the files of the database tell.
    fn change(&mut self, change: impl FnOnce(&mut BTreeMap<MailId, Row>)) {
        change(&mut self.rows);
        self.data_version += 1;
        self.dispatcher.handle_input(self.now, Input::OutboxChanged);
    }

    fn run_for(&mut self, span: Duration) {
        let end = self.now.monotonic + span;
        loop {
            while let Some(output) = self.dispatcher.poll_output() {
                if let Output::Store(id, StoreRequest::Scan { after, limit }) = output {
                    self.scan(id, after, limit);
                }
            }
            let next = self.dispatcher.poll_timeout().map(|(at, _)| at).filter(|at| *at <= end);
            self.now.monotonic = next.unwrap_or(end).max(self.now.monotonic);
            if next.is_none() {
                return;
            }
            self.dispatcher.handle_timeout(self.now);
        }
    }

    fn scan(&mut self, id: RequestId, after: Cursor, limit: u32) {
        let Some(first) = after.next_id() else { return };
        let mut found = self.rows.range(first..).map(|(_, row)| row.clone());
        let rows: Vec<Row> = found.by_ref().take(limit as usize).collect();
        let next = found.next().and(rows.last()).map(|row| Cursor::After(row.id));
        if limit < 4096 {
            self.slices.push((self.now.monotonic, rows.len()));
        }
        self.now.monotonic = self.now.monotonic + TIME_PER_THOUSAND_ROWS * (rows.len() as u32) / 1000;
        let reply = StoreReply::Scanned(Scanned {
            rows,
            taken: Vec::new(),
            unreadable: Vec::new(),
            next,
            data_version: self.data_version,
        });
        self.dispatcher.handle_input(self.now, Input::Store(id, Ok(reply)));
    }
}

#[test]
fn what_others_change_in_any_row_is_seen_within_one_interval() {
    let mut outbox = Outbox::new();
    for number in 0..3 {
        // Wherever the walk is just now.
        outbox.run_for(Duration::from_millis(700 * number));
        let (gone, cleared, below) = (1 + number as i64, ROWS / 2 + number as i64, -(number as i64));
        let indexed = outbox.dispatcher.indexed();
        outbox.change(|rows| {
            rows.remove(&MailId(gone));
            rows.insert(MailId(cleared), row(cleared, 0));
            rows.insert(MailId(below), row(below, 1));
        });
        outbox.run_for(INTERVAL);
        assert!(outbox.dispatcher.books.queue.find(MailId(gone)).is_none());
        assert!(outbox.dispatcher.books.queue.find(MailId(cleared)).unwrap().is_ready());
        assert!(outbox.dispatcher.books.queue.find(MailId(below)).is_some());
        assert_eq!(outbox.dispatcher.indexed(), indexed);
    }
}

#[test]
fn without_writers_nothing_is_walked_over_and_with_them_no_more_than_once_in_three_quarters_of_an_interval() {
    let mut outbox = Outbox::new();
    outbox.run_for(INTERVAL * 10);
    assert!(outbox.slices.is_empty());
    let begin = outbox.now.monotonic;
    for _ in 0..40 {
        outbox.change(|_| {});
        outbox.run_for(INTERVAL / 4);
    }
    let rescanned: usize = outbox.slices.iter().map(|&(_, rows)| rows).sum();
    let most = (10 * 4 / 3 + 1) * ROWS as usize;
    assert!((9 * ROWS as usize..=most).contains(&rescanned), "{rescanned}");
    assert!(outbox.slices.iter().all(|&(at, rows)| at >= begin && rows <= 2048));
}
