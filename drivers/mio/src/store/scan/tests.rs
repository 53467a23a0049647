use cmail_delivery::outbox::{Scanned, StoreReply, StoreRequest};

use super::super::fixture::{Fixture, overwrite, pages_with};
use super::*;

/// Mails of about a tenth of a page each.
const MAILS: i64 = 200;

fn fixture() -> Fixture {
    let fixture = Fixture::with_journal_mode("DELETE");
    fixture.other.execute_batch("BEGIN").unwrap();
    for number in 1..=MAILS {
        fixture.mail(Some("s@example.org"), &format!("r{number}@example.org"), &[b'x'; 350]);
    }
    fixture.other.execute_batch("COMMIT").unwrap();
    fixture
}

/// The pages of a table or index, by their kind.
fn pages_of(fixture: &Fixture, name: &str, kind: &str) -> Vec<usize> {
    let mut statement = fixture
        .other
        .prepare("SELECT pageno - 1 FROM dbstat WHERE name = ?1 AND pagetype = ?2 ORDER BY path")
        .unwrap();
    let pages = statement.query_map([name, kind], |row| row.get::<_, i64>(0)).unwrap();
    pages.map(|page| usize::try_from(page.unwrap()).unwrap()).collect()
}

/// All ids that scans bring, what cannot be read, and how many requests that took.
fn scan_all(fixture: &mut Fixture, limit: u32) -> (Vec<i64>, Vec<Refused>, usize) {
    let (mut ids, mut refused, mut requests, mut after) = (Vec::new(), Vec::new(), 0, Cursor::BeforeFirst);
    loop {
        let request = StoreRequest::Scan { after, limit };
        let StoreReply::Scanned(Scanned { rows, unreadable, next, .. }) = fixture.answer(request) else {
            panic!("that is no answer to a scan")
        };
        requests += 1;
        ids.extend(rows.iter().map(|row| row.id.0));
        refused.extend(unreadable);
        // What ends a request begins the next.
        refused.dedup_by_key(|refused: &mut Refused| refused.id);
        let Some(next) = next else { return (ids, refused, requests) };
        assert!(next > after, "it goes on");
        after = next;
    }
}

/// The ids of the mails of which a page has the recipients.
fn ids_on(fixture: &Fixture, page: usize) -> Vec<i64> {
    let is_on = |id: &i64| pages_with(fixture, &format!("r{id}@example.org")).contains(&page);
    (1..=MAILS).filter(is_on).collect()
}

#[test]
fn a_damaged_page_costs_only_its_own_mail() {
    for which in ["first", "middle", "two", "last"] {
        let mut fixture = fixture();
        let leaves = pages_of(&fixture, "outbox", "leaf");
        let damaged = match which {
            "first" => vec![leaves[0]],
            "middle" => vec![leaves[5]],
            "two" => vec![leaves[3], leaves[7]],
            _ => vec![*leaves.last().unwrap()],
        };
        let lost: Vec<Vec<i64>> = damaged.iter().map(|page| ids_on(&fixture, *page)).collect();
        assert!(lost.iter().all(|lost| lost.len() > 3), "{lost:?}");
        overwrite(&fixture, &damaged);
        for limit in [1, 7, 4096] {
            let (ids, refused, requests) = scan_all(&mut fixture, limit);
            let expected: Vec<i64> =
                (1..=MAILS).filter(|id| !lost.iter().flatten().any(|lost| lost == id)).collect();
            assert_eq!(ids, expected, "{which} {limit}");
            let firsts: Vec<i64> = refused.iter().map(|refused| refused.id.0).collect();
            assert_eq!(firsts, lost.iter().map(|lost| lost[0]).collect::<Vec<_>>(), "{which} {limit}");
            for (refused, lost) in refused.iter().zip(&lost) {
                let named = format!(
                    "{} mails with ids from {} to {} cannot be read",
                    lost.len(),
                    lost[0],
                    lost[lost.len() - 1]
                );
                assert!(refused.text.contains(&named), "{}", refused.text);
                assert!(refused.text.contains("PRAGMA integrity_check"), "{}", refused.text);
            }
            assert!(requests <= expected.len() / limit as usize + 2, "{which} {limit} {requests}");
        }
    }
}

