//! Wrong builds of the core, for the tests of the checkers: inputs and outputs are changed as an error in the core would change
//! them.
#![allow(clippy::wildcard_enum_match_arm, reason = "each place is about a few mutations")]

use cmail_delivery::io::{CertificateTrouble, Groups, Tls, Verification};
use std::borrow::Cow;
use std::net::SocketAddr;

use cmail_delivery::address::Domain;
use cmail_delivery::dkim::{Digest, SignedMail, Signing, SigningRules};
use cmail_delivery::dsn::DsnWishes;
use cmail_delivery::event::{Event, EventName, Level};
use cmail_delivery::explanation::{Explanation, Waiting};
use cmail_delivery::hold::HoldState;
use cmail_delivery::order::OrderStep;
use cmail_delivery::outbox::{
    BounceOrder, Claimed, Commit, FailedMessage, MailId, NewBounce, Row, StoreReply,
};
use cmail_delivery::policy::Choice;
use cmail_delivery::relay_report::RelayReports;
use cmail_delivery::rng::Seed;
use cmail_delivery::settings::{Hosts, Settings};
use cmail_delivery::tally::{AttemptResult, Tally};
use cmail_delivery::time::{Duration, UnixTime};
use cmail_delivery::tls::DaneMatch;
use memchr::memmem;

use crate::map::Map;
use crate::servers::ENOUGH;

/// The error of the build.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(not(test), expect(dead_code, reason = "only the tests of the checkers want wrong builds"))]
pub(crate) enum Mutation {
    /// Nothing.
    #[default]
    None,
    /// Failures are recorded as deliveries.
    TakesFailureForSuccess,
    /// The reply to the final dot is taken for the end of the connection.
    MissesFinalReply,
    /// Mail with a null sender is bounced, too.
    BouncesBounces,
    /// A bounce has something of another mail in it.
    LeaksIntoBounces,
    /// More connections than configured.
    IgnoresConcurrency,
    /// The pause between attempts is too short.
    RetriesEarly,
    /// An attempt before its time counts.
    CountsEarlyAttempts,
    /// A next hop fails as a whole, and its mail is charged as it was when it was found, without being read again.
    ChargesUnread,
    /// An order to try everything counts more than once.
    KeepsOrders,
    /// Mail is sent although it is held.
    IgnoresHolds,
    /// Lines that hold mail are not read.
    IgnoresHoldLines,
    /// The age of mail counts from its submission even after a release.
    ForgetsReleases,
    /// Orders are not looked for at the start.
    ComesToOrdersLate,
    /// Orders are carried out on mail that is under way.
    OrdersMailUnderWay,
    /// An order passes over a mail.
    SkipsMail,
    /// An order is carried out twice on a mail.
    RepeatsOrders,
    /// Mail is tried again almost at once if its faillog allows it.
    NeverRests,
    /// Senders of late mail are told at every failure.
    WarnsAlways,
    /// Senders of late mail are never told.
    NeverWarns,
    /// Lines about destinations are not read.
    IgnoresDestinationLines,
    /// The limits that servers announce are not read.
    IgnoresServerLimits,
    /// Mail is bounced although its sender wants no bounce.
    BouncesUnwanted,
    /// Nobody is told of deliveries.
    NeverReports,
    /// Senders are told of deliveries although the server tells them, or they want nothing.
    ReportsAlways,
    /// What senders want is not passed on.
    KeepsWishes,
    /// Retry rules are not read.
    IgnoresRetryRules,
    /// One attempt too many.
    TriesTooOften,
    /// A refusal of the connection is taken for a verdict of the mail.
    BlamesMail,
    /// A command is sent twice, without waiting for the reply.
    Pipelines,
    /// A command is sent directly after DATA.
    PipelinesPastData,
    /// TLS is taken for established without a handshake.
    SkipsTls,
    /// What is needed of TLS is not read.
    IgnoresTlsPolicies,
    /// Each server is taken for the right one.
    TrustsEverybody,
    /// No server is taken for the right one.
    DistrustsEverybody,
    /// DNSSEC is taken to vouch for everything.
    BelievesEverything,
    /// DNSSEC is taken to vouch for nothing.
    BelievesNothing,
    /// Mail leaves without its signatures.
    LosesSignatures,
    /// All mail is signed.
    SignsUnmarked,
    /// Something else is signed.
    SignsOtherMail,
    /// The first message of TLS never gets smaller.
    AlwaysLargeHello,
    /// What is sent is logged as it is.
    LogsSecrets,
    /// An attempt does not tell how it went.
    ForgetsCourse,
    /// Failures that are worth another attempt are counted twice.
    CountsTwice,
    /// Errors of the database are not counted.
    ForgetsErrors,
    /// Mail is sent before it is noted.
    SendsUnnoted,
    /// More mail is noted than is sent next.
    NotesTooMuch,
    /// What is noted is lost with the daemon.
    LosesFlights,
    /// Mail that is given up is not released.
    KeepsHolding,
    /// More is known than there is.
    HoardsRows,
    /// If something of a commit cannot be recorded, nothing of it is.
    StopsAtPoison,
    /// After a while the outbox is never scanned again.
    FallsAsleep,
    /// Mail waits while the name servers are silent, even if it needs none.
    WaitsForDns,
    /// Silent servers keep their slots, and other mail waits for one.
    ClingsToSilence,
    /// What the administrator changes is not taken before the next start.
    KeepsSettings,
    /// What is explained names times that are too late.
    ForetellsLate,
    /// What is explained counts one connection too few.
    Miscounts,
    /// What is explained tells hosts in the wrong order.
    MisordersHosts,
    /// A probe says DATA where it is to say RSET.
    ProbesWithData,
    /// The hosts file is not read.
    IgnoresHostsFile,
    /// The hosts file is only read at the start.
    KeepsHostsFile,
    /// The hosts file is used for the hosts of domains, too.
    UsesHostsFileForDomains,
}

