//! The scene of a transcript: configuration, DNS, and the outbox.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use cmail_delivery::address::{Domain, Mailbox};
use cmail_delivery::dsn::{DsnWishes, EnvelopeId, Notify, OriginalRecipient, ReturnExtent};
use cmail_delivery::hold::Hold;
use cmail_delivery::memory_outbox::{Mail, MemoryOutbox};
use cmail_delivery::next_hop::{Port, Relay, TlsMode};
use cmail_delivery::outbox::MailId;
use cmail_delivery::policy::Policy;
use cmail_delivery::rng::Seed;
use cmail_delivery::settings::{Hosts, ResolverSettings, Settings, Told};
use cmail_delivery::time::UnixTime;
use cmail_delivery::tls::{Fallback, InsecureMx, Level, Pin, TlsPolicy, TlsVersion};
use cmail_delivery::{Mode, Selection};

use crate::host_keys::HostKeys;
use crate::map::{Map, RelayEntry, Zone};
use crate::options::NAME_SERVERS;
use crate::quoted::unquote;

/// The relay of mail that names none.
const DEFAULT_REMOTE: &str = "192.0.2.1:25";

/// Reads what is needed of TLS. Which names, keys or records that is about, the facts of each session tell.
fn tls_policy(text: &str) -> Result<TlsPolicy, String> {
    let (level, least) = match text.strip_suffix(" min=1.3") {
        Some(level) => (level, TlsVersion::V1_3),
        None => (text, TlsVersion::V1_2),
    };
    let level = match level {
        "none" => Level::None,
        "encrypt" => Level::Encrypt,
        "verify" => Level::Verify([].into()),
        "pin" => Level::Pin([Pin([0; 32])].into()),
        "dane" => Level::Dane { otherwise: Fallback::May, insecure_mx: InsecureMx::Dane },
        "dane-only" => Level::DaneOnly,
        _ => return Err(format!("\"{level}\" is no level of tls_policy here")),
    };
    Ok(TlsPolicy { level, least, ..TlsPolicy::default() })
}

/// The contents of the lines with `@`.
#[derive(Clone, Debug)]
pub(crate) struct Setting {
    pub(crate) seed: u64,
    pub(crate) settings: Settings,
    pub(crate) map: Map,
    pub(crate) hosts_file: Hosts,
    /// True if the result depends on how the reads are cut.
    pub(crate) has_fixed_reads: bool,
    /// The seeds of the sessions, one after the other.
    pub(crate) sessions: Vec<Seed>,
    is_one_pass: bool,
    remote: Option<String>,
    /// What the senders of the mails that follow want to be told.
    wishes: DsnWishes,
    mails: Vec<(MailId, Mail)>,
}

impl Default for Setting {
    fn default() -> Self {
        Self {
            seed: 1,
            settings: Settings {
                policy: Policy {
                    concurrency: 1,
                    host_concurrency: 1,
                    idle: Duration::ZERO,
                    ports: [Port { number: 25, tls: TlsMode::Plain }].into(),
                    padding: 0,
                    ..Policy::default()
                },
                resolver: ResolverSettings::new(NAME_SERVERS.to_vec()),
                concurrency: 1,
                told: Told { conversations: true, ..Told::default() },
                ..Settings::new("mail.example.org")
            },
            map: Map::default(),
            hosts_file: Hosts::new(),
            has_fixed_reads: false,
            sessions: Vec::new(),
            is_one_pass: false,
            remote: Some(DEFAULT_REMOTE.to_owned()),
            wishes: DsnWishes::default(),
            mails: Vec::new(),
        }
    }
}

impl Setting {
    /// The outbox at the beginning.
    pub(crate) fn outbox(&self) -> MemoryOutbox {
        let mut outbox = MemoryOutbox::new();
        for (id, mail) in &self.mails {
            outbox.put(*id, mail.clone());
        }
        outbox
    }

    /// The rows at the beginning.
    pub(crate) fn ids(&self) -> Vec<MailId> {
        self.mails.iter().map(|&(id, _)| id).collect()
    }

    /// Returns the mode of the daemon.
    pub(crate) fn mode(&self) -> Mode {
        let Some((_, mail)) = self.mails.first().filter(|_| self.is_one_pass) else { return Mode::Daemon };
        let domain = Mailbox::parse(&mail.recipient).and_then(|recipient| recipient.domain());
        match (&mail.remote, domain) {
            (Some(remote), _) => Mode::Deliver(Selection::Remote(remote[..].into())),
            (None, Ok(domain)) => Mode::Deliver(Selection::Domain(domain.into())),
            (None, Err(_)) => Mode::Daemon,
        }
    }

