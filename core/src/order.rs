//! Orders of the administrator about mail: to try it now, to hold or release it, to give it up, to delete or redirect it.
//!
//! An order is a row of the database, so that it outlasts a crash and can be given while no dispatcher runs. The database knows
//! which mail an order is about and what it does to it; the dispatcher knows which mail is under way, and lets the order have only
//! mail that is not. So an order goes on in steps: the dispatcher asks for a [part](OrderPart), takes the mail of it that it can
//! spare, and has the database [carry out](OrderStep) the order on that. Mail that is under way follows when its attempt has ended.
//! The database records with each step, in one transaction, how far the order is done. So a crash costs nothing, and nothing is
//! done or counted twice.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use crate::ids::MailId;
use crate::outbox::{Cursor, Row};
use crate::schedule::RetryTerms;

/// Most mails of one part of an order. Their deletion takes a few hundredths of a second, and mail that is delivered meanwhile
/// waits for it.
pub const ORDER_PART_LIMIT: usize = 500;

/// Identifies an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OrderId(pub i64);

impl fmt::Display for OrderId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What the dispatcher does with mail after the database has carried out an order on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OrderEffect {
    /// It goes by the row as it is then.
    Change,
    /// It goes by the row, and tries the mail now, if it waits.
    ChangeAndTry,
    /// It tries the mail now, if it waits. The row is as it was.
    TryNow,
    /// Nothing: the order is about no mail, but about what is recorded. Each part of it is a step.
    NoMail,
}

impl OrderEffect {
    /// Returns whether mail is tried now.
    pub fn tries(self) -> bool {
        match self {
            Self::ChangeAndTry | Self::TryNow => true,
            Self::Change | Self::NoMail => false,
        }
    }
}

/// How far an order has been read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OrderPlace {
    /// Mail after this place is still to be looked at.
    At(Cursor),
    /// All of its mail was looked at.
    End,
}

/// A part of an order that is not done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OrderPart {
    /// The order.
    pub order: OrderId,
    /// What the dispatcher does with its mail.
    pub effect: OrderEffect,
    /// Mail that it is about and that was not looked at before, at most [`ORDER_PART_LIMIT`].
    pub mails: Vec<MailId>,
    /// All mail of the order that was under way when the last step was recorded.
    pub under_way: Vec<MailId>,
    /// Where the next part begins.
    pub next: OrderPlace,
}

/// A step of an order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OrderStep {
    /// The order.
    pub order: OrderId,
    /// Mail that nothing else works on. The order is carried out on it, if it still is about it.
    pub mails: Vec<MailId>,
    /// Mail that an earlier step had left under way, and that is gone: it was delivered or given up.
    pub gone: Vec<MailId>,
    /// Mail that is under way, as far as it was looked at.
    pub under_way: Vec<MailId>,
    /// How far mail was looked at.
    pub next: OrderPlace,
    /// The time and the rules.
    pub terms: RetryTerms,
}

impl OrderStep {
    /// Returns whether the order is done with this step.
    pub fn is_last(&self) -> bool {
        self.next == OrderPlace::End && self.under_way.is_empty()
    }
}

/// The answer to a step.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CarriedOut {
    /// The mail of the step that exists, as it is now.
    pub rows: Vec<Row>,
    /// The mail on which the order was carried out: not what it is no longer about, or what the database cannot change.
    pub done: Vec<MailId>,
    /// False if the order was withdrawn: then nothing was done.
    pub is_open: bool,
    /// What has come of the order, if it is done.
    pub result: Option<String>,
}

/// What an order does with mail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OrderVerb {
    /// Tries it now. An attempt that is early and fails temporarily does not count.
    Retry,
    /// Forgets its failures, and tries it now.
    RetryAnew,
    /// Holds it.
    Hold,
    /// Ends that.
    Release,
    /// Gives it up, so that its sender gets a bounce.
    Fail,
    /// Deletes it without a bounce.
    Drop,
    /// Changes its `mail_remote`.
    Redirect,
}

impl OrderVerb {
    /// Returns what the dispatcher does afterwards.
    pub fn effect(self) -> OrderEffect {
        match self {
            Self::Retry => OrderEffect::TryNow,
            Self::RetryAnew => OrderEffect::ChangeAndTry,
            Self::Hold | Self::Release | Self::Fail | Self::Drop | Self::Redirect => OrderEffect::Change,
        }
    }

    /// Returns its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Retry | Self::RetryAnew => "retry",
            Self::Hold => "hold",
            Self::Release => "release",
            Self::Fail => "fail",
            Self::Drop => "drop",
            Self::Redirect => "redirect",
        }
    }

    /// Returns what became of this many mails, as a clause.
    pub fn told(self, mails: u64) -> String {
        let (one, many) = match self {
            Self::Retry => ("1 mail is tried now", "mails are tried now"),
            Self::RetryAnew => (
                "1 mail is tried now, and its failures are forgotten",
                "mails are tried now, and their failures are forgotten",
            ),
            Self::Hold => ("1 mail is held", "mails are held"),
            Self::Release => ("1 mail is released", "mails are released"),
            Self::Fail => ("1 mail is given up", "mails are given up"),
            Self::Drop => ("1 mail is deleted", "mails are deleted"),
            Self::Redirect => ("1 mail is redirected", "mails are redirected"),
        };
        if mails == 1 { one.into() } else { format!("{mails} {many}") }
    }
}

/// Returns what has come of an order: what it has done, and how much of its mail was gone before it could.
pub fn order_result(verb: OrderVerb, mails: u64, gone: u64) -> String {
    let told = verb.told(mails);
    match gone {
        0 => told,
        1 => format!("{told}; 1 other was delivered or given up meanwhile"),
        _ => format!("{told}; {gone} others were delivered or given up meanwhile"),
    }
}
