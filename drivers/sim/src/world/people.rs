//! Other processes, administrators, and events that come by themselves.

use bytes::Bytes;
use cmail_delivery::dkim::SignMark;
use cmail_delivery::dsn::{DsnWishes, EnvelopeId, MessageWishes, Notify, OriginalRecipient, ReturnExtent};
use cmail_delivery::hold::Hold;
use cmail_delivery::io::Input;
use cmail_delivery::memory_outbox::{Flaw, GivenOrder, Mail};
use cmail_delivery::order::OrderVerb;
use cmail_delivery::outbox::{FaillogRow, MailId};
use cmail_delivery::time::{Duration, UnixTime};
use cmail_delivery::watch::Watch;

use super::{Down, Happening, World};
use crate::dice::Dice;
use crate::facts::{Fact, Origin};
use crate::host_keys::KeyStep;
use crate::map::Map;
use crate::mutation::Mutation;

/// Invalid recipients.
const MALFORMED_RECIPIENTS: [&str; 5] =
    ["", "nobody-at-all", "a b@zone0.example", "x@", "line\r\nRCPT TO:<evil@zone0.example>@zone0.example"];
/// Invalid remote specifications.
const MALFORMED_REMOTES: [&str; 4] = ["", "host:0", "user@host", "host:25/ssl"];

/// Numbers of keys above this are not those that hosts have at first.
const LATER_KEYS: u64 = 1 << 32;

impl World {
    /// Draws the events of the hour that begins.
    pub(super) fn hour(&mut self) {
        if self.is_healed {
            return;
        }
        self.clock.after(Duration::from_secs(3600), Happening::Hour);
        let faults = self.faults.clone();
        self.draw(faults.crashes, || Happening::Crash);
        self.draw(faults.drains, || Happening::Drain);
        self.draw(faults.meddling, || Happening::Meddle);
        self.draw(faults.retries, || Happening::TryNow);
        if faults.orders > 0 {
            self.draw(faults.orders, || Happening::Order);
        }
        self.draw(faults.retries, || Happening::Reload);
        self.draw(faults.clock_jumps, || Happening::SetWall);
        self.draw(faults.outages, || Happening::HostFails { group: false });
        self.draw(faults.group_outages, || Happening::HostFails { group: true });
        self.draw(faults.dns_spells, || Happening::DnsFails);
        self.draw(faults.dns_silences, || Happening::DnsFallsSilent);
        if faults.rollovers > 0 {
            self.draw(faults.rollovers, || Happening::KeyRolls);
        }
        if faults.reconfigurations > 0 {
            self.draw(faults.reconfigurations, || Happening::Reconfigure);
        }
    }

    /// Lets something happen within the hour, this many thousandths of times.
    fn draw(&mut self, permille: u32, happening: impl Fn() -> Happening) {
        let times = permille / 1000 + u32::from(self.people_dice.chance(permille % 1000));
        for _ in 0..times {
            let after = Duration::from_micros(self.people_dice.below(3_600_000_000));
            self.clock.after(after, happening());
        }
    }

    pub(super) fn submit(&mut self) {
        let is_enough = self.options.messages > 0 && self.messages >= u64::from(self.options.messages);
        if self.is_healed || is_enough {
            return;
        }
        let mean_us = 3_600_000_000 / u64::from(self.options.messages_per_hour.max(1));
        let pause = Duration::from_micros(self.people_dice.below(2 * mean_us));
        self.clock.after(pause, Happening::Submit);
        self.messages += 1;
        let data = self.draw_data();
        let dice = &mut self.people_dice;
        let sender = match dice.below(20) {
            0 => None,
            1 => Some(Bytes::new()),
            2 => Some(Bytes::from_static(b"nobody@zone0.example")),
            _ => {
                let zone = Map::zone_name(dice.index(self.map.zones.len()));
                Some(format!("s{}@{zone}", dice.below(10)).into())
            }
        };
        let count = 1 + dice.below(u64::from(self.options.recipients));
        let zone = dice.index(self.map.zones.len());
        for _ in 0..count {
            self.recipients += 1;
            let mail = self.draw_mail(sender.clone(), zone, data.clone());
            let Ok(id) = self.outbox.insert(mail) else { continue };
            if self.people_dice.chance(self.faults.poison)
                && let Some(flaw) = self.people_dice.pick(&[
                    Flaw::Unrecordable,
                    Flaw::Unrecordable,
                    Flaw::DataUnreadable,
                    Flaw::Unreadable,
                ])
            {
                self.outbox.set_flaw(id, Some(*flaw));
            }
            self.see(Fact::Inserted { id, origin: Origin::Submitted });
        }
        // A daemon that does not notice finds it at the next scan.
        if self.people_dice.chance(500) {
            self.call(Input::OutboxChanged);
        }
    }

