//! One TLS session over a socket.

use std::io::{self, Read, Write};
use std::sync::Arc;

use bytes::{Buf, BytesMut};
use cmail_delivery::io::{Tls, TlsTerms, TlsVersion};
use cmail_delivery::system_error::{Breakage, SystemError, TlsTrouble};
use log::debug;
use rustls::client::{ClientSessionMemoryCache, ClientSessionStore as _};
use rustls::{CertificateError, ClientConnection, Error, HandshakeKind, OtherError, ProtocolVersion};
use rustls_pki_types::ServerName;

use super::judge::{Judge, Verdict};
use super::possession::Unprovable;
use crate::os_error::broken;

/// How often one call reads from the socket, so that a peer that sends empty records does not hold up others.
const READS_PER_CALL: usize = 16;

/// The result of [`TlsSession::read`].
#[derive(Debug, PartialEq, Eq)]
pub enum TlsRead {
    /// The handshake is done.
    Established(Tls),
    /// This many octets of plain text are in the buffer.
    Octets(usize),
    /// The peer has ended the session by close_notify.
    EndOfFile,
    /// There is nothing more to read before the socket's next event.
    Blocked,
    /// There is nothing yet, but there may be more to read.
    Again,
    /// The session is broken.
    Failed(SystemError<Breakage>),
}

/// One TLS session over a socket that does not block.
#[derive(Debug)]
pub struct TlsSession {
    connection: ClientConnection,
    earlier: Arc<ClientSessionMemoryCache>,
    /// The name under which sessions with this server are remembered.
    offered: ServerName<'static>,
    judge: Judge,
    terms: Arc<TlsTerms>,
    is_established: bool,
    /// Whether the peer has sent anything in the session.
    has_heard: bool,
    /// Why the session is broken; reported after the octets that were decrypted before are read.
    failure: Option<SystemError<Breakage>>,
}

impl TlsSession {
    pub(super) fn new(
        connection: ClientConnection,
        earlier: Arc<ClientSessionMemoryCache>,
        offered: ServerName<'static>,
        judge: Judge,
        terms: Arc<TlsTerms>,
    ) -> Self {
        Self {
            connection,
            earlier,
            offered,
            judge,
            terms,
            is_established: false,
            has_heard: false,
            failure: None,
        }
    }

    /// Returns whether [`TlsRead::Established`] was reported.
    pub fn is_established(&self) -> bool {
        self.is_established
    }

