//! What an order does, and to which mail: the columns `verb`, `argument` and `scope` of the table `dispatch_orders`.

use std::borrow::Cow;

use cmail_delivery::next_hop::Relay;
use cmail_delivery::order::{OrderEffect, OrderId, OrderVerb, order_result};
use cmail_delivery::time::UnixMillis;
use serde_json::{Value, json};
use thiserror::Error;

use super::forgotten::ForgottenAddress;
use super::holds::HoldRule;
use crate::selection::Selection;

/// The mail that an order is about. As JSON it is an object that says so: nothing at all never means all mail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Scope {
    /// All mail of a hold.
    Hold {
        /// Its `hold_id`, which is the number of the order that made it.
        hold: i64,
    },
    /// Mail that fits a rule, and the rule.
    Rule(HoldRule),
    /// This mail.
    Mails(Selection),
    /// What is recorded of an address, and no mail.
    Address(ForgottenAddress),
}

/// The scope of all mail.
pub(super) const ALL_MAIL: &str = r#"{"all":true}"#;

impl Scope {
    /// Returns the value of the column `scope`.
    pub(super) fn to_json(&self) -> String {
        let json = match self {
            Self::Hold { hold } => Ok(json!({ "hold": hold }).to_string()),
            Self::Rule(rule) => serde_json::to_string(rule),
            Self::Address(address) => Ok(json!({ "address": address.as_str() }).to_string()),
            Self::Mails(selection) if *selection == Selection::default() => Ok(ALL_MAIL.to_owned()),
            Self::Mails(selection) => serde_json::to_string(selection),
        };
        json.unwrap_or_default()
    }

    pub(super) fn parse(text: &str) -> Result<Self, WrongOrder> {
        let value: Value = serde_json::from_str(text).map_err(WrongOrder::Scope)?;
        if value == json!({ "all": true }) {
            return Ok(Self::Mails(Selection::default()));
        }
        let Value::Object(fields) = &value else { return Err(WrongOrder::NoObject) };
        let selects_nothing = |value: &Value| value.is_null() || value.as_array().is_some_and(Vec::is_empty);
        if fields.is_empty() || fields.values().any(selects_nothing) {
            return Err(WrongOrder::Nothing);
        }
        if let Some(hold) = fields.get("hold").filter(|_| fields.len() == 1) {
            return hold.as_i64().map(|hold| Self::Hold { hold }).ok_or(WrongOrder::Nothing);
        }
        if let Some(address) = fields.get("address").filter(|_| fields.len() == 1) {
            let parsed = address.as_str().and_then(ForgottenAddress::parse);
            return parsed.map(Self::Address).ok_or(WrongOrder::Address);
        }
        let is_rule = ["destination", "from", "line"].iter().any(|name| fields.contains_key(*name));
        let parsed = if is_rule {
            serde_json::from_value(value).map(Self::Rule)
        } else {
            serde_json::from_value(value).map(Self::Mails)
        };
        parsed.map_err(WrongOrder::Scope)
    }
}

/// Why an order cannot be carried out.
#[derive(Debug, Error)]
pub(super) enum WrongOrder {
    #[error("dispatch_holds has a row with the number of this order, {0}, already; give it again")]
    NumberTaken(OrderId),
    #[error("its row cannot be read: {0}")]
    Row(String),
    #[error("the scope must be an object, like {{\"ids\":[7]}} or {{\"domain\":\"example.org\"}}")]
    NoObject,
    #[error("the scope selects nothing; {{\"all\":true}} is all mail")]
    Nothing,
    #[error("the scope must name one whole mail address, like {{\"address\":\"bob@example.org\"}}")]
    Address,
    #[error("`{verb}` is no order about {what}")]
    Mismatch { verb: &'static str, what: &'static str },
    #[error("`{0}` is no order")]
    Verb(String),
    #[error("the scope is no selection of mail: {0}")]
    Scope(serde_json::Error),
    #[error("`{0}` is no argument of this order")]
    Argument(String),
    #[error("the remote specification {0}")]
    Remote(String),
}

/// What an order does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Act {
    /// Try mail now, and perhaps forget its failures.
    Retry { anew: bool },
    /// Hold it, perhaps until a time.
    Hold { until: Option<UnixMillis> },
    /// End that; of a rule, only the hold of this number.
    Release { hold: Option<i64> },
    /// Give it up.
    Fail,
    /// Delete it.
    Drop,
    /// Change its `mail_remote`.
    Redirect { remote: Option<String> },
    /// Blank an address in what is recorded.
    Forget,
}

