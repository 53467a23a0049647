//! Mail that could be served does not wait for what it does not need: not for name servers if its address is known, and not
//! for servers that hold places and say nothing.
//!
//! Watched is mail that could be worked on. It goes to an address, so that no name has to be looked up; it has never failed; the daemon
//! knows of it, and has not taken it up; and there is no connection to its address. Single passes are not watched, because they may
//! be about other mail.
//!
//! ```text
//!                        found, never failed              claimed, recalled, set aside, or its address is of no use
//! not in the book ----------------------------> Waiting ------------------------------------------------------------> TakenUp
//!        ^                                         |                                                                     |
//!        +-- deleted, changed, or found failed ----+                                                                     |
//!        +------------------------------------------------------------------------------------ its verdict is recorded --+
//! ```
//!
//! An address is of no use if its last connection was of none. Nobody can tell from outside which mail has failed with that
//! connection, and only waits for its verdict to be recorded.

use std::collections::{BTreeMap, HashSet};
use std::net::{IpAddr, Ipv4Addr};

use cmail_delivery::io::Purpose;
use cmail_delivery::outbox::{Claimed, MailId, Row, Scanned, StoreReply};
use cmail_delivery::time::{Duration, Instant};

use super::Checker;
use crate::facts::{Fact, Link, Parting, Scene, Verb};

/// How long the database may take before the daemon really knows of a row, beside the interval of its looks.
const SLACK: Duration = Duration::from_secs(120);
/// How often it is looked for mail that has waited for too long: all of the mail that waits is looked at then.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// How long a connection may hold a place in silence while others wait: 30 s, and what the daemon needs to notice.
const SILENCE_LIMIT: Duration = Duration::from_secs(35);
/// How long a connection may take to be made (CONTRACT: connect 30 s).
const CONNECT_LIMIT: Duration = Duration::from_secs(30);

/// An open connection for mail.
#[derive(Clone, Copy, Debug)]
struct Conversation {
    address: IpAddr,
    /// How many replies the server owes, and a handshake as one of them.
    owed: u32,
    /// When either side last said something; in the future while the connection is being made.
    active_at: Instant,
    has_decided: bool,
    /// True if the server has a whole message without a reply, or was told QUIT.
    is_ending: bool,
    has_quit: bool,
    has_taken: bool,
    /// True if the server has closed the channel (421).
    has_refused: bool,
}

impl Conversation {
    fn is_silent(&self, now: Instant) -> bool {
        let silence = now.saturating_duration_since(self.active_at);
        self.owed > 0 && !self.has_decided && !self.is_ending && silence > SILENCE_LIMIT
    }
}

/// Where a mail stands that the daemon knows of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Nothing was done for it since then, though it needs only a connection to this address.
    Waiting { to: IpAddr, since: Instant },
    /// The daemon works on it, has failed with it, or has set it aside. It may still be found as it was, until its verdict is
    /// recorded.
    TakenUp,
}

/// What both checkers watch.
#[derive(Debug, Default)]
struct Watch {
    is_over: bool,
    open: BTreeMap<Link, Conversation>,
    /// Addresses of which the last connection was of no use.
    useless: HashSet<IpAddr>,
    stages: BTreeMap<MailId, Stage>,
    /// When the database last refused something: while it does nothing is begun.
    refused_at: Instant,
    /// When to look again for mail that has waited for too long.
    next_look: Instant,
}