impl Mutation {
    /// Returns the configuration that the build reads.
    pub(crate) fn settings(self, mut settings: Settings) -> Settings {
        match self {
            Self::IgnoresConcurrency => {
                settings.concurrency = settings.concurrency.saturating_mul(3);
                settings.policy.concurrency = settings.policy.concurrency.saturating_mul(3);
                settings.policy.host_concurrency = settings.policy.host_concurrency.saturating_mul(3);
            }
            Self::RetriesEarly => settings.schedule.retry_interval_s /= 2,
            Self::IgnoresRetryRules => settings.schedule.rules = [].into(),
            Self::IgnoresHoldLines => settings.schedule.hold_lines = [].into(),
            Self::IgnoresDestinationLines => settings.destinations = [].into(),
            Self::IgnoresTlsPolicies => {
                let mut lines = settings.destinations.to_vec();
                lines.iter_mut().for_each(|line| line.choices.retain(|it| !matches!(it, Choice::Tls(_))));
                settings.destinations = lines.into();
            }
            Self::NeverRests => settings.interval = Duration::from_secs(1),
            Self::TriesTooOften => settings.schedule.retries += 1,
            _ => {}
        }
        settings
    }

    /// Returns what the build takes a changed configuration for, if it reads it.
    pub(crate) fn new_settings(self, settings: Settings) -> Option<Settings> {
        (self != Self::KeepsSettings).then(|| self.settings(settings))
    }

    /// Returns what the build takes the facts of a handshake for.
    pub(crate) fn tls(self, facts: Tls) -> Tls {
        let unverified = Verification::Unverified(CertificateTrouble::UnknownIssuer);
        match self {
            Self::TrustsEverybody => {
                let dane = facts.dane.map(|_| Ok(DaneMatch::EndEntity));
                Tls { pin: Some(true), dane, verification: Verification::Verified, ..facts }
            }
            Self::DistrustsEverybody => {
                let dane = facts.dane.map(|_| Err(CertificateTrouble::NoTlsaMatch));
                Tls { pin: Some(false), dane, verification: unverified, ..facts }
            }
            _ => facts,
        }
    }

    /// Returns the digest that the build has signed.
    pub(crate) fn digest(self, digest: Digest) -> Digest {
        if self == Self::SignsOtherMail { [0; 32] } else { digest }
    }

    /// Returns which mail the build has the database draft signatures for.
    pub(crate) fn signing(self, signing: Option<Signing>) -> Option<Signing> {
        let is_changed = self == Self::SignsUnmarked;
        let all = |signing: Signing| {
            let rules = SigningRules { mail: SignedMail::All, ..(*signing.rules).clone() };
            Signing { rules: rules.into(), ..signing }
        };
        signing.map(|signing| if is_changed { all(signing) } else { signing })
    }

    /// Changes an answer of a name server to what the build takes it for.
    pub(crate) fn name_answer(self, octets: &mut [u8]) {
        // RFC 4035 section 3.2.3.
        const AD: u8 = 0x20;
        if let Some(flags) = octets.get_mut(3) {
            match self {
                Self::BelievesEverything => *flags |= AD,
                Self::BelievesNothing => *flags &= !AD,
                _ => {}
            }
        }
    }

    /// Returns the groups of key exchange that the build offers.
    pub(crate) fn groups(self, groups: Groups) -> Groups {
        if self == Self::AlwaysLargeHello { Groups::All } else { groups }
    }

    /// Returns what the build has counted.
    pub(crate) fn tally(self, mut tally: Tally) -> Tally {
        match self {
            Self::CountsTwice => {
                for _ in 0..tally.attempts.of(AttemptResult::Deferred) {
                    tally.attempts.add(AttemptResult::Deferred);
                }
            }
            Self::ForgetsErrors => tally.store_errors = 0,
            _ => {}
        }
        tally
    }

