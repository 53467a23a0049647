//! A mail server on loopback that accepts all recipients except those named `nobody`.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

/// A message that was taken.
#[derive(Clone, Debug)]
pub(crate) struct Taken {
    pub(crate) sender: String,
    pub(crate) recipients: Vec<String>,
    pub(crate) lines: Vec<String>,
}

pub(crate) struct SmtpServer {
    pub(crate) address: SocketAddr,
    taken: Arc<Mutex<Vec<Taken>>>,
}

impl SmtpServer {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let taken = Arc::new(Mutex::new(Vec::new()));
        let all = Arc::clone(&taken);
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (stream, all) = (stream.unwrap(), Arc::clone(&all));
                thread::spawn(move || talk(stream, &all));
            }
        });
        Self { address, taken }
    }

    pub(crate) fn taken(&self) -> Vec<Taken> {
        self.taken.lock().unwrap().clone()
    }
}

/// Leads one conversation, until the client has gone.
fn talk(mut stream: TcpStream, all: &Mutex<Vec<Taken>>) {
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
    let mut say = move |text: &str| stream.write_all(format!("{text}\r\n").as_bytes()).is_ok();
    let mut taken = Taken { sender: String::new(), recipients: Vec::new(), lines: Vec::new() };
    say("220 mx.example ESMTP");
    while let Some(line) = lines.next() {
        let path = line.split(['<', '>']).nth(1).unwrap_or_default().to_owned();
        let reply = match line.split([' ', ':']).next().unwrap() {
            "EHLO" => "250-mx.example\r\n250 PIPELINING",
            "MAIL" => {
                taken = Taken { sender: path, recipients: Vec::new(), lines: Vec::new() };
                "250 2.1.0 fine"
            }
            "RCPT" if path.starts_with("nobody@") => "550 5.1.1 no such user",
            "RCPT" => {
                taken.recipients.push(path);
                "250 2.1.5 fine"
            }
            "DATA" if taken.recipients.is_empty() => "503 5.5.1 no recipients",
            "DATA" => {
                say("354 go ahead");
                taken.lines = lines.by_ref().take_while(|line| line != ".").collect();
                all.lock().unwrap().push(taken.clone());
                "250 2.0.0 taken"
            }
            "QUIT" => "221 2.0.0 bye",
            _ => "500 5.5.2 what?",
        };
        say(reply);
        if reply.starts_with("221") {
            return;
        }
    }
}