impl Watch {
    fn see(&mut self, scene: &Scene<'_>, fact: Fact<'_>) {
        let now = scene.now.monotonic;
        match fact {
            Fact::Started { is_pass, .. } => *self = Self { is_over: is_pass, ..Self::default() },
            Fact::Draining | Fact::Stopped { .. } => *self = Self { is_over: true, ..Self::default() },
            Fact::Answered { reply: StoreReply::Scanned(Scanned { rows, .. }) } if !self.is_over => {
                rows.iter().for_each(|row| self.found(scene, row));
            }
            Fact::Answered { reply: StoreReply::Claimed(Claimed { transactions, .. }) } => {
                self.take_up(transactions.iter().flat_map(|transaction| &transaction.rows));
            }
            Fact::Answered { reply: StoreReply::Recalled { rows, .. } } => self.take_up(rows),
            Fact::Committing { commit, .. } => {
                for id in commit.ids() {
                    self.stages.remove(&id);
                }
            }
            // What it is now is found again. What is under way goes on with it as it was.
            Fact::Removed { id } | Fact::Meddled { id } => self.forget_waiting(id),
            Fact::Told { done: false, .. } => self.refused_at = now,
            Fact::Connecting { link, remote, purpose: Purpose::Smtp } if !self.is_over => {
                let address = remote.ip();
                let conversation = Conversation {
                    address,
                    owed: 1,
                    active_at: now + CONNECT_LIMIT,
                    has_decided: false,
                    is_ending: false,
                    has_quit: false,
                    has_taken: false,
                    has_refused: false,
                };
                self.open.insert(link, conversation);
            }
            Fact::Gone { link, parting } => self.gone(link, parting, now),
            Fact::StartTls { link } => self.change(link, |it| it.owed = 1),
            Fact::Sent { link, .. } | Fact::Received { link, .. } => {
                self.change(link, |it| it.active_at = now)
            }
            Fact::TlsEstablished { link, .. } => self.change(link, |it| it.active_at = now),
            Fact::Command { link, verb, .. } => self.change(link, |it| {
                it.owed += 1;
                it.is_ending |= verb == Verb::Quit;
                it.has_quit |= verb == Verb::Quit;
            }),
            Fact::FinalDot { link, .. } => {
                self.change(link, |it| (it.owed, it.is_ending) = (it.owed + 1, true))
            }
            Fact::Reply { link, to, code, .. } => self.change(link, |it| {
                it.owed = it.owed.saturating_sub(1);
                let is_about_mail = matches!(to, Verb::Mail | Verb::Rcpt | Verb::Data | Verb::FinalDot);
                let ends_message = to == Verb::FinalDot;
                it.has_decided |= ends_message || (is_about_mail && code >= 400);
                it.has_taken |= ends_message && code < 300;
                it.has_refused |= code == 421;
            }),
            _ => {}
        }
    }

    fn found(&mut self, scene: &Scene<'_>, row: &Row) {
        if self.stages.get(&row.id) == Some(&Stage::TakenUp) {
            return;
        }
        // What the database can do nothing for is set aside, and for a while also when that is mended.
        let is_poisoned = scene.outbox.poison_of(row.id).is_some();
        let is_fresh = row.fail_count == 0 && !row.fatal;
        match address_of(row).filter(|_| is_fresh) {
            Some(to) if !is_poisoned && !self.useless.contains(&to) => {
                let since = scene.now.monotonic;
                self.stages.entry(row.id).or_insert(Stage::Waiting { to, since });
            }
            None if !is_poisoned => drop(self.stages.remove(&row.id)),
            Some(_) | None => drop(self.stages.insert(row.id, Stage::TakenUp)),
        }
    }