    /// The password of the remotes, if there is one.
    pub(crate) fn password(&self) -> Option<&str> {
        self.map.relays.iter().find_map(|relay| relay.password.as_deref())
    }

    /// Reads a line without its verb.
    pub(super) fn read(&mut self, entry: &str) -> Result<(), String> {
        let (key, value) = entry.split_once(' ').ok_or("a value is missing")?;
        match key {
            "reads" => self.has_fixed_reads = value == "fixed",
            "mode" => self.is_one_pass = value == "pass",
            "session" => self.sessions.push(session_seed(value)?),
            "seed" => self.seed = number(value)?,
            "announce" => {
                self.settings.announce = value.into();
                self.settings.bounces.from = format!("postmaster@{value}").into();
            }
            "set" => self.set(value)?,
            "portprio" => {
                self.settings.policy.ports = value.split(' ').map(port).collect::<Result<_, _>>()?;
            }
            "remote" => self.set_remote(value),
            "host" => {
                let mut words = value.split_ascii_whitespace();
                let name = words.next().unwrap_or_default();
                let addresses: Result<Vec<_>, _> = words.map(str::parse).collect();
                let addresses = addresses.map_err(|error| format!("{value}: {error}"))?;
                self.map.add_named_host(name, addresses);
            }
            "tlsa" => {
                let number =
                    self.map.host_named(value).ok_or_else(|| format!("no host {value} was named"))?;
                if let Some(host) = self.map.hosts.get_mut(number) {
                    host.keys = HostKeys::signed(0, true);
                }
                self.map.is_all_signed = true;
                self.settings.resolver.servers.iter_mut().for_each(|server| server.is_believed = true);
            }
            "hosts" => self.read_hosts_file(value)?,
            "mx" => self.read_exchanges(value)?,
            "dsn" => self.wishes = read_wishes(value)?,
            "mail" => self.read_mail(value)?,
            _ => return Err(format!("\"{key}\" says nothing of a scene")),
        }
        Ok(())
    }

    fn set(&mut self, entry: &str) -> Result<(), String> {
        let (name, value) = entry.split_once(' ').ok_or("a value is missing")?;
        let settings = &mut self.settings;
        match name {
            "interval" => settings.interval = Duration::from_secs(number(value)?),
            "retries" => settings.schedule.retries = number(value)?,
            "retryinterval" => settings.schedule.retry_interval_s = number(value)?,
            "tls_padding" => settings.policy.padding = number(value)?,
            "recipients" => settings.policy.recipients = number(value)?,
            "messages" => settings.policy.messages = Some(number(value)?),
            "pipelining" => settings.policy.pipelining = value == "yes",
            "tls_policy" => settings.policy.tls = tls_policy(value)?.into(),
            "concurrency" => settings.concurrency = number(value)?,
            "destination_concurrency" => settings.policy.concurrency = number(value)?,
            "bounce_copy" => settings.bounces.copies.push(value.into()),
            "connection_idle" => settings.policy.idle = Duration::from_secs(number(value)?),
            "bounce_return_limit" => settings.bounces.return_limit_octets = number(value)?,
            "auth_insecure" => settings.auth_insecure = value == "yes",
            _ => return Err(format!("the directive {name} cannot be set here")),
        }
        Ok(())
    }

    fn set_remote(&mut self, value: &str) {
        self.remote = (value != "-").then(|| value.to_owned());
        let password = Relay::parse(value.as_bytes()).ok().and_then(|relay| relay.credentials);
        let password = password.map(|credentials| credentials.password.to_string());
        let specification = value.to_owned();
        self.map.relays.push(RelayEntry { specification, password, hosts: vec![] });
    }

    fn read_hosts_file(&mut self, entry: &str) -> Result<(), String> {
        let mut words = entry.split_ascii_whitespace();
        let name = words.next().unwrap_or_default();
        let name = Domain::parse(name).map_err(|error| error.to_string())?;
        let addresses: Result<Vec<_>, _> = words.map(str::parse).collect();
        self.hosts_file.insert(name, addresses.map_err(|error| format!("{entry}: {error}"))?);
        Ok(())
    }

