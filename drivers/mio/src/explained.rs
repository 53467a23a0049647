//! What the dispatcher says of what it does, as records and in words, for the operator's tool.

use std::net::SocketAddr;

use cmail_delivery::address::{AddressError, Domain, Mailbox};
use cmail_delivery::attempt::{Acceptance, Failure};
use cmail_delivery::explanation::{
    Activity, Answer, CandidateExplanation, DatabaseWork, DestinationExplanation, Explanation, HostReason,
    Places, Subject, TurnReason, Waiting,
};
use cmail_delivery::hold::HoldLine;
use cmail_delivery::next_hop::{NextHop, Port, Relay, TlsMode};
use cmail_delivery::outbox::MailId;
use cmail_delivery::policy::{Decision, RateLimit};
use cmail_delivery::probe::{Probe, ProbeEnvelope, ProbeEvent, ProbeStep, ProbeVerdict};
use cmail_delivery::reply::Reply;
use cmail_delivery::route::Candidate;
use cmail_delivery::sts::Finding;
use cmail_delivery::time::{Instant, Now, UnixMillis};
use cmail_delivery::tls::{Basis, Enforced, NamePattern, Need, Proof, Requirement};
use serde::Serialize;

use crate::config;

/// What may be asked about: an id, a domain, an address in brackets, or a relay with its port. Returns a sentence if it is none of
/// these.
pub(crate) fn subject(word: &str) -> Result<Subject, String> {
    if !word.is_empty() && word.bytes().all(|octet| octet.is_ascii_digit()) {
        let id = word.parse().map_err(|_| format!("{word} is too large for the id of a mail"))?;
        return Ok(Subject::Mail(MailId(id)));
    }
    next_hop(word).map(Subject::NextHop)
}

/// Returns the next hop that a word names.
pub(crate) fn next_hop(word: &str) -> Result<NextHop, String> {
    if let Some(literal) = word.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        let address = literal.strip_prefix("IPv6:").unwrap_or(literal).parse();
        return address.map(NextHop::Literal).map_err(|error| format!("{word} is no address: {error}"));
    }
    let relay = || Relay::parse(word.as_bytes()).map(NextHop::Relay);
    if word.contains(':') {
        // What stands before an @ may be a password.
        let shown = word.rsplit_once('@').map_or(word, |(_, server)| server);
        return relay().map_err(|error| format!("{shown} names no relay: {error}"));
    }
    Domain::parse(word).map(NextHop::Domain).map_err(|error| format!("{word} is no domain: {error}"))
}

/// What is to be probed: an address, or whatever else [`next_hop`] understands. An empty sender, or `<>`, is the null one. `host` is a relay
/// by which it goes, and `port` the only port to try, as `25` or `587@starttls`; both may be empty. Returns a sentence if it is none.
pub(crate) fn probe(what: &str, sender: &str, host: &str, port: &str) -> Result<Probe, String> {
    let no_address = |what: &str, error: AddressError| format!("{what} is no address: {error}");
    let (envelope, of_what) = if what.contains('@') {
        let recipient = Mailbox::parse(what.as_bytes()).map_err(|error| no_address(what, error))?;
        let sender = match sender {
            "" | "<>" => None,
            sender => Some(Mailbox::parse(sender.as_bytes()).map_err(|error| no_address(sender, error))?),
        };
        let domain = recipient.domain().map_err(|error| no_address(what, error))?;
        (Some(ProbeEnvelope { sender, recipient }), domain.into())
    } else {
        (None, next_hop(what)?)
    };
    let next_hop = match host {
        "" => of_what,
        // Nothing of it is shown, for there may be a password in it.
        host => NextHop::Relay(
            Relay::parse(host.as_bytes()).map_err(|error| format!("--host names no relay: {error}"))?,
        ),
    };
    let port = if port.is_empty() { None } else { Some(parse_port(port)?) };
    Ok(Probe { next_hop, port, envelope })
}

