//! The threads that sign, so that the event loop never waits for a signature: one by RSA takes a millisecond or so.

use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use cmail_delivery::dkim::{Digest, KeyId, SignTrouble, Signature};
use cmail_delivery::outbox::RequestId;
use mio::Waker;

use super::key::KeyRing;

/// Most threads. More would take processors from the mail itself.
const THREADS_LIMIT: usize = 4;

/// The signatures of a request that one thread makes at least, where there are so many.
const PART_LEAST: usize = 4;

type Results = Vec<Result<Signature, SignTrouble>>;

/// The threads, which begin with the first request. They end when this is dropped.
#[derive(Debug)]
pub(crate) struct Signers {
    /// The keys in force, and those from before: claims that were begun with them may be under way.
    keys: Arc<KeyRing>,
    in_force: KeyRing,
    waker: Arc<Waker>,
    threads: Option<Threads>,
    open: BTreeMap<RequestId, Vec<Option<Results>>>,
}

#[derive(Debug)]
struct Threads {
    jobs: Sender<Job>,
    done: Receiver<Done>,
    count: usize,
}

/// A part of a request.
struct Job {
    request: RequestId,
    part: usize,
    keys: Arc<KeyRing>,
    digests: Vec<(KeyId, Digest)>,
}

#[derive(Debug)]
struct Done {
    request: RequestId,
    part: usize,
    results: Results,
}

impl Signers {
    /// Returns signers without keys. They wake the loop when something is signed.
    pub(crate) fn new(waker: Arc<Waker>) -> Self {
        Self {
            keys: Arc::default(),
            in_force: KeyRing::default(),
            waker,
            threads: None,
            open: BTreeMap::new(),
        }
    }

    /// Takes other keys. Those from before sign what is under way, until the next ones come.
    pub(crate) fn turn_to(&mut self, keys: KeyRing) {
        self.keys = Arc::new(keys.with(&self.in_force));
        self.in_force = keys;
    }

    /// Begins to sign digests.
    pub(crate) fn sign(&mut self, request: RequestId, digests: Vec<(KeyId, Digest)>) {
        let count = self.threads().map_or(0, |threads| threads.count);
        let part_digests = digests.len().div_ceil(count.max(1)).max(PART_LEAST);
        let parts: Vec<_> = digests.chunks(part_digests).map(<[_]>::to_vec).collect();
        let mut results: Vec<Option<Results>> = parts.iter().map(|_| None).collect();
        for ((part, digests), result) in parts.into_iter().enumerate().zip(&mut results) {
            let keys = Arc::clone(&self.keys);
            let job = Job { request, part, keys, digests };
            let refused = match &self.threads {
                Some(threads) => threads.jobs.send(job).err().map(|refused| refused.0),
                None => Some(job),
            };
            *result = refused.map(|job| {
                let trouble = SignTrouble::Failed("no thread can be started for it".into());
                job.digests.iter().map(|_| Err(trouble.clone())).collect()
            });
        }
        if results.iter().all(Option::is_some) {
            // If it cannot be woken, the loop finds it at its next turn.
            let _ = self.waker.wake();
        }
        self.open.insert(request, results);
    }

    /// Returns the signatures of a request, in the order of its digests, if all are there.
    pub(crate) fn poll(&mut self) -> Option<(RequestId, Results)> {
        if self.open.is_empty() {
            return None;
        }
        while let Some(Done { request, part, results }) =
            self.threads.as_ref().and_then(|threads| threads.done.try_recv().ok())
        {
            let place = self.open.get_mut(&request).and_then(|parts| parts.get_mut(part));
            if let Some(place) = place {
                *place = Some(results);
            }
        }
        let done = self.open.iter().find(|(_, parts)| parts.iter().all(Option::is_some))?;
        let request = *done.0;
        let parts = self.open.remove(&request)?;
        Some((request, parts.into_iter().flatten().flatten().collect()))
    }

    /// Returns the threads, which are started if there are none.
    fn threads(&mut self) -> Option<&Threads> {
        if self.threads.is_none() {
            self.threads = Threads::start(&self.waker);
        }
        self.threads.as_ref()
    }
}

impl Threads {
    fn start(waker: &Arc<Waker>) -> Option<Self> {
        let (jobs, taken) = channel::<Job>();
        let (sender, done) = channel();
        let taken = Arc::new(Mutex::new(taken));
        let wanted = thread::available_parallelism().map_or(1, usize::from).min(THREADS_LIMIT);
        let mut count = 0;
        for _ in 0..wanted {
            let (taken, sender, waker) = (Arc::clone(&taken), sender.clone(), Arc::clone(waker));
            let thread = thread::Builder::new().name("sign".to_owned());
            match thread.spawn(move || work(&taken, &sender, &waker)) {
                Ok(_) => count += 1,
                Err(error) => log::warn!("a thread that signs mail cannot be started: {error}"),
            }
        }
        (count > 0).then_some(Self { jobs, done, count })
    }
}

/// Signs until nobody wants signatures any more.
fn work(jobs: &Mutex<Receiver<Job>>, done: &Sender<Done>, waker: &Waker) {
    loop {
        let job = jobs.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(Job { request, part, keys, digests }) = job else { return };
        let results = digests.iter().map(|(id, digest)| keys.sign(*id, digest)).collect();
        if done.send(Done { request, part, results }).is_err() {
            return;
        }
        if let Err(error) = waker.wake() {
            log::warn!("cannot wake the event loop: {error}");
        }
    }
}
