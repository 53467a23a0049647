//! Requests over HTTPS, which the executor makes.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::net::IpAddr;

use bytes::Bytes;
use thiserror::Error;

use crate::address::Domain;
use crate::system_error::SystemError;
use crate::tls::CertificateTrouble;

/// A GET.
///
/// The connection is made to port 443 of the first of the addresses that answers, over TLS 1.2 or later, and the certificate must be that
/// of the host, by an authority that is [publicly trusted](crate::tls::Roots::Public). No redirection is followed, no cache is asked, and
/// it all takes [`TIME_LIMIT_SECONDS`] at most.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpsRequest {
    /// The host, by its name in SNI and in the request.
    pub host: Domain,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// The path, from the slash on.
    pub path: &'static str,
    /// Most octets of the body.
    pub limit_octets: usize,
}

/// Most seconds that a request takes, from the first connection to the last octet.
pub const TIME_LIMIT_SECONDS: u64 = 60;

/// Most seconds for a connection to one address.
pub const CONNECT_LIMIT_SECONDS: u64 = 10;

/// What a host has answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpsResponse {
    /// The status.
    pub status: u16,
    /// The field Content-Type, if there is one in ASCII.
    pub content_type: Option<Box<str>>,
    /// The body. Empty if the status is not 200.
    pub body: Bytes,
}

/// Why there is no answer, with the words of whoever found out.
pub type HttpsError = SystemError<HttpsTrouble>;

/// Why there is no answer.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum HttpsTrouble {
    /// No address could be connected to.
    #[error("the host cannot be reached")]
    Unreachable,
    /// The certificate is not one of the host.
    #[error("the certificate of the host is not accepted: {0}")]
    Certificate(CertificateTrouble),
    /// TLS failed otherwise.
    #[error("TLS failed")]
    Tls,
    /// The time was over.
    #[error("it took too long")]
    TimedOut,
    /// The answer is longer than is wanted.
    #[error("the answer is too long")]
    TooLong,
    /// The answer is none of HTTP, or was cut short.
    #[error("the answer is malformed or cut short")]
    Malformed,
    /// This machine cannot even try.
    #[error("this machine failed")]
    Machine,
}
