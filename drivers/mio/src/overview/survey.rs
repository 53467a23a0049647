//! Counts the mail in the outbox by destination and age, for the page, while there is a page to look at.

use std::time::{Duration, Instant, SystemTime};

use cmail_delivery::dispatcher::{Dispatcher, Survey, SurveyRow};

use crate::event_loop::Ages;

/// How often mail is counted anew.
const SURVEY_INTERVAL: Duration = Duration::from_secs(5);

/// For how long a count is shown after the time that it took: longer, and it would be taken for how things are now.
const RESULT_SPAN: Duration = SURVEY_INTERVAL.saturating_mul(2);

/// Mail that is counted in one turn of the loop: a few milliseconds.
const MAILS_PER_TURN: usize = 20_000;

/// Most destinations that are shown.
const ROWS_LIMIT: usize = 20;

/// Counts mail when that is wanted.
#[derive(Debug, Default)]
pub(super) struct Surveyor {
    under_way: Option<Survey>,
    result: Option<SurveyResult>,
    /// When the last count began.
    began_at: Option<Instant>,
}

/// The mail in the outbox, by age, and the destinations that have the most.
#[derive(Clone, Debug)]
pub(super) struct SurveyResult {
    /// When the count ended.
    pub(super) counted: SystemTime,
    /// Until when it is shown.
    end: Instant,
    pub(super) total: Vec<u64>,
    pub(super) rows: Vec<SurveyRow>,
}

impl Surveyor {
    /// Counts anew, if that was not done a short while ago.
    pub(super) fn want(&mut self, ages: Option<&Ages>, now: Instant) {
        let is_recent = self.began_at.is_some_and(|at| now.saturating_duration_since(at) < SURVEY_INTERVAL);
        if let Some(ages) = ages
            && !is_recent
            && self.under_way.is_none()
        {
            self.began_at = Some(now);
            self.under_way = Some(Survey::new(ages.younger.clone()));
        }
    }

    pub(super) fn is_counting(&self) -> bool {
        self.under_way.is_some()
    }

    /// Counts some more mail.
    pub(super) fn go_on(&mut self, dispatcher: &Dispatcher, now: Instant) {
        if let Some(survey) = &mut self.under_way
            && !dispatcher.go_on_with(survey, MAILS_PER_TURN)
        {
            let took = self.began_at.map_or(Duration::ZERO, |began| now.saturating_duration_since(began));
            self.result = Some(SurveyResult {
                counted: SystemTime::now(),
                end: now + RESULT_SPAN + took,
                total: survey.total().to_vec(),
                rows: dispatcher.largest_of(survey, ROWS_LIMIT),
            });
            self.under_way = None;
        }
    }

    /// Returns the last count, unless it is too old to be shown.
    pub(super) fn result(&self, now: Instant) -> Option<&SurveyResult> {
        self.result.as_ref().filter(|result| now < result.end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_count_is_not_shown_as_that_of_now() {
        let now = Instant::now();
        let result = SurveyResult {
            counted: SystemTime::now(),
            end: now + RESULT_SPAN,
            total: vec![1],
            rows: Vec::new(),
        };
        let surveyor = Surveyor { result: Some(result), ..Surveyor::default() };
        assert!(surveyor.result(now).is_some());
        assert!(surveyor.result(now + RESULT_SPAN).is_none());
        assert!(Surveyor::default().result(now).is_none());
    }
}
