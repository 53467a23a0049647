//! A DNS server on loopback, over UDP and TCP, with a zone written in code.

use super::smtp_script::Gate;
use super::{PATIENCE, unique_loopback};
use hickory_proto::op::{Message, OpCode, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, CNAME, MX, SOA, TLSA, TXT};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};

/// How the server treats queries for one name, other than by answering them.
#[derive(Clone)]
pub(crate) enum Behaviour {
    ServFail,
    Refused,
    /// Never answers.
    Drop,
    /// Does not answer so many queries, then does.
    DropFirst(usize),
    /// Truncates over UDP, answers over TCP.
    Truncate,
    /// Sends an answer with a wrong id and wrong content first, then the right one.
    WrongIdFirst,
    /// Sends an answer to another question first, then the right one.
    WrongQuestionFirst,
    /// Sends octets that are no DNS message, then the right answer.
    GarbageFirst,
    /// Answers when the gate is open; other queries are answered meanwhile.
    Delayed(Gate),
}

/// A query as it arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Asked {
    pub(crate) name: String,
    pub(crate) record_type: RecordType,
    pub(crate) tcp: bool,
}

#[derive(Default)]
struct Zone {
    records: HashMap<String, Vec<RData>>,
    behaviours: HashMap<String, Behaviour>,
    asked: Vec<Asked>,
    ttl: u32,
    /// True if DNSSEC vouches for all names but those that are insecure.
    is_signed: bool,
    insecure: Vec<String>,
}

/// The zone, and the news that a query came.
type Watched = (Mutex<Zone>, Condvar);

/// A running server.
pub(crate) struct DnsServer {
    address: SocketAddr,
    zone: Arc<Watched>,
    stopping: Arc<AtomicBool>,
}

impl DnsServer {
    pub(crate) fn start() -> Self {
        Self::start_on(0).unwrap()
    }

    /// At the port that `/etc/resolv.conf` takes for granted; nothing if this process may not listen there.
    pub(crate) fn start_at_dns_port() -> Option<Self> {
        Self::start_on(53)
    }

    fn start_on(port: u16) -> Option<Self> {
        let (udp, tcp) = bind(port)?;
        let address = udp.local_addr().unwrap();
        let zone = Arc::new((Mutex::new(Zone { ttl: 300, ..Zone::default() }), Condvar::new()));
        let stopping = Arc::new(AtomicBool::new(false));
        let (zone_udp, stop_udp) = (Arc::clone(&zone), Arc::clone(&stopping));
        std::thread::spawn(move || serve_udp(&udp, &zone_udp, &stop_udp));
        let (zone_tcp, stop_tcp) = (Arc::clone(&zone), Arc::clone(&stopping));
        std::thread::spawn(move || serve_tcp(&tcp, &zone_tcp, &stop_tcp));
        Some(Self { address, zone, stopping })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn mx(&self, domain: &str, preference: u16, host: &str) {
        self.add(domain, RData::MX(MX::new(preference, name(host))));
    }

    /// RFC 7505: the domain takes no mail.
    pub(crate) fn null_mx(&self, domain: &str) {
        self.add(domain, RData::MX(MX::new(0, Name::root())));
    }

    pub(crate) fn a(&self, host: &str, address: IpAddr) {
        self.add(
            host,
            match address {
                IpAddr::V4(address) => RData::A(A(address)),
                IpAddr::V6(address) => RData::AAAA(AAAA(address)),
            },
        );
    }

    /// A TLSA record of the usage, selector and matching type, for a TCP port of a host. The data is in hexadecimal digits.
    pub(crate) fn tlsa(&self, host: &str, port: u16, [usage, selector, matching]: [u8; 3], data: &str) {
        let octets = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
        let data = data.as_bytes().chunks(2).map(octets).collect();
        let record = TLSA::new(usage.into(), selector.into(), matching.into(), data);
        self.add(&format!("_{port}._tcp.{host}"), RData::TLSA(record));
    }

    /// A TXT record of these strings.
    pub(crate) fn txt(&self, name: &str, strings: &[&str]) {
        let strings = strings.iter().map(|text| (*text).to_owned()).collect();
        self.add(name, RData::TXT(TXT::new(strings)));
    }

    /// From now on the server says of all answers that DNSSEC vouches for them.
    pub(crate) fn sign(&self) {
        self.zone.0.lock().unwrap().is_signed = true;
    }

    /// DNSSEC does not vouch for answers about this name.
    pub(crate) fn leave_unsigned(&self, domain: &str) {
        self.zone.0.lock().unwrap().insecure.push(key(domain));
    }

    pub(crate) fn cname(&self, alias: &str, target: &str) {
        self.add(alias, RData::CNAME(CNAME(name(target))));
    }

    /// The name exists, but has no records that a mailer looks for.
    pub(crate) fn empty(&self, domain: &str) {
        self.zone.0.lock().unwrap().records.entry(key(domain)).or_default();
    }

    pub(crate) fn remove(&self, domain: &str) {
        self.zone.0.lock().unwrap().records.remove(&key(domain));
    }

    pub(crate) fn ttl(&self, seconds: u32) {
        self.zone.0.lock().unwrap().ttl = seconds;
    }

    pub(crate) fn behave(&self, domain: &str, behaviour: Behaviour) {
        self.zone.0.lock().unwrap().behaviours.insert(key(domain), behaviour);
    }

    /// The same for queries of addresses only; MX queries are answered.
    pub(crate) fn behave_for_addresses(&self, domain: &str, behaviour: Behaviour) {
        self.zone.0.lock().unwrap().behaviours.insert(format!("{} addresses", key(domain)), behaviour);
    }

    pub(crate) fn behave_normally(&self, domain: &str) {
        self.zone.0.lock().unwrap().behaviours.remove(&key(domain));
    }

    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.zone.0.lock().unwrap().asked.clone()
    }

