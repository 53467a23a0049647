//! The verb `summary`: how many mails wait for each destination, and how old they are.

use std::collections::HashMap;
use std::ops::ControlFlow;

use cmail_delivery::address::Mailbox;
use cmail_delivery::failure_pattern::LastFailure;
use cmail_delivery::next_hop::Relay;
use cmail_delivery::one_line::Octets;
use serde::Serialize;

use super::printer::shortened;
use super::words::{By, SummaryWords};
use super::{Outcome, Tool, ToolError};
use crate::store::QueuedMail;

/// The upper ends of the columns, in seconds. Older mail is in a further column.
const AGES_S: [i64; 6] = [5 * 60, 20 * 60, 3600, 4 * 3600, 86_400, 5 * 86_400];

/// The number of columns of ages.
const COLUMNS: usize = AGES_S.len() + 1;

/// Mails by their age.
#[derive(Clone, Copy, Debug, Default)]
struct Ages {
    counts: [u64; COLUMNS],
}

impl Ages {
    fn add(&mut self, age_s: i64) {
        let column = AGES_S.iter().take_while(|&&end_s| age_s >= end_s).count();
        if let Some(count) = self.counts.get_mut(column) {
            *count += 1;
        }
    }

    fn total(&self) -> u64 {
        self.counts.iter().sum()
    }
}

/// A row in JSON.
#[derive(Debug, Serialize)]
struct Counted<'a> {
    by: &'static str,
    /// Null in the row of all mail.
    name: Option<&'a str>,
    mails: u64,
    /// Mail that is younger than 5 minutes, then than 20 minutes, 1 hour, 4 hours, 1 day and 5 days, and older mail.
    ages: [u64; COLUMNS],
}

/// Prints the counts of the selected mail, the largest first.
pub(super) fn summary(tool: &Tool, words: &SummaryWords) -> Result<Outcome, ToolError> {
    let (total, mut rows) = count(tool, words)?;
    if total.total() == 0 {
        return Ok(Outcome::Nothing);
    }
    rows.sort_by(|(name, ages), (other, others)| {
        others.total().cmp(&ages.total()).then_with(|| name.cmp(other))
    });
    let limit = tool.options.limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(usize::MAX);
    let mut printer = tool.printer();
    if !tool.options.json {
        let [all, m5, m20, h1, h4, d1, d5, older] =
            ["ALL", "<5m", "<20m", "<1h", "<4h", "<1d", "<5d", "OLDER"];
        printer.line(format_args!(
            "{all:>8} {m5:>7} {m20:>7} {h1:>7} {h4:>7} {d1:>7} {d5:>7} {older:>7}  {}",
            words.by.heading()
        ))?;
    }
    let all = std::iter::once((None, &total));
    let each = rows.iter().map(|(name, ages)| (Some(&**name), ages)).take(limit);
    for (name, ages) in all.chain(each) {
        if tool.options.json {
            let by = words.by.name();
            printer.record("summary", Counted { by, name, mails: ages.total(), ages: ages.counts })?;
        } else {
            let [m5, m20, h1, h4, d1, d5, older] = ages.counts;
            printer.line(format_args!(
                "{:>8} {m5:>7} {m20:>7} {h1:>7} {h4:>7} {d1:>7} {d5:>7} {older:>7}  {}",
                ages.total(),
                name.map_or("TOTAL".to_owned(), shortened)
            ))?;
        }
    }
    printer.flush()?;
    Ok(Outcome::Done)
}

fn count(tool: &Tool, words: &SummaryWords) -> Result<(Ages, Vec<(String, Ages)>), ToolError> {
    let standing = tool.standing();
    let mut rows: HashMap<String, Ages> = HashMap::new();
    let mut total = Ages::default();
    tool.each_batch(&words.selection, standing, |mails| {
        for mail in mails.iter().filter(|mail| !words.deferred || mail.row.fail_count > 0) {
            // Without a time it is taken for new.
            let age_s = mail.submitted().map_or(0, |time| standing.now.0.saturating_sub(time.0));
            total.add(age_s);
            rows.entry(words.by.name_of(mail)).or_default().add(age_s);
        }
        Ok(ControlFlow::Continue(()))
    })?;
    Ok((total, rows.into_iter().collect()))
}

impl By {
    const fn name(self) -> &'static str {
        match self {
            Self::Domain => "domain",
            Self::Remote => "remote",
            Self::Sender => "sender",
            Self::Status => "status",
        }
    }

    const fn heading(self) -> &'static str {
        match self {
            Self::Domain => "DOMAIN",
            Self::Remote => "REMOTE",
            Self::Sender => "SENDER",
            Self::Status => "STATUS",
        }
    }

    /// Returns the row to which a mail belongs.
    fn name_of(self, mail: &QueuedMail) -> String {
        let row = &mail.row;
        match self {
            Self::Domain => {
                let domain = Mailbox::parse(&row.recipient).and_then(|mailbox| mailbox.domain());
                domain.map_or("an invalid address".to_owned(), |domain| {
                    cmail_delivery::next_hop::NextHop::from(domain).to_string()
                })
            }
            Self::Remote => match &row.remote {
                None => "by MX".to_owned(),
                Some(remote) => {
                    Relay::parse(remote).map_or("a malformed relay".to_owned(), |relay| relay.to_string())
                }
            },
            Self::Sender => {
                let sender = row.sender.as_deref().map(<[u8]>::trim_ascii);
                sender.map_or("<>".to_owned(), |sender| Octets(sender).to_string())
            }
            Self::Status => match row.last_failure {
                None => "not tried yet".to_owned(),
                Some(LastFailure { status: Some(status), .. }) => status.to_string(),
                Some(LastFailure { code: Some(code), .. }) => code.to_string(),
                Some(LastFailure { kind, .. }) => kind.to_string(),
            },
        }
    }
}

#[cfg(test)]
mod tests;
