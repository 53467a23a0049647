//! The master database. Nothing outside this module names SQLite.
//!
//! A process that works on a database goes this way: find the `DatabaseFile`, take its `DatabaseLock`, open it as a
//! `Database` (which rolls back what a killed program has left; so nobody looks at it before), and hand it to a thread of its own with `StoreHandle::spawn`, so that no commit's `fsync` ever stops the event loop. Its
//! `Watch` tells when somebody has written to the files; the thread then finds out whether that was another process.
//!
//! What is promised to the other programs that use the file: columns, view, schema version and journal mode stay as
//! they were found, a transaction lasts no longer than one request, and all that is added are an index and,
//! when it is needed, a table whose names begin with `dispatch_`.

mod apart;
mod create;
mod database;
mod database_file;
mod digests;
mod error;
mod failures;
mod grouping;
mod journal;
mod lock;
mod messages;
mod paths;
mod patience;
mod pool;
mod read_ahead;
mod requests;
mod rows;
mod scan;
mod schema;
mod stamps;
mod stuck;
mod thread;
mod unsettled;
mod watch;

#[cfg(test)]
mod fixture;
#[cfg(test)]
mod memory_tests;

pub(crate) use create::initdb;
pub(crate) use database::{Database, check};
pub(crate) use database_file::DatabaseFile;
pub use error::{InitError, OpenError};
pub(crate) use lock::DatabaseLock;
pub use lock::LockError;
pub(crate) use thread::StoreHandle;
