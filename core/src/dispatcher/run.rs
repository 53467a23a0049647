//! What a dispatcher is to do, and how far it is.

use super::Mode;
use crate::time::Instant;

/// The run of a dispatcher, from its start to its end.
#[derive(Debug)]
pub(super) struct Run {
    mode: Mode,
    progress: Progress,
}

/// The life of a dispatcher.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    Working,
    /// A drain was requested at this instant.
    Draining(Instant),
    /// [`Output::Drained`](crate::io::Output::Drained) was put out.
    Drained,
}

impl Run {
    pub(super) fn new(mode: Mode) -> Self {
        Self { mode, progress: Progress::Working }
    }

    pub(super) fn mode(&self) -> &Mode {
        &self.mode
    }

    /// Returns whether it goes on until a drain is asked for.
    pub(super) fn is_daemon(&self) -> bool {
        self.mode == Mode::Daemon
    }

    /// Returns whether only orders are carried out.
    pub(super) fn is_for_orders(&self) -> bool {
        self.mode == Mode::CarryOutOrders
    }

    pub(super) fn progress(&self) -> Progress {
        self.progress
    }

    /// Returns whether nothing new begins.
    pub(super) fn is_draining(&self) -> bool {
        self.progress != Progress::Working
    }

    pub(super) fn is_drained(&self) -> bool {
        self.progress == Progress::Drained
    }

    /// Begins to drain. Returns whether that is news.
    pub(super) fn drain(&mut self, now: Instant) -> bool {
        let is_news = !self.is_draining();
        if is_news {
            self.progress = Progress::Draining(now);
        }
        is_news
    }

    /// Ends it.
    pub(super) fn end(&mut self) {
        self.progress = Progress::Drained;
    }
}