    fn draw_mail(&mut self, sender: Option<Bytes>, zone: usize, data: Bytes) -> Mail {
        let dice = &mut self.people_dice;
        let mark = self.recipients;
        let zone = if dice.chance(700) { zone } else { dice.index(self.map.zones.len()) };
        let mut zone_name = Map::zone_name(zone);
        if dice.chance(100) {
            zone_name = zone_name.to_ascii_uppercase();
        }
        if self.map.has_literals
            && dice.chance(20)
            && let Some(address) = self.map.draw_literal(dice)
        {
            zone_name = format!("[{address}]");
        }
        let local = if dice.chance(50) { "nobody-" } else { "" };
        let mut recipient = format!("{local}zr{mark}z@{zone_name}");
        let relay = dice.pick(&self.map.relays).filter(|_| dice.chance(300));
        let mut remote = relay.map(|relay| relay.specification.clone());
        if dice.chance(self.options.malformed) {
            match dice.below(2) {
                0 => recipient = dice.pick(&MALFORMED_RECIPIENTS).copied().unwrap_or_default().to_owned(),
                _ => remote = dice.pick(&MALFORMED_REMOTES).map(|remote| (*remote).to_owned()),
            }
        }
        let mut wishes = draw_wishes(dice);
        if self.options.dkim > 0 && dice.chance(500) {
            wishes.message.sign = SignMark::Wanted;
        }
        Mail {
            remote: remote.map(|remote| remote.into_bytes().into()),
            sender,
            recipient: recipient.into(),
            submission: self.clock.now().wall,
            data,
            faillog: vec![],
            last_failure: None,
            hold: Hold::default(),
            wishes,
        }
    }

    /// Returns a message with a mark of its own, and with everything that is awkward in mail data.
    fn draw_data(&mut self) -> Bytes {
        let dice = &mut self.people_dice;
        let mark = self.messages;
        if dice.chance(10) {
            return Bytes::new();
        }
        let mut data = format!("Message-ID: <zt{mark}z@sim.example>\r\nSubject: zt{mark}z\r\n").into_bytes();
        if self.options.dkim > 0 && dice.chance(800) {
            let zone = Map::zone_name(dice.index(3));
            data.extend_from_slice(format!("From: somebody\r\n <s@{zone}>\r\n").as_bytes());
        }
        data.extend_from_slice(b"\r\n");
        let lines: [&[u8]; 8] = [
            b"text\r\n",
            b".\r\n",
            b"..\n",
            b"a\rb\r\n",
            b"\n",
            b"8-bit \xe4\xff\x00\r\n",
            b"\r\r\n",
            b".dot\n",
        ];
        let count = if dice.chance(self.options.large_messages) {
            dice.within(20_000..=60_000)
        } else {
            dice.below(12)
        };
        for _ in 0..count {
            data.extend_from_slice(dice.pick(&lines).copied().unwrap_or_default());
        }
        if dice.chance(300) {
            data.extend_from_slice(format!("no line end zt{mark}z").as_bytes());
        }
        data.into()
    }

    /// Another process deletes or changes a row, or its faillog.
    pub(super) fn meddle(&mut self) {
        if self.is_healed {
            return;
        }
        let dice = &mut self.people_dice;
        let number = dice.index(self.outbox.len());
        let Some((id, _)) = self.outbox.mails().nth(number) else { return };
        match dice.below(5) {
            4 => {
                // It reuses the id of a removed mail, as when a backup is restored.
                let zone = dice.index(self.map.zones.len());
                let data = self.draw_data();
                self.messages += 1;
                self.recipients += 1;
                let sender = Bytes::from_static(b"other@zone0.example");
                let mail = self.draw_mail(Some(sender), zone, data);
                self.outbox.put(id, mail);
                self.see(Fact::Removed { id });
                self.see(Fact::Inserted { id, origin: Origin::Submitted });
            }
            0 => {
                self.outbox.remove(id);
                self.see(Fact::Removed { id });
            }
            1 => self.change(id, |mail| mail.faillog.clear()),
            2 => {
                let relay = dice.pick(&self.map.relays).map(|relay| relay.specification.clone());
                self.change(id, |mail| mail.remote = relay.map(|relay| relay.into_bytes().into()));
            }
            _ => {
                let time = self.clock.now().wall;
                let attempt =
                    FaillogRow { time: UnixTime(time.0 - 100), text: b"by hand"[..].into(), fatal: false };
                self.change(id, |mail| mail.faillog.push(attempt));
            }
        }
        if self.people_dice.chance(500) {
            self.call(Input::OutboxChanged);
        }
    }

