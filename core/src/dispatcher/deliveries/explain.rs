//! What is done for a next hop, what it waits for, and the way there, for people. Every answer is that of the function that decides.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use super::destination::{Destination, DestinationState, Pass, Waits};
use super::host_slots::{Owner, SlotRefusal, size};
use super::limits::Limits;
use super::{ASKING_LIMIT, DELIVERY_LIMIT, Deliveries};
use crate::delivery::{Delivery, Found, Holder};
use crate::dispatcher::books::Books;
use crate::explanation::{
    Activity, CandidateExplanation, DatabaseWork, DestinationExplanation, HopMails, HostReason,
    LimitsExplanation, Places, RateExplanation, Route, Subject, TroubleExplanation, TurnReason, Waiting,
};
use crate::hold::HoldLine;
use crate::io::ConnectionId;
use crate::next_hop::NextHop;
use crate::outbox::{Cursor, MailId};
use crate::policy::Policy;
use crate::queue::{HopId, Queue, QueueState};
use crate::route::Candidate;

impl Deliveries {
    /// Returns how a next hop stands.
    pub(in crate::dispatcher) fn explain(
        &self,
        books: &Books,
        subject: &Subject,
        next_hop: &NextHop,
    ) -> DestinationExplanation {
        let hop = books.queue.hop_of(next_hop);
        let candidate = hop.and_then(|hop| self.destinations.delivery(hop)?.candidate());
        let of_relay = match subject {
            Subject::NextHop(named) => books.config.policies.decision_of_relay(named),
            Subject::Mail(_) => None,
        };
        let others = books.config.policies.decisions(next_hop, candidate.map(|candidate| &candidate.host));
        DestinationExplanation {
            next_hop: next_hop.clone(),
            activity: hop.map_or(Activity::Nothing, |hop| self.activity(books, hop)),
            mails: hop.map(|hop| mails_of(&books.queue, hop)).unwrap_or_default(),
            held_by: hop.map(|hop| held_of(books, hop)).unwrap_or_default(),
            limits: self.explain_limits(books, hop, next_hop),
            decisions: of_relay.into_iter().chain(others).collect(),
            route: None,
        }
    }

    /// Returns what a mail waits for.
    pub(in crate::dispatcher) fn explain_mail(&self, books: &Books, id: MailId) -> Waiting {
        let Some(known) = books.queue.find(id) else { return Waiting::Unknown };
        match known.queue_state() {
            QueueState::Waiting(_) if books.scan.is_called_up(id) => Waiting::Ordered,
            QueueState::Waiting(time) => Waiting::ForTime(time),
            QueueState::Held(holder) => {
                Waiting::Held(holder.line().and_then(|line| books.config.hold_line(line)).cloned())
            }
            QueueState::GivenUp => Waiting::ForBounce,
            QueueState::SetAside => Waiting::SetAside(books.set_aside.ends_at(id)),
            QueueState::Ready | QueueState::ReadyAgain if known.hop == HopId::UNROUTABLE => {
                Waiting::Unroutable
            }
            QueueState::Ready | QueueState::ReadyAgain => {
                Waiting::ForDestination(self.activity(books, known.hop))
            }
            QueueState::Claimed => {
                let of_pass = self.explain_claimed(known.hop, id);
                let of_database =
                    || Waiting::ForDatabase(books.database_work(id).unwrap_or(DatabaseWork::Read));
                of_pass.unwrap_or_else(of_database)
            }
        }
    }

    /// Returns what a mail waits for that a pass has.
    fn explain_claimed(&self, hop: HopId, id: MailId) -> Option<Waiting> {
        let delivery = self.destinations.delivery(hop)?;
        match delivery.holder(id)? {
            Holder::Connection { connection, is_begun } => {
                let (candidate, _) = delivery.connection(connection)?;
                Some(Waiting::ForServer { connection, candidate: candidate.clone(), is_begun })
            }
            Holder::NextConnection => Some(Waiting::ForNextConnection),
        }
    }

