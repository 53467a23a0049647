//! The administrator asks what the daemon does, and why not more.

use std::net::SocketAddr;

use cmail_delivery::address::{Domain, Mailbox};
use cmail_delivery::explanation::{Answer, Explanation, Inquiry, Subject};
use cmail_delivery::io::{ConnectionId, Input, InquiryId};
use cmail_delivery::next_hop::{NextHop, Relay};
use cmail_delivery::outbox::MailId;
use cmail_delivery::probe::{Probe, ProbeEnvelope};

use super::{Daemon, World};
use crate::facts::{Fact, Link};
use crate::map::Map;

/// Of so many happenings in a thousand, a question follows one.
const QUESTIONS: u16 = 30;

impl World {
    /// Asks now and then: what is known at once, or also the way, for which the name servers are asked.
    pub(super) fn maybe_ask(&mut self) {
        // Between two calls of which the outputs are not taken it is not known what the daemon does.
        let may_ask = self.mutation.is_asked() && self.untaken_since.is_none();
        if !may_ask || !self.question_dice.chance(QUESTIONS.into()) {
            return;
        }
        let Some(subject) = self.draw_subject() else { return };
        let Some(daemon) = &self.daemon else { return };
        let explanation = daemon.dispatcher.explain(&subject);
        self.explained(&subject, explanation);
        if self.question_dice.chance(300) {
            let id = InquiryId(self.questions.len() as u64);
            self.questions.push(subject.clone());
            let inquiry = match subject {
                Subject::NextHop(next_hop) if self.question_dice.chance(300) => {
                    Inquiry::Probe(Box::new(self.draw_probe(next_hop)))
                }
                Subject::NextHop(_) | Subject::Mail(_) => Inquiry::Explain(subject),
            };
            self.call(Input::Inquiry(id, inquiry));
            if self.question_dice.chance(100) {
                self.call(Input::EndInquiry(id));
            }
        }
    }

    /// The daemon answers an inquiry.
    pub(super) fn answered(&mut self, id: InquiryId, answer: Answer) {
        let Answer::Explanation(explanation) = answer else { return };
        let asked = usize::try_from(id.0).ok().and_then(|number| self.questions.get(number)).cloned();
        if let Some(subject) = asked {
            self.explained(&subject, *explanation);
        }
    }

    /// Tells to which next hop a connection belongs.
    pub(super) fn tell_next_hop(&mut self, link: Link, remote: SocketAddr) {
        let Some(dispatcher) = self.daemon.as_ref().map(|daemon| &daemon.dispatcher) else { return };
        let is_probe = self.is_probe(link.id);
        if let Some(next_hop) = dispatcher.next_hop_of(link.id).cloned() {
            self.see(Fact::GoesTo { link, next_hop: &next_hop, remote, is_probe });
        }
    }

    /// Returns whether a connection is that of a probe.
    pub(super) fn is_probe(&self, id: ConnectionId) -> bool {
        self.daemon.as_ref().is_some_and(|Daemon { dispatcher, .. }| {
            dispatcher.next_hop_of(id).is_some() && dispatcher.connection(id).is_none()
        })
    }

    fn explained(&mut self, subject: &Subject, explanation: Explanation) {
        let explanation = self.mutation.explanation(explanation);
        self.see(Fact::Explained { subject, explanation: &explanation });
    }

    /// A probe asks for a recipient of the domain, whether it exists or not.
    fn draw_probe(&mut self, next_hop: NextHop) -> Probe {
        let recipient = Mailbox::parse(format!("probe@{}", Map::zone_name(0)).as_bytes()).ok();
        let envelope = recipient.map(|recipient| ProbeEnvelope { sender: None, recipient });
        Probe { next_hop, port: None, envelope: envelope.filter(|_| self.question_dice.chance(700)) }
    }

    fn draw_subject(&mut self) -> Option<Subject> {
        if self.question_dice.chance(600) {
            let ids: Vec<MailId> = self.outbox.mails().map(|(id, _)| id).collect();
            return self.question_dice.pick(&ids).map(|id| Subject::Mail(*id));
        }
        if self.question_dice.chance(700) {
            let zone = self.question_dice.index(self.map.zones.len());
            return Some(Subject::NextHop(NextHop::Domain(Domain::parse(&Map::zone_name(zone)).ok()?)));
        }
        let relay = self.question_dice.pick(&self.map.relays)?;
        Some(Subject::NextHop(NextHop::Relay(Relay::parse(relay.specification.as_bytes()).ok()?)))
    }
}