    fn change(&mut self, id: MailId, change: impl FnOnce(&mut Mail)) {
        self.outbox.mail_mut(id).map(change);
        self.see(Fact::Meddled { id });
    }

    pub(super) fn try_now(&mut self) {
        if !self.is_healed && self.daemon.is_some() {
            self.see(Fact::Ordered);
            self.call(Input::TryNow);
            if self.mutation == Mutation::KeepsOrders {
                self.clock.after(Duration::from_secs(20), Happening::OrderAgain);
            }
        }
    }

    /// The administrator gives an order about some mail, perhaps about all.
    pub(super) fn order(&mut self) {
        if self.is_healed {
            return;
        }
        let dice = &mut self.people_dice;
        let verbs = [
            OrderVerb::Hold,
            OrderVerb::Hold,
            OrderVerb::Release,
            OrderVerb::Retry,
            OrderVerb::RetryAnew,
            OrderVerb::Fail,
            OrderVerb::Drop,
            OrderVerb::Redirect,
        ];
        let verb = dice.pick(&verbs).copied().unwrap_or(OrderVerb::Release);
        let share = [50, 300, 1000].get(dice.index(3)).copied().unwrap_or(1000);
        let mut mails: Vec<MailId> = self.outbox.mails().map(|(id, _)| id).collect();
        mails.retain(|_| dice.chance(share));
        let relay = dice.pick(&self.map.relays).map(|relay| relay.specification.clone());
        let remote = relay.map(|relay| relay.into_bytes().into());
        let mut order = GivenOrder::new(verb, mails);
        order.remote = remote;
        self.give(order);
    }

    /// Releases everything, so that it can come to its end.
    pub(super) fn release_all(&mut self) {
        let mails: Vec<MailId> = self.outbox.mails().map(|(id, _)| id).collect();
        self.give(GivenOrder::new(OrderVerb::Release, mails));
    }

    fn give(&mut self, order: GivenOrder) {
        let number = self.outbox.order(order);
        self.see(Fact::OrderGiven { number });
        if self.people_dice.chance(500) {
            self.call(Input::OutboxChanged);
        }
    }

    /// Acts for a build that keeps orders as if there were a further one.
    pub(super) fn order_again(&mut self) {
        self.call(Input::TryNow);
    }

    /// Reads `/etc/hosts` and the name servers again, which may have changed. Somebody may begin or cease to watch.
    pub(super) fn reload(&mut self) {
        if self.is_healed || self.daemon.is_none() {
            return;
        }
        if self.people_dice.chance(500) {
            let watches = self.people_dice.chance(700);
            self.call(Input::Watch(if watches { Watch::Everything } else { Watch::Nothing }));
        }
        if self.people_dice.chance(500) {
            self.hosts_file = self.map.draw_hosts_file(&mut self.people_dice);
        }
        self.read_hosts_file();
        let mut resolver = self.settings.resolver.clone();
        if self.people_dice.chance(500) {
            resolver.servers.rotate_left(1);
            resolver.attempts += 1;
        }
        self.call(Input::Resolver(resolver));
        // An administrator who has repaired something wants to see it work.
        self.try_now();
    }

    /// The administrator changes what may be changed while the daemon runs.
    pub(super) fn reconfigure(&mut self) {
        if self.is_healed {
            return;
        }
        self.options.redraw_settings(&mut self.people_dice);
        self.take_settings();
    }

    /// The administrator takes away the lines that hold mail, so that it can come to its end.
    pub(super) fn end_hold_lines(&mut self) {
        if self.options.hold_lines != 0 {
            self.options.hold_lines = 0;
            self.take_settings();
        }
    }

    /// The settings become those of the options.
    fn take_settings(&mut self) {
        let before = std::mem::replace(&mut self.settings, self.options.settings());
        if self.daemon.is_none() {
            return;
        }
        self.earlier_settings.push((self.clock.instant(), before));
        let settings = self.settings.clone();
        self.see(Fact::Reconfigured { settings: &settings });
        if let Some(settings) = self.mutation.new_settings(settings) {
            self.call(Input::Settings(Box::new(settings)));
        }
    }

