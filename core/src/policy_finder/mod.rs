//! Finds the MTA-STS policies of domains, as a state machine: in memory, in the database, and by their records and hosts.
//!
//! [`PolicyFinder::find`] begins a search, which ends with one [`FinderOutput::Found`] for the domain, however many wait for it. What was
//! fetched once holds until it expires: whatever else fails, or is withheld, a policy that is known stays in force (RFC 8461 section 5.1).
//! Policies that mail goes by are fetched again long before they expire, since only then an attacker could make them be forgotten.

mod cache;
mod refresh;

#[cfg(test)]
mod tests;

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::net::IpAddr;

use self::cache::{Kept, PolicyCache};
use self::refresh::Refresh;
use crate::address::Domain;
use crate::event::Level;
use crate::expiring_map::ExpiringMap;
use crate::https::{HttpsError, HttpsRequest, HttpsResponse, HttpsTrouble};
use crate::ids::HttpsId;
use crate::outbox::StoreError;
use crate::resolver::LookupError;
use crate::rng::Rng;
use crate::sts::{
    self, FetchTrouble, FindTrouble, Finding, KnownPolicy, LocalFindTrouble, Mode, POLICY_LIMIT_OCTETS,
    PolicyId, RecordTrouble, StalePolicy, StoredPolicy, StsPolicy,
};
use crate::time::{Duration, Instant, Now, UnixTime};

/// Most policies that are fetched at once.
const FETCHES_LIMIT: usize = 16;
/// Most of them that are the first of their domains. Whoever keeps these busy must not make known ones expire.
const FIRST_FETCHES_LIMIT: usize = 12;

/// Longest time that mail waits until its policy is being fetched. Hosts of other domains may take a minute each.
const TURN_LIMIT: Duration = Duration::from_secs(60);

/// Time until a policy is fetched again that could not be (RFC 8461 section 3.3), doubled each time.
const SETBACK_LEAST: Duration = Duration::from_secs(5 * 60);
/// The longest such time.
const SETBACK_MOST: Duration = Duration::from_secs(24 * 60 * 60);
/// Most domains of which it is remembered that their policy could not be fetched.
const SETBACKS_LIMIT: usize = 1000;

/// What the finder asks of its owner, or tells it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum FinderOutput {
    /// Ask the database for the policy of this domain. Answered by [`PolicyFinder::handle_stored`].
    Read(Domain),
    /// Ask the database which policies are to be fetched again. Answered by [`PolicyFinder::handle_stale`].
    Survey,
    /// Look up the TXT records of `_mta-sts` below this domain. Answered by [`PolicyFinder::handle_record`].
    LookupRecord(Domain),
    /// Look up the addresses of a host, for this domain. Answered by [`PolicyFinder::handle_addresses`].
    LookupAddresses { domain: Domain, host: Domain },
    /// Fetch a policy. Answered by [`PolicyFinder::handle_response`].
    Fetch(HttpsId, HttpsRequest),
    /// Store a policy.
    Store(StoredPolicy),
    /// Store that mail goes by the policy of this domain.
    StoreUse(Domain),
    /// This is the policy of a domain.
    Found(Domain, Result<Finding, LocalFindTrouble>),
    /// Tell the administrator.
    Note(Level, String),
}

/// Finds policies.
#[derive(Debug)]
pub(crate) struct PolicyFinder {
    cache: PolicyCache,
    searches: BTreeMap<Domain, Search>,
    /// The searches that wait until fewer policies are being fetched, in the order in which they began to: those of domains without a
    /// policy that is known, and the others.
    first_line: VecDeque<Domain>,
    renewal_line: VecDeque<Domain>,
    fetches: BTreeMap<HttpsId, Domain>,
    last_fetch: u64,
    setbacks: ExpiringMap<Domain, Setback>,
    refresh: Refresh,
    outputs: VecDeque<FinderOutput>,
}

/// A search for the policy of a domain.
#[derive(Debug)]
struct Search {
    stage: Stage,
    purpose: Purpose,
    /// What is known meanwhile, as it was when the search began. It is held here, since the cache may forget it.
    known: Option<Kept>,
}

#[derive(Debug)]
enum Stage {
    /// The database is asked.
    Reading,
    /// The name servers are asked for the record.
    AskingRecord,
    /// The name servers are asked for the host of the policy with this id.
    AskingAddresses(PolicyId),
    /// It waits until fewer policies are being fetched, where mail waits for it until this time.
    InLine { id: PolicyId, request: HttpsRequest, until: Instant },
    /// The policy with this id is being fetched.
    Fetching(PolicyId),
}

