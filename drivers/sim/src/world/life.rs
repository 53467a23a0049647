//! The life of the daemon: it starts, crashes, is drained, and starts again. And that of the world: it is healed.

use cmail_delivery::io::Input;
use cmail_delivery::next_hop::NextHop;
use cmail_delivery::time::{Duration, Instant};
use cmail_delivery::{Dispatcher, Mode, Selection};

use super::{Daemon, Happening, World};
use crate::facts::{Fact, Link};
use crate::map::Map;
use crate::mutation::Mutation;
use crate::network::ClientEnd;
use crate::options::{Faults, LONGEST_RULE_S};

/// Longest time for which mail is set aside that the database cannot process.
const LONGEST_PAUSE_S: u64 = 3600;

impl World {
    pub(super) fn start(&mut self) {
        if self.daemon.is_some() {
            return;
        }
        self.epochs += 1;
        self.outbox.release_all();
        let mut seed = [0; 32];
        for octets in seed.chunks_mut(8) {
            octets.copy_from_slice(&self.call_dice.next().to_le_bytes());
        }
        self.earlier_settings.clear();
        let settings = self.mutation.settings(self.settings.clone());
        let mode = self.draw_mode();
        self.see(Fact::Started { epoch: self.epochs, is_pass: mode != Mode::Daemon });
        let file = self.hosts_file.clone();
        self.see(Fact::HostsRead { file: &file });
        let file = self.mutation.hosts_file(file);
        let dispatcher = Dispatcher::new(self.clock.now(), settings, file, mode, seed);
        self.deadline = None;
        self.untaken_since = None;
        self.daemon = Some(Daemon { dispatcher, epoch: self.epochs, calls: 0 });
        self.take_outputs();
    }

    /// The daemon reads `/etc/hosts` again.
    pub(super) fn read_hosts_file(&mut self) {
        let file = self.hosts_file.clone();
        self.see(Fact::HostsRead { file: &file });
        if let Some(file) = self.mutation.hosts_file_again(file) {
            self.call(Input::Hosts(file));
        }
    }

    /// Mostly a daemon; sometimes a single pass comes first.
    fn draw_mode(&mut self) -> Mode {
        let may_be_odd = self.epochs > 1 && !self.is_healed;
        if !may_be_odd || !self.call_dice.chance(150) {
            return Mode::Daemon;
        }
        if self.call_dice.chance(300) {
            return Mode::GenerateBounces;
        }
        let zone = self.call_dice.index(self.map.zones.len());
        match cmail_delivery::address::Domain::parse(&Map::zone_name(zone)) {
            Ok(domain) if self.map.relays.is_empty() || self.call_dice.chance(500) => {
                Mode::Deliver(Selection::Domain(NextHop::Domain(domain)))
            }
            Ok(_) | Err(_) => {
                let relay = self.call_dice.pick(&self.map.relays);
                let specification = relay.map(|relay| relay.specification.as_bytes()).unwrap_or_default();
                Mode::Deliver(Selection::Remote(specification.into()))
            }
        }
    }

    /// Crashes the daemon, if it is time for that.
    pub(super) fn maybe_crash(&mut self) {
        match self.crashes_in {
            Some(0) => {
                self.crashes_in = None;
                self.stop(true);
            }
            Some(calls) => self.crashes_in = Some(calls - 1),
            None => {}
        }
    }

    pub(super) fn drain(&mut self) {
        if self.daemon.is_some() {
            self.see(Fact::Draining);
            self.call(Input::Drain);
        }
    }

    /// Handles the end of the dispatcher.
    pub(super) fn daemon_ends(&mut self) {
        self.stop(false);
    }

    fn stop(&mut self, crashed: bool) {
        self.deadline = None;
        if self.daemon.take().is_none() {
            return;
        }
        if self.mutation == Mutation::LosesFlights {
            self.outbox.forget_flights();
        }
        self.see(Fact::Stopped { crashed });
        let links: Vec<Link> = self
            .network
            .iter()
            .filter(|(_, connection)| connection.client != ClientEnd::Gone)
            .map(|(link, _)| link)
            .collect();
        for link in links {
            // Octets that were taken are in the socket, and are still sent.
            self.client_closes(link);
        }
        self.requests.clear();
        self.database_free_at = self.clock.instant();
        let pause_s = if self.is_healed { 1 } else { self.call_dice.within(1..=900) };
        self.clock.after(Duration::from_secs(pause_s), Happening::Start);
    }

    /// Ends all faults. Nothing new is submitted.
    pub(super) fn heal(&mut self) {
        self.faults = Faults::default();
        self.crashes_in = None;
        self.is_healed = true;
        self.outbox.clear_flaws();
        self.map.heal(self.clock.instant());
        self.down.fill(None);
        self.dns.fails_until = Instant::default();
        self.dns.silent_until = Instant::default();
        self.see(Fact::Healed);
        self.end_hold_lines();
        self.release_all();
        let bound = self.bound();
        self.clock.after(bound, Happening::Finish);
        if self.outbox.is_empty() {
            self.clock.after(Duration::from_secs(60), Happening::Finish);
        }
    }

    /// Returns how long it may take, without faults, until the last mail and the last bounce are dealt with.
    fn bound(&self) -> Duration {
        let settings = &self.settings;
        // A conversation that runs when the world is healed may wait for the longest timeout.
        let longest_conversation_s = 1800;
        let attempt_s = settings.schedule.retry_interval_s.unsigned_abs() + settings.interval.as_secs() + 120;
        let attempts = u64::from(settings.schedule.retries) + 1;
        let rows = self.outbox.len() as u64;
        // A mail, its bounce, and a conversation of a second for each on one connection.
        let mut bound_s = longest_conversation_s + 2 * attempts * attempt_s + 10 * rows;
        if !settings.schedule.rules.is_empty() {
            // The mail, and its bounce.
            bound_s += 2 * LONGEST_RULE_S;
        }
        bound_s += self.clock_lag_s();
        if self.options.faults.poison > 0 {
            bound_s += LONGEST_PAUSE_S;
        }
        if let Some(limit) = settings.policy.rate_limit {
            bound_s += 4 * attempts * rows * limit.per.as_secs() / u64::from(limit.transactions);
        }
        Duration::from_secs(2 * bound_s)
    }

    /// Returns how far the wall clock, which was set back, is behind the last failure. Until then such mail is not due.
    fn clock_lag_s(&self) -> u64 {
        let wall = self.clock.now().wall.0;
        let last_tries = self.outbox.mails().map(|(id, mail)| mail.fail_state(id).last_try.0);
        last_tries.max().map_or(0, |last| u64::try_from(last.saturating_sub(wall)).unwrap_or(0))
    }
}
