//! The key that a host shows in TLS, and the keys that its TLSA records name.

use cmail_delivery::time::{Duration, Instant};
use cmail_delivery::tls::Tlsa;
use cmail_delivery::tls::tlsa::Association;

use crate::dice::Dice;

/// The key of somebody who is not the host, and of whom no record tells.
pub(crate) const IMPOSTOR: u64 = u64::MAX;

/// The keys of a host. Each has a number that no other key has.
#[derive(Clone, Debug, Default)]
pub(crate) struct HostKeys {
    /// True if DNSSEC vouches for the addresses and records of the host.
    pub(crate) is_signed: bool,
    shown: u64,
    /// The keys that records have named, and since when.
    named: Vec<(Instant, Vec<u64>)>,
}

/// A step in which a key is replaced.
#[derive(Clone, Debug)]
pub(crate) enum KeyStep {
    /// The records name these keys.
    Name(Vec<u64>),
    /// The host shows this key.
    Show(u64),
}

impl HostKeys {
    /// Returns the keys of a signed host whose records name the key that it shows, if it `has_records`.
    pub(crate) fn signed(key: u64, has_records: bool) -> Self {
        let named = if has_records { vec![(Instant::default(), vec![key])] } else { Vec::new() };
        Self { is_signed: true, shown: key, named }
    }

    /// Returns the key that the host shows.
    pub(crate) fn shown(&self) -> u64 {
        self.shown
    }

    /// Returns the keys that the records name now.
    pub(crate) fn named(&self) -> &[u64] {
        self.named.last().map(|(_, keys)| &**keys).unwrap_or_default()
    }

    /// Returns each set of keys that records have named at a moment from `since` on; an empty one if there were no records.
    pub(crate) fn named_since(&self, since: Instant) -> impl Iterator<Item = &[u64]> {
        let earlier = self.named.iter().filter(move |(at, _)| *at <= since).count();
        let at_first = earlier.checked_sub(1).and_then(|index| self.named.get(index));
        let at_first: &[u64] = at_first.map(|(_, keys)| &**keys).unwrap_or_default();
        let later = self.named.get(earlier..).unwrap_or_default();
        std::iter::once(at_first).chain(later.iter().map(|(_, keys)| &**keys))
    }

    pub(crate) fn take(&mut self, now: Instant, step: KeyStep) {
        match step {
            KeyStep::Name(keys) => self.named.push((now, keys)),
            KeyStep::Show(key) => self.shown = key,
        }
    }

    /// Ends a replacement that is under way: the records name the key that is shown.
    pub(crate) fn settle(&mut self, now: Instant) {
        if !self.named.is_empty() && self.named() != [self.shown] {
            self.named.push((now, vec![self.shown]));
        }
    }

    /// Returns the steps in which the key is replaced by this one, and after which time: in order, with a time in which the records name
    /// both; too early, as records that are remembered know nothing of it; or without any care.
    pub(crate) fn draw_rollover(&self, key: u64, dice: &mut Dice) -> Vec<(Duration, KeyStep)> {
        let hours = |hours: u64| Duration::from_secs(hours * 3600);
        let both = KeyStep::Name(vec![self.shown, key]);
        let (name, show) = (KeyStep::Name(vec![key]), KeyStep::Show(key));
        match dice.below(3) {
            0 => vec![(hours(0), both), (hours(2), show), (hours(3), name)],
            1 => vec![(hours(0), name), (Duration::from_secs(1), show)],
            _ => vec![(hours(0), show), (Duration::from_secs(dice.within(60..=7200)), name)],
        }
    }
}

/// Returns what a TLSA record says of a key instead of its digest.
pub(crate) fn digest(key: u64) -> [u8; 32] {
    let mut digest = [0; 32];
    if let Some(octets) = digest.first_chunk_mut() {
        *octets = key.to_be_bytes();
    }
    digest
}

/// Returns whether one of these records names a key.
pub(crate) fn name_key(records: &[Tlsa], key: u64) -> bool {
    records.iter().any(|record| record.association == Association::Sha256(digest(key)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_of_keys_are_those_of_a_time_and_later() {
        let mut keys = HostKeys::signed(1, true);
        let at = |seconds| Instant::default() + Duration::from_secs(seconds);
        keys.take(at(10), KeyStep::Name(vec![1, 2]));
        keys.take(at(20), KeyStep::Show(2));
        keys.take(at(30), KeyStep::Name(vec![2]));
        let since = |seconds| keys.named_since(at(seconds)).collect::<Vec<_>>();
        assert_eq!(since(5), [&[1][..], &[1, 2], &[2]]);
        assert_eq!(since(10), [&[1, 2][..], &[2]]);
        assert_eq!(since(31), [[2]]);
        assert_eq!((keys.shown(), HostKeys::default().named_since(at(5)).count()), (2, 1));
    }
}