    /// Returns where a connection leads to.
    pub(in crate::dispatcher) fn next_hop_of(&self, connection: ConnectionId) -> Option<&NextHop> {
        match self.owner_of(connection)? {
            Owner::Destination(hop) => self.destinations.delivery(hop).map(Delivery::next_hop),
            Owner::Probe(probe) => self.next_hop_of_probe(probe),
        }
    }

    /// Returns what is done with the ready mail of a next hop, or what it waits for.
    pub(in crate::dispatcher) fn activity(&self, books: &Books, hop: HopId) -> Activity {
        let Some(destination) = self.destinations.get(hop) else { return Activity::Nothing };
        match destination.state() {
            DestinationState::Idle if destination.open_claims() > 0 => Activity::ForDatabase,
            DestinationState::Idle => Activity::Nothing,
            DestinationState::Queued => Activity::ForTurn(self.turn_reason(books)),
            DestinationState::Paused(pause) => {
                Activity::ForPause { until: pause.until, why: pause.why.clone() }
            }
            DestinationState::Active(pass) => self.activity_of_pass(books, hop, pass),
            DestinationState::Exhausted(_) => Activity::Failed,
        }
    }

    fn turn_reason(&self, books: &Books) -> TurnReason {
        if books.is_draining() {
            return TurnReason::Draining;
        }
        if books.orders.come_first() {
            return TurnReason::Orders;
        }
        let asking = Places { used: self.destinations.asking_count(), limit: ASKING_LIMIT };
        self.hindrance(books).unwrap_or(TurnReason::NameServers(asking))
    }

    /// Returns why no pass may begin, for whichever next hop.
    pub(super) fn hindrance(&self, books: &Books) -> Option<TurnReason> {
        if books.commits.is_congested() {
            return Some(TurnReason::Database);
        }
        let places = Places { used: self.at_work(), limit: DELIVERY_LIMIT };
        (!self.has_room_for_delivery()).then_some(TurnReason::TooMany(places))
    }

    fn activity_of_pass(&self, books: &Books, hop: HopId, pass: &Pass) -> Activity {
        let delivery = pass.delivery();
        match (pass.waits(), delivery.candidate()) {
            (Waits::ForDns(_), _) => return Activity::ForDns,
            (Waits::ForPolicy, _) => return Activity::ForPolicy,
            (Waits::ForConnection, _) => return Activity::ForConnection(self.slots.places()),
            (Waits::ForHost(_), Some(candidate)) => {
                let why = self.refusal_of_host(books, hop).map(|why| self.host_reason(candidate, why));
                return Activity::ForHost { candidate: candidate.clone(), why };
            }
            (Waits::ForHost(_), None) | (Waits::No, _) => {}
        }
        if let Some(at) = pass.connections().all_held_back_until() {
            return Activity::ForRate(at);
        }
        if pass.connections().all_wait_for_database() {
            return Activity::ForDatabase;
        }
        let (connecting, resting) = (delivery.connecting_count(), delivery.idle_count());
        Activity::UnderWay {
            candidate: delivery.candidate().cloned(),
            connecting,
            busy: delivery.connection_count().saturating_sub(connecting + resting),
            resting,
        }
    }

    fn host_reason(&self, candidate: &Candidate, why: SlotRefusal) -> HostReason {
        match why {
            SlotRefusal::Full => HostReason::Full(self.slots.places_at(candidate)),
            SlotRefusal::OnTrial => HostReason::OnTrial,
            SlotRefusal::LastResorts => HostReason::LastResorts(self.slots.places_of_last_resorts()),
            SlotRefusal::Probe => HostReason::Probe,
        }
    }

    fn explain_limits(&self, books: &Books, hop: Option<HopId>, next_hop: &NextHop) -> LimitsExplanation {
        let now = books.now.monotonic;
        let limits = self.known_limits(hop, next_hop);
        let Policy { concurrency: most, rate_limit, .. } = self.policy_of(books, hop, next_hop);
        let rate = rate_limit.map(|limit| {
            let next = limits.and_then(|limits| limits.next_transaction(limit, now));
            RateExplanation { limit, next }
        });
        let destination = self.limits_of(books, next_hop, most);
        LimitsExplanation { all: self.slots.places(), destination, configured: size(most), rate }
    }

