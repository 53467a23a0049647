//! Writes the metrics as text: that of OpenMetrics, or that of Prometheus.

use std::fmt;
use std::time::{Duration, SystemTime};

use cmail_delivery::attempt::AttemptKind;
use cmail_delivery::dispatcher::Standing;
use cmail_delivery::next_hop::TlsMode;
use cmail_delivery::tally::{
    AttemptResult, ConnectionFailure, Fate, Finality, Histogram, LookupResult, Tally, TlsSession,
};
use cmail_delivery::tls::TlsVersion;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{
    DescriptorEncoder, EncodeGaugeValue, EncodeLabelValue, NoLabelSet, prometheus_text, text,
};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

use crate::overview::{AttemptCounts, Observed};

/// What all names begin with.
const PREFIX: &str = "cmail_dispatch";

/// The labels of a sample.
type Labels<const N: usize> = [(&'static str, &'static str); N];

/// All values at one moment.
#[derive(Clone, Debug)]
pub(super) struct Snapshot {
    pub(super) tally: Tally,
    pub(super) standing: Standing,
    /// How much mail each hold line of the configuration holds, by its number.
    pub(super) held_by_lines: Vec<(u32, usize)>,
    pub(super) observed: Observed,
    /// The mail in the outbox, by those destinations that are counted by themselves.
    pub(super) destination_mails: Vec<(String, u64)>,
    /// The age of the oldest mail, as far as that is known; zero if there is none.
    pub(super) oldest_mail: Option<Duration>,
    pub(super) log_lines_lost: u64,
    pub(super) format: Format,
}

/// A format, which has its media type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Format {
    OpenMetrics,
    Prometheus,
}

impl Format {
    pub(super) const fn media_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Prometheus => prometheus_text::CONTENT_TYPE,
        }
    }
}

/// Writes all values.
pub(super) fn write(snapshot: Snapshot) -> Result<String, fmt::Error> {
    let format = snapshot.format;
    let mut registry = Registry::with_prefix(PREFIX);
    registry.register_collector(Box::new(snapshot));
    let mut written = String::new();
    match format {
        Format::OpenMetrics => text::encode(&mut written, &registry)?,
        Format::Prometheus => prometheus_text::encode(&mut written, &registry)?,
    }
    Ok(written)
}

/// The encoder, by the kinds of metrics that there are here.
struct Writer<'a>(DescriptorEncoder<'a>);