    pub(super) fn set_wall(&mut self) {
        if self.is_healed {
            return;
        }
        let choices: [i64; 5] = [-7200, -5, 5, 3600, 100_000];
        let by_s = self.people_dice.pick(&choices).copied().unwrap_or(0);
        self.clock.set_wall(by_s);
        self.see(Fact::WallSet { by_s });
    }

    pub(super) fn host_fails(&mut self, group: bool) {
        if self.is_healed {
            return;
        }
        let dice = &mut self.people_dice;
        let span = Duration::from_secs(dice.within(10..=20_000));
        let kind = dice.pick(&[Down::Refuses, Down::Swallows, Down::Unreachable]).copied();
        let chosen = dice.index(self.map.hosts.len());
        let group = self.map.hosts.get(chosen).map(|host| host.group).filter(|_| group);
        for number in 0..self.map.hosts.len() {
            let is_in_group = group.is_some() && self.map.hosts.get(number).map(|host| host.group) == group;
            if number != chosen && !is_in_group {
                continue;
            }
            if let Some(down) = self.down.get_mut(number) {
                *down = kind;
            }
            self.break_connections(number);
            self.clock.after(span, Happening::HostReturns(number));
        }
        let kinds =
            self.map.hosts.get(chosen).map(|host| format!("{} ({})", host.name, host.temperament.kind));
        self.remark(&format!("{} and its like fail for {} s", kinds.unwrap_or_default(), span.as_secs()));
    }

    /// A host that has TLSA records replaces its key.
    pub(super) fn key_rolls(&mut self) {
        let host = self.people_dice.index(self.map.hosts.len());
        let Some(keys) = self.map.hosts.get(host).map(|host| &host.keys) else { return };
        if self.is_healed || keys.named() != [keys.shown()] {
            return;
        }
        self.later_keys += 1;
        let key = LATER_KEYS + self.later_keys;
        for (after, step) in keys.draw_rollover(key, &mut self.people_dice) {
            self.clock.after(after, Happening::Rekey(host, step));
        }
    }

    pub(super) fn rekey(&mut self, host: usize, step: KeyStep) {
        let now = self.clock.instant();
        if self.is_healed {
            return;
        }
        if let Some(host) = self.map.hosts.get_mut(host) {
            let name = host.name.clone();
            host.keys.take(now, step.clone());
            self.remark(&format!("{name} replaces its key: {step:?}"));
        }
    }

    pub(super) fn host_returns(&mut self, host: usize) {
        if let Some(down) = self.down.get_mut(host) {
            *down = None;
        }
    }

    pub(super) fn dns_falls_silent(&mut self) {
        let span = Duration::from_secs(self.people_dice.within(10..=10_000));
        if !self.is_healed {
            self.dns.silent_until = self.clock.instant() + span;
        }
    }

    pub(super) fn dns_fails(&mut self) {
        let span = Duration::from_secs(self.people_dice.within(10..=20_000));
        if !self.is_healed {
            self.dns.fails_until = self.clock.instant() + span;
        }
    }
}

/// A recipient as a sender has written it, with everything that must be encoded. It is nobody's: bounces may name it.
const ORIGINAL_RECIPIENT: &str = "rfc822;was+else <a=b>@sim.example";

/// Draws what a sender wants to be told. Most say nothing.
fn draw_wishes(dice: &mut Dice) -> DsnWishes {
    if dice.chance(700) {
        return DsnWishes::default();
    }
    let events = [dice.chance(500), dice.chance(500), dice.chance(500)];
    let notify = Notify { success: events[0], failure: events[1], delay: events[2] };
    let extents = [None, Some(ReturnExtent::Full), Some(ReturnExtent::Headers)];
    // Few, so that some mails of a message have the same.
    let ids = [None, EnvelopeId::parse("one+two = 3").ok(), EnvelopeId::parse("x").ok()];
    DsnWishes {
        notify: Some(notify).filter(|_| dice.chance(800)),
        original_recipient: OriginalRecipient::parse(ORIGINAL_RECIPIENT).ok().filter(|_| dice.chance(300)),
        message: MessageWishes {
            extent: dice.pick(&extents).copied().flatten(),
            envelope_id: dice.pick(&ids).cloned().flatten(),
            ..MessageWishes::default()
        },
    }
}
