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

/// The arguments NAMESERVER SENDER RECIPIENT…, and a message from standard input.
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
        // The seed of all randomness, including values that others must not guess, so it comes from the system.
        let mut seed = [0; 32];
        File::open("/dev/urandom")?.read_exact(&mut seed)?;
        Ok(Self { settings, outbox, seed })
    }
}

/// Returns whether all mail was tried. Mail that is left waits for its next attempt, or was refused.
pub(crate) fn was_all_tried(outbox: &MemoryOutbox) -> bool {
    outbox.mails().all(|(_, mail)| !mail.faillog.is_empty())
}

/// Writes an event to standard error.
pub(crate) fn log(event: &Event) {
    eprintln!("{event}");
}
