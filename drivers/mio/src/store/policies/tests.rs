use cmail_delivery::outbox::{Commit, Committed, MailId, StoreReply, StoreRequest};
use proptest::prelude::*;

use super::*;
use crate::store::fixture::{Fixture, delivered};

const DAY: i64 = 24 * 60 * 60;
const NOW: i64 = 1_700_000_000;
const TEXT: &str = "version: STSv1\r\nmode: enforce\r\nmx: mx.example.org\r\nmax_age: 604800\r\n";

fn named(text: &str) -> Domain {
    Domain::parse(text).unwrap()
}

fn policy(domain: &str, fetched: i64) -> StoredPolicy {
    StoredPolicy {
        domain: named(domain),
        id: PolicyId::parse("20230101").unwrap(),
        text: TEXT.into(),
        fetched: UnixTime(fetched),
        expires: UnixTime(fetched + 7 * DAY),
        used: UnixTime(fetched),
    }
}

fn fetched(policies: &[StoredPolicy]) -> Commit {
    Commit { policies: policies.iter().cloned().map(PolicyNote::Fetched).collect(), ..Commit::default() }
}

impl Fixture {
    fn commit(&mut self, commit: Commit) -> Committed {
        let reply = self.answer(StoreRequest::Commit(commit));
        let StoreReply::Committed(committed) = reply else { panic!("{reply:?}") };
        committed
    }

    /// Queues a mail that is then being sent.
    fn claimed(&mut self) -> MailId {
        let id = self.mail(Some("s@example.net"), "a@example.org", b"x");
        self.answer(StoreRequest::Claim { ids: vec![id], transactions: 1, recipients: 1, signing: None });
        id
    }

    fn has_mail(&self, id: MailId) -> bool {
        self.number(&format!("SELECT count(*) FROM outbox WHERE mail_id = {}", id.0)) > 0
    }

    fn policy(&mut self, domain: &str) -> Option<StoredPolicy> {
        let reply = self.answer(StoreRequest::ReadPolicy(named(domain)));
        let StoreReply::Policy(found) = reply else { panic!("{reply:?}") };
        found
    }

    fn stale(&mut self, now: i64) -> Vec<String> {
        let reply = self.answer(StoreRequest::ReadStalePolicies { now: UnixTime(now), limit: 10 });
        let StoreReply::StalePolicies(found) = reply else { panic!("{reply:?}") };
        found.into_iter().map(|stale| stale.domain.to_string()).collect()
    }

    fn has_table(&self) -> bool {
        let found = "SELECT 1 FROM sqlite_schema WHERE name = 'dispatch_sts'";
        self.database.connection.prepare(found).unwrap().exists([]).unwrap()
    }
}

#[test]
fn a_policy_is_kept_as_it_was_fetched_and_the_next_one_takes_its_place() {
    let mut fixture = Fixture::new();
    assert_eq!(fixture.policy("example.org"), None);
    assert_eq!(fixture.stale(NOW), [""; 0]);
    assert!(!fixture.has_table(), "nothing is created by asking");
    let first = policy("example.org", NOW);
    assert!(!fixture.commit(fetched(&[first.clone(), policy("other.example", NOW)])).lacks_policies);
    assert_eq!(fixture.policy("example.org"), Some(first));
    let second = StoredPolicy { id: PolicyId::parse("2").unwrap(), ..policy("example.org", NOW + DAY) };
    fixture.commit(fetched(std::slice::from_ref(&second)));
    assert_eq!(fixture.policy("example.org"), Some(second));
    assert_eq!(fixture.policy("below.example.org"), None);
}

#[test]
fn policies_ride_on_verdicts_and_cost_them_nothing() {
    let mut fixture = Fixture::new();
    let id = fixture.claimed();
    let commit = Commit { delivered: delivered(&[id]), ..fetched(&[policy("example.org", NOW)]) };
    fixture.commit(commit);
    assert!(fixture.policy("example.org").is_some());
    // Another program has made a table of this name.
    fixture.execute("DROP TABLE dispatch_sts", []);
    fixture.execute(
        "CREATE TABLE dispatch_sts (sts_domain TEXT PRIMARY KEY, other TEXT NOT NULL) WITHOUT ROWID",
        [],
    );
    let id = fixture.claimed();
    let commit = Commit { delivered: delivered(&[id]), ..fetched(&[policy("example.org", NOW)]) };
    let committed = fixture.commit(commit);
    assert!(committed.lacks_policies && committed.refused.is_empty());
    assert!(!fixture.has_mail(id));
    assert_eq!(fixture.policy("example.org"), None);
}

