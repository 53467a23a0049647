//! What is explained is so, and what is foretold happens.
//!
//! Counts in an explanation are compared with what can be counted from outside. A time that it names is remembered: what waits for it does
//! not happen before. If nothing is under way to a next hop, the next connection goes to one of the hosts that are said to be first. A
//! person who interferes may make it different; then what was foretold no longer counts. A probe never says DATA.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use cmail_delivery::event::Event;
use cmail_delivery::explanation::{
    Activity, Explanation, HostReason, Places, Route, Subject, TurnReason, Waiting,
};
use cmail_delivery::io::Purpose;
use cmail_delivery::next_hop::NextHop;
use cmail_delivery::outbox::{MailId, RequestId, StoreRequest};
use cmail_delivery::time::{Duration, Instant, UnixTime};

use super::Checker;
use crate::facts::{Fact, Link, Scene, Verb};

/// How long the daemon may take to place all mail anew after other settings, beside two intervals.
const SLACK: Duration = Duration::from_secs(120);
/// For how long it counts which hosts are said to be first: servers and name servers get into trouble meanwhile.
const ROUTE_COUNTS: Duration = Duration::from_secs(5);
/// How long an attempt may take.
const LONGEST_ATTEMPT: Duration = Duration::from_secs(3600);
/// How long after its time mail may still be said to wait for it: the clock is read once in a call, and mail becomes ready in portions.
const GRACE_S: i64 = 5;

/// The checker of this module's invariant.
#[derive(Debug, Default)]
pub(super) struct Explanations {
    /// The open connections for mail.
    open: BTreeMap<Link, SocketAddr>,
    /// The next hops of connections.
    hops: BTreeMap<Link, NextHop>,
    /// The connections of probes.
    probes: BTreeSet<Link>,
    /// Mail that other processes have changed, which the daemon may not know yet.
    meddled: BTreeSet<MailId>,
    /// Requests about orders that are not answered.
    orders: BTreeSet<RequestId>,
    /// Until then mail may be placed anew.
    unsettled_until: Instant,
    due: BTreeMap<MailId, UnixTime>,
    pauses: BTreeMap<NextHop, Instant>,
    rates: BTreeMap<NextHop, Instant>,
    first_hosts: BTreeMap<NextHop, (Instant, Vec<SocketAddr>)>,
    /// How many explanations were judged, and how many predictions came true.
    judged: u64,
    came_true: u64,
}

impl Checker for Explanations {
    fn name(&self) -> &'static str {
        "what is explained is so"
    }

    fn see(&mut self, scene: &Scene<'_>, fact: Fact<'_>) -> Result<(), String> {
        match fact {
            Fact::Connecting { link, remote, purpose: Purpose::Smtp } => {
                self.open.insert(link, remote);
                // It was over before it was known where it led to.
                if !self.hops.contains_key(&link) {
                    self.first_hosts.clear();
                }
            }
            Fact::GoesTo { link, next_hop, is_probe: true, .. } => {
                self.hops.insert(link, next_hop.clone());
                self.probes.insert(link);
            }
            Fact::GoesTo { link, next_hop, remote, is_probe: false } => {
                return self.goes_to(scene, link, next_hop, remote);
            }
            Fact::Command { link, verb: Verb::Data, .. } if self.probes.contains(&link) => {
                return Err(format!("the probe [{link}] says DATA"));
            }
            Fact::Gone { link, .. } => {
                // Its host may be in trouble now, or not any more.
                if let Some(remote) = self.open.remove(&link) {
                    self.first_hosts.retain(|_, (_, first)| !first.contains(&remote));
                }
                self.hops.remove(&link);
                self.probes.remove(&link);
            }
            Fact::Log(Event::Yielded { .. }) | Fact::HostsRead { .. } => self.first_hosts.clear(),
            Fact::Command { link, verb: Verb::Mail, .. } => return self.mail(scene, link),
            Fact::Asked { id, request } => return self.asked(scene, id, request),
            Fact::Told { id, .. } if self.orders.remove(&id) => self.forget_predictions(),
            Fact::Meddled { id } | Fact::Removed { id } => {
                self.due.remove(&id);
                self.meddled.insert(id);
            }
            // The daemon sees the wall clock when it is called next.
            Fact::Reconfigured { .. } | Fact::WallSet { .. } => {
                self.forget_predictions();
                let settled = scene.now.monotonic + scene.settings.interval * 2 + SLACK;
                self.unsettled_until = self.unsettled_until.max(settled);
            }
            // An order awaits mail that is under way, however long that takes.
            Fact::OrderGiven { .. } => {
                self.forget_predictions();
                self.unsettled_until = scene.now.monotonic + LONGEST_ATTEMPT;
            }
            Fact::Ordered | Fact::Draining => self.forget_predictions(),
            Fact::Stopped { .. } => {
                *self = Self { judged: self.judged, came_true: self.came_true, ..Self::default() };
            }
            Fact::Explained { subject, explanation } => {
                self.judged += 1;
                return self.judge(scene, subject, explanation);
            }
            _ => {}
        }
        Ok(())
    }

    fn account(&self) -> Option<String> {
        (self.judged > 0)
            .then(|| format!("{} explanations, {} predictions came true", self.judged, self.came_true))
    }
}

