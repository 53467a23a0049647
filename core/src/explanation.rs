//! What the dispatcher says of what it does: where mail goes, what it waits for at this moment, and what is known of servers.
//!
//! These are values. Whoever shows them to people finds the words.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::fmt;

use crate::address::Domain;
use crate::attempt::{HostTrouble, Setback, Unresolved};
use crate::hold::HoldLine;
use crate::ids::{ConnectionId, MailId};
use crate::next_hop::NextHop;
use crate::policy::{Decision, RateLimit};
use crate::probe::{Probe, ProbeStep, ProbeVerdict};
use crate::resolver::LocalLookupError;
use crate::route::Candidate;
use crate::sts::{Finding, LocalFindTrouble};
use crate::time::{Instant, UnixTime};

/// A question to the dispatcher.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Inquiry {
    /// What happens next, and why not more. Answered by [`Answer::Explanation`], once the name servers have told the candidates.
    Explain(Subject),
    /// What would become of a mail. Answered by [`Answer::Probing`] as it goes, and at the end by [`Answer::Probed`].
    Probe(Box<Probe>),
}

/// An answer to an [`Inquiry`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// To [`Inquiry::Explain`].
    Explanation(Box<Explanation>),
    /// To [`Inquiry::Probe`]: what happens. Further answers follow.
    Probing(ProbeStep),
    /// To [`Inquiry::Probe`]: the end.
    Probed(Box<ProbeVerdict>),
}

impl Answer {
    /// Returns whether no further answer to the inquiry follows.
    pub fn is_last(&self) -> bool {
        match self {
            Self::Explanation(_) | Self::Probed(_) => true,
            Self::Probing(_) => false,
        }
    }
}

/// What an explanation is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// A mail, and its next hop.
    Mail(MailId),
    /// A next hop, whether there is mail for it or not.
    NextHop(NextHop),
}

/// What happens next, and why not more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// What the mail waits for, if a mail was asked about.
    pub mail: Option<Waiting>,
    /// The next hop; `None` if the mail is not known, or leads nowhere.
    pub destination: Option<DestinationExplanation>,
}

/// How a next hop stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DestinationExplanation {
    /// The next hop.
    pub next_hop: NextHop,
    /// What is done with its ready mail, or what that waits for.
    pub activity: Activity,
    /// Its mail.
    pub mails: HopMails,
    /// The lines that hold mail of it, and how much.
    pub held_by: Vec<(HoldLine, usize)>,
    /// Its limits.
    pub limits: LimitsExplanation,
    /// What lines decide of it: at the host that its mail goes to, if there is one; and of the relay that mail goes to, if a next hop was
    /// asked about. The rest is as usual.
    pub decisions: Vec<Decision>,
    /// The way there, if the name servers were asked for it.
    pub route: Option<Route>,
}

/// What a mail waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Waiting {
    /// It is not in the outbox, as far as that was read.
    Unknown,
    /// This time.
    ForTime(UnixTime),
    /// Its turn in an order to try it now, which is being carried out.
    Ordered,
    /// Its release. It is held by this line, or by a hold of the database.
    Held(Option<HoldLine>),
    /// Its bounce, which is made as soon as the other recipients of its message are decided.
    ForBounce,
    /// The end of a time in which it is left alone, because the database refuses to process it; `None` while that is tried again.
    SetAside(Option<Instant>),
    /// The database.
    ForDatabase(DatabaseWork),
    /// The server on this connection.
    ForServer {
        /// The connection.
        connection: ConnectionId,
        /// Its server.
        candidate: Candidate,
        /// True if its transaction has begun. Otherwise others come before it on the connection.
        is_begun: bool,
    },
    /// A further connection to the server that has just refused it.
    ForNextConnection,
    /// It is to be tried now. What its next hop is waiting for keeps it waiting.
    ForDestination(Activity),
    /// It leads nowhere: its address or its relay is invalid. It fails as soon as it was read again.
    Unroutable,
}

/// The work of the database on a mail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DatabaseWork {
    /// It is read for a connection.
    Read,
    /// It was read for a connection, and is being signed.
    Sign,
    /// Its verdict is recorded.
    Record,
    /// It is read for its bounce.
    ReadForBounce,
    /// It is read again, before its failure is recorded.
    ReadAgain,
    /// An order is carried out on it.
    Order,
}

/// What is done with the ready mail of a next hop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Activity {
    /// No mail of it is ready.
    Nothing,
    /// It waits for its turn.
    ForTurn(TurnReason),
    /// The next hop is left alone.
    ForPause {
        /// Until then.
        until: Instant,
        /// Why.
        why: PauseReason,
    },
    /// It waits for name servers.
    ForDns,
    /// The MTA-STS policy of the domain.
    ForPolicy,
    /// It waits for the end of any connection: there are as many as there may be.
    ForConnection(Places),
    /// It waits for a connection to this candidate.
    ForHost {
        /// The candidate.
        candidate: Candidate,
        /// Why it gets no connection; `None` if others that have waited longer come first.
        why: Option<HostReason>,
    },
    /// It waits for the rate limit, on connections that stand, until then.
    ForRate(Instant),
    /// It waits for the database, on connections that stand.
    ForDatabase,
    /// It is sent, or about to be.
    UnderWay {
        /// To this candidate; `None` where conversations only come to their end.
        candidate: Option<Candidate>,
        /// Connections on which no mail can be sent yet.
        connecting: usize,
        /// Connections on which mail is sent.
        busy: usize,
        /// Connections that are kept for later mail.
        resting: usize,
    },
    /// All of it has failed, and that is being recorded.
    Failed,
}

