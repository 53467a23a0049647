//! Requests over HTTPS, each on a thread of its own, so that no host can make the event loop wait.

mod client;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use cmail_delivery::io::{HttpsError, HttpsId, HttpsRequest, HttpsResponse, HttpsTrouble};
use mio::Waker;

use crate::tls::WebTrust;

/// Most threads. Further requests wait.
const THREADS_LIMIT: usize = 16;

/// The port of HTTPS.
const PORT: u16 = 443;

type Answer = (HttpsId, Result<HttpsResponse, HttpsError>);

/// The requests that are under way or wait.
#[derive(Debug)]
pub(crate) struct Fetchers {
    trust: Option<Arc<WebTrust>>,
    waker: Arc<Waker>,
    sender: Sender<Answer>,
    done: Receiver<Answer>,
    waiting: VecDeque<(HttpsId, HttpsRequest)>,
    running: usize,
}

impl Fetchers {
    /// Returns fetchers that trust these authorities. They wake the loop when there is an answer.
    pub(crate) fn new(waker: Arc<Waker>, trust: Option<Arc<WebTrust>>) -> Self {
        let (sender, done) = channel();
        Self { trust, waker, sender, done, waiting: VecDeque::new(), running: 0 }
    }

    /// Trusts these authorities from the next request on.
    pub(crate) fn replace_trust(&mut self, trust: Option<Arc<WebTrust>>) {
        self.trust = trust;
    }

    /// Makes a request.
    pub(crate) fn fetch(&mut self, id: HttpsId, request: HttpsRequest) {
        self.waiting.push_back((id, request));
        self.begin();
    }

    /// Returns an answer, if there is one.
    pub(crate) fn poll(&mut self) -> Option<Answer> {
        let answer = self.done.try_recv().ok()?;
        self.running = self.running.saturating_sub(1);
        self.begin();
        Some(answer)
    }

    /// Begins as many requests as there may be threads.
    fn begin(&mut self) {
        while self.running < THREADS_LIMIT
            && let Some((id, request)) = self.waiting.pop_front()
        {
            self.running += 1;
            if let Err(error) = self.start(id, request) {
                // The answer comes by the same way, so that it is not missed.
                let _ = self.sender.send((id, Err(HttpsError::new(HttpsTrouble::Machine, error))));
                let _ = self.waker.wake();
            }
        }
    }

    fn start(&self, id: HttpsId, request: HttpsRequest) -> Result<(), String> {
        let trust = self.trust.clone().ok_or("no authorities were read")?;
        let (sender, waker) = (self.sender.clone(), Arc::clone(&self.waker));
        let thread = thread::Builder::new().name("https".to_owned());
        let work = move || {
            // Mail waits for an answer, whatever becomes of it.
            let asked = catch_unwind(AssertUnwindSafe(|| client::ask(&request, &trust, PORT)));
            let answer = asked.unwrap_or_else(|_| {
                Err(HttpsError::new(HttpsTrouble::Machine, "the daemon has an error there"))
            });
            // The loop may have ended.
            if sender.send((id, answer)).is_ok()
                && let Err(error) = waker.wake()
            {
                log::warn!("cannot wake the event loop: {error}");
            }
        };
        thread.spawn(work).map(drop).map_err(|error| format!("a thread cannot be started: {error}"))
    }
}
