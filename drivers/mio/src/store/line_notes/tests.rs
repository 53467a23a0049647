use cmail_delivery::hold::HoldLine;
use cmail_delivery::mail_pattern::MailPattern;
use cmail_delivery::outbox::{Cursor, Scanned, StoreReply, StoreRequest};
use cmail_delivery::settings::Schedule;
use cmail_delivery::time::UnixTime;

use super::super::fixture::Fixture;
use super::*;
use cmail_delivery::order::{CarriedOut, OrderStep};

fn terms(lines: &[&str], now: i64) -> RetryTerms {
    let line = |(pattern, line): (&&str, u32)| HoldLine {
        mail: MailPattern::parse(pattern).unwrap(),
        reason: "because".into(),
        line,
    };
    let hold_lines = lines.iter().zip(1..).map(line).collect();
    RetryTerms::of(&Schedule { hold_lines, ..Schedule::default() }, UnixTime(now))
}

/// Does what a dispatcher does at its start or after a reload. Returns what has come of orders.
fn look(fixture: &mut Fixture, terms: &RetryTerms) -> Vec<String> {
    let mut results = Vec::new();
    loop {
        let reply = fixture.answer(StoreRequest::ReadOrders { known: Vec::new(), terms: terms.clone() });
        let StoreReply::Orders(part) = reply else { panic!("{reply:?}") };
        let Some(part) = part else { return results };
        let step = OrderStep {
            order: part.order,
            mails: part.mails,
            gone: Vec::new(),
            under_way: Vec::new(),
            next: part.next,
            terms: terms.clone(),
        };
        let reply = fixture.answer(StoreRequest::CarryOut(step));
        let StoreReply::CarriedOut(CarriedOut { result, .. }) = reply else { panic!("{reply:?}") };
        results.extend(result);
    }
}

fn released(fixture: &mut Fixture) -> Vec<Option<UnixTime>> {
    let reply = fixture.answer(StoreRequest::Scan { after: Cursor::BeforeFirst, limit: 100 });
    let StoreReply::Scanned(Scanned { rows, .. }) = reply else { panic!("{reply:?}") };
    rows.iter().map(|row| row.hold.released).collect()
}

#[test]
fn what_a_line_has_held_is_released_when_the_line_is_gone_also_across_restarts() {
    let mut fixture = Fixture::new();
    fixture.database.prepare_orders();
    fixture.database.keep_hold_lines();
    for recipient in ["a@example.net", "b@example.net", "c@example.org"] {
        fixture.mail(Some("s@example.org"), recipient, b"x");
    }
    assert_eq!(look(&mut fixture, &terms(&["example.net", "sender:<>"], 100)), [""; 0]);
    assert_eq!(
        look(&mut fixture, &terms(&["example.net"], 150)),
        ["order 1 of cmail-dispatchd: 0 mails are released"]
    );
    // Another process, which does not know what was noted.
    fixture.database.line_notes = LineNotes::default();
    assert_eq!(
        look(&mut fixture, &terms(&[], 170)),
        [""; 0],
        "the tool says nothing of the lines of the daemon"
    );
    fixture.database.keep_hold_lines();
    assert_eq!(
        look(&mut fixture, &terms(&["example.org"], 200)),
        ["order 2 of cmail-dispatchd: 2 mails are released"]
    );
    assert_eq!(released(&mut fixture), [Some(UnixTime(200)), Some(UnixTime(200)), None]);
    assert_eq!(look(&mut fixture, &terms(&["example.org"], 300)), [""; 0]);
}

#[test]
fn a_table_that_somebody_has_changed_costs_only_the_note() {
    let mut fixture = Fixture::new();
    fixture.database.prepare_orders();
    fixture.database.keep_hold_lines();
    fixture.mail(Some("s@example.org"), "a@example.net", b"x");
    fixture.other.execute_batch("CREATE TABLE dispatch_meta (something INTEGER)").unwrap();
    assert_eq!(look(&mut fixture, &terms(&["example.net"], 100)), [""; 0]);
    assert_eq!(look(&mut fixture, &terms(&[], 200)), [""; 0]);
    assert_eq!(released(&mut fixture), [None]);
}