/// Why it is not the turn of a next hop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TurnReason {
    /// As many next hops are worked on as may be.
    TooMany(Places),
    /// As many next hops wait for name servers as may.
    NameServers(Places),
    /// So much waits to be recorded that nothing begins.
    Database,
    /// Orders that were given before the start are carried out first.
    Orders,
    /// The dispatcher ends, and begins nothing more.
    Draining,
}

/// Why a next hop is left alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PauseReason {
    /// Its server has taken mail, and takes no more for now: its words.
    Server(Box<str>),
    /// This machine has trouble: a clause.
    Local(Box<str>),
    /// The rate limit.
    Rate,
}

/// Why there is no connection to a candidate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostReason {
    /// It has as many connections as it may.
    Full(Places),
    /// It is in trouble, and one connection is trying it for all.
    OnTrial,
    /// It is in trouble, or the last one left, and as many connections try such ones as may.
    LastResorts(Places),
    /// A probe has the connection of the next hop.
    Probe,
}

/// How much of a limit is used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Places {
    /// So much is used.
    pub used: usize,
    /// So much may be used.
    pub limit: usize,
}

/// How many mails of a next hop are at each place on their way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HopMails {
    /// It is to be tried now.
    pub ready: usize,
    /// It waits for its time.
    pub waiting: usize,
    /// A connection or the database works on it.
    pub claimed: usize,
    /// It is to be bounced.
    pub given_up: usize,
    /// The database cannot process it for now.
    pub set_aside: usize,
    /// It is held until an order releases it.
    pub held: usize,
    /// When the first of those that wait is due.
    pub next_due: Option<UnixTime>,
}

/// The limits of a next hop, and how much of them is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LimitsExplanation {
    /// Connections to whichever next hop.
    pub all: Places,
    /// Connections of this next hop, at present.
    pub destination: Places,
    /// Connections of this next hop as configured. There may be fewer at present, because it has pushed back.
    pub configured: usize,
    /// Transactions.
    pub rate: Option<RateExplanation>,
}

/// How a rate limit stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateExplanation {
    /// The limit.
    pub limit: RateLimit,
    /// When the next transaction may begin; `None` if that is now.
    pub next: Option<Instant>,
}

/// The way to a next hop.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Route {
    /// The MX records of the domain, the preferred ones first. Empty if there are none, or if none are looked for.
    pub mx: Vec<(u16, Domain)>,
    /// The MTA-STS policy of the domain, if `tls_policy` asks for it.
    pub sts: Option<Finding>,
    /// The candidates in the order in which they are tried. Hosts of equal preference are shuffled anew each time.
    pub candidates: Vec<CandidateExplanation>,
    /// The trouble with hosts that give no candidate.
    pub host_troubles: Vec<HostTrouble>,
    /// Why there is no candidate at all.
    pub dead_end: Option<DeadEndReason>,
}

/// Why a search for candidates ends before any is found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeadEndReason {
    /// The domain leads nowhere.
    Unresolved(Unresolved),
    /// This machine has trouble.
    Local(LocalLookupError),
    /// It is not known whether a policy holds.
    Policy(LocalFindTrouble),
}

/// What is known of a candidate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CandidateExplanation {
    /// The candidate.
    pub candidate: Candidate,
    /// Connections to its address and port.
    pub places: Places,
    /// What lines decide of the destination while its mail goes there. The rest is as usual.
    pub decisions: Vec<Decision>,
    /// What happened there, if it does not answer. It is tried after all others.
    pub trouble: Option<TroubleExplanation>,
    /// True if it was silent while others needed its connections. It is tried after all others.
    pub is_slow: bool,
    /// True if it gets one command at a time, because it cannot cope with several.
    pub no_pipelining: bool,
}

/// The trouble with a candidate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TroubleExplanation {
    /// What happened there.
    pub setback: Setback,
    /// When the attempt began.
    pub since: Instant,
    /// Until when it counts.
    pub until: Instant,
}

impl CandidateExplanation {
    /// Returns whether it is tried after all others.
    pub fn is_last_resort(&self) -> bool {
        self.trouble.is_some() || self.is_slow
    }
}

impl fmt::Display for PauseReason {
    /// Writes a clause.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Server(words) => write!(f, "its server takes no more for now: {words}"),
            Self::Local(text) => f.write_str(text),
            Self::Rate => f.write_str("the rate limit"),
        }
    }
}

impl fmt::Display for DeadEndReason {
    /// Writes a clause.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unresolved(reason) => reason.fmt(f),
            Self::Local(error) => error.fmt(f),
            Self::Policy(trouble) => trouble.fmt(f),
        }
    }
}