impl Writer<'_> {
    fn counters<const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        samples: impl IntoIterator<Item = (Labels<N>, u64)>,
    ) -> fmt::Result {
        let mut metric = self.0.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (labels, count) in samples {
            metric.encode_family(&labels)?.encode_counter::<NoLabelSet, u64, f64>(&count, None)?;
        }
        Ok(())
    }

    fn counter(&mut self, name: &str, help: &str, count: u64) -> fmt::Result {
        let mut metric = self.0.encode_descriptor(name, help, None, MetricType::Counter)?;
        metric.encode_counter::<NoLabelSet, u64, f64>(&count, None)
    }

    fn gauges<const N: usize, V: EncodeLabelValue>(
        &mut self,
        name: &str,
        help: &str,
        samples: impl IntoIterator<Item = ([(&'static str, V); N], u64)>,
    ) -> fmt::Result {
        self.values(MetricType::Gauge, name, help, samples)
    }

    fn untyped<const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        samples: impl IntoIterator<Item = (Labels<N>, u64)>,
    ) -> fmt::Result {
        self.values(MetricType::Unknown, name, help, samples)
    }

    fn values<const N: usize, V: EncodeLabelValue>(
        &mut self,
        kind: MetricType,
        name: &str,
        help: &str,
        samples: impl IntoIterator<Item = ([(&'static str, V); N], u64)>,
    ) -> fmt::Result {
        let mut metric = self.0.encode_descriptor(name, help, None, kind)?;
        for (labels, value) in samples {
            metric.encode_family(&labels)?.encode_gauge(&value)?;
        }
        Ok(())
    }

    fn gauge(&mut self, name: &str, help: &str, value: &impl EncodeGaugeValue) -> fmt::Result {
        self.0.encode_descriptor(name, help, None, MetricType::Gauge)?.encode_gauge(value)
    }

    fn histograms<'a, const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        samples: impl IntoIterator<Item = (Labels<N>, &'a Histogram)>,
    ) -> fmt::Result {
        let mut metric = self.0.encode_descriptor(name, help, None, MetricType::Histogram)?;
        for (labels, histogram) in samples {
            let classes: Vec<(f64, u64)> = histogram
                .classes()
                .map(|(bound, count)| (bound.map_or(f64::INFINITY, |bound| bound.as_secs_f64()), count))
                .collect();
            let (sum, count) = (histogram.sum().as_secs_f64(), histogram.count());
            metric.encode_family(&labels)?.encode_histogram::<NoLabelSet>(sum, count, &classes, None)?;
        }
        Ok(())
    }
}

impl Collector for Snapshot {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut writer = Writer(encoder);
        self.mail(&mut writer)?;
        self.network(&mut writer)?;
        self.queue(&mut writer)?;
        self.destinations(&mut writer)?;
        self.process(&mut writer)
    }
}

impl Snapshot {
    fn mail(&self, writer: &mut Writer<'_>) -> fmt::Result {
        let Self { tally, .. } = self;
        let results = RESULTS.map(|(result, label)| ([("result", label)], tally.attempts.of(result)));
        writer.counters("attempts", "Attempts to deliver a mail, by their result.", results)?;
        self.fates(writer)?;
        let failures = AttemptKind::FAILURES.into_iter().flat_map(|kind| {
            CLASSES.map(|(finality, class)| {
                ([("kind", kind.name()), ("class", class)], tally.failures.of((kind, finality)))
            })
        });
        let help = "Failed attempts, by what failed, and by whether that is temporary (4) or permanent (5).";
        writer.counters("failures", help, failures)?;
        let help = "Transactions that servers have answered by taking the message or refusing it.";
        writer.counter("transactions", help, tally.transactions)?;
        let help = "Octets of the messages that servers have taken, once for each transaction.";
        writer.counter("delivered_octets", help, tally.delivered_octets)?;
        writer.counter("bounces", "Bounces that were put into the outbox.", tally.reports.bounces)?;
        let help = "Warnings that were put into the outbox, to tell senders that their mail is late.";
        writer.counter("delay_warnings", help, tally.reports.delay_warnings)?;
        let help = "Reports that were put into the outbox, to tell senders that their mail was delivered to a server that offers no DSN.";
        writer.counter("relay_reports", help, tally.reports.relay_reports)?;
        let delays = &tally.delays;
        let phases = [
            ([("phase", "queue")], &delays.queue),
            ([("phase", "claim")], &delays.claim),
            ([("phase", "setup")], &delays.setup),
            ([("phase", "transfer")], &delays.transfer),
        ];
        let help = "How long mail waited: in the queue until it was claimed, after the claim for its turn, for the setup of its \
                    connection, and for its transfer.";
        writer.histograms("delay_seconds", help, phases)
    }

    fn destinations(&self, writer: &mut Writer<'_>) -> fmt::Result {
        if self.destination_mails.is_empty() {
            return Ok(());
        }
        let Writer(encoder) = writer;
        let help = "Mail in the outbox, by the destinations of metrics_destinations.";
        let mut metric = encoder.encode_descriptor("destination_mails", help, None, MetricType::Gauge)?;
        for (destination, mails) in &self.destination_mails {
            metric.encode_family(&[("destination", &**destination)])?.encode_gauge(mails)?;
        }
        let help =
            "Attempts to deliver a mail, by the destinations of metrics_destinations, and by their result.";
        let mut metric =
            encoder.encode_descriptor("destination_attempts", help, None, MetricType::Counter)?;
        for (destination, counts) in self.observed.destinations.attempts() {
            let AttemptCounts { delivered, deferred, failed, uncertain } = counts;
            let counts = [
                ("delivered", delivered),
                ("deferred", deferred),
                ("failed", failed),
                ("uncertain", uncertain),
            ];
            for (result, count) in counts {
                let labels = [("destination", &*destination), ("result", result)];
                metric.encode_family(&labels)?.encode_counter::<NoLabelSet, u64, f64>(&count, None)?;
            }
        }
        Ok(())
    }

    /// In OpenMetrics a counter reserves its name without `_total` too, which here is that of a gauge.
    fn fates(&self, writer: &mut Writer<'_>) -> fmt::Result {
        let fates = Fate::ALL.map(|fate| ([("fate", fate.as_str())], self.tally.mails.of(fate)));
        let help = "Mail that has left the outbox for good, by what became of it.";
        match self.format {
            Format::Prometheus => writer.counters("mails", help, fates),
            Format::OpenMetrics => writer.untyped("mails_total", help, fates),
        }
    }

    fn network(&self, writer: &mut Writer<'_>) -> fmt::Result {
        let Self { tally, .. } = self;
        let opened = MODES.map(|(mode, label)| ([("tls", label)], tally.connections.opened.of(mode)));
        let help = "Connections on which mail could be sent, by what protects them.";
        writer.counters("connections_opened", help, opened)?;
        let failed =
            REASONS.map(|(reason, label)| ([("reason", label)], tally.connections.failed.of(reason)));
        let help = "Connections that came to nothing before mail could be sent, by the reason.";
        writer.counters("connections_failed", help, failed)?;
        let help = "How often a server has shown that it wants fewer connections.";
        writer.counter("pushbacks", help, tally.connections.pushbacks)?;
        let sessions =
            tally.connections.tls_sessions.iter().map(|(session, count)| (session_labels(session), count));
        writer.counters("tls_sessions", "TLS sessions on which mail could be sent.", sessions)?;
        let lookups = OUTCOMES.map(|(outcome, label)| ([("outcome", label)], tally.lookups.of(outcome)));
        let help = "Questions about names, by how they were answered.";
        writer.counters("dns_lookups", help, lookups)
    }

    fn queue(&self, writer: &mut Writer<'_>) -> fmt::Result {
        let Standing { mails, connections, destinations, .. } = &self.standing;
        let places = [
            ([("place", "ready")], count(mails.ready)),
            ([("place", "waiting")], count(mails.waiting)),
            ([("place", "claimed")], count(mails.claimed)),
            ([("place", "given_up")], count(mails.given_up)),
            ([("place", "held")], count(mails.held)),
            ([("place", "set_aside")], count(mails.set_aside)),
            ([("place", "uncertain")], count(mails.uncertain)),
        ];
        writer.gauges("mails", "Mail in the outbox, by its place on the way.", places)?;
        let held = self.held_by_lines.iter().map(|(line, mails)| ([("line", *line)], count(*mails)));
        let help = "Mail that each hold line of the configuration holds, of what is at the place held.";
        writer.gauges("held_by_line_mails", help, held)?;
        if let Some(age) = self.oldest_mail {
            let help =
                "The age of the mail that has been in the outbox for the longest time; 0 if there is none.";
            writer.gauge("oldest_mail_seconds", help, &age.as_secs())?;
        }
        let states = [
            ([("state", "connecting")], count(connections.connecting)),
            ([("state", "busy")], count(connections.busy)),
            ([("state", "resting")], count(connections.resting)),
        ];
        writer.gauges("connections", "Connections for mail, by their state.", states)?;
        let help = "The most connections that there may be.";
        writer.gauge("connections_max", help, &count(connections.limit))?;
        let states = [
            ([("state", "active")], count(destinations.active)),
            ([("state", "waiting")], count(destinations.waiting)),
            ([("state", "paused")], count(destinations.paused)),
            ([("state", "troubled")], count(destinations.troubled)),
        ];
        let help = "Destinations with mail to try now, by their state; and those that have failed when they were last tried.";
        writer.gauges("destinations", help, states)
    }

    fn process(&self, writer: &mut Writer<'_>) -> fmt::Result {
        let Self { tally, observed, .. } = self;
        let requests = observed.store.iter().map(|(kind, histogram)| ([("kind", *kind)], histogram));
        let help = "How long the database took to answer, by the kind of the request.";
        writer.histograms("store_seconds", help, requests)?;
        let help = "Requests that the database has refused.";
        writer.counter("store_errors", help, tally.store_errors)?;
        let help = "Verdicts on mail that the database has not recorded yet.";
        writer.gauge("store_pending", help, &count(self.standing.pending_verdicts))?;
        let help = "How long turns of the event loop took, without waiting for events.";
        writer.histograms("loop_seconds", help, [([], &observed.turns)])?;
        writer.counter(
            "log_lines_lost",
            "Lines of the log that could not be written.",
            self.log_lines_lost,
        )?;
        let help = "Whether the configuration was taken when it was last read: 1 or 0.";
        let is_successful = u64::from(observed.reload.is_successful);
        writer.gauge("config_last_reload_successful", help, &is_successful)?;
        let help = "When the configuration was last read.";
        writer.gauge("config_last_reload_timestamp_seconds", help, &unix_seconds(observed.reload.at))?;
        let version = [([("version", env!("CARGO_PKG_VERSION"))], 1)];
        writer.gauges("build_info", "Always 1; the label is the version of the program.", version)?;
        writer.gauge("start_time_seconds", "When the daemon was started.", &unix_seconds(observed.started))
    }
}

const RESULTS: [(AttemptResult, &str); 4] = [
    (AttemptResult::Delivered, "delivered"),
    (AttemptResult::Deferred, "deferred"),
    (AttemptResult::Failed, "failed"),
    (AttemptResult::Uncertain, "uncertain"),
];

const CLASSES: [(Finality, &str); 2] = [(Finality::Temporary, "4"), (Finality::Permanent, "5")];

const MODES: [(TlsMode, &str); 3] =
    [(TlsMode::Plain, "plain"), (TlsMode::StartTls, "starttls"), (TlsMode::Implicit, "tls")];

const REASONS: [(ConnectionFailure, &str); 5] = [
    (ConnectionFailure::Refused, "refused"),
    (ConnectionFailure::Unreachable, "unreachable"),
    (ConnectionFailure::Mute, "mute"),
    (ConnectionFailure::Tls, "tls"),
    (ConnectionFailure::Local, "local"),
];

const OUTCOMES: [(LookupResult, &str); 4] = [
    (LookupResult::Cached, "cached"),
    (LookupResult::Answered, "answered"),
    (LookupResult::Negative, "negative"),
    (LookupResult::Failed, "failed"),
];

fn session_labels(session: TlsSession) -> Labels<3> {
    let TlsSession { version, proved, is_resumed } = session;
    let version = match version {
        TlsVersion::V1_2 => "TLSv1.2",
        TlsVersion::V1_3 => "TLSv1.3",
    };
    let resumed = if is_resumed { "true" } else { "false" };
    [("version", version), ("peer", proved.name()), ("resumed", resumed)]
}

fn count(items: usize) -> u64 {
    u64::try_from(items).unwrap_or(u64::MAX)
}

fn unix_seconds(at: SystemTime) -> f64 {
    at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}
