use cmail_delivery::dsn::DsnWishes;
use cmail_delivery::hold::Hold;
use cmail_delivery::memory_outbox::MemoryOutbox;
use std::net::SocketAddr;

use cmail_delivery::attempt::{Attempt, Failure};
use cmail_delivery::io::ConnectionId;
use cmail_delivery::next_hop::RelayError;
use cmail_delivery::outbox::{Charge, ClaimedTransaction, Commit, FailedAttempt};
use cmail_delivery::time::{Now, UnixTime};

use super::*;
use crate::dice::Dice;
use crate::map::Map;
use crate::options::Options;

const MAIL: MailId = MailId(8);
const LINK: Link = Link { epoch: 1, id: ConnectionId(1) };

/// A checker, and how late it is.
#[derive(Default)]
struct Bench {
    checker: WithoutDns,
    seconds: u64,
}

impl Bench {
    /// One that knows of a mail to an address.
    fn with_mail() -> Self {
        let mut bench = Self::default();
        bench.see(Fact::Started { epoch: 1, is_pass: false }).unwrap();
        bench.finds(row());
        bench
    }

    fn see(&mut self, fact: Fact<'_>) -> Result<(), String> {
        let settings = Options { concurrency: 10, ..Options::draw(&mut Dice::new(1), 1) }.settings();
        let (outbox, map) = (MemoryOutbox::new(), Map::default());
        let monotonic = Instant::default() + Duration::from_secs(self.seconds);
        let now = Now::new(monotonic, UnixTime(0));
        let (settings, outbox, map) = (&settings, &outbox, &map);
        self.checker
            .see(&Scene { now, said_since: monotonic, settings, earlier_settings: &[], outbox, map }, fact)
    }

    fn finds(&mut self, row: Row) {
        let (rows, taken, unreadable) = (vec![row], Vec::new(), Vec::new());
        let reply = StoreReply::Scanned(Scanned { rows, taken, unreadable, next: None, data_version: 1 });
        self.see(Fact::Answered { reply: &reply }).unwrap();
    }

    /// Returns whether it objects if nothing happens for a long time.
    fn objects(&mut self) -> bool {
        self.seconds += 3600;
        self.see(Fact::Called { indexed: 1, outputs: 0, tally: None }).is_err()
    }
}

fn row() -> Row {
    Row {
        id: MAIL,
        remote: None,
        sender: None,
        recipient: "r@[10.1.0.19]".into(),
        submission: UnixTime(0),
        data_octets: 4,
        fail_count: 0,
        last_try: UnixTime(0),
        fatal: false,
        last_failure: None,
        hold: Hold::default(),
        wishes: DsnWishes::default(),
    }
}

fn recalled() -> StoreReply {
    StoreReply::Recalled { rows: vec![row()], unreadable: Vec::new() }
}

fn claimed() -> StoreReply {
    let transaction = ClaimedTransaction {
        to_sign: Ok(Vec::new()),
        rows: vec![row()],
        data_octets: 4,
        head: "text".into(),
    };
    StoreReply::Claimed(Claimed { transactions: vec![transaction], left_over: vec![], unreadable: vec![] })
}

fn conversation(bench: &mut Bench, code: u16) {
    let remote = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 1, 0, 19)), 25);
    let facts = [
        Fact::Connecting { link: LINK, remote, purpose: Purpose::Smtp },
        Fact::Reply { link: LINK, to: Verb::Greeting, code: 220, text: b"" },
        Fact::FinalDot { link: LINK, octets: 4, tls: false },
        Fact::Reply { link: LINK, to: Verb::FinalDot, code, text: b"" },
    ];
    facts.into_iter().for_each(|fact| bench.see(fact).unwrap());
}

#[test]
fn mail_that_nothing_is_done_for_waits() {
    assert!(Bench::with_mail().objects());
}

#[test]
fn mail_that_is_taken_up_waits_no_more_however_often_it_is_found() {
    for reply in [claimed(), recalled()] {
        let mut bench = Bench::with_mail();
        bench.see(Fact::Answered { reply: &reply }).unwrap();
        bench.finds(row());
        assert!(!bench.objects(), "{reply:?}");
    }
}

#[test]
fn mail_with_a_verdict_waits_again_once_it_is_found_without_one() {
    let mut bench = Bench::with_mail();
    bench.see(Fact::Answered { reply: &recalled() }).unwrap();
    let failure = Failure::MalformedRelay(RelayError::Host);
    let attempt = Attempt {
        at: UnixTime(0),
        recipient: cmail_delivery::shown::ShownAddress::default(),
        course: None,
        result: failure,
    };
    let attempt = FailedAttempt { id: MAIL, attempt, charge: Charge::Counts, line: None };
    let commit = Commit { failed: vec![attempt], ..Commit::default() };
    bench.see(Fact::Committing { commit: &commit, bounces: &[] }).unwrap();
    bench.finds(Row { fail_count: 1, ..row() });
    assert!(!bench.objects());
    bench.finds(row());
    assert!(bench.objects());
}

#[test]
fn mail_that_others_have_taken_away_or_let_fail_waits_no_more() {
    let mut bench = Bench::with_mail();
    bench.see(Fact::Removed { id: MAIL }).unwrap();
    assert!(!bench.objects());
    let mut bench = Bench::with_mail();
    bench.finds(Row { fail_count: 1, ..row() });
    assert!(!bench.objects());
}

#[test]
fn mail_waits_from_when_the_conversation_with_a_server_that_takes_mail_is_over() {
    for (code, is_of_use) in [(250, true), (451, false)] {
        let mut bench = Bench::with_mail();
        conversation(&mut bench, code);
        assert!(!bench.objects());
        bench.see(Fact::Gone { link: LINK, parting: Parting::Closed }).unwrap();
        bench.see(Fact::Called { indexed: 1, outputs: 0, tally: None }).unwrap();
        assert_eq!(bench.objects(), is_of_use);
    }
}

#[test]
fn mail_that_may_have_failed_with_a_connection_waits_for_its_verdict_only() {
    let mut bench = Bench::with_mail();
    conversation(&mut bench, 451);
    bench.see(Fact::Gone { link: LINK, parting: Parting::Closed }).unwrap();
    // One of another next hop finds the server better.
    conversation(&mut bench, 250);
    bench.see(Fact::Gone { link: LINK, parting: Parting::Closed }).unwrap();
    bench.finds(row());
    assert!(!bench.objects());
}

#[test]
fn nothing_waits_while_the_database_refuses() {
    let mut bench = Bench::with_mail();
    bench.seconds += 3600;
    bench.see(Fact::Told { id: cmail_delivery::outbox::RequestId(1), done: false }).unwrap();
    bench.see(Fact::Called { indexed: 1, outputs: 0, tally: None }).unwrap();
    assert!(bench.objects());
}
