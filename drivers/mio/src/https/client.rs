//! One request over HTTPS.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use cmail_delivery::https::{CONNECT_LIMIT_SECONDS, TIME_LIMIT_SECONDS};
use cmail_delivery::io::{HttpsError, HttpsRequest, HttpsResponse, HttpsTrouble};
use ureq::config::Config;
use ureq::http::{Uri, header};
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{
    Buffers, ConnectionDetails, Connector, DefaultConnector, NextTimeout, Transport,
};
use ureq::{Agent, Error, Timeout};

use crate::os_error::machine_trouble;
use crate::tls::WebTrust;

/// Makes a request: to this port of one address after the other, until one can be connected to.
pub(super) fn ask(request: &HttpsRequest, trust: &WebTrust, port: u16) -> Result<HttpsResponse, HttpsError> {
    let end = Instant::now() + Duration::from_secs(TIME_LIMIT_SECONDS);
    let mut last = HttpsError::new(HttpsTrouble::Unreachable, "it has no address");
    for address in &request.addresses {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(HttpsError::new(
                HttpsTrouble::TimedOut,
                format!("it took more than {TIME_LIMIT_SECONDS} s"),
            ));
        }
        match ask_at(SocketAddr::new(*address, port), request, trust, left) {
            Err(error) if error.kind == HttpsTrouble::Unreachable => last = error,
            answer => return answer,
        }
    }
    Err(last)
}

fn ask_at(
    address: SocketAddr,
    request: &HttpsRequest,
    trust: &WebTrust,
    left: Duration,
) -> Result<HttpsResponse, HttpsError> {
    let config = Agent::config_builder()
        .https_only(true)
        .http_status_as_error(false)
        .max_redirects(0)
        .max_redirects_will_error(false)
        // Neither variables of the environment nor earlier connections decide where it goes.
        .proxy(None)
        .max_idle_connections(0)
        .tls_config(trust.config())
        .user_agent(concat!("cmail-dispatchd/", env!("CARGO_PKG_VERSION")))
        .accept("text/plain")
        .accept_encoding("identity")
        .timeout_connect(Some(Duration::from_secs(CONNECT_LIMIT_SECONDS)))
        .timeout_global(Some(left))
        .build();
    let connector = DefaultConnector::new().chain(WholeOnly);
    let agent = Agent::with_parts(config, connector, Known(address));
    let failed = |error: Error, before: bool| failure(address, &error, before, trust);
    let url = format!("https://{}{}", request.host, request.path);
    let call = agent.get(&url).header(header::CONNECTION, "close").call();
    let response = call.map_err(|error| failed(error, true))?;
    let status = response.status().as_u16();
    let content_type = response.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let content_type = content_type.map(Into::into);
    if status != 200 {
        return Ok(HttpsResponse { status, content_type, body: bytes::Bytes::new() });
    }
    let limit = u64::try_from(request.limit_octets).unwrap_or(u64::MAX);
    let body = response.into_body().into_with_config().limit(limit).read_to_vec();
    let body = body.map_err(|error| failed(error, false))?.into();
    Ok(HttpsResponse { status, content_type, body })
}

/// Returns what an error comes to. What happens before the host has answered anything may be otherwise at its next address.
#[expect(clippy::wildcard_enum_match_arm, reason = "the variants are not all known")]
fn failure(address: SocketAddr, error: &Error, is_before_answer: bool, trust: &WebTrust) -> HttpsError {
    let kind = match error {
        Error::Timeout(Timeout::Connect) => HttpsTrouble::Unreachable,
        Error::Timeout(_) => HttpsTrouble::TimedOut,
        Error::BodyExceedsLimit(_) | Error::LargeResponseHeader(..) => HttpsTrouble::TooLong,
        Error::Io(error) => match trust.trouble(error) {
            Some(trouble) => trouble,
            None if is_of_machine(error) => HttpsTrouble::Machine,
            None if is_before_answer => HttpsTrouble::Unreachable,
            None => HttpsTrouble::Malformed,
        },
        Error::ConnectionFailed if is_before_answer => HttpsTrouble::Unreachable,
        Error::Tls(_) | Error::Rustls(_) | Error::TlsRequired => HttpsTrouble::Tls,
        _ => HttpsTrouble::Malformed,
    };
    HttpsError::new(kind, format!("{kind} ({address}: {error})"))
}

/// Returns whether this machine lacks something, so that it could not even try.
fn is_of_machine(error: &io::Error) -> bool {
    machine_trouble(error).is_some()
}

/// The address of a host, which is known: the system is not asked.
#[derive(Debug)]
struct Known(SocketAddr);

impl Resolver for Known {
    fn resolve(&self, _: &Uri, _: &Config, _: NextTimeout) -> Result<ResolvedSocketAddrs, Error> {
        let mut addresses = self.empty();
        addresses.push(self.0);
        Ok(addresses)
    }
}

/// Takes no answer for whole that may have been cut short: one without a length ends where TLS does, and not where the connection does.
#[derive(Debug)]
struct WholeOnly;

#[derive(Debug)]
struct Whole<T>(T);

impl<T: Transport> Connector<T> for WholeOnly {
    type Out = Whole<T>;

    fn connect(&self, _: &ConnectionDetails<'_>, chained: Option<T>) -> Result<Option<Whole<T>>, Error> {
        Ok(chained.map(Whole))
    }
}

impl<T: Transport> Transport for Whole<T> {
    fn buffers(&mut self) -> &mut dyn Buffers {
        self.0.buffers()
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), Error> {
        self.0.transmit_output(amount, timeout)
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, Error> {
        self.0.await_input(timeout).map_err(|error| {
            if matches!(&error, Error::Io(error) if is_end(error)) {
                Error::Other(Box::new(CutShort))
            } else {
                error
            }
        })
    }

    fn is_open(&mut self) -> bool {
        self.0.is_open()
    }

    fn is_tls(&self) -> bool {
        self.0.is_tls()
    }
}

#[derive(Debug, thiserror::Error)]
#[error("the connection ended before the answer did")]
struct CutShort;

fn is_end(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionReset, UnexpectedEof};
    matches!(error.kind(), UnexpectedEof | ConnectionAborted | ConnectionReset)
}
