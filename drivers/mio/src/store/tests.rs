//! The outbox in memory, which tests and examples trust, and the database say the same of the same mail.

use std::sync::Arc;

use bytes::Bytes;
use cmail_delivery::flight::{Cargo, FlightId, FlightMark, FlightRoute, FoundFlight, Uncertain};
use cmail_delivery::io::ConnectionId;
use cmail_delivery::memory_outbox::{GivenOrder, Mail, MemoryOutbox};
use cmail_delivery::order::{CarriedOut, OrderPart, OrderStep, OrderVerb};
use cmail_delivery::outbox::{
    Claimed, Commit, Cursor, DATA_CHUNK_OCTETS, LeftOver, MailId, Replacement, Row, Scanned, StoreReply,
    StoreRequest,
};
use cmail_delivery::schedule::RetryTerms;
use cmail_delivery::settings::Schedule;
use cmail_delivery::time::UnixTime;
use proptest::prelude::*;

use super::fixture::{self, Fixture, bounce_to};

/// Both, which are asked and changed alike.
struct Pair {
    fixture: Fixture,
    memory: MemoryOutbox,
    /// How many flights were noted.
    flights: u32,
}

/// What happens: which kind of it, to which mail, one bit for each id, and a number of any meaning.
type Happening = (u8, u16, u8);

const SENDERS: [Option<&str>; 4] = [None, Some("a@example.org"), Some("b@example.org"), Some(" <>")];
const SUBMISSION: UnixTime = UnixTime(1_700_000_000);

/// Two of one length, and two longer ones that differ at their ends only.
fn data(number: u8) -> Vec<u8> {
    let long = |end: &[u8]| [&[b'x'; DATA_CHUNK_OCTETS], end].concat();
    match number % 5 {
        0 => Vec::new(),
        1 => b"one".to_vec(),
        2 => b"t\0o".to_vec(),
        3 => long(b"one"),
        _ => long(b"two"),
    }
}

/// What the database has no influence on, or what tells of it alone, left out.
fn comparable(reply: StoreReply) -> StoreReply {
    let undated = |row: &mut Row| {
        // Of bounces, the database says when they were made.
        if row.sender.is_none() {
            row.submission = SUBMISSION;
        }
    };
    match reply {
        StoreReply::Scanned(Scanned { mut rows, taken, unreadable, next, data_version: _ }) => {
            rows.iter_mut().for_each(undated);
            StoreReply::Scanned(Scanned { rows, taken, unreadable, next, data_version: 0 })
        }
        StoreReply::Failed { mut messages, left_over, unreadable } => {
            messages
                .iter_mut()
                .flat_map(|message| &mut message.mails)
                .for_each(|mail| undated(&mut mail.row));
            StoreReply::Failed { messages, left_over, unreadable }
        }
        // Whether a row was read that is left over is the database's business.
        StoreReply::Claimed(Claimed { transactions, left_over, unreadable }) => {
            let left_over = left_over.into_iter().map(|row| LeftOver { message: None, ..row }).collect();
            StoreReply::Claimed(Claimed { transactions, left_over, unreadable })
        }
        // The database also says whose order it was.
        StoreReply::CarriedOut(CarriedOut { rows, done, is_open, result }) => {
            let result = result.map(|result| result.rsplit(": ").next().unwrap_or_default().to_owned());
            StoreReply::CarriedOut(CarriedOut { rows, done, is_open, result })
        }
        StoreReply::Recovered(found) => StoreReply::Recovered(
            found.into_iter().map(|flight| FoundFlight { number: 0, ..flight }).collect(),
        ),
        StoreReply::Data(_)
        | StoreReply::Committed(_)
        | StoreReply::Recalled { .. }
        | StoreReply::Orders(_)
        | StoreReply::Policy(_)
        | StoreReply::StalePolicies(_) => reply,
    }
}

impl Pair {
    fn new() -> Self {
        let mut fixture = Fixture::new();
        fixture.database.prepare_orders();
        Self { fixture, memory: MemoryOutbox::new(), flights: 0 }
    }

