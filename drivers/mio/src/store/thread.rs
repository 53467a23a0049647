//! The thread that works on the database, and the handle by which the event loop talks to it.

use std::collections::VecDeque;
use std::io;
use std::ops::ControlFlow;
use std::os::fd::AsRawFd as _;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, TryRecvError, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use cmail_delivery::outbox::{Claimed, MailId, RequestId, StoreError, StoreReply, StoreRequest};
use mio::event::Source as _;
use mio::unix::SourceFd;
use mio::{Interest, Registry, Token, Waker};

use super::board::Board;
use super::busy::CancelToken;
use super::database::Database;
use super::read_ahead::{Availability, ReadAhead, ReadJob, ReadOutput};
use super::submission::SubmitError;
use super::watch::Watch;
use crate::event_loop::{Ages, Outbox, Reply, Submitted};
use crate::reception::{Submission, SubmissionId};

/// How long other requests wait while a large message is read. A read is never cut off before it has read as much as it had to
/// skip: so all skipping together costs less than reading the message twice, however often its reading is interrupted.
const READ_PATIENCE: Duration = Duration::from_millis(50);

/// How long other requests wait while data is read that was not requested yet. Most messages take less, and reading one in
/// two parts costs more time than that.
const AHEAD_PATIENCE: Duration = Duration::from_millis(20);

/// How long reads share a transaction, at most: programs that write to the database wait for its end.
const READS_TOGETHER_LIMIT: Duration = Duration::from_millis(10);

/// The first pause of [`FollowUp`].
const FIRST_PAUSE: Duration = Duration::from_millis(2);

/// The last pause of [`FollowUp`]. Pauses double, so it ends after about twice this time.
const LAST_PAUSE: Duration = Duration::from_secs(1);

/// How long a job may take before the thread counts as stuck. A lock of another program is waited for much less, so that only
/// a disk or a bug takes that long.
const JOB_LIMIT: Duration = Duration::from_secs(30);

/// How often old entries of the ledger are deleted when few are added.
const PRUNE_INTERVAL: Duration = Duration::from_secs(10 * 60);

/// How soon the index of the faillog is created again that could not be.
const INDEX_PAUSE: Duration = Duration::from_secs(60);

/// How often to decide again whether to wait for the end of the thread.
const END_LOOK: Duration = Duration::from_millis(20);

/// The handle of the event loop. Dropping it waits until the thread has answered all requests, but not for locks of other
/// processes: requests that need a locked database fail.
#[derive(Debug)]
pub(crate) struct StoreHandle {
    /// Reports writes to the files.
    watch: Option<Watch>,
    jobs: Option<Sender<Job>>,
    answers: Receiver<Answer>,
    /// Whether the thread was found to have ended.
    has_ended: bool,
    read_ahead: ReadAhead,
    /// Answers that are ready.
    ready: VecDeque<Reply>,
    /// What has become of messages that were handed over.
    submitted: VecDeque<Submitted>,
    board: Board,
    cancel: CancelToken,
    thread: Option<JoinHandle<()>>,
}

enum Job {
    Request(RequestId, StoreRequest),
    Release(Vec<MailId>),
    Read(ReadJob),
    Look,
    Ages,
    /// To be begun by then.
    Submit(SubmissionId, Box<Submission>, Instant),
}

impl Job {
    fn only_reads(&self) -> bool {
        match self {
            Self::Request(_, request) => request.only_reads(),
            Self::Release(_) | Self::Read(_) | Self::Look | Self::Ages | Self::Submit(..) => false,
        }
    }

    fn is_waited_for(&self) -> bool {
        match self {
            Self::Request(..) | Self::Read(_) | Self::Submit(..) => true,
            Self::Release(_) | Self::Look | Self::Ages => false,
        }
    }
}

enum Answer {
    Reply(Reply),
    Data(ReadJob, Result<ReadOutput, StoreError>),
    Submitted(Submitted),
}

