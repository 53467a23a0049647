//! Parses the octets of a configuration file to [`Directives`], and finds everything that is wrong with it.

use std::collections::BTreeMap;
use std::path::Path;

use super::directive::{Fallback, Located, Repeat};
use super::directives::Directives;
use super::errors::{ConfigError, Reason};
use super::table::DIRECTIVES;
use super::values;
use crate::suggestion::nearest;

const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();

impl Directives {
    /// Parses a configuration file, without asking this host anything. Errors name `file`.
    ///
    /// Lines with errors are left out of the result.
    pub fn parse(file: &Path, octets: &[u8]) -> (Self, Vec<ConfigError>) {
        let mut errors = Vec::new();
        let mut directives = Self::with_defaults(&mut errors);
        let mut first_lines = BTreeMap::new();
        // Some editors begin a file with this mark, which is invisible.
        let octets = octets.strip_prefix(BYTE_ORDER_MARK).unwrap_or(octets);
        for (octets, line) in octets.split(|&octet| octet == b'\n').zip(1..) {
            // A comment may hold anything, even octets that are not UTF-8.
            let code = octets.split(|&octet| octet == b'#').next().unwrap_or_default();
            let code = match str::from_utf8(code) {
                Ok(code) => code.trim_matches(values::is_white_space),
                Err(_) => {
                    errors.push(ConfigError::new(file, Some(line), name_of(code), Reason::NotUtf8));
                    continue;
                }
            };
            if code.is_empty() {
                continue;
            }
            let (name, value) = code.split_once(values::is_white_space).unwrap_or((code, ""));
            let value = Located { line, value: value.trim_start_matches(values::is_white_space) };
            if let Err(reason) = directives.read_line(name, value, &mut first_lines) {
                errors.push(ConfigError::new(file, Some(line), name, reason));
            }
        }
        for directive in DIRECTIVES.iter().filter(|directive| directive.default == Fallback::Required) {
            if !first_lines.contains_key(directive.name) {
                errors.push(ConfigError::new(file, None, directive.name, Reason::Missing));
            }
        }
        (directives, errors)
    }

    /// Returns the defaults. The values of the table are parsed like those of a file.
    fn with_defaults(errors: &mut Vec<ConfigError>) -> Self {
        let mut directives = Self::default();
        for directive in &DIRECTIVES {
            if let Fallback::Value(value) = directive.default {
                let read = directive.kind.read(&mut directives, Located { line: 0, value });
                if let Err(reason) = read {
                    errors.push(ConfigError::new(
                        Path::new("built-in default"),
                        None,
                        directive.name,
                        reason.into(),
                    ));
                }
            }
        }
        directives
    }

    fn read_line(
        &mut self,
        name: &str,
        value: Located<&str>,
        first_lines: &mut BTreeMap<&'static str, usize>,
    ) -> Result<(), Reason> {
        let directive = DIRECTIVES.iter().find(|directive| directive.name == name).ok_or_else(|| {
            let names = DIRECTIVES.iter().map(|directive| directive.name);
            Reason::UnknownDirective { meant: nearest(name, names) }
        })?;
        let first_line = *first_lines.entry(directive.name).or_insert(value.line);
        if value.value.is_empty() {
            return Err(Reason::MissingValue);
        }
        if directive.repeat == Repeat::Refused && first_line != value.line {
            return Err(Reason::Repeated { first_line });
        }
        directive.kind.read(self, value)?;
        self.lines.insert(directive.name, value.line);
        Ok(())
    }
}

/// Returns the name of a directive whose line is not UTF-8; empty if the name is not UTF-8 either.
fn name_of(code: &[u8]) -> &str {
    let mut words = code.split(|&octet| values::is_white_space(octet.into()));
    let name = words.find(|word| !word.is_empty()).unwrap_or_default();
    str::from_utf8(name).unwrap_or_default()
}
