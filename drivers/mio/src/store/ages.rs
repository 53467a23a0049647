//! How old the mail in the outbox is, found without reading all of it.
//!
//! Ids ascend, and so do times of submission, except where another program says otherwise. So the oldest mail is among those with
//! the lowest ids, and the first mail younger than an age is found by halving: a few dozen rows are read, however many there are.

use std::time::{Duration, SystemTime};

use cmail_delivery::outbox::MailId;
use cmail_delivery::time::UnixTime;
use rusqlite::{Connection, OptionalExtension as _};

use super::database::Database;
use super::rows::number;
use crate::event_loop::Ages;
use crate::overview::AGE_CLASSES;

/// Selects the id and the submission of the first row that is not before an id.
const SELECT_FIRST: &str = concat!(
    "SELECT mail_id, coalesce(CAST(CAST(",
    number!("mail_submission"),
    " AS NUMERIC) AS INTEGER), 0) FROM outbox WHERE mail_id >= ?1 ORDER BY mail_id LIMIT 1"
);

/// Rows among which the oldest mail is looked for: another program may have given some a time that cannot be.
const OLDEST_ROWS: i64 = 100;

/// Selects the earliest time of submission that can be, among so many rows with the lowest ids.
const SELECT_OLDEST: &str = concat!(
    "SELECT min(submission) FROM (SELECT CAST(CAST(",
    number!("mail_submission"),
    " AS NUMERIC) AS INTEGER) AS submission FROM outbox ORDER BY mail_id LIMIT ?1) WHERE submission BETWEEN 1 AND ?2"
);

impl Database {
    /// Returns how old the mail is; nothing if the database cannot be read now.
    pub(super) fn ages(&mut self) -> Option<Ages> {
        self.ensure_open().ok()?;
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let found = read(&self.connection, now);
        found.inspect_err(|error| log::debug!("the ages of mail cannot be read: {error}")).ok()
    }
}

fn read(connection: &Connection, now: Duration) -> rusqlite::Result<Ages> {
    let Some((first, _)) = first_from(connection, i64::MIN)? else {
        return Ok(Ages { oldest: None, younger: vec![MailId(i64::MAX); AGE_CLASSES.len()] });
    };
    let now_s = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
    let oldest: Option<i64> =
        connection.prepare_cached(SELECT_OLDEST)?.query_row((OLDEST_ROWS, now_s), |row| row.get(0))?;
    let last: i64 =
        connection.prepare_cached("SELECT max(mail_id) FROM outbox")?.query_row([], |row| row.get(0))?;
    let mut younger = Vec::new();
    for (age, _) in AGE_CLASSES {
        let limit = i64::try_from(now.saturating_sub(age).as_secs()).unwrap_or(i64::MAX);
        younger.push(MailId(first_younger(connection, (first, last), limit)?));
    }
    Ok(Ages { oldest: oldest.map(UnixTime), younger })
}

/// Returns the first id whose mail was submitted after a time, or one beyond the last.
fn first_younger(connection: &Connection, (first, last): (i64, i64), time: i64) -> rusqlite::Result<i64> {
    let (mut low, mut high) = (i128::from(first), i128::from(last) + 1);
    while low < high {
        let middle = low + (high - low) / 2;
        match first_from(connection, clamped(middle))? {
            Some((id, submission)) if submission <= time => low = i128::from(id) + 1,
            Some(_) | None => high = middle,
        }
    }
    Ok(clamped(low))
}

fn first_from(connection: &Connection, id: i64) -> rusqlite::Result<Option<(i64, i64)>> {
    let mut statement = connection.prepare_cached(SELECT_FIRST)?;
    statement.query_row([id], |row| Ok((row.get(0)?, row.get(1)?))).optional()
}

fn clamped(id: i128) -> i64 {
    i64::try_from(id).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW_S: u64 = 2_000_000_000;

    fn outbox(mails: &[(i64, Option<u64>)]) -> Connection {
        let connection = Connection::open_in_memory().unwrap();
        connection
            .execute_batch("CREATE TABLE outbox (mail_id INTEGER PRIMARY KEY, mail_submission INTEGER)")
            .unwrap();
        for (id, age_s) in mails {
            let submission = age_s.map(|age_s| i64::try_from(NOW_S - age_s).unwrap());
            connection.execute("INSERT INTO outbox VALUES (?1, ?2)", (id, submission)).unwrap();
        }
        connection
    }

    fn ages(mails: &[(i64, Option<u64>)]) -> (Option<i64>, Vec<i64>) {
        let found = read(&outbox(mails), Duration::from_secs(NOW_S)).unwrap();
        (found.oldest.map(|oldest| oldest.0), found.younger.iter().map(|id| id.0).collect())
    }

    #[test]
    fn the_first_younger_mail_is_found_whatever_the_gaps_between_ids() {
        let day = 86_400;
        let mails = [
            (3, 6 * day),
            (4, 2 * day),
            (1000, 7200),
            (1_000_000, 1800),
            (1_000_001, 600),
            (i64::MAX - 1, 0),
        ];
        let mails = mails.map(|(id, age_s)| (id, Some(age_s)));
        let (oldest, younger) = ages(&mails);
        assert_eq!(oldest, Some(i64::try_from(NOW_S - 6 * day).unwrap()));
        let firsts = [i64::MAX - 1, 1_000_001, 1_000_000, 1000, 1000, 4];
        for (class, first) in firsts.into_iter().enumerate() {
            // Halving may stop anywhere in the gap before that mail.
            let before = mails.iter().map(|(id, _)| *id).filter(|id| *id < first).max().unwrap();
            assert!(younger[class] > before && younger[class] <= first, "{class}: {younger:?}");
        }
    }

    #[test]
    fn times_that_cannot_be_do_not_hide_the_oldest_mail() {
        let connection = outbox(&[(10, Some(100)), (11, Some(500)), (12, Some(200))]);
        let future = i64::try_from(NOW_S + 1000).unwrap();
        connection
            .execute("INSERT INTO outbox VALUES (1, 0), (2, 'soon'), (3, ?1), (4, -5)", [future])
            .unwrap();
        let oldest = read(&connection, Duration::from_secs(NOW_S)).unwrap().oldest;
        assert_eq!(oldest.map(|oldest| oldest.0), Some(i64::try_from(NOW_S - 500).unwrap()));
    }

    #[test]
    fn an_empty_outbox_and_mail_that_says_nothing_of_its_age_have_no_oldest() {
        assert_eq!(ages(&[]), (None, vec![i64::MAX; AGE_CLASSES.len()]));
        assert_eq!(ages(&[(7, None)]).0, None);
        assert_eq!(ages(&[(i64::MIN, Some(0)), (i64::MAX, Some(0))]).1, vec![i64::MIN; AGE_CLASSES.len()]);
    }
}
