//! What a client may ask: one line of words.

use cmail_delivery::explanation::Inquiry;
use cmail_delivery::watch::WatchedDestination;

use super::tracer::Watcher;
use crate::clients::words_of;
use crate::explained;

/// The longest request, without the end of its line.
pub(crate) const REQUEST_LIMIT_OCTETS: usize = 4096;

/// What a client asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Request {
    /// How everything stands.
    Status,
    /// To read the configuration again.
    Reload,
    /// What is said on connections from now on.
    Trace(Watcher),
    /// What the dispatcher does, or what it would find out.
    Inquiry(Inquiry),
}

/// Stands for all destinations.
const ALL: &str = "*";

/// Says that mail data are wanted too.
const DATA: &str = "data";

/// Reads a request from a line without its end. Fails with a sentence for the client.
pub(super) fn parse(line: &[u8]) -> Result<Request, String> {
    let words = words_of(line)
        .ok_or("this is no request: a % is not followed by two hexadecimal digits, or it is not UTF-8")?;
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words[..] {
        ["status"] => Ok(Request::Status),
        ["reload"] => Ok(Request::Reload),
        ["trace", destination] => watcher(destination, false),
        ["trace", destination, DATA] => watcher(destination, true),
        ["trace", ..] => Err(format!("trace takes a destination or {ALL}, and perhaps {DATA}")),
        ["explain", what] => Ok(Request::Inquiry(Inquiry::Explain(explained::subject(what)?))),
        ["probe", what, sender, host, port] => {
            let probe = explained::probe(what, sender, host, port)?;
            Ok(Request::Inquiry(Inquiry::Probe(Box::new(probe))))
        }
        ["explain", ..] => {
            Err("explain takes one word: an id, a domain, an [address], or HOST:PORT".to_owned())
        }
        ["probe", ..] => {
            Err("probe takes four words: what, sender, host and port; all but the first may be empty"
                .to_owned())
        }
        [verb @ ("status" | "reload"), ..] => Err(format!("{verb} takes no further words")),
        _ => {
            let version = env!("CARGO_PKG_VERSION");
            Err(format!(
                "cmail-dispatchd {version} does not know this request; it knows status, reload, trace, explain and probe"
            ))
        }
    }
}

fn watcher(destination: &str, wants_data: bool) -> Result<Request, String> {
    // It may hold a password, so it is not repeated.
    let parsed = (destination != ALL).then(|| WatchedDestination::parse(destination)).transpose();
    let destination = parsed.map_err(|error| format!("this is no destination: {error}"))?;
    Ok(Request::Trace(Watcher { destination, wants_data }))
}

/// Returns the words of a request to trace.
pub(crate) fn trace(destination: Option<&str>, wants_data: bool) -> Vec<&str> {
    let data = wants_data.then_some(DATA);
    ["trace", destination.unwrap_or(ALL)].into_iter().chain(data).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_request_gets_a_sentence() {
        assert_eq!(parse(b"status"), Ok(Request::Status));
        assert_eq!(parse(b"st%61tus\r"), Ok(Request::Status));
        assert_eq!(parse(b"reload"), Ok(Request::Reload));
        for wrong in [&b"%6"[..], b"%", b"%+1", b"%\xff\xff", b"\xff", b"%ff"] {
            assert!(parse(wrong).unwrap_err().starts_with("this is no request"), "{wrong:?}");
        }
        for unknown in [&b""[..], b" ", b"Status", b"GET / HTTP/1.1", b"statuss"] {
            assert!(parse(unknown).unwrap_err().contains("does not know this request"), "{unknown:?}");
        }
        for wrong in [&b"trace"[..], b"trace * all", b"trace a..b", b"trace user:password@relay"] {
            assert!(!parse(wrong).unwrap_err().contains("password@"), "{wrong:?}");
        }
        assert_eq!(parse(b"status now"), Err("status takes no further words".to_owned()));
    }
}