impl Explanations {
    fn forget_predictions(&mut self) {
        self.due.clear();
        self.pauses.clear();
        self.rates.clear();
        self.first_hosts.clear();
    }

    /// A connection of a next hop begins.
    fn goes_to(
        &mut self,
        scene: &Scene<'_>,
        link: Link,
        next_hop: &NextHop,
        remote: SocketAddr,
    ) -> Result<(), String> {
        self.hops.insert(link, next_hop.clone());
        let now = scene.said_since;
        if let Some(until) = self.pauses.remove(next_hop) {
            if scene.now.monotonic < until {
                return Err(format!("{next_hop} is connected to, which was said to be left alone"));
            }
            self.came_true += 1;
        }
        if let Some((asked_at, first)) = self.first_hosts.remove(next_hop)
            && now < asked_at + ROUTE_COUNTS
        {
            if !first.contains(&remote) {
                return Err(format!("{next_hop} is tried at {remote}, but {first:?} were said to be first"));
            }
            self.came_true += 1;
        }
        Ok(())
    }

    /// A transaction begins.
    fn mail(&mut self, scene: &Scene<'_>, link: Link) -> Result<(), String> {
        let Some(next_hop) = self.hops.get(&link) else { return Ok(()) };
        let Some(until) = self.rates.remove(next_hop) else { return Ok(()) };
        if scene.now.monotonic < until {
            return Err(format!(
                "a transaction with {next_hop} begins, which was said to wait for the rate limit"
            ));
        }
        self.came_true += 1;
        Ok(())
    }

    fn asked(&mut self, scene: &Scene<'_>, id: RequestId, request: &StoreRequest) -> Result<(), String> {
        match request {
            StoreRequest::Claim { ids, .. } => {
                for id in ids {
                    let Some(due) = self.due.remove(id) else { continue };
                    // Times are told in whole seconds, rounded up: a look at the outbox may find the mail in the second before.
                    if scene.now.wall.0 + 1 < due.0 {
                        return Err(format!(
                            "mail {id} is tried before the time that it was said to wait for"
                        ));
                    }
                    self.came_true += 1;
                }
            }
            StoreRequest::ReadOrders { .. } | StoreRequest::CarryOut(_) => {
                self.orders.insert(id);
                self.forget_predictions();
            }
            _ => {}
        }
        Ok(())
    }

    fn judge(
        &mut self,
        scene: &Scene<'_>,
        subject: &Subject,
        explanation: &Explanation,
    ) -> Result<(), String> {
        // What is counted from outside may be later than what was said.
        if scene.said_since != scene.now.monotonic {
            return Ok(());
        }
        if let Some(destination) = &explanation.destination {
            let hop = &destination.next_hop;
            self.judge_activity(hop, &destination.activity)?;
            self.is_used("connections in total", destination.limits.all, self.open.len())?;
            let of_hop = self.hops.values().filter(|other| *other == hop).count();
            self.is_used(&format!("connections of {hop}"), destination.limits.destination, of_hop)?;
            if destination.mails.ready > 0 && destination.activity == Activity::Nothing {
                return Err(format!("mail to {hop} is ready, and nothing is said to be done about it"));
            }
            if let Some(route) = &destination.route {
                self.judge_route(scene, hop, &destination.activity, route)?;
            }
        }
        match (subject, &explanation.mail) {
            (Subject::Mail(id), Some(waiting)) => self.judge_mail(scene, *id, waiting),
            (Subject::NextHop(_), None) => Ok(()),
            (subject, mail) => Err(format!("{subject:?} is explained by {mail:?}")),
        }
    }