/// What a search is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Purpose {
    /// Mail waits for it.
    Mail,
    /// A policy is to be fetched again. Mail that comes meanwhile goes by the one that is known.
    Refresh,
}

/// A policy that could not be fetched.
#[derive(Debug)]
struct Setback {
    id: PolicyId,
    /// The time until it is fetched again.
    pause: Duration,
    until: Instant,
}

impl Default for PolicyFinder {
    fn default() -> Self {
        Self {
            cache: PolicyCache::default(),
            searches: BTreeMap::new(),
            first_line: VecDeque::new(),
            renewal_line: VecDeque::new(),
            fetches: BTreeMap::new(),
            last_fetch: 0,
            setbacks: ExpiringMap::new(SETBACKS_LIMIT),
            refresh: Refresh::default(),
            outputs: VecDeque::new(),
        }
    }
}

impl PolicyFinder {
    /// Begins to fetch policies again before they expire, or ends it, and forgets what the database has: the administrator may have changed
    /// it.
    pub(crate) fn reconfigure(&mut self, now: Now, keeps_fresh: bool) {
        self.refresh.set_wanted(keeps_fresh, now.monotonic);
        self.setbacks.clear();
        self.cache.forget_stored();
        self.outputs.extend(self.cache.unstored().map(FinderOutput::Store));
    }

    /// Finds the policy of a domain.
    pub(crate) fn find(&mut self, now: Now, domain: &Domain) {
        let Some(search) = self.searches.get_mut(domain) else { return self.begin(domain, Purpose::Mail) };
        let is_refresh = search.purpose == Purpose::Refresh;
        let is_past_record = !matches!(search.stage, Stage::Reading | Stage::AskingRecord);
        if is_refresh
            && is_past_record
            && let Some(known) = search.known(now)
        {
            self.note_use(now, domain);
            return self.tell(domain, Finding { policy: Some(known), trouble: None });
        }
        search.purpose = Purpose::Mail;
    }

    /// Returns the next thing to do.
    pub(crate) fn poll_output(&mut self) -> Option<FinderOutput> {
        self.outputs.pop_front()
    }

