//! The chain of aliases from the requested name to the records (RFC 1034 section 3.6.2), and its outcome.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::net::IpAddr;

use hickory_proto::rr::Name;

use super::failure::{DnsFailure, DnsServerTrouble, LocalLookupError};
use super::message::{Message, Question, QuestionType, Record, RecordData, domain_of, text_of};
use super::{Canonical, MxAnswer, Security};
use crate::tally::LookupResult;
use crate::tls::TlsaRecord;

/// Most aliases that are followed.
pub(super) const ALIASES_LIMIT: usize = 16;
/// Most MX records of a domain that are used: the most preferred ones.
pub(super) const MAIL_HOSTS_LIMIT: usize = 64;
/// Most addresses of a name that are used.
pub(super) const ADDRESSES_LIMIT: usize = 32;

/// Most TLSA records of a name that are used.
pub(super) const TLSA_LIMIT: usize = 256;
/// Most octets of all TXT records of a name that are used.
pub(super) const TEXT_LIMIT_OCTETS: usize = 64 * 1024;

/// The end of a question: its outcome, and how it was reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Conclusion {
    pub(super) outcome: LookupOutcome,
    /// That of the least secure message that led to it.
    pub(super) security: Security,
    pub(super) canonical: Canonical,
}

/// The outcome of a question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum LookupOutcome {
    Mx(MxAnswer),
    Addresses(Vec<IpAddr>),
    Tlsa(Vec<TlsaRecord>),
    Texts(Vec<Box<[u8]>>),
    /// The name is an alias.
    Alias,
    /// The zone has name servers.
    NameServers,
    /// The name exists, but has no such record.
    NoData,
    NoSuchName,
    Failed(DnsFailure),
    Local(LocalLookupError),
}

impl LookupOutcome {
    /// Returns as what it is counted.
    pub(super) fn result(&self) -> LookupResult {
        match self {
            Self::Mx(_)
            | Self::Addresses(_)
            | Self::Tlsa(_)
            | Self::Texts(_)
            | Self::Alias
            | Self::NameServers => LookupResult::Answered,
            Self::NoData | Self::NoSuchName => LookupResult::Negative,
            Self::Failed(_) | Self::Local(_) => LookupResult::Failed,
        }
    }
}

/// The next step of a chain after a message.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum ChainStep {
    /// The chain has ended. The number is for how many seconds the outcome may be kept; `None` if the servers did not say.
    End(LookupOutcome, Option<u32>),
    /// The chain ends with an alias whose target must be asked for.
    AskAgain,
    /// The message does not answer the question, so another server must be asked.
    Unusable(DnsServerTrouble),
}

/// The way from a question through its aliases.
#[derive(Debug)]
pub(super) struct Chain {
    /// The question to ask now.
    question: Question,
    /// The names before it.
    aliases: Vec<Name>,
    /// The shortest time to live of the aliases, in seconds.
    ttl_s: u32,
    /// That of the least secure message so far.
    security: Security,
}

impl Chain {
    pub(super) fn new(question: Question) -> Self {
        Self { question, aliases: Vec::new(), ttl_s: u32::MAX, security: Security::Secure }
    }

    /// Returns the question to ask now.
    pub(super) fn question(&self) -> &Question {
        &self.question
    }

    /// Returns the shortest time to live of the aliases so far, in seconds.
    pub(super) fn ttl_s(&self) -> u32 {
        self.ttl_s
    }

    /// Returns the conclusion that a known conclusion about [`Chain::question`] leads to.
    pub(super) fn concluded_by(&self, known: Conclusion) -> Conclusion {
        Conclusion {
            security: self.security.max(known.security),
            // The names between are nobody's canonical name.
            canonical: if known.canonical == Canonical::Itself { self.canonical() } else { known.canonical },
            outcome: known.outcome,
        }
    }

    /// Returns the conclusion with this outcome.
    pub(super) fn conclusion(&self, outcome: LookupOutcome) -> Conclusion {
        Conclusion { outcome, security: self.security, canonical: self.canonical() }
    }

    fn canonical(&self) -> Canonical {
        if self.aliases.is_empty() {
            return Canonical::Itself;
        }
        domain_of(&self.question.name).map_or(Canonical::Unusable, Canonical::Other)
    }

    /// Processes an answer to [`Chain::question`], which has this security.
    pub(super) fn follow(&mut self, message: &Message, security: Security) -> ChainStep {
        let step = self.step(message);
        if !matches!(step, ChainStep::Unusable(_)) {
            self.security = self.security.max(security);
        }
        step
    }

