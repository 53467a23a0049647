//! The faults of a world.

use super::number;
use crate::dice::Dice;

/// The faults of the world, each in thousandths: of the occasions, or, for those that come by themselves, of the hours in which
/// they occur. Zero is off.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Faults {
    /// A connection breaks somewhere.
    pub(crate) resets: u32,
    /// A connection falls silent somewhere.
    pub(crate) stalls: u32,
    /// A server closes a connection somewhere.
    pub(crate) hangups: u32,
    /// A connection is refused.
    pub(crate) refusals: u32,
    /// This machine cannot make a connection, or send a datagram.
    pub(crate) local_trouble: u32,
    /// A TLS handshake fails.
    pub(crate) tls_failures: u32,
    /// Segments are split.
    pub(crate) splits: u32,
    /// Segments are joined.
    pub(crate) joins: u32,
    /// One host fails for a while.
    pub(crate) outages: u32,
    /// A group of hosts fails for a while.
    pub(crate) group_outages: u32,
    /// A server is not a normal one.
    pub(crate) odd_servers: u32,
    /// A server greets and never answers EHLO.
    pub(crate) mute_servers: u32,
    /// A DNS datagram is lost.
    pub(crate) dns_losses: u32,
    /// A DNS answer has a wrong id, question or source.
    pub(crate) dns_strays: u32,
    /// A DNS answer is truncated.
    pub(crate) dns_truncations: u32,
    /// All DNS servers answer SERVFAIL for a while.
    pub(crate) dns_spells: u32,
    /// All DNS servers say nothing for a while.
    pub(crate) dns_silences: u32,
    /// The database is busy or full.
    pub(crate) store_failures: u32,
    /// The database takes long.
    pub(crate) store_delays: u32,
    /// The daemon crashes.
    pub(crate) crashes: u32,
    /// The daemon is asked to end.
    pub(crate) drains: u32,
    /// Another process deletes or changes rows.
    pub(crate) meddling: u32,
    /// The wall clock is set.
    pub(crate) clock_jumps: u32,
    /// The administrator wants everything to be tried.
    pub(crate) retries: u32,
    /// The administrator changes the settings.
    pub(crate) reconfigurations: u32,
    /// The administrator gives an order about some mail.
    pub(crate) orders: u32,
    /// The core is called in an order that makes no sense.
    pub(crate) disorder: u32,
    /// The database cannot process a row until there are no faults any more.
    pub(crate) poison: u32,
    /// A name server does not say that DNSSEC vouches for an answer.
    pub(crate) ad_withheld: u32,
    /// A question for TLSA records gets SERVFAIL, or is lost.
    pub(crate) tlsa_failures: u32,
    /// A host replaces its key.
    pub(crate) rollovers: u32,
    /// The offer of STARTTLS is made unreadable on the way.
    pub(crate) stripped: u32,
    /// Somebody else's certificate is shown.
    pub(crate) impostors: u32,
    /// Signatures take long.
    pub(crate) sign_delays: u32,
    /// Something is not signed.
    pub(crate) sign_failures: u32,
}

impl Faults {
    /// Draws the faults. Each is off in half of the seeds, so that in some seeds few hide each other.
    pub(super) fn draw(dice: &mut Dice) -> Self {
        let mut some = |choices: &[u32]| if dice.chance(500) { 0 } else { number(dice.pick(choices)) };
        Self {
            resets: some(&[5, 50, 300]),
            stalls: some(&[5, 30]),
            hangups: some(&[5, 50, 200]),
            refusals: some(&[10, 100, 400]),
            local_trouble: some(&[2, 20, 100]),
            tls_failures: some(&[20, 200, 900]),
            splits: some(&[50, 500, 1000]),
            joins: some(&[50, 500]),
            outages: some(&[50, 300, 1000]),
            group_outages: some(&[10, 100]),
            odd_servers: some(&[200, 500, 1000]),
            dns_losses: some(&[20, 200, 600]),
            dns_strays: some(&[20, 300]),
            dns_truncations: some(&[20, 300]),
            dns_spells: some(&[20, 200]),
            store_failures: some(&[5, 50, 300]),
            store_delays: some(&[5, 100, 500]),
            crashes: some(&[50, 300, 2000]),
            drains: some(&[20, 200]),
            meddling: some(&[100, 1000, 5000]),
            clock_jumps: some(&[10, 50]),
            retries: some(&[100, 1000]),
            reconfigurations: 0,
            orders: 0,
            disorder: some(&[1, 20]),
            ad_withheld: 0,
            tlsa_failures: 0,
            rollovers: 0,
            stripped: 0,
            impostors: 0,
            sign_delays: 0,
            sign_failures: 0,
            mute_servers: some(&[50, 300, 700]),
            dns_silences: some(&[100, 1000, 3000]),
            poison: 0,
        }
    }

    /// Draws the faults of worlds with DNSSEC.
    pub(super) fn draw_for_dane(&mut self, dice: &mut Dice) {
        let mut some = |choices: &[u32]| if dice.chance(500) { 0 } else { number(dice.pick(choices)) };
        self.ad_withheld = some(&[5, 100, 1000]);
        self.tlsa_failures = some(&[20, 300, 1000]);
        self.rollovers = some(&[300, 3000]);
        self.stripped = some(&[50, 500]);
        self.impostors = some(&[50, 300]);
    }
}
