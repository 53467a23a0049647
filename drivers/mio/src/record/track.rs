//! One record: a pass over the mail of one next hop, one connection after the other.

use std::net::SocketAddr;
use std::sync::Arc;

use cmail_delivery::dispatcher::{ConnectionFacts, PassId};
use cmail_delivery::dsn::DsnWishes;
use cmail_delivery::io::{CloseReason, ConnectError, ConnectionId, Tls, TlsVersion};
use cmail_delivery::next_hop::NextHop;
use cmail_delivery::outbox::{ClaimedTransaction, MailId};
use cmail_delivery::rng::Seed;
use cmail_delivery::time::{Duration, Instant, UnixTime};
use cmail_delivery::tls::DaneMatch;

use super::lines::{Given, Lines};
use super::mails::Mails;
use super::mask::Mask;
use super::pace::Pace;
use super::scene::{Circumstances, RecordedMail, Scene, Tried};
use super::shape::Shape;
use super::talk::{Talk, Told};

/// Longest record. Anything after that is not recorded.
const LENGTH_LIMIT_OCTETS: usize = 1 << 20;
/// Shorter silences are not worth a line.
const SILENCE: Duration = Duration::from_secs(1);
/// How late a deadline may be, or how imprecise a silence before it.
const IMPRECISION: Duration = Duration::from_millis(100);

/// Mail that follows this soon on a connection was already requested from the database.
const CLAIM_TIME: Duration = Duration::from_millis(100);

/// The time of an event, and the call of the dispatcher that it belongs to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moment {
    pub now: Instant,
    pub call: u64,
    /// The deadline that caused the call, if one did.
    pub deadline: Option<Instant>,
}

/// What a replay has to know of the servers.
#[derive(Debug, Default)]
struct Servers {
    /// The candidates, in the order in which they were connected to.
    tried: Vec<Tried>,
    /// The seed of each session, if it is known.
    sessions: Vec<Option<Seed>>,
    /// True if TLS began with one.
    have_tls: bool,
}

/// A record in the making.
#[derive(Debug)]
pub(super) struct Track {
    pub(super) pass: PassId,
    pub(super) next_hop: NextHop,
    pub(super) begun: UnixTime,
    pub(super) talk: Option<Talk>,
    /// Since when only verdicts are missing.
    pub(super) over_since: Option<Instant>,
    circumstances: Arc<Circumstances>,
    mask: Mask,
    lines: Lines,
    servers: Servers,
    mails: Mails,
    pace: Pace,
    /// Why nothing more is recorded.
    is_cut: Option<&'static str>,
}

impl Track {
    pub(super) fn new(
        facts: &ConnectionFacts<'_>,
        circumstances: Arc<Circumstances>,
        wall: UnixTime,
    ) -> Self {
        let credentials = match facts.next_hop {
            NextHop::Relay(relay) => relay.credentials.as_ref(),
            NextHop::Domain(_) | NextHop::Literal(_) => None,
        };
        let mut mask = Mask::new(circumstances.announce(), credentials);
        if let NextHop::Domain(domain) = facts.next_hop {
            mask.domain(domain.as_str());
        }
        Self {
            pass: facts.pass,
            next_hop: facts.next_hop.clone(),
            begun: wall,
            talk: None,
            over_since: None,
            circumstances,
            mask,
            lines: Lines::new(),
            servers: Servers::default(),
            mails: Mails::default(),
            pace: Pace::default(),
            is_cut: None,
        }
    }

    pub(super) fn connecting(
        &mut self,
        at: Moment,
        connection: ConnectionId,
        remote: SocketAddr,
        tried: Tried,
    ) {
        self.talk = Some(Talk::new(connection));
        if self.is_cut.is_some() {
            return;
        }
        let host = self.mask.host(&tried.host);
        let address = match host {
            cmail_delivery::next_hop::Host::Address(address) => address,
            cmail_delivery::next_hop::Host::Name(_) => self.mask.address(remote.ip()),
        };
        self.servers.tried.push(tried);
        self.lines.client(at.call, format!("C+ {}", SocketAddr::new(address, remote.port())));
        self.pace.note_given(at.now);
        self.pace.note_concern();
    }

    pub(super) fn connected(&mut self) {
        if let Some(talk) = &mut self.talk {
            talk.is_made = true;
            self.servers.sessions.push(None);
            self.pace.note_concern();
        }
    }

