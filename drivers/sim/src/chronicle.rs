//! Keeps the conversations on all connections, so that those of a broken rule can be written as a transcript.

use std::collections::{BTreeMap, BTreeSet};

use cmail_delivery::io::Purpose;
use cmail_delivery::memory_outbox::Mail;
use cmail_delivery::next_hop::{Port, Relay, TlsMode};
use cmail_delivery::outbox::{Claimed, MailId, StoreReply};
use cmail_delivery::settings::Hosts;
use cmail_delivery::time::{Duration, Instant};

use crate::facts::{Fact, Link, Parting, Scene};
use crate::map::{Map, Zone};
use crate::quoted::quote;
use crate::talk::Talk;

/// Most connections in a transcript: the last ones.
const TALKS_LIMIT: usize = 20;
/// Connections in a transcript if the rule concerns none of them.
const LAST_TALKS: usize = 3;
/// Most mails in a transcript.
const MAILS_LIMIT: usize = 50;
/// Shortest pause between two lines that is written.
const PAUSE: Duration = Duration::from_secs(1);

/// A line of a transcript.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Line {
    pub(crate) text: String,
    /// True if the world gives it; otherwise it is observed.
    pub(crate) is_given: bool,
}

/// The lines that may concern the violation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Story {
    pub(crate) scene: Vec<String>,
    pub(crate) lines: Vec<Line>,
}

/// The observed conversations.
#[derive(Debug, Default)]
pub(crate) struct Chronicle {
    mails: BTreeMap<MailId, Mail>,
    talks: BTreeMap<Link, Account>,
    /// Incidents beside connections.
    incidents: Vec<(Instant, Line)>,
    hosts_file: Hosts,
    story: Option<Story>,
}

/// One connection.
#[derive(Debug)]
struct Account {
    talk: Talk,
    lines: Vec<(Instant, Line)>,
    /// The beginning of an unfinished line of the server.
    heard: Vec<u8>,
    is_over: bool,
    /// The recipients of RCPT, in lower case.
    recipients: BTreeSet<String>,
}

impl Chronicle {
    /// Records a fact.
    #[allow(clippy::wildcard_enum_match_arm, reason = "what is not here is in no transcript")]
    pub(crate) fn write(&mut self, scene: &Scene<'_>, fact: Fact<'_>) {
        let now = scene.now.monotonic;
        match fact {
            Fact::Inserted { id, .. } => {
                self.mails.extend(scene.outbox.mail(id).map(|mail| (id, mail.clone())));
            }
            Fact::Stopped { crashed: true } => {
                self.incidents.push((now, given("! crash")));
                self.talks.values_mut().for_each(|account| account.is_over = true);
            }
            Fact::HostsRead { file } => self.hosts_file = file.clone(),
            Fact::Draining => self.incidents.push((now, given("! drain"))),
            Fact::Ordered => self.incidents.push((now, given("! try-now"))),
            Fact::Connecting { link, remote, purpose: Purpose::Smtp } => {
                let account = Account {
                    talk: Talk::new(),
                    lines: vec![(now, observed(format!("C+ {remote}")))],
                    heard: Vec::new(),
                    is_over: false,
                    recipients: BTreeSet::new(),
                };
                self.talks.insert(link, account);
            }
            Fact::StartTls { link, .. } => self.add(link, now, observed("C^ the server".into())),
            Fact::TlsEstablished { link, shown } => {
                self.add(link, now, given(if shown.is_valid { "! tls" } else { "! tls-unverified" }));
                if let Some(account) = self.talks.get_mut(&link) {
                    account.talk.tls_established();
                }
            }
            Fact::Sent { link, octets, .. } => self.sent(link, now, octets),
            Fact::Received { link, octets } => self.received(link, now, octets),
            Fact::Gone { link, parting } => self.gone(link, now, parting),
            _ => {}
        }
    }

