//! Which messages connections send next: the table `dispatch_flights`. After a kill it names the mail that may have arrived already.
//!
//! The table is created when it is needed. No outcome hangs on it: if it cannot be written, mail is sent without, and the daemon says
//! so once.

use std::net::{IpAddr, SocketAddr};

use cmail_delivery::flight::{Cargo, FlightId, FlightMark, FoundFlight, Uncertain};
use cmail_delivery::outbox::MailId;
use cmail_delivery::time::UnixMillis;
use jiff::Timestamp;
use rusqlite::{Connection, Transaction, params};

use super::commit::exists;
use super::error::{advice, trouble};
use super::ledger::{Ledger, now};
use super::own_table::{if_present, is_absent, or_created};
use super::run::{connection_key, key};
use super::verdicts::within_savepoint;
use super::{holds, stuck};

/// The table. `mails` is a JSON list of ids in the order in which they are sent.
const CREATE: &str = "CREATE TABLE IF NOT EXISTS dispatch_flights (
    flight_id INTEGER PRIMARY KEY,
    run INTEGER NOT NULL,
    since_ms INTEGER NOT NULL,
    connection_id INTEGER NOT NULL,
    next_hop TEXT NOT NULL,
    address TEXT NOT NULL,
    port INTEGER NOT NULL,
    mails TEXT NOT NULL)";

const PUT: &str = "INSERT INTO dispatch_flights (flight_id, run, since_ms, connection_id, next_hop, address, port, mails) \
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8) ON CONFLICT (flight_id) DO UPDATE SET mails = excluded.mails";

const SELECT: &str =
    "SELECT flight_id, since_ms, next_hop, address, port, mails FROM dispatch_flights ORDER BY flight_id";

/// The table of one connection to the database.
#[derive(Debug, Default)]
pub(super) struct FlightTable {
    /// Whether it could not be written the last time.
    is_in_trouble: bool,
}

/// A row of the table, as an earlier run has left it.
pub(super) struct Left {
    number: i64,
    since: UnixMillis,
    next_hop: String,
    remote: Option<SocketAddr>,
    /// `None` if what stands there is no list of mail.
    mails: Option<Vec<MailId>>,
}

impl FlightTable {
    /// Notes what is told of flights, and returns whether it could. Fails only if the transaction is lost.
    pub(super) fn note(
        &mut self,
        transaction: &Connection,
        marks: &[FlightMark],
        ledger: &mut Ledger,
    ) -> rusqlite::Result<bool> {
        if marks.is_empty() {
            return Ok(true);
        }
        let noted = ledger.run.count(transaction).and_then(|run| put_all(transaction, marks, run));
        let error = match noted {
            Ok(has_put) => {
                // That something could be deleted does not say that something can be noted.
                if has_put && std::mem::take(&mut self.is_in_trouble) {
                    log::info!("the table dispatch_flights is written again");
                }
                return Ok(true);
            }
            Err(error) => error,
        };
        if !std::mem::replace(&mut self.is_in_trouble, true) {
            log::warn!(
                "cannot write the table dispatch_flights: {error}; mail is sent without, so after a kill it is not known which mail \
                 may have arrived already; {}",
                advice(transaction, &error)
            );
        }
        // SQLite ends the transaction after some errors: without it, nothing may be written.
        if transaction.is_autocommit() { Err(error) } else { Ok(false) }
    }
}

/// Finds the flights that earlier runs have left behind, and does with their mail what is wanted. Flights without mail
/// are deleted, but not what cannot be understood.
pub(super) fn recover(
    transaction: &Transaction<'_>,
    uncertain: Uncertain,
    ledger: &mut Ledger,
) -> rusqlite::Result<Vec<FoundFlight>> {
    let mut found = Vec::new();
    for Left { number, since, next_hop, remote, mails } in left_behind(transaction)? {
        let server = remote.map(|remote| format!(" at {remote}")).unwrap_or_default();
        let Some(mails) = mails else {
            log::error!(
                "row {number} of the table dispatch_flights is damaged: mail that was being sent to {next_hop}{server} since {} may have \
                 arrived already, and it is not known which; compare the outbox with the log of that server, and then delete the row",
                time(since)
            );
            continue;
        };
        let why = format!("sent to {next_hop}{server}, and the program ended before it knew the answer");
        let (mut held, mut free) = (Vec::new(), Vec::new());
        for id in mails {
            if !is_left(transaction, id)? {
                continue;
            }
            ledger.add_doubt(transaction, id, since, &why)?;
            let is_held = uncertain == Uncertain::Hold && holds::hold_uncertain(transaction, id)?;
            if is_held { held.push(id) } else { free.push(id) }
        }
        let tidied = within_savepoint(transaction, || match (&*free, &*held) {
            ([], _) => end(transaction, number),
            (_, []) => Ok(()),
            (free, _) => keep(transaction, number, free),
        });
        if let Err(error) = tidied {
            // Without a transaction nothing of it counts, and mail that is to be held is not.
            if transaction.is_autocommit() || !trouble(transaction, &error).is_about_a_row() {
                return Err(error);
            }
            say_kept(transaction, &error);
        }
        for (mails, is_held) in [(held, true), (free, false)] {
            if !mails.is_empty() {
                found.push(FoundFlight {
                    number,
                    next_hop: next_hop.as_str().into(),
                    remote,
                    mails,
                    is_held,
                });
            }
        }
    }
    Ok(found)
}

