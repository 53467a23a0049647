use cmail_delivery::outbox::{Claimed, Cursor, Scanned, StoreReply, StoreRequest};

use super::*;
use crate::store::NewMail;
use crate::store::fixture::Fixture;

type Columns = [Option<&'static str>; 4];

fn wish(fixture: &Fixture, id: MailId, [notify, orcpt, ret, envid]: Columns) {
    fixture.execute(
        "INSERT INTO dispatch_envelope (mail_id, notify, orcpt, ret, envid) VALUES (?1, ?2, ?3, ?4, ?5)",
        (id.0, notify, orcpt, ret, envid),
    );
}

fn fixture() -> Fixture {
    let fixture = Fixture::new();
    fixture.other.execute_batch(CREATE).unwrap();
    fixture
}

fn claim(fixture: &mut Fixture, ids: &[MailId]) -> Vec<Vec<Row>> {
    let reply = fixture.answer(StoreRequest::Claim {
        signing: None,
        ids: ids.to_vec(),
        transactions: 10,
        recipients: 10,
    });
    let StoreReply::Claimed(Claimed { transactions, .. }) = reply else { panic!("{reply:?}") };
    transactions.into_iter().map(|transaction| transaction.rows).collect()
}

fn scan(fixture: &mut Fixture) -> Vec<Row> {
    let reply = fixture.answer(StoreRequest::Scan { after: Cursor::BeforeFirst, limit: 10 });
    let StoreReply::Scanned(Scanned { rows, .. }) = reply else { panic!("{reply:?}") };
    rows
}

#[test]
fn wishes_are_read_with_their_mail() {
    let mut fixture = fixture();
    let ids =
        ["a@x.example", "b@x.example", "c@x.example"].map(|to| fixture.mail(Some("s@y.example"), to, b"x"));
    wish(
        &fixture,
        ids[1],
        [Some("success,delay"), Some("rfc822;b+c@x.example"), Some("hdrs"), Some("my id")],
    );
    let expected = DsnWishes {
        notify: Notify::parse("success,delay").ok(),
        original_recipient: OriginalRecipient::parse("rfc822;b+c@x.example").ok(),
        message: MessageWishes {
            sign: Default::default(),
            extent: Some(ReturnExtent::Headers),
            envelope_id: EnvelopeId::parse("my id").ok(),
        },
    };
    let nothing = DsnWishes::default();
    let scanned: Vec<DsnWishes> = scan(&mut fixture).into_iter().map(|row| row.wishes).collect();
    assert_eq!(scanned, [nothing.clone(), expected.clone(), nothing.clone()]);
    let claimed: Vec<Vec<DsnWishes>> = claim(&mut fixture, &ids)
        .into_iter()
        .map(|rows| rows.into_iter().map(|row| row.wishes).collect())
        .collect();
    // Mail whose senders want other things of the message goes apart.
    assert_eq!(claimed, [vec![nothing.clone(), nothing], vec![expected]]);
}

#[test]
fn a_value_that_cannot_be_read_counts_as_absent_and_the_others_hold() {
    let mut fixture = fixture();
    let id = fixture.mail(Some("s@y.example"), "a@x.example", b"x");
    wish(&fixture, id, [Some("sometimes"), Some("no type"), Some(""), Some("id")]);
    let (wishes, unreadable) = wishes(&fixture.other, id).unwrap();
    assert_eq!(wishes.message.envelope_id, EnvelopeId::parse("id").ok());
    assert_eq!((wishes.notify, &wishes.original_recipient, wishes.message.extent), (None, &None, None));
    assert_eq!(unreadable, [("notify", DsnError::Notify), ("orcpt", DsnError::NoType)]);
    assert_eq!(claim(&mut fixture, &[id])[0][0].wishes, wishes);
    // Values of any type and length.
    fixture
        .execute("UPDATE dispatch_envelope SET notify = x'ff', orcpt = 7, envid = zeroblob(100000000)", ());
    let (nothing, unreadable) = super::wishes(&fixture.other, id).unwrap();
    assert_eq!((nothing, unreadable.len()), (DsnWishes::default(), 3));
}

#[test]
fn wishes_go_with_their_mail_and_are_not_needed() {
    let mut fixture = fixture();
    let id = fixture.mail(Some("s@y.example"), "a@x.example", b"x");
    wish(&fixture, id, [Some("never"), None, None, None]);
    fixture.execute("DELETE FROM outbox", ());
    assert_eq!(fixture.number("SELECT count(*) FROM dispatch_envelope"), 0);
    // A table that was dropped, or changed, costs what stood there.
    for sql in ["DROP TABLE dispatch_envelope", "CREATE TABLE dispatch_envelope (x)"] {
        fixture.execute(sql, ());
        let id = fixture.mail(Some("s@y.example"), "a@x.example", b"x");
        assert_eq!(claim(&mut fixture, &[id])[0][0].wishes, DsnWishes::default());
        assert!(scan(&mut fixture).iter().all(|row| row.wishes == DsnWishes::default()));
    }
}

/// Puts a mail into the outbox, as the daemon does for a client. Returns its id and mark.
fn submitted(fixture: &mut Fixture, wishes: &DsnWishes) -> (MailId, SignMark) {
    let recipients = ["a@x.example".to_owned()];
    let mail = NewMail { sender: None, recipients: &recipients, submitter: "", wishes, data: b"x" };
    let id = fixture.database.take_in(&mail).unwrap()[0];
    let (found, _) = super::wishes(&fixture.other, id).unwrap();
    assert_eq!((found.notify, &found.message.extent), (wishes.notify, &wishes.message.extent));
    (id, found.message.sign)
}

fn marked(notify: Option<&str>) -> DsnWishes {
    let mut wishes =
        DsnWishes { notify: notify.and_then(|text| Notify::parse(text).ok()), ..DsnWishes::default() };
    wishes.message.sign = SignMark::Wanted;
    wishes
}

#[test]
fn mail_is_marked_in_each_table_that_can_be_marked_in_and_else_taken_without() {
    for (table, can_be_marked) in [
        ("", true),
        (CREATE, true),
        ("CREATE TABLE dispatch_envelope (mail_id, notify, orcpt, ret, envid)", true),
        ("CREATE TABLE dispatch_envelope (mail_id, notify, orcpt, ret, envid, sign)", true),
        ("CREATE VIEW dispatch_envelope AS SELECT 1 AS mail_id, NULL AS sign", false),
        ("CREATE TABLE dispatch_envelope (mail_id, x NOT NULL)", false),
        ("CREATE TABLE dispatch_envelope (mail_id, notify, orcpt, ret, envid, sign CHECK (sign = 9))", false),
    ] {
        let mut fixture = Fixture::new();
        fixture.other.execute_batch(table).unwrap();
        let (_, mark) = submitted(&mut fixture, &marked(None));
        assert_eq!(mark == SignMark::Wanted, can_be_marked, "{table}");
        if can_be_marked {
            let (_, mark) = submitted(&mut fixture, &marked(Some("never")));
            assert_eq!(mark, SignMark::Wanted, "{table}");
        }
    }
}

#[test]
fn a_new_mail_does_not_inherit_what_was_wanted_of_one_that_is_gone() {
    let mut fixture = Fixture::new();
    fixture
        .other
        .execute_batch("CREATE TABLE dispatch_envelope (mail_id, notify, orcpt, ret, envid, sign)")
        .unwrap();
    fixture.other.execute_batch("INSERT INTO dispatch_envelope VALUES (1, 'never', NULL, 'hdrs', NULL, 1), (2, 'never', NULL, NULL, NULL, 2)").unwrap();
    assert_eq!(submitted(&mut fixture, &marked(None)), (MailId(1), SignMark::Wanted));
    let unmarked = DsnWishes { notify: Notify::parse("delay").ok(), ..DsnWishes::default() };
    assert_eq!(submitted(&mut fixture, &unmarked), (MailId(2), SignMark::Unmarked));
    assert_eq!(fixture.number("SELECT count(*) FROM dispatch_envelope"), 2);
}