    /// Concludes the chronicle, because this fact has broken a rule.
    pub(crate) fn conclude(&mut self, scene: &Scene<'_>, fact: Fact<'_>) {
        let (mut ids, mut links) = subject(scene, fact);
        for id in &ids {
            let Some(recipient) = self.mails.get(id).map(|mail| folded(&mail.recipient)) else { continue };
            let spoke = self.talks.iter().filter(|(_, account)| account.recipients.contains(&recipient));
            links.extend(spoke.map(|(&link, _)| link));
        }
        // The fault of a connection may be that there is one too many.
        if links.is_empty() || matches!(fact, Fact::Connecting { .. }) {
            links.extend(self.talks.keys().rev().take(LAST_TALKS));
        }
        let links: BTreeSet<Link> = links.into_iter().rev().take(TALKS_LIMIT).collect();
        let accounts = || links.iter().filter_map(|link| self.talks.get(link));
        let named: BTreeSet<&String> = accounts().flat_map(|account| &account.recipients).collect();
        let is_named = |mail: &Mail| named.contains(&folded(&mail.recipient));
        ids.extend(self.mails.iter().filter(|(_, mail)| is_named(mail)).map(|(&id, _)| id));
        if ids.is_empty() {
            ids.extend(self.mails.keys());
        }
        let mails: Vec<(MailId, &Mail)> = ids
            .iter()
            .filter_map(|&id| self.mails.get(&id).map(|mail| (id, mail)))
            .take(MAILS_LIMIT)
            .collect();
        let scene = scene_lines(scene, &mails, &self.hosts_file);
        self.story = Some(Story { scene, lines: self.lines(&links) });
    }

    /// Returns the story, if a rule was broken.
    pub(crate) fn into_story(self) -> Option<Story> {
        self.story
    }

    fn add(&mut self, link: Link, now: Instant, line: Line) {
        if let Some(account) = self.talks.get_mut(&link).filter(|account| !account.is_over) {
            account.flush(now);
            account.lines.push((now, line));
        }
    }

    fn sent(&mut self, link: Link, now: Instant, octets: &[u8]) {
        let Some(account) = self.talks.get_mut(&link) else { return };
        account.flush(now);
        for text in account.talk.sent(octets) {
            let path = text.strip_prefix("C: RCPT TO:<").and_then(|rest| rest.split_once('>'));
            account.recipients.extend(path.map(|(path, _)| path.to_ascii_lowercase()));
            account.lines.push((now, observed(text)));
        }
    }

    fn received(&mut self, link: Link, now: Instant, octets: &[u8]) {
        let Some(account) = self.talks.get_mut(&link) else { return };
        account.talk.received(octets);
        account.heard.extend_from_slice(octets);
        while let Some(end) = account.heard.iter().position(|&octet| octet == b'\n') {
            let line: Vec<u8> = account.heard.drain(..=end).collect();
            account.lines.push((now, server_line(&line)));
        }
    }

    fn gone(&mut self, link: Link, now: Instant, parting: Parting) {
        let left = self.talks.get_mut(&link).filter(|account| !account.is_over);
        let left = left.and_then(|account| account.talk.end());
        let line = match parting {
            Parting::Closed => observed("C-".into()),
            Parting::Refused => given("! refused"),
            Parting::Unreachable => given("! unreachable"),
            Parting::Local => given("! local"),
            Parting::TlsFailed => given("! tls-failed"),
            Parting::EndOfFile => given("! eof"),
            Parting::Reset | Parting::TlsDropped => given("! reset"),
        };
        let is_lost = line.is_given;
        // Only the end of the connection shows what is left unfinished.
        let left = left.map(observed);
        let lines = if is_lost { [Some(line), left] } else { [left, Some(line)] };
        lines.into_iter().flatten().for_each(|line| self.add(link, now, line));
        if let Some(account) = self.talks.get_mut(&link) {
            account.is_over = true;
        }
    }