impl StoreHandle {
    /// Starts a thread that works on the database, and wakes the event loop when it has an answer. To be called after the
    /// process has become a daemon: threads do not survive a fork.
    pub(crate) fn spawn(database: Database, waker: Arc<Waker>) -> io::Result<Self> {
        Self::spawn_with_patience(database, waker, READ_PATIENCE)
    }

    fn spawn_with_patience(
        database: Database,
        waker: Arc<Waker>,
        read_patience: Duration,
    ) -> io::Result<Self> {
        let watch = Watch::new(database.path());
        let (jobs, incoming) = channel();
        let (outgoing, answers) = channel();
        let cancel = database.cancel_token();
        let read_ahead = ReadAhead::new(database.large.pool.clone());
        let board = Board::new();
        let worker = Worker { database, answers: outgoing, board: board.clone(), waker, read_patience };
        let last_words = WakeAtEnd(Arc::clone(&worker.waker));
        let thread = std::thread::Builder::new().name("store".to_owned()).spawn(move || {
            // Dropped after the worker, even in a panic, so that its end of the channel is closed when the loop wakes.
            let _last_words = last_words;
            worker.run(&incoming);
        })?;
        Ok(Self {
            watch,
            jobs: Some(jobs),
            answers,
            has_ended: false,
            read_ahead,
            ready: VecDeque::new(),
            submitted: VecDeque::new(),
            board,
            cancel,
            thread: Some(thread),
        })
    }

    /// Asks the thread to find out whether another process has written to the database.
    /// [`take_changed`](Outbox::take_changed) returns the result.
    pub(crate) fn look(&self) {
        self.send(Job::Look);
    }

    fn tell_to_end(&mut self) {
        self.cancel.cancel();
        self.jobs = None;
    }

    fn take_in(&mut self, job: ReadJob, output: Result<ReadOutput, StoreError>) {
        let (output, error) = match output {
            Ok(output) => (Some(output), None),
            Err(error) => (None, Some(error)),
        };
        if let Some((request, octets)) = self.read_ahead.arrive(job, output) {
            let data = StoreReply::Data(octets.unwrap_or_default());
            self.ready.push_back((request, error.map_or(Ok(data), Err)));
        }
        self.send_next_read(job.id);
    }

    /// Announces messages whose claim holds only their beginning: the rest will be requested.
    fn announce(&mut self, (_, reply): &Reply) {
        let Ok(StoreReply::Claimed(Claimed { transactions, .. })) = reply else { return };
        for claimed in transactions {
            let missing = claimed.head.len() as u64..claimed.data_octets;
            // The data is read by the id of the first row, as long as that row is still to be sent.
            if let Some(row) = claimed.rows.first()
                && !missing.is_empty()
            {
                self.read_ahead.announce(row.id, missing);
            }
        }
    }

    /// Lets the thread read data that will be requested later, if it has nothing else to do.
    fn send_read_ahead(&mut self) {
        if !self.board.is_waited_for()
            && let Some(job) = self.read_ahead.next_job_ahead(Instant::now())
        {
            self.send(Job::Read(job));
        }
    }

    /// Lets the thread read the data of a mail that will be requested next.
    fn send_next_read(&mut self, id: MailId) {
        if let Some(job) = self.read_ahead.next_job(Instant::now(), id) {
            self.send(Job::Read(job));
        }
    }

    fn send(&self, job: Job) {
        if let Some(jobs) = &self.jobs {
            if job.is_waited_for() {
                self.board.add_waiting();
            }
            // If the thread is gone, `poll_reply` finds that out.
            let _ = jobs.send(job);
        }
    }
}

