//! The verbs that change mail. Each gives an order: a row that the daemon carries out, or this process in its place if none runs.

use std::io::{self, IsTerminal as _, Write as _};
use std::time::Duration;

use clap::CommandFactory as _;
use clap::error::ErrorKind;
use cmail_delivery::outbox::Cursor;
use cmail_delivery::schedule::RetryState;
use cmail_delivery::time::UnixMillis;
use nix::unistd::{User, getuid};
use serde::Serialize;

use super::words::{
    DropWords, FailWords, ForgetWords, HoldWords, RedirectWords, ReleaseWords, RetryWords, Rule, Target,
    Words,
};
use super::{Outcome, Tool, ToolError, now};
use crate::selection::Selection;
use crate::store::{Act, Deputy, ForgottenAddress, HoldRule, NewOrder, OrderDesk, Scope, Standing};

/// How long the tool waits for the daemon.
const PATIENCE: Duration = Duration::from_secs(5);

/// What has come of an order.
#[derive(Debug, Serialize)]
pub(super) struct OrderFields {
    order_id: i64,
    verb: &'static str,
    done: bool,
    mails: Option<u64>,
    gone: Option<u64>,
    /// How many of the mails were held, so that they were not tried.
    held: u64,
    result: Option<String>,
}

/// How much mail an order is about.
#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    mails: u64,
    held: u64,
}

pub(super) fn retry(tool: &Tool, words: &RetryWords) -> Result<Outcome, ToolError> {
    let act = Act::Retry { anew: words.forget };
    Plan::of_mails(act, None, &words.target)?.carry_out(tool)
}

pub(super) fn hold(tool: &Tool, words: &HoldWords) -> Result<Outcome, ToolError> {
    let until = words.until.map(|until| tool.clock.resolve_until(until, now()));
    if until.is_some_and(|until| until <= UnixMillis::from(now())) {
        return Err(usage("--until names a time that has passed"));
    }
    Plan::of(Act::Hold { until }, words.reason.clone(), &words.rule, &words.target)?.carry_out(tool)
}

pub(super) fn release(tool: &Tool, words: &ReleaseWords) -> Result<Outcome, ToolError> {
    Plan::of(Act::Release { hold: None }, None, &words.rule, &words.target)?.carry_out(tool)
}

pub(super) fn fail(tool: &Tool, words: &FailWords) -> Result<Outcome, ToolError> {
    Plan::of_mails(Act::Fail, words.reason.clone(), &words.target)?.carry_out(tool)
}

pub(super) fn drop_mail(tool: &Tool, words: &DropWords) -> Result<Outcome, ToolError> {
    Plan::of_mails(Act::Drop, None, &words.target)?.carry_out(tool)
}

/// Here `--remote` is where the mail is to go, and not which mail.
pub(super) fn redirect(tool: &Tool, words: &RedirectWords) -> Result<Outcome, ToolError> {
    let Target { selection, all, yes } = &words.target;
    let remote = selection.remote.as_ref().map(ToString::to_string);
    let selection = Selection { remote: None, ..selection.clone() };
    let target = Target { selection, all: *all, yes: *yes };
    Plan::of_mails(Act::Redirect { remote }, None, &target)?.carry_out(tool)
}

/// Blanks an address in what is recorded.
pub(super) fn forget(tool: &Tool, words: &ForgetWords) -> Result<Outcome, ToolError> {
    let address = ForgottenAddress::parse(&words.address)
        .ok_or_else(|| usage("forget is about one whole mail address, like bob@example.org"))?;
    let plan = Plan { act: Act::Forget, scope: Scope::Address(address), reason: None, may_change_many: true };
    plan.carry_out(tool)
}

/// An order that is about to be given.
struct Plan {
    act: Act,
    scope: Scope,
    reason: Option<String>,
    may_change_many: bool,
}

impl Plan {
    fn of(act: Act, reason: Option<String>, rule: &Rule, target: &Target) -> Result<Self, ToolError> {
        let rule = match (&rule.destination, &rule.from) {
            (Some(destination), _) => HoldRule::Destination(destination.clone()),
            (None, Some(from)) => HoldRule::From(from.clone()),
            (None, None) => return Self::of_mails(act, reason, target),
        };
        if target.all || target.selection != Selection::default() {
            return Err(usage(
                "--destination and --from stand alone: they are about all mail that they name",
            ));
        }
        Ok(Self { act, scope: Scope::Rule(rule), reason, may_change_many: target.yes })
    }

    fn of_mails(act: Act, reason: Option<String>, target: &Target) -> Result<Self, ToolError> {
        let is_all = target.selection == Selection::default();
        if is_all != target.all {
            let what = if is_all {
                "say which mail: its ID, or an option such as --domain, or --all"
            } else {
                "--all is about all mail, so nothing else can narrow it"
            };
            return Err(usage(what));
        }
        let scope = Scope::Mails(target.selection.clone());
        Ok(Self { act, scope, reason, may_change_many: target.yes })
    }

