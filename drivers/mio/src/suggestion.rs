//! Suggests the word that a mistyped one may stand for.

/// Longer words are not mistyped keywords, and comparing them takes time.
const WORD_LIMIT_OCTETS: usize = 40;
/// Shorter words may differ by one letter, longer ones by two: with more, unrelated words would match.
const LONG_WORD_OCTETS: usize = 6;

/// Returns the known word that is nearest to `word`, if one is near. Two swapped letters count as one mistake.
pub fn nearest(word: &str, known: impl IntoIterator<Item = &'static str>) -> Option<&'static str> {
    if word.len() > WORD_LIMIT_OCTETS {
        return None;
    }
    let word = word.to_ascii_lowercase();
    let distances = known.into_iter().map(|known| (strsim::osa_distance(&word, known), known));
    let (distance, known) = distances.min()?;
    let limit = if known.len() < LONG_WORD_OCTETS { 1 } else { 2 };
    (distance <= limit).then_some(known)
}

#[cfg(test)]
mod tests;
