//! DNS messages (RFC 1035 section 4): writes questions, and reads from answers what concerns the question.
//!
//! hickory-proto decodes names, headers and record data. What could make that slow is excluded before: a name may contain only a
//! few pointers, and only a limited number of records is read.

use alloc::boxed::Box;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use bytes::Bytes;
use hickory_proto::op::{Edns, Header, Message as WireMessage, MessageType, OpCode, Query};
use hickory_proto::rr::{DNSClass, Name, RecordType};
use hickory_proto::serialize::binary::{BinDecodable, BinDecoder};

use super::failure::ResponseCode;
use crate::address::Domain;
use crate::tls::TlsaRecord;

/// Largest datagram that servers may send, in octets: it fits into one packet everywhere (RFC 9715 section 3).
pub(super) const UDP_PAYLOAD_OCTETS: u16 = 1232;
/// Most records of one message that are read. Further ones count as absent.
pub(super) const RECORDS_LIMIT: usize = 1024;
/// Most compression pointers (RFC 1035 section 4.1.4) in one name.
const POINTERS_LIMIT: usize = 32;
/// Most labels in one name: 255 octets hold no more (RFC 1035 section 3.1).
const LABELS_LIMIT: usize = 128;
/// Response codes (RFC 1035 section 4.1.1).
const NOERROR: u16 = 0;
const FORMERR: u16 = 1;
const SERVFAIL: u16 = 2;
const NXDOMAIN: u16 = 3;
const NOTIMP: u16 = 4;
const REFUSED: u16 = 5;
/// The server does not know this version of EDNS (RFC 6891 section 9).
const BADVERS: u16 = 16;

/// The requested type of records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum QuestionType {
    /// MX: the mail hosts of a domain.
    Mx,
    /// A: the addresses of a host.
    Ipv4,
    /// AAAA: the addresses of a host.
    Ipv6,
    /// TLSA: the certificates of a service (RFC 6698).
    Tlsa,
    /// TXT.
    Txt,
    /// CNAME: whether a name is an alias. It is not followed.
    Alias,
    /// NS: the name servers of a zone.
    NameServers,
}

impl QuestionType {
    fn record_type(self) -> RecordType {
        match self {
            Self::Mx => RecordType::MX,
            Self::Ipv4 => RecordType::A,
            Self::Ipv6 => RecordType::AAAA,
            Self::Tlsa => RecordType::TLSA,
            Self::Txt => RecordType::TXT,
            Self::Alias => RecordType::CNAME,
            Self::NameServers => RecordType::NS,
        }
    }
}

/// A question. Names compare without case (RFC 4343).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Question {
    pub(super) name: Name,
    pub(super) kind: QuestionType,
    /// The only server to ask, if the question is about the server.
    pub(super) only: Option<SocketAddr>,
}

impl Question {
    /// Returns a question. A domain always fits into a name, so this fails only if hickory-proto disagrees.
    pub(super) fn new(domain: &Domain, kind: QuestionType) -> Option<Self> {
        Self::below("", domain, kind)
    }

    /// Returns a question about the name that these labels, with dots between them, make in front of a domain. Returns `None` if
    /// there can be no such name, because it is too long (RFC 1035 section 3.1).
    pub(super) fn below(labels: &str, domain: &Domain, kind: QuestionType) -> Option<Self> {
        let labels = labels.split('.').filter(|label| !label.is_empty());
        let name = Name::from_labels(labels.chain(domain.as_str().split('.')).map(str::as_bytes)).ok()?;
        Some(Self { name, kind, only: None })
    }

    /// Returns a question that a server which validates answers with the AD flag set: the root zone is signed.
    pub(super) fn of_root(server: SocketAddr) -> Self {
        Self { name: Name::root(), kind: QuestionType::NameServers, only: Some(server) }
    }

