//! Computes how many connections the limit of open files allows.

use std::io;

use cmail_delivery::resolver::CONCURRENT_QUESTIONS_LIMIT;
use log::{debug, warn};
use nix::sys::resource::{self, Resource};

use crate::event_loop::CLIENTS_LIMIT;

/// Descriptors that are not used for the network: the database and the files that SQLite opens beside it, lock, log, poll,
/// watch, signals, and files that are read briefly, with some to spare; and those of the clients who ask the daemon or hand over messages.
const OWN_RESERVE: u64 = 32 + CLIENTS_LIMIT as u64;

/// One in this many of the remaining descriptors is reserved for questions to name servers. They never need more than
/// [`CONCURRENT_QUESTIONS_LIMIT`].
const RESOLVER_SHARE: u64 = 4;

/// Raises the limit of descriptors, and returns how many of the configured connections it allows.
pub fn within_limit(concurrency: u32) -> u32 {
    let limit = match raise_limit() {
        Ok(limit) => limit,
        Err(error) => {
            warn!("the limit of open files cannot be raised: {error}");
            return concurrency;
        }
    };
    let possible = connections_within(limit);
    if possible >= concurrency {
        debug!("the system allows {limit} open files, enough for {concurrency} connections");
        return concurrency;
    }
    warn!(
        "the system allows {limit} open files, so there are at most {possible} connections at once, not the \
         {concurrency} of the directive concurrency; raise LimitNOFILE of the systemd unit, or `ulimit -Hn`"
    );
    possible
}

/// Raises the limit of open descriptors as far as the system lets it be raised, and returns it.
pub fn raise_limit() -> io::Result<u64> {
    let (soft, hard) = resource::getrlimit(Resource::RLIMIT_NOFILE)?;
    if soft < hard {
        resource::setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    }
    Ok(hard)
}

/// Returns how many connections at once leave enough of `limit` descriptors for everything else; at least one.
pub fn connections_within(limit: u64) -> u32 {
    let network = limit.saturating_sub(OWN_RESERVE);
    let questions = u64::try_from(CONCURRENT_QUESTIONS_LIMIT).unwrap_or(u64::MAX);
    let resolver = network.div_ceil(RESOLVER_SHARE).min(questions);
    u32::try_from(network.saturating_sub(resolver)).unwrap_or(u32::MAX).max(1)
}

#[cfg(test)]
mod tests;
