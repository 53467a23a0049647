//! Replaces mail data in a record by other octets that look the same on the wire.

use cmail_delivery::outbox::DATA_CHUNK_OCTETS;

/// The properties of mail data that a conversation depends on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Shape {
    /// Length as it is stored.
    octets: u64,
    /// Line ends of one octet: each becomes two.
    bare_line_ends: u64,
    /// Line ends of two octets.
    line_ends: u64,
    /// Lines that begin with a dot, which is doubled.
    dotted_lines: u64,
    /// Whether the last line has no end.
    is_unended: bool,
    has_8bit: bool,
    /// Distinguishes it from other messages: equal ones would be one transaction in a replay.
    mark: usize,
}

impl Shape {
    /// Returns the shape of a message, of which at least the beginning is known.
    pub(super) fn of(head: &[u8], octets: u64) -> Self {
        if (head.len() as u64) < octets || head.len() > DATA_CHUNK_OCTETS {
            return Self {
                octets,
                line_ends: u64::from(octets >= 2),
                is_unended: octets < 2,
                ..Self::default()
            };
        }
        let mut shape = Self { octets, has_8bit: !head.is_ascii(), ..Self::default() };
        let mut rest = head;
        while !rest.is_empty() {
            shape.dotted_lines += u64::from(rest.starts_with(b"."));
            let end = rest.iter().position(|octet| matches!(octet, b'\r' | b'\n'));
            let behind = end.and_then(|end| rest.get(end..)).unwrap_or_default();
            let line_end = match behind {
                [] => {
                    shape.is_unended = true;
                    return shape;
                }
                [b'\r', b'\n', ..] => {
                    shape.line_ends += 1;
                    2
                }
                [..] => {
                    shape.bare_line_ends += 1;
                    1
                }
            };
            rest = behind.get(line_end..).unwrap_or_default();
        }
        shape
    }

    /// Gives it a number, which makes it differ from messages with other numbers, if it is long enough.
    pub(super) fn marked(self, mark: usize) -> Self {
        Self { mark, ..self }
    }

    /// Corrects the shape of a message of which only the beginning was known, by its octets on the wire with the final dot.
    pub(super) fn sent_as(&mut self, octets: u64) {
        let added = octets.saturating_sub(self.octets + 3);
        let is_unknown = self.octets > DATA_CHUNK_OCTETS as u64;
        if is_unknown && added > 0 && added < self.octets {
            // What exactly was added does not matter: bare line ends add as much.
            (self.bare_line_ends, self.line_ends) = (added, 0);
        }
    }

    /// Writes mail data of this shape as transcripts do: strings with their repetitions.
    pub(super) fn to_text(self) -> String {
        let lines_wanted = self.dotted_lines.saturating_sub(u64::from(self.is_unended));
        let spare = lines_wanted.saturating_sub(self.bare_line_ends);
        let is_ended_by_two = !self.is_unended && self.line_ends > 0 && self.bare_line_ends == 0;
        let line_ends = spare.max(u64::from(is_ended_by_two)).min(self.line_ends);
        let lines = self.bare_line_ends + line_ends + u64::from(self.is_unended);
        let undotted = lines.saturating_sub(self.dotted_lines);
        let line_end_octets = self.bare_line_ends + 2 * line_ends;
        let mut filling = self.octets.saturating_sub(line_end_octets + self.dotted_lines);
        let has_8bit = self.has_8bit && filling > 0;
        filling -= u64::from(has_8bit);

        let mark = if self.mark > 0 { self.mark.to_string() } else { String::new() };
        let mark = if mark.len() as u64 <= filling { mark } else { String::new() };
        filling -= mark.len() as u64;

        let mut runs: Vec<(String, u64)> = Vec::new();
        let mut put = |text: &str, times: u64| {
            if times > 0 && !text.is_empty() {
                match runs.last_mut() {
                    Some((last, count)) if last == text => *count += times,
                    Some(_) | None => runs.push((text.to_owned(), times)),
                }
            }
        };
        for number in 0..lines {
            let dot = if number >= undotted { "." } else { "" };
            let line_end = if number < self.bare_line_ends {
                "\\n"
            } else if number < self.bare_line_ends + line_ends {
                "\\r\\n"
            } else {
                ""
            };
            if number + 1 == lines {
                put(dot, 1);
                put(&mark, 1);
                put("x", filling);
                put("\\xff", u64::from(has_8bit));
                put(line_end, 1);
            } else {
                put(&format!("{dot}{line_end}"), 1);
            }
        }
        if runs.is_empty() {
            return "\"\"".to_owned();
        }
        let runs = runs.iter().map(|(text, times)| match times {
            1 => format!("\"{text}\""),
            _ => format!("\"{text}\"*{times}"),
        });
        runs.collect::<Vec<_>>().join(" ")
    }
}

#[cfg(test)]
mod tests;