impl Outbox for StoreHandle {
    fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        let Some(watch) = &self.watch else { return Ok(()) };
        SourceFd(&watch.as_raw_fd()).register(registry, token, Interest::READABLE)
    }

    fn drain_watch(&mut self) {
        if self.watch.as_mut().is_some_and(Watch::drain) {
            self.look();
        }
    }

    /// Submits a request. `poll_reply` answers it once, in order; only mail data may come earlier, because it says nothing
    /// about the state of a row.
    fn submit(&mut self, id: RequestId, request: StoreRequest) {
        match &request {
            StoreRequest::ReadData { id: mail, offset, limit } => {
                let limit = usize::try_from(*limit).unwrap_or(usize::MAX);
                let mail = *mail;
                let taken = self.read_ahead.take(Instant::now(), id, mail, *offset, limit);
                match taken {
                    Availability::Ready(octets) => self.ready.push_back((id, Ok(StoreReply::Data(octets)))),
                    Availability::Pending => {}
                    Availability::ReadDirectly => return self.send(Job::Request(id, request)),
                }
                return self.send_next_read(mail);
            }
            StoreRequest::Claim { ids, .. } => self.read_ahead.forget_all(ids.iter().copied()),
            StoreRequest::Commit(commit) => {
                self.read_ahead.forget_all(commit.ids());
            }
            StoreRequest::Scan { .. }
            | StoreRequest::ReadFailed { .. }
            | StoreRequest::Recall { .. }
            | StoreRequest::Recover { .. }
            | StoreRequest::ReadOrders { .. }
            | StoreRequest::ReadPolicy(_)
            | StoreRequest::ReadStalePolicies { .. } => {}
            StoreRequest::CarryOut(step) => self.read_ahead.forget_all(step.mails.iter().copied()),
        }
        self.send(Job::Request(id, request));
    }

    /// Forgets what is known of mail that was claimed. The thread does that after what was submitted before, and before what is
    /// submitted later.
    fn release(&mut self, ids: Vec<MailId>) {
        self.read_ahead.release(&ids);
        self.send(Job::Release(ids));
    }

    /// Returns the next answer, if there is one.
    fn poll_reply(&mut self) -> Option<Reply> {
        loop {
            if let Some(reply) = self.ready.pop_front() {
                return Some(reply);
            }
            match self.answers.try_recv() {
                Ok(Answer::Reply(reply)) => {
                    self.announce(&reply);
                    self.ready.push_back(reply);
                }
                Ok(Answer::Data(job, output)) => self.take_in(job, output),
                Ok(Answer::Submitted(submitted)) => self.submitted.push_back(submitted),
                Err(TryRecvError::Empty) => {
                    self.send_read_ahead();
                    return None;
                }
                Err(TryRecvError::Disconnected) => {
                    self.has_ended = true;
                    return None;
                }
            }
        }
    }

    fn ask_ages(&mut self) {
        self.send(Job::Ages);
    }

    fn ages(&self) -> Option<Arc<Ages>> {
        self.board.ages()
    }

    fn put_in(&mut self, id: SubmissionId, submission: Box<Submission>, until: Instant) {
        self.send(Job::Submit(id, submission, until));
    }

    fn poll_submitted(&mut self) -> Option<Submitted> {
        self.submitted.pop_front()
    }

    /// Returns whether the thread was found to have ended, so that no answer comes any more. Only a bug in this program ends
    /// it; that wakes the event loop, and `poll_reply` finds out.
    fn has_ended(&self) -> bool {
        self.has_ended
    }

    fn is_alive(&self) -> bool {
        let has_ended = self.thread.as_ref().is_none_or(JoinHandle::is_finished);
        !has_ended && self.board.job_age() < JOB_LIMIT
    }

    /// Returns whether another process was found to have written to the database since the last call. Writes of this
    /// connection do not count.
    fn take_changed(&mut self) -> bool {
        self.board.take_changed()
    }

    /// Waits until everything that was submitted is done, or has failed because the database is locked, and closes the
    /// database. Answers that were not polled are lost, but for those about messages that were handed over. A disk may hang for ever: so
    /// this calls `keep_waiting` several times a second, and returns false, without waiting for the thread any longer, if that says so.
    fn shut_down(mut self, mut take: impl FnMut(Submitted), mut keep_waiting: impl FnMut() -> bool) -> bool {
        self.tell_to_end();
        self.submitted.drain(..).for_each(&mut take);
        loop {
            match self.answers.recv_timeout(END_LOOK) {
                Ok(Answer::Submitted(submitted)) => take(submitted),
                Ok(Answer::Reply(_) | Answer::Data(..)) => {}
                // The thread has ended and closed the database.
                Err(RecvTimeoutError::Disconnected) => return true,
                Err(RecvTimeoutError::Timeout) if keep_waiting() => {}
                Err(RecvTimeoutError::Timeout) => {
                    self.thread = None;
                    return false;
                }
            }
        }
    }
}

