//! Shows a recorder everything that the event loop passes in and gets out.

use std::collections::VecDeque;

use cmail_delivery::time::Instant;
use cmail_delivery::{Dispatcher, Input, Now, Output};

use crate::record::Recorder;

/// The recorder, if there is one.
#[derive(Debug, Default)]
pub(super) struct Recording {
    recorder: Option<Recorder>,
    /// Outputs that it has seen already.
    seen: VecDeque<Output>,
}

impl Recording {
    pub(super) fn of(recorder: Option<Recorder>) -> Self {
        Self { recorder, seen: VecDeque::new() }
    }

    /// Shows that octets may have been pulled in a turn.
    pub(super) fn transmitted(&mut self, now: Now) {
        if let Some(recorder) = &mut self.recorder {
            recorder.transmitted(now);
        }
    }

    /// Shows the input of a turn. Octets that were pulled in the turn come before those that were received in it.
    pub(super) fn turned(&mut self, dispatcher: &mut Dispatcher, now: Now, input: &Input<'_>) {
        if let Some(recorder) = &mut self.recorder {
            recorder.transmitted(now);
            while let Some(output) = dispatcher.poll_output() {
                recorder.output(dispatcher, &output);
                self.seen.push_back(output);
            }
            recorder.input(dispatcher, now, input);
        }
    }

    pub(super) fn timeout(&mut self, now: Now, deadline: Instant) {
        if let Some(recorder) = &mut self.recorder {
            recorder.timeout(now, deadline);
        }
    }

    pub(super) fn input(&mut self, dispatcher: &mut Dispatcher, now: Now, input: &Input<'_>) {
        if let Some(recorder) = &mut self.recorder {
            recorder.input(dispatcher, now, input);
        }
    }

    /// Returns the next output of the dispatcher, after it was shown.
    pub(super) fn next_output(&mut self, dispatcher: &mut Dispatcher) -> Option<Output> {
        if let Some(output) = self.seen.pop_front() {
            return Some(output);
        }
        let output = dispatcher.poll_output()?;
        if let Some(recorder) = &mut self.recorder {
            recorder.output(dispatcher, &output);
        }
        Some(output)
    }

    /// Shows that all outputs are carried out, and whether they were the last.
    pub(super) fn settle(&mut self, dispatcher: &Dispatcher, now: Now, is_over: bool) {
        if let Some(recorder) = &mut self.recorder {
            recorder.settle(dispatcher, now);
            if is_over {
                recorder.finish();
            }
        }
    }
}