#[test]
fn a_trigger_that_refuses_policies_costs_no_verdict() {
    for action in ["ABORT", "FAIL", "ROLLBACK"] {
        let mut fixture = Fixture::new();
        fixture.commit(fetched(&[policy("example.org", NOW)]));
        let trigger = format!(
            "CREATE TRIGGER no BEFORE INSERT ON dispatch_sts BEGIN SELECT RAISE({action}, 'no'); END"
        );
        fixture.execute(&trigger, []);
        let id = fixture.claimed();
        let commit = Commit { delivered: delivered(&[id]), ..fetched(&[policy("b.example", NOW)]) };
        let committed = fixture.commit(commit);
        assert!(committed.lacks_policies && committed.refused.is_empty(), "{action}");
        assert!(!fixture.has_mail(id), "{action}");
        assert!(fixture.commit(fetched(&[policy("b.example", NOW)])).lacks_policies, "{action}");
    }
}

#[test]
fn policies_alone_wait_for_no_lock() {
    let mut fixture = Fixture::new();
    fixture.commit(fetched(&[policy("example.org", NOW)]));
    // One that waited would do so for ever.
    fixture.database = crate::store::fixture::open(&fixture.path, std::time::Duration::MAX).unwrap();
    fixture.other.execute_batch("BEGIN IMMEDIATE").unwrap();
    assert!(fixture.commit(fetched(&[policy("b.example", NOW)])).lacks_policies);
    fixture.other.execute_batch("ROLLBACK").unwrap();
    assert!(!fixture.commit(fetched(&[policy("b.example", NOW)])).lacks_policies);
}

#[test]
fn rows_that_cannot_be_read_count_as_absent() {
    let long = "x".repeat(POLICY_LIMIT_OCTETS + 1);
    for (column, value) in [
        ("sts_id", "'not an id'"),
        ("sts_id", "x''"),
        ("sts_policy", &format!("'{long}'")),
        ("sts_fetched", "'soon'"),
        ("sts_expires", "1.5"),
        ("sts_used", "x'00'"),
    ] {
        let mut fixture = Fixture::new();
        fixture.commit(fetched(&[policy("example.org", NOW)]));
        fixture.execute(&format!("UPDATE dispatch_sts SET {column} = {value}"), []);
        assert_eq!(fixture.policy("example.org"), None, "{column} {value:.20}");
        fixture.stale(NOW + DAY);
        fixture.commit(fetched(&[policy("example.org", NOW)]));
        assert!(fixture.policy("example.org").is_some(), "it is replaced");
    }
}

#[test]
fn use_is_noted_and_never_set_back() {
    let mut fixture = Fixture::new();
    let used = |at| {
        let note = PolicyNote::Used(named("example.org"), UnixTime(at));
        Commit { policies: vec![note], ..Commit::default() }
    };
    // Without a table, and without a row.
    assert!(!fixture.commit(used(NOW)).lacks_policies);
    fixture.commit(fetched(&[policy("other.example", NOW)]));
    assert!(!fixture.commit(used(NOW)).lacks_policies);
    fixture.commit(fetched(&[policy("example.org", NOW)]));
    fixture.commit(used(NOW + DAY));
    fixture.commit(used(NOW));
    assert_eq!(fixture.policy("example.org").unwrap().used, UnixTime(NOW + DAY));
}

#[test]
fn what_has_expired_long_ago_is_deleted() {
    let mut fixture = Fixture::new();
    fixture.commit(fetched(&[policy("old.example", NOW)]));
    fixture.commit(fetched(&[policy("new.example", NOW + 37 * DAY)]));
    assert!(fixture.policy("old.example").is_some());
    fixture.commit(fetched(&[policy("new.example", NOW + 37 * DAY + 1)]));
    assert_eq!(fixture.policy("old.example"), None);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn the_database_and_the_core_agree_which_policies_are_stale(
        rows in prop::collection::vec((-2..60 * DAY, 0..40 * DAY, -2..100 * DAY), 1..8)
    ) {
        let mut fixture = Fixture::new();
        let policies: Vec<StoredPolicy> = rows.into_iter().enumerate().map(|(number, (age, max_age, unused))| {
            let fetched = UnixTime(NOW - age);
            let (expires, used) = (UnixTime(fetched.0 + max_age), UnixTime(NOW - unused));
            StoredPolicy { expires, used, ..policy(&format!("d{number}.example"), fetched.0) }
        }).collect();
        fixture.commit(fetched(&policies));
        let mut expected: Vec<&StoredPolicy> = policies.iter().filter(|stored| stored.is_stale(UnixTime(NOW))).collect();
        expected.sort_by_key(|stored| (stored.fetched, stored.domain.clone()));
        let expected: Vec<String> = expected.iter().map(|stored| stored.domain.to_string()).collect();
        prop_assert_eq!(fixture.stale(NOW), expected);
    }
}