    /// Returns how many connections a next hop has, those of probes among them, and how many it may have, by a policy that allows it
    /// this many.
    pub(super) fn limits_of(&self, books: &Books, next_hop: &NextHop, most: u32) -> Places {
        let (hop, now) = (books.queue.hop_of(next_hop), books.now.monotonic);
        let limits = self.known_limits(hop, next_hop);
        let delivery = hop.and_then(|hop| self.destinations.delivery(hop));
        let of_mail = delivery.map_or(0, Delivery::connection_count);
        Places {
            used: of_mail + self.probe_connections(next_hop),
            limit: size(limits.map_or(most, |limits| limits.connections(most, now))),
        }
    }

    /// Returns the policy of a next hop: that of its present candidate, if it has one.
    pub(super) fn policy_of(&self, books: &Books, hop: Option<HopId>, next_hop: &NextHop) -> Policy {
        let destination = hop.and_then(|hop| self.destinations.get(hop));
        let known = destination.map(|destination| destination.policy().clone());
        known.unwrap_or_else(|| (*books.config.policies.of_hop(next_hop)).clone())
    }

    fn known_limits(&self, hop: Option<HopId>, next_hop: &NextHop) -> Option<&Limits> {
        let destination = hop.and_then(|hop| self.destinations.get(hop));
        destination.map(Destination::limits).or_else(|| self.destinations.remembered(next_hop))
    }

    /// Returns the way to a next hop, where a scout has found this.
    pub(super) fn route(&self, books: &Books, next_hop: &NextHop, found: Found) -> Route {
        let Found { mx, candidates, host_troubles, dead_end, sts } = found;
        let candidates: Vec<CandidateExplanation> = candidates
            .into_iter()
            .map(|candidate| self.explain_candidate(books, next_hop, candidate))
            .collect();
        Route { mx, sts, candidates, host_troubles, dead_end }
    }

    fn explain_candidate(
        &self,
        books: &Books,
        next_hop: &NextHop,
        candidate: Candidate,
    ) -> CandidateExplanation {
        let now = books.now.monotonic;
        let trouble = self.reachability.trouble_with(&candidate, now).map(|known| TroubleExplanation {
            setback: known.setback.clone(),
            since: known.began,
            until: known.until,
        });
        CandidateExplanation {
            places: self.slots.places_at(&candidate),
            decisions: books.config.policies.decisions(next_hop, Some(&candidate.host)),
            trouble,
            is_slow: self.reachability.is_slow(candidate.remote, now),
            no_pipelining: self.reachability.no_pipelining(candidate.remote, now),
            candidate,
        }
    }
}

/// Counts the mail of a next hop that each line holds, which looks at all mail in the index.
fn held_of(books: &Books, hop: HopId) -> Vec<(HoldLine, usize)> {
    let mut counts: BTreeMap<u32, usize> = BTreeMap::new();
    for (_, entry) in books.queue.after(Cursor::BeforeFirst).filter(|(_, entry)| entry.hop == hop) {
        if let QueueState::Held(holder) = entry.queue_state()
            && let Some(line) = holder.line()
        {
            *counts.entry(line).or_default() += 1;
        }
    }
    counts
        .into_iter()
        .filter_map(|(line, count)| Some((books.config.hold_line(line)?.clone(), count)))
        .collect()
}

/// Counts the mail of a next hop, which looks at all mail in the index.
fn mails_of(queue: &Queue, hop: HopId) -> HopMails {
    let mut mails = HopMails::default();
    for (_, entry) in queue.after(Cursor::BeforeFirst).filter(|(_, entry)| entry.hop == hop) {
        *match entry.queue_state() {
            QueueState::Waiting(time) => {
                mails.next_due = Some(mails.next_due.map_or(time, |known| known.min(time)));
                &mut mails.waiting
            }
            QueueState::Ready | QueueState::ReadyAgain => &mut mails.ready,
            QueueState::GivenUp => &mut mails.given_up,
            QueueState::Claimed => &mut mails.claimed,
            QueueState::SetAside => &mut mails.set_aside,
            QueueState::Held(_) => &mut mails.held,
        } += 1;
    }
    mails
}