    /// Gives an order about mail that is not held, and carries it out.
    fn order(&mut self, mut ids: Vec<MailId>, number: u8) -> (StoreReply, StoreReply) {
        ids.retain(|id| !self.memory.held().any(|held| held == *id));
        let (verb, name) = match number % 3 {
            0 => (OrderVerb::Hold, "hold"),
            1 => (OrderVerb::Drop, "drop"),
            _ => (OrderVerb::Redirect, "redirect"),
        };
        let list: Vec<String> = ids.iter().map(ToString::to_string).collect();
        // No id at all would be all of them.
        let scope =
            format!(r#"{{"ids":[{}]}}"#, if list.is_empty() { "-1".to_owned() } else { list.join(",") });
        self.fixture.execute(
            "INSERT INTO dispatch_orders (at_ms, who, verb, scope) VALUES (0, 'root', ?1, ?2)",
            (name, scope),
        );
        self.memory.order(GivenOrder::new(verb, ids));
        let terms = RetryTerms::of(&Schedule { retry_interval_s: 600, ..Schedule::default() }, SUBMISSION);
        let (in_database, in_memory) =
            self.ask(StoreRequest::ReadOrders { known: Vec::new(), terms: terms.clone() });
        let StoreReply::Orders(Some(part)) = in_database.clone() else { return (in_database, in_memory) };
        if in_database != in_memory {
            return (in_database, in_memory);
        }
        let OrderPart { order, mails, next, .. } = part;
        let step = OrderStep { order, mails, gone: Vec::new(), under_way: Vec::new(), next, terms };
        self.ask(StoreRequest::CarryOut(step))
    }

    fn ask(&mut self, request: StoreRequest) -> (StoreReply, StoreReply) {
        let in_memory = self.memory.answer(request.clone()).unwrap();
        (comparable(self.fixture.answer(request)), comparable(in_memory))
    }

    fn insert(&mut self, number: u8) {
        let (sender, data) = (SENDERS[usize::from(number) % SENDERS.len()], data(number / 4));
        let remote = (number > 150).then_some("relay.example");
        self.fixture.execute(
            "INSERT INTO outbox (mail_remote, mail_envelopefrom, mail_envelopeto, mail_submission, mail_data) \
             VALUES (?1, ?2, 'r@example.net', ?3, CAST(?4 AS TEXT))",
            (remote, sender, SUBMISSION.0, &data),
        );
        let mail = Mail::new("", "r@example.net", data, SUBMISSION);
        let octets = |text: &'static str| Bytes::from_static(text.as_bytes());
        self.memory.insert(Mail { remote: remote.map(octets), sender: sender.map(octets), ..mail }).unwrap();
    }

    /// Another program changes one column.
    fn change(&mut self, id: MailId, number: u8) {
        type Change = fn(&mut Mail);
        let (assignment, change): (&str, Change) = match number % 5 {
            0 => ("mail_remote = 'other.example'", |mail| mail.remote = Some("other.example".into())),
            1 => ("mail_envelopefrom = NULL", |mail| mail.sender = None),
            2 => {
                ("mail_envelopeto = 'other@example.net'", |mail| mail.recipient = "other@example.net".into())
            }
            3 => ("mail_submission = 5", |mail| mail.submission = UnixTime(5)),
            _ => ("mail_data = 'changed'", |mail| mail.data = "changed".into()),
        };
        self.fixture.execute(&format!("UPDATE outbox SET {assignment} WHERE mail_id = ?1"), [id.0]);
        self.memory.mail_mut(id).map(change);
    }

    /// Does one thing in both; what they say.
    fn happen(&mut self, (kind, mask, number): Happening) -> Option<(StoreReply, StoreReply)> {
        let ids: Vec<MailId> =
            (0..16).filter(|bit| mask >> bit & 1 == 1).map(|bit| MailId(bit + 1)).collect();
        let first = ids.first().copied().unwrap_or(MailId(1));
        Some(match kind {
            0..=3 => {
                self.insert(number);
                return None;
            }
            4 => {
                self.change(first, number);
                return None;
            }
            5 => {
                self.fixture.execute("DELETE FROM outbox WHERE mail_id = ?1", [first.0]);
                self.memory.remove(first);
                return None;
            }
            6 => {
                let after = if number % 4 == 0 { Cursor::BeforeFirst } else { Cursor::After(first) };
                self.ask(StoreRequest::Scan { after, limit: u32::from(number % 7) + 1 })
            }
            7..=8 => self.ask(StoreRequest::Claim {
                signing: None,
                ids,
                transactions: usize::from(number % 5) + 1,
                recipients: 100,
            }),
            9 => {
                let offset = (data(number).len() as u64).saturating_sub(2);
                self.ask(StoreRequest::ReadData { id: first, offset, limit: u32::from(number) + 1 })
            }
            10 => self.ask(StoreRequest::Recall { ids }),
            11 => {
                let original_limit_octets = if number % 2 == 0 { 2 } else { 1 << 20 };
                self.ask(StoreRequest::ReadFailed { ids, original_limit_octets })
            }
            12 => self.ask(StoreRequest::Commit(Commit {
                delivered: fixture::delivered(&ids),
                ..Commit::default()
            })),
            13..=14 => {
                // All with as many digits, since the database compares texts.
                let time = UnixTime(SUBMISSION.0 + i64::from(number));
                let failed = |&id: &MailId| fixture::refused(id, &number.to_string(), time, number % 3 == 0);
                let failed = ids.iter().map(failed).collect();
                self.ask(StoreRequest::Commit(Commit { failed, ..Commit::default() }))
            }
            15..=16 => self.order(ids, number),
            18 => {
                self.flights += 1;
                let (flight, next_hop) = (FlightId::Own(self.flights), "example.net".into());
                let remote = ([192, 0, 2, number], 25).into();
                let route = Arc::new(FlightRoute { connection: ConnectionId(1), next_hop, remote });
                let carries = (!ids.is_empty()).then_some(Cargo { route, mails: ids });
                let flights = vec![FlightMark { flight, carries }];
                self.ask(StoreRequest::Commit(Commit { flights, ..Commit::default() }))
            }
            19 => {
                let uncertain = if number % 2 == 0 { Uncertain::Retry } else { Uncertain::Hold };
                self.ask(StoreRequest::Recover { uncertain })
            }
            _ => {
                let bounce = (number % 3 > 0).then(|| bounce_to(&["a@example.org", "copy@example.org"]));
                let replaced = vec![Replacement { originals: ids, expired: Vec::new(), bounce }];
                self.ask(StoreRequest::Commit(Commit { replaced, ..Commit::default() }))
            }
        })
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn the_outbox_in_memory_says_what_the_database_says(
        happenings in prop::collection::vec((0u8..20, any::<u16>(), any::<u8>()), 1..60),
    ) {
        let mut pair = Pair::new();
        for happening in happenings {
            if let Some((in_database, in_memory)) = pair.happen(happening) {
                prop_assert_eq!(&in_memory, &in_database, "after {:?}", happening);
            }
        }
        let (in_database, in_memory) = pair.ask(StoreRequest::Scan { after: Cursor::BeforeFirst, limit: 1000 });
        prop_assert_eq!(in_memory, in_database);
    }
}
