//! The words of the column `result`.

use cmail_delivery::tally;

/// What became of a mail, or of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Fate {
    Delivered,
    Deferred,
    Failed,
    Uncertain,
    Bounced,
    Dropped,
    /// Given up because of its age.
    Expired,
    /// Deleted by an order.
    Removed,
    /// Delivered, which a report of ours tells the sender.
    Relayed,
}

impl From<tally::Fate> for Fate {
    fn from(fate: tally::Fate) -> Self {
        match fate {
            tally::Fate::Delivered => Self::Delivered,
            tally::Fate::Bounced => Self::Bounced,
            tally::Fate::Dropped => Self::Dropped,
            tally::Fate::Expired => Self::Expired,
            tally::Fate::Removed => Self::Removed,
        }
    }
}

impl Fate {
    /// Returns the word in the column `result`.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::Deferred => "deferred",
            Self::Failed => "failed",
            Self::Uncertain => "uncertain",
            Self::Bounced => "bounced",
            Self::Dropped => "dropped",
            Self::Expired => "expired",
            Self::Removed => "removed",
            Self::Relayed => "relayed",
        }
    }
}
