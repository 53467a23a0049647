//! What is answered to a request.

use std::rc::Rc;
use std::time::Instant;

use cmail_delivery::dispatcher::Dispatcher;
use serde::Serialize;
use serde_json::Value;

use super::exposition::{self, Format, Snapshot};
use super::page::Page;
use super::request::{Method, Parsed, Request};
use crate::json_record;
use crate::overview::{Kept, Overview, SAMPLE_INTERVAL, Samples, View};

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

/// Makes the answers.
#[derive(Debug)]
pub(super) struct Desk {
    samples: Samples,
    page: Page,
    open_metrics: Kept<Rc<str>>,
    prometheus: Kept<Rc<str>>,
    status: Kept<Rc<str>>,
}

impl Desk {
    pub(super) fn new() -> Self {
        Self {
            samples: Samples::default(),
            page: Page::new(),
            open_metrics: Kept::default(),
            prometheus: Kept::default(),
            status: Kept::default(),
        }
    }

    /// Notes the counts as they are now.
    pub(super) fn sample(&mut self, dispatcher: &Dispatcher) {
        self.samples.add(&dispatcher.tally());
    }

    /// Returns the answer to what a client has sent.
    pub(super) fn answer(
        &mut self,
        parsed: &Parsed,
        overview: &mut Overview,
        view: View<'_>,
        now: Instant,
    ) -> Answer {
        match parsed {
            Parsed::Whole(request) => match request.method {
                Method::Get => self.resource(request, overview, view, now),
                Method::Head => Answer { is_head: true, ..self.resource(request, overview, view, now) },
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

    fn resource(
        &mut self,
        request: &Request,
        overview: &mut Overview,
        view: View<'_>,
        now: Instant,
    ) -> Answer {
        match &*request.path {
            "/metrics" if request.prefers_prometheus => self.metrics(Format::Prometheus, overview, view, now),
            "/metrics" => self.metrics(Format::OpenMetrics, overview, view, now),
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
            "/status.json" => self.status(overview, view, now),
            _ => Answer::plain("404 Not Found", "there are /, /metrics, /ready, /live and /status.json"),
        }
    }

    fn metrics(&mut self, format: Format, overview: &Overview, view: View<'_>, now: Instant) -> Answer {
        let kept = match format {
            Format::OpenMetrics => &mut self.open_metrics,
            Format::Prometheus => &mut self.prometheus,
        };
        let text = kept.value(now, || {
            let View { dispatcher, log_lines_lost, .. } = view;
            let snapshot = Snapshot {
                tally: dispatcher.tally(),
                standing: dispatcher.standing(),
                held_by_lines: dispatcher
                    .held_by_lines()
                    .into_iter()
                    .map(|(line, mails)| (line.line, mails))
                    .collect(),
                observed: overview.observed().clone(),
                destination_mails: overview.observed().destinations.mails(dispatcher),
                oldest_mail: overview.oldest_age(),
                log_lines_lost,
                format,
            };
            // Writing to memory does not fail.
            exposition::write(snapshot).unwrap_or_default().into()
        });
        Answer::ok(format.media_type(), text)
    }

    fn status(&mut self, overview: &mut Overview, view: View<'_>, now: Instant) -> Answer {
        let Self { samples, status, .. } = self;
        let text = status.value(now, || {
            let fields = PageStatus {
                status: &overview.status(view, now),
                samples: samples.to_json(),
                sample_interval_ms: u64::try_from(SAMPLE_INTERVAL.as_millis()).unwrap_or(u64::MAX),
            };
            json_record::line("status", fields).into()
        });
        Answer::ok("application/json", text)
    }
}

/// What the page shows.
#[derive(Debug, Serialize)]
struct PageStatus<'a> {
    #[serde(flatten)]
    status: &'a Value,
    /// The counts of attempts in the last hour.
    samples: Value,
    sample_interval_ms: u64,
}
