//! Proves that the memory for queued mail does not grow by more than 100 octets for each.

use cmail_delivery::dsn::DsnWishes;
use cmail_delivery::hold::Hold;
use std::alloc::System;
use std::net::Ipv4Addr;

use bytes::Bytes;
use cmail_delivery::dispatcher::{Dispatcher, Mode};
use cmail_delivery::io::{Input, Output};
use cmail_delivery::outbox::{Cursor, MailId, Row, Scanned, StoreReply, StoreRequest};
use cmail_delivery::policy::Policy;
use cmail_delivery::settings::{Hosts, ResolverSettings, Settings};
use cmail_delivery::time::{Instant, Now, UnixTime};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const ROWS: i64 = 200_000;
const LIMIT_OCTETS: i64 = 100;
/// What it costs besides, as long as it stands, that mail is to be tried before its time.
const ORDER_LIMIT_OCTETS: i64 = 48;

fn settings() -> Settings {
    Settings {
        policy: Policy { ports: [].into(), ..Policy::default() },
        resolver: ResolverSettings::new(vec![(Ipv4Addr::LOCALHOST, 53).into()]),
        ..Settings::new("me.example")
    }
}

/// Octets that one indexed row costs, `fail_count` deciding whether it waits or is ready, and whether it is to be tried
/// before its time.
fn octets_per_row(fail_count: u32, is_ordered: bool) -> i64 {
    let now = Now::new(Instant::from_micros(0), UnixTime(1_000_000));
    let region = Region::new(ALLOCATOR);
    let mut dispatcher = Dispatcher::new(now, settings(), Hosts::new(), Mode::Daemon, [1; 32]);
    while let Some(output) = dispatcher.poll_output() {
        let Output::Store(request, StoreRequest::Scan { after, limit }) = output else { continue };
        let first = after.next_id().map_or(ROWS, |id| id.0.max(1));
        let last = ROWS.min(first + i64::from(limit) - 1);
        let rows = (first..=last).map(|id| Row {
            id: MailId(id),
            remote: None,
            sender: Some(Bytes::from_static(b"sender@origin.example")),
            recipient: Bytes::from_static(b"recipient@example.org"),
            submission: UnixTime(0),
            // Messages differ, so that nothing is saved by their being equal.
            data_octets: id.unsigned_abs(),
            fail_count,
            last_try: UnixTime(999_000 + id % 1000),
            fatal: false,
            last_failure: None,
            hold: Hold::default(),
            wishes: DsnWishes::default(),
        });
        let reply = StoreReply::Scanned(Scanned {
            rows: rows.collect(),
            taken: Vec::new(),
            unreadable: Vec::new(),
            next: (last < ROWS).then_some(Cursor::After(MailId(last))),
            data_version: 1,
        });
        dispatcher.handle_input(now, Input::Store(request, Ok(reply)));
    }
    assert_eq!(i64::try_from(dispatcher.indexed()), Ok(ROWS));
    if is_ordered {
        dispatcher.handle_input(now, Input::TryNow);
        while dispatcher.poll_timeout().is_some_and(|(at, _)| at <= now.monotonic) {
            dispatcher.handle_timeout(now);
        }
        while dispatcher.poll_output().is_some() {}
    }
    let change = region.change();
    // Reallocated octets are counted among the allocated and deallocated ones already.
    (change.bytes_allocated as i64 - change.bytes_deallocated as i64) / ROWS
}

// One test, because tests run side by side and the allocator counts for all.
#[test]
fn a_queued_mail_costs_at_most_100_octets() {
    let order_limit = LIMIT_OCTETS + ORDER_LIMIT_OCTETS;
    let states = [
        ("waits", 1, false, LIMIT_OCTETS),
        ("is ready", 0, false, LIMIT_OCTETS),
        ("is ordered", 1, true, order_limit),
    ];
    for (what, fail_count, is_ordered, limit) in states {
        let octets = octets_per_row(fail_count, is_ordered);
        println!("a mail that {what} costs {octets} octets");
        assert!(octets > 20, "the measurement is wrong: {octets}");
        assert!(octets <= limit, "a mail that {what} costs {octets} octets");
    }
}
