//! The threads that sign, so that the event loop never waits for a signature: one by RSA takes a millisecond or so.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
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

/// The threads, which begin with the first request, and anew if they are lost. They end when this is dropped. Each request is answered.
#[derive(Debug)]
pub(crate) struct Signers {
    /// The keys in force, and those from before: claims that were begun with them may be under way.
    keys: Arc<KeyRing>,
    in_force: KeyRing,
    waker: Arc<Waker>,
    threads: Option<Threads>,
    open: BTreeMap<RequestId, Vec<Part>>,
}

/// A part of a request.
#[derive(Debug)]
enum Part {
    /// A thread makes so many signatures.
    UnderWay(usize),
    Done(Results),
}

#[derive(Debug)]
struct Threads {
    jobs: Sender<Job>,
    done: Receiver<Done>,
    count: usize,
}

/// What a thread does for a part of a request.
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
        let under_way = parts.iter().map(|digests| Part::UnderWay(digests.len())).collect();
        self.open.insert(request, under_way);
        for (part, digests) in parts.into_iter().enumerate() {
            let job = Job { request, part, keys: Arc::clone(&self.keys), digests };
            let is_taken = self.threads.as_ref().is_some_and(|threads| threads.jobs.send(job).is_ok());
            if !is_taken {
                self.take_done();
                self.lose_threads();
                break;
            }
        }
        if self.find_done().is_some() {
            // If it cannot be woken, the loop finds it at its next turn.
            let _ = self.waker.wake();
        }
    }

    /// Returns the signatures of a request, in the order of its digests, if all are there.
    pub(crate) fn poll(&mut self) -> Option<(RequestId, Results)> {
        if self.open.is_empty() {
            return None;
        }
        self.take_done();
        let request = self.find_done()?;
        let results = self.open.remove(&request)?.into_iter().flat_map(|part| match part {
            Part::Done(results) => results,
            Part::UnderWay(_) => Results::new(),
        });
        Some((request, results.collect()))
    }

    /// Takes what the threads have done.
    fn take_done(&mut self) {
        while let Some(threads) = &self.threads {
            match threads.done.try_recv() {
                Ok(Done { request, part, results }) => {
                    let place = self.open.get_mut(&request).and_then(|parts| parts.get_mut(part));
                    if let Some(place) = place {
                        *place = Part::Done(results);
                    }
                }
                Err(TryRecvError::Empty) => return,
                Err(TryRecvError::Disconnected) => self.lose_threads(),
            }
        }
    }

    /// Returns a request whose signatures are all there.
    fn find_done(&self) -> Option<RequestId> {
        let is_done = |parts: &[Part]| parts.iter().all(|part| matches!(part, Part::Done(_)));
        self.open.iter().find(|(_, parts)| is_done(parts)).map(|(request, _)| *request)
    }

    /// Answers with an error what the threads have left undone, as there are none. The next request starts others.
    fn lose_threads(&mut self) {
        self.threads = None;
        for part in self.open.values_mut().flatten() {
            if let Part::UnderWay(count) = *part {
                *part = Part::Done(failed("there is no thread that signs", count));
            }
        }
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
        // The mail waits for an answer, whatever becomes of it.
        let signed = catch_unwind(AssertUnwindSafe(|| {
            digests.iter().map(|(id, digest)| keys.sign(*id, digest)).collect()
        }));
        let results = signed.unwrap_or_else(|_| failed("the daemon has an error there", digests.len()));
        if done.send(Done { request, part, results }).is_err() {
            return;
        }
        if let Err(error) = waker.wake() {
            log::warn!("cannot wake the event loop: {error}");
        }
    }
}

fn failed(why: &str, count: usize) -> Results {
    vec![Err(SignTrouble::Failed(why.into())); count]
}

#[cfg(test)]
mod tests;
