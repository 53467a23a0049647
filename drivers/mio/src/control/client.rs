//! One client: its requests, one after the other, and what it is answered.

use std::io::{self, Read, Write};
use std::time::Instant;

use super::AskId;
use super::request::REQUEST_LIMIT_OCTETS;
use crate::clients::Outgoing;

/// The most reads of what a client sends while it watches, before the others have their turn: enough to find that an ordinary one has
/// gone, and too few to hold up anything.
const WATCHER_READS: usize = 16;

/// A client.
#[derive(Debug)]
pub(super) struct Client<S> {
    pub(super) stream: S,
    /// Whether its socket may have something to read.
    may_read: bool,
    /// Whether its socket may have room to write.
    may_write: bool,
    received: Vec<u8>,
    /// Whether it has said that it sends nothing more.
    has_finished: bool,
    /// Whether it takes nothing more: both directions of its socket are closed.
    has_gone: bool,
    stage: Stage,
    outgoing: Outgoing,
    /// When it has last sent a request or taken something.
    pub(super) active_at: Instant,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// It may ask.
    Listening,
    /// It gets the answer to this.
    Answering(AskId),
    /// It gets an answer that does not end as long as it is there.
    Watching(AskId),
    /// It is closed once it has taken what was sent.
    Closing,
}

/// What a client does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    Waits,
    /// It has sent a line, which is given without its end.
    Asks(Vec<u8>),
    /// It has sent a line that is too long.
    AsksTooMuch,
    IsOver,
}

impl<S: Read + Write> Client<S> {
    pub(super) fn new(stream: S, now: Instant) -> Self {
        Self {
            stream,
            may_read: true,
            may_write: true,
            received: Vec::new(),
            has_finished: false,
            has_gone: false,
            stage: Stage::Listening,
            outgoing: Outgoing::default(),
            active_at: now,
        }
    }

    /// Takes in an event of its socket, which says whether the other end is closed for good.
    pub(super) fn on_event(&mut self, has_gone: bool) {
        self.has_gone |= has_gone;
        self.may_read = true;
        self.may_write = true;
    }

    /// Returns whether there is something to do without waiting for its socket.
    pub(super) fn is_busy(&self) -> bool {
        (self.may_write && !self.outgoing.is_empty()) || self.wants_to_read() || self.waits_in_vain()
    }

    /// Returns whether it asks nothing at present.
    pub(super) fn is_idle(&self) -> bool {
        self.stage == Stage::Listening && self.outgoing.is_empty()
    }

    /// Returns whether it does not take what it is sent.
    pub(super) fn is_stalled(&self) -> bool {
        !self.outgoing.is_empty()
    }

    /// Returns what it is being answered.
    pub(super) fn asked(&self) -> Option<AskId> {
        match self.stage {
            Stage::Answering(id) | Stage::Watching(id) => Some(id),
            Stage::Listening | Stage::Closing => None,
        }
    }

    /// Sends what is there and reads the next request, as far as the socket allows it. Nothing is read while a request is being answered.
    pub(super) fn advance(&mut self, now: Instant) -> Progress {
        if self.waits_in_vain() {
            return Progress::IsOver;
        }
        let sent = match self.send(now) {
            // It may have gone, which is read.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            sent => sent,
        };
        match sent.and_then(|()| self.read_line(now)) {
            Ok(progress) => progress,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Progress::Waits,
            Err(_) => Progress::IsOver,
        }
    }

    /// Sends what is there, as far as the socket takes it.
    pub(super) fn send(&mut self, now: Instant) -> io::Result<()> {
        if !self.may_write || self.outgoing.is_empty() {
            return Ok(());
        }
        self.active_at = now;
        let sent = self.outgoing.write_to(&mut self.stream);
        self.may_write = sent.is_ok();
        sent
    }

    /// From now on it gets the answer to its request.
    pub(super) fn answer(&mut self, id: AskId) {
        self.stage = Stage::Answering(id);
    }

    /// From now on it gets what it watches.
    pub(super) fn watch(&mut self, id: AskId) {
        self.stage = Stage::Watching(id);
    }

    /// Tells it a line of the answer, given with its end.
    pub(super) fn tell(&mut self, line: &[u8]) {
        self.outgoing.push(line);
    }

    /// Tells it the last line of the answer. After that it may ask again, unless it is to be closed.
    pub(super) fn end(&mut self, line: &[u8], closes: bool) {
        self.outgoing.push_whatever(line);
        self.stage = if closes { Stage::Closing } else { Stage::Listening };
    }

    /// Returns whether nobody is there any more who would take the rest of an answer. A request that came before that is carried out.
    fn waits_in_vain(&self) -> bool {
        self.has_gone && self.asked().is_some()
    }

    fn wants_to_read(&self) -> bool {
        let has_line = self.received.contains(&b'\n');
        let may_ask = self.is_idle() && (has_line || self.has_finished || self.may_read);
        may_ask || self.watches() && (self.may_read || self.has_finished)
    }

    fn watches(&self) -> bool {
        matches!(self.stage, Stage::Watching(_))
    }

    fn read_line(&mut self, now: Instant) -> io::Result<Progress> {
        if self.stage == Stage::Closing && self.outgoing.is_empty() {
            return Ok(Progress::IsOver);
        }
        if self.watches() {
            return self.ignore();
        }
        if !self.is_idle() {
            return Ok(Progress::Waits);
        }
        loop {
            if let Some(end) = self.received.iter().position(|octet| *octet == b'\n') {
                let mut line: Vec<u8> = self.received.drain(..=end).collect();
                line.pop();
                self.active_at = now;
                return Ok(Progress::Asks(line));
            }
            if self.received.len() > REQUEST_LIMIT_OCTETS {
                return Ok(Progress::AsksTooMuch);
            }
            if self.has_finished {
                return Ok(Progress::IsOver);
            }
            if !self.may_read {
                return Ok(Progress::Waits);
            }
            self.read()?;
        }
    }

    /// Reads what a client sends that watches until it leaves, as far as it is its turn.
    fn ignore(&mut self) -> io::Result<Progress> {
        for _ in 0..WATCHER_READS {
            self.received.clear();
            match (self.has_finished, self.may_read) {
                (true, _) => return Ok(Progress::IsOver),
                (false, true) => self.read()?,
                (false, false) => break,
            }
        }
        Ok(Progress::Waits)
    }

    fn read(&mut self) -> io::Result<()> {
        let mut piece = [0; 1024];
        let room = (REQUEST_LIMIT_OCTETS + 1).saturating_sub(self.received.len()).min(piece.len());
        match self.stream.read(piece.get_mut(..room).unwrap_or_default()) {
            Ok(0) => self.has_finished = true,
            Ok(count) => self.received.extend_from_slice(piece.get(..count).unwrap_or_default()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => {
                self.may_read = false;
                return Err(error);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
