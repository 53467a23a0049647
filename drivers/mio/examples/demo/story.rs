//! Who takes part, which mail is sent, and what has to become of it.

use std::net::Ipv4Addr;

use crate::Result;
use crate::dns::Zone;
use crate::network::Certificate;
use crate::smtp::{Manners, Tls};

/// Who writes.
pub(crate) const SENDER: &str = "alice@home.example";
/// How the daemon introduces itself.
pub(crate) const ANNOUNCE: &str = "out.home.example";
/// The server that keeps the sender's mailbox.
pub(crate) const HOME: &str = "mx.home.example";
/// The server that takes mail of customers only.
pub(crate) const RELAY: &str = "relay.provider.example";
/// The recipient who does not exist.
pub(crate) const NOBODY: &str = "nobody@friendly.example";

const CREDENTIALS: &str = "demo:open sesame";
/// The same as the argument of AUTH PLAIN: Base64 of NUL, user, NUL, password.
const CREDENTIALS_AS_PLAIN: &str = "AGRlbW8Ab3BlbiBzZXNhbWU=";

/// The mail exchanger that is dead: nobody listens there.
const DEAD: (&str, Ipv4Addr) = ("mx1.backed.example", Ipv4Addr::new(127, 0, 1, 99));

/// What has to become of a mail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Delivered at the first attempt.
    Delivered,
    /// Delivered at the first attempt, but not before another server had been connected to in vain.
    DeliveredDespite(&'static str),
    /// Delivered, but not before an attempt has failed for a text that begins so.
    DeliveredAfter(&'static str),
    /// Given up for a text that begins so.
    Bounced(&'static str),
}

/// A mail to be sent.
#[derive(Clone, Debug)]
pub(crate) struct Mail {
    /// Its number in the outbox.
    pub(crate) id: i64,
    /// The remote specification, if it is to be handed to a certain server.
    pub(crate) remote: Option<String>,
    /// Whom it goes to.
    pub(crate) recipient: &'static str,
    /// The text.
    pub(crate) data: String,
    /// What has to become of it.
    pub(crate) outcome: Outcome,
    /// The server that has to have it in the end.
    pub(crate) server: &'static str,
    /// Whether it has to come there encrypted.
    pub(crate) by_tls: bool,
}

/// The servers, each with the address at which it listens.
pub(crate) fn servers(ordinary: &Certificate, relay: &Certificate) -> Vec<(Ipv4Addr, Manners)> {
    let starttls = || Tls::Offered(ordinary.config.clone());
    let implicit = Tls::Implicit(relay.config.clone());
    let refusing = Manners::friendly("mx.friendly.example", "knows bob, but not nobody", starttls());
    let greylisting =
        Manners::friendly("mx.patient.example", "greylists: strangers must come back", starttls());
    let backup = Manners::friendly("mx2.backed.example", "the backup of a dead mx1; has no TLS", Tls::None);
    let handoff = Manners::friendly(RELAY, "wants a password; TLS from the first octet", implicit);
    let home = Manners::friendly(HOME, "keeps the mailbox of the sender", starttls());
    let manners = [
        Manners { unknown_recipient: Some(NOBODY), ..refusing },
        Manners { greylists: true, ..greylisting },
        backup,
        Manners { credentials: Some(CREDENTIALS_AS_PLAIN), ..handoff },
        home,
    ];
    (1..).map(|last| Ipv4Addr::new(127, 0, 1, last)).zip(manners).collect()
}

/// What DNS says of all this.
pub(crate) fn zone(servers: &[(Ipv4Addr, Manners)]) -> Result<Zone> {
    let mut zone = Zone::default();
    for (address, manners) in servers {
        zone.a(manners.name, *address)?;
    }
    zone.mx("friendly.example", 10, "mx.friendly.example")?;
    zone.mx("patient.example", 10, "mx.patient.example")?;
    let (dead, address) = DEAD;
    zone.a(dead, address)?;
    zone.mx("backed.example", 10, dead)?;
    zone.mx("backed.example", 20, "mx2.backed.example")?;
    zone.mx("home.example", 10, HOME)?;
    Ok(zone)
}

/// The mail that is sent. The first two are one message to two recipients.
pub(crate) fn mails(port: u16) -> Vec<Mail> {
    let mail = |recipient, server| Mail {
        id: 0,
        remote: None,
        recipient,
        data: text(recipient),
        outcome: Outcome::Delivered,
        server,
        by_tls: true,
    };
    let to_two = text("bob@friendly.example, nobody@friendly.example");
    let handoff = format!("{CREDENTIALS}@{RELAY}:{port}/tls");
    vec![
        Mail { data: to_two.clone(), ..mail("bob@friendly.example", "mx.friendly.example") },
        Mail { data: to_two, outcome: Outcome::Bounced("550 5.1.1"), ..mail(NOBODY, HOME) },
        Mail {
            outcome: Outcome::DeliveredAfter("450 4.2.0"),
            ..mail("dora@patient.example", "mx.patient.example")
        },
        Mail {
            by_tls: false,
            outcome: Outcome::DeliveredDespite(DEAD.0),
            ..mail("erik@backed.example", "mx2.backed.example")
        },
        Mail { remote: Some(handoff), ..mail("fred@elsewhere.example", RELAY) },
    ]
}

/// A message with a line that begins with a dot, which SMTP has to double on the way.
fn text(to: &str) -> String {
    let name = to.split('@').next().unwrap_or_default();
    format!(
        "From: Alice <{SENDER}>\r\nTo: {to}\r\nSubject: Tea?\r\nDate: Thu, 1 Jan 2026 12:00:00 +0000\r\n\
         Message-ID: <{name}.1@home.example>\r\n\r\nShall we meet for tea at four\r\n... or at five?\r\n"
    )
}
