//! Statements about our own tables, which other programs may drop at any time: that costs only what stood there.
//!
//! Where a statement is prepared again because the schema has changed, SQLite says only when it is stepped that its table is missing.
//! So all of the work with a statement is given to these functions, and not only its preparation.

use rusqlite::Connection;
use rusqlite::ffi::SQLITE_ERROR;

/// Does something with a table of ours; returns `None` if the table or a column of it is missing.
pub(super) fn if_present<T>(act: impl FnOnce() -> rusqlite::Result<T>) -> rusqlite::Result<Option<T>> {
    match act() {
        Err(error) if is_absent(&error) => Ok(None),
        result => result.map(Some),
    }
}

/// Does something with a table of ours, which this creates if it is missing.
pub(super) fn or_created<T>(
    connection: &Connection,
    create: &str,
    act: impl Fn() -> rusqlite::Result<T>,
) -> rusqlite::Result<T> {
    match if_present(&act)? {
        Some(result) => Ok(result),
        None => {
            connection.execute_batch(create)?;
            act()
        }
    }
}

/// Returns whether a statement could not be used because a table or column is missing, and not because of trouble.
pub(super) fn is_absent(error: &rusqlite::Error) -> bool {
    // Where SQLite says at which place of the statement, it is an error of another kind.
    let in_statement =
        if let rusqlite::Error::SqlInputError { error, .. } = error { Some(error) } else { None };
    error.sqlite_error().or(in_statement).is_some_and(|error| error.extended_code == SQLITE_ERROR)
}

#[cfg(test)]
mod tests;
