//! One client: its request, and the answer that is sent to it.

use std::io::{self, Read, Write};
use std::time::Instant;

use super::HEAD_LIMIT_OCTETS;
use super::request::{Parsed, parse};
use crate::clients::Stream;

/// A socket that can tell that nothing more comes.
pub(super) trait Finish {
    fn finish(&self) -> io::Result<()>;
}

impl Finish for Stream {
    fn finish(&self) -> io::Result<()> {
        Self::finish(self)
    }
}

/// Most octets that are read after the answer.
const REST_LIMIT_OCTETS: usize = 64 * 1024;

/// A client. It gets one answer, and is closed then.
#[derive(Debug)]
pub(super) struct Client<S> {
    pub(super) stream: S,
    /// When it was accepted.
    pub(super) since: Instant,
    /// Whether its socket may have something to read or room to write.
    pub(super) is_ready: bool,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    Reading(Vec<u8>),
    Writing {
        answer: Vec<u8>,
        written: usize,
    },
    /// The answer is sent. To close the socket before all is read would reset it, which may cost the client the answer.
    ReadingRest {
        read: usize,
    },
}

/// Whether a client is still needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    Waits,
    IsOver,
}

impl<S: Read + Write + Finish> Client<S> {
    pub(super) fn new(stream: S, since: Instant) -> Self {
        Self { stream, since, is_ready: true, stage: Stage::Reading(Vec::new()) }
    }

    /// Returns whether it has not sent a whole request yet.
    pub(super) fn is_silent(&self) -> bool {
        matches!(self.stage, Stage::Reading(_))
    }

    /// Returns whether the answer is sent.
    pub(super) fn is_answered(&self) -> bool {
        matches!(self.stage, Stage::ReadingRest { .. })
    }

    /// Reads the request and sends the answer, as far as the socket allows it.
    pub(super) fn advance(&mut self, answer: impl FnOnce(&Parsed) -> Vec<u8>) -> Progress {
        self.is_ready = false;
        let progress = match &mut self.stage {
            Stage::Reading(received) => match read_head(&mut self.stream, received) {
                Ok(Parsed::Partial) => return Progress::Waits,
                Ok(parsed) => {
                    self.stage = Stage::Writing { answer: answer(&parsed), written: 0 };
                    self.write()
                }
                Err(error) => Err(error),
            },
            Stage::Writing { .. } => self.write(),
            Stage::ReadingRest { .. } => self.read_rest(),
        };
        progress.unwrap_or(Progress::IsOver)
    }

    fn write(&mut self) -> io::Result<Progress> {
        let Stage::Writing { answer, written } = &mut self.stage else { return Ok(Progress::Waits) };
        while let Some(rest) = answer.get(*written..).filter(|rest| !rest.is_empty()) {
            match self.stream.write(rest) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => *written += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Progress::Waits),
                Err(error) => return Err(error),
            }
        }
        self.stream.finish()?;
        self.stage = Stage::ReadingRest { read: 0 };
        self.read_rest()
    }

    fn read_rest(&mut self) -> io::Result<Progress> {
        let Stage::ReadingRest { read } = &mut self.stage else { return Ok(Progress::Waits) };
        while *read < REST_LIMIT_OCTETS {
            match self.stream.read(&mut [0; 1024]) {
                Ok(0) => break,
                Ok(count) => *read += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Progress::Waits),
                Err(error) => return Err(error),
            }
        }
        Ok(Progress::IsOver)
    }
}

/// Reads until the head of the request is whole or too long, or nothing is there for now.
fn read_head(stream: &mut impl Read, received: &mut Vec<u8>) -> io::Result<Parsed> {
    loop {
        let mut piece = [0; 1024];
        let room = HEAD_LIMIT_OCTETS.saturating_sub(received.len()).min(piece.len());
        match stream.read(piece.get_mut(..room).unwrap_or_default()) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => received.extend_from_slice(piece.get(..count).unwrap_or_default()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Parsed::Partial),
            Err(error) => return Err(error),
        }
        match parse(received) {
            Parsed::Partial => {}
            parsed @ (Parsed::Whole(_) | Parsed::TooLong | Parsed::Malformed) => return Ok(parsed),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;

    /// A socket that gives and takes what a test has prepared.
    #[derive(Debug, Default)]
    struct Scripted {
        reads: VecDeque<Vec<u8>>,
        room: usize,
        written: Vec<u8>,
        is_finished: std::cell::Cell<bool>,
    }

    impl Finish for Scripted {
        fn finish(&self) -> io::Result<()> {
            self.is_finished.set(true);
            Ok(())
        }
    }

    impl Read for Scripted {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let Some(piece) = self.reads.pop_front() else { return Err(io::ErrorKind::WouldBlock.into()) };
            buffer[..piece.len()].copy_from_slice(&piece);
            Ok(piece.len())
        }
    }

    impl Write for Scripted {
        fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
            let count = octets.len().min(std::mem::take(&mut self.room));
            if count == 0 {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            self.written.extend_from_slice(&octets[..count]);
            Ok(count)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_request_and_an_answer_in_pieces_make_no_difference() {
        let mut client = Client::new(Scripted::default(), Instant::now());
        let mut asked = 0;
        for octet in b"GET / HTTP/1.1\r\n\r\n" {
            client.stream.reads.push_back(vec![*octet]);
            let progress = client.advance(|parsed| {
                assert!(matches!(parsed, Parsed::Whole(_)));
                asked += 1;
                b"answer".to_vec()
            });
            assert_eq!(progress, Progress::Waits);
        }
        for octets in 1..=6 {
            client.stream.room = 1;
            let progress = client.advance(|_| panic!("it was answered"));
            assert_eq!(progress, Progress::Waits);
            assert_eq!((client.is_answered(), client.stream.is_finished.get()), (octets == 6, octets == 6));
        }
        client.stream.reads.push_back(Vec::new());
        assert_eq!(client.advance(|_| panic!("it was answered")), Progress::IsOver);
        assert_eq!((asked, &*client.stream.written), (1, &b"answer"[..]));
    }

    #[test]
    fn a_client_that_leaves_or_sends_too_much_is_over() {
        let mut gone = Client::new(Scripted::default(), Instant::now());
        gone.stream.reads.push_back(Vec::new());
        assert_eq!(gone.advance(|_| panic!("nothing was asked")), Progress::IsOver);
        let mut endless = Client::new(Scripted { room: 1, ..Scripted::default() }, Instant::now());
        endless.stream.reads.extend(std::iter::repeat_n(vec![b'A'; 512], 100));
        let progress = endless.advance(|parsed| {
            assert_eq!(*parsed, Parsed::TooLong);
            b"n".to_vec()
        });
        // The rest is read away, up to a limit.
        assert_eq!(
            (progress, endless.stream.reads.len(), &*endless.stream.written),
            (Progress::Waits, 0, &b"n"[..])
        );
        endless.stream.reads.extend(std::iter::repeat_n(vec![b'A'; 512], 1000));
        assert_eq!(endless.advance(|_| panic!("it was answered")), Progress::IsOver);
        let read = (1100 - endless.stream.reads.len()) * 512;
        assert_eq!(read, HEAD_LIMIT_OCTETS + REST_LIMIT_OCTETS);
    }
}