    /// Notes the seed of the session.
    pub(super) fn seeded(&mut self, seed: &Seed) {
        if let Some(slot @ None) = self.servers.sessions.last_mut() {
            *slot = Some(seed.clone());
        }
    }

    pub(super) fn connect_failed(&mut self, at: Moment, error: &ConnectError) {
        self.talk = None;
        let (verb, text) = match error {
            ConnectError::Remote(error) => ("refused", &error.words),
            ConnectError::Local(error) => ("local", &error.words),
        };
        let text = self.mask.text(text);
        self.push(at, Given::Line(format!("! {verb} {text}")));
    }

    pub(super) fn starts_tls(&mut self, at: Moment) {
        self.servers.have_tls = true;
        if let Some(talk) = &mut self.talk {
            talk.is_handshaking = true;
        }
        // Another name may be sent as SNI, but the record is about the candidate.
        let Some(tried) = self.servers.tried.last() else { return };
        let line = format!("C^ {}", self.mask.host(&tried.host));
        if self.talk.as_ref().is_some_and(|talk| !talk.is_used) {
            self.lines.hold(at.call, line);
        } else {
            self.client(at, line);
        }
    }

    pub(super) fn tls_established(&mut self, at: Moment, tls: &Tls) {
        if let Some(talk) = &mut self.talk {
            talk.tls_established();
        }
        let is_verified = tls.verification.is_verified();
        let mut line = if is_verified { "! tls" } else { "! tls-unverified" }.to_owned();
        let version = (tls.version == TlsVersion::V1_2).then_some("1.2");
        let dane = tls.dane.map(|found| match found {
            Ok(DaneMatch::EndEntity) => "dane-ee",
            Ok(DaneMatch::TrustAnchor) => "dane-ta",
            Err(_) => "dane-mismatch",
        });
        let pin = tls.pin.map(|is_pinned| if is_pinned { "pinned" } else { "not-pinned" });
        for word in [version, dane, pin].into_iter().flatten() {
            line.push(' ');
            line.push_str(word);
        }
        self.give_to_talk(at, line);
    }

    pub(super) fn tls_failed(&mut self, at: Moment, reason: &str) {
        let reason = self.mask.text(reason);
        self.give_to_talk(at, format!("! tls-failed {reason}"));
        self.talk = None;
    }

    /// Records that the connection was lost.
    pub(super) fn lost(&mut self, at: Moment, reason: &CloseReason) {
        let line = match reason {
            CloseReason::EndOfFile => "! eof".to_owned(),
            CloseReason::Broken(error) => format!("! reset {}", self.mask.text(&error.words)),
        };
        self.flush(at);
        self.leave_idle(at, Duration::ZERO);
        self.give_to_talk(at, line);
        self.end_talk(at);
    }

    /// Records that the client closes the connection.
    pub(super) fn closed(&mut self, at: Moment) {
        if self.talk.is_none() {
            return;
        }
        self.flush(at);
        self.lines.unsay(at.call);
        // If the connection is closed to make room for others, the deadline is not its own.
        let is_given_up = self.talk.as_ref().is_some_and(|talk| talk.is_given_up);
        if let Some(deadline) = at.deadline.filter(|_| !is_given_up) {
            let since = self.pace.last_sign();
            self.make();
            self.push(at, Given::Line("! stall".to_owned()));
            self.client(at, format!("? {}", span_text(rounded(deadline.saturating_duration_since(since)))));
        }
        self.end_talk(at);
        self.client(at, "C-".to_owned());
    }

    /// The client gives the connection up, because others need its place.
    pub(super) fn yields(&mut self, at: Moment) {
        self.flush(at);
        self.give_to_talk(at, "! yield".to_owned());
        if let Some(talk) = &mut self.talk {
            talk.is_given_up = true;
        }
    }

    pub(super) fn received(&mut self, at: Moment, octets: &[u8]) {
        if self.talk.as_ref().is_some_and(|talk| !talk.has_heard_in(at.call)) {
            self.leave_idle(at, Duration::ZERO);
        }
        self.pass_silence(at);
        self.cut_if_long();
        let Some(talk) = self.talk.as_mut().filter(|_| self.is_cut.is_none()) else { return };
        talk.received(octets, at.call, &mut self.lines, &mut self.mask);
        self.pace.note_given(at.now);
    }