    fn take_up<'a>(&mut self, rows: impl IntoIterator<Item = &'a Row>) {
        self.stages.extend(rows.into_iter().map(|row| (row.id, Stage::TakenUp)));
    }

    fn forget_waiting(&mut self, id: MailId) {
        if self.stages.get(&id).is_some_and(|stage| *stage != Stage::TakenUp) {
            self.stages.remove(&id);
        }
    }

    fn gone(&mut self, link: Link, parting: Parting, now: Instant) {
        let Some(gone) = self.open.remove(&link) else { return };
        // One that was given up in the middle of a message says nothing good of the server.
        let is_given_up = gone.has_refused || (gone.owed > 0 && !gone.has_quit);
        let is_of_use = gone.has_taken && !is_given_up && parting == Parting::Closed;
        if is_of_use {
            self.useless.remove(&gone.address);
        } else {
            self.useless.insert(gone.address);
        }
        for stage in self.stages.values_mut() {
            if let Stage::Waiting { to, .. } = *stage
                && to == gone.address
            {
                *stage = if is_of_use { Stage::Waiting { to, since: now } } else { Stage::TakenUp };
            }
        }
    }

    fn change(&mut self, link: Link, change: impl FnOnce(&mut Conversation)) {
        if let Some(conversation) = self.open.get_mut(&link) {
            change(conversation);
        }
    }

    fn is_full(&self, scene: &Scene<'_>) -> bool {
        self.open.len() >= usize::try_from(scene.settings.concurrency).unwrap_or(usize::MAX)
    }

    /// Mail that has waited for too long, where `excused_at` is when it last had a reason to wait.
    fn overdue(&mut self, scene: &Scene<'_>, excused_at: Instant) -> Option<String> {
        let bound = scene.settings.interval + SLACK;
        let now = scene.now.monotonic;
        if now < self.next_look {
            return None;
        }
        self.next_look = now + LOOK_INTERVAL;
        let is_overdue = |since: Instant| now.saturating_duration_since(since) > bound;
        if !is_overdue(excused_at.max(self.refused_at)) {
            return None;
        }
        self.stages.iter().find_map(|(id, stage)| {
            let Stage::Waiting { to, since } = *stage else { return None };
            let is_connected = || self.open.values().any(|open| open.address == to);
            (is_overdue(since) && !is_connected())
                .then(|| format!("mail {id} to {to} has waited for more than {} s", bound.as_secs()))
        })
    }
}

/// The address that a row is to be sent to, if no name has to be looked up for that.
fn address_of(row: &Row) -> Option<IpAddr> {
    let text = match &row.remote {
        Some(remote) => {
            let host = std::str::from_utf8(remote).ok()?.rsplit('@').next()?;
            host.split(':').next()?.to_owned()
        }
        None => {
            let domain = std::str::from_utf8(&row.recipient).ok()?.rsplit('@').next()?;
            domain.strip_prefix('[')?.strip_suffix(']')?.to_owned()
        }
    };
    text.parse::<Ipv4Addr>().ok().map(IpAddr::V4)
}

/// Mail without DNS never waits for DNS.
#[derive(Debug, Default)]
pub(super) struct WithoutDns {
    watch: Watch,
    full_at: Instant,
}

impl Checker for WithoutDns {
    fn name(&self) -> &'static str {
        "mail without DNS never waits for DNS"
    }

    fn see(&mut self, scene: &Scene<'_>, fact: Fact<'_>) -> Result<(), String> {
        self.watch.see(scene, fact);
        if self.watch.is_full(scene) {
            self.full_at = scene.now.monotonic;
        }
        match fact {
            Fact::Called { .. } => self.watch.overdue(scene, self.full_at).map_or(Ok(()), Err),
            _ => Ok(()),
        }
    }
}

/// Mail that could be served waits at most a bound.
#[derive(Debug, Default)]
pub(super) struct Bounded {
    watch: Watch,
    /// When silent connections last held no more places than last resorts may have.
    fair_at: Instant,
}

impl Checker for Bounded {
    fn name(&self) -> &'static str {
        "mail that could be served waits at most a bound"
    }

    fn see(&mut self, scene: &Scene<'_>, fact: Fact<'_>) -> Result<(), String> {
        self.watch.see(scene, fact);
        if !matches!(fact, Fact::Called { .. }) {
            return Ok(());
        }
        let now = scene.now.monotonic;
        let places = usize::try_from(scene.settings.concurrency).unwrap_or(usize::MAX);
        let silent = self.watch.open.values().filter(|open| open.is_silent(now)).count();
        // One more may be there that has proved to be of use.
        if silent <= places.div_ceil(2) + 1 {
            self.fair_at = now;
        }
        self.watch.overdue(scene, self.fair_at).map_or(Ok(()), Err)
    }
}

#[cfg(test)]
mod tests;
