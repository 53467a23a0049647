//! The command line of the examples that run a whole dispatcher.

use std::error::Error;
use std::fs::File;
use std::io::{self, Read as _};
use std::net::SocketAddr;
use std::time::{SystemTime, UNIX_EPOCH};

use cmail_delivery::memory_outbox::Mail;
use cmail_delivery::settings::{ResolverSettings, Settings};
use cmail_delivery::time::UnixTime;
use cmail_delivery::{Event, MemoryOutbox};

/// What is to be done: NAMESERVER SENDER RECIPIENT…, and a message on standard input.
pub(crate) struct Order {
    pub(crate) settings: Settings,
    pub(crate) outbox: MemoryOutbox,
    pub(crate) seed: [u8; 32],
}

impl Order {
    pub(crate) fn read() -> Result<Self, Box<dyn Error>> {
        let arguments: Vec<String> = std::env::args().skip(1).collect();
        let [name_server, sender, recipients @ ..] = arguments.as_slice() else {
            return Err("the arguments are: NAMESERVER:PORT SENDER RECIPIENT...".into());
        };
        let servers: Vec<SocketAddr> = vec![name_server.parse()?];
        let settings =
            Settings { resolver: ResolverSettings::new(servers), ..Settings::new("client.example.org") };
        let mut message = Vec::new();
        io::stdin().read_to_end(&mut message)?;
        let submission = i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs())?;
        let mut outbox = MemoryOutbox::new();
        for recipient in recipients {
            outbox.insert(Mail::new(sender, recipient, message.clone(), UnixTime(submission)))?;
        }
        // All that is random comes from here, also what others must not guess: so from the system.
        let mut seed = [0; 32];
        File::open("/dev/urandom")?.read_exact(&mut seed)?;
        Ok(Self { settings, outbox, seed })
    }
}

/// Whether everything was tried: what is left waits for its next time, or was refused.
pub(crate) fn was_all_tried(outbox: &MemoryOutbox) -> bool {
    outbox.mails().all(|(_, mail)| !mail.faillog.is_empty())
}

/// Says on standard error what happens.
pub(crate) fn log(event: &Event) {
    eprintln!("{event}");
}