    /// Returns whether the build is asked what it does: the right one, and those that answer wrongly.
    pub(crate) fn is_asked(self) -> bool {
        matches!(
            self,
            Self::None | Self::ForetellsLate | Self::Miscounts | Self::MisordersHosts | Self::ProbesWithData
        )
    }

    /// Returns what the build explains.
    pub(crate) fn explanation(self, mut explanation: Explanation) -> Explanation {
        match self {
            Self::ForetellsLate => {
                if let Some(Waiting::ForTime(time)) = &mut explanation.mail {
                    time.0 += 3600;
                }
            }
            Self::Miscounts => {
                if let Some(destination) = &mut explanation.destination {
                    destination.limits.all.used = destination.limits.all.used.saturating_sub(1);
                }
            }
            Self::MisordersHosts => {
                let route = explanation.destination.as_mut().and_then(|known| known.route.as_mut());
                route.into_iter().for_each(|route| route.candidates.reverse());
            }
            _ => {}
        }
        explanation
    }

    /// Returns the answer that the build reads from the database.
    pub(crate) fn answer(self, mut reply: StoreReply) -> StoreReply {
        if self == Self::CountsEarlyAttempts
            && let StoreReply::Claimed(Claimed { transactions, .. }) = &mut reply
        {
            for row in transactions.iter_mut().flat_map(|transaction| &mut transaction.rows) {
                row.last_try = UnixTime(0);
            }
        }
        if let (Self::BouncesUnwanted, StoreReply::Failed { messages, .. }) = (self, &mut reply) {
            for mail in messages.iter_mut().flat_map(|message| &mut message.mails) {
                mail.row.wishes.notify = None;
            }
        }
        if let (Self::KeepsWishes, StoreReply::Claimed(Claimed { transactions, .. })) = (self, &mut reply) {
            for row in transactions.iter_mut().flat_map(|transaction| &mut transaction.rows) {
                row.wishes = DsnWishes::default();
            }
        }
        if let (Self::LosesSignatures, StoreReply::Claimed(Claimed { transactions, .. })) = (self, &mut reply)
        {
            transactions.iter_mut().for_each(|transaction| transaction.to_sign = Ok(Vec::new()));
        }
        match self {
            Self::IgnoresHolds => {
                rows_of(&mut reply).into_iter().for_each(|row| row.hold.state = HoldState::Exempt);
            }
            Self::ForgetsReleases => rows_of(&mut reply).into_iter().for_each(|row| row.hold.released = None),
            _ => {}
        }
        reply
    }

    /// Returns the step of an order that the build asks for.
    pub(crate) fn step(self, mut step: OrderStep) -> OrderStep {
        match self {
            Self::OrdersMailUnderWay => step.mails.extend(&step.under_way),
            Self::SkipsMail => drop(step.mails.pop()),
            Self::RepeatsOrders => {
                step.mails.extend(step.mails.first().copied());
            }
            _ => {}
        }
        step
    }

    /// Returns the hosts file that the build reads when it starts.
    pub(crate) fn hosts_file(self, file: Hosts) -> Hosts {
        if self == Self::IgnoresHostsFile { Hosts::new() } else { file }
    }

    /// Returns the hosts file that it reads again, if it does.
    pub(crate) fn hosts_file_again(self, file: Hosts) -> Option<Hosts> {
        (!matches!(self, Self::IgnoresHostsFile | Self::KeepsHostsFile)).then_some(file)
    }

    /// Returns the address that the build connects to.
    pub(crate) fn remote(self, remote: SocketAddr, map: &Map, file: &Hosts) -> SocketAddr {
        if self != Self::UsesHostsFileForDomains {
            return remote;
        }
        let name = map.host_at(remote.ip()).and_then(|host| map.hosts.get(host)).map(|host| &host.name);
        let listed = name.filter(|name| map.decoys.contains_key(*name));
        let listed = listed.and_then(|name| file.get(&Domain::parse(name).ok()?)?.first().copied());
        listed.map_or(remote, |address| SocketAddr::new(address, remote.port()))
    }

