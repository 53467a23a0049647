//! Name servers that know the map.

use cmail_delivery::time::{Duration, Instant};
use hickory_proto::op::{Message, MessageType, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, CNAME, MX, SOA, TLSA};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use std::net::{IpAddr, SocketAddr};

use crate::dice::Dice;
use crate::facts::NameQuestion;
use crate::host_keys;
use crate::map::{Map, Zone};
use crate::options::Faults;

/// A datagram that comes back, and when.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) delay: Duration,
    pub(crate) from: SocketAddr,
    pub(crate) octets: Vec<u8>,
}

/// All name servers.
#[derive(Debug)]
pub(crate) struct Dns {
    dice: Dice,
    /// The time until which every answer is SERVFAIL.
    pub(crate) fails_until: Instant,
    /// The time until which there are no answers.
    pub(crate) silent_until: Instant,
    /// True if questions with EDNS get lost.
    drops_edns: bool,
}

impl Dns {
    /// Name servers in a good mood.
    pub(crate) fn new(dice: Dice, drops_edns: bool) -> Self {
        Self { dice, fails_until: Instant::default(), silent_until: Instant::default(), drops_edns }
    }

    /// Returns the datagram that comes back for one, if any.
    pub(crate) fn datagram(
        &mut self,
        now: Instant,
        map: &Map,
        faults: &Faults,
        to: SocketAddr,
        query: &[u8],
    ) -> Vec<Answer> {
        let mut answers = Vec::new();
        let is_dropped = self.drops_edns && Message::from_vec(query).is_ok_and(|query| query.edns.is_some());
        if now < self.silent_until || is_dropped || self.dice.chance(faults.dns_losses) {
            return answers;
        }
        let delay = Duration::from_micros(self.dice.within(300..=40_000));
        if self.dice.chance(faults.dns_strays)
            && let Some(answer) = self.stray(to, query)
        {
            answers.push(Answer { delay, ..answer });
        }
        let mut octets = self.answer(now, map, query);
        if map.knows_dnssec() && !self.disturb(faults, &mut octets) {
            return answers;
        }
        if self.dice.chance(faults.dns_truncations)
            && let Ok(mut message) = Message::from_vec(&octets)
        {
            message.answers.truncate(usize::from(self.dice.chance(500)));
            message.metadata.truncation = true;
            octets = message.to_vec().unwrap_or_default();
        }
        if self.dice.chance(faults.dns_losses) {
            return answers;
        }
        answers.push(Answer { delay, from: to, octets });
        answers
    }

    /// Lets something happen to what DNSSEC vouches for: the answer seems insecure, or the TLSA records cannot be found out. Returns whether
    /// there still is an answer.
    fn disturb(&mut self, faults: &Faults, octets: &mut Vec<u8>) -> bool {
        let is_withheld = self.dice.chance(faults.ad_withheld);
        let is_failure = self.dice.chance(faults.tlsa_failures);
        let Ok(mut message) = Message::from_vec(octets) else { return true };
        let is_tlsa = message.queries.first().is_some_and(|it| it.query_type() == RecordType::TLSA);
        message.metadata.authentic_data &= !is_withheld;
        if is_tlsa && is_failure {
            if self.dice.chance(500) {
                return false;
            }
            message.answers.clear();
            message.metadata.response_code = ResponseCode::ServFail;
            message.metadata.authentic_data = false;
        }
        *octets = message.to_vec().unwrap_or_default();
        true
    }

    /// Returns the answer to a query, without any fault of the network.
    pub(crate) fn answer(&mut self, now: Instant, map: &Map, query: &[u8]) -> Vec<u8> {
        let Ok(query) = Message::from_vec(query) else { return Vec::new() };
        let mut response = query.clone();
        response.metadata.message_type = MessageType::Response;
        response.metadata.recursion_available = true;
        let Some(question) = query.queries.first() else { return Vec::new() };
        if now < self.fails_until {
            response.metadata.response_code = ResponseCode::ServFail;
            response.metadata.authentic_data = false;
            return response.to_vec().unwrap_or_default();
        }
        let ttl = u32::try_from(self.dice.pick(&[0_u64, 60, 300, 3600, 86_400]).copied().unwrap_or(0));
        let mut zone =
            ZoneWriter { map, ttl: ttl.unwrap_or(0), answers: Vec::new(), aliases: 0, is_signed: true };
        let name = question.name().clone();
        response.metadata.response_code = zone.write(&name, question.query_type());
        let is_signed = zone.is_signed;
        response.answers = zone.answers;
        response.metadata.authentic_data &= is_signed;
        if response.answers.is_empty() {
            let root = Name::root();
            let soa = SOA::new(root.clone(), root.clone(), 1, 3600, 600, 86_400, 60);
            response.authorities.push(Record::from_rdata(root, 60, RData::SOA(soa)));
        }
        response.to_vec().unwrap_or_default()
    }

