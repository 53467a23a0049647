//! Writes facts as text that a mail operator can read.

use cmail_delivery::explanation::{Explanation, Subject};
use cmail_delivery::io::Groups;
use cmail_delivery::outbox::{Commit, StoreRequest};

use crate::chronicle::{Chronicle, Story};
use crate::facts::{Fact, Origin, Scene, Shown};
use crate::witness::Violation;

/// Most octets of a line that are shown.
const SHOWN_OCTETS: usize = 200;

/// The destination of the text.
#[derive(Debug)]
pub(crate) enum Dialogue {
    /// None.
    Off,
    /// Into memory.
    Kept(String),
    /// The conversations are kept for a transcript.
    Recorded(Box<Chronicle>),
}

impl Dialogue {
    /// Writes a fact, if the text is wanted.
    pub(crate) fn write(&mut self, scene: &Scene<'_>, fact: Fact<'_>) {
        match self {
            Self::Off => {}
            Self::Kept(_) => {
                if let Some(line) = describe(fact) {
                    self.remark(scene, &line);
                }
            }
            Self::Recorded(chronicle) => chronicle.write(scene, fact),
        }
    }

    /// Writes that this fact has broken a rule.
    pub(crate) fn conclude(&mut self, scene: &Scene<'_>, fact: Fact<'_>, violation: &Violation) {
        match self {
            Self::Off => {}
            Self::Kept(_) => {
                let line = format!("VIOLATION of \"{}\": {}", violation.checker, violation.text);
                self.remark(scene, &line);
            }
            Self::Recorded(chronicle) => chronicle.conclude(scene, fact),
        }
    }

    /// Writes a line.
    pub(crate) fn remark(&mut self, scene: &Scene<'_>, line: &str) {
        if let Self::Kept(text) = self {
            let micros = scene.now.monotonic.as_micros();
            let seconds = micros / 1_000_000;
            let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
            text.push_str(&format!(
                "{hours:3}:{minutes:02}:{:02}.{:06} {line}\n",
                seconds % 60,
                micros % 1_000_000
            ));
        }
    }

    /// Returns what was written.
    pub(crate) fn into_text(self) -> String {
        match self {
            Self::Off | Self::Recorded(_) => String::new(),
            Self::Kept(text) => text,
        }
    }

    /// Returns the story of the broken rule, if it was recorded.
    pub(crate) fn into_story(self) -> Option<Story> {
        match self {
            Self::Off | Self::Kept(_) => None,
            Self::Recorded(chronicle) => chronicle.into_story(),
        }
    }
}

