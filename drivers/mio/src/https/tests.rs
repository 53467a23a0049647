use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::thread::JoinHandle;

use cmail_delivery::io::CertificateTrouble;
use rcgen::{CertificateParams, date_time_ymd};

use super::*;
use crate::testing::{self, Authority, tls_server};
use crate::tls::TlsContext;

const HOST: &str = "mta-sts.example.org";
const LIMIT_OCTETS: usize = 1000;

/// How a server ends.
#[derive(Clone, Copy)]
enum End {
    /// With the end of TLS.
    Whole,
    /// By closing the connection.
    Cut,
}

fn trust(authority: &Authority) -> WebTrust {
    let context = TlsContext::load_trust(Some(testing::trust_file(authority).path()), true).unwrap();
    (*context.web().unwrap()).clone()
}

fn request() -> HttpsRequest {
    let host = testing::host(HOST).to_string();
    HttpsRequest {
        host: cmail_delivery::address::Domain::parse(&host).unwrap(),
        addresses: vec![Ipv4Addr::LOCALHOST.into()],
        path: "/.well-known/mta-sts.txt",
        limit_octets: LIMIT_OCTETS,
    }
}

/// A host that says this, whatever it is asked. Returns the name that it was asked for in TLS, and the head of the request.
fn serve(
    params: &CertificateParams,
    issuer: Option<&Authority>,
    answer: Vec<u8>,
    end: End,
) -> (SocketAddr, JoinHandle<(Option<String>, String)>) {
    let config = tls_server::config(params, issuer);
    testing::serve(move |stream| {
        let mut stream = tls_server::accept(config, stream);
        let name = stream.conn.server_name().map(str::to_owned);
        let mut head = String::new();
        let mut reader = BufReader::new(&mut stream);
        while !head.ends_with("\r\n\r\n") && reader.read_line(&mut head).unwrap() > 0 {}
        // A client that has heard enough leaves.
        let _ = stream.write_all(&answer).and_then(|()| stream.flush());
        match end {
            End::Whole => tls_server::finish(stream),
            End::Cut => drop(stream),
        }
        (name, head)
    })
}

fn ask(authority: &Authority, answer: impl Into<Vec<u8>>, end: End) -> Result<HttpsResponse, HttpsError> {
    let (address, server) = serve(&testing::params(&[HOST]), Some(authority), answer.into(), end);
    let found = client::ask(&request(), &trust(authority), address.port());
    server.join().unwrap();
    found
}

#[test]
fn a_request_names_its_host_and_an_answer_is_handed_over() {
    let authority = testing::authority();
    let answer = "HTTP/1.1 200 OK\r\nContent-Type: Text/Plain; x=y\r\nContent-Length: 5\r\n\r\nhello";
    let (address, server) = serve(&testing::params(&[HOST]), Some(&authority), answer.into(), End::Whole);
    let found = client::ask(&request(), &trust(&authority), address.port()).unwrap();
    assert_eq!((found.status, found.content_type.as_deref()), (200, Some("Text/Plain; x=y")));
    assert_eq!(&*found.body, b"hello");
    let (name, head) = server.join().unwrap();
    assert_eq!(name.as_deref(), Some(HOST));
    let head = head.to_ascii_lowercase();
    assert!(head.starts_with("get /.well-known/mta-sts.txt http/1.1\r\n"), "{head}");
    for field in
        [&format!("host: {HOST}"), "connection: close", "accept-encoding: identity", "accept: text/plain"]
    {
        assert!(head.contains(&format!("\r\n{field}\r\n")), "{field}: {head}");
    }
}

#[test]
fn any_status_is_handed_over_and_no_redirection_is_followed() {
    let authority = testing::authority();
    for (status, fields) in [(301, "Location: https://127.0.0.1:1/\r\n"), (404, ""), (500, ""), (204, "")] {
        let answer = format!("HTTP/1.1 {status} So\r\n{fields}Content-Length: 0\r\n\r\n");
        let found = ask(&authority, answer, End::Whole).unwrap();
        assert_eq!((found.status, found.body.len()), (status, 0));
    }
}

#[test]
fn an_answer_may_be_as_long_as_is_wanted_and_no_longer() {
    let authority = testing::authority();
    for (length, is_good) in [(LIMIT_OCTETS, true), (LIMIT_OCTETS + 1, false)] {
        let body = "x".repeat(length);
        for head in [format!("Content-Length: {length}\r\n"), String::new()] {
            let found = ask(&authority, format!("HTTP/1.1 200 OK\r\n{head}\r\n{body}"), End::Whole);
            match found {
                Ok(found) => assert!(is_good && found.body.len() == length, "{length}"),
                Err(error) => assert!(!is_good && error.kind == HttpsTrouble::TooLong, "{length}: {error}"),
            }
        }
    }
    let head = "x".repeat(1 << 20);
    let found = ask(&authority, format!("HTTP/1.1 200 OK\r\nX: {head}\r\n\r\n"), End::Whole);
    assert_eq!(found.unwrap_err().kind, HttpsTrouble::TooLong);
}

