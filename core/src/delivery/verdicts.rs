//! Processes the outputs of sessions.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::sync::Arc;
use alloc::vec::Vec;

use super::connection::Connection;
use super::{Delivery, DeliveryContext, DeliveryOutput};
use crate::attempt::{Acceptance, Failure, Server};
use crate::course::Course;
use crate::event::{Event, EventName, Level, Said};
use crate::io::ConnectionId;
use crate::outbox::MailId;
use crate::session::{Outcome, Recipient, Refusal, RefusalKind, SessionNote, SessionOutput};

/// A mail whose refusal may concern the connection.
#[derive(Debug)]
pub(super) struct RefusedMail {
    pub(super) recipient: Recipient,
    pub(super) server: Arc<Server>,
    pub(super) refusal: Refusal,
    pub(super) course: Option<Arc<Course>>,
}

impl Delivery {
    /// Processes all requests of a connection and outputs of its session. This is the only place that does.
    pub(super) fn drain_connection(&mut self, cx: &mut DeliveryContext<'_>, connection: ConnectionId) {
        while let Some(conn) = self.connections.get_mut(connection) {
            if conn.take_request_for_transactions() {
                self.want_transactions(cx, connection);
            } else if conn.take_request_to_begin() {
                self.begin(cx, connection);
            } else if let Some(output) = conn.poll_session() {
                self.take_in(cx, connection, output);
            } else if conn.announce_transmit() {
                self.outputs.push_back(DeliveryOutput::Transmit(connection));
            } else {
                return;
            }
        }
    }

    fn take_in(&mut self, cx: &mut DeliveryContext<'_>, connection: ConnectionId, output: SessionOutput) {
        let Some(conn) = self.connections.get(connection) else { return };
        let (groups, terms) = (conn.groups(), conn.terms());
        let Some(server) = conn.server() else { return };
        let output = match output {
            SessionOutput::StartTls => {
                let Some(terms) = terms else { return };
                DeliveryOutput::StartTls { connection, terms, groups }
            }
            SessionOutput::Ready => {
                if let Some(conn) = self.connections.get_mut(connection) {
                    conn.handle_ready();
                }
                return;
            }
            SessionOutput::NeedData { id, offset, limit } => {
                DeliveryOutput::WantData { connection, id, offset, limit }
            }
            SessionOutput::Verdicts(verdicts) => {
                return self.take_verdicts(cx, connection, &server, verdicts);
            }
            SessionOutput::Sent(octets) => {
                let mail = self.connections.get(connection).and_then(Connection::speaks_of);
                DeliveryOutput::Event(Event::Sent(Said { connection, mail, octets }))
            }
            SessionOutput::SentData(octets) => {
                let mail = self.connections.get(connection).and_then(Connection::hears_of);
                DeliveryOutput::Event(Event::SentData(Said { connection, mail, octets }))
            }
            SessionOutput::Received(octets) => {
                let mail = self.connections.get(connection).and_then(Connection::hears_of);
                DeliveryOutput::Event(Event::Received(Said { connection, mail, octets }))
            }
            SessionOutput::Authenticated(mechanism) => return self.take_login(mechanism),
            // An administrator may want to know, and those who test a policy want nothing else.
            SessionOutput::Note(note @ SessionNote::FallsShort(_)) => DeliveryOutput::Event(Event::Note {
                about: EventName::Tls,
                level: Level::Info,
                text: format!("{server}: {note}"),
            }),
            SessionOutput::Note(note) => {
                DeliveryOutput::Event(Event::debug(EventName::Connection, format!("{server}: {note}")))
            }
            SessionOutput::Ended(end) => return self.end_connection(cx, connection, end),
        };
        self.outputs.push_back(output);
    }

    /// Processes the verdicts of a transaction: first the refusals, because the server took the rest after them.
    fn take_verdicts(
        &mut self,
        cx: &mut DeliveryContext<'_>,
        connection: ConnectionId,
        server: &Arc<Server>,
        verdicts: Vec<(Recipient, Outcome)>,
    ) {
        let course = self.connections.get_mut(connection).and_then(|conn| {
            conn.end_talk(&verdicts);
            conn.end_course(cx, &verdicts)
        });
        let (mut delivered, mut failed, mut undecided) = (Vec::new(), Vec::new(), Vec::new());
        let mut refused: BTreeMap<RefusalKind, Vec<RefusedMail>> = BTreeMap::new();
        for (recipient, outcome) in verdicts {
            let server = Arc::clone(server);
            match outcome {
                Outcome::Delivered(reply) => delivered.push((recipient, Acceptance { server, reply })),
                Outcome::Rejected { reply, command, fatal } => {
                    failed.push((recipient, Failure::Refused { server, reply, command, fatal }));
                }
                Outcome::Accepted(reply) => {
                    self.note_decided(connection);
                    let acceptance = Acceptance { server, reply };
                    self.outputs.push_back(DeliveryOutput::Accepted(acceptance));
                }
                Outcome::Unfit(reason) => failed.push((recipient, Failure::Unfit(server, reason))),
                Outcome::Uncertain(cause) => failed.push((recipient, Failure::Uncertain(server, cause))),
                Outcome::Refused(refusal) => {
                    let kind = refusal.kind;
                    let course = course.clone();
                    refused.entry(kind).or_default().push(RefusedMail { recipient, server, refusal, course });
                }
                Outcome::Undecided => undecided.push(recipient.id),
            }
        }
        if !(delivered.is_empty() && failed.is_empty()) {
            self.note_decided(connection);
        }
        if !(delivered.is_empty() && failed.is_empty() && refused.is_empty()) {
            let is_delivered = !delivered.is_empty();
            self.outputs.push_back(DeliveryOutput::TransactionEnded { course: course.clone(), is_delivered });
        }
        for (recipient, failure) in failed {
            self.refusals.decide(connection);
            self.outputs.push_back(DeliveryOutput::Failed { recipient, failure, course: course.clone() });
        }
        for (kind, refused) in refused {
            let undecided = core::mem::take(&mut undecided);
            self.take_refusal(cx, connection, kind, refused, undecided);
        }
        self.release(undecided, true);
        let is_reported_by_server = self.connections.get(connection).is_some_and(Connection::offers_dsn);
        for (recipient, acceptance) in delivered {
            self.refusals.take(connection);
            self.pass.has_taken = true;
            cx.admission.note_taken();
            self.outputs.push_back(DeliveryOutput::Delivered {
                recipient,
                acceptance,
                course: course.clone(),
                is_reported_by_server,
            });
        }
        if let Some(conn) = self.connections.get_mut(connection) {
            conn.end_transaction();
        }
    }

    /// Makes a refusal of the connection the verdict of these mails.
    pub(super) fn decide_refused(
        &mut self,
        connection: ConnectionId,
        refused: Vec<RefusedMail>,
        undecided: Vec<MailId>,
    ) {
        self.note_decided(connection);
        for RefusedMail { recipient, server, refusal, course } in refused {
            let Refusal { reply, command, .. } = refusal;
            let failure = Failure::Refused { server, reply, command, fatal: false };
            self.outputs.push_back(DeliveryOutput::Failed { recipient, failure, course });
        }
        self.release(undecided, true);
    }

    /// Records that a connection has decided a mail, so it works.
    fn note_decided(&mut self, connection: ConnectionId) {
        self.connections.idle.note_use(connection);
        if let Some(conn) = self.connections.get_mut(connection) {
            conn.note_decided();
        }
    }
}