    /// Returns the conversations on these connections, one after the other, with the incidents meanwhile.
    fn lines(&self, links: &BTreeSet<Link>) -> Vec<Line> {
        let mut lines = Vec::new();
        let mut incidents = self.incidents.iter().peekable();
        let accounts = links.iter().filter_map(|link| self.talks.get(link));
        let mut last: Option<Instant> = None;
        for (at, line) in accounts.flat_map(|account| &account.lines) {
            while let Some((happened_at, incident)) = incidents.next_if(|(happened_at, _)| happened_at < at) {
                if last.is_some() {
                    pass(&mut last, *happened_at, &mut lines);
                    lines.push(incident.clone());
                }
            }
            pass(&mut last, *at, &mut lines);
            lines.push(line.clone());
        }
        lines
    }
}

impl Account {
    /// Writes the unfinished line of the server.
    fn flush(&mut self, now: Instant) {
        if !self.heard.is_empty() {
            let heard = std::mem::take(&mut self.heard);
            self.lines.push((now, given(&format!("S| {}", quote(&heard)))));
        }
    }
}

/// Writes the time that passes until something happens.
fn pass(last: &mut Option<Instant>, at: Instant, lines: &mut Vec<Line>) {
    let passed = last.map_or(Duration::ZERO, |last| at.saturating_duration_since(last));
    if passed >= PAUSE {
        lines.push(given(&format!("+ {}ms", passed.as_millis())));
    }
    *last = Some(last.map_or(at, |last| last.max(at)));
}

fn given(text: &str) -> Line {
    Line { text: text.to_owned(), is_given: true }
}

fn observed(text: String) -> Line {
    Line { text, is_given: false }
}

fn server_line(line: &[u8]) -> Line {
    let text = line.strip_suffix(b"\r\n").and_then(|text| std::str::from_utf8(text).ok());
    match text.filter(|text| text.bytes().all(|octet| octet == b' ' || octet.is_ascii_graphic())) {
        Some(text) => given(&format!("S: {text}")),
        None => given(&format!("S| {}", quote(line))),
    }
}

fn folded(octets: &[u8]) -> String {
    String::from_utf8_lossy(octets).to_ascii_lowercase()
}

/// Returns the mails and connections that a fact concerns.
#[allow(clippy::wildcard_enum_match_arm, reason = "what is about neither is of no interest here")]
fn subject(scene: &Scene<'_>, fact: Fact<'_>) -> (BTreeSet<MailId>, BTreeSet<Link>) {
    let mut ids = BTreeSet::new();
    let mut links = BTreeSet::new();
    match fact {
        Fact::Committing { commit, .. } => {
            ids.extend(commit.ids());
        }
        Fact::Accepted { link, recipients, .. } => {
            links.insert(link);
            let is_one = |mail: &Mail| recipients.iter().any(|other| other.as_bytes() == &*mail.recipient);
            ids.extend(scene.outbox.mails().filter(|(_, mail)| is_one(mail)).map(|(id, _)| id));
        }
        Fact::Answered { reply: StoreReply::Claimed(Claimed { transactions, .. }) } => {
            ids.extend(transactions.iter().flat_map(|claimed| &claimed.rows).map(|row| row.id));
        }
        Fact::Inserted { id, .. } | Fact::Meddled { id } => {
            ids.insert(id);
        }
        Fact::Connecting { link, .. }
        | Fact::Gone { link, .. }
        | Fact::StartTls { link, .. }
        | Fact::TlsEstablished { link, .. }
        | Fact::Sent { link, .. }
        | Fact::Received { link, .. }
        | Fact::Command { link, .. }
        | Fact::FinalDot { link, .. }
        | Fact::Reply { link, .. } => {
            links.insert(link);
        }
        _ => {}
    }
    (ids, links)
}

