//! Writes down a broken rule: in a world as simple as possible, as a transcript as short as possible.

use std::fmt::Write as _;

use super::{Options, describe, options_of, run_options, shrink};
use crate::chronicle::{Chronicle, Story};
use crate::dialogue::Dialogue;
use crate::mutation::Mutation;
use crate::transcript::replay_build;
use crate::witness::Violation;

/// Most replays of a transcript to find lines that can be left out.
const REPLAYS_LIMIT: u32 = 3000;
/// The prefix of the lines that describe the world.
const WORLD: &str = "# world ";

/// The findings about a seed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Report {
    /// The rule, and how it is broken in the simplest world.
    pub(crate) violation: Violation,
    /// The transcript.
    pub(crate) text: String,
    /// True if the transcript alone breaks the rule, too, when it is replayed.
    pub(crate) replays: bool,
}

/// Repeats the world of a seed, and reports the broken rule, if there is one. `file` is the name of the report.
pub(crate) fn report(seed: u64, hours: u32, mutation: Mutation, file: &str) -> Option<Report> {
    let options = options_of(seed, hours);
    let found = run_options(seed, options.clone(), mutation, Dialogue::Off).witness.violation?;
    let (seed, options) = shrink(seed, options, &found, mutation);
    let recorded = Dialogue::Recorded(Box::<Chronicle>::default());
    let witness = run_options(seed, options.clone(), mutation, recorded).witness;
    let violation = witness.violation?;
    let story = witness.dialogue.into_story().unwrap_or_default();
    let shortest = shortest(&story, violation.checker, mutation);
    let replays = shortest.is_some();
    let mut text = format!("# {}\n#\n", comment(&describe(&violation)));
    text.push_str(if replays {
        "# Replaying these lines breaks this rule, and so does the world that they are from:\n"
    } else {
        "# It takes more than these lines, which are from several connections that may have been open at once. This\n\
         # shows it again:\n"
    });
    let _ = writeln!(text, "# cargo run --release -p cmail-delivery-sim -- run {file} -v");
    let _ = writeln!(text, "{WORLD}seed {seed}");
    for (name, value) in options.entries() {
        let _ = writeln!(text, "{WORLD}{name} {value}");
    }
    text.push_str(&shortest.unwrap_or_else(|| whole(&story)));
    Some(Report { violation, text, replays })
}

/// Reads the world that a report is about.
pub(crate) fn read_world(text: &str) -> Result<(u64, Options), String> {
    let mut seed = None;
    let mut options = Options::default();
    for entry in text.lines().filter_map(|line| line.strip_prefix(WORLD)) {
        let (name, value) = entry.split_once(' ').ok_or_else(|| format!("{entry} has no value"))?;
        if name == "seed" {
            seed = Some(value.parse().map_err(|error| format!("seed {value}: {error}"))?);
        } else {
            options.set(name, value)?;
        }
    }
    seed.map(|seed| (seed, options)).ok_or_else(|| format!("no line begins with \"{WORLD}seed\""))
}

/// Returns the transcript that breaks the rule when it is replayed, without lines that are not needed.
fn shortest(story: &Story, checker: &str, mutation: Mutation) -> Option<String> {
    let given = story.lines.iter().filter(|line| line.is_given).map(|line| &line.text);
    let mut lines: Vec<&String> = story.scene.iter().chain(given).collect();
    let torn = torn_replies(&lines);
    let observe = |lines: &[&String]| {
        if torn_replies(lines) > torn {
            return None;
        }
        let text = lines.iter().fold(String::new(), |text, line| text + line + "\n");
        let (text, violation) = replay_build(&text, mutation).ok()?;
        violation.is_some_and(|violation| violation.checker == checker).then_some(text)
    };
    let mut shortest = observe(&lines)?;
    let mut replays = 0;
    let mut size = lines.len().div_ceil(2);
    while size > 0 && replays < REPLAYS_LIMIT {
        let mut end = lines.len();
        let mut has_helped = false;
        // From the end, so that lines after the violation go first.
        while end > 0 && replays < REPLAYS_LIMIT {
            let begin = end.saturating_sub(size);
            let without: Vec<&String> =
                lines.iter().take(begin).chain(lines.iter().skip(end)).copied().collect();
            replays += 1;
            if let Some(text) = observe(&without) {
                (lines, shortest, has_helped) = (without, text, true);
            }
            end = begin.min(lines.len());
        }
        // Without some lines others may be left out that could not be before.
        if size > 1 || !has_helped {
            size /= 2;
        }
    }
    Some(shortest)
}

/// Returns the number of replies whose lines have different codes (RFC 5321 section 4.2.1).
fn torn_replies(lines: &[&String]) -> usize {
    let is_torn = |pair: &&[&String]| {
        let [line, next] = pair else { return false };
        let reply = line.strip_prefix("S: ").and_then(|reply| reply.split_at_checked(3));
        reply.is_some_and(|(code, text)| {
            let goes_on = next.strip_prefix("S: ").is_some_and(|next| next.starts_with(code));
            text.starts_with('-') && !goes_on
        })
    };
    lines.windows(2).filter(is_torn).count()
}

/// All lines, as they were seen in the world.
fn whole(story: &Story) -> String {
    let lines = story.scene.iter().chain(story.lines.iter().map(|line| &line.text));
    lines.fold(String::new(), |text, line| text + line + "\n")
}

/// The text in one line.
fn comment(text: &str) -> String {
    text.chars().map(|character| if character.is_control() { ' ' } else { character }).collect()
}

#[cfg(test)]
mod tests;
