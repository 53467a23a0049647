//! What is answered to a request.

use std::rc::Rc;
use std::time::{Duration, Instant};

use cmail_delivery::dispatcher::Dispatcher;

use super::exposition::{self, Format, Snapshot};
use super::observed::Observed;
use super::page::Page;
use super::request::{Method, Parsed, Request};
use super::status::{Samples, Status};
use super::survey::Surveyor;
use super::{View, oldest_age};

/// For how long an answer is given again before it is made anew: it costs some milliseconds where there are many destinations.
const ANSWER_SPAN: Duration = Duration::from_secs(1);

/// An answer.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    status: &'static str,
    media_type: &'static str,
    /// Further header fields, each with its line end.
    fields: Rc<str>,
    body: Rc<str>,
    /// Whether only the head is sent.
    is_head: bool,
}

impl Answer {
    fn plain(status: &'static str, body: &str) -> Self {
        let media_type = "text/plain; charset=utf-8";
        Self { status, media_type, fields: "".into(), body: format!("{body}\n").into(), is_head: false }
    }

    fn ok(media_type: &'static str, body: Rc<str>) -> Self {
        Self { status: "200 OK", media_type, fields: "".into(), body, is_head: false }
    }

    /// Returns the octets of the response.
    pub(super) fn into_octets(self) -> Vec<u8> {
        let Self { status, media_type, fields, body, is_head } = self;
        let length = body.len();
        let head = format!(
            "HTTP/1.1 {status}\r\nContent-Type: {media_type}\r\nContent-Length: {length}\r\nCache-Control: no-store\r\n\
             X-Content-Type-Options: nosniff\r\nReferrer-Policy: no-referrer\r\n{fields}Connection: close\r\n\r\n"
        );
        let body = if is_head { "" } else { &*body };
        [head.as_bytes(), body.as_bytes()].concat()
    }
}

/// A text that is made anew only after a while.
#[derive(Debug, Default)]
struct Kept(Option<(Instant, Rc<str>)>);

impl Kept {
    fn text(&mut self, now: Instant, make: impl FnOnce() -> String) -> Rc<str> {
        match &self.0 {
            Some((since, text)) if now.saturating_duration_since(*since) < ANSWER_SPAN => Rc::clone(text),
            Some(_) | None => {
                let text: Rc<str> = make().into();
                self.0 = Some((now, Rc::clone(&text)));
                text
            }
        }
    }
}

/// Makes the answers.
#[derive(Debug)]
pub(super) struct Desk {
    pub(super) observed: Observed,
    samples: Samples,
    surveyor: Surveyor,
    page: Page,
    open_metrics: Kept,
    prometheus: Kept,
    status: Kept,
}

impl Desk {
    pub(super) fn new() -> Self {
        Self {
            observed: Observed::new(),
            samples: Samples::default(),
            surveyor: Surveyor::default(),
            page: Page::new(),
            open_metrics: Kept::default(),
            prometheus: Kept::default(),
            status: Kept::default(),
        }
    }

    /// Returns whether mail is being counted.
    pub(super) fn is_counting(&self) -> bool {
        self.surveyor.is_counting()
    }

    /// Goes on counting mail by destination and age, if that is wanted.
    pub(super) fn count(&mut self, view: View<'_>, now: Instant) {
        self.surveyor.go_on(view.dispatcher, now);
    }

    /// Notes the counts as they are now.
    pub(super) fn sample(&mut self, dispatcher: &Dispatcher) {
        self.samples.add(&dispatcher.tally());
    }

    /// Returns the answer to what a client has sent.
    pub(super) fn answer(&mut self, parsed: &Parsed, view: View<'_>, now: Instant) -> Answer {
        match parsed {
            Parsed::Whole(request) => match request.method {
                Method::Get => self.resource(request, view, now),
                Method::Head => Answer { is_head: true, ..self.resource(request, view, now) },
                Method::Other => {
                    let refusal = Answer::plain("405 Method Not Allowed", "only GET and HEAD are understood");
                    Answer { fields: "Allow: GET, HEAD\r\n".into(), ..refusal }
                }
            },
            Parsed::TooLong => Answer::plain(
                "431 Request Header Fields Too Large",
                "the request is longer than what is read here",
            ),
            Parsed::Partial | Parsed::Malformed => {
                Answer::plain("400 Bad Request", "this is no HTTP request")
            }
        }
    }

    fn resource(&mut self, request: &Request, view: View<'_>, now: Instant) -> Answer {
        match &*request.path {
            "/metrics" if request.prefers_prometheus => self.metrics(Format::Prometheus, view, now),
            "/metrics" => self.metrics(Format::OpenMetrics, view, now),
            "/ready" if view.is_stopping => {
                Answer::plain("503 Service Unavailable", "the daemon is stopping")
            }
            "/ready" | "/live" if !view.is_store_alive => {
                Answer::plain("503 Service Unavailable", "the database does not answer")
            }
            "/ready" => Answer::plain("200 OK", "ready"),
            "/live" => Answer::plain("200 OK", "live"),
            "/" => Answer {
                fields: self.page.fields(),
                ..Answer::ok("text/html; charset=utf-8", self.page.text())
            },
            "/status.json" => self.status(view, now),
            _ => Answer::plain("404 Not Found", "there are /, /metrics, /ready, /live and /status.json"),
        }
    }

    fn metrics(&mut self, format: Format, view: View<'_>, now: Instant) -> Answer {
        let Self { observed, open_metrics, prometheus, .. } = self;
        let kept = match format {
            Format::OpenMetrics => open_metrics,
            Format::Prometheus => prometheus,
        };
        let text = kept.text(now, || {
            let View { dispatcher, log_lines_lost, ages, .. } = view;
            let snapshot = Snapshot {
                tally: dispatcher.tally(),
                standing: dispatcher.standing(),
                observed: observed.clone(),
                oldest_mail: ages.map(oldest_age),
                log_lines_lost,
                format,
            };
            // Writing to memory does not fail.
            exposition::write(snapshot).unwrap_or_default()
        });
        Answer::ok(format.media_type(), text)
    }

    fn status(&mut self, view: View<'_>, now: Instant) -> Answer {
        let Self { observed, samples, surveyor, status, .. } = self;
        surveyor.want(view.ages, now);
        let text = status.text(now, || {
            let dispatcher = view.dispatcher;
            let standing = dispatcher.standing();
            let (tally, troubled) = (dispatcher.tally(), dispatcher.hosts_in_trouble());
            let survey = surveyor.result(now);
            Status { tally: &tally, standing, observed, samples, survey, troubled, view }.to_json()
        });
        Answer::ok("application/json", text)
    }
}
