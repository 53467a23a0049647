//! The inquiries that wait for name servers.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use super::Deliveries;
use super::policy_desk::Asker;
use crate::delivery::{Scout, ScoutStep};
use crate::dispatcher::books::Books;
use crate::explanation::{Answer, DestinationExplanation, Explanation, Subject};
use crate::fair_queue::Prospect;
use crate::ids::InquiryId;
use crate::io::Output;
use crate::next_hop::NextHop;
use crate::resolver::{self, LookupId};
use crate::sts::{Finding, LocalFindTrouble};

/// Scouts under way.
#[derive(Debug, Default)]
pub(super) struct Scouts {
    open: BTreeMap<InquiryId, Asked>,
    /// The inquiry that waits for each lookup.
    lookups: BTreeMap<LookupId, InquiryId>,
    /// Inquiries whose scouts have come to their end.
    done: Vec<InquiryId>,
}

/// An inquiry that waits for name servers.
#[derive(Debug)]
struct Asked {
    subject: Subject,
    /// `None` if it leads nowhere.
    way: Option<(NextHop, Scout)>,
}

impl Scouts {
    /// Returns whether an inquiry waits for a lookup.
    pub(super) fn has_asked(&self, lookup: LookupId) -> bool {
        self.lookups.contains_key(&lookup)
    }

    /// Returns the inquiry that waits for a lookup, which is over.
    fn end_lookup(&mut self, lookup: LookupId) -> Option<InquiryId> {
        self.lookups.remove(&lookup)
    }
}

impl Deliveries {
    /// Looks for the way to a next hop, to explain what the inquiry is about.
    pub(in crate::dispatcher) fn scout(
        &mut self,
        books: &Books,
        id: InquiryId,
        subject: Subject,
        next_hop: Option<NextHop>,
    ) {
        let way = next_hop.map(|next_hop| {
            let last_server = books.store.suspects.last_server(&next_hop);
            let scout = Scout::new(next_hop.clone(), self.rng.fork(), last_server);
            (next_hop, scout)
        });
        self.inquiries.scouts.open.insert(id, Asked { subject, way });
        self.advance_scout(books, id);
    }

    /// Ends an inquiry whose client has left.
    pub(in crate::dispatcher) fn end_scout(&mut self, id: InquiryId) {
        self.inquiries.scouts.open.remove(&id);
        self.directory.policies.forget(Asker::Scout(id));
        let resolver = &mut self.resolver;
        self.inquiries.scouts.lookups.retain(|lookup, inquiry| {
            let is_over = *inquiry == id;
            if is_over {
                resolver.cancel(*lookup);
            }
            !is_over
        });
    }

    /// Gives the answer to a lookup to the scout that waits for it.
    pub(super) fn answer_scout(&mut self, books: &Books, lookup: LookupId, answer: resolver::Answer) {
        let Some(id) = self.inquiries.scouts.end_lookup(lookup) else { return };
        if let Some(Asked { way: Some((_, scout)), .. }) = self.inquiries.scouts.open.get_mut(&id) {
            scout.handle_answer(answer, &books.config.settings.announce, &books.config.policies);
            self.advance_scout(books, id);
        }
    }

    /// Gives the policy of a domain to the scout that waits for it.
    pub(super) fn tell_scout_of_policy(
        &mut self,
        books: &Books,
        id: InquiryId,
        found: Result<Finding, LocalFindTrouble>,
    ) {
        if let Some(Asked { way: Some((_, scout)), .. }) = self.inquiries.scouts.open.get_mut(&id) {
            scout.handle_policy(found);
            self.advance_scout(books, id);
        }
    }

    fn advance_scout(&mut self, books: &Books, id: InquiryId) {
        let now = books.now.monotonic;
        let Some(asked) = self.inquiries.scouts.open.get_mut(&id) else { return };
        let step = asked.way.as_mut().map_or(ScoutStep::Done, |(_, scout)| {
            scout.advance(&books.config.policies, &self.directory.hosts, &self.reachability, now)
        });
        // A person waits for it.
        let prospect = Prospect::Fresh;
        let lookup = match step {
            ScoutStep::Lookup(request) => self.resolver.lookup(now, &request, prospect),
            ScoutStep::FindPolicy(domain) => {
                return self.directory.policies.find(books.now, &domain, Asker::Scout(id));
            }
            // What is explained is what stands at the end of the call.
            ScoutStep::Done => return self.inquiries.scouts.done.push(id),
        };
        self.inquiries.scouts.lookups.insert(lookup, id);
    }

    /// Answers the inquiries for which the name servers have told everything.
    pub(in crate::dispatcher) fn answer_inquiries(&mut self, books: &mut Books) {
        for id in core::mem::take(&mut self.inquiries.scouts.done) {
            self.end_scouting(books, id);
        }
    }

    fn end_scouting(&mut self, books: &mut Books, id: InquiryId) {
        let Some(Asked { subject, way }) = self.inquiries.scouts.open.remove(&id) else { return };
        let destination = way.map(|(next_hop, scout)| {
            let route = self.route(books, &next_hop, scout.into_found());
            DestinationExplanation { route: Some(route), ..self.explain(books, &subject, &next_hop) }
        });
        let mail = match subject {
            Subject::Mail(id) => Some(self.explain_mail(books, id)),
            Subject::NextHop(_) => None,
        };
        let explanation = Explanation { mail, destination };
        books.output(Output::Answer(id, Answer::Explanation(Box::new(explanation))));
    }
}
