//! Reads a request.

use super::HEAD_LIMIT_OCTETS;

/// Most header fields of a request.
const FIELDS_LIMIT: usize = 32;

/// What a client asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Request {
    pub(super) method: Method,
    /// Without the query.
    pub(super) path: String,
    /// Whether it takes the text format of Prometheus rather than that of OpenMetrics.
    pub(super) prefers_prometheus: bool,
}

/// The method of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Method {
    Get,
    Head,
    /// Any other, which is refused.
    Other,
}

/// What has come of a request so far.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Parsed {
    Whole(Request),
    /// Its head is not there yet.
    Partial,
    TooLong,
    /// It is no request.
    Malformed,
}

/// Reads the head of a request from the octets that were received so far.
pub(super) fn parse(octets: &[u8]) -> Parsed {
    let mut fields = [httparse::EMPTY_HEADER; FIELDS_LIMIT];
    let mut request = httparse::Request::new(&mut fields);
    match request.parse(octets) {
        Ok(httparse::Status::Complete(_)) => {}
        Ok(httparse::Status::Partial) if octets.len() < HEAD_LIMIT_OCTETS => return Parsed::Partial,
        Ok(httparse::Status::Partial) | Err(httparse::Error::TooManyHeaders) => return Parsed::TooLong,
        Err(_) => return Parsed::Malformed,
    }
    let target = request.path.unwrap_or_default();
    let method = match request.method {
        Some("GET") => Method::Get,
        Some("HEAD") => Method::Head,
        Some(_) | None => Method::Other,
    };
    let accepted = request.headers.iter().filter(|field| field.name.eq_ignore_ascii_case("accept"));
    let accepted: Vec<_> = accepted.map(|field| String::from_utf8_lossy(field.value)).collect();
    Parsed::Whole(Request {
        method,
        path: path_of(target).to_owned(),
        prefers_prometheus: prefers_prometheus(&accepted.join(",")),
    })
}

/// Returns the path of a request target, without the query. A target may be a whole URI (RFC 9112 section 3.2.2).
fn path_of(target: &str) -> &str {
    let scheme = target.split_once("://").filter(|(scheme, _)| scheme.eq_ignore_ascii_case("http"));
    let path = match scheme {
        Some((_, rest)) => rest.find(['/', '?']).and_then(|start| rest.get(start..)).unwrap_or_default(),
        None => target,
    };
    let path = path.split('?').next().unwrap_or_default();
    if path.is_empty() { "/" } else { path }
}

/// Returns whether a list of media types (RFC 9110 section 12.5.1) prefers the text format of Prometheus.
fn prefers_prometheus(accepted: &str) -> bool {
    let (mut open_metrics, mut prometheus, mut anything) = (None, None, None);
    for item in accepted.split(',') {
        let mut parts = item.split(';').map(str::trim);
        let kind = parts.next().unwrap_or_default().to_ascii_lowercase();
        let quality =
            parts.find_map(|part| part.strip_prefix("q=")?.trim().parse::<f32>().ok()).unwrap_or(1.0);
        let known = match &*kind {
            "application/openmetrics-text" => &mut open_metrics,
            "text/plain" => &mut prometheus,
            "*/*" => &mut anything,
            _ => continue,
        };
        *known = Some(known.map_or(quality, |known: f32| known.max(quality)));
    }
    let quality_of = |named: Option<f32>| named.or(anything).unwrap_or(0.0);
    prometheus.is_some() && quality_of(prometheus) > quality_of(open_metrics)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(octets: &[u8]) -> Request {
        let Parsed::Whole(request) = parse(octets) else { panic!("{:?}", parse(octets)) };
        request
    }

    #[test]
    fn a_request_is_read_once_its_head_is_whole() {
        let octets = b"GET /metrics?x=1 HTTP/1.1\r\nHost: a\r\n\r\n";
        for length in 0..octets.len() {
            assert_eq!(parse(&octets[..length]), Parsed::Partial, "{length}");
        }
        let request = whole(octets);
        assert_eq!((request.method, &*request.path), (Method::Get, "/metrics"));
        assert_eq!(whole(b"HEAD / HTTP/1.0\r\n\r\n").method, Method::Head);
        assert_eq!(whole(b"DELETE / HTTP/1.1\r\n\r\n").method, Method::Other);
    }

    #[test]
    fn a_target_may_be_a_whole_uri() {
        for (target, path) in [
            ("/metrics", "/metrics"),
            ("http://127.0.0.1:9125/metrics?name=x", "/metrics"),
            ("HTTP://localhost/", "/"),
            ("http://localhost", "/"),
            ("http://localhost?x=/metrics", "/"),
            ("/x?y=http://z/metrics", "/x"),
            ("*", "*"),
        ] {
            assert_eq!(path_of(target), path, "{target}");
        }
    }

    #[test]
    fn what_is_no_request_or_has_no_end_is_refused() {
        assert_eq!(parse(b"\x16\x03\x01\x02\x00\x01"), Parsed::Malformed);
        assert_eq!(parse(b"GET  /  nonsense\r\n\r\n"), Parsed::Malformed);
        let endless = [b"GET /".to_vec(), vec![b'a'; HEAD_LIMIT_OCTETS]].concat();
        assert_eq!(parse(&endless), Parsed::TooLong);
        let many = format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(FIELDS_LIMIT + 1));
        assert_eq!(parse(many.as_bytes()), Parsed::TooLong);
    }

    #[test]
    fn the_format_is_that_which_is_preferred_and_openmetrics_if_none_is() {
        for (accepted, expected) in [
            ("", false),
            ("*/*", false),
            ("text/plain", true),
            ("text/plain;version=0.0.4;q=0.5,*/*;q=0.1", true),
            ("text/html, */*", false),
            (
                "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.2,*/*;q=0.1",
                false,
            ),
            ("application/openmetrics-text;q=0.2, text/plain;q=0.3", true),
        ] {
            let request = whole(format!("GET / HTTP/1.1\r\nAccept: {accepted}\r\n\r\n").as_bytes());
            assert_eq!(request.prefers_prometheus, expected, "{accepted}");
        }
    }
}
