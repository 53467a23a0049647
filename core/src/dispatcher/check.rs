//! Assertions about our own books. Errors of peers, name servers and the database are handled; our own are asserted.

use alloc::collections::{BTreeMap, BTreeSet};

use super::Dispatcher;
use super::books::Books;
use super::deliveries::{Claim, Deliveries};
use super::requests::Asked;
use crate::outbox::{Commit, MailId};
use crate::queue::HopId;

/// With more items than this, a debug build does not check after every call.
const EACH_TIME_LIMIT: usize = 200;
/// It checks once in this many requests to the database instead.
const REQUESTS_PER_CHECK: u64 = 64;

/// The open requests, by purpose.
#[derive(Debug, Default)]
pub(super) struct OpenRequests {
    pub(super) scans: usize,
    pub(super) rescans: usize,
    pub(super) bounces: usize,
    pub(super) recalls: usize,
    pub(super) commits: usize,
    pub(super) recoveries: usize,
    pub(super) orders: usize,
    pub(super) claims: BTreeMap<HopId, u32>,
    /// Mail that one of them concerns.
    mails: BTreeSet<MailId>,
}

impl OpenRequests {
    fn of(books: &Books) -> Self {
        let mut open = Self::default();
        for asked in books.store.requests.iter() {
            let ids = match asked {
                Asked::Scan => {
                    open.scans += 1;
                    continue;
                }
                Asked::Rescan { .. } => {
                    open.rescans += 1;
                    continue;
                }
                Asked::Commit => {
                    open.commits += 1;
                    continue;
                }
                Asked::Recover => {
                    open.recoveries += 1;
                    continue;
                }
                Asked::Data { .. } | Asked::Policy(_) | Asked::StalePolicies => continue,
                Asked::Orders | Asked::CarryOut(_) => {
                    open.orders += 1;
                    continue;
                }
                Asked::Claim(Claim { hop, ids, .. }) | Asked::Sign(Claim { hop, ids, .. }, _) => {
                    *open.claims.entry(*hop).or_default() += 1;
                    ids
                }
                Asked::Bounce { ids, .. } => {
                    open.bounces += 1;
                    ids
                }
                Asked::Recall { ids, .. } => {
                    open.recalls += 1;
                    ids
                }
            };
            for id in ids {
                assert!(open.mails.insert(*id), "mail {id} is asked for twice");
            }
        }
        open
    }
}

impl Dispatcher {
    /// Asserts the invariants of a dispatcher between two calls, for tests, fuzzers and simulators. The time it takes grows with
    /// what is under way. Debug builds check after each call, or less often if much is under way.
    #[track_caller]
    pub fn check(&self) {
        if self.books.run.is_drained() {
            return;
        }
        let open = OpenRequests::of(&self.books);
        self.books.check(&open);
        self.deliveries.check(&self.books, &open);
        check_claimed_mail(&self.books, &self.deliveries, open.mails);
        check_held_mail(&self.books, &self.deliveries);
    }

    /// Returns whether nothing is under way, and nothing is left of what was.
    #[cfg(test)]
    pub(super) fn is_at_rest(&self) -> bool {
        let Self { books, deliveries, .. } = self;
        if books.run.is_drained() {
            return deliveries.is_idle();
        }
        deliveries.is_at_rest() && books.queue.claimed_count() == 0 && books.commits.is_empty()
    }

    /// Asserts the invariants where that costs little.
    pub(super) fn check_often(&self) {
        let size = self.books.queue.claimed_count() + self.deliveries.size();
        if size <= EACH_TIME_LIMIT || self.books.store.requests.count().is_multiple_of(REQUESTS_PER_CHECK) {
            self.check();
        }
    }
}

/// Asserts that each claimed mail belongs to one request, connection, commit or order.
#[track_caller]
fn check_claimed_mail(books: &Books, deliveries: &Deliveries, asked_for: BTreeSet<MailId>) {
    let mut held = asked_for;
    // Mail that was delivered before the program began is deleted without being in the queue.
    let to_be_recorded = books.commits.mails().filter(|&id| books.queue.find(id).is_some());
    for id in deliveries.undecided().chain(to_be_recorded).chain(books.orders.taken()) {
        assert!(held.insert(id), "two work on mail {id}");
    }
    for &id in &held {
        let known = books.queue.find(id);
        assert!(known.is_some_and(|known| known.is_claimed()), "mail {id} is worked on, but is {known:?}");
    }
    assert_eq!(held.len(), books.queue.claimed_count(), "mail is forgotten that somebody has taken");
}

/// The database holds the mail that a connection works on, or that has a verdict which is still to be recorded.
#[track_caller]
fn check_held_mail(books: &Books, deliveries: &Deliveries) {
    let to_be_recorded = books.commits.all().flat_map(Commit::claims).chain(books.set_aside.with_verdicts());
    let expected: BTreeSet<MailId> = deliveries.undecided().chain(to_be_recorded).collect();
    assert_eq!(
        books.store.held.mails().collect::<BTreeSet<_>>(),
        expected,
        "mail that the database holds, and mail that is worked on"
    );
    assert!(books.store.held.is_released(), "the database is not told what was given up");
}