    /// Returns the message that asks it, for recursive servers. If `wants_authentic`, the AD flag asks whether the answer is
    /// authentic (RFC 6840 section 5.7).
    pub(super) fn encode(&self, id: u16, edns: bool, wants_authentic: bool) -> Option<Bytes> {
        let mut message = WireMessage::new(id, MessageType::Query, OpCode::Query);
        message.metadata.recursion_desired = true;
        message.metadata.authentic_data = wants_authentic;
        message.add_query(Query::query(self.name.clone(), self.kind.record_type()));
        if edns {
            let mut edns = Edns::new();
            edns.set_max_payload(UDP_PAYLOAD_OCTETS);
            message.set_edns(edns);
        }
        message.to_vec().ok().map(Bytes::from)
    }
}

/// The reply of a server to a question.
#[derive(Debug)]
pub(super) enum DnsReply {
    /// The answer does not fit into a datagram. Its contents must not be used (RFC 2181 section 9).
    Truncated,
    /// The server did not understand the question, possibly because of EDNS (RFC 6891 section 7).
    NotUnderstood(ResponseCode),
    /// The server did not answer, with this code.
    Refused(ResponseCode),
    /// The message violates the format of RFC 1035.
    Malformed,
    /// An answer.
    Answer(Message),
}

/// The parts of an answer that concern a lookup.
#[derive(Debug, Default)]
pub(super) struct Message {
    /// True if its AD flag is set (RFC 4035 section 3.2.3).
    pub(super) is_authentic: bool,
    /// True if the name at the end of the chain of aliases does not exist (RFC 6604 section 3).
    pub(super) no_such_name: bool,
    /// The records of the requested type, and aliases.
    pub(super) answers: Vec<Record>,
    /// True if there are answers of any type.
    pub(super) has_answers: bool,
    /// The zone that denies the name or records, and for how many seconds that holds (RFC 2308 section 5).
    pub(super) denial: Option<(Name, u32)>,
    /// True if the server only points to other servers (RFC 2308 section 2.2).
    pub(super) has_name_servers: bool,
}

/// A record of the answer section.
#[derive(Debug)]
pub(super) struct Record {
    pub(super) owner: Name,
    pub(super) ttl_s: u32,
    pub(super) data: RecordData,
}

/// The data of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum RecordData {
    MailHost(u16, Name),
    Address(IpAddr),
    Alias(Name),
    Tlsa(TlsaRecord),
    /// The strings of a TXT record, joined.
    Text(Box<[u8]>),
    NameServer,
}

impl RecordData {
    /// Returns whether such data answers a question of this type.
    pub(super) fn is_of(&self, kind: QuestionType) -> bool {
        match self {
            Self::MailHost(..) => kind == QuestionType::Mx,
            Self::Address(IpAddr::V4(_)) => kind == QuestionType::Ipv4,
            Self::Address(IpAddr::V6(_)) => kind == QuestionType::Ipv6,
            Self::Alias(_) => kind == QuestionType::Alias,
            Self::Tlsa(_) => kind == QuestionType::Tlsa,
            Self::Text(_) => kind == QuestionType::Txt,
            Self::NameServer => kind == QuestionType::NameServers,
        }
    }
}

/// Reads a message. Returns `None` if it is not a reply to this question with this id (RFC 5452 section 9.1).
pub(super) fn read(octets: &[u8], id: u16, question: &Question) -> Option<DnsReply> {
    let mut reader = Reader { octets, decoder: BinDecoder::new(octets), records_left: RECORDS_LIMIT };
    let header = Header::read(&mut reader.decoder).ok()?;
    let is_response = header.message_type == MessageType::Response && header.op_code == OpCode::Query;
    if header.id != id || !is_response {
        return None;
    }
    let code = u16::from(header.response_code);
    match header.counts.queries {
        1 => {
            let (name, record_type, class) = (reader.name()?, reader.u16()?, reader.u16()?);
            let asked = (u16::from(question.kind.record_type()), u16::from(DNSClass::IN));
            if name != question.name || (record_type, class) != asked {
                return None;
            }
        }
        // A server that fails before it reads the question cannot repeat it.
        0 if blames_the_query(code) => {}
        _ => return None,
    }
    if header.truncation {
        return Some(DnsReply::Truncated);
    }
    if let Some(refusal) = refusal(code) {
        return Some(refusal);
    }
    let mut message = Message {
        is_authentic: header.authentic_data,
        no_such_name: code == NXDOMAIN,
        has_answers: header.counts.answers > 0,
        ..Message::default()
    };
    let counts = [header.counts.answers, header.counts.authorities, header.counts.additionals];
    let Some(code_high) = reader.sections(counts, question.kind, &mut message) else {
        return Some(DnsReply::Malformed);
    };
    if code_high > 0 {
        return refusal(u16::from(code_high) << 4 | code);
    }
    Some(DnsReply::Answer(message))
}