#[test]
fn a_damaged_page_costs_only_its_own_mail_also_where_the_index_of_ids_is_damaged() {
    for which in [0, 4, 8] {
        let mut fixture = fixture();
        let leaves = pages_of(&fixture, "outbox", "leaf");
        let lost = ids_on(&fixture, leaves[which]);
        let mut damaged = pages_of(&fixture, "sqlite_autoindex_outbox_1", "leaf");
        damaged.push(leaves[which]);
        overwrite(&fixture, &damaged);
        let (ids, refused, _) = scan_all(&mut fixture, 4096);
        assert_eq!(ids, (1..=MAILS).filter(|id| !lost.contains(id)).collect::<Vec<_>>(), "{which}");
        assert_eq!(refused.len(), 1);
        let end = format!("below {} cannot be read", lost[lost.len() - 1] + 1);
        assert!(refused[0].text.contains(&end), "{}", refused[0].text);
    }
}

#[test]
fn a_table_of_which_nothing_can_be_read_ends_the_scan() {
    let mut fixture = fixture();
    let mut damaged = pages_of(&fixture, "outbox", "leaf");
    damaged.extend(pages_of(&fixture, "sqlite_autoindex_outbox_1", "leaf"));
    overwrite(&fixture, &damaged);
    let (ids, refused, requests) = scan_all(&mut fixture, 4096);
    assert_eq!((ids.len(), refused.len(), requests), (0, 1, 1));
}

#[test]
fn a_long_value_on_a_damaged_page_costs_only_its_own_row() {
    let mut fixture = fixture();
    let long =
        "UPDATE outbox SET mail_remote = printf('%.*c', 9000, 'y'), mail_data = NULL WHERE mail_id = 100";
    fixture.other.execute_batch(long).unwrap();
    let overflow = pages_of(&fixture, "outbox", "overflow");
    assert!(!overflow.is_empty());
    overwrite(&fixture, &overflow[..1]);
    let (ids, refused, _) = scan_all(&mut fixture, 4096);
    assert_eq!(ids, (1..=MAILS).filter(|id| *id != 100).collect::<Vec<_>>());
    assert_eq!(refused.len(), 1);
    assert!(refused[0].text.contains("mail 100 cannot be read"), "{}", refused[0].text);
}

#[test]
fn mail_whose_failures_cannot_be_read_is_told_and_stops_no_other() {
    for damaged in ["faillog", "dispatch_faillog_mail"] {
        let mut fixture = fixture();
        fixture.other.execute_batch("BEGIN").unwrap();
        for id in (1..=MAILS).flat_map(|id| [id; 10]) {
            fixture.execute("INSERT INTO faillog (fail_mail, fail_message) VALUES (?1, 'no')", [id]);
        }
        fixture.other.execute_batch("COMMIT").unwrap();
        let leaves = pages_of(&fixture, damaged, "leaf");
        overwrite(&fixture, &leaves[1..2]);
        let (ids, refused, _) = scan_all(&mut fixture, 4096);
        let lost: Vec<i64> = (1..=MAILS).filter(|id| !ids.contains(id)).collect();
        assert!((2..MAILS / 2).contains(&(lost.len() as i64)), "{damaged} {lost:?}");
        assert_eq!(refused.len(), 1, "{damaged}");
        let (first, last) = (lost[0], lost[lost.len() - 1]);
        assert_eq!(last - first + 1, lost.len() as i64);
        let named = format!("{} mails with ids from {first} to {last} cannot be read", lost.len());
        assert!(
            refused[0].text.contains(&named) && refused[0].text.contains("REINDEX"),
            "{}",
            refused[0].text
        );
    }
}