fn parse_port(text: &str) -> Result<Port, String> {
    let (number, mode) = text.split_once('@').map_or((text, None), |(number, mode)| (number, Some(mode)));
    let tls = mode.map_or(Some(TlsMode::Plain), TlsMode::parse);
    let number = number.parse().ok().filter(|number| *number != 0);
    match (number, tls) {
        (Some(number), Some(tls)) => Ok(Port { number, tls }),
        _ => Err(format!("{text} is no port: it must be as 25, 25@starttls or 465@tls")),
    }
}

/// The times of an explanation are those of the clock of the dispatcher; these are those of the calendar.
#[derive(Clone, Copy, Debug)]
struct Calendar(Now);

impl Calendar {
    fn millis(self, at: Instant) -> i64 {
        let Self(now) = self;
        let ahead = at.saturating_duration_since(now.monotonic).as_millis();
        let behind = now.monotonic.saturating_duration_since(at).as_millis();
        let [ahead, behind] = [ahead, behind].map(|span| i64::try_from(span).unwrap_or(i64::MAX));
        now.wall_millis().0.saturating_add(ahead).saturating_sub(behind)
    }
}

/// Gives the records of an answer to `tell`: their kinds and fields.
pub(crate) fn tell(answer: &Answer, now: Now, tell: &mut dyn FnMut(&'static str, serde_json::Value)) {
    let calendar = Calendar(now);
    let explanation = match answer {
        Answer::Explanation(explanation) => explanation,
        Answer::Probing(step) => return tell("step", value(StepFields::of(step, now))),
        Answer::Probed(verdict) => return tell("verdict", value(VerdictFields::of(verdict))),
    };
    tell("explanation", value(Fields::of(explanation, calendar)));
    let route = explanation.destination.as_ref().and_then(|destination| destination.route.as_ref());
    for (place, candidate) in route.iter().flat_map(|route| &route.candidates).enumerate() {
        let preference = route.and_then(|route| {
            let host = candidate.candidate.host.to_string();
            route.mx.iter().find(|(_, name)| name.as_str() == host).map(|(preference, _)| *preference)
        });
        tell("candidate", value(CandidateFields::of(place + 1, preference, candidate, calendar)));
    }
}

fn value(fields: impl Serialize) -> serde_json::Value {
    // Fields with names always make an object.
    serde_json::to_value(fields).unwrap_or_default()
}

/// The fields of an explanation.
#[derive(Debug, Default, Serialize)]
struct Fields {
    mail_waits_for: Option<&'static str>,
    mail_text: Option<String>,
    mail_until_ms: Option<i64>,
    next_hop: Option<String>,
    waits_for: Option<&'static str>,
    text: Option<String>,
    until_ms: Option<i64>,
    ready: usize,
    waiting: usize,
    next_ms: Option<i64>,
    claimed: usize,
    given_up: usize,
    set_aside: usize,
    held: usize,
    held_by: Vec<HeldByFields>,
    connections: usize,
    connections_max: usize,
    all_connections: usize,
    all_connections_max: usize,
    destination_concurrency: usize,
    ratelimit: Option<String>,
    ratelimit_until_ms: Option<i64>,
    decided: Vec<DecisionFields>,
    mx: Vec<MxFields>,
    mta_sts: Option<StsFields>,
    host_problems: Vec<String>,
    problem: Option<String>,
}

/// An MX record.
#[derive(Debug, Serialize)]
struct MxFields {
    preference: u16,
    host: String,
}

/// The MTA-STS policy of a domain.
#[derive(Debug, Default, Serialize)]
struct StsFields {
    mode: Option<String>,
    id: Option<String>,
    hosts: Vec<String>,
    fetched_ms: Option<i64>,
    until_ms: Option<i64>,
    problem: Option<String>,
}

impl StsFields {
    fn of(Finding { policy, trouble }: &Finding) -> Self {
        let problem = trouble.as_ref().map(ToString::to_string);
        let Some(known) = policy else { return Self { problem, ..Self::default() } };
        Self {
            mode: Some(known.policy.mode.to_string()),
            id: Some(known.id.to_string()),
            // As a policy has them.
            hosts: known
                .policy
                .hosts
                .iter()
                .map(|host| match host {
                    NamePattern::Exactly(name) => name.to_string(),
                    NamePattern::Below(above) => format!("*.{above}"),
                })
                .collect(),
            fetched_ms: Some(UnixMillis::from(known.fetched).0),
            until_ms: Some(UnixMillis::from(known.expires).0),
            problem,
        }
    }
}

/// A line that holds mail, and how much.
#[derive(Debug, Serialize)]
struct HeldByFields {
    line: u32,
    text: String,
    mails: usize,
}

impl HeldByFields {
    fn of((line, mails): &(HoldLine, usize)) -> Self {
        Self { line: line.line, text: line.named().to_string(), mails: *mails }
    }
}

/// What a line decides.
#[derive(Debug, Serialize)]
struct DecisionFields {
    key: &'static str,
    value: String,
    line: u32,
    destination: String,
}

impl DecisionFields {
    fn of(Decision { choice, destination, line }: &Decision) -> Self {
        Self {
            key: config::key_of(choice),
            value: config::value_of(choice),
            line: *line,
            destination: config::show_destination(choice, destination),
        }
    }
}

/// The fields of a candidate.
#[derive(Debug, Serialize)]
struct CandidateFields {
    place: usize,
    preference: Option<u16>,
    host: String,
    address: String,
    port: u16,
    tls: &'static str,
    needs: Option<&'static str>,
    needs_by: Option<&'static str>,
    connections: usize,
    connections_max: usize,
    trouble: Option<String>,
    trouble_since_ms: Option<i64>,
    trouble_until_ms: Option<i64>,
    is_slow: bool,
    no_pipelining: bool,
    decided: Vec<DecisionFields>,
}

/// The fields of a step of a probe.
#[derive(Debug, Serialize)]
struct StepFields {
    at_ms: i64,
    conn: Option<u64>,
    said: &'static str,
    text: String,
}

/// The fields of a verdict.
#[derive(Debug, Serialize)]
struct VerdictFields {
    verdict: &'static str,
    text: String,
    failure: Option<String>,
    code: Option<u16>,
    status: Option<String>,
    host: Option<String>,
    address: Option<String>,
    port: Option<u16>,
    tls: Option<String>,
}

impl StepFields {
    fn of(step: &ProbeStep, now: Now) -> Self {
        let (said, text) = match &step.what {
            ProbeEvent::Sent(octets) => ("by_us", shown(octets)),
            ProbeEvent::Received(octets) => ("by_server", shown(octets)),
            ProbeEvent::Remark(text) => ("remark", text.to_string()),
        };
        Self { at_ms: now.wall_millis().0, conn: step.connection.map(|id| id.0), said, text }
    }
}

impl VerdictFields {
    fn of(verdict: &ProbeVerdict) -> Self {
        let (word, server, reply) = match verdict {
            ProbeVerdict::Accepted(Acceptance { server, reply }) => ("accepted", Some(server), Some(reply)),
            ProbeVerdict::Reached(server) => ("reached", Some(server), None),
            ProbeVerdict::Failed(failure) => {
                let (server, reply) = match failure {
                    Failure::Refused { server, reply, .. } => (Some(server), Some(reply)),
                    Failure::Unfit(server, _) | Failure::Uncertain(server, _) => (Some(server), None),
                    Failure::Unreached(_)
                    | Failure::Unresolved(_)
                    | Failure::Unsendable(_)
                    | Failure::MalformedRelay(_)
                    | Failure::NotSigned(_) => (None, None),
                };
                (if failure.is_fatal() { "failed" } else { "deferred" }, server, reply)
            }
            ProbeVerdict::Waits(_) => ("waits", None, None),
        };
        let failure = if let ProbeVerdict::Failed(failure) = verdict { Some(failure) } else { None };
        let status = failure.and_then(Failure::status).or_else(|| reply.and_then(Reply::enhanced));
        Self {
            verdict: word,
            text: verdict.to_string(),
            failure: failure.map(|failure| failure.kind().to_string()),
            code: reply.map(|reply| reply.code().as_u16()),
            status: status.map(|status| status.to_string()),
            host: server.map(|server| server.host.to_string()),
            address: server.map(|server| server.address.ip().to_string()),
            port: server.map(|server| server.address.port()),
            tls: server.and_then(|server| server.tls).map(|tls| tls.to_string()),
        }
    }
}

/// Returns the lines of a command or a reply, without their last end.
fn shown(octets: &[u8]) -> String {
    String::from_utf8_lossy(octets).trim_end_matches(['\r', '\n']).replace("\r\n", "\n")
}

/// What something waits for: a word for programs, a clause for people, and until when.
struct Wait {
    word: &'static str,
    text: String,
    until_ms: Option<i64>,
}

impl Wait {
    fn of(word: &'static str, text: impl Into<String>) -> Self {
        Self { word, text: text.into(), until_ms: None }
    }

    fn until(self, until_ms: i64) -> Self {
        Self { until_ms: Some(until_ms), ..self }
    }
}

impl Fields {
    fn of(explanation: &Explanation, calendar: Calendar) -> Self {
        let mail = explanation.mail.as_ref().map(|waiting| mail_wait(waiting, calendar));
        let of_destination = explanation.destination.as_ref();
        let mut fields =
            of_destination.map_or_else(Self::default, |known| Self::of_destination(known, calendar));
        if let Some(Wait { word, text, until_ms }) = mail {
            (fields.mail_waits_for, fields.mail_text, fields.mail_until_ms) =
                (Some(word), Some(text), until_ms);
        }
        fields
    }

    fn of_destination(destination: &DestinationExplanation, calendar: Calendar) -> Self {
        let DestinationExplanation { next_hop, activity, mails, held_by, limits, decisions, route } =
            destination;
        let Wait { word, text, until_ms } = wait(activity, calendar);
        let mx = route.iter().flat_map(|route| &route.mx);
        let host_problems = route.iter().flat_map(|route| &route.host_troubles);
        let problem = route.as_ref().and_then(|route| route.dead_end.as_ref());
        Self {
            next_hop: Some(next_hop.to_string()),
            waits_for: Some(word),
            text: Some(text),
            until_ms,
            ready: mails.ready,
            waiting: mails.waiting,
            next_ms: mails.next_due.map(|time| UnixMillis::from(time).0),
            claimed: mails.claimed,
            given_up: mails.given_up,
            set_aside: mails.set_aside,
            held: mails.held,
            held_by: held_by.iter().map(HeldByFields::of).collect(),
            connections: limits.destination.used,
            connections_max: limits.destination.limit,
            all_connections: limits.all.used,
            all_connections_max: limits.all.limit,
            destination_concurrency: limits.configured,
            ratelimit: limits.rate.map(|rate| shown_rate(rate.limit)),
            ratelimit_until_ms: limits.rate.and_then(|rate| rate.next).map(|at| calendar.millis(at)),
            decided: decisions.iter().map(DecisionFields::of).collect(),
            mx: mx
                .map(|(preference, host)| MxFields { preference: *preference, host: host.to_string() })
                .collect(),
            mta_sts: route.as_ref().and_then(|route| route.sts.as_ref()).map(StsFields::of),
            host_problems: host_problems.map(ToString::to_string).collect(),
            problem: problem.map(ToString::to_string),
            ..Self::default()
        }
    }
}

impl CandidateFields {
    fn of(
        place: usize,
        preference: Option<u16>,
        explanation: &CandidateExplanation,
        calendar: Calendar,
    ) -> Self {
        let CandidateExplanation { candidate, places, decisions, trouble, is_slow, no_pipelining } =
            explanation;
        let Candidate { host, remote, tls, plan, .. } = candidate;
        let (needs, needs_by) = needs(plan.need);
        Self {
            place,
            preference,
            host: host.to_string(),
            address: remote.ip().to_string(),
            port: remote.port(),
            tls: match tls {
                TlsMode::Plain => "plain",
                TlsMode::StartTls => "starttls",
                TlsMode::Implicit => "tls",
            },
            needs,
            needs_by,
            connections: places.used,
            connections_max: places.limit,
            trouble: trouble.as_ref().map(|trouble| trouble.setback.to_string()),
            trouble_since_ms: trouble.as_ref().map(|trouble| calendar.millis(trouble.since)),
            trouble_until_ms: trouble.as_ref().map(|trouble| calendar.millis(trouble.until)),
            is_slow: *is_slow,
            no_pipelining: *no_pipelining,
            decided: decisions.iter().map(DecisionFields::of).collect(),
        }
    }
}

/// Returns the word for what is needed of TLS.
/// Returns what is needed of TLS, and by whom, by the words of the records.
const fn needs(need: Need) -> (Option<&'static str>, Option<&'static str>) {
    match need {
        Need::Optional | Need::Required(Requirement { enforced: Enforced::Nothing, .. }) => (None, None),
        Need::Never => (Some("no_tls"), Some("tls_policy")),
        Need::Required(Requirement { enforced: Enforced::Encryption(basis), .. }) => {
            (Some("encryption"), Some(needed_by(basis)))
        }
        Need::Required(Requirement { proof, basis, .. }) => {
            let needs = match proof {
                None => "encryption",
                Some(Proof::WebPki) => "verified",
                Some(Proof::Pin) => "pinned",
                Some(Proof::Dane) => "dane",
            };
            (Some(needs), Some(needed_by(basis)))
        }
    }
}

const fn needed_by(basis: Basis) -> &'static str {
    match basis {
        Basis::Config => "tls_policy",
        Basis::Dane => "dane",
        Basis::DaneInsecureMx => "dane_insecure_mx",
        Basis::Sts => "mta_sts",
        Basis::RequireTls => "requiretls",
    }
}