/// Returns a name as it is written in texts.
pub(super) fn text_of(name: &Name) -> String {
    let text = name.to_ascii();
    text.strip_suffix('.').map(ToString::to_string).unwrap_or(text)
}

/// Returns the domain with this name, if it is a valid one. A dot inside a label would make it another name.
pub(super) fn domain_of(name: &Name) -> Option<Domain> {
    if name.iter().any(|label| label.contains(&b'.')) {
        return None;
    }
    let labels: Result<Vec<&str>, _> = name.iter().map(core::str::from_utf8).collect();
    let text = labels.ok()?.join(".");
    if text.is_ascii() { Domain::parse(&text).ok() } else { None }
}

fn blames_the_query(code: u16) -> bool {
    matches!(code, FORMERR | NOTIMP | BADVERS)
}

fn refusal(code: u16) -> Option<DnsReply> {
    let refusal = match code {
        NOERROR | NXDOMAIN => return None,
        FORMERR => ResponseCode::FormErr,
        SERVFAIL => ResponseCode::ServFail,
        NOTIMP => ResponseCode::NotImp,
        REFUSED => ResponseCode::Refused,
        BADVERS => ResponseCode::BadVers,
        _ => ResponseCode::Other(code),
    };
    Some(if blames_the_query(code) { DnsReply::NotUnderstood(refusal) } else { DnsReply::Refused(refusal) })
}

struct Reader<'a> {
    octets: &'a [u8],
    decoder: BinDecoder<'a>,
    records_left: usize,
}

