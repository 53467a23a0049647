use super::super::fixture::Fixture;
use super::*;

fn prune(fixture: &mut Fixture, pruner: &mut Pruner, oldest_ms: i64) {
    let transaction = fixture.database.connection.transaction().unwrap();
    pruner.prune(&transaction, UnixMillis(oldest_ms)).unwrap();
    transaction.commit().unwrap();
}

fn fixture() -> Fixture {
    let mut fixture = Fixture::new();
    fixture.database.prepare_orders();
    fixture
}

#[test]
fn orders_that_are_done_for_long_are_deleted_except_those_of_holds() {
    let mut fixture = fixture();
    for (number, done_ms) in [(1, Some(10)), (2, Some(99)), (3, Some(100)), (4, None), (5, Some(5))] {
        fixture.execute(
            "INSERT INTO dispatch_orders (order_id, at_ms, who, verb, scope, done_ms) VALUES (?1, 0, 'root', 'hold', '{}', ?2)",
            params![number, done_ms],
        );
    }
    fixture.execute("INSERT INTO dispatch_holds (hold_id, scope, since_ms) VALUES (5, '{}', 0)", []);
    prune(&mut fixture, &mut Pruner::default(), 100);
    let left = "SELECT group_concat(order_id) FROM (SELECT order_id FROM dispatch_orders ORDER BY 1)";
    let left: String = fixture.other.query_row(left, [], |row| row.get(0)).unwrap();
    assert_eq!(left, "3,4,5");
}

#[test]
fn what_is_known_of_mail_that_is_gone_is_forgotten_little_by_little() {
    let mut fixture = fixture();
    let mails: Vec<i64> =
        (0..3).map(|_| fixture.mail(Some("s@example.org"), "r@example.org", b"x").0).collect();
    fixture.execute(
        "INSERT INTO dispatch_state (mail_id, hold_id) \
         WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2500) SELECT i, 7 FROM n",
        [],
    );
    let extremes = [i64::MIN, i64::MAX];
    for id in extremes {
        fixture.execute("INSERT INTO dispatch_state (mail_id, hold_id) VALUES (?1, 7)", [id]);
    }
    let mut pruner = Pruner::default();
    prune(&mut fixture, &mut pruner, 0);
    assert_eq!(fixture.number("SELECT count(*) FROM dispatch_state"), 2502 - 1000 + 3);
    for _ in 0..4 {
        prune(&mut fixture, &mut pruner, 0);
    }
    assert_eq!(fixture.number("SELECT count(*) FROM dispatch_state"), 3);
    // What is gone later is found by the next round.
    fixture.execute("DELETE FROM outbox WHERE mail_id = ?1", [mails[0]]);
    prune(&mut fixture, &mut pruner, 0);
    prune(&mut fixture, &mut pruner, 0);
    assert_eq!(fixture.number("SELECT min(mail_id) FROM dispatch_state"), mails[1]);
}

#[test]
fn what_was_wanted_of_mail_that_is_gone_is_forgotten() {
    let mut fixture = fixture();
    let mail = fixture.mail(Some("s@example.org"), "r@example.org", b"x").0;
    fixture.other.pragma_update(None, "foreign_keys", false).unwrap();
    fixture.execute("INSERT INTO dispatch_envelope (mail_id, sign) VALUES (?1, 1), (?1 + 1, 1)", [mail]);
    prune(&mut fixture, &mut Pruner::default(), 0);
    assert_eq!(fixture.number("SELECT sum(mail_id) FROM dispatch_envelope"), mail);
    // Without the table there is nothing to do.
    fixture.execute("DROP TABLE dispatch_envelope", []);
    prune(&mut fixture, &mut Pruner::default(), 0);
}