/// Finds the same, and changes nothing: mail that is to be held is not.
pub(super) fn found_only(connection: &Connection) -> rusqlite::Result<Vec<FoundFlight>> {
    let mut found = Vec::new();
    for Left { number, next_hop, remote, mails, .. } in left_behind(connection)? {
        let mut left = Vec::new();
        for id in mails.into_iter().flatten() {
            if is_left(connection, id)? {
                left.push(id);
            }
        }
        if !left.is_empty() {
            found.push(FoundFlight {
                number,
                next_hop: next_hop.into(),
                remote,
                mails: left,
                is_held: false,
            });
        }
    }
    Ok(found)
}

/// Says that a note cannot be changed.
pub(super) fn say_kept(connection: &Connection, error: &rusqlite::Error) {
    log::warn!(
        "cannot change the table dispatch_flights: {error}; what stands there is named again at the next start; {}",
        advice(connection, error)
    );
}

/// Returns a time for people.
fn time(at: UnixMillis) -> String {
    Timestamp::from_millisecond(at.0).map_or_else(|_| at.0.to_string(), |at| at.to_string())
}

/// Leaves only this mail in a flight.
fn keep(connection: &Connection, number: i64, mails: &[MailId]) -> rusqlite::Result<()> {
    connection
        .prepare_cached("UPDATE dispatch_flights SET mails = ?2 WHERE flight_id = ?1")?
        .execute(params![number, json(mails)])
        .map(drop)
}

/// Reads what earlier runs have left behind; nothing if there is no such table, or one that is not ours.
pub(super) fn left_behind(connection: &Connection) -> rusqlite::Result<Vec<Left>> {
    match read(connection) {
        Err(error) if is_absent(&error) => {
            if connection.prepare("SELECT 1 FROM sqlite_schema WHERE name = 'dispatch_flights'")?.exists([])?
            {
                log::warn!(
                    "cannot read the table dispatch_flights: {error}; it is not known which mail may have arrived already; drop the \
                     table, and the daemon creates it again"
                );
            }
            Ok(Vec::new())
        }
        left => left,
    }
}

fn read(connection: &Connection) -> rusqlite::Result<Vec<Left>> {
    let mut statement = connection.prepare(SELECT)?;
    let mut rows = statement.query([])?;
    let mut left = Vec::new();
    while let Some(row) = rows.next()? {
        let text = |column| row.get_ref(column).map(|value| value.as_str().unwrap_or_default().to_owned());
        let address: Option<IpAddr> = text(3)?.parse().ok();
        let port: Option<u16> = row.get(4).ok();
        let mails: Option<Vec<i64>> = serde_json::from_str(&text(5)?).ok();
        left.push(Left {
            number: row.get(0)?,
            since: UnixMillis(row.get_ref(1)?.as_i64().unwrap_or(0)),
            next_hop: text(2)?,
            remote: address.zip(port).map(|(address, port)| SocketAddr::new(address, port)),
            mails: mails.map(|mails| mails.into_iter().map(MailId).collect()),
        });
    }
    Ok(left)
}

/// Returns whether a mail is in the outbox, and was not taken by a server.
fn is_left(connection: &Connection, id: MailId) -> rusqlite::Result<bool> {
    let is_taken = stuck::exists(connection)? && stuck::contains(connection, id)?;
    Ok(!is_taken && exists(connection, id)?)
}

/// Writes marks. Returns whether mail was among what was noted.
fn put_all(connection: &Connection, marks: &[FlightMark], run: i64) -> rusqlite::Result<bool> {
    marks.iter().try_for_each(|mark| {
        let number = match mark.flight {
            FlightId::Earlier(number) => number,
            FlightId::Own(count) => key(run, count),
        };
        match &mark.carries {
            None => end(connection, number),
            Some(cargo) => or_created(connection, CREATE, || put(connection, number, run, cargo)),
        }
    })?;
    Ok(marks.iter().any(|mark| mark.carries.is_some()))
}

fn put(connection: &Connection, number: i64, run: i64, cargo: &Cargo) -> rusqlite::Result<()> {
    let Cargo { route, mails } = cargo;
    connection
        .prepare_cached(PUT)?
        .execute(params![
            number,
            run,
            now().0,
            connection_key(run, route.connection),
            route.next_hop,
            route.remote.ip().to_string(),
            route.remote.port(),
            json(mails),
        ])
        .map(drop)
}

fn end(connection: &Connection, number: i64) -> rusqlite::Result<()> {
    let delete = "DELETE FROM dispatch_flights WHERE flight_id = ?1";
    if_present(|| connection.prepare_cached(delete)?.execute([number])).map(drop)
}

fn json(mails: &[MailId]) -> String {
    let ids: Vec<i64> = mails.iter().map(|id| id.0).collect();
    serde_json::to_string(&ids).unwrap_or_default()
}

#[cfg(test)]
pub(super) mod tests;