    /// Returns something that resembles an answer, but does not answer this query.
    fn stray(&mut self, to: SocketAddr, query: &[u8]) -> Option<Answer> {
        let mut message = Message::from_vec(query).ok()?;
        message.metadata.message_type = MessageType::Response;
        message.metadata.response_code = ResponseCode::NXDomain;
        let mut from = to;
        match self.dice.below(4) {
            0 => message.metadata.id = message.metadata.id.wrapping_add(1),
            1 => from.set_port(54),
            2 => {
                let other = Name::from_ascii("other.example.").ok()?;
                message.queries.first_mut()?.set_name(other);
            }
            _ => return Some(Answer { delay: Duration::ZERO, from, octets: vec![0, 1, 2] }),
        }
        Some(Answer { delay: Duration::ZERO, from, octets: message.to_vec().ok()? })
    }
}

/// Returns what a query asks.
pub(crate) fn question(query: &[u8]) -> Option<NameQuestion> {
    let query = Message::from_vec(query).ok()?;
    let question = query.queries.first()?;
    let name = question.name().to_ascii().trim_end_matches('.').to_ascii_lowercase();
    Some(NameQuestion { name, is_tlsa: question.query_type() == RecordType::TLSA })
}

/// Returns whether an answer says that DNSSEC vouches for it; `None` if it says nothing at all.
pub(crate) fn is_secure(answer: &[u8]) -> Option<bool> {
    let answer = Message::from_vec(answer).ok()?.metadata;
    let says = matches!(answer.response_code, ResponseCode::NoError | ResponseCode::NXDomain);
    says.then_some(answer.authentic_data)
}

/// Writes the answer section.
struct ZoneWriter<'a> {
    map: &'a Map,
    ttl: u32,
    answers: Vec<Record>,
    aliases: usize,
    /// Whether DNSSEC vouches for all of it.
    is_signed: bool,
}

impl ZoneWriter<'_> {
    fn write(&mut self, name: &Name, record_type: RecordType) -> ResponseCode {
        let text = name.to_ascii().trim_end_matches('.').to_ascii_lowercase();
        self.is_signed &= self.map.is_signed(&text);
        if record_type == RecordType::TLSA {
            return self.certificates(name, &text);
        }
        if let Some(host) = self.map.host_named(&text) {
            self.addresses(name, host, record_type);
            return ResponseCode::NoError;
        }
        match self.map.zone(&text) {
            None | Some(Zone::Missing) => return ResponseCode::NXDomain,
            Some(Zone::Empty) => {}
            Some(Zone::NullMx) => {
                if record_type == RecordType::MX {
                    self.push(name, RData::MX(MX::new(0, Name::root())));
                }
            }
            Some(Zone::Exchanges(records)) => {
                for &(preference, host) in records {
                    let host =
                        self.map.hosts.get(host).map(|host| Name::from_ascii(format!("{}.", host.name)));
                    if let (RecordType::MX, Some(Ok(host))) = (record_type, host) {
                        self.push(name, RData::MX(MX::new(preference, host)));
                    }
                }
            }
            Some(Zone::Implicit(host)) => self.addresses(name, *host, record_type),
            Some(Zone::Alias(number)) => {
                let Ok(target) = Name::from_ascii(format!("{}.", Map::zone_name(*number))) else {
                    return ResponseCode::ServFail;
                };
                self.push(name, RData::CNAME(CNAME(target.clone())));
                self.aliases += 1;
                if self.aliases < 8 {
                    return self.write(&target, record_type);
                }
            }
        }
        ResponseCode::NoError
    }

    fn addresses(&mut self, name: &Name, host: usize, record_type: RecordType) {
        for address in self.map.hosts.get(host).map(|host| host.addresses.clone()).unwrap_or_default() {
            match (address, record_type) {
                (IpAddr::V4(address), RecordType::A) => self.push(name, RData::A(A(address))),
                (IpAddr::V6(address), RecordType::AAAA) => self.push(name, RData::AAAA(AAAA(address))),
                _ => {}
            }
        }
    }

    /// Writes the TLSA records of a host, the same for each port.
    fn certificates(&mut self, name: &Name, text: &str) -> ResponseCode {
        let host = text.split_once("._tcp.").and_then(|(_, host)| self.map.host_named(host));
        let keys = host.and_then(|host| self.map.hosts.get(host)).map(|host| host.keys.named());
        let keys = keys.unwrap_or_default();
        for &key in keys {
            let digest = host_keys::digest(key).to_vec();
            self.push(name, RData::TLSA(TLSA::new(3.into(), 1.into(), 1.into(), digest)));
        }
        if keys.is_empty() { ResponseCode::NXDomain } else { ResponseCode::NoError }
    }

    fn push(&mut self, name: &Name, data: RData) {
        self.answers.push(Record::from_rdata(name.clone(), self.ttl, data));
    }
}