    /// How often this was asked for.
    pub(crate) fn count(&self, domain: &str, record_type: RecordType) -> usize {
        let wanted = key(domain);
        self.asked().iter().filter(|asked| asked.name == wanted && asked.record_type == record_type).count()
    }

    /// Blocks until the name was asked for.
    pub(crate) fn wait_for(&self, domain: &str) {
        let wanted = key(domain);
        let unasked = |zone: &mut Zone| !zone.asked.iter().any(|asked| asked.name == wanted);
        let guard = self.zone.0.lock().unwrap();
        let (_guard, timeout) = self.zone.1.wait_timeout_while(guard, PATIENCE, unasked).unwrap();
        assert!(!timeout.timed_out(), "{domain} was never asked for");
    }

    fn add(&self, owner: &str, data: RData) {
        self.zone.0.lock().unwrap().records.entry(key(owner)).or_default().push(data);
    }
}

impl Drop for DnsServer {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::SeqCst);
        drop(TcpStream::connect(self.address));
        if let Ok(socket) = UdpSocket::bind((unique_loopback(), 0)) {
            let _ = socket.send_to(b"", self.address);
        }
        if std::thread::panicking() {
            eprintln!("--- DNS queries ---\n{:#?}", self.asked());
        }
    }
}

/// UDP and TCP at one port of an address of our own; the kernel chooses among those that are free if it is 0.
fn bind(port: u16) -> Option<(UdpSocket, TcpListener)> {
    let try_once = || {
        let udp = UdpSocket::bind((unique_loopback(), port)).ok()?;
        let tcp = TcpListener::bind(udp.local_addr().unwrap()).ok()?;
        Some((udp, tcp))
    };
    (0..100).find_map(|_| try_once())
}

fn serve_udp(socket: &UdpSocket, zone: &Arc<Watched>, stopping: &AtomicBool) {
    let mut buffer = [0; 4096];
    while let Ok((length, peer)) = socket.recv_from(&mut buffer) {
        if stopping.load(Ordering::SeqCst) {
            return;
        }
        let answers = answer(zone, &buffer[..length], false);
        let (gate, answers) = answers.unwrap_or_default();
        let socket = socket.try_clone().unwrap();
        let send = move || answers.iter().for_each(|octets| drop(socket.send_to(octets, peer)));
        match gate {
            None => send(),
            Some(gate) => drop(std::thread::spawn(move || {
                gate.pass();
                send();
            })),
        }
    }
}

fn serve_tcp(listener: &TcpListener, zone: &Arc<Watched>, stopping: &AtomicBool) {
    while let Ok((mut stream, _)) = listener.accept() {
        if stopping.load(Ordering::SeqCst) {
            return;
        }
        let zone = Arc::clone(zone);
        std::thread::spawn(move || {
            let mut length = [0; 2];
            while stream.read_exact(&mut length).is_ok() {
                let mut query = vec![0; usize::from(u16::from_be_bytes(length))];
                if stream.read_exact(&mut query).is_err() {
                    return;
                }
                let (gate, answers) = answer(&zone, &query, true).unwrap_or_default();
                gate.iter().for_each(Gate::pass);
                for octets in answers {
                    let length = u16::try_from(octets.len()).unwrap().to_be_bytes();
                    let _ = stream.write_all(&[&length[..], &octets[..]].concat());
                }
            }
        });
    }
}