    /// Returns when to call [`PolicyFinder::handle_timeout`].
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        let turn_ends = [&self.first_line, &self.renewal_line].map(|line| self.first_turn_end(line));
        turn_ends.into_iter().chain([self.refresh.next_time()]).flatten().min()
    }

    /// Returns whether no search is under way.
    #[cfg(test)]
    pub(crate) fn is_idle(&self) -> bool {
        let lines = [&self.first_line, &self.renewal_line];
        self.searches.is_empty() && lines.iter().all(|line| line.is_empty()) && self.fetches.is_empty()
    }

    /// Does what is due.
    pub(crate) fn handle_timeout(&mut self, now: Now) {
        if self.refresh.take_survey(now.monotonic) {
            self.outputs.push_back(FinderOutput::Survey);
            self.outputs.extend(self.cache.unstored().map(FinderOutput::Store));
        }
        while let Some(domain) = self.refresh.take_due(now.monotonic) {
            if self.searches.contains_key(&domain) {
                self.refresh.end(&domain);
            } else {
                self.begin(&domain, Purpose::Refresh);
            }
        }
        let is_over = |turn_end: Option<Instant>| turn_end.is_some_and(|until| until <= now.monotonic);
        while is_over(self.first_turn_end(&self.first_line))
            && let Some(domain) = self.first_line.pop_front()
        {
            self.fail(now, &domain, FetchTrouble::NoTurn);
        }
        while is_over(self.first_turn_end(&self.renewal_line))
            && let Some(domain) = self.renewal_line.pop_front()
        {
            self.fail(now, &domain, FetchTrouble::NoTurn);
        }
    }

    /// Processes what the database has of a domain.
    pub(crate) fn handle_stored(
        &mut self,
        now: Now,
        domain: &Domain,
        answer: Result<Option<StoredPolicy>, StoreError>,
    ) {
        let Some(Search { stage: stage @ Stage::Reading, known, .. }) = self.searches.get_mut(domain) else {
            return;
        };
        match answer {
            Ok(stored) => {
                *stage = Stage::AskingRecord;
                *known = self.cache.keep_stored(domain, stored.as_ref());
                self.outputs.push_back(FinderOutput::LookupRecord(domain.clone()));
            }
            Err(error) => self.give_up(now, domain, LocalFindTrouble::Store(error)),
        }
    }

    /// Processes which policies are to be fetched again; nothing if the database does not say it.
    pub(crate) fn handle_stale(&mut self, now: Now, stale: Vec<StalePolicy>, rng: &mut Rng) {
        self.refresh.surveyed(now.monotonic, stale, rng);
    }

    /// Processes the TXT records of a domain.
    pub(crate) fn handle_record(
        &mut self,
        now: Now,
        domain: &Domain,
        answer: Result<Vec<Box<[u8]>>, LookupError>,
    ) {
        let Some(search @ Search { stage: Stage::AskingRecord, purpose, .. }) = self.searches.get(domain)
        else {
            return;
        };
        let (purpose, known) = (*purpose, search.known(now));
        let record = match answer {
            Ok(texts) => sts::find(texts.iter().map(AsRef::as_ref)).map_err(FindTrouble::Record),
            Err(LookupError::NameDoesNotExist | LookupError::NoAddress) => {
                Err(FindTrouble::Record(RecordTrouble::Absent))
            }
            Err(LookupError::Temporary(failure)) => Err(FindTrouble::RecordLookup(failure.into())),
            Err(LookupError::Local(error)) => match known {
                Some(known) => {
                    return self.finish(now, domain, Finding { policy: Some(known), trouble: None });
                }
                None => return self.give_up(now, domain, LocalFindTrouble::Lookup(error)),
            },
        };
        match (record, known) {
            (Ok(id), Some(known)) if known.id == id => {
                let is_sure = known.fetched <= now.wall;
                if purpose == Purpose::Mail {
                    self.note_use(now, domain);
                    self.tell(domain, Finding { policy: Some(known), trouble: None });
                }
                // The clock was set back: how old the policy is nobody knows.
                if purpose == Purpose::Refresh || !is_sure {
                    self.set_purpose(domain, Purpose::Refresh);
                    self.fetch(now, domain, id);
                } else {
                    self.end(domain);
                }
            }
            (Ok(id), _) => self.fetch(now, domain, id),
            (Err(_), Some(known)) if purpose == Purpose::Refresh => self.fetch(now, domain, known.id.clone()),
            (Err(trouble), known) => {
                self.finish(now, domain, Finding { policy: known, trouble: Some(trouble) })
            }
        }
    }

    /// Processes the addresses of the host of a policy.
    pub(crate) fn handle_addresses(
        &mut self,
        now: Now,
        domain: &Domain,
        answer: Result<Vec<IpAddr>, LookupError>,
    ) {
        let Some(search) = self.searches.get_mut(domain) else { return };
        let Stage::AskingAddresses(id) = &search.stage else { return };
        match (answer, host_of(domain)) {
            (Ok(addresses), Some(host)) => {
                let path = "/.well-known/mta-sts.txt";
                let request = HttpsRequest { host, addresses, path, limit_octets: POLICY_LIMIT_OCTETS };
                search.stage = Stage::InLine { id: id.clone(), request, until: now.monotonic + TURN_LIMIT };
                let line = if search.known.is_some() { &mut self.renewal_line } else { &mut self.first_line };
                line.push_back(domain.clone());
                self.begin_fetches();
            }
            (Err(LookupError::Local(error)), _) => self.give_up(now, domain, LocalFindTrouble::Lookup(error)),
            (Err(error), _) => self.fail(now, domain, FetchTrouble::NoAddress(error)),
            (Ok(_), None) => self.fail(now, domain, FetchTrouble::NoHost),
        }
    }

    /// Processes the answer of the host of a policy.
    pub(crate) fn handle_response(
        &mut self,
        now: Now,
        fetch: HttpsId,
        answer: Result<HttpsResponse, HttpsError>,
    ) {
        let Some(domain) = self.fetches.remove(&fetch) else { return };
        let read = |response: HttpsResponse| {
            if response.status != 200 {
                return Err(FetchTrouble::Status(response.status));
            }
            if !response.content_type.as_deref().is_some_and(sts::is_plain_text) {
                return Err(FetchTrouble::MediaType);
            }
            let policy = StsPolicy::parse(&response.body).map_err(FetchTrouble::Invalid)?;
            Ok((policy, response.body))
        };
        match answer.map(read) {
            Ok(Ok((policy, text))) => self.take(now, &domain, policy, text),
            Ok(Err(trouble)) => self.fail(now, &domain, trouble),
            Err(error) if error.kind == HttpsTrouble::Machine => {
                self.give_up(now, &domain, LocalFindTrouble::Https(error));
            }
            Err(error) => self.fail(now, &domain, FetchTrouble::Https(error)),
        }
        self.begin_fetches();
    }

    /// Notes that the database has these policies.
    pub(crate) fn note_stored(&mut self, policies: &[StoredPolicy]) {
        policies.iter().for_each(|stored| self.cache.note_stored(stored));
    }

    fn begin(&mut self, domain: &Domain, purpose: Purpose) {
        let (stage, output) = if self.cache.knows(domain) {
            (Stage::AskingRecord, FinderOutput::LookupRecord(domain.clone()))
        } else {
            (Stage::Reading, FinderOutput::Read(domain.clone()))
        };
        let known = self.cache.take_up(domain);
        self.searches.insert(domain.clone(), Search { stage, purpose, known });
        self.outputs.push_back(output);
    }

    /// Fetches the policy with this id, unless that has failed a short while ago.
    fn fetch(&mut self, now: Now, domain: &Domain, id: PolicyId) {
        let is_too_early = |setback: &Setback| setback.id == id && setback.until > now.monotonic;
        if self.setbacks.get(domain, now.monotonic).is_some_and(is_too_early) {
            let policy = self.known(domain, now);
            let trouble = Some(FindTrouble::Fetch(FetchTrouble::NotYet));
            return self.finish(now, domain, Finding { policy, trouble });
        }
        let host = host_of(domain);
        if let Some(search) = self.searches.get_mut(domain) {
            search.stage = Stage::AskingAddresses(id);
        }
        match host {
            Some(host) => {
                let domain = domain.clone();
                self.outputs.push_back(FinderOutput::LookupAddresses { domain, host });
            }
            None => self.fail(now, domain, FetchTrouble::NoHost),
        }
    }

    /// Begins as many fetches as may be under way.
    fn begin_fetches(&mut self) {
        while let Some(domain) = self.next_in_line() {
            let Some(search) = self.searches.get_mut(&domain) else { continue };
            let Stage::InLine { id, request, .. } = &search.stage else { continue };
            self.last_fetch += 1;
            let fetch = HttpsId(self.last_fetch);
            self.outputs.push_back(FinderOutput::Fetch(fetch, request.clone()));
            search.stage = Stage::Fetching(id.clone());
            self.fetches.insert(fetch, domain);
        }
    }

    /// Takes the domain whose policy may be fetched next.
    fn next_in_line(&mut self) -> Option<Domain> {
        let first_fetches = self.fetches.values().filter(|domain| self.is_first(domain)).count();
        if self.fetches.len() >= FETCHES_LIMIT {
            return None;
        }
        let renewal = self.renewal_line.pop_front();
        renewal.or_else(|| (first_fetches < FIRST_FETCHES_LIMIT).then(|| self.first_line.pop_front())?)
    }

    /// Returns whether the search for the policy of a domain knows none meanwhile.
    fn is_first(&self, domain: &Domain) -> bool {
        self.searches.get(domain).is_some_and(|search| search.known.is_none())
    }

    /// Takes a policy that was fetched.
    fn take(&mut self, now: Now, domain: &Domain, policy: StsPolicy, text: bytes::Bytes) {
        let Some(search) = self.searches.get_mut(domain) else { return };
        let Stage::Fetching(id) = &search.stage else { return };
        let used = match (search.purpose, &search.known) {
            (Purpose::Refresh, Some(known)) => known.used,
            (Purpose::Refresh, None) | (Purpose::Mail, _) => now.wall,
        };
        let (domain, id, fetched) = (domain.clone(), id.clone(), now.wall);
        let max_age = i64::try_from(policy.max_age.as_secs()).unwrap_or(i64::MAX);
        let expires = UnixTime(fetched.0.saturating_add(max_age));
        self.setbacks.forget(&domain);
        if policy.unreadable_hosts > 0 {
            let count = policy.unreadable_hosts;
            let text = format!("the MTA-STS policy of {domain} has {count} values of mx that name no host");
            self.outputs.push_back(FinderOutput::Note(Level::Debug, text));
        }
        let known = KnownPolicy { domain: domain.clone(), id: id.clone(), policy, fetched, expires };
        let kept = Kept { policy: Arc::new(known), used };
        search.known = Some(kept.clone());
        // What expires at once is good for this mail.
        let policy = Some(Arc::clone(&kept.policy));
        let stored = StoredPolicy { domain: domain.clone(), id, text, fetched, expires, used };
        self.cache.insert(kept, Some(stored.clone()));
        self.outputs.push_back(FinderOutput::Store(stored));
        self.finish(now, &domain, Finding { policy, trouble: None });
    }

    /// Ends a search whose policy could not be fetched.
    fn fail(&mut self, now: Now, domain: &Domain, trouble: FetchTrouble) {
        let Some(id) = self.searches.get(domain).and_then(|search| search.stage.id()).cloned() else {
            return;
        };
        let policy = self.known(domain, now);
        if trouble != FetchTrouble::NoTurn {
            let before = self.setbacks.get(domain, now.monotonic).filter(|setback| setback.id == id);
            let pause = before.map_or(SETBACK_LEAST, |setback| (setback.pause * 2).min(SETBACK_MOST));
            let until = now.monotonic + pause;
            // It is remembered beyond that time, so that the next one is longer.
            self.setbacks.keep(domain.clone(), Setback { id, pause, until }, until + pause, now.monotonic);
            self.note_failure(domain, &trouble, policy.as_deref());
        }
        self.finish(now, domain, Finding { policy, trouble: Some(FindTrouble::Fetch(trouble)) });
    }

    /// Tells the administrator of a fetch that has failed (RFC 8461 section 3.3), unless the domain has said that it wants no policy any
    /// more.
    fn note_failure(&mut self, domain: &Domain, trouble: &FetchTrouble, known: Option<&KnownPolicy>) {
        let (level, text) = match known {
            Some(KnownPolicy { policy: StsPolicy { mode: Mode::None, .. }, .. }) => return,
            Some(KnownPolicy { expires, .. }) => (
                Level::Warning,
                format!(
                    "cannot fetch the MTA-STS policy of {domain} anew, the known one holds until {expires}: {trouble}"
                ),
            ),
            None => (
                Level::Info,
                format!("cannot fetch the MTA-STS policy of {domain}, so there is none: {trouble}"),
            ),
        };
        self.outputs.push_back(FinderOutput::Note(level, text));
    }

    /// Ends a search because of trouble of this machine. A policy that is known stays in force.
    fn give_up(&mut self, now: Now, domain: &Domain, trouble: LocalFindTrouble) {
        match self.known(domain, now) {
            Some(known) => self.finish(now, domain, Finding { policy: Some(known), trouble: None }),
            None => {
                self.end(domain);
                self.outputs.push_back(FinderOutput::Found(domain.clone(), Err(trouble)));
            }
        }
    }

    /// Ends a search with what was found.
    fn finish(&mut self, now: Now, domain: &Domain, finding: Finding) {
        let is_for_mail = self.searches.get(domain).is_some_and(|search| search.purpose == Purpose::Mail);
        if is_for_mail && finding.policy.is_some() {
            self.note_use(now, domain);
        }
        self.end(domain);
        if is_for_mail {
            self.tell(domain, finding);
        }
    }

    fn tell(&mut self, domain: &Domain, finding: Finding) {
        self.outputs.push_back(FinderOutput::Found(domain.clone(), Ok(finding)));
    }

    /// Notes that mail goes by the policy that the search for it knows.
    fn note_use(&mut self, now: Now, domain: &Domain) {
        let known = self.searches.get_mut(domain).and_then(|search| search.known.as_mut());
        if let Some(known) = known.filter(|known| known.is_long_unused(now.wall)) {
            known.used = now.wall;
            self.cache.note_use(domain, now.wall);
            self.outputs.push_back(FinderOutput::StoreUse(domain.clone()));
        }
    }

    /// Returns the policy of a domain that the search for it knows meanwhile, if it holds.
    fn known(&self, domain: &Domain, now: Now) -> Option<Arc<KnownPolicy>> {
        self.searches.get(domain)?.known(now)
    }

    fn end(&mut self, domain: &Domain) {
        self.searches.remove(domain);
        self.refresh.end(domain);
    }

    fn set_purpose(&mut self, domain: &Domain, purpose: Purpose) {
        if let Some(search) = self.searches.get_mut(domain) {
            search.purpose = purpose;
        }
    }

    /// Returns until when the first search in a line waits for its turn. The others wait longer.
    fn first_turn_end(&self, line: &VecDeque<Domain>) -> Option<Instant> {
        match self.searches.get(line.front()?)? {
            Search { stage: Stage::InLine { until, .. }, .. } => Some(*until),
            Search { .. } => None,
        }
    }
}

impl Search {
    /// Returns the policy that is known meanwhile, if it holds.
    fn known(&self, now: Now) -> Option<Arc<KnownPolicy>> {
        self.known.as_ref()?.in_force(now.wall)
    }
}

impl Stage {
    /// Returns the id of the policy that is to be fetched.
    fn id(&self) -> Option<&PolicyId> {
        match self {
            Self::Reading | Self::AskingRecord => None,
            Self::AskingAddresses(id) | Self::InLine { id, .. } | Self::Fetching(id) => Some(id),
        }
    }
}

/// Returns the host that the policy of a domain is fetched from, if its name is not too long for one (RFC 8461 section 3.2).
fn host_of(domain: &Domain) -> Option<Domain> {
    Domain::parse(&format!("mta-sts.{domain}")).ok()
}