    pub(super) fn sent(&mut self, at: Moment, octets: &[u8]) {
        // While the daemon keeps the connection idle, a replay goes on or says QUIT: this is not a silence of the server.
        if !octets.starts_with(b"QUIT") {
            self.leave_idle(at, CLAIM_TIME);
        }
        self.pace.note_sent(at.now);
        let Some(talk) = self.talk.as_mut().filter(|_| self.is_cut.is_none()) else { return };
        if let Told::Mail(path) = talk.sent(octets, at.call, &mut self.lines, &mut self.mask) {
            self.mails.begin_of_sender(&path);
        }
    }

    pub(super) fn sent_data(&mut self, at: Moment, octets: &[u8]) {
        let Some(talk) = self.talk.as_mut().filter(|_| self.is_cut.is_none()) else { return };
        self.pace.note_sent(at.now);
        if let Told::FinalDot(octets) = talk.sent_data(octets, at.call, &mut self.lines) {
            self.mails.note_size(octets);
        }
    }

    /// Notes the mail that the connection has claimed.
    pub(super) fn claimed(&mut self, transactions: &[ClaimedTransaction]) {
        self.mails.claim(transactions);
    }

    /// Returns whether a mail belongs to this record, or may do so later.
    pub(super) fn knows(&self, id: MailId) -> bool {
        self.mails.knows(id)
    }

    pub(super) fn has_mails(&self) -> bool {
        !self.mails.is_empty()
    }

    pub(super) fn has_undecided_mails(&self) -> bool {
        self.mails.has_undecided()
    }

    pub(super) fn delivered(&mut self, id: MailId) {
        if let Some(number) = self.decide(id) {
            self.lines.effect(true, format!("= {number} deleted"));
        }
    }

    pub(super) fn failed(&mut self, id: MailId, text: &str, fatal: bool) {
        // Mail that was offered to no server has failed with its pass; one such mail is enough.
        if !self.knows(id) && !self.has_mails() && self.is_cut.is_none() {
            self.mails.push(id, self.substitute());
        }
        if let Some(number) = self.decide(id) {
            let kind = if fatal { "failed" } else { "deferred" };
            let text = self.mask.text(text);
            self.lines.effect(false, format!("= {number} {kind} \"{}\"", text.escape_debug()));
        }
    }

    /// Returns whether a session that begins now belongs here.
    pub(super) fn is_under(&self, circumstances: &Circumstances) -> bool {
        *self.circumstances == *circumstances
    }

    /// Records a request to stop. An idle connection then ends as that of a single pass does at once.
    pub(super) fn drained(&mut self, at: Moment) {
        let rests = self.has_mails() && !self.has_undecided_mails();
        if self.talk.is_some() && !rests {
            self.make();
            self.push(at, Given::Line("! drain".to_owned()));
        }
    }

    /// Ends a call.
    pub(super) fn settle(&mut self, now: Instant) {
        self.pace.settle(now);
    }

    /// Ends the record if mail is undecided: the connection is about to end while others of the pass go on and take over its
    /// mail, and a replay of this one alone would go differently.
    pub(super) fn cut_if_undecided(&mut self, is_closed_by_last: bool) {
        if self.is_cut.is_none() && (self.mails.is_empty() || self.has_undecided_mails()) {
            if is_closed_by_last {
                self.lines.drop_last();
            }
            self.cut("The connection ends here, and others of the same pass take over its mail.");
        }
    }

    /// Ends the record if something happens on a connection that has been idle for at least `least`. A replay has all mail at
    /// once and does not wait for more: it has said QUIT, and cannot follow any further.
    fn leave_idle(&mut self, at: Moment, least: Duration) {
        let is_idle = self.has_mails() && !self.has_undecided_mails();
        let silence = self.pace.silence(at.now);
        if is_idle
            && silence >= least
            && self.is_cut.is_none()
            && self.talk.as_ref().is_some_and(|talk| !talk.has_quit)
        {
            self.client(at, "C: QUIT".to_owned());
            self.cut("The connection was kept for further mail here, and QUIT was said later, if at all.");
        }
    }

    /// Ends the record here, with the reason.
    fn cut(&mut self, why: &'static str) {
        self.is_cut.get_or_insert(why);
    }

