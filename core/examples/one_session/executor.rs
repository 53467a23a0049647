//! The run loop: outputs, octets to send, and the wait for the socket until the deadline.

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::time::Instant as Clock;

use bytes::{Bytes, BytesMut};
use cmail_delivery::io::CloseReason;
use cmail_delivery::rng::Rng;
use cmail_delivery::session::{
    Outcome, Recipient, Session, SessionConfig, SessionEnd, SessionOutput, Transaction,
};
use cmail_delivery::system_error::{NetworkTrouble, SystemError, TlsTrouble};
use cmail_delivery::time::{Duration, Instant};

/// Most octets that are read or taken from the session at once.
const PIECE_OCTETS: usize = 16 * 1024;

/// The result of a message.
pub(crate) struct Report {
    /// At most one verdict for each recipient; none if the transaction could not begin.
    pub(crate) verdicts: Vec<(Recipient, Outcome)>,
    /// The end of the conversation.
    pub(crate) end: SessionEnd,
}

/// Conducts one conversation that sends one message. `log` receives what is said and noted.
pub(crate) fn send(
    mut stream: TcpStream,
    config: SessionConfig,
    rng: Rng,
    transaction: Transaction,
    mut log: impl FnMut(String),
) -> io::Result<Report> {
    let clock = Clock::now();
    let now = || Instant::from_micros(u64::try_from(clock.elapsed().as_micros()).unwrap_or(u64::MAX));
    let mut session = Session::new(config, rng, now());
    let mut transaction = Some(transaction);
    let mut verdicts = Vec::new();
    let mut received = [0; PIECE_OCTETS];
    loop {
        // 1. Carry out the outputs until there are none.
        while let Some(output) = session.poll_output() {
            match output {
                SessionOutput::Ready => match transaction.take() {
                    Some(transaction) => session.begin(now(), transaction),
                    None => session.quit(now()),
                },
                // The whole message came with the transaction, so there is no more of it. That ends the session.
                SessionOutput::NeedData { .. } => session.supply_data(now(), Bytes::new()),
                SessionOutput::StartTls => {
                    let error = SystemError::new(TlsTrouble::NotBegun, "there is no TLS here");
                    session.handle_tls_failed(now(), error);
                }
                SessionOutput::Verdicts(decided) => verdicts.extend(decided),
                SessionOutput::Sent(octets) | SessionOutput::SentData(octets) => {
                    log(format!("> {}", octets.escape_ascii()))
                }
                SessionOutput::Received(octets) => log(format!("< {}", octets.escape_ascii())),
                SessionOutput::Authenticated(_) => {}
                SessionOutput::Note(note) => log(format!("{note}")),
                SessionOutput::Ended(end) => return Ok(Report { verdicts, end }),
            }
        }

        // 2. Send what is to be sent, as far as the socket takes it before the deadline.
        let left = match session.poll_timeout() {
            Some((deadline, _)) => deadline.saturating_duration_since(now()),
            None => Duration::MAX,
        };
        if left.is_zero() {
            session.handle_timeout(now());
            continue;
        }
        let mut octets = BytesMut::new();
        if session.poll_transmit(now(), PIECE_OCTETS, &mut octets) {
            stream.set_write_timeout(Some(left))?;
            if let Err(error) = stream.write_all(&octets) {
                lose(&mut session, now(), &error);
            }
            // There may be new outputs now.
            continue;
        }

        // 3. Receive what arrives before the deadline.
        stream.set_read_timeout(Some(left))?;
        match stream.read(&mut received) {
            Ok(0) => session.handle_closed(now(), CloseReason::EndOfFile),
            Ok(count) => session.handle_received(now(), received.get(..count).unwrap_or_default()),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => lose(&mut session, now(), &error),
        }
    }
}

/// Handles a failed socket or an expired deadline. The core finds out by itself which side was at fault.
#[allow(clippy::wildcard_enum_match_arm, reason = "the kinds are not all known")]
fn lose(session: &mut Session, now: Instant, error: &io::Error) {
    match error.kind() {
        ErrorKind::WouldBlock | ErrorKind::TimedOut => session.handle_timeout(now),
        _ => session.handle_closed(
            now,
            CloseReason::Broken(SystemError::new(NetworkTrouble::Other, error.to_string())),
        ),
    }
}