    fn judge_mail(&mut self, scene: &Scene<'_>, id: MailId, waiting: &Waiting) -> Result<(), String> {
        match waiting {
            Waiting::ForTime(time) => {
                if scene.now.monotonic < self.unsettled_until || !self.orders.is_empty() {
                    return Ok(());
                }
                if scene.now.wall.0 > time.0 + GRACE_S {
                    return Err(format!("mail {id} is said to wait for a time that has passed"));
                }
                if !self.meddled.contains(&id) {
                    self.due.insert(id, *time);
                }
                Ok(())
            }
            Waiting::ForServer { connection, candidate, .. } => {
                let is_open =
                    self.open.iter().any(|(link, to)| link.id == *connection && *to == candidate.remote);
                if is_open { Ok(()) } else { Err(format!("mail {id} is said to be on a closed connection")) }
            }
            Waiting::ForDestination(Activity::Nothing) => {
                Err(format!("mail {id} is ready, and nothing is said to be done about it"))
            }
            _ => Ok(()),
        }
    }

    fn judge_activity(&mut self, hop: &NextHop, activity: &Activity) -> Result<(), String> {
        let to = |remote: SocketAddr| self.open.values().filter(|other| **other == remote).count();
        match activity {
            Activity::ForPause { until, .. } if self.orders.is_empty() => {
                self.pauses.insert(hop.clone(), *until);
            }
            Activity::ForRate(until) => drop(self.rates.insert(hop.clone(), *until)),
            Activity::ForConnection(places) => {
                self.is_used("connections", *places, self.open.len())?;
                is_full(hop, *places)?;
            }
            Activity::ForHost { candidate, why: Some(HostReason::Full(places)) } => {
                self.is_used("connections to a host", *places, to(candidate.remote))?;
                is_full(hop, *places)?;
            }
            Activity::ForHost { candidate, why: Some(HostReason::OnTrial) } if to(candidate.remote) == 0 => {
                return Err(format!("{hop} is said to wait for a connection that is not there"));
            }
            Activity::ForHost { why: Some(HostReason::LastResorts(places)), .. }
            | Activity::ForTurn(TurnReason::TooMany(places) | TurnReason::NameServers(places)) => {
                is_full(hop, *places)?;
            }
            Activity::UnderWay { connecting, busy, resting, .. } => {
                let of_mail = self.hops.iter().filter(|(link, _)| !self.probes.contains(link));
                let count = of_mail.filter(|(_, other)| *other == hop).count();
                if connecting + busy + resting != count {
                    return Err(format!(
                        "{hop} has {count} connections, but {connecting}, {busy} and {resting} are told"
                    ));
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn judge_route(
        &mut self,
        scene: &Scene<'_>,
        hop: &NextHop,
        activity: &Activity,
        route: &Route,
    ) -> Result<(), String> {
        self.first_hosts.remove(hop);
        let preference = |host: &str| {
            let records = route.mx.iter().filter(|(_, name)| name.as_str() == host);
            records.map(|(preference, _)| *preference).min()
        };
        let Some(first) = route.candidates.first() else { return Ok(()) };
        // What is in trouble now may not be when it is tried.
        let is_stable = route.host_troubles.is_empty()
            && !route.candidates.iter().any(|candidate| candidate.is_last_resort());
        if *activity != Activity::Nothing || !is_stable {
            return Ok(());
        }
        let best = preference(&first.candidate.host.to_string());
        let is_first = |candidate: &SocketAddr, host: &str| {
            candidate.port() == first.candidate.remote.port() && preference(host) == best
        };
        let all = route.candidates.iter().map(|known| &known.candidate);
        let remotes: Vec<SocketAddr> = all
            .filter(|known| is_first(&known.remote, &known.host.to_string()))
            .map(|known| known.remote)
            .collect();
        self.first_hosts.insert(hop.clone(), (scene.now.monotonic, remotes));
        Ok(())
    }

    fn is_used(&self, what: &str, places: Places, counted: usize) -> Result<(), String> {
        if places.used == counted {
            return Ok(());
        }
        Err(format!("{} {what} are told, and {counted} are open", places.used))
    }
}

fn is_full(hop: &NextHop, places: Places) -> Result<(), String> {
    if places.used >= places.limit {
        return Ok(());
    }
    let Places { used, limit } = places;
    Err(format!("{hop} is said to wait because {used} of {limit} places are taken"))
}
