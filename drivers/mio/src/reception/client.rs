//! One client: its message, and what it is answered.

use std::io::{self, Read, Write};
use std::time::Instant;

use nix::unistd::Uid;

use super::SubmissionId;
use super::request::{Reading, RequestError, Submission};
use crate::clients::Outgoing;

/// Most octets that are read of a client before it is the turn of others.
const TURN_OCTETS: usize = 256 * 1024;

/// Octets that are read at once.
const PIECE_OCTETS: usize = 64 * 1024;

/// A client. It hands over one message, gets one answer, and is closed then.
#[derive(Debug)]
pub(super) struct Client<S> {
    pub(super) stream: S,
    /// Who it is.
    pub(super) user: Uid,
    /// When it was accepted, or its message was whole, or it was answered.
    pub(super) since: Instant,
    /// Whether its socket may have something to read or room to write.
    is_ready: bool,
    stage: Stage,
    outgoing: Outgoing,
}

#[derive(Debug)]
enum Stage {
    Reading(Box<Reading>),
    /// The message is being written to the database.
    Waiting(SubmissionId),
    /// It is closed once it has taken the answer.
    Closing,
}

/// What a client does.
#[derive(Debug)]
pub(super) enum Progress {
    Waits,
    HandsOver(Box<Submission>),
    IsWrong(RequestError),
    IsOver,
}

impl<S: Read + Write> Client<S> {
    pub(super) fn new(stream: S, user: Uid, since: Instant) -> Self {
        let stage = Stage::Reading(Box::default());
        Self { stream, user, since, is_ready: true, stage, outgoing: Outgoing::default() }
    }

    /// Takes in an event of its socket.
    pub(super) fn on_event(&mut self) {
        self.is_ready = true;
    }

    /// Returns whether there is something to do without waiting for its socket.
    pub(super) fn is_busy(&self) -> bool {
        self.is_ready && !matches!(self.stage, Stage::Waiting(_))
    }

    /// Returns whether its message is not whole yet.
    pub(super) fn is_reading(&self) -> bool {
        matches!(self.stage, Stage::Reading(_))
    }

    /// Returns whether it has been answered.
    pub(super) fn is_closing(&self) -> bool {
        matches!(self.stage, Stage::Closing)
    }

    /// Returns what it waits for.
    pub(super) fn awaited(&self) -> Option<SubmissionId> {
        match self.stage {
            Stage::Waiting(id) => Some(id),
            Stage::Reading(_) | Stage::Closing => None,
        }
    }

    /// Reads the message, or sends the answer, as far as the socket and its turn allow it.
    pub(super) fn advance(&mut self, limit: usize) -> Progress {
        if !self.is_busy() {
            return Progress::Waits;
        }
        let progress = match &mut self.stage {
            Stage::Reading(reading) => read(&mut self.stream, reading, limit),
            Stage::Closing => self.outgoing.write_to(&mut self.stream).map(|()| Progress::IsOver),
            Stage::Waiting(_) => Ok(Progress::Waits),
        };
        progress.unwrap_or_else(|error| {
            self.is_ready = false;
            if error.kind() == io::ErrorKind::WouldBlock { Progress::Waits } else { Progress::IsOver }
        })
    }

    /// From now on it waits until its message is in the database.
    pub(super) fn wait(&mut self, id: SubmissionId, now: Instant) {
        self.since = now;
        self.stage = Stage::Waiting(id);
    }

    /// Answers it by a line, given with its end. A client that does not take it is closed in the end.
    pub(super) fn answer(&mut self, line: &[u8]) {
        self.outgoing.push_whatever(line);
        self.stage = Stage::Closing;
        self.is_ready = true;
    }
}

fn read(stream: &mut impl Read, reading: &mut Reading, limit: usize) -> io::Result<Progress> {
    let mut piece = [0; PIECE_OCTETS];
    let mut octets = 0;
    while octets < TURN_OCTETS {
        match stream.read(&mut piece) {
            // What was not sent whole was not handed over.
            Ok(0) => return Ok(Progress::IsOver),
            Ok(count) => {
                octets += count;
                match reading.read(piece.get(..count).unwrap_or_default(), limit) {
                    Ok(None) => {}
                    Ok(Some(submission)) => return Ok(Progress::HandsOver(Box::new(submission))),
                    Err(error) => return Ok(Progress::IsWrong(error)),
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(Progress::Waits)
}