/// Writes a rate limit as the configuration has it.
fn shown_rate(limit: RateLimit) -> String {
    let unit = match limit.per.as_secs() {
        1 => "s",
        60 => "min",
        _ => "h",
    };
    format!("{}/{unit}", limit.transactions)
}

fn mail_wait(waiting: &Waiting, calendar: Calendar) -> Wait {
    match waiting {
        Waiting::Unknown => {
            Wait::of("nothing", "the daemon does not know it: it is not in the outbox, or not read yet")
        }
        Waiting::ForTime(time) => {
            Wait::of("time", "it waits for its next attempt").until(UnixMillis::from(*time).0)
        }
        Waiting::Ordered => Wait::of("order", "it is about to be tried, as ordered"),
        Waiting::Held(None) => Wait::of("release", "it is held until it is released"),
        Waiting::Held(Some(line)) => Wait::of("release", format!("it is held by {}", line.named())),
        Waiting::ForBounce => Wait::of(
            "bounce",
            "it is given up, and waits for its bounce and for the other recipients of its message",
        ),
        Waiting::SetAside(at) => Wait {
            until_ms: at.map(|at| calendar.millis(at)),
            ..Wait::of("database", "the database refuses to process it, and is asked again; the log says why")
        },
        Waiting::ForDatabase(work) => Wait::of(
            "database",
            match work {
                DatabaseWork::Read => "it is being read, to be sent",
                DatabaseWork::Record => "its verdict is being recorded",
                DatabaseWork::Sign => "it is being signed",
                DatabaseWork::ReadForBounce => "it is given up, and being read for its bounce",
                DatabaseWork::ReadAgain => "it has failed, and is being read again before that is recorded",
                DatabaseWork::Order => "an order is being carried out on it",
            },
        ),
        Waiting::ForServer { connection, candidate, is_begun } => {
            let what = if *is_begun { "it is being sent" } else { "other mail is sent before it" };
            Wait::of("server", format!("{what} to {}, on connection {}", server(candidate), connection.0))
        }
        Waiting::ForNextConnection => {
            Wait::of("connection", "its server refused it on one connection, and is asked on another one")
        }
        Waiting::ForDestination(activity) => {
            let waiting = wait(activity, calendar);
            Wait { text: format!("it is to be tried now: {}", waiting.text), ..waiting }
        }
        Waiting::Unroutable => {
            Wait::of("database", "its address or its relay is invalid, so it is about to fail")
        }
    }
}