impl Drop for StoreHandle {
    fn drop(&mut self) {
        self.tell_to_end();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            log::error!("the thread that works on the database has panicked");
        }
    }
}

/// Wakes the event loop when the thread ends.
struct WakeAtEnd(Arc<Waker>);

impl Drop for WakeAtEnd {
    fn drop(&mut self) {
        wake(&self.0);
    }
}

struct Worker {
    database: Database,
    answers: Sender<Answer>,
    board: Board,
    waker: Arc<Waker>,
    read_patience: Duration,
}

impl Worker {
    fn run(mut self, jobs: &Receiver<Job>) {
        let mut follow_up: Option<FollowUp> = None;
        let mut taken: Option<Job> = None;
        let (mut next_index, mut next_tables) = (Instant::now(), Instant::now());
        let mut next_prune = Instant::now() + PRUNE_INTERVAL;
        loop {
            if taken.is_none() {
                self.board.rest();
                // Not as a job, because it may take long with a long faillog; the event loop can interrupt it.
                if !self.database.additions.is_indexed && next_index <= Instant::now() {
                    self.database.prepare_index();
                    next_index = Instant::now() + INDEX_PAUSE;
                }
                if !self.database.additions.has_order_tables && next_tables <= Instant::now() {
                    self.database.prepare_orders();
                    next_tables = Instant::now() + INDEX_PAUSE;
                }
                if next_prune <= Instant::now() {
                    self.board.begin_job();
                    self.database.prune();
                    self.board.rest();
                    next_prune = Instant::now() + PRUNE_INTERVAL;
                }
            }
            let job = match (taken.take(), &follow_up) {
                (Some(job), _) => Ok(job),
                (None, Some(next)) => match next.at.checked_duration_since(Instant::now()) {
                    Some(pause) => self.begin(jobs.recv_timeout(pause)),
                    None => Err(RecvTimeoutError::Timeout),
                },
                (None, None) => self.begin(jobs.recv_timeout(PRUNE_INTERVAL)),
            };
            self.board.begin_job();
            match job {
                Ok(Job::Request(id, request)) => match self.answer(id, request, jobs) {
                    ControlFlow::Continue(next) => taken = next,
                    ControlFlow::Break(()) => return,
                },
                Ok(Job::Release(ids)) => self.database.release(ids),
                Ok(Job::Ages) => self.look_at_ages(),
                Ok(Job::Submit(id, submission, until)) => self.put_in(id, *submission, until),
                Ok(Job::Read(job)) => {
                    let output = self.read(job);
                    if self.answers.send(Answer::Data(job, output)).is_err() {
                        return;
                    }
                    self.wake();
                }
                Ok(Job::Look) => {
                    self.look();
                    follow_up = Some(FollowUp::new(FIRST_PAUSE));
                }
                Err(RecvTimeoutError::Timeout) => {
                    if let Some(next) = follow_up {
                        self.look();
                        follow_up = next.next();
                    }
                }
                Err(RecvTimeoutError::Disconnected) => {
                    // This records again what was recorded in a file that was lost since.
                    if let Err(error) = self.database.ensure_open() {
                        log::error!("{error}");
                    }
                    return;
                }
            }
        }
    }

    /// Counts a job that begins as no longer waiting.
    fn begin<E>(&self, job: Result<Job, E>) -> Result<Job, E> {
        if job.as_ref().is_ok_and(Job::is_waited_for) {
            self.board.end_waiting();
        }
        if job.is_ok() {
            self.board.begin_job();
        }
        job
    }

