use cmail_delivery::hold::{HeldBy, HoldLine};
use cmail_delivery::mail_pattern::MailPattern;
use cmail_delivery::outbox::{Scanned, StoreReply, StoreRequest};
use cmail_delivery::schedule::{RetryState, RetryTerms};
use cmail_delivery::settings::Schedule;

use super::super::fixture::Fixture;
use super::super::ledger::{Addresses, Entries, LedgerSettings, Retention};
use super::super::order_task::ALL_MAIL;
use super::*;

const NOW: i64 = 1_800_000_000;

fn terms() -> RetryTerms {
    let schedule = Schedule { retries: 3, retry_interval_s: 600, ..Schedule::default() };
    RetryTerms::of(&schedule, UnixTime(NOW))
}

/// A database with the tables of orders, and a ledger.
fn fixture() -> Fixture {
    let mut fixture = Fixture::new();
    fixture.database.prepare_orders();
    fixture.database.keep_ledger(LedgerSettings {
        entries: Entries::All,
        addresses: Addresses::Full,
        keep: Retention { age: std::time::Duration::from_secs(1 << 40), rows: 1000 },
    });
    fixture
}

/// A person gives an order by SQL. Returns its number.
fn give(fixture: &Fixture, verb: &str, scope: &str, argument: Option<&str>) -> OrderId {
    fixture.execute(
        "INSERT INTO dispatch_orders (at_ms, who, verb, scope, argument, reason) VALUES (?1, 'root (0)', ?2, ?3, ?4, 'moved')",
        params![NOW * 1000, verb, scope, argument],
    );
    OrderId(fixture.other.last_insert_rowid())
}

fn read(fixture: &mut Fixture, known: Vec<(OrderId, OrderPlace)>) -> Option<OrderPart> {
    let reply = fixture.answer(StoreRequest::ReadOrders { known, terms: terms() });
    let StoreReply::Orders(part) = reply else { panic!("{reply:?}") };
    part
}

fn carry_out(fixture: &mut Fixture, step: OrderStep) -> CarriedOut {
    let reply = fixture.answer(StoreRequest::CarryOut(step));
    let StoreReply::CarriedOut(carried_out) = reply else { panic!("{reply:?}") };
    carried_out
}

fn step(part: &OrderPart) -> OrderStep {
    let OrderPart { order, mails, next, .. } = part.clone();
    OrderStep { order, mails, gone: Vec::new(), under_way: Vec::new(), next, terms: terms() }
}

/// Carries out all orders, and returns the last result.
fn carry_out_all(fixture: &mut Fixture) -> Option<String> {
    carry_out_all_by(fixture, &terms())
}

fn carry_out_all_by(fixture: &mut Fixture, terms: &RetryTerms) -> Option<String> {
    let (mut result, mut known) = (None, Vec::new());
    while let Some(part) = read(fixture, known.clone()) {
        let carried_out = carry_out(fixture, OrderStep { terms: terms.clone(), ..step(&part) });
        result = carried_out.result.or(result);
        known.retain(|(number, _)| *number != part.order);
        known.push((part.order, part.next));
    }
    result
}

fn holds(fixture: &mut Fixture) -> Vec<(i64, bool)> {
    let after = Cursor::BeforeFirst;
    let reply = fixture.answer(StoreRequest::Scan { after, limit: 100 });
    let StoreReply::Scanned(Scanned { rows, .. }) = reply else { panic!("{reply:?}") };
    rows.iter().map(|row| (row.id.0, row.hold.is_held())).collect()
}

fn text(fixture: &Fixture, sql: &str) -> Option<String> {
    fixture.other.query_row(sql, [], |row| row.get(0)).optional().unwrap().flatten()
}

