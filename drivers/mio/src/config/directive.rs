//! What is known of a directive: its name, the type of its value, its default, and what another value means.

use super::directives::Directives;
use super::values::{self, ValueError};
use super::{Config, OnReload};

/// A directive of the configuration file.
#[derive(Clone, Copy, Debug)]
pub struct Directive {
    /// Its exact name.
    pub name: &'static str,
    /// The type of its value, and how to store it.
    pub kind: Kind,
    /// What applies without it.
    pub default: Fallback,
    /// What it means to give it more than once.
    pub repeat: Repeat,
    /// What becomes of another value when the file is read again.
    pub on_reload: OnReload,
    /// Its purpose: sentences for the manual, in Markdown.
    pub help: &'static str,
    /// Returns the effective value in the form that the parser reads, if there is one: a line for each line of the file.
    pub(super) show: fn(&Config) -> Option<String>,
}

/// The value of a directive.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// A decimal number.
    Number {
        /// What the manual calls it.
        shape: &'static str,
        /// The smallest value.
        min: u32,
        /// The largest value, such that nothing computed from it can overflow.
        max: u32,
        /// Stores it.
        set: fn(&mut Directives, u32),
    },
    /// A number of seconds.
    Seconds {
        /// The smallest value.
        min: u32,
        /// The largest value, such that nothing computed from it can overflow.
        max: u32,
        /// Stores it.
        set: fn(&mut Directives, u32),
    },
    /// Anything else.
    Text {
        /// What the manual calls it.
        shape: &'static str,
        /// Parses and stores it.
        set: fn(&mut Directives, Located<&str>) -> Result<(), ValueError>,
    },
}

/// What applies where a directive is not given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fallback {
    /// This value, which is parsed as if the file had it.
    Value(&'static str),
    /// A value that this text describes.
    Described(&'static str),
    /// Nothing: the directive must be given.
    Required,
}

impl Fallback {
    /// Returns it in plain text; nothing if the directive must be given.
    pub(super) fn plain(self) -> String {
        match self {
            Self::Value(text) | Self::Described(text) => text.replace('`', ""),
            Self::Required => String::new(),
        }
    }
}

/// What it means to give a directive more than once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repeat {
    /// The last one holds.
    LastHolds,
    /// The values of all lines hold together.
    Cumulative,
    /// It is an error.
    Refused,
}

/// A value and its line in the configuration file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Located<T> {
    /// Counted from 1.
    pub line: usize,
    /// The value.
    pub value: T,
}

impl Kind {
    /// What the manual calls the value.
    pub fn shape(&self) -> &'static str {
        match self {
            Self::Number { shape, .. } | Self::Text { shape, .. } => shape,
            Self::Seconds { .. } => "SECONDS",
        }
    }

    /// Parses `text` and stores the value.
    pub(super) fn read(&self, to: &mut Directives, text: Located<&str>) -> Result<(), ValueError> {
        match self {
            Self::Number { min, max, set, .. } => set(to, values::number(text.value, *min, *max)?),
            Self::Seconds { min, max, set } => set(to, values::seconds(text.value, *min, *max)?),
            Self::Text { set, .. } => set(to, text)?,
        }
        Ok(())
    }
}
