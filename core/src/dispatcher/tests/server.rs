//! SMTP servers that follow a script of exceptions; in everything else they are friendly.

use std::collections::{BTreeSet, VecDeque};

use super::*;

/// What one connection meets with.
#[derive(Clone, Debug, Default)]
pub(super) struct Behaviour {
    /// What becomes of the attempt to connect.
    pub(super) connect: Connect,
    pub(super) tls_fails: bool,
    /// What becomes of a first message of the TLS handshake that is larger than a segment.
    pub(super) large_hello: LargeHello,
    pub(super) certificate_is_valid: bool,
    /// The digest of its key: that of the records of `dane.rs` if it is the one that they name.
    pub(super) key: u8,
    /// Command prefix, answer, and how often it is given: the first that fits is taken. The greeting is `greeting`,
    /// the end of data is `.`; the answer `drop` closes the connection, `hang` says nothing.
    pub(super) rules: Vec<(&'static str, &'static str, u32)>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum LargeHello {
    #[default]
    Taken,
    Ignored,
    /// The connection is closed.
    Dropped,
    /// The connection is reset.
    Reset,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Connect {
    #[default]
    Accepted,
    Refused,
    Silent,
    Local,
}

impl Behaviour {
    pub(super) fn connect(connect: Connect) -> Self {
        Self { connect, ..Self::default() }
    }

    pub(super) fn on(command: &'static str, answer: &'static str) -> Self {
        Self::default().and(command, answer)
    }

    pub(super) fn and(self, command: &'static str, answer: &'static str) -> Self {
        self.times(command, answer, u32::MAX)
    }

    pub(super) fn times(mut self, command: &'static str, answer: &'static str, times: u32) -> Self {
        self.rules.push((command, answer, times));
        self
    }
}

/// A message that a server took responsibility for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Accepted {
    pub(super) from: String,
    pub(super) to: Vec<String>,
    pub(super) data: String,
}

#[derive(Debug, Default)]
pub(super) struct Server {
    /// For the next connections; after them `usual` holds.
    pub(super) next: VecDeque<Behaviour>,
    pub(super) usual: Behaviour,
    pub(super) commands: Vec<String>,
    pub(super) accepted: Vec<Accepted>,
    /// The groups that each TLS handshake has offered.
    pub(super) groups: Vec<Groups>,
    pub(super) connections: u32,
    pub(super) open: BTreeSet<ConnectionId>,
    pub(super) most_open: usize,
    /// The most commands that have come at once.
    pub(super) most_ahead: usize,
}

impl Server {
    pub(super) fn count(&self, command: &str) -> usize {
        self.commands.iter().filter(|line| line.starts_with(command)).count()
    }

    pub(super) fn recipients(&self) -> Vec<String> {
        self.accepted.iter().flat_map(|message| message.to.clone()).collect()
    }
}

/// The far end of a connection.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) address: SocketAddr,
    pub(super) behaviour: Behaviour,
    input: Vec<u8>,
    from: String,
    to: Vec<String>,
    is_in_data: bool,
}

/// What the far end does.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Say(String),
    Close,
}

impl Peer {
    pub(super) fn new(address: SocketAddr, behaviour: Behaviour) -> Self {
        Self { address, behaviour, input: Vec::new(), from: String::new(), to: Vec::new(), is_in_data: false }
    }

    fn scripted(&mut self, command: &str) -> Option<&'static str> {
        let fits = |rule: &&mut (&str, &str, u32)| command.starts_with(rule.0) && rule.2 > 0;
        let rule = self.behaviour.rules.iter_mut().find(fits)?;
        rule.2 -= 1;
        Some(rule.1)
    }

    fn answer(&mut self, command: &str, usual: &str) -> (bool, Vec<Answer>) {
        let answer = self.scripted(command).unwrap_or(usual);
        match answer {
            "drop" => (false, vec![Answer::Close]),
            "hang" => (false, vec![]),
            _ => {
                let said = Answer::Say(format!("{answer}\r\n"));
                let closes = answer.starts_with("421") || command.starts_with("QUIT");
                let answers = if closes { vec![said, Answer::Close] } else { vec![said] };
                (answer.starts_with(['2', '3']), answers)
            }
        }
    }

    pub(super) fn greet(&mut self) -> Vec<Answer> {
        self.answer("greeting", "220 mx ESMTP").1
    }

    pub(super) fn take(&mut self, octets: &[u8], server: &mut Server) -> Vec<Answer> {
        self.input.extend_from_slice(octets);
        let mut answers = Vec::new();
        let before = server.commands.len();
        loop {
            server.most_ahead = server.most_ahead.max(server.commands.len() - before);
            if self.is_in_data {
                let text = String::from_utf8_lossy(&self.input).into_owned();
                let Some(end) =
                    text.find("\r\n.\r\n").map(|end| end + 2).or(text.starts_with(".\r\n").then_some(0))
                else {
                    return answers;
                };
                self.input.drain(..end + 3);
                self.is_in_data = false;
                let (is_taken, said) = self.answer(".", "250 taken");
                if is_taken {
                    let to = std::mem::take(&mut self.to);
                    let (from, data) = (self.from.clone(), text[..end].to_owned());
                    server.accepted.push(Accepted { from, to, data });
                }
                answers.extend(said);
                continue;
            }
            let Some(end) = self.input.iter().position(|&octet| octet == b'\n') else { return answers };
            let line: Vec<u8> = self.input.drain(..=end).collect();
            let line = String::from_utf8(line).unwrap().trim_end().to_owned();
            server.commands.push(line.clone());
            answers.extend(self.command(&line));
        }
    }

    fn command(&mut self, line: &str) -> Vec<Answer> {
        let usual = match line.split(' ').next().unwrap_or_default() {
            "EHLO" => "250-mx\r\n250 8BITMIME",
            "STARTTLS" => "220 go ahead",
            "DATA" => "354 go ahead",
            "QUIT" => "221 bye",
            "MAIL" | "RCPT" | "RSET" | "NOOP" | "HELO" => "250 ok",
            _ => "500 what?",
        };
        let (is_done, answers) = self.answer(line, usual);
        let path = || line.split(['<', '>']).nth(1).unwrap_or_default().to_owned();
        if is_done && line.starts_with("MAIL") {
            (self.from, self.to) = (path(), Vec::new());
        } else if is_done && line.starts_with("RCPT") {
            self.to.push(path());
        } else if is_done && line == "DATA" {
            self.is_in_data = true;
        }
        answers
    }
}