#[test]
fn a_hold_and_its_release_are_seen_by_every_read() {
    let mut fixture = fixture();
    fixture.mail(Some("s@example.org"), "a@example.net", b"x");
    fixture.mail(Some("s@example.org"), "b@example.com", b"x");
    give(&fixture, "hold", r#"{"domain":"example.net"}"#, None);
    assert_eq!(carry_out_all(&mut fixture).as_deref(), Some("order 1 of root: 1 mail is held"));
    assert_eq!(holds(&mut fixture), [(1, true), (2, false)]);
    let claimed = fixture.answer(StoreRequest::Claim {
        signing: None,
        ids: vec![MailId(1)],
        transactions: 1,
        recipients: 100,
    });
    let StoreReply::Claimed(claimed) = claimed else { panic!("{claimed:?}") };
    assert!(claimed.transactions[0].rows[0].hold.is_held());
    give(&fixture, "release", r#"{"ids":[1,2]}"#, None);
    assert_eq!(carry_out_all(&mut fixture).as_deref(), Some("order 2 of root: 1 mail is released"));
    assert_eq!(holds(&mut fixture), [(1, false), (2, false)]);
}

#[test]
fn a_person_who_deletes_a_hold_releases_its_mail() {
    let mut fixture = fixture();
    fixture.mail(Some("s@example.org"), "a@example.net", b"x");
    give(&fixture, "hold", ALL_MAIL, None);
    carry_out_all(&mut fixture);
    fixture.execute("DELETE FROM dispatch_holds", []);
    assert_eq!(holds(&mut fixture), [(1, false)]);
}

#[test]
fn a_rule_holds_what_comes_later_until_it_is_released() {
    let mut fixture = fixture();
    fixture.mail(Some("s@example.org"), "a@example.net", b"x");
    give(&fixture, "hold", r#"{"destination":"example.net"}"#, None);
    let result = carry_out_all(&mut fixture);
    assert_eq!(result.as_deref(), Some("order 1 of root: 1 mail is held, and what comes later"));
    fixture.mail(Some("s@example.org"), "b@EXAMPLE.net", b"x");
    fixture.mail(Some("s@example.org"), "b@example.com", b"x");
    fixture.execute(
        "INSERT INTO outbox (mail_remote, mail_envelopeto) VALUES ('example.net:25', 'c@example.com')",
        [],
    );
    assert_eq!(holds(&mut fixture), [(1, true), (2, true), (3, false), (4, true)]);
    give(&fixture, "release", r#"{"ids":[2]}"#, None);
    carry_out_all(&mut fixture);
    assert_eq!(
        holds(&mut fixture),
        [(1, true), (2, false), (3, false), (4, true)],
        "it is exempt from the rule"
    );
    give(&fixture, "release", r#"{"destination":"example.net"}"#, None);
    carry_out_all(&mut fixture);
    assert_eq!(holds(&mut fixture), [(1, false), (2, false), (3, false), (4, false)]);
    assert_eq!(fixture.number("SELECT count(*) FROM dispatch_holds"), 0);
}

#[test]
fn a_hold_with_an_end_is_released_by_an_order_given_in_advance() {
    let mut fixture = fixture();
    fixture.mail(Some("s@example.org"), "a@example.net", b"x");
    let until = (NOW + 60) * 1000;
    give(&fixture, "hold", ALL_MAIL, Some(&until.to_string()));
    carry_out_all(&mut fixture);
    assert_eq!((holds(&mut fixture), read(&mut fixture, Vec::new())), (vec![(1, true)], None));
    let mut later = terms();
    later.now = UnixTime(NOW + 60);
    let part = fixture.answer(StoreRequest::ReadOrders { known: Vec::new(), terms: later.clone() });
    let StoreReply::Orders(Some(part)) = part else { panic!("{part:?}") };
    carry_out(&mut fixture, OrderStep { terms: later, ..step(&part) });
    assert_eq!(holds(&mut fixture), [(1, false)]);
    assert_eq!(fixture.number("SELECT count(*) FROM dispatch_holds"), 0);
}

#[test]
fn what_an_order_deletes_or_gives_up_is_in_the_ledger_with_its_reason() {
    let mut fixture = fixture();
    fixture.mail(Some("s@example.org"), "a@example.net", b"x");
    fixture.mail(Some("s@example.org"), "b@example.net", b"x");
    give(&fixture, "drop", r#"{"ids":[1]}"#, None);
    give(&fixture, "fail", r#"{"ids":[2]}"#, None);
    carry_out_all(&mut fixture);
    let removed = "SELECT result || ': ' || why || ': ' || recipient FROM dispatch_attempts";
    assert_eq!(text(&fixture, removed).as_deref(), Some("removed: order 1 of root: a@example.net"));
    let failure = text(&fixture, "SELECT fail_message FROM faillog WHERE fail_fatal").unwrap();
    assert_eq!(failure, "Given up by order 2 of root: moved");
    assert_eq!(cmail_delivery::wording::order_in(&failure), Some("order 2 of root"));
    assert_eq!(fixture.number("SELECT mail_id FROM outbox"), 2);
}

#[test]
fn mail_that_comes_after_an_order_is_not_touched() {
    let mut fixture = fixture();
    fixture.mail(Some("s@example.org"), "a@example.net", b"x");
    give(&fixture, "drop", ALL_MAIL, None);
    fixture.execute("UPDATE dispatch_orders SET last_mail = 1", []);
    fixture.mail(Some("s@example.org"), "b@example.net", b"x");
    assert_eq!(carry_out_all(&mut fixture).as_deref(), Some("order 1 of root: 1 mail is deleted"));
    assert_eq!(fixture.number("SELECT mail_id FROM outbox"), 2);
}

#[test]
fn a_row_that_holds_other_mail_by_now_is_not_touched() {
    let mut fixture = fixture();
    let id = fixture.mail(Some("s@example.org"), "a@example.net", b"x");
    give(&fixture, "drop", r#"{"domain":"example.net"}"#, None);
    let part = read(&mut fixture, Vec::new()).unwrap();
    fixture.execute("UPDATE outbox SET mail_envelopeto = 'b@example.com' WHERE mail_id = ?1", [id.0]);
    let carried_out = carry_out(&mut fixture, step(&part));
    assert_eq!(carried_out.rows[0].id, id);
    assert_eq!(carried_out.result.as_deref(), Some("order 1 of root: 0 mails are deleted"));
}

#[test]
fn an_order_goes_on_where_it_was_and_names_what_is_under_way() {
    let mut fixture = fixture();
    let count = ORDER_PART_LIMIT as i64 + 5;
    for _ in 0..count {
        fixture.mail(Some("s@example.org"), "a@example.net", b"x");
    }
    give(&fixture, "hold", ALL_MAIL, None);
    let part = read(&mut fixture, Vec::new()).unwrap();
    assert_eq!(part.mails.len(), ORDER_PART_LIMIT);
    let (busy, free) = part.mails.split_first().unwrap();
    let first = OrderStep { mails: free.to_vec(), under_way: vec![*busy], ..step(&part) };
    assert_eq!(carry_out(&mut fixture, first).result, None);
    let rest = read(&mut fixture, Vec::new()).unwrap();
    assert_eq!((rest.mails.len(), &*rest.under_way, rest.next), (5, &[*busy][..], OrderPlace::End));
    let last = OrderStep { gone: vec![*busy], ..step(&rest) };
    let result = carry_out(&mut fixture, last).result.unwrap();
    assert_eq!(result, "order 1 of root: 504 mails are held; 1 other was delivered or given up meanwhile");
    assert_eq!(read(&mut fixture, Vec::new()), None);
}

#[test]
fn a_wrong_order_ends_with_a_sentence_and_no_change() {
    for (verb, scope, argument, told) in [
        ("explode", ALL_MAIL, None, "nothing was done: `explode` is no order"),
        ("drop", r#"{"colour":"red"}"#, None, "nothing was done: the scope is no selection of mail"),
        ("drop", "all", None, "nothing was done: the scope is no selection of mail"),
        ("hold", ALL_MAIL, Some("tomorrow"), "nothing was done: `tomorrow` is no argument of this order"),
        ("redirect", ALL_MAIL, Some("host:0"), "nothing was done: the remote specification"),
    ] {
        let mut fixture = fixture();
        fixture.mail(Some("s@example.org"), "a@example.net", b"x");
        give(&fixture, verb, scope, argument);
        carry_out_all(&mut fixture);
        let result = text(&fixture, "SELECT result FROM dispatch_orders WHERE done_ms IS NOT NULL").unwrap();
        assert!(result.starts_with(told), "{result}");
        assert_eq!(fixture.number("SELECT count(*) FROM outbox WHERE mail_remote IS NULL"), 1);
    }
}

#[test]
fn mail_that_another_program_protects_costs_no_other_mail() {
    let mut fixture = fixture();
    fixture.mail(Some("s@example.org"), "a@example.net", b"x");
    fixture.mail(Some("s@example.org"), "b@example.net", b"x");
    fixture.execute(
        "CREATE TRIGGER keep BEFORE DELETE ON outbox WHEN old.mail_id = 1 BEGIN SELECT raise(ABORT, 'mine'); END",
        [],
    );
    give(&fixture, "drop", ALL_MAIL, None);
    assert_eq!(carry_out_all(&mut fixture).as_deref(), Some("order 1 of root: 1 mail is deleted"));
    assert_eq!(fixture.number("SELECT mail_id FROM outbox"), 1);
    assert_eq!(
        fixture.number("SELECT count(*) FROM dispatch_attempts"),
        1,
        "and what was not done is not in the ledger"
    );
}

#[test]
fn redirected_mail_goes_elsewhere_and_forgotten_failures_are_gone() {
    let mut fixture = fixture();
    let id = fixture.mail(Some("s@example.org"), "a@example.net", b"x");
    fixture.execute("INSERT INTO faillog (fail_mail, fail_fatal) VALUES (?1, 1)", [id.0]);
    give(&fixture, "redirect", ALL_MAIL, Some("relay.example:25"));
    carry_out_all(&mut fixture);
    assert_eq!(text(&fixture, "SELECT mail_remote FROM outbox").as_deref(), Some("relay.example:25"));
    give(&fixture, "retry", ALL_MAIL, None);
    assert_eq!(carry_out_all(&mut fixture).as_deref(), Some("order 2 of root: 0 mails are tried now"));
    give(&fixture, "retry", ALL_MAIL, Some("forget"));
    carry_out_all(&mut fixture);
    give(&fixture, "redirect", ALL_MAIL, None);
    carry_out_all(&mut fixture);
    assert_eq!(text(&fixture, "SELECT mail_remote FROM outbox"), None);
    assert_eq!(fixture.number("SELECT count(*) FROM faillog"), 0);
}

#[test]
fn without_the_tables_there_are_no_orders_and_no_holds() {
    let mut fixture = Fixture::new();
    fixture.mail(Some("s@example.org"), "a@example.net", b"x");
    assert_eq!((read(&mut fixture, Vec::new()), holds(&mut fixture)), (None, vec![(1, false)]));
    fixture.database.prepare_orders();
    fixture.execute("DROP TABLE dispatch_state", []);
    fixture.execute("INSERT INTO dispatch_holds (scope, since_ms) VALUES ('{}', 0)", []);
    assert_eq!(holds(&mut fixture), [(1, false)]);
}

#[test]
fn a_scope_that_selects_nothing_never_means_all_mail() {
    for scope in [
        "[]",
        "[[]]",
        "{}",
        "null",
        "7",
        r#"{"ids":[]}"#,
        r#"{"domain":null}"#,
        r#"{"hold":5,"ids":[7]}"#,
        r#"{"all":true,"ids":[1]}"#,
        r#"{"all":false}"#,
        r#"{"hold":null}"#,
        r#"{"destination":""}"#,
    ] {
        let mut fixture = fixture();
        fixture.mail(Some("s@example.org"), "a@example.net", b"x");
        give(&fixture, "drop", scope, None);
        let result = carry_out_all(&mut fixture).unwrap();
        assert!(result.starts_with("order 1 of root: nothing was done: "), "{scope}: {result}");
        assert_eq!(fixture.number("SELECT count(*) FROM outbox"), 1, "{scope}");
    }
}

#[test]
fn each_scope_is_written_as_it_is_read() {
    for text in [
        ALL_MAIL,
        r#"{"hold":7}"#,
        r#"{"destination":"example.org"}"#,
        r#"{"from":"a@example.org"}"#,
        r#"{"ids":[1,2],"domain":"example.org"}"#,
    ] {
        assert_eq!(Scope::parse(text).unwrap().to_json(), text);
    }
}

#[test]
fn a_row_of_other_types_ends_with_a_sentence_and_stops_no_other_order() {
    let mut fixture = fixture();
    fixture.mail(Some("s@example.org"), "a@example.net", b"x");
    fixture.execute(
        "INSERT INTO dispatch_orders (at_ms, who, verb, scope) VALUES (0, CAST(x'FC' AS TEXT), 'drop', '{\"all\":true}')",
        [],
    );
    give(&fixture, "hold", ALL_MAIL, None);
    assert_eq!(carry_out_all(&mut fixture).as_deref(), Some("order 2 of root: 1 mail is held"));
    let result = text(&fixture, "SELECT result FROM dispatch_orders WHERE order_id = 1").unwrap();
    assert!(result.starts_with("nothing was done: its row cannot be read"), "{result}");
}

#[test]
fn a_rule_that_cannot_be_read_holds_nothing_and_stops_nothing() {
    let mut fixture = fixture();
    fixture.mail(Some("s@example.org"), "a@example.net", b"x");
    for scope in [
        r#"'{"destination":"' || CAST(x'FC' AS TEXT) || '.de"}'"#,
        "x'00ff'",
        "7",
        "'{'",
        r#"'{"destination":7}'"#,
    ] {
        fixture.execute(
            &format!("INSERT INTO dispatch_holds (hold_id, scope, since_ms) VALUES (random(), {scope}, 0)"),
            [],
        );
    }
    give(&fixture, "hold", r#"{"destination":"example.net"}"#, None);
    carry_out_all(&mut fixture);
    assert_eq!(holds(&mut fixture), [(1, true)]);
}

#[test]
fn the_end_of_one_hold_ends_no_other() {
    let mut fixture = fixture();
    fixture.mail(Some("s@example.org"), "a@example.net", b"x");
    fixture.mail(Some("t@example.org"), "b@example.net", b"x");
    fixture.mail(Some("t@example.org"), "c@example.com", b"x");
    // A person holds mail 2; rules hold all mail of a sender, and twice that of a destination.
    give(&fixture, "hold", r#"{"ids":[2]}"#, None);
    give(&fixture, "hold", r#"{"from":"s@example.org"}"#, None);
    give(&fixture, "hold", r#"{"destination":"example.net"}"#, Some(&(NOW * 1000 + 1).to_string()));
    give(&fixture, "hold", r#"{"destination":"example.com"}"#, Some(&(NOW * 1000 + 1).to_string()));
    give(&fixture, "hold", r#"{"destination":"example.com"}"#, None);
    carry_out_all(&mut fixture);
    assert_eq!(
        fixture.number("SELECT count(*) FROM dispatch_orders WHERE done_ms IS NULL"),
        0,
        "also the ends given in advance"
    );
    assert_eq!(holds(&mut fixture), [(1, true), (2, true), (3, true)]);
    give(&fixture, "release", r#"{"from":"s@example.org"}"#, None);
    give(&fixture, "release", r#"{ "destination": "Example.COM" }"#, None);
    carry_out_all(&mut fixture);
    assert_eq!(holds(&mut fixture), [(1, false), (2, true), (3, false)]);
    give(&fixture, "release", r#"{"ids":[2]}"#, None);
    carry_out_all(&mut fixture);
    assert_eq!(holds(&mut fixture), [(1, false), (2, false), (3, false)]);
}

#[test]
fn a_hold_by_hand_with_the_number_of_an_order_is_not_taken_for_it() {
    let mut fixture = fixture();
    fixture.mail(Some("s@example.org"), "a@example.net", b"x");
    let rule = r#"{"destination":"example.com"}"#;
    fixture.execute("INSERT INTO dispatch_holds (hold_id, scope, since_ms) VALUES (1, ?1, 0)", [rule]);
    give(&fixture, "hold", ALL_MAIL, None);
    let result = carry_out_all(&mut fixture).unwrap();
    assert!(result.starts_with("order 1 of root: nothing was done: dispatch_holds has a row"), "{result}");
    give(&fixture, "hold", ALL_MAIL, None);
    assert_eq!(carry_out_all(&mut fixture).as_deref(), Some("order 2 of root: 1 mail is held"));
}

#[test]
fn the_hold_of_mail_in_doubt_ends_with_the_order_about_its_last_mail() {
    for verb in ["release", "fail", "drop"] {
        let mut fixture = fixture();
        let ids = [(); 2].map(|()| fixture.mail(Some("s@example.net"), "a@example.org", b"x"));
        for id in ids {
            holds::hold_uncertain(&fixture.database.connection, id).unwrap();
        }
        for (id, left) in ids.into_iter().zip([1, 0]) {
            give(&fixture, verb, &format!("{{\"ids\":[{id}]}}"), None);
            carry_out_all(&mut fixture);
            assert_eq!(fixture.number("SELECT count(*) FROM dispatch_holds"), left, "{verb}");
        }
    }
}

/// Returns the state of each mail by the rules of these terms.
fn states(fixture: &mut Fixture, terms: &RetryTerms) -> Vec<RetryState> {
    let reply = fixture.answer(StoreRequest::Scan { after: Cursor::BeforeFirst, limit: 100 });
    let StoreReply::Scanned(Scanned { rows, .. }) = reply else { panic!("{reply:?}") };
    rows.iter().map(|row| terms.rules().retry_state(row, terms.now)).collect()
}

#[test]
fn an_order_that_names_mail_releases_it_from_lines_and_nothing_else_does() {
    let mut fixture = fixture();
    for recipient in ["a@example.net", "b@example.net"] {
        fixture.mail(Some("s@example.org"), recipient, b"x");
    }
    let line =
        HoldLine { mail: MailPattern::parse("example.net").unwrap(), reason: "moved house".into(), line: 12 };
    let schedule = Schedule { hold_lines: [line].into(), ..Schedule::default() };
    let terms = RetryTerms::of(&schedule, UnixTime(NOW));
    give(&fixture, "release", r#"{"destination":"example.net"}"#, None);
    assert_eq!(
        carry_out_all_by(&mut fixture, &terms).as_deref(),
        Some("order 1 of root: 0 mails are released")
    );
    give(&fixture, "release", r#"{"ids":[1]}"#, None);
    assert_eq!(
        carry_out_all_by(&mut fixture, &terms).as_deref(),
        Some("order 2 of root: 1 mail is released")
    );
    assert_eq!(states(&mut fixture, &terms), [RetryState::Due, RetryState::Held(HeldBy::Line(12))]);
    give(&fixture, "retry", r#"{"all":true}"#, None);
    assert_eq!(
        carry_out_all_by(&mut fixture, &terms).as_deref(),
        Some("order 3 of root: 1 mail is tried now")
    );
    give(&fixture, "fail", r#"{"ids":[2]}"#, None);
    assert_eq!(
        carry_out_all_by(&mut fixture, &terms).as_deref(),
        Some("order 4 of root: 1 mail is given up")
    );
    assert_eq!(states(&mut fixture, &terms), [RetryState::Due, RetryState::GivenUp]);
}

#[test]
fn a_rule_that_ends_releases_only_what_nothing_else_holds() {
    let mut fixture = fixture();
    for recipient in ["a@example.net", "b@example.net", "c@example.net"] {
        fixture.mail(Some("s@example.org"), recipient, b"x");
    }
    give(&fixture, "hold", r#"{"destination":"example.net"}"#, None);
    carry_out_all(&mut fixture);
    give(&fixture, "hold", r#"{"from":"other@example.org"}"#, None);
    carry_out_all(&mut fixture);
    fixture.mail(Some("other@example.org"), "d@example.net", b"x");
    give(&fixture, "release", r#"{"ids":[1]}"#, None);
    carry_out_all(&mut fixture);
    give(&fixture, "release", r#"{"destination":"example.net"}"#, None);
    let result = carry_out_all(&mut fixture);
    assert_eq!(result.as_deref(), Some("order 4 of root: 2 mails are released"));
    assert_eq!(holds(&mut fixture), [(1, false), (2, false), (3, false), (4, true)]);
    give(&fixture, "release", r#"{"destination":"example.net"}"#, None);
    let result = carry_out_all(&mut fixture);
    assert_eq!(result.as_deref(), Some("order 5 of root: 0 mails are released"), "there is no such rule");
}

#[test]
fn a_release_is_noted_also_in_a_table_of_an_earlier_version() {
    for earlier in [
        "",
        "DROP TABLE dispatch_state; CREATE TABLE dispatch_state (mail_id INTEGER PRIMARY KEY, hold_id INTEGER)",
        // Somebody has made something else of it: that costs the note, and no more.
        "DROP TABLE dispatch_state; CREATE TABLE dispatch_state (mail_id INTEGER PRIMARY KEY, hold_id INTEGER, \
         more TEXT NOT NULL DEFAULT 'x', released_ms TEXT CHECK (released_ms IS NULL))",
    ] {
        let mut fixture = fixture();
        fixture.mail(Some("s@example.org"), "a@example.net", b"x");
        fixture.other.execute_batch(earlier).unwrap();
        give(&fixture, "hold", r#"{"ids":[1]}"#, None);
        carry_out_all(&mut fixture);
        assert_eq!(holds(&mut fixture), [(1, true)], "{earlier}");
        give(&fixture, "release", r#"{"ids":[1]}"#, None);
        let result = carry_out_all(&mut fixture);
        assert_eq!(result.as_deref(), Some("order 2 of root: 1 mail is released"), "{earlier}");
        let reply = fixture.answer(StoreRequest::Scan { after: Cursor::BeforeFirst, limit: 1 });
        let StoreReply::Scanned(Scanned { rows, .. }) = reply else { panic!("{reply:?}") };
        let released = (!earlier.contains("CHECK")).then_some(UnixTime(NOW));
        assert_eq!((rows[0].hold.is_held(), rows[0].hold.released), (false, released), "{earlier}");
    }
}