    /// Returns the text of the record. A pass without mail gets a substitute.
    pub(super) fn write(mut self, head: &str) -> String {
        if self.mails.is_empty() {
            self.mails.push(MailId(0), self.substitute());
        }
        let mut text = format!("# {head}\n");
        let scene = Scene {
            circumstances: &self.circumstances,
            next_hop: &self.next_hop,
            tried: &self.servers.tried,
            sessions: &self.servers.sessions,
            has_tls: self.servers.have_tls,
            has_fixed_reads: self.lines.has_fixed_reads,
            mails: self.mails.as_slice(),
        };
        scene.write(&mut self.mask, &mut text);
        self.lines.write(&mut text);
        if let Some(why) = self.is_cut {
            text.push_str(&format!("# {why}\n"));
        }
        text
    }

    /// Returns a mail for the next hop, in place of one that is not known.
    fn substitute(&self) -> RecordedMail {
        let domain = match &self.next_hop {
            NextHop::Domain(domain) => domain.as_str().to_owned(),
            NextHop::Literal(std::net::IpAddr::V4(address)) => format!("[{address}]"),
            NextHop::Literal(std::net::IpAddr::V6(address)) => format!("[IPv6:{address}]"),
            NextHop::Relay(_) => "of-mail.invalid".to_owned(),
        };
        let recipient = format!("unknown@{domain}").into();
        RecordedMail { sender: None, recipient, wishes: DsnWishes::default(), shape: Shape::default() }
    }

    /// Notes the verdict on a mail, and returns its number.
    fn decide(&mut self, id: MailId) -> Option<usize> {
        if self.is_cut.is_some() {
            return None;
        }
        self.mails.decide(id)
    }

    fn flush(&mut self, at: Moment) {
        if let Some(talk) = self.talk.as_mut().filter(|_| self.is_cut.is_none()) {
            talk.flush(at.call, &mut self.lines, &mut self.mask);
        }
    }

    fn end_talk(&mut self, at: Moment) {
        if let Some(mut talk) = self.talk.take()
            && self.is_cut.is_none()
        {
            talk.end(at.call, &mut self.lines);
        }
    }

    fn client(&mut self, at: Moment, line: String) {
        self.pace.note_concern();
        if self.is_cut.is_none() {
            self.lines.client(at.call, line);
        }
    }

    /// Gives a line about the connection, which establishes it if nothing else has.
    fn give_to_talk(&mut self, at: Moment, line: String) {
        self.pass_silence(at);
        if let Some(talk) = &mut self.talk {
            talk.is_used = true;
        }
        self.push(at, Given::Line(line));
    }

    fn push(&mut self, at: Moment, given: Given) {
        self.cut_if_long();
        if self.is_cut.is_none() {
            self.lines.give(given);
            self.pace.note_given(at.now);
        }
    }

    /// Ends the record if it has become too long.
    fn cut_if_long(&mut self) {
        if self.lines.octets() > LENGTH_LIMIT_OCTETS {
            self.cut("The record ends here, because it has become too long.");
        }
    }

    /// Records the silence since the last call, if it is long enough.
    fn pass_silence(&mut self, at: Moment) {
        let silence = self.pace.silence(at.now);
        self.pace.note_concern();
        if silence >= SILENCE && self.talk.as_ref().is_some_and(|talk| talk.is_made) {
            self.make();
            self.push(at, Given::Line(format!("+ {}s", silence.as_secs())));
        }
    }

    /// Records that the connection was established, unless something given before shows it.
    fn make(&mut self) {
        let Some(talk) = self.talk.as_mut().filter(|talk| talk.is_made && !talk.is_used) else { return };
        talk.is_used = true;
        if self.is_cut.is_none() {
            self.lines.give(Given::Line("S| \"\"".to_owned()));
        }
    }
}

/// Rounds a span that ends with a deadline: all deadlines are whole seconds.
fn rounded(span: Duration) -> Duration {
    let surplus = Duration::from_nanos(u64::from(span.subsec_nanos()));
    let whole = Duration::from_secs(span.as_secs());
    if surplus > IMPRECISION { whole + Duration::from_secs(1) } else { whole }
}

/// Writes a span in minutes and seconds, as transcripts do.
fn span_text(span: Duration) -> String {
    match (span.as_secs() / 60, span.as_secs() % 60) {
        (0, seconds) => format!("{seconds}s"),
        (minutes, seconds) => format!("{minutes}m{seconds}s"),
    }
}
