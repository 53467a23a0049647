//! Tells which lines of the configuration have begun to hold mail: a line of the log for each, however much mail it is.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::ToString as _;
use alloc::vec::Vec;

use super::Dispatcher;
use super::books::Books;
use crate::event::Level;
use crate::hold::HoldLine;
use crate::outbox::MailId;
use crate::queue::QueueState;

/// The mail that lines hold now and did not before, as long as that is not told.
#[derive(Debug, Default)]
pub(super) struct HoldNews(BTreeMap<u32, News>);

#[derive(Debug)]
struct News {
    mails: u64,
    first: MailId,
}

impl HoldNews {
    /// Notes what a mail has become.
    pub(super) fn note(&mut self, id: MailId, before: Option<QueueState>, state: QueueState) {
        let line_of =
            |state: QueueState| if let QueueState::Held(holder) = state { holder.line() } else { None };
        if let Some(line) = line_of(state)
            && before.and_then(line_of) != Some(line)
        {
            self.0.entry(line).or_insert(News { mails: 0, first: id }).mails += 1;
        }
    }
}

impl Books {
    /// Tells which lines have begun to hold mail, unless more may be found soon.
    pub(super) fn tell_holds(&mut self) {
        if self.scan.hold_news.0.is_empty() || self.scan.is_scanning() || self.scan.rescan.is_under_way() {
            return;
        }
        for (line, News { mails, first }) in core::mem::take(&mut self.scan.hold_news.0) {
            let Some(named) = self.config.hold_line(line).map(|line| line.named().to_string()) else {
                continue;
            };
            let text = if mails == 1 {
                format!("mail {first} is held by {named}")
            } else {
                format!("{mails} mails, of which the first is mail {first}, are held by {named}")
            };
            self.note(Level::Info, text);
        }
    }
}

impl Dispatcher {
    /// Returns the lines that hold mail, each with the number of mails that it holds; also those that hold none.
    pub fn held_by_lines(&self) -> Vec<(&HoldLine, usize)> {
        let counts: BTreeMap<u32, usize> = self.books.queue.held_by_lines().collect();
        let lines = self.books.config.settings.schedule.hold_lines.iter();
        lines.map(|line| (line, counts.get(&line.line).copied().unwrap_or(0))).collect()
    }
}
