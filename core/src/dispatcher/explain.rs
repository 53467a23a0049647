//! Explains what happens next, and why not more.

use super::Dispatcher;
use super::books::Books;
use super::requests::Asked;
use crate::explanation::{DatabaseWork, Explanation, Inquiry, Subject};
use crate::ids::InquiryId;
use crate::next_hop::{NextHop, Relay};
use crate::outbox::MailId;

impl Dispatcher {
    /// Explains what happens next, and why not more, without the way to the next hop, for which the name servers must be asked by
    /// [`Inquiry::Explain`]. Looks at all mail in the index.
    pub fn explain(&self, subject: &Subject) -> Explanation {
        let Self { books, deliveries, .. } = self;
        let mail = match subject {
            Subject::Mail(id) => Some(deliveries.explain_mail(books, *id)),
            Subject::NextHop(_) => None,
        };
        let next_hop = books.next_hop_of(subject);
        let destination = next_hop.map(|next_hop| deliveries.explain(books, subject, &next_hop));
        Explanation { mail, destination }
    }

    /// Begins to answer an inquiry.
    pub(super) fn inquire(&mut self, id: InquiryId, inquiry: Inquiry) {
        match inquiry {
            Inquiry::Explain(subject) => {
                let next_hop = self.books.next_hop_of(&subject);
                self.deliveries.scout(&self.books, id, subject, next_hop);
            }
            Inquiry::Probe(probe) => self.deliveries.probe(&mut self.books, id, *probe),
        }
    }

    /// Ends an inquiry whose client has left.
    pub(super) fn end_inquiry(&mut self, id: InquiryId) {
        self.deliveries.end_scout(id);
        self.deliveries.end_probe(&self.books, id);
    }
}

impl Books {
    /// Returns where mail goes: perhaps by a relay, as the settings say.
    fn next_hop_of(&self, subject: &Subject) -> Option<NextHop> {
        match subject {
            Subject::NextHop(named) => {
                let routed = self.config.policies.route(named.clone());
                Some(self.meant(&routed).unwrap_or(routed))
            }
            Subject::Mail(id) => self.queue.next_hop(self.queue.find(*id)?.hop).cloned(),
        }
    }

    /// Returns the next hop with mail that a person means who does not name the credentials of a relay.
    fn meant(&self, named: &NextHop) -> Option<NextHop> {
        let NextHop::Relay(Relay { host, port, credentials: None }) = named else { return None };
        let is_meant = |known: &&NextHop| matches!(known, NextHop::Relay(relay) if (&relay.host, &relay.port) == (host, port));
        self.queue.next_hops().find(is_meant).cloned()
    }

    /// Returns the work of the database on a mail.
    pub(super) fn database_work(&self, id: MailId) -> Option<DatabaseWork> {
        if self.commits.mails().any(|mail| mail == id) {
            return Some(DatabaseWork::Record);
        }
        if self.orders.taken().any(|mail| mail == id) {
            return Some(DatabaseWork::Order);
        }
        self.store.requests.iter().find_map(|asked| match asked {
            Asked::Claim(claim) => claim.ids.contains(&id).then_some(DatabaseWork::Read),
            Asked::Sign(claim, _) => claim.ids.contains(&id).then_some(DatabaseWork::Sign),
            Asked::Bounce { ids, .. } => ids.contains(&id).then_some(DatabaseWork::ReadForBounce),
            Asked::Recall { ids, .. } => ids.contains(&id).then_some(DatabaseWork::ReadAgain),
            Asked::Scan
            | Asked::Rescan { .. }
            | Asked::Data { .. }
            | Asked::Commit
            | Asked::Recover
            | Asked::Orders
            | Asked::CarryOut(_)
            | Asked::Policy(_)
            | Asked::StalePolicies => None,
        })
    }
}
