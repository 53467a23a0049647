//! The master database. Nothing outside this module names SQLite.
//!
//! A process that works on a database does four steps: it opens the `DatabaseFile`, takes its `DatabaseLock`, opens it as a
//! `Database` (which rolls back what a killed program has left, so the tables are not read before), and gives it to a
//! separate thread with `StoreHandle::spawn`, so that the `fsync` of a commit never stops the event loop. A `Watch` reports
//! writes to the files; the thread then finds out whether they were another process's.
//!
//! The store promises to the other programs that use the file: columns, view, schema version and journal mode stay
//! unchanged, a transaction lasts no longer than one request, and it adds only an index, the tables of the ledger, and, when
//! it is needed, one for mail that cannot be deleted. Their names begin with `dispatch_`.

mod ages;
mod apart;
mod blob;
mod board;
mod busy;
mod commit;
mod create;
mod data_version;
mod database;
mod database_file;
mod digests;
mod envelopes;
mod error;
mod failures;
mod fingerprints;
mod flights;
mod forgotten;
mod grouping;
mod history;
mod holds;
mod journal;
mod last_failures;
mod ledger;
mod line_notes;
mod lock;
mod lock_holder;
mod messages;
mod open_files;
mod order_desk;
mod order_task;
mod orders;
mod own_table;
mod paths;
mod policies;
mod pool;
mod pruner;
mod pulse;
mod read_ahead;
mod reader;
mod relay_reports;
mod requests;
mod rows;
mod run;
mod scan;
mod schema;
mod selected;
mod signing;
mod stuck;
mod submission;
mod thread;
mod uncheckpointed;
mod verdicts;
mod warnings;
mod watch;

#[cfg(test)]
mod fixture;
#[cfg(test)]
mod tests;

pub(crate) use create::initdb;
pub(crate) use database::{Database, check};
pub(crate) use database_file::DatabaseFile;
pub use error::{InitError, LockError, OpenError};
pub(crate) use error::{OrderError, ReadError};
pub(crate) use forgotten::ForgottenAddress;
pub(crate) use history::{AttemptRow, Direction, FaillogRow, HistoryQuery};
pub(crate) use holds::{HoldRow, HoldRule};
pub(crate) use ledger::{Addresses, Entries, LedgerSettings, Retention};
pub(crate) use lock::{DatabaseLock, holder_of};
pub(crate) use order_desk::{Deputy, NewOrder, OrderDesk};
pub(crate) use order_task::{Act, Scope};
pub(crate) use reader::Reader;
pub(crate) use selected::{QueuedMail, Standing};
pub use submission::SubmitError;
pub(crate) use submission::{NewMail, SUBMISSION_LIMIT_OCTETS, submit};
pub(crate) use thread::StoreHandle;