fn wait(activity: &Activity, calendar: Calendar) -> Wait {
    match activity {
        Activity::Nothing => Wait::of("nothing", "nothing is under way"),
        Activity::ForTurn(reason) => match reason {
            TurnReason::TooMany(places) => {
                Wait::of("turn", format!("waits for its turn: {} destinations are worked on", of(*places)))
            }
            TurnReason::NameServers(places) => Wait::of(
                "turn",
                format!("waits for its turn: {} destinations wait for name servers", of(*places)),
            ),
            TurnReason::Database => Wait::of(
                "database",
                "waits for the database: what servers have said cannot be recorded fast enough",
            ),
            TurnReason::Orders => {
                Wait::of("order", "waits for orders that were given before the daemon was started")
            }
            TurnReason::Draining => Wait::of("nothing", "the daemon ends, and begins nothing more"),
        },
        Activity::ForPause { until, why } => {
            Wait::of("pause", format!("is left alone for a while: {why}")).until(calendar.millis(*until))
        }
        Activity::ForDns => Wait::of("dns", "waits for name servers"),
        Activity::ForPolicy => Wait::of("policy", "waits for the MTA-STS policy of its domain"),
        Activity::ForConnection(places) => {
            Wait::of("connection", format!("waits for a connection: {} are open", of(*places)))
        }
        Activity::ForHost { candidate, why } => {
            let why = match why {
                Some(HostReason::Full(places)) => format!("{} connections to it are open", of(*places)),
                Some(HostReason::Probe) => "a probe has the connection of this destination".to_owned(),
                Some(HostReason::OnTrial) => {
                    "it is in trouble, and one connection is trying it for all".to_owned()
                }
                Some(HostReason::LastResorts(places)) => {
                    format!(
                        "it is in trouble, or the last one left, and {} connections try such servers",
                        of(*places)
                    )
                }
                None => "others that have waited longer come first".to_owned(),
            };
            Wait::of("host", format!("waits for a connection to {}: {why}", server(candidate)))
        }
        Activity::ForRate(at) => {
            Wait::of("rate", "waits for the rate limit, with connections open").until(calendar.millis(*at))
        }
        Activity::ForDatabase => Wait::of("database", "waits for the database, with connections open"),
        Activity::UnderWay { candidate, connecting, busy, resting } => {
            let to =
                candidate.as_ref().map(|candidate| format!(" to {}", server(candidate))).unwrap_or_default();
            let counts = [(connecting, "connecting"), (busy, "busy"), (resting, "resting")];
            let counts: Vec<String> = counts
                .iter()
                .filter(|(count, _)| **count > 0)
                .map(|(count, what)| format!("{count} {what}"))
                .collect();
            let counts = if counts.is_empty() { String::new() } else { format!(" ({})", counts.join(", ")) };
            Wait::of("server", format!("is under way{to}{counts}"))
        }
        Activity::Failed => Wait::of("database", "has failed as a whole, and that is being recorded"),
    }
}

fn of(places: Places) -> String {
    format!("{} of {}", places.used, places.limit)
}

fn server(candidate: &Candidate) -> String {
    let remote: SocketAddr = candidate.remote;
    format!("{} [{}]:{}", candidate.host, remote.ip(), remote.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_names_a_mail_a_domain_an_address_or_a_relay() {
        assert_eq!(subject("41"), Ok(Subject::Mail(MailId(41))));
        for (word, shown) in [
            ("Example.ORG", "example.org"),
            ("[192.0.2.1]", "[192.0.2.1]"),
            ("[IPv6:2001:db8::1]", "[2001:db8::1]"),
            ("relay.example:587/starttls", "relay relay.example:587/starttls"),
        ] {
            let Ok(Subject::NextHop(next_hop)) = subject(word) else { panic!("{word}") };
            assert_eq!(next_hop.to_string(), shown);
        }
        for wrong in ["", "a..b", "[x]", "relay.example:99999", "99999999999999999999"] {
            assert!(subject(wrong).is_err(), "{wrong}");
        }
        let told = subject("user:secret@:25").unwrap_err();
        assert!(!told.contains("secret"), "{told}");
    }
}
