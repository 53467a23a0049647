//! A server that reads 2,048 octets at a time, and sees the end of a message only if CRLF . CRLF is whole within one read: as the
//! suite's own smtpd does (contract, section 5).

use std::io::{self, BufRead as _, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use rustls::ServerConnection;

use crate::support::tls::Identity;
use crate::support::{Mail, World, unique_loopback};

const READ_OCTETS: usize = 2048;

/// A connection, in the clear or under TLS. A read under TLS ends with the record, as those of other TLS libraries do.
enum Wire {
    Clear(TcpStream),
    Tls(Box<ServerConnection>, TcpStream),
}

impl Wire {
    fn read(&mut self) -> io::Result<Vec<u8>> {
        let mut buffer = [0; READ_OCTETS];
        let (tls, stream) = match self {
            Self::Clear(stream) => {
                let count = stream.read(&mut buffer)?;
                return Ok(buffer[..count].to_vec());
            }
            Self::Tls(tls, stream) => (tls, stream),
        };
        loop {
            let record = match tls.reader().fill_buf() {
                Ok(record) => record[..record.len().min(READ_OCTETS)].to_vec(),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    tls.complete_io(stream)?;
                    continue;
                }
                Err(error) => return Err(error),
            };
            tls.reader().consume(record.len());
            return Ok(record);
        }
    }

    fn write(&mut self, octets: &[u8]) -> io::Result<()> {
        match self {
            Self::Clear(stream) => stream.write_all(octets),
            Self::Tls(tls, stream) => {
                tls.writer().write_all(octets)?;
                while tls.wants_write() {
                    tls.write_tls(stream)?;
                }
                Ok(())
            }
        }
    }
}

/// Speaks SMTP, and notes the octets of each message that it has seen the end of.
fn talk(wire: &mut Wire, taken: &Mutex<Vec<usize>>) -> io::Result<()> {
    wire.write(b"220 mx\r\n")?;
    let mut commands = Vec::new();
    loop {
        let octets = wire.read()?;
        if octets.is_empty() {
            return Ok(());
        }
        commands.extend(octets);
        while let Some(end) = commands.iter().position(|&octet| octet == b'\n') {
            let line: Vec<u8> = commands.drain(..=end).collect();
            match line.get(..4) {
                Some(b"DATA") => {
                    wire.write(b"354 go\r\n")?;
                    let octets = read_message(wire)?;
                    taken.lock().unwrap().push(octets);
                    wire.write(b"250 taken\r\n")?;
                }
                Some(b"QUIT") => return wire.write(b"221 bye\r\n"),
                _ => wire.write(b"250 ok\r\n")?,
            }
        }
    }
}

/// The octets of a message without its dot. Nothing is remembered from one read to the next.
fn read_message(wire: &mut Wire) -> io::Result<usize> {
    let mut octets = 0;
    loop {
        let read = wire.read()?;
        if read.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        octets += read.len();
        if read.windows(5).any(|window| window == b"\r\n.\r\n") || read == b".\r\n" {
            return Ok(octets - 3);
        }
    }
}

/// Delivers messages of all critical lengths, and says which the server has taken.
fn deliver(identity: Option<&Identity>, mode: &str) {
    let listener = TcpListener::bind((unique_loopback(), 0)).unwrap();
    let address: SocketAddr = listener.local_addr().unwrap();
    let taken = Arc::new(Mutex::new(Vec::new()));
    let config = identity.map(Identity::server_config);
    let noted = Arc::clone(&taken);
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let (config, noted) = (config.clone(), Arc::clone(&noted));
            thread::spawn(move || {
                let mut wire = match config {
                    Some(config) => Wire::Tls(Box::new(ServerConnection::new(config).unwrap()), stream),
                    None => Wire::Clear(stream),
                };
                // An end in the middle shows in what is missing.
                let _ = talk(&mut wire, &noted);
            });
        }
    });
    let mut world = World::new();
    world.set("tls_padding", 0).set("destination_concurrency", 1);
    let lengths: Vec<usize> = (2040..=2060).chain(4088..=4104).chain([0, 2, 5]).collect();
    let remote = format!("{address}{mode}");
    for length in &lengths {
        let text = "x".repeat(length.saturating_sub(2)) + if *length == 0 { "" } else { "\r\n" };
        world.insert(&Mail::to("a@example.org").remote(&remote).data(text));
    }
    let daemon = world.start();
    world.database.wait_until_empty();
    daemon.terminate();
    let mut found = taken.lock().unwrap().clone();
    found.sort_unstable();
    let mut expected = lengths;
    expected.sort_unstable();
    assert_eq!(found, expected);
    assert_eq!(world.database.failures().len(), 0);
}

#[test]
fn the_end_of_a_message_is_seen_within_one_read_in_plain_text() {
    deliver(None, "");
}

#[test]
fn the_end_of_a_message_is_seen_within_one_read_inside_tls() {
    deliver(Some(&Identity::self_signed(&["mx.example.org"])), "/tls");
}
