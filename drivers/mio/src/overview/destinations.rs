//! Counts for some destinations by name, and for all others together: how many there are is the administrator's choice.

use cmail_delivery::attempt::AttemptKind;
use cmail_delivery::dispatcher::Dispatcher;
use cmail_delivery::event::Event;
use cmail_delivery::watch::WatchedDestination;

/// The name of all destinations together that have none of their own.
pub(crate) const OTHERS: &str = "other";

/// A destination that is counted by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CountedDestination {
    /// As the administrator writes it.
    pub(crate) name: Box<str>,
    pub(crate) destination: WatchedDestination,
}

/// Attempts since the destination was named, by their result.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct AttemptCounts {
    pub(crate) delivered: u64,
    pub(crate) deferred: u64,
    pub(crate) failed: u64,
    pub(crate) uncertain: u64,
}

/// The destinations that are counted by themselves, and the others.
#[derive(Clone, Debug, Default)]
pub(crate) struct Destinations {
    named: Vec<(CountedDestination, AttemptCounts)>,
    others: AttemptCounts,
}

impl Destinations {
    /// Counts these by themselves from now on. Those that were named before go on counting.
    pub(super) fn name(&mut self, destinations: &[CountedDestination]) {
        let earlier = std::mem::take(&mut self.named);
        let counts = |named: &CountedDestination| {
            let same = earlier.iter().find(|(known, _)| known == named);
            same.map(|(_, counts)| *counts).unwrap_or_default()
        };
        self.named = destinations.iter().map(|named| (named.clone(), counts(named))).collect();
    }

    /// Counts an attempt, if the event tells of one.
    pub(super) fn note(&mut self, event: &Event) {
        let (next_hop, attempt) = if let Event::Delivered { attempt, .. } = event {
            (None, attempt.facts())
        } else if let Event::Failed { next_hop, attempt, .. } = event {
            (next_hop.as_deref(), attempt.facts())
        } else {
            return;
        };
        let next_hop = next_hop.or(attempt.course.map(|course| &*course.conversation.next_hop));
        let found = next_hop.and_then(|next_hop| {
            self.named.iter_mut().find(|(named, _)| named.destination.covers_named(next_hop))
        });
        let counts = found.map_or(&mut self.others, |(_, counts)| counts);
        let count = if attempt.kind == AttemptKind::Delivered {
            &mut counts.delivered
        } else if attempt.kind == AttemptKind::Uncertain {
            &mut counts.uncertain
        } else if attempt.is_fatal {
            &mut counts.failed
        } else {
            &mut counts.deferred
        };
        *count = count.saturating_add(1);
    }

    /// Returns the attempts by destination; nothing if none is counted by itself.
    pub(crate) fn attempts(&self) -> Vec<(String, AttemptCounts)> {
        let named = self.named.iter().map(|(named, counts)| (named.name.to_string(), *counts));
        if self.named.is_empty() {
            Vec::new()
        } else {
            named.chain([(OTHERS.to_owned(), self.others)]).collect()
        }
    }

    /// Returns the mail in the outbox by destination; nothing if none is counted by itself. It takes as long as there are many
    /// destinations.
    pub(crate) fn mails(&self, dispatcher: &Dispatcher) -> Vec<(String, u64)> {
        if self.named.is_empty() {
            return Vec::new();
        }
        let mut found = vec![0_u64; self.named.len()];
        let mut others = 0_u64;
        for (next_hop, mails) in dispatcher.mails_by_destination() {
            let is_meant = |named: &CountedDestination| {
                next_hop.is_some_and(|next_hop| named.destination.covers(next_hop))
            };
            let place = self.named.iter().position(|(named, _)| is_meant(named));
            let count = place.and_then(|place| found.get_mut(place)).unwrap_or(&mut others);
            *count = count.saturating_add(mails);
        }
        let names = self.named.iter().map(|(named, _)| named.name.to_string());
        names.zip(found).chain([(OTHERS.to_owned(), others)]).collect()
    }
}
