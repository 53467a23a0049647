//! What is on its way to a client.

use std::io::{self, Write};

use serde::Serialize;

use crate::json_record;

/// Most octets that wait for a client. Lines beyond are dropped, and it is told how many: a client that does not read costs no more.
const OUTGOING_LIMIT_OCTETS: usize = 256 * 1024;

/// The lines that a client has not taken yet.
#[derive(Debug, Default)]
pub(crate) struct Outgoing {
    octets: Vec<u8>,
    written: usize,
    /// Lines that were dropped since the client was told last.
    dropped: u64,
}

/// How many lines were dropped.
#[derive(Debug, Serialize)]
struct Dropped {
    lines: u64,
}

impl Outgoing {
    pub(crate) fn is_empty(&self) -> bool {
        self.octets.len() == self.written
    }

    /// Puts a line in, with its end, if there is room.
    pub(crate) fn push(&mut self, line: &[u8]) {
        if self.octets.len() - self.written + line.len() > OUTGOING_LIMIT_OCTETS {
            self.dropped = self.dropped.saturating_add(1);
            return;
        }
        self.push_whatever(line);
    }

    /// Puts a line in that ends an answer, even if there is no room.
    pub(crate) fn push_whatever(&mut self, line: &[u8]) {
        self.octets.drain(..std::mem::take(&mut self.written));
        if self.dropped > 0 {
            let lines = std::mem::take(&mut self.dropped);
            // Writing to memory cannot fail.
            let _ = json_record::write(&mut self.octets, "dropped", Dropped { lines });
        }
        self.octets.extend_from_slice(line);
    }

    /// Writes as much as the client takes.
    pub(crate) fn write_to(&mut self, out: &mut impl Write) -> io::Result<()> {
        while let Some(rest) = self.octets.get(self.written..).filter(|rest| !rest.is_empty()) {
            match out.write(rest) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => self.written += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        (self.octets, self.written) = (Vec::new(), 0);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_taken_is_dropped_and_told() {
        let mut outgoing = Outgoing::default();
        let line = [b"x".repeat(OUTGOING_LIMIT_OCTETS / 2 - 1), b"\n".to_vec()].concat();
        for _ in 0..5 {
            outgoing.push(&line);
        }
        assert_eq!(outgoing.octets.len(), OUTGOING_LIMIT_OCTETS);
        outgoing.push_whatever(b"end\n");
        let mut taken = Vec::new();
        outgoing.write_to(&mut taken).unwrap();
        assert!(outgoing.is_empty());
        let taken = String::from_utf8(taken).unwrap();
        let lines: Vec<&str> = taken.lines().map(|line| line.trim_matches('x')).collect();
        assert_eq!(lines, ["", "", r#"{"v":1,"kind":"dropped","lines":3}"#, "end"]);
        // What comes after that is not counted again.
        outgoing.push(b"more\n");
        let mut taken = Vec::new();
        outgoing.write_to(&mut taken).unwrap();
        assert_eq!(taken, b"more\n");
    }
}
