//! A client of a socket of the daemon that speaks in lines and hears records.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;

use serde_json::Value;

use super::PATIENCE;

/// A client that is connected.
pub(crate) struct SocketClient(pub(crate) BufReader<UnixStream>);

impl SocketClient {
    pub(crate) fn connect(path: &Path) -> Self {
        let stream = UnixStream::connect(path).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self(BufReader::new(stream))
    }

    pub(crate) fn send(&mut self, octets: impl AsRef<[u8]>) {
        self.0.get_mut().write_all(octets.as_ref()).unwrap();
    }

    /// Returns the next record; nothing at the end of the connection.
    pub(crate) fn record(&mut self) -> Option<Value> {
        let mut line = String::new();
        (self.0.read_line(&mut line).unwrap() > 0).then(|| serde_json::from_str(&line).unwrap())
    }

    /// Returns the kind of the next record.
    pub(crate) fn kind(&mut self) -> String {
        self.record().map_or("closed".to_owned(), |record| record["kind"].as_str().unwrap().to_owned())
    }
}
