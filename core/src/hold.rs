//! Mail that is held: it is not tried, its sender is not told that it is late, and it is not given up, until it is released.
//!
//! Mail is held by an order of the administrator, because it may have arrived already, or by a line of the configuration. Of the first
//! two the database tells; the lines are asked of each mail anew, so that mail is held as long as a line is there that is about it.

use alloc::boxed::Box;
use core::fmt;

use crate::mail_pattern::MailPattern;
use crate::next_hop::NextHop;
use crate::time::UnixTime;

/// Identifies a hold of the database: the number of the order that has made it, or [`UNCERTAIN`](Self::UNCERTAIN).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HoldId(pub i64);

impl HoldId {
    /// The hold of mail that may have arrived already. Orders have numbers above 0.
    pub const UNCERTAIN: Self = Self(-1);
}

/// What the database says of the holds of a mail.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hold {
    /// Whether it is held.
    pub state: HoldState,
    /// When a hold of it has ended for the last time. Its age by retry rules counts from then.
    pub released: Option<UnixTime>,
}

/// Whether a mail is held, as far as the database knows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HoldState {
    /// Nothing is known of it: the lines decide.
    #[default]
    Unset,
    /// It is held.
    Held(HoldId),
    /// An order has named it and released it: no line holds it either.
    Exempt,
}

impl Hold {
    /// Returns what is known of a mail once it is held, after this.
    pub fn by(self, hold: HoldId) -> Self {
        Self { state: HoldState::Held(hold), ..self }
    }

    /// Returns whether the database says that the mail is held.
    pub fn is_held(self) -> bool {
        matches!(self.state, HoldState::Held(_))
    }
}

/// By what a mail is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum HeldBy {
    /// By this hold of the database.
    Hold(HoldId),
    /// By the line of this number in the configuration file.
    Line(u32),
}

/// A line of the administrator that holds mail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HoldLine {
    /// The mail that it holds.
    pub mail: MailPattern,
    /// Why.
    pub reason: Box<str>,
    /// Its line in the configuration file, from 1.
    pub line: u32,
}

impl HoldLine {
    /// Returns whether the line is about mail of this sender, on its way to this next hop.
    pub fn is_about(&self, next_hop: Option<&NextHop>, sender: Option<&[u8]>) -> bool {
        self.mail.matches(next_hop, sender)
    }

    /// Returns whether no mail is left that another line would hold, which comes after this one.
    pub fn leaves_nothing_to(&self, other: &Self) -> bool {
        self.mail == MailPattern::All || self.mail == other.mail
    }

    /// Returns its name and its reason, as what holds mail.
    pub fn named(&self) -> impl fmt::Display + '_ {
        Named(self)
    }
}

impl fmt::Display for HoldLine {
    /// Writes the value of the directive.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.mail, self.reason)
    }
}

struct Named<'a>(&'a HoldLine);

impl fmt::Display for Named<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(HoldLine { mail, reason, line }) = self;
        write!(f, "line {line} of the configuration (hold {mail}): {reason}")
    }
}
