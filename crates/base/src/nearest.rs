/// Nobody misspells a name of this length; comparing costs memory and time by the product of the lengths.
const WORD_BYTES_MAX: usize = 128;

/// The candidate that `word` is most likely a slip of, if any is close enough to be worth suggesting.
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    if word.len() > WORD_BYTES_MAX {
        return None;
    }
    let length = word.chars().count();
    let allowed = 1 + length / 4;
    let word = word.to_lowercase();
    candidates
        .into_iter()
        // Every character too many or too few is one change, so the others cannot be near.
        .filter(|candidate| candidate.chars().count().abs_diff(length) <= allowed)
        .map(|candidate| (distance(&word, &candidate.to_lowercase()), candidate))
        .filter(|(distance, _)| *distance <= allowed)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Levenshtein distance in characters, with a swap of neighbours counted as one (optimal string alignment).
fn distance(left: &str, right: &str) -> usize {
    let left: Vec<char> = left.chars().collect();
    let right: Vec<char> = right.chars().collect();
    let mut rows = vec![vec![0; right.len() + 1]; left.len() + 1];
    for (i, row) in rows.iter_mut().enumerate() {
        row[0] = i;
    }
    for (j, cell) in rows[0].iter_mut().enumerate() {
        *cell = j;
    }
    for i in 1..=left.len() {
        for j in 1..=right.len() {
            let substitution = rows[i - 1][j - 1] + usize::from(left[i - 1] != right[j - 1]);
            let mut best = substitution.min(rows[i - 1][j] + 1).min(rows[i][j - 1] + 1);
            if i > 1 && j > 1 && left[i - 1] == right[j - 2] && left[i - 2] == right[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            rows[i][j] = best;
        }
    }
    rows[left.len()][right.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suggests_slips_and_nothing_else() {
        let fields = ["url", "models", "timeout_ms", "process"];
        for (word, expected) in [
            ("model", Some("models")),
            ("tiemout_ms", Some("timeout_ms")),
            ("URL", Some("url")),
            ("banana", None),
        ] {
            assert_eq!(nearest(word, fields), expected, "{word}");
        }
    }

    #[test]
    fn what_nobody_types_costs_nothing() {
        let short = "m".repeat(WORD_BYTES_MAX);
        let long = format!("{short}m");
        assert_eq!(nearest(&long, [long.as_str()]), None);
        assert_eq!(nearest(&short, [long.as_str()]), Some(long.as_str()));
    }
}