type Answers = (Option<Gate>, Vec<Vec<u8>>);

/// The datagrams to send for a query, and the gate before them.
fn answer(watched: &Watched, octets: &[u8], tcp: bool) -> Option<Answers> {
    let query = Message::from_vec(octets).ok()?;
    let question = query.queries.first()?.clone();
    let mut zone = watched.0.lock().unwrap();
    let asked = key(&question.name.to_ascii());
    zone.asked.push(Asked { name: asked.clone(), record_type: question.query_type, tcp });
    watched.1.notify_all();
    let mut right = Message::response(query.metadata.id, OpCode::Query);
    right.add_query(question.clone());
    right.metadata.recursion_desired = query.metadata.recursion_desired;
    right.metadata.recursion_available = true;
    right.metadata.authentic_data =
        query.metadata.authentic_data && zone.is_signed && !zone.insecure.contains(&asked);
    fill(&zone, &mut right, &question.name, question.query_type);
    let mut other = right.clone();
    other.answers = vec![Record::from_rdata(question.name.clone(), 60, RData::MX(MX::new(0, Name::root())))];
    let refusal = |code| {
        let mut message = right.clone();
        message.take_all_sections().for_each(drop);
        message.metadata.response_code = code;
        vec![message]
    };
    let behaviour = match question.query_type {
        RecordType::A | RecordType::AAAA => zone.behaviours.get(&format!("{asked} addresses")),
        _ => None,
    };
    let behaviour = behaviour.or_else(|| zone.behaviours.get(&asked)).cloned();
    let mut gate = None;
    let messages = match behaviour {
        None => vec![right],
        Some(Behaviour::ServFail) => refusal(ResponseCode::ServFail),
        Some(Behaviour::Refused) => refusal(ResponseCode::Refused),
        Some(Behaviour::Drop) => Vec::new(),
        Some(Behaviour::DropFirst(0)) => vec![right],
        Some(Behaviour::DropFirst(left)) => {
            zone.behaviours.insert(asked, Behaviour::DropFirst(left - 1));
            Vec::new()
        }
        Some(Behaviour::Truncate) if tcp => vec![right],
        Some(Behaviour::Truncate) => {
            let mut cut = right.clone();
            cut.answers.clear();
            cut.metadata.truncation = true;
            vec![cut]
        }
        Some(Behaviour::WrongIdFirst) => {
            other.metadata.id ^= 0x5555;
            vec![other, right]
        }
        Some(Behaviour::WrongQuestionFirst) => {
            other.queries[0].set_name(name("somewhere.else.example"));
            vec![other, right]
        }
        Some(Behaviour::GarbageFirst) => {
            return Some((None, vec![vec![0xff; 5], Vec::new(), right.to_vec().ok()?]));
        }
        Some(Behaviour::Delayed(closed)) => {
            gate = Some(closed);
            vec![right]
        }
    };
    let octets = messages.iter().map(|message| message.to_vec().unwrap()).collect();
    Some((gate, octets))
}

/// Answers as a recursive resolver does: aliases are followed, and the chain is shown.
fn fill(zone: &Zone, message: &mut Message, asked: &Name, record_type: RecordType) {
    let mut owner = asked.clone();
    for _ in 0..8 {
        let Some(records) = zone.records.get(&key(&owner.to_ascii())) else {
            message.metadata.response_code = ResponseCode::NXDomain;
            message.add_authority(soa(zone.ttl));
            return;
        };
        let found: Vec<&RData> = records.iter().filter(|data| data.record_type() == record_type).collect();
        if !found.is_empty() {
            let records =
                found.iter().map(|data| Record::from_rdata(owner.clone(), zone.ttl, (*data).clone()));
            message.add_answers(records.collect::<Vec<_>>());
            return;
        }
        let Some(RData::CNAME(target)) = records.iter().find(|data| matches!(data, RData::CNAME(_))) else {
            message.add_authority(soa(zone.ttl));
            return;
        };
        message.add_answer(Record::from_rdata(owner.clone(), zone.ttl, RData::CNAME(target.clone())));
        owner = target.0.clone();
    }
}

fn soa(ttl: u32) -> Record {
    let data = SOA::new(name("ns.example"), name("hostmaster.example"), 1, 3600, 600, 86400, ttl);
    Record::from_rdata(name("example"), ttl, RData::SOA(data))
}

fn name(text: &str) -> Name {
    Name::from_str(&format!("{}.", text.trim_end_matches('.'))).unwrap()
}

fn key(text: &str) -> String {
    text.trim_end_matches('.').to_ascii_lowercase()
}
