//! The test bench tested against a hand-written client: a bench that misreads would prove nothing.

use crate::support::mime::Part;
use crate::support::{Action, Behaviour, DnsServer, Script, SmtpServer};
use hickory_proto::op::{Message, Query};
use hickory_proto::rr::{Name, RecordType};
use std::io::{Read, Write};
use std::net::{TcpStream, UdpSocket};
use std::str::FromStr;

/// Sends a batch and reads until the server closes.
fn talk(server: &SmtpServer, octets: &[u8]) -> String {
    let mut stream = TcpStream::connect(server.address()).unwrap();
    stream.write_all(octets).unwrap();
    let _ = stream.shutdown(std::net::Shutdown::Write);
    let mut text = Vec::new();
    let _ = stream.read_to_end(&mut text);
    String::from_utf8(text).unwrap()
}

const LETTER: &[u8] =
    b"EHLO c\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nRCPT TO:<e@d>\r\nDATA\r\nhi\r\n..\r\n.\r\nQUIT\r\n";

#[test]
fn the_server_records_messages_without_the_stuffed_dots() {
    let server = SmtpServer::start(Script::new().lenient().once("RCPT", "250 ok").once("RCPT", "550 no"));
    let said = talk(&server, LETTER);
    assert!(said.ends_with("221 2.0.0 bye\r\n"), "{said}");
    let records = server.wait_until_closed();
    let message = &records.messages[0];
    assert_eq!((message.from().as_str(), message.to()), ("a@b", vec!["c@d".to_owned()]));
    assert_eq!(message.data, b"hi\r\n.\r\n");
    assert!(message.accepted);
    assert_eq!(records.connections[0].count("RCPT"), 2);
}

#[test]
fn the_server_notices_pipelining_that_was_not_offered_and_bare_line_feeds() {
    let server = SmtpServer::start(Script::new().lenient());
    talk(&server, b"EHLO c\r\nNOOP\nQUIT\r\n");
    let violations = server.wait_until_closed().violations;
    assert!(violations.iter().any(|text| text.contains("before its reply")), "{violations:?}");
    assert!(violations.iter().any(|text| text.contains("not well-formed")), "{violations:?}");
}

#[test]
fn the_server_resets_where_the_script_says_so() {
    let server = SmtpServer::start(Script::new().lenient().always("EHLO", Action::Reset));
    let mut stream = TcpStream::connect(server.address()).unwrap();
    stream.write_all(b"EHLO c\r\n").unwrap();
    let error = stream.read_to_end(&mut Vec::new()).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
}

fn resolve(dns: &DnsServer, name: &str, record_type: RecordType) -> Message {
    let mut query = Message::query();
    query.metadata.id = 7;
    query.add_query(Query::query(Name::from_str(name).unwrap(), record_type));
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(crate::support::PATIENCE)).unwrap();
    socket.send_to(&query.to_vec().unwrap(), dns.address()).unwrap();
    let mut buffer = [0; 4096];
    let length = socket.recv(&mut buffer).unwrap();
    Message::from_vec(&buffer[..length]).unwrap()
}

#[test]
fn the_dns_server_answers_follows_aliases_and_misbehaves_on_demand() {
    let dns = DnsServer::start();
    dns.mx("Example.org", 10, "mx.example.org");
    dns.cname("alias.example", "example.org");
    dns.behave("cut.example", Behaviour::Truncate);
    assert_eq!(resolve(&dns, "example.ORG.", RecordType::MX).answers.len(), 1);
    assert_eq!(resolve(&dns, "alias.example.", RecordType::MX).answers.len(), 2);
    let nothing = resolve(&dns, "example.org.", RecordType::A);
    assert_eq!((nothing.answers.len(), nothing.authorities.len()), (0, 1));
    assert_eq!(resolve(&dns, "no.example.", RecordType::A).metadata.response_code.low(), 3);
    assert!(resolve(&dns, "cut.example.", RecordType::MX).metadata.truncation);
    assert_eq!(dns.count("example.org", RecordType::MX), 1);
}

#[test]
fn the_mime_parser_takes_a_multipart_apart() {
    let text = b"Content-Type: multipart/mixed;\r\n boundary=\"x y\"\r\n\r\npreamble\r\n--x y\r\n\r\none\r\n--x y\r\n\
        Content-Transfer-Encoding: quoted-printable\r\n\r\nt=C3=A4=\r\nwo\r\n\r\n--x y--\r\n";
    let parts = Part::parse(text).parts();
    assert_eq!(parts.len(), 2);
    assert_eq!((parts[0].text().as_str(), parts[1].text().as_str()), ("one", "t\u{e4}wo"));
}