    fn carry_out(self, tool: &Tool) -> Result<Outcome, ToolError> {
        let desk = OrderDesk::open(tool.database()?)?;
        let last_mail = desk.last_mail()?;
        // What is counted is what is changed, however long the answer takes.
        let at = now();
        let Counts { mails: count, held } = match self.scope {
            Scope::Address(_) => Counts::default(),
            Scope::Rule(_) | Scope::Mails(_) | Scope::Hold { .. } => {
                self.count(tool, Standing { now: at, ..tool.standing() }, last_mail)?
            }
        };
        let is_rule = matches!(self.scope, Scope::Rule(_) | Scope::Address(_));
        if count == 0 && !is_rule {
            return Ok(Outcome::Nothing);
        }
        if count > 1 && !self.may_change_many && !self.is_confirmed(count)? {
            return Err(ToolError::NotDone("nothing was changed; add --yes to do it".to_owned()));
        }
        let deputy = Deputy::take_over(tool.database()?, tool.ledger)?;
        let verb = self.act.name();
        // Only of what is to be tried it matters that it is held.
        let held = if matches!(self.act, Act::Retry { .. }) { held } else { 0 };
        let order = NewOrder {
            act: self.act,
            scope: self.scope,
            reason: self.reason,
            who: user(),
            at: UnixMillis::from(at),
            last_mail,
        };
        let number = desk.give(&order)?;
        let has_daemon = deputy.is_none();
        if let Some(deputy) = deputy {
            deputy.carry_out(tool.settings.clone(), now())?;
        }
        let patience = if has_daemon { PATIENCE } else { Duration::ZERO };
        let result = desk.wait_for(number, patience)?;
        let stands = if has_daemon {
            "the daemon has not come to its end yet, and will; see its log"
        } else {
            "no daemon runs; it is carried out when one starts"
        };
        let text = result.as_ref().map(|result| result.text.clone());
        let mut printer = tool.printer();
        if tool.options.json {
            let fields = OrderFields {
                order_id: number.0,
                verb,
                done: result.is_some(),
                mails: result.as_ref().map(|result| result.mails),
                gone: result.as_ref().map(|result| result.gone),
                held,
                result: text,
            };
            printer.record("result", fields)?;
        } else {
            match text {
                Some(text) => printer.line(format_args!("order {number}: {text}{}", untried(held)))?,
                None => printer.line(format_args!("order {number} stands: {stands}"))?,
            }
        }
        printer.flush()?;
        let has_changed = result.is_none_or(|result| result.mails > 0);
        Ok(if has_changed || is_rule { Outcome::Done } else { Outcome::Nothing })
    }

    /// Counts the mail that the order is about now.
    fn count(&self, tool: &Tool, standing: Standing<'_>, last_mail: i64) -> Result<Counts, ToolError> {
        let reader = tool.reader()?;
        let all = Selection::default();
        let selection = match &self.scope {
            Scope::Mails(selection) => selection,
            Scope::Rule(_) | Scope::Hold { .. } | Scope::Address(_) => &all,
        };
        let releases_rule = matches!(self.act, Act::Release { .. }) && matches!(self.scope, Scope::Rule(_));
        let (mut counts, mut next) = (Counts::default(), Some(Cursor::BeforeFirst));
        while let Some(after) = next {
            let batch = reader.mails(selection, standing, after)?;
            let is_meant = |row: &cmail_delivery::outbox::Row| match &self.scope {
                Scope::Rule(rule) => rule.fits(row),
                Scope::Mails(_) | Scope::Hold { .. } | Scope::Address(_) => true,
            };
            for mail in batch.mails.iter().filter(|mail| mail.row.id.0 <= last_mail && is_meant(&mail.row)) {
                let is_held = matches!(standing.of(&mail.row), RetryState::Held(_));
                counts.held += u64::from(is_held);
                // Mail that is not held has nothing to do with the end of a rule.
                counts.mails += u64::from(is_held || !releases_rule);
            }
            next = batch.next;
        }
        Ok(counts)
    }

    /// Tells how many mails are meant, and asks, if that can be answered.
    fn is_confirmed(&self, count: u64) -> Result<bool, ToolError> {
        let question = format!("{} is about {count} mails", self.act.name());
        if !io::stdin().is_terminal() {
            super::complain(&question);
            return Ok(false);
        }
        let mut stderr = io::stderr();
        write!(stderr, "{question}. Do it? [y/N] ")?;
        stderr.flush()?;
        let mut answer = String::new();
        io::stdin().read_line(&mut answer)?;
        Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
    }
}

/// Says why mail was not tried.
fn untried(held: u64) -> String {
    match held {
        0 => String::new(),
        1 => "; 1 mail is held: release it first".to_owned(),
        held => format!("; {held} mails are held: release them first"),
    }
}

fn usage(text: &str) -> ToolError {
    ToolError::Usage(Words::command().error(ErrorKind::ArgumentConflict, text))
}

/// Names the user who gives an order.
fn user() -> String {
    let uid = getuid();
    match User::from_uid(uid) {
        Ok(Some(user)) => format!("{} ({uid})", user.name),
        Ok(None) | Err(_) => format!("user {uid}"),
    }
}