fn describe(fact: Fact<'_>) -> Option<String> {
    Some(match fact {
        Fact::Started { epoch, .. } => format!("--- the daemon starts, number {epoch}"),
        Fact::Stopped { crashed: true } => "--- the daemon crashes".into(),
        Fact::Stopped { crashed: false } => "--- the daemon has ended".into(),
        Fact::Draining => "--- the daemon is asked to end".into(),
        Fact::Ordered => "--- everything is to be tried".into(),
        Fact::HostsRead { file } => format!("--- the hosts file is {file:?}"),
        Fact::Reconfigured { settings } => format!("--- the settings are {settings:?}"),
        Fact::WallSet { by_s } => format!("--- the wall clock is set by {by_s} s"),
        Fact::Inserted { id, origin: Origin::Submitted } => format!("= {id} submitted"),
        Fact::Inserted { id, origin: Origin::WarningOf(originals) } => {
            format!("= {id} warns of {originals:?}")
        }
        Fact::Inserted { id, origin: Origin::ReportOf(original) } => {
            format!("= {id} tells that {original} was delivered")
        }
        Fact::Inserted { id, origin: Origin::BounceOf(originals) } => {
            format!("= {id} inserted, the bounce of {}", list(originals))
        }
        Fact::Removed { id } => format!("= {id} deleted by another process"),
        Fact::Meddled { id } => format!("= {id} changed by another process"),
        Fact::Connecting { link, remote, purpose } => {
            format!("[{link}] connects to {remote} for {purpose:?}")
        }
        Fact::GoesTo { link, next_hop, .. } => format!("[{link}] is for {next_hop}"),
        Fact::Explained { subject, explanation } => describe_explanation(subject, explanation),
        Fact::Gone { link, parting } => format!("[{link}] is over: {parting:?}"),
        Fact::StartTls { link, groups: Groups::All } => format!("[{link}] begins TLS"),
        Fact::StartTls { link, groups: Groups::Classic } => {
            format!("[{link}] begins TLS with classic groups")
        }
        Fact::TlsEstablished { link, shown: Shown { is_valid, key } } => {
            let valid = if is_valid { "valid" } else { "not valid" };
            format!("[{link}] has TLS, the certificate is {valid}, its key number {key}")
        }
        Fact::NameAsked { .. } => return None,
        Fact::NameAnswered { question, is_secure } => {
            let secure = if is_secure { "securely" } else { "insecurely" };
            let records = if question.is_tlsa { "TLSA records" } else { "records" };
            format!("= {records} of {} are answered {secure}", question.name)
        }
        Fact::Received { link, octets } => format!("[{link}] S| {}", shown(octets)),
        Fact::Command { link, line, tls, .. } => {
            format!("[{link}] C{} {}", if tls { "*" } else { ":" }, shown(line))
        }
        Fact::FinalDot { link, octets, .. } => format!("[{link}] C. end of {octets} octets"),
        Fact::Accepted { link, recipients, data, .. } => {
            format!("[{link}] accepted {} octets for {}", data.len(), recipients.join(" "))
        }
        Fact::Committing { commit, .. } => describe_commit(commit),
        Fact::OrderGiven { number } => format!("= order {number} is given"),
        Fact::CarryingOut { step, mails } => format!("= order {} on {};", step.order, list(mails)),
        Fact::Log(event) if event.level() < cmail_delivery::event::Level::Trace => format!("log: {event}"),
        Fact::Asked { id, request } if !matches!(request, StoreRequest::Scan { .. }) => {
            format!("? {} {request:?}", id.0).chars().take(SHOWN_OCTETS).collect()
        }
        Fact::Spins => "--- the core spins".into(),
        Fact::Healed => "--- the world is healed".into(),
        Fact::Finished => "--- the time is over".into(),
        Fact::Sent { .. }
        | Fact::Reply { .. }
        | Fact::Asked { .. }
        | Fact::Answered { .. }
        | Fact::Told { .. }
        | Fact::Log(_)
        | Fact::Called { .. }
        | Fact::Released { .. } => return None,
    })
}

fn describe_explanation(subject: &Subject, explanation: &Explanation) -> String {
    let of = match subject {
        Subject::Mail(id) => format!("mail {id} waits: {:?}", explanation.mail),
        Subject::NextHop(next_hop) => next_hop.to_string(),
    };
    let destination = explanation.destination.as_ref();
    let told = destination.map(|destination| (&destination.activity, destination.mails, destination.limits));
    format!("= asked: {of}; {told:?}").chars().take(SHOWN_OCTETS).collect()
}

fn describe_commit(commit: &Commit) -> String {
    let mut text = String::from("=");
    if !commit.delivered.is_empty() {
        text.push_str(&format!(
            " {} deleted;",
            list(&commit.delivered.iter().map(|mail| mail.id).collect::<Vec<_>>())
        ));
    }
    for failed in &commit.failed {
        let kind = if failed.attempt.is_fatal() { "failed" } else { "deferred" };
        text.push_str(&format!(" {} {kind} \"{}\";", failed.id, failed.text().escape_debug()));
    }
    for replacement in &commit.replaced {
        let kind = if replacement.bounce.is_some() { "bounced" } else { "dropped" };
        text.push_str(&format!(" {} {kind};", list(&replacement.originals)));
    }
    text
}

fn list(ids: &[cmail_delivery::outbox::MailId]) -> String {
    ids.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
}

fn shown(octets: &[u8]) -> String {
    let shown = octets.get(..SHOWN_OCTETS).unwrap_or(octets);
    let ellipsis = if shown.len() < octets.len() { "…" } else { "" };
    format!("{}{ellipsis}", shown.escape_ascii())
}