/// Returns the scene that leads these mails where they went.
fn scene_lines(scene: &Scene<'_>, mails: &[(MailId, &Mail)], file: &Hosts) -> Vec<String> {
    let settings = scene.settings;
    let mut lines = vec![
        format!("@ announce {}", settings.announce),
        format!("@ set interval {}", settings.interval.as_secs()),
        format!("@ set retries {}", settings.schedule.retries),
        format!("@ set retryinterval {}", settings.schedule.retry_interval_s),
        format!("@ set bounce_return_limit {}", settings.bounces.return_limit_octets),
        format!("@ set connection_idle {}", settings.policy.idle.as_secs()),
    ];
    lines.extend(settings.bounces.copies.iter().map(|copy| format!("@ set bounce_copy {copy}")));
    if settings.auth_insecure {
        lines.push("@ set auth_insecure yes".into());
    }
    let ports: Vec<String> = settings.policy.ports.iter().map(|port| port_text(*port)).collect();
    lines.push(format!("@ portprio {}", ports.join(" ")));
    let hosts: BTreeSet<String> =
        mails.iter().flat_map(|(_, mail)| zone_lines(scene.map, mail).into_iter().flatten()).collect();
    lines.extend(file.iter().map(|(name, addresses)| {
        let addresses: Vec<String> = addresses.iter().map(ToString::to_string).collect();
        format!("@ hosts {name} {}", addresses.join(" "))
    }));
    // Hosts come before the domains that lead to them: "host" is less than "mx".
    lines.extend(hosts);
    let mut remote = None;
    for (id, mail) in mails {
        let words = (mail.remote.as_deref(), &*mail.recipient, mail.sender.as_deref().unwrap_or_default());
        let (None | Some(Ok(_)), Ok(recipient), Ok(sender)) =
            (words.0.map(std::str::from_utf8), std::str::from_utf8(words.1), std::str::from_utf8(words.2))
        else {
            continue;
        };
        // Values that would end a line or a path cannot be written.
        let all = [words.0.unwrap_or_default(), words.1, words.2].concat();
        if all.iter().any(u8::is_ascii_control) || recipient.contains("> ") || sender.contains("> ") {
            continue;
        }
        let wanted = words.0.map_or("-".into(), String::from_utf8_lossy);
        if remote.as_ref() != Some(&wanted) {
            lines.push(format!("@ remote {wanted}"));
            remote = Some(wanted);
        }
        lines.push(format!("@ mail {id} <{sender}> <{recipient}> {}", quote(&mail.data)));
    }
    lines
}

fn port_text(port: Port) -> String {
    let mode = match port.tls {
        TlsMode::Plain => "",
        TlsMode::StartTls => "@starttls",
        TlsMode::Implicit => "@tls",
    };
    format!("{}{mode}", port.number)
}

/// Returns the DNS records that lead a mail to its host.
fn zone_lines(map: &Map, mail: &Mail) -> Vec<Option<String>> {
    let host_line = |name: &str, number: usize| {
        let host = map.hosts.get(number)?;
        let addresses: Vec<String> = host.addresses.iter().map(ToString::to_string).collect();
        Some(format!("@ host {name} {}", addresses.join(" ")))
    };
    let named = |number: usize| host_line(&map.hosts.get(number)?.name, number);
    if let Some(remote) = &mail.remote {
        let relay = Relay::parse(remote).ok().map(|relay| relay.host.to_string());
        let number = relay.and_then(|name| map.host_named(&name));
        return vec![number.and_then(named)];
    }
    let recipient = folded(&mail.recipient);
    let domain = recipient.rsplit_once('@').map_or("", |(_, domain)| domain);
    let mut zone = map.zone(domain);
    while let Some(Zone::Alias(number)) = zone {
        zone = map.zones.get(*number);
    }
    match zone {
        Some(Zone::Exchanges(records)) => {
            let mut lines: Vec<_> = records.iter().map(|&(_, number)| named(number)).collect();
            let exchanges = records.iter().filter_map(|&(preference, number)| {
                map.hosts.get(number).map(|host| format!(" {preference} {}", host.name))
            });
            lines.push(Some(format!("@ mx {domain}{}", exchanges.collect::<String>())));
            lines
        }
        Some(Zone::Implicit(number)) => vec![host_line(domain, *number)],
        Some(Zone::NullMx) => vec![Some(format!("@ mx {domain} 0 ."))],
        Some(Zone::Empty) => vec![Some(format!("@ host {domain} "))],
        Some(Zone::Missing | Zone::Alias(_)) | None => vec![],
    }
}
