//! Counts the mail in the outbox by destination and age, for the page, while there is a page to look at.

use std::time::{Duration, Instant};

use cmail_delivery::dispatcher::{Dispatcher, Survey, SurveyRow};

use crate::event_loop::Ages;

/// How often mail is counted anew.
const SURVEY_INTERVAL: Duration = Duration::from_secs(5);

/// Mail that is counted in one turn of the loop: a few milliseconds.
const MAILS_PER_TURN: usize = 20_000;

/// Most destinations that are shown.
const ROWS_LIMIT: usize = 20;

/// Counts mail when that is wanted.
#[derive(Debug, Default)]
pub(super) struct Surveyor {
    under_way: Option<Survey>,
    result: SurveyResult,
    counted_at: Option<Instant>,
}

/// The mail in the outbox, by age, and the destinations that have the most.
#[derive(Clone, Debug, Default)]
pub(super) struct SurveyResult {
    pub(super) total: Vec<u64>,
    pub(super) rows: Vec<SurveyRow>,
}

impl Surveyor {
    /// Counts anew, if that was not done a short while ago.
    pub(super) fn want(&mut self, ages: Option<&Ages>, now: Instant) {
        let is_recent = self.counted_at.is_some_and(|at| now.saturating_duration_since(at) < SURVEY_INTERVAL);
        if let Some(ages) = ages
            && !is_recent
            && self.under_way.is_none()
        {
            self.counted_at = Some(now);
            self.under_way = Some(Survey::new(ages.younger.clone()));
        }
    }

    pub(super) fn is_counting(&self) -> bool {
        self.under_way.is_some()
    }

    /// Counts some more mail.
    pub(super) fn go_on(&mut self, dispatcher: &Dispatcher) {
        if let Some(survey) = &mut self.under_way
            && !dispatcher.go_on_with(survey, MAILS_PER_TURN)
        {
            self.result = SurveyResult {
                total: survey.total().to_vec(),
                rows: dispatcher.largest_of(survey, ROWS_LIMIT),
            };
            self.under_way = None;
        }
    }

    pub(super) fn result(&self) -> &SurveyResult {
        &self.result
    }
}
