//! The server's end of a connection: lines in and out, in plain text or TLS, each written down.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::{ServerConfig, ServerConnection, StreamOwned};

use crate::Result;

/// A client that says nothing for so long is given up, so that no mistake keeps the demonstration from ending.
const PATIENCE: Duration = Duration::from_secs(20);

/// The most that is read at a time, in octets.
const READ_OCTETS: usize = 4096;

/// Everything that was said on one connection.
#[derive(Clone, Debug)]
pub(crate) struct Conversation {
    /// When it began.
    pub(crate) began: Instant,
    /// Its lines, each with who said it in front.
    pub(crate) lines: Vec<String>,
}

#[derive(Debug)]
enum Stream {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ServerConnection, TcpStream>>),
}

/// A connection.
#[derive(Debug)]
pub(crate) struct Wire {
    /// What was said so far.
    pub(crate) conversation: Conversation,
    /// Nothing while the handshake is on, and after it has failed.
    stream: Option<Stream>,
    received: Vec<u8>,
}

impl Wire {
    /// Takes over a new connection.
    pub(crate) fn new(stream: TcpStream) -> Result<Self> {
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let conversation = Conversation { began: Instant::now(), lines: Vec::new() };
        Ok(Self { conversation, stream: Some(Stream::Plain(stream)), received: Vec::new() })
    }

    /// Takes the server's part of a TLS handshake.
    pub(crate) fn start_tls(&mut self, config: &Arc<ServerConfig>) -> Result<()> {
        let Some(Stream::Plain(socket)) = self.stream.take() else {
            return Err("there is TLS already".into());
        };
        let mut tls = StreamOwned::new(ServerConnection::new(Arc::clone(config))?, socket);
        while tls.conn.is_handshaking() {
            tls.conn.complete_io(&mut tls.sock)?;
        }
        let version = tls.conn.protocol_version().and_then(|version| version.as_str());
        self.note(&format!("{} from here on", version.unwrap_or("TLS").replace("TLSv1_", "TLS 1.")));
        self.stream = Some(Stream::Tls(Box::new(tls)));
        Ok(())
    }

    /// Whether what is said is encrypted.
    pub(crate) fn is_tls(&self) -> bool {
        matches!(self.stream, Some(Stream::Tls(_)))
    }

    /// Whether the client has sent something that was not looked at yet.
    pub(crate) fn has_more(&self) -> bool {
        !self.received.is_empty()
    }

    /// Writes down what was not said, but happened.
    pub(crate) fn note(&mut self, text: &str) {
        self.conversation.lines.push(format!("   ({text})"));
    }

    /// Writes down what the client said.
    pub(crate) fn heard(&mut self, text: &str) {
        self.conversation.lines.push(format!("C: {text}"));
    }

    /// Sends a reply of one or more lines.
    pub(crate) fn say(&mut self, reply: &str) -> Result<()> {
        let mut octets = String::new();
        for line in reply.lines() {
            self.conversation.lines.push(format!("S: {line}"));
            octets.push_str(line);
            octets.push_str("\r\n");
        }
        let stream = self.stream()?;
        stream.write_all(octets.as_bytes())?;
        Ok(stream.flush()?)
    }

    /// Reads up to and with the first `end`, which is cut off; nothing at the end of the connection.
    pub(crate) fn read_until(&mut self, end: &[u8]) -> Result<Option<Vec<u8>>> {
        loop {
            if let Some(at) = self.received.windows(end.len()).position(|octets| octets == end) {
                let rest = self.received.split_off(at.saturating_add(end.len()));
                let mut octets = std::mem::replace(&mut self.received, rest);
                octets.truncate(at);
                return Ok(Some(octets));
            }
            let mut buffer = [0; READ_OCTETS];
            match self.stream()?.read(&mut buffer) {
                Ok(0) => return Ok(None),
                Ok(count) => self.received.extend(buffer.iter().take(count)),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Ends the connection in order.
    pub(crate) fn close(&mut self) {
        if let Some(Stream::Tls(tls)) = &mut self.stream {
            tls.conn.send_close_notify();
            // The client has heard everything already.
            let _ = tls.flush();
        }
        self.stream = None;
    }

    fn stream(&mut self) -> Result<&mut dyn ReadWrite> {
        match &mut self.stream {
            Some(Stream::Plain(stream)) => Ok(stream),
            Some(Stream::Tls(stream)) => Ok(stream.as_mut()),
            None => Err("the connection is closed".into()),
        }
    }
}

trait ReadWrite: Read + Write {}

impl<T: Read + Write> ReadWrite for T {}
