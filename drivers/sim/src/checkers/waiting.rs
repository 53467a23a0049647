//! Mail that could be served does not wait for what it does not need: not for name servers if its address is known, and not for
//! silent servers that hold slots.
//!
//! The checker watches mail that could be worked on. It goes to an address, so that no name must be looked up; it has never
//! failed; the daemon knows of it, and has not begun with it; and there is no connection to its address. Single passes are not
//! watched, because they may concern other mail.
//!
//! ```text
//!                        found, never failed              claimed, recalled, set aside, ordered, or its address is of no use
//! not in the book ----------------------------> Waiting ------------------------------------------------------------> TakenUp
//!        ^                                         |                                                                     |
//!        +-- deleted, changed, or found failed ----+                                                                     |
//!        +------------------------------------------------------------------------------------ its verdict is recorded --+
//! ```
//!
//! An address is useless if its last connection was. From outside it cannot be seen which mail has failed with that connection,
//! and only waits for its verdict to be recorded.

use std::collections::{BTreeMap, HashSet};
use std::net::{IpAddr, Ipv4Addr};

use cmail_delivery::hold::HoldState;
use cmail_delivery::io::Purpose;
use cmail_delivery::outbox::{Claimed, MailId, Row, Scanned, StoreReply};
use cmail_delivery::time::{Duration, Instant};

use super::Checker;
use super::standing::next_hop_of;
use crate::facts::{Fact, Link, Parting, Scene, Verb};
use crate::options::every_hold_line;

/// Time that the database may take before the daemon knows of a row, beside the interval of its scans.
const SLACK: Duration = Duration::from_secs(120);
/// Shortest time between two searches for mail that has waited too long, because each looks at all waiting mail.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// Longest time for which a connection may hold a slot in silence while others wait: 30 s, and what the daemon needs to notice.
const SILENCE_LIMIT: Duration = Duration::from_secs(35);
/// Longest time for which a connection may be in the making: the daemon gives up after 30 s.
const CONNECT_LIMIT: Duration = Duration::from_secs(30);

/// An open connection for mail.
#[derive(Clone, Copy, Debug)]
struct Conversation {
    address: IpAddr,
    /// The number of replies that the server owes, counting a handshake as one.
    owed: u32,
    /// The time at which either side last said something; in the future while the connection is being made.
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

/// The state of mail that the daemon knows of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// It has not been worked on since then, although it needs only a connection to this address.
    Waiting { to: IpAddr, since: Instant },
    /// The daemon works on it, has failed with it, or has set it aside. Its old row may still be found until its verdict is
    /// recorded.
    TakenUp,
}

/// The state that both checkers watch.
#[derive(Debug, Default)]
struct Watch {
    is_over: bool,
    open: BTreeMap<Link, Conversation>,
    /// Addresses whose last connection was useless.
    useless: HashSet<IpAddr>,
    stages: BTreeMap<MailId, Stage>,
    /// The time at which the database last refused something. While it does, nothing begins.
    refused_at: Instant,
    /// The time at which the settings last changed, by which mail waits.
    reconfigured_at: Instant,
    /// The time of the next search for mail that has waited too long.
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
            // What becomes of it then is another checker's.
            Fact::CarryingOut { step, .. } => {
                self.stages.extend(step.mails.iter().map(|id| (*id, Stage::TakenUp)));
            }
            Fact::Committing { commit, .. } => {
                for id in commit.ids() {
                    self.stages.remove(&id);
                }
            }
            // The changed row is found again. What is under way continues with the old one.
            Fact::Removed { id } | Fact::Meddled { id } => self.forget_waiting(id),
            Fact::Told { done: false, .. } => self.refused_at = now,
            Fact::Reconfigured { .. } => self.reconfigured_at = now,
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
            Fact::StartTls { link, .. } => self.change(link, |it| it.owed = 1),
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
        // Mail that the database cannot process is set aside, for a while even after that is repaired.
        let is_poisoned = scene.outbox.flaw(row.id).is_some();
        let is_fresh =
            row.fail_count == 0 && !row.fatal && row.hold.state == HoldState::Unset && !may_be_held(row);
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
        // A connection that was closed in the middle of a message does not speak for the server.
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

    /// Returns mail that has waited too long. `excused_at` is when it last had a reason to wait.
    fn overdue(&mut self, scene: &Scene<'_>, excused_at: Instant) -> Option<String> {
        let bound = scene.settings.interval + SLACK;
        let now = scene.now.monotonic;
        if now < self.next_look {
            return None;
        }
        self.next_look = now + LOOK_INTERVAL;
        let is_overdue = |since: Instant| now.saturating_duration_since(since) > bound;
        if !is_overdue(excused_at.max(self.refused_at).max(self.reconfigured_at)) {
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

/// Returns whether a line may hold a mail, now or later.
fn may_be_held(row: &Row) -> bool {
    let next_hop = next_hop_of(row);
    every_hold_line().any(|line| line.is_about(next_hop.as_ref(), row.sender.as_deref()))
}

/// Returns the address that a row is sent to, if no name must be looked up.
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
    /// The time at which silent connections last held no more slots than last resorts may have.
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
        // One more is allowed, which has proved useful.
        if silent <= places.div_ceil(2) + 1 {
            self.fair_at = now;
        }
        self.watch.overdue(scene, self.fair_at).map_or(Ok(()), Err)
    }
}

#[cfg(test)]
mod tests;
