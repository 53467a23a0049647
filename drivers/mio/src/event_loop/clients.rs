//! Those who ask the daemon, which are monitoring, people at its page, and the operator's tool, and those who hand over messages.

use std::io;
use std::path::PathBuf;
use std::time::Instant;

use cmail_delivery::dispatcher::Dispatcher;
use cmail_delivery::explanation::{Answer, Inquiry};
use cmail_delivery::io::{Input, InquiryId};
use cmail_delivery::time::Now;
use mio::event::Event;
use mio::{Registry, Token};

use super::{EventLoop, FIRST_CLIENT, Flow, LoopError, Outbox};
use crate::clients::Listener;
use crate::control::{self, AskId, Control, Request};
use crate::monitor::{self, Monitor};
use crate::overview::{CountedDestination, Overview, View};
use crate::reception::{self, Reception, Receptionist};
use crate::reload::Report;

/// The most of them at a time, all together.
pub(crate) const CLIENTS_LIMIT: usize =
    monitor::CLIENTS_LIMIT + control::CLIENTS_LIMIT + reception::CLIENTS_LIMIT;

/// Where they connect.
#[derive(Debug, Default)]
pub(crate) struct Listeners {
    /// Those who ask over HTTP.
    pub(crate) monitor: Option<Listener>,
    /// The operator's tool.
    pub(crate) control: Option<Listener>,
    /// Those who hand over messages.
    pub(crate) submit: Option<Reception>,
}

/// All of them, and what they are told.
#[derive(Debug)]
pub(super) struct Served {
    pub(super) overview: Overview,
    monitor: Option<Monitor>,
    control: Option<Control>,
    receptionist: Option<Receptionist>,
}

impl Served {
    /// The tokens that the listeners and their clients have together.
    pub(super) const TOKENS: usize = CLIENTS_LIMIT + 3;

    fn new(listeners: Listeners, overview: Overview, registry: &Registry) -> io::Result<Self> {
        let at = |token: usize| Ok::<_, io::Error>((registry.try_clone()?, Token(token)));
        let monitor = listeners.monitor.map(|listener| {
            let (registry, token) = at(FIRST_CLIENT)?;
            Monitor::new(listener, registry, token)
        });
        let control = listeners.control.map(|listener| {
            let (registry, token) = at(FIRST_CLIENT + 1 + monitor::CLIENTS_LIMIT)?;
            Control::new(listener, registry, token)
        });
        let receptionist = listeners.submit.map(|reception| {
            let (registry, token) = at(FIRST_CLIENT + 2 + monitor::CLIENTS_LIMIT + control::CLIENTS_LIMIT)?;
            Receptionist::new(reception, registry, token)
        });
        Ok(Self {
            overview,
            monitor: monitor.transpose()?,
            control: control.transpose()?,
            receptionist: receptionist.transpose()?,
        })
    }

    /// Returns those who are told what is said, if there are some.
    pub(super) fn watchers(&mut self) -> Option<&mut Control> {
        self.control.as_mut().filter(|control| control.is_watched())
    }

    /// Takes in an event of the poll. Returns whether it was about one of them.
    pub(super) fn on_event(&mut self, event: &Event) -> bool {
        let token = event.token();
        self.monitor.as_mut().is_some_and(|monitor| monitor.on_event(token))
            || self.control.as_mut().is_some_and(|control| control.on_event(event))
            || self.receptionist.as_mut().is_some_and(|receptionist| receptionist.on_event(token))
    }

    /// Returns whether there is something to do without waiting for the poll.
    pub(super) fn is_busy(&self) -> bool {
        self.monitor.as_ref().is_some_and(Monitor::is_busy)
            || self.control.as_ref().is_some_and(Control::is_busy)
            || self.receptionist.as_ref().is_some_and(Receptionist::is_busy)
            || self.overview.is_counting()
    }

    /// Returns those who hand over messages, if there is a place where they can.
    pub(super) fn receptionist(&mut self) -> Option<&mut Receptionist> {
        self.receptionist.as_mut()
    }

    /// Returns when they are to be served, whatever the poll says.
    pub(super) fn next_tick(&self) -> Option<Instant> {
        let monitor = self.monitor.as_ref().map(Monitor::next_tick);
        let receptionist = self.receptionist.as_ref().and_then(Receptionist::next_tick);
        let control = self.control.as_ref().and_then(Control::next_tick);
        monitor.into_iter().chain(control).chain(receptionist).min()
    }

    /// Lets messages that are handed over have so many octets from now on.
    pub(super) fn limit_submissions(&mut self, octets: usize) {
        self.receptionist.iter_mut().for_each(|receptionist| receptionist.limit(octets));
    }

    /// Makes the files of sockets anew that somebody has removed.
    pub(super) fn restore_sockets(&mut self) {
        let now = Instant::now();
        self.control.iter_mut().for_each(|control| control.restore_socket(now));
        self.receptionist.iter_mut().for_each(|receptionist| receptionist.restore_socket(now));
    }

    /// Tells those who wait for it what has come of a reading of the configuration.
    pub(super) fn tell_reload(&mut self, number: u64, report: &Report) {
        self.overview.note_reload(report.taken);
        self.control.iter_mut().for_each(|control| control.tell_reload(number, report));
    }
}

