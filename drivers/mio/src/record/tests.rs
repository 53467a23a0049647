//! A recorder beside a dispatcher in virtual time, and the replay of what it writes.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::BytesMut;
use cmail_delivery::dispatcher::Mode;
use cmail_delivery::memory_outbox::Mail;
use cmail_delivery::settings::{Hosts, Told};
use cmail_delivery::time::UnixTime;
use cmail_delivery::{Dispatcher, MemoryOutbox};

use super::*;

/// Says nothing to the first EHLO; all else is taken.
const SILENT: &str = "192.0.2.1:25";
const WILLING: &str = "192.0.2.2:25";

/// One place for connections, and two servers.
struct Bench {
    dispatcher: Dispatcher,
    recorder: Recorder,
    outbox: MemoryOutbox,
    directory: tempfile::TempDir,
    now: Now,
    /// What is told to the dispatcher next.
    replies: VecDeque<(ConnectionId, &'static str)>,
    connected: VecDeque<ConnectionId>,
    remotes: BTreeMap<ConnectionId, SocketAddr>,
    requests: VecDeque<(cmail_delivery::outbox::RequestId, cmail_delivery::outbox::StoreRequest)>,
    has_been_silent: bool,
}

impl Bench {
    fn with_mail_to(remotes: &[&str]) -> Self {
        let mut outbox = MemoryOutbox::new();
        for (remote, number) in remotes.iter().zip(1..) {
            let recipient = format!("r{number}@example.org");
            let mail = Mail::new("s@example.org", &recipient, format!("text {number}\r\n"), UnixTime(1));
            outbox.insert(Mail { remote: Some((*remote).to_owned().into()), ..mail }).unwrap();
        }
        let settings = Settings {
            concurrency: 1,
            told: Told { conversations: true, ..Told::default() },
            ..Settings::new("mail.example.org")
        };
        let now = Now::new(Instant::from_micros(1_000_000), UnixTime(1_000_000));
        let directory = tempfile::tempdir().unwrap();
        let recorder = Recorder::new(RecordDirectory::open(directory.path()).unwrap(), &settings);
        let dispatcher = Dispatcher::new(now, settings, Hosts::new(), Mode::Daemon, [7; 32]);
        Self {
            dispatcher,
            recorder,
            outbox,
            directory,
            now,
            replies: VecDeque::new(),
            connected: VecDeque::new(),
            remotes: BTreeMap::new(),
            requests: VecDeque::new(),
            has_been_silent: false,
        }
    }

    fn run_for(&mut self, span: Duration) {
        let end = self.now.monotonic + span;
        loop {
            self.carry_out();
            if let Some((id, request)) = self.requests.pop_front() {
                let answer = self.outbox.answer(request);
                self.input(Input::Store(id, answer));
            } else if let Some(connection) = self.connected.pop_front() {
                self.input(Input::Connected(connection));
                self.replies.push_back((connection, "220 mx ESMTP\r\n"));
            } else if let Some((connection, reply)) = self.replies.pop_front() {
                self.input(Input::Received(connection, reply.as_bytes()));
            } else {
                let due = self.dispatcher.poll_timeout().filter(|&(at, _)| at <= end);
                let Some((at, _)) = due else { return };
                self.now.monotonic = self.now.monotonic.max(at);
                self.recorder.timeout(self.now, at);
                self.dispatcher.handle_timeout(self.now);
            }
        }
    }

    fn input(&mut self, input: Input<'_>) {
        self.recorder.input(&self.dispatcher, self.now, &input);
        self.dispatcher.handle_input(self.now, input);
    }

    fn carry_out(&mut self) {
        while let Some(output) = self.dispatcher.poll_output() {
            self.recorder.output(&self.dispatcher, &output);
            match output {
                Output::Connect { connection, remote, .. } => {
                    self.remotes.insert(connection, remote);
                    self.connected.push_back(connection);
                }
                Output::Transmit(connection) => self.transmit(connection),
                Output::Close(connection) => self.replies.retain(|(to, _)| *to != connection),
                Output::Store(id, request) => self.requests.push_back((id, request)),
                Output::StartTls { .. }
                | Output::Datagram { .. }
                | Output::CloseDatagram(_)
                | Output::Release(_)
                | Output::Sign(..)
                | Output::Https(..)
                | Output::Event(_)
                | Output::Answer(..)
                | Output::Drained => {}
            }
        }
        self.recorder.settle(&self.dispatcher, self.now);
    }

    fn transmit(&mut self, connection: ConnectionId) {
        let mut octets = BytesMut::new();
        while self.dispatcher.poll_transmit(self.now, connection, 4096, &mut octets) {}
        let is_silent = self.remotes[&connection] == SILENT.parse().unwrap() && !self.has_been_silent;
        let reply = match octets.get(..4) {
            Some(b"EHLO") if is_silent => {
                self.has_been_silent = true;
                return;
            }
            Some(b"DATA") => "354 go ahead\r\n",
            // The end of the data comes by itself.
            Some(b"text") => return,
            Some(b"QUIT") => "221 bye\r\n",
            Some(_) => "250 ok\r\n",
            None => return,
        };
        self.replies.push_back((connection, reply));
    }

    fn records(mut self) -> Vec<String> {
        self.recorder.finish();
        let paths = std::fs::read_dir(self.directory.path()).unwrap().map(|entry| entry.unwrap().path());
        paths.map(|path| std::fs::read_to_string(path).unwrap()).collect()
    }
}

#[test]
fn a_connection_that_makes_room_for_others_replays() {
    let mut bench = Bench::with_mail_to(&[SILENT, WILLING]);
    bench.run_for(Duration::from_secs(300));
    assert!(bench.outbox.is_empty());
    let records = bench.records();
    assert_eq!(records.len(), 2, "{records:#?}");
    for record in &records {
        assert_eq!(cmail_delivery_sim::replay(record).as_ref(), Ok(record));
    }
    let gave_way =
        "C: EHLO mail.example.org\n+ 30s\n! yield\nC-\nC+ 192.0.2.1:25\nS: 220 mx1.example.net ESMTP\n";
    assert_eq!(records.iter().filter(|record| record.contains(gave_way)).count(), 1, "{records:#?}");
}
