//! A DNS server for the domains of the demonstration.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::str::FromStr as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::rdata::{A, MX};
use hickory_proto::rr::{Name, RData, Record, RecordType};

use crate::Result;

const TTL_S: u32 = 300;

/// The largest question that is read, in octets (RFC 1035 section 4.2.1).
const QUESTION_OCTETS: usize = 512;

/// What the server knows: the records of each name.
#[derive(Clone, Debug, Default)]
pub(crate) struct Zone {
    records: BTreeMap<Name, Vec<RData>>,
}

impl Zone {
    /// Mail for `domain` goes to `host`.
    pub(crate) fn mx(&mut self, domain: &str, preference: u16, host: &str) -> Result<()> {
        let data = RData::MX(MX::new(preference, name(host)?));
        self.records.entry(name(domain)?).or_default().push(data);
        Ok(())
    }

    /// `host` has this address.
    pub(crate) fn a(&mut self, host: &str, address: Ipv4Addr) -> Result<()> {
        self.records.entry(name(host)?).or_default().push(RData::A(A(address)));
        Ok(())
    }
}

fn name(text: &str) -> Result<Name> {
    Ok(Name::from_str(&format!("{text}."))?)
}

/// The server, on a thread of its own until the program ends.
#[derive(Debug)]
pub(crate) struct DnsServer {
    /// Where it is asked.
    pub(crate) address: SocketAddr,
    answers: Arc<Mutex<Vec<String>>>,
}

impl DnsServer {
    /// Answers questions about `zone`.
    pub(crate) fn start(zone: Zone) -> Result<Self> {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = socket.local_addr()?;
        let answers = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&answers);
        thread::spawn(move || {
            let mut buffer = [0; QUESTION_OCTETS];
            while let Ok((count, peer)) = socket.recv_from(&mut buffer) {
                let question = buffer.get(..count).and_then(|octets| Message::from_vec(octets).ok());
                let Some((answer, line)) = question.and_then(|question| answer(&zone, &question)) else {
                    continue;
                };
                log.lock().unwrap_or_else(PoisonError::into_inner).push(line);
                if let Ok(octets) = answer.to_vec() {
                    // A datagram may get lost: whoever wants the answer asks again.
                    let _ = socket.send_to(&octets, peer);
                }
            }
        });
        Ok(Self { address, answers })
    }

    /// What was asked and answered, a line for each.
    pub(crate) fn answers(&self) -> Vec<String> {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The answer, and how it looks in the report.
fn answer(zone: &Zone, question: &Message) -> Option<(Message, String)> {
    let query = question.queries.first()?;
    let mut answer = Message::response(question.metadata.id, question.metadata.op_code);
    answer.metadata.recursion_desired = question.metadata.recursion_desired;
    answer.metadata.recursion_available = true;
    answer.add_query(query.clone());
    let mut found = Vec::new();
    match zone.records.get(query.name()) {
        None => answer.metadata.response_code = ResponseCode::NXDomain,
        Some(records) => {
            for data in records.iter().filter(|data| data.record_type() == query.query_type()) {
                found.push(show(data));
                answer.add_answer(Record::from_rdata(query.name().clone(), TTL_S, data.clone()));
            }
        }
    }
    let asked = query.name().to_string();
    let found = if found.is_empty() { "nothing".to_owned() } else { found.join(", ") };
    let line = format!("{:<5}{:<24} -> {found}", query.query_type().to_string(), asked.trim_end_matches('.'));
    Some((answer, line))
}

fn show(data: &RData) -> String {
    let text = data.to_string();
    let text = text.trim_end_matches('.');
    if data.record_type() == RecordType::MX { text.replace('\t', " ") } else { text.to_owned() }
}