impl Act {
    /// What a line of the configuration has held is released: the line is gone, and no hold of the database ends.
    pub(super) const LINE_ENDED: Self = Self::Release { hold: Some(0) };

    /// Returns the values of the columns `verb` and `argument`.
    pub(super) fn columns(&self) -> (&'static str, Option<Cow<'_, str>>) {
        match self {
            Self::Retry { anew } => ("retry", anew.then_some("forget".into())),
            Self::Hold { until } => ("hold", until.map(|until| until.0.to_string().into())),
            Self::Release { hold } => ("release", hold.map(|hold| hold.to_string().into())),
            Self::Fail => ("fail", None),
            Self::Drop => ("drop", None),
            Self::Forget => ("forget", None),
            Self::Redirect { remote } => ("redirect", remote.as_deref().map(Cow::Borrowed)),
        }
    }

    pub(super) fn parse(verb: &str, argument: Option<String>) -> Result<Self, WrongOrder> {
        let act = match (verb, argument) {
            ("retry", Some(argument)) if argument == "forget" => return Ok(Self::Retry { anew: true }),
            ("hold", Some(argument)) => {
                let until = argument.parse().map(UnixMillis).map_err(|_| WrongOrder::Argument(argument))?;
                return Ok(Self::Hold { until: Some(until) });
            }
            ("redirect", remote) => {
                if let Some(Err(error)) = remote.as_ref().map(|remote| Relay::parse(remote.as_bytes())) {
                    return Err(WrongOrder::Remote(error.to_string()));
                }
                return Ok(Self::Redirect { remote });
            }
            ("release", Some(argument)) => {
                let hold = argument.parse().map_err(|_| WrongOrder::Argument(argument))?;
                return Ok(Self::Release { hold: Some(hold) });
            }
            ("retry", None) => Self::Retry { anew: false },
            ("hold", None) => Self::Hold { until: None },
            ("release", None) => Self::Release { hold: None },
            ("fail", None) => Self::Fail,
            ("drop", None) => Self::Drop,
            ("forget", None) => Self::Forget,
            ("retry" | "fail" | "drop" | "forget", Some(argument)) => {
                return Err(WrongOrder::Argument(argument));
            }
            (verb, _) => return Err(WrongOrder::Verb(verb.to_owned())),
        };
        Ok(act)
    }

    /// Refuses a scope that this cannot be about.
    pub(super) fn about(self, scope: Scope) -> Result<(Self, Scope), WrongOrder> {
        let verb = self.columns().0;
        match (&self, &scope) {
            (Self::Forget, Scope::Address(_)) => Ok((self, scope)),
            (Self::Forget, _) => Err(WrongOrder::Address),
            (_, Scope::Address(_)) => Err(WrongOrder::Mismatch { verb, what: "what is recorded" }),
            _ => Ok((self, scope)),
        }
    }

    /// Returns the name of the verb.
    pub(crate) fn name(&self) -> &'static str {
        self.columns().0
    }

    /// Returns what the dispatcher does with the mail.
    pub(super) fn effect(&self) -> OrderEffect {
        self.verb().map_or(OrderEffect::NoMail, OrderVerb::effect)
    }

    /// Returns what has come of the order: how many mails or rows it has changed, and how many were gone before.
    pub(super) fn result(&self, changed: u64, gone: u64) -> String {
        match (self.verb(), changed) {
            (Some(verb), _) => order_result(verb, changed, gone),
            (None, 1) => "1 row is blanked".to_owned(),
            (None, _) => format!("{changed} rows are blanked"),
        }
    }

    /// Returns what is done to mail, if the order is about mail.
    fn verb(&self) -> Option<OrderVerb> {
        Some(match self {
            Self::Retry { anew: false } => OrderVerb::Retry,
            Self::Retry { anew: true } => OrderVerb::RetryAnew,
            Self::Hold { .. } => OrderVerb::Hold,
            Self::Release { .. } => OrderVerb::Release,
            Self::Fail => OrderVerb::Fail,
            Self::Drop => OrderVerb::Drop,
            Self::Redirect { .. } => OrderVerb::Redirect,
            Self::Forget => return None,
        })
    }
}
