//! A name server on loopback, over UDP and TCP: each domain has one MX, which is this very machine.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::{Arc, Mutex};
use std::thread;

use hickory_proto::op::{Message, MessageType};
use hickory_proto::rr::rdata::{A, MX};
use hickory_proto::rr::{Name, RData, Record, RecordType};

/// What it says of the MX of this domain does not go into a datagram.
pub(crate) const LONG_DOMAIN: &str = "long.example";

pub(crate) struct DnsServer {
    pub(crate) address: SocketAddr,
    /// The names that were asked for over TCP.
    asked_by_tcp: Arc<Mutex<Vec<String>>>,
}

impl DnsServer {
    pub(crate) fn start() -> Self {
        let (udp, tcp) = bind();
        let address = udp.local_addr().unwrap();
        let asked_by_tcp = Arc::new(Mutex::new(Vec::new()));
        let asked = Arc::clone(&asked_by_tcp);
        thread::spawn(move || {
            let mut octets = [0; 4096];
            while let Ok((count, from)) = udp.recv_from(&mut octets) {
                let answer = answer(&octets[..count], false);
                udp.send_to(&answer.to_vec().unwrap(), from).unwrap();
            }
        });
        thread::spawn(move || {
            for stream in tcp.incoming() {
                answer_by_tcp(stream.unwrap(), &asked);
            }
        });
        Self { address, asked_by_tcp }
    }

    pub(crate) fn asked_by_tcp(&self) -> Vec<String> {
        self.asked_by_tcp.lock().unwrap().clone()
    }
}

/// Both at one port, which the system chooses.
fn bind() -> (UdpSocket, TcpListener) {
    loop {
        let udp = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        // Another program may have that port for TCP.
        if let Ok(tcp) = TcpListener::bind(udp.local_addr().unwrap()) {
            return (udp, tcp);
        }
    }
}

/// RFC 1035 section 4.2.2.
fn answer_by_tcp(mut stream: TcpStream, asked: &Mutex<Vec<String>>) {
    let mut length = [0; 2];
    while stream.read_exact(&mut length).is_ok() {
        let mut question = vec![0; usize::from(u16::from_be_bytes(length))];
        stream.read_exact(&mut question).unwrap();
        let answer = answer(&question, true);
        asked.lock().unwrap().push(answer.queries[0].name().to_ascii());
        let octets = answer.to_vec().unwrap();
        let length = u16::try_from(octets.len()).unwrap().to_be_bytes();
        stream.write_all(&[&length[..], &octets].concat()).unwrap();
    }
}

fn answer(question: &[u8], by_tcp: bool) -> Message {
    let mut message = Message::from_vec(question).unwrap();
    message.metadata.message_type = MessageType::Response;
    message.metadata.recursion_available = true;
    let query = message.queries[0].clone();
    let name = query.name().clone();
    let is_long = name.to_ascii().trim_end_matches('.') == LONG_DOMAIN;
    let data = match query.query_type() {
        RecordType::MX if is_long && !by_tcp => {
            message.metadata.truncation = true;
            return message;
        }
        RecordType::MX => {
            let host = Name::from_ascii("mx").unwrap().append_domain(&name).unwrap();
            Some(RData::MX(MX::new(10, host)))
        }
        RecordType::A => Some(RData::A(A(Ipv4Addr::LOCALHOST))),
        _ => None,
    };
    message.answers = data.into_iter().map(|data| Record::from_rdata(name.clone(), 300, data)).collect();
    message
}