    fn step(&mut self, message: &Message) -> ChainStep {
        let before = self.aliases.len();
        loop {
            if let Some(end) = self.records(message) {
                return end;
            }
            let alias = message.answers.iter().find_map(|record| match &record.data {
                RecordData::Alias(target) if record.owner == self.question.name => {
                    Some((target, record.ttl_s))
                }
                RecordData::Alias(_)
                | RecordData::MailHost(..)
                | RecordData::Address(_)
                | RecordData::Tlsa(_)
                | RecordData::Text(_)
                | RecordData::NameServer => None,
            });
            let Some((target, ttl_s)) = alias else { break };
            self.ttl_s = self.ttl_s.min(ttl_s);
            let owner = core::mem::replace(&mut self.question.name, target.clone());
            self.aliases.push(owner);
            if self.aliases.len() > ALIASES_LIMIT || self.aliases.contains(target) {
                return ChainStep::End(LookupOutcome::Failed(self.endless()), None);
            }
        }
        self.without_records(message, self.aliases.len() > before)
    }

    /// Returns the end of the chain, if the message has records for it.
    fn records(&self, message: &Message) -> Option<ChainStep> {
        let kind = self.question.kind;
        let is_wanted = |record: &&Record| record.owner == self.question.name && record.data.is_of(kind);
        let ttl_s = message.answers.iter().filter(is_wanted).map(|record| record.ttl_s).min()?;
        let records = message.answers.iter().filter(is_wanted).map(|record| &record.data);
        Some(ChainStep::End(outcome_of(kind, records), Some(ttl_s.min(self.ttl_s))))
    }

    /// Returns the step after a message that has no records for the end of the chain.
    fn without_records(&self, message: &Message, has_aliases: bool) -> ChainStep {
        // The zone must be an ancestor of the name.
        let denial = message.denial.as_ref().filter(|(zone, _)| zone.zone_of(&self.question.name));
        let ttl_s = denial.map(|(_, ttl_s)| self.ttl_s.min(*ttl_s));
        // The code concerns the last name of the chain (RFC 6604 section 3).
        if message.no_such_name {
            return ChainStep::End(LookupOutcome::NoSuchName, ttl_s);
        }
        if has_aliases {
            return if denial.is_some() {
                ChainStep::End(LookupOutcome::NoData, ttl_s)
            } else {
                ChainStep::AskAgain
            };
        }
        if message.has_answers {
            return ChainStep::Unusable(DnsServerTrouble::WrongQuestion);
        }
        if message.denial.is_none() && message.has_name_servers {
            // A referral is no denial (RFC 2308 section 2.2); a server that recurses does not send one.
            return ChainStep::Unusable(DnsServerTrouble::Referral);
        }
        ChainStep::End(LookupOutcome::NoData, ttl_s)
    }

    fn endless(&self) -> DnsFailure {
        let first = self.aliases.first().unwrap_or(&self.question.name);
        DnsFailure::AliasLoop { name: text_of(first).into() }
    }
}

/// Returns the outcome of a question that was answered with these records, all of the type that was asked for.
fn outcome_of<'a>(kind: QuestionType, records: impl Iterator<Item = &'a RecordData>) -> LookupOutcome {
    let (mut mail_hosts, mut addresses, mut certificates, mut texts) =
        (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let mut text_octets = 0;
    for record in records {
        match record {
            RecordData::MailHost(preference, host) => mail_hosts.push((*preference, host)),
            // A repeated address would be tried twice.
            RecordData::Address(address) if addresses.contains(address) => {}
            RecordData::Address(address) => addresses.push(*address),
            RecordData::Tlsa(record) => certificates.push(record.clone()),
            RecordData::Text(text) => {
                text_octets += text.len();
                if text_octets <= TEXT_LIMIT_OCTETS {
                    texts.push(text.clone());
                }
            }
            RecordData::Alias(_) | RecordData::NameServer => {}
        }
    }
    match kind {
        QuestionType::Mx => LookupOutcome::Mx(mx_answer(mail_hosts)),
        QuestionType::Ipv4 | QuestionType::Ipv6 => {
            addresses.truncate(ADDRESSES_LIMIT);
            LookupOutcome::Addresses(addresses)
        }
        QuestionType::Tlsa => {
            certificates.truncate(TLSA_LIMIT);
            LookupOutcome::Tlsa(certificates)
        }
        QuestionType::Txt => LookupOutcome::Texts(texts),
        QuestionType::Alias => LookupOutcome::Alias,
        QuestionType::NameServers => LookupOutcome::NameServers,
    }
}

/// Sorts and cuts MX records (RFC 5321 section 5.1).
fn mx_answer(mut records: Vec<(u16, &Name)>) -> MxAnswer {
    // A null MX is one record with the root as its target, whatever its preference (RFC 7505 section 3). Among other records it
    // is a mistake, and only unusable.
    if let [(_, host)] = records.as_slice()
        && host.is_root()
    {
        return MxAnswer::NullMx;
    }
    records.sort_by_key(|(preference, _)| *preference);
    let usable = records.into_iter().filter_map(|(preference, host)| Some((preference, domain_of(host)?)));
    MxAnswer::Records(usable.take(MAIL_HOSTS_LIMIT).collect())
}