    /// Answers a request, and the waiting ones after it as long as all of them only read: they share one transaction, whose
    /// begin and end cost more than the few rows that most requests need. Returns the job that was taken but not done; breaks
    /// if the handle is gone.
    fn answer(
        &mut self,
        id: RequestId,
        request: StoreRequest,
        jobs: &Receiver<Job>,
    ) -> ControlFlow<(), Option<Job>> {
        let mut next = if request.only_reads() { self.begin(jobs.try_recv()).ok() } else { None };
        let shares = next.as_ref().is_some_and(Job::only_reads);
        if shares {
            self.database.begin_shared_read();
        }
        let began = Instant::now();
        let mut has_failed = self.answer_one(id, request)?;
        while shares
            && !has_failed
            && began.elapsed() < READS_TOGETHER_LIMIT
            && let Some(Job::Request(id, request)) = next.take_if(|job| job.only_reads())
        {
            has_failed = self.answer_one(id, request)?;
            next = self.begin(jobs.try_recv()).ok();
        }
        if shares {
            self.database.end_shared_read();
        }
        ControlFlow::Continue(next)
    }

    /// Answers a request. Returns whether that failed; breaks if the handle is gone.
    fn answer_one(&mut self, id: RequestId, request: StoreRequest) -> ControlFlow<(), bool> {
        let reply = self.database.answer(request);
        let has_failed = reply.is_err();
        if self.answers.send(Answer::Reply((id, reply))).is_err() {
            return ControlFlow::Break(());
        }
        self.wake();
        ControlFlow::Continue(has_failed)
    }

    /// Reads mail data until other requests have waited for too long, or the process wants to end.
    fn read(&mut self, job: ReadJob) -> Result<ReadOutput, StoreError> {
        let Self { database, answers, board, waker, read_patience } = self;
        let (began, cancel) = (Instant::now(), database.cancel_token());
        let patience =
            if job.least_octets > 0 { *read_patience } else { (*read_patience).min(AHEAD_PATIENCE) };
        let mut octets = 0_u64;
        database.run_read_job(job, &mut |part| {
            octets += part.chunks.iter().map(|chunk| chunk.len() as u64).sum::<u64>();
            // If the handle is gone, sending the last part fails too, and ends the thread.
            let _ = answers.send(Answer::Data(job, Ok(part)));
            wake(waker);
            let is_waited_for = board.is_waited_for() && began.elapsed() >= patience;
            let must_end = cancel.is_cancelled() || (is_waited_for && octets >= job.offset);
            if must_end { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })
    }

    fn look_at_ages(&mut self) {
        // If they cannot be read now, those from before are the best that is known.
        if let Some(found) = self.database.ages() {
            self.board.show_ages(found);
            // Somebody may wait for it.
            self.wake();
        }
    }

    fn put_in(&mut self, id: SubmissionId, mut submission: Submission, until: Instant) {
        let result = if self.database.cancel_token().is_cancelled() {
            Err(SubmitError::Stopping)
        } else if until <= Instant::now() {
            Err(SubmitError::Late)
        } else {
            submission.mark();
            self.database.take_in(&submission.mail())
        };
        if result.is_ok() {
            // It is not the dispatcher that has written it.
            self.board.note_change();
        }
        // If the handle is gone, nobody waits for it.
        let _ = self.answers.send(Answer::Submitted((id, result)));
        self.wake();
    }

    fn look(&mut self) {
        if self.database.look_for_change() {
            self.board.note_change();
            self.wake();
        }
    }

    fn wake(&self) {
        wake(&self.waker);
    }
}

fn wake(waker: &Waker) {
    if let Err(error) = waker.wake() {
        log::warn!("cannot wake the event loop: {error}");
    }
}

/// When to look again after a file of the database has changed.
///
/// A writer in WAL mode writes its transaction to the file, waits for the disk, and makes it visible only then, which causes
/// no file event. So the first look may come too early, and is repeated at growing intervals; each costs a few microseconds.
#[derive(Clone, Copy)]
struct FollowUp {
    at: Instant,
    pause: Duration,
}

impl FollowUp {
    fn new(pause: Duration) -> Self {
        Self { at: Instant::now() + pause, pause }
    }

    fn next(self) -> Option<Self> {
        let pause = self.pause * 2;
        (pause <= LAST_PAUSE).then(|| Self::new(pause))
    }
}

#[cfg(test)]
mod tests;
