//! How everything stands, as the fields of a record.

use std::collections::VecDeque;
use std::path::Path;
use std::time::{Duration, SystemTime};

use cmail_delivery::attempt::AttemptKind;
use cmail_delivery::dispatcher::{SlowHost, Standing, TroubledHost};
use cmail_delivery::hold::HoldLine;
use cmail_delivery::tally::{AttemptResult, Fate, Finality, Histogram, Tally};
use serde_json::{Value, json};

use super::observed::{FailureNote, Observed};
use super::survey::SurveyResult;
use super::{AGE_CLASSES, View};

/// Samples that are kept: those of an hour.
const SAMPLES_LIMIT: usize = 360;

/// The counts of attempts in the last hour.
#[derive(Clone, Debug, Default)]
pub(crate) struct Samples(VecDeque<Sample>);

#[derive(Clone, Copy, Debug)]
struct Sample {
    at: SystemTime,
    delivered: u64,
    deferred: u64,
    failed: u64,
    uncertain: u64,
}

impl Samples {
    pub(crate) fn add(&mut self, tally: &Tally) {
        if self.0.len() == SAMPLES_LIMIT {
            self.0.pop_front();
        }
        self.0.push_back(Sample::of(tally));
    }

    pub(crate) fn to_json(&self) -> Value {
        let sample = |sample: &Sample| {
            let Sample { at, delivered, deferred, failed, uncertain } = *sample;
            json!([millis(at), delivered, deferred, failed, uncertain])
        };
        self.0.iter().map(sample).collect()
    }
}

impl Sample {
    fn of(tally: &Tally) -> Self {
        let of = |result| tally.attempts.of(result);
        Self {
            at: SystemTime::now(),
            delivered: of(AttemptResult::Delivered),
            deferred: of(AttemptResult::Deferred),
            failed: of(AttemptResult::Failed),
            uncertain: of(AttemptResult::Uncertain),
        }
    }
}

/// All that is told.
#[derive(Debug)]
pub(super) struct Status<'a> {
    pub(super) database: &'a Path,
    pub(super) tally: &'a Tally,
    pub(super) standing: Standing,
    /// The lines that hold mail, and how much.
    pub(super) held_by_lines: Vec<(&'a HoldLine, usize)>,
    pub(super) observed: &'a Observed,
    /// Nothing while it is being counted.
    pub(super) survey: Option<&'a SurveyResult>,
    pub(super) troubled: Vec<TroubledHost>,
    pub(super) slow: Vec<SlowHost>,
    /// The age of the oldest mail, as far as that is known.
    pub(super) oldest: Option<Duration>,
    pub(super) view: View<'a>,
}

impl Status<'_> {
    pub(super) fn fields(&self) -> Value {
        let Self { tally, observed, .. } = self;
        let now = Sample::of(tally);
        let delays = &tally.delays;
        json!({
            "version": env!("CARGO_PKG_VERSION"),
            "pid": std::process::id(),
            "database": self.database.to_string_lossy(),
            "now_ms": millis(now.at),
            "start_ms": millis(observed.started),
            "is_stopping": self.view.is_stopping,
            "attempts": {
                "delivered": now.delivered,
                "deferred": now.deferred,
                "failed": now.failed,
                "uncertain": now.uncertain,
            },
            "fates": {
                "delivered": tally.mails.of(Fate::Delivered),
                "bounced": tally.mails.of(Fate::Bounced),
                "dropped": tally.mails.of(Fate::Dropped),
                "expired": tally.mails.of(Fate::Expired),
                "removed": tally.mails.of(Fate::Removed),
            },
            "octets": tally.delivered_octets,
            "bounces": tally.reports.bounces,
            "delay_warnings": tally.reports.delay_warnings,
            "relay_reports": tally.reports.relay_reports,
            "failures": self.failures(),
            "queue": self.queue(),
            "delays": {
                "queue": histogram(&delays.queue),
                "claim": histogram(&delays.claim),
                "setup": histogram(&delays.setup),
                "transfer": histogram(&delays.transfer),
            },
            "connections": self.connections(),
            "troubled": self.troubled.iter().map(troubled).collect::<Value>(),
            "slow": self.slow.iter().map(slow).collect::<Value>(),
            "last_failures": observed.failures.iter().rev().map(failure).collect::<Value>(),
            "store_errors": tally.store_errors,
            "log_lines_lost": self.view.log_lines_lost,
            "reload": {
                "at_ms": millis(observed.reload.at),
                "taken": observed.reload.is_successful,
            },
        })
    }

    fn failures(&self) -> Value {
        let of_kind = |kind: AttemptKind| {
            let finalities = [Finality::Temporary, Finality::Permanent];
            let count: u64 = finalities.map(|finality| self.tally.failures.of((kind, finality))).iter().sum();
            (kind.name().to_owned(), json!(count))
        };
        Value::Object(AttemptKind::FAILURES.into_iter().map(of_kind).collect())
    }

    fn queue(&self) -> Value {
        let Standing { mails, pending_verdicts, .. } = self.standing;
        let row = |row: &cmail_delivery::dispatcher::SurveyRow| json!({ "name": row.name, "ages": row.ages });
        json!({
            "places": {
                "ready": mails.ready,
                "waiting": mails.waiting,
                "claimed": mails.claimed,
                "given_up": mails.given_up,
                "held": mails.held,
                "set_aside": mails.set_aside,
                "uncertain": mails.uncertain,
            },
            "held_by_lines": self.held_by_lines.iter().map(held_by_line).collect::<Value>(),
            "pending_verdicts": pending_verdicts,
            "oldest_s": self.oldest.map(|age| age.as_secs()),
            "ages": AGE_CLASSES.map(|(_, label)| label),
            "counted_ms": self.survey.map(|survey| millis(survey.counted)),
            "total": self.survey.map(|survey| &survey.total),
            "destinations": self.survey.map(|survey| survey.rows.iter().map(row).collect::<Value>()),
        })
    }

    fn connections(&self) -> Value {
        let Standing { connections, destinations, .. } = self.standing;
        json!({
            "connecting": connections.connecting,
            "busy": connections.busy,
            "resting": connections.resting,
            "max": connections.limit,
            "destinations": {
                "active": destinations.active,
                "waiting": destinations.waiting,
                "paused": destinations.paused,
                "troubled": destinations.troubled,
            },
        })
    }
}

fn histogram(histogram: &Histogram) -> Value {
    let bounds: Vec<f64> = histogram.classes().filter_map(|(bound, _)| Some(bound?.as_secs_f64())).collect();
    let counts: Vec<u64> = histogram.classes().map(|(_, count)| count).collect();
    json!({ "bounds_s": bounds, "counts": counts, "sum_s": histogram.sum().as_secs_f64() })
}

fn held_by_line((line, mails): &(&HoldLine, usize)) -> Value {
    json!({ "line": line.line, "text": line.named().to_string(), "mails": mails })
}

fn troubled(host: &TroubledHost) -> Value {
    json!({ "address": host.remote.to_string(), "reason": host.reason, "for_s": host.remaining.as_secs() })
}

fn slow(slow: &SlowHost) -> Value {
    let SlowHost { remote, host, connections, owed, waiting } = slow;
    json!({
        "address": remote.to_string(),
        "host": host.to_string(),
        "connections": connections,
        "waits_for": owed.to_string(),
        "for_s": waiting.as_secs(),
    })
}

fn failure(note: &FailureNote) -> Value {
    json!({ "at_ms": millis(note.at), "text": note.text })
}

fn millis(at: SystemTime) -> u64 {
    let since: Duration = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