#[test]
fn an_answer_that_is_cut_short_is_none() {
    let authority = testing::authority();
    for (answer, end) in [
        ("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello", End::Whole),
        ("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello", End::Cut),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n", End::Whole),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n", End::Cut),
        // Only the end of TLS tells that this is all of it.
        ("HTTP/1.1 200 OK\r\n\r\nhello", End::Cut),
    ] {
        let error = ask(&authority, answer, end).unwrap_err();
        assert_eq!(error.kind, HttpsTrouble::Malformed, "{answer}: {error}");
    }
    let whole = ask(&authority, "HTTP/1.1 200 OK\r\n\r\nhello", End::Whole).unwrap();
    assert_eq!(&*whole.body, b"hello");
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n";
    assert_eq!(&*ask(&authority, chunked, End::Cut).unwrap().body, b"hello");
}

#[test]
fn what_is_no_http_is_an_error() {
    let authority = testing::authority();
    for answer in ["", "hello\r\n\r\n", "HTTP/1.1 abc\r\n\r\n", "HTTP/9.9 200 OK\r\n\r\n", "\0\0\0\0\r\n\r\n"]
    {
        let error = ask(&authority, answer, End::Whole).unwrap_err();
        assert!(
            matches!(error.kind, HttpsTrouble::Malformed | HttpsTrouble::Unreachable),
            "{answer:?}: {error}"
        );
    }
}

#[test]
fn the_certificate_must_be_one_of_the_host_by_an_authority_that_is_trusted() {
    let authority = testing::authority();
    let mut expired = testing::params(&[HOST]);
    (expired.not_before, expired.not_after) = (date_time_ymd(2001, 1, 1), date_time_ymd(2002, 1, 1));
    let other = testing::authority_named("another authority");
    let good = testing::params(&[HOST]);
    let wildcard = testing::params(&["*.example.org"]);
    for (params, issuer, expected) in [
        (&good, Some(&authority), None),
        (&wildcard, Some(&authority), None),
        (&testing::params(&["example.org"]), Some(&authority), Some(CertificateTrouble::NameMismatch)),
        (
            &testing::params(&["*.mta-sts.example.org"]),
            Some(&authority),
            Some(CertificateTrouble::NameMismatch),
        ),
        (&expired, Some(&authority), Some(CertificateTrouble::Expired)),
        (&good, Some(&other), Some(CertificateTrouble::UnknownIssuer)),
        (&good, None, Some(CertificateTrouble::UnknownIssuer)),
    ] {
        let config = tls_server::config(params, issuer);
        let (address, server) = testing::serve(move |stream| {
            let connection = rustls::ServerConnection::new(config).unwrap();
            let mut stream = rustls::StreamOwned::new(connection, stream);
            // A client that does not like the certificate is gone by now.
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
            let _ = std::io::copy(&mut stream, &mut std::io::sink());
        });
        let found = client::ask(&request(), &trust(&authority), address.port());
        server.join().unwrap();
        match expected {
            None => assert_eq!(found.map(|found| found.status), Ok(200)),
            Some(trouble) => {
                let error = found.unwrap_err();
                assert_eq!(error.kind, HttpsTrouble::Certificate(trouble), "{error}");
            }
        }
    }
}

#[test]
fn the_next_address_is_tried_where_one_cannot_be_connected_to() {
    let authority = testing::authority();
    let answer = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
    let (address, server) = serve(&testing::params(&[HOST]), Some(&authority), answer.into(), End::Whole);
    let nobody: IpAddr = "127.99.99.99".parse().unwrap();
    let both = HttpsRequest { addresses: vec![nobody, address.ip()], ..request() };
    assert!(client::ask(&both, &trust(&authority), address.port()).is_ok());
    server.join().unwrap();
    let error = client::ask(&both, &trust(&authority), address.port()).unwrap_err();
    assert_eq!(error.kind, HttpsTrouble::Unreachable);
    let none = HttpsRequest { addresses: Vec::new(), ..request() };
    assert_eq!(client::ask(&none, &trust(&authority), 1).unwrap_err().kind, HttpsTrouble::Unreachable);
}

#[test]
fn requests_beyond_the_threads_wait_and_each_is_answered() {
    let poll = mio::Poll::new().unwrap();
    let waker = Arc::new(Waker::new(poll.registry(), mio::Token(0)).unwrap());
    // Without authorities each request fails, by the same way.
    let mut fetchers = Fetchers::new(waker, None);
    for number in 0..50 {
        fetchers.fetch(HttpsId(number), request());
    }
    let mut answered = Vec::new();
    while let Some((id, answer)) = fetchers.poll() {
        assert_eq!(answer.unwrap_err().kind, HttpsTrouble::Machine);
        answered.push(id.0);
    }
    assert_eq!(answered, (0..50).collect::<Vec<_>>());
}