impl Reader<'_> {
    /// Reads the three sections. Returns the upper bits of the code (RFC 6891 section 6.1.3), or `None` if the message is
    /// malformed.
    fn sections(&mut self, counts: [u16; 3], kind: QuestionType, message: &mut Message) -> Option<u8> {
        let [answers, authorities, additionals] = counts;
        for _ in 0..self.budget(answers) {
            self.answer(kind, message)?;
        }
        for _ in 0..self.budget(authorities) {
            self.authority(message)?;
        }
        let mut code_high = 0;
        for _ in 0..self.budget(additionals) {
            let head = self.head()?;
            if head.record_type == RecordType::OPT {
                code_high = head.ttl_raw.to_be_bytes().first().copied()?;
            }
            self.skip_to(head.end)?;
        }
        Some(code_high)
    }

    /// Returns how many records of a section may be read.
    fn budget(&mut self, count: u16) -> usize {
        let count = usize::from(count);
        let budget = count.min(self.records_left);
        // If a section is cut short, the next ones cannot be found.
        self.records_left = if budget < count { 0 } else { self.records_left - budget };
        budget
    }

    fn answer(&mut self, kind: QuestionType, message: &mut Message) -> Option<()> {
        let head = self.head()?;
        let in_class = head.class == u16::from(DNSClass::IN);
        let data = if in_class && head.record_type == RecordType::CNAME {
            Some(RecordData::Alias(self.name()?))
        } else if in_class && head.record_type == kind.record_type() {
            Some(match kind {
                QuestionType::Mx => RecordData::MailHost(self.u16()?, self.name()?),
                QuestionType::Ipv4 => RecordData::Address(Ipv4Addr::from(self.u32()?).into()),
                QuestionType::Ipv6 => RecordData::Address(Ipv6Addr::from(self.array::<16>()?).into()),
                QuestionType::Tlsa => RecordData::Tlsa(self.tlsa(head.end)?),
                QuestionType::Txt => RecordData::Text(self.text(head.end)?),
                QuestionType::Alias => RecordData::Alias(self.name()?),
                QuestionType::NameServers => {
                    self.name()?;
                    RecordData::NameServer
                }
            })
        } else {
            None
        };
        if let Some(data) = data {
            if self.decoder.index() != head.end {
                return None;
            }
            let ttl_s = ttl_s(head.ttl_raw);
            message.answers.push(Record { owner: head.owner, ttl_s, data });
        }
        self.skip_to(head.end)
    }

    fn tlsa(&mut self, end: usize) -> Option<TlsaRecord> {
        let octets = end.checked_sub(self.decoder.index())?;
        TlsaRecord::parse(self.slice(octets)?)
    }

    /// Reads the strings of a TXT record, each with its length before it (RFC 1035 section 3.3.14).
    fn text(&mut self, end: usize) -> Option<Box<[u8]>> {
        let mut text = Vec::new();
        while self.decoder.index() < end {
            let [length] = self.array::<1>()?;
            text.extend_from_slice(self.slice(usize::from(length))?);
        }
        Some(text.into())
    }

    fn authority(&mut self, message: &mut Message) -> Option<()> {
        let head = self.head()?;
        if head.class == u16::from(DNSClass::IN) && head.record_type == RecordType::SOA {
            // Two names, a serial number and three times stand before the minimum.
            let (_, _, _) = (self.name()?, self.name()?, self.array::<16>()?);
            let minimum = self.u32()?;
            // The lesser of the two (RFC 2308 section 5).
            message.denial = Some((head.owner, ttl_s(head.ttl_raw).min(ttl_s(minimum))));
        } else if head.record_type == RecordType::NS {
            message.has_name_servers = true;
        }
        self.skip_to(head.end)
    }

    fn head(&mut self) -> Option<Head> {
        let owner = self.name()?;
        let record_type = RecordType::from(self.u16()?);
        let (class, ttl_raw, length) = (self.u16()?, self.u32()?, self.u16()?);
        let end = self.decoder.index().checked_add(usize::from(length))?;
        if end > self.octets.len() { None } else { Some(Head { owner, record_type, class, ttl_raw, end }) }
    }

    /// Goes to the end of a record. Returns `None` if its data extended beyond.
    fn skip_to(&mut self, end: usize) -> Option<()> {
        let rest = end.checked_sub(self.decoder.index())?;
        self.decoder.read_slice(rest).ok().map(|_| ())
    }

    fn name(&mut self) -> Option<Name> {
        if name_is_short(self.octets, self.decoder.index()) {
            Name::read(&mut self.decoder).ok()
        } else {
            None
        }
    }

    fn u16(&mut self) -> Option<u16> {
        self.decoder.read_u16().ok().map(|value| value.unverified())
    }

    fn u32(&mut self) -> Option<u32> {
        self.decoder.read_u32().ok().map(|value| value.unverified())
    }

    fn slice(&mut self, octets: usize) -> Option<&[u8]> {
        self.decoder.read_slice(octets).ok().map(|slice| slice.unverified())
    }

    fn array<const OCTETS: usize>(&mut self) -> Option<[u8; OCTETS]> {
        self.slice(OCTETS)?.try_into().ok()
    }
}

/// The fields of a record before its data.
struct Head {
    owner: Name,
    record_type: RecordType,
    class: u16,
    ttl_raw: u32,
    /// The end of its data.
    end: usize,
}

/// A time to live with its highest bit set counts as zero (RFC 2181 section 8).
fn ttl_s(raw: u32) -> u32 {
    if raw > i32::MAX.unsigned_abs() { 0 } else { raw }
}

/// Returns whether the name at `position` ends after few labels and pointers, where each pointer leads backwards.
fn name_is_short(octets: &[u8], mut position: usize) -> bool {
    let (mut labels, mut pointers) = (0, 0);
    while labels < LABELS_LIMIT && pointers < POINTERS_LIMIT {
        let Some(&length) = octets.get(position) else { return false };
        match length {
            0 => return true,
            1..=63 => {
                labels += 1;
                position += usize::from(length) + 1;
            }
            192.. => {
                pointers += 1;
                let Some(&low) = octets.get(position + 1) else { return false };
                let target = usize::from(u16::from_be_bytes([length & 63, low]));
                if target >= position {
                    return false;
                }
                position = target;
            }
            64..192 => return false,
        }
    }
    false
}