    /// Reads octets from the socket and decrypts them into `buffer`, which must not be empty.
    pub fn read<S: Read + Write>(&mut self, socket: &mut S, buffer: &mut [u8]) -> TlsRead {
        for _ in 0..READS_PER_CALL {
            if let Some(found) = self.decrypted(buffer) {
                return found;
            }
            if let Some(reason) = self.failure.take() {
                // The alert with the reason is sent if the socket takes it at once.
                let _ = self.flush(socket);
                return TlsRead::Failed(reason);
            }
            match self.connection.read_tls(socket) {
                Ok(0) if !self.is_established => {
                    self.failure = Some(truncated("the peer closed the connection during the TLS handshake"));
                }
                Ok(_) => {
                    if let Err(error) = self.connection.process_new_packets() {
                        self.failure = Some(failure(&error));
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return TlsRead::Blocked,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => self.failure = Some(broken(&error)),
            }
        }
        TlsRead::Again
    }

    /// Encrypts as much of `plaintext` as there is room for, and removes it from there.
    pub fn encrypt(&mut self, plaintext: &mut BytesMut) {
        if let Ok(taken) = self.connection.writer().write(plaintext) {
            plaintext.advance(taken);
        }
    }

    /// Writes encrypted octets to the socket; returns false if it does not take all of them now.
    pub fn flush(&mut self, socket: &mut impl Write) -> io::Result<bool> {
        while self.connection.wants_write() {
            match self.connection.write_tls(socket) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    /// Ends the session by close_notify, if the socket takes it at once (RFC 8446 section 6.1).
    pub fn close(&mut self, socket: &mut impl Write) {
        self.connection.send_close_notify();
        // The connection is closed next, whether this is flushed or not.
        let _ = self.flush(socket);
    }

    /// Returns the end of the handshake, then plain text, then the end of the session; `None` if more octets are needed.
    fn decrypted(&mut self, buffer: &mut [u8]) -> Option<TlsRead> {
        if self.connection.is_handshaking() {
            return None;
        }
        if !self.is_established {
            self.is_established = true;
            let tls = self.outcome();
            self.tell(tls);
            return Some(TlsRead::Established(tls));
        }
        match self.connection.reader().read(buffer) {
            Ok(0) => Some(TlsRead::EndOfFile),
            Ok(count) => {
                self.has_heard = true;
                Some(TlsRead::Octets(count))
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => None,
            // RFC 8446 section 6.1: an end without close_notify may be an attacker's.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                Some(TlsRead::Failed(truncated("the connection was closed in the middle of the TLS session")))
            }
            Err(error) => Some(TlsRead::Failed(broken(&error))),
        }
    }

    fn outcome(&self) -> Tls {
        // No other versions are offered.
        let is_newest = self.connection.protocol_version() == Some(ProtocolVersion::TLSv1_3);
        let version = if is_newest { TlsVersion::V1_3 } else { TlsVersion::V1_2 };
        let suite = self.connection.negotiated_cipher_suite();
        let group = self.connection.negotiated_key_exchange_group();
        let chain = self.connection.peer_certificates().unwrap_or_default();
        let Verdict { verification, dane, pin } = self.judge.verdict(chain, &self.terms);
        Tls {
            version,
            cipher_suite: suite.and_then(|suite| suite.suite().as_str()),
            group: group.and_then(|group| group.name().as_str()),
            verification,
            dane,
            pin,
            is_resumed: self.connection.handshake_kind() == Some(HandshakeKind::Resumed),
        }
    }

    fn tell(&self, tls: Tls) {
        debug!(
            "{} TLS session with {}: {}",
            if tls.is_resumed { "resumed" } else { "new" },
            self.terms.server,
            tls.summary(tls.proves()),
        );
    }
}

impl Drop for TlsSession {
    /// Forgets the earlier sessions with a server that never sent anything: this session may have failed because one of them
    /// was offered, and the next session would fail in the same way.
    fn drop(&mut self) {
        if !self.has_heard {
            self.earlier.remove_tls12_session(&self.offered);
            while self.earlier.take_tls13_ticket(&self.offered).is_some() {}
        }
    }
}

fn truncated(words: &str) -> SystemError<Breakage> {
    SystemError::new(TlsTrouble::Truncated, words)
}

/// Tells what an error in the records of a session comes to, and in which words.
fn failure(error: &Error) -> SystemError<Breakage> {
    match unprovable(error) {
        Some(reason) => SystemError::new(TlsTrouble::UnprovableKey, reason.to_string()),
        None => SystemError::new(tls_trouble(error), error.to_string()),
    }
}

/// Returns why the key of the server cannot be proven, if that is the error.
fn unprovable(error: &Error) -> Option<&Unprovable> {
    let Error::InvalidCertificate(CertificateError::Other(OtherError(reason))) = error else { return None };
    reason.downcast_ref()
}

#[expect(clippy::wildcard_enum_match_arm, reason = "the variants are not all known")]
fn tls_trouble(error: &Error) -> TlsTrouble {
    match error {
        Error::AlertReceived(_) => TlsTrouble::Alert,
        Error::PeerIncompatible(_) => TlsTrouble::NothingInCommon,
        Error::InvalidCertificate(_) | Error::NoCertificatesPresented => TlsTrouble::KeyNotProven,
        Error::InvalidMessage(_)
        | Error::InappropriateMessage { .. }
        | Error::InappropriateHandshakeMessage { .. }
        | Error::PeerMisbehaved(_)
        | Error::PeerSentOversizedRecord
        | Error::DecryptError => TlsTrouble::Misbehaved,
        _ => TlsTrouble::Other,
    }
}