    /// Returns the commit that the build records.
    pub(crate) fn commit(self, mut commit: Commit) -> Commit {
        match self {
            Self::TakesFailureForSuccess => {
                let failed = std::mem::take(&mut commit.failed);
                commit.delivered.extend(failed.into_iter().map(|failed| failed.id.into()));
            }
            Self::SendsUnnoted => commit.flights.clear(),
            Self::NotesTooMuch => {
                for cargo in commit.flights.iter_mut().filter_map(|mark| mark.carries.as_mut()) {
                    cargo.mails.extend((1..1000).map(MailId));
                }
            }
            Self::NeverWarns => commit.warnings = None,
            Self::NeverReports => commit.reports = None,
            Self::ReportsAlways => {
                commit.delivered.iter_mut().for_each(|mail| mail.is_reported = true);
                commit.reports = Some(Box::new(RelayReports {
                    announce: "mail.example.org".into(),
                    bounce_from: "postmaster@mail.example.org".into(),
                    now: UnixTime(0),
                    seed: Seed([0; 32]),
                }));
            }
            Self::WarnsAlways => {
                if let Some(warnings) = &mut commit.warnings {
                    warnings.ages = (0..200).map(|minutes| Duration::from_secs(60 * minutes)).collect();
                }
            }
            Self::ForgetsCourse => {
                for attempt in commit.delivered.iter_mut().filter_map(|mail| mail.attempt.as_mut()) {
                    attempt.course = None;
                }
            }
            Self::BouncesBounces => {
                for replacement in &mut commit.replaced {
                    replacement.bounce.get_or_insert_with(|| NewBounce {
                        recipients: vec![b"postmaster@zone0.example"[..].into()],
                        order: BounceOrder {
                            announce: "mail.example.org".into(),
                            bounce_from: "postmaster@mail.example.org".into(),
                            return_limit_octets: 0,
                            message: FailedMessage {
                                mails: Vec::new(),
                                data_octets: 0,
                                original: bytes::Bytes::new(),
                            },
                            now: UnixTime(0),
                            seed: Seed([0; 32]),
                        },
                    });
                }
            }
            Self::LeaksIntoBounces => {
                for bounce in commit.replaced.iter_mut().filter_map(|replacement| replacement.bounce.as_mut())
                {
                    let message = &mut bounce.order.message;
                    message.original = [b"zt99999999z: \r\n", &message.original[..]].concat().into();
                    message.data_octets = message.original.len() as u64;
                }
            }
            _ => {}
        }
        commit
    }

    /// Changes the octets that the build sends.
    pub(crate) fn sent(self, octets: &mut bytes::BytesMut, is_probe: bool) {
        if self == Self::ProbesWithData && is_probe && octets.as_ref() == b"RSET\r\n" {
            octets[..4].copy_from_slice(b"DATA");
        }
        if self == Self::PipelinesPastData && octets.ends_with(b"DATA\r\n") {
            octets.extend_from_slice(b"RSET\r\n");
        }
        if self == Self::Pipelines && octets.ends_with(b"\r\n") && octets.starts_with(b"RCPT") {
            let again = octets.clone();
            octets.extend_from_slice(&again);
        }
    }

    /// Returns the octets that the build takes a reply for.
    pub(crate) fn heard(self, octets: &[u8]) -> Cow<'_, [u8]> {
        if self == Self::IgnoresServerLimits {
            return Cow::Owned(String::from_utf8_lossy(octets).replace("LIMITS ", "OTHERS ").into_bytes());
        }
        if self != Self::BlamesMail || memmem::find(octets, ENOUGH.as_bytes()).is_none() {
            return Cow::Borrowed(octets);
        }
        // As if it were about the mailbox.
        let text = String::from_utf8_lossy(octets);
        let misheard = |line: &str| {
            if line.contains(ENOUGH) { format!("452 4.2.2 {ENOUGH}\r\n") } else { line.to_owned() }
        };
        Cow::Owned(text.split_inclusive('\n').map(misheard).collect::<String>().into_bytes())
    }

    /// Returns whether the build takes this reply for the end of the connection.
    pub(crate) fn misreads(self, octets: &[u8]) -> bool {
        self == Self::MissesFinalReply && memmem::find(octets, b"queued").is_some()
    }

    /// Returns the event that the build logs when it sends octets.
    pub(crate) fn log(self, octets: &[u8]) -> Option<Event> {
        (self == Self::LogsSecrets).then(|| {
            let text = String::from_utf8_lossy(octets).into_owned();
            Event::Note { about: EventName::Note, level: Level::Debug, text }
        })
    }
}

/// Returns the rows of an answer.
fn rows_of(reply: &mut StoreReply) -> Vec<&mut Row> {
    match reply {
        StoreReply::Scanned(scanned) => scanned.rows.iter_mut().collect(),
        StoreReply::Claimed(claimed) => {
            claimed.transactions.iter_mut().flat_map(|claimed| &mut claimed.rows).collect()
        }
        StoreReply::CarriedOut(carried_out) => carried_out.rows.iter_mut().collect(),
        StoreReply::Committed(committed) => committed.failed.iter_mut().collect(),
        StoreReply::Recalled { rows, .. } => rows.iter_mut().collect(),
        StoreReply::Failed { messages, .. } => {
            messages.iter_mut().flat_map(|message| &mut message.mails).map(|mail| &mut mail.row).collect()
        }
        _ => Vec::new(),
    }
}
