//! What becomes of another configuration while the daemon runs.

use std::fmt;

use serde::Serialize;

use super::Config;
use super::directive::Directive;
use super::errors::ConfigWarning;
use super::table::DIRECTIVES;

/// What becomes of another value of a directive when the file is read again.
#[derive(Clone, Copy, Debug)]
pub enum OnReload {
    /// It holds from then on.
    Taken,
    /// It holds after the next start: until then the one from before does.
    AfterRestart {
        /// Puts the value from before, which comes second, in the place of the other one.
        keep: fn(&mut Config, &Config),
    },
}

/// The difference between the configuration that is in force and another one.
#[derive(Debug, Default)]
pub struct Changes {
    /// What has changed, as one sentence each.
    pub taken: Vec<Change>,
    /// What does not change before the next start.
    pub after_restart: Vec<ConfigWarning>,
}

/// Another value of a directive.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Change {
    /// The directive.
    pub directive: &'static str,
    before: String,
    after: String,
}

impl Change {
    pub(crate) fn new(directive: &'static str, before: String, after: String) -> Self {
        Self { directive, before, after }
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { directive, before, after } = self;
        write!(f, "{directive} is {after} now, it was {before}")
    }
}

impl Config {
    /// Makes `next` the configuration that is in force, but for what does not change before the next start. Returns what has
    /// changed.
    pub fn replace(&mut self, mut next: Self) -> Changes {
        let mut changes = Changes::default();
        for directive in &DIRECTIVES {
            let change = Change {
                directive: directive.name,
                before: shown(directive, self),
                after: shown(directive, &next),
            };
            let is_other = change.before != change.after;
            match directive.on_reload {
                OnReload::Taken => changes.taken.extend(is_other.then_some(change)),
                OnReload::AfterRestart { keep } => {
                    changes.after_restart.extend(is_other.then(|| next.later(change)));
                    keep(&mut next, self);
                }
            }
        }
        *self = next;
        changes
    }

    /// Returns the value of a directive, or what applies without one.
    pub(crate) fn shown(&self, name: &str) -> String {
        let directive = DIRECTIVES.iter().find(|directive| directive.name == name);
        directive.map(|directive| shown(directive, self)).unwrap_or_default()
    }

    fn later(&self, Change { directive, before, after }: Change) -> ConfigWarning {
        let line = self.directives.lines.get(directive).copied();
        let text = format!("{after} takes effect after a restart; until then it is {before}");
        ConfigWarning { file: self.file.clone(), line, directive, text }
    }
}

/// Returns the value of a directive, or what applies without one.
fn shown(directive: &Directive, config: &Config) -> String {
    (directive.show)(config).unwrap_or_else(|| directive.default.plain()).replace('\n', " / ")
}