impl<O: Outbox> EventLoop<O> {
    /// Serves those who connect from now on. `database` is its path; `destinations` are counted by themselves.
    pub(crate) fn serve(
        &mut self,
        listeners: Listeners,
        database: PathBuf,
        destinations: &[CountedDestination],
    ) -> io::Result<()> {
        if listeners.monitor.is_some() || listeners.control.is_some() || listeners.submit.is_some() {
            let mut overview = Overview::new(database);
            overview.name_destinations(destinations);
            self.served = Some(Served::new(listeners, overview, self.kernel.registry())?);
        }
        Ok(())
    }

    pub(super) fn overview(&mut self) -> impl Iterator<Item = &mut Overview> {
        self.served.iter_mut().map(|served| &mut served.overview)
    }

    /// Answers those who ask.
    pub(super) fn take_clients(&mut self, dispatcher: &mut Dispatcher) -> Flow {
        let (requests, abandoned) = self.take_requests();
        for id in abandoned {
            if self.input(dispatcher, Input::EndInquiry(id.inquiry())) == Flow::Drained {
                return Flow::Drained;
            }
        }
        for (id, request) in requests {
            if self.take_request(dispatcher, id, request) == Flow::Drained {
                return Flow::Drained;
            }
        }
        let watch = self.served.as_mut().and_then(|served| served.control.as_mut()?.take_watch());
        if let Some(watch) = watch
            && self.input(dispatcher, Input::Watch(watch)) == Flow::Drained
        {
            return Flow::Drained;
        }
        let Some(served) = &mut self.served else { return Flow::GoOn };
        let view = View {
            dispatcher,
            is_store_alive: self.outbox.is_alive(),
            is_stopping: self.stop_asked_at.is_some(),
            log_lines_lost: self.sources.log.lost_lines(),
        };
        let now = Instant::now();
        let Served { overview, monitor, control, receptionist } = served;
        overview.note_ages(self.outbox.ages());
        if let Some(monitor) = monitor {
            monitor.advance(overview, view);
        }
        if overview.take_question(now) {
            self.outbox.ask_ages();
        }
        if let Some(control) = control {
            control.tell_status(overview, view, now);
            control.send(now);
        }
        if let Some(receptionist) = receptionist {
            while let Some((id, result)) = self.outbox.poll_submitted() {
                receptionist.tell(id, result, now);
            }
            receptionist.advance(now, self.stop_asked_at.is_some());
            if let Some((id, mut submission, until)) = receptionist.poll_submission(now) {
                submission.sign_by(dispatcher.signing());
                self.outbox.put_in(id, submission, until);
            }
        }
        overview.count(dispatcher, now);
        Flow::GoOn
    }

    /// Tells those who have asked what the dispatcher answers.
    pub(super) fn answered(&mut self, id: InquiryId, answer: Answer) {
        let now = self.kernel.now();
        match self.served.as_mut().and_then(|served| served.control.as_mut()) {
            Some(control) => control.tell_answer(id, &answer, now),
            None => self.answers.push_back((answer, now)),
        }
    }

    /// Runs until an inquiry is answered to its end, and gives each answer to `take`.
    pub(crate) fn inquire(
        &mut self,
        dispatcher: &mut Dispatcher,
        inquiry: Inquiry,
        mut take: impl FnMut(&Answer, Now) -> io::Result<()>,
    ) -> Result<(), LoopError> {
        let mut flow = self.input(dispatcher, Input::Inquiry(InquiryId(0), inquiry));
        loop {
            while let Some((answer, at)) = self.answers.pop_front() {
                take(&answer, at)?;
                if answer.is_last() {
                    return Ok(());
                }
            }
            match flow {
                Flow::GoOn => flow = self.iterate(dispatcher)?,
                Flow::Drained | Flow::OutboxEnded => return Err(LoopError::OutboxEnded),
            }
        }
    }

    /// Returns what is asked now, and what nobody waits for any more.
    fn take_requests(&mut self) -> (Vec<(AskId, Request)>, Vec<AskId>) {
        let control = self.served.as_mut().and_then(|served| served.control.as_mut());
        let Some(control) = control else { return Default::default() };
        control.advance(Instant::now());
        (std::iter::from_fn(|| control.poll_request()).collect(), control.take_abandoned())
    }

    fn take_request(&mut self, dispatcher: &mut Dispatcher, id: AskId, request: Request) -> Flow {
        let (mut reading, mut flow) = (None, Flow::GoOn);
        if let Request::Inquiry(inquiry) = request {
            return self.input(dispatcher, Input::Inquiry(id.inquiry(), inquiry));
        }
        let is_stopping = self.stop_asked_at.is_some();
        if request == Request::Reload && !is_stopping {
            (reading, flow) = self.read_all_again(dispatcher);
        }
        let Some(Served { overview, control: Some(control), .. }) = &mut self.served else { return flow };
        match (request, reading) {
            (Request::Status, _) => {
                overview.look();
                control.await_status(id, Instant::now());
            }
            (Request::Reload, Some(number)) => control.await_reload(id, number),
            (Request::Reload, None) if is_stopping => control.refuse(id, "the daemon is stopping"),
            (Request::Reload, None) => {
                control.refuse(id, "this daemon does not read its configuration again")
            }
            (Request::Trace(watcher), _) => control.watch(id, watcher),
            // Handled above.
            (Request::Inquiry(_), _) => {}
        }
        flow
    }
}