    fn read_exchanges(&mut self, entry: &str) -> Result<(), String> {
        let mut words = entry.split(' ');
        let domain = words.next().unwrap_or_default();
        let mut records = Vec::new();
        let mut is_null = false;
        while let (Some(preference), Some(name)) = (words.next(), words.next()) {
            is_null |= name == ".";
            if let Some(host) = self.map.host_named(name) {
                records.push((number(preference)?, host));
            } else if !is_null {
                return Err(format!("the host {name} must be named before"));
            }
        }
        self.map.add_zone(domain, if is_null { Zone::NullMx } else { Zone::Exchanges(records) });
        Ok(())
    }

    fn read_mail(&mut self, entry: &str) -> Result<(), String> {
        let (id, rest) = entry.split_once(' ').ok_or("the sender is missing")?;
        let (sender, rest) = path(rest)?;
        let (recipient, rest) = path(rest)?;
        let data = repeated_strings(rest)?;
        let mail = Mail {
            remote: self.remote.as_ref().map(|remote| Bytes::copy_from_slice(remote.as_bytes())),
            sender: Some(sender.as_bytes()).filter(|sender| !sender.is_empty()).map(Bytes::copy_from_slice),
            recipient: Bytes::copy_from_slice(recipient.as_bytes()),
            submission: UnixTime(0),
            data: Bytes::from(data),
            faillog: vec![],
            last_failure: None,
            hold: Hold::default(),
            wishes: self.wishes.clone(),
        };
        self.mails.push((MailId(number(id)?), mail));
        Ok(())
    }
}

/// Reads what senders want: `notify=`, `orcpt=`, `ret=` and `envid=`, or `-` for nothing.
fn read_wishes(text: &str) -> Result<DsnWishes, String> {
    let mut wishes = DsnWishes::default();
    for word in text.split_ascii_whitespace().filter(|word| *word != "-") {
        let (name, value) = word.split_once('=').ok_or_else(|| format!("\"{word}\" has no value"))?;
        let told = match name {
            "notify" => Notify::parse(value).map(|notify| wishes.notify = Some(notify)),
            "orcpt" => OriginalRecipient::parse(value).map(|orcpt| wishes.original_recipient = Some(orcpt)),
            "ret" => ReturnExtent::parse(value).map(|extent| wishes.message.extent = Some(extent)),
            "envid" => EnvelopeId::parse(value).map(|id| wishes.message.envelope_id = Some(id)),
            _ => return Err(format!("\"{name}\" is nothing that a sender wants")),
        };
        told.map_err(|error| format!("{word}: {error}"))?;
    }
    Ok(wishes)
}

/// Reads strings, each perhaps with `*N` after it.
fn repeated_strings(text: &str) -> Result<Vec<u8>, String> {
    let mut octets = Vec::new();
    let mut rest = text;
    loop {
        let (string, behind) = unquote(rest)?;
        let (times, behind) = behind.split_once(' ').unwrap_or((behind, ""));
        let times = match times.strip_prefix('*') {
            Some(times) => number(times)?,
            None if times.is_empty() => 1,
            None => return Err(format!("\"{times}\" follows a string")),
        };
        octets.extend(string.repeat(times));
        rest = behind;
        if rest.is_empty() {
            return Ok(octets);
        }
    }
}

fn session_seed(text: &str) -> Result<Seed, String> {
    let mut seed = [0; 32];
    if text.len() != 2 * seed.len() || !text.is_ascii() {
        return Err(format!("\"{text}\" is no seed of a session: it needs 64 hexadecimal digits"));
    }
    for (position, octet) in seed.iter_mut().enumerate() {
        let digits = text.get(2 * position..2 * position + 2).unwrap_or_default();
        *octet = u8::from_str_radix(digits, 16).map_err(|error| format!("\"{digits}\": {error}"))?;
    }
    Ok(Seed(seed))
}

fn path(text: &str) -> Result<(&str, &str), String> {
    let (path, rest) =
        text.strip_prefix('<').and_then(|text| text.split_once("> ")).ok_or("a path is missing")?;
    Ok((path, rest))
}

fn number<T: std::str::FromStr<Err: std::fmt::Display>>(text: &str) -> Result<T, String> {
    text.parse().map_err(|error| format!("\"{text}\": {error}"))
}

fn port(text: &str) -> Result<Port, String> {
    let (number_text, mode) = text.split_once('@').unwrap_or((text, ""));
    let tls = if mode.is_empty() { Some(TlsMode::Plain) } else { TlsMode::parse(mode) };
    Ok(Port { number: number(number_text)?, tls: tls.ok_or_else(|| format!("unknown mode \"{mode}\""))? })
}

/// Returns whether this is a name server.
pub(super) fn is_name_server(address: SocketAddr) -> bool {
    NAME_SERVERS.contains(&address)
}
