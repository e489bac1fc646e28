use text::Sequence;

/// Beyond this a larger batch gains nothing on a CPU: per text, 32 short ones cost two thirds of one alone, and the
/// curve is flat from there (MiniLM, measured).
const ROWS_MAX: usize = 32;

/// Padded tokens of one call: about a quarter of a second of MiniLM on one core, so that calls of others get their turn.
const TOKENS_MAX: usize = 1024;

/// Rows of each sub-batch. Sorted by length, so that little is padding; a text longer than the bound goes alone.
pub(super) fn split(sequences: &[Sequence]) -> Vec<Vec<usize>> {
    let mut order: Vec<usize> = (0..sequences.len()).collect();
    // Longest first: when lanes run side by side, the last ones to finish are short.
    order.sort_by_key(|row| std::cmp::Reverse(sequences[*row].len()));
    let mut batches: Vec<Vec<usize>> = Vec::new();
    for row in order {
        match batches.last_mut() {
            Some(batch) if fits(batch, sequences) => batch.push(row),
            _ => batches.push(vec![row]),
        }
    }
    batches
}

/// Whether one more row, no longer than the first, stays within the bounds.
fn fits(batch: &[usize], sequences: &[Sequence]) -> bool {
    let columns = batch.first().map_or(0, |row| sequences[*row].len());
    batch.len() < ROWS_MAX && (batch.len() + 1).saturating_mul(columns) <= TOKENS_MAX
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_of_one_length_share_a_batch_and_none_is_lost() {
        let lengths = [3, 2000, 40, 40, 5, 1, 500, 500, 500]
            .into_iter()
            .chain(std::iter::repeat_n(7, 70));
        let sequences: Vec<_> = lengths
            .map(|length| Sequence {
                ids: vec![1; length],
                types: vec![0; length],
            })
            .collect();
        let batches = split(&sequences);
        let mut rows: Vec<usize> = batches.iter().flatten().copied().collect();
        rows.sort_unstable();
        assert_eq!(rows, (0..sequences.len()).collect::<Vec<_>>());
        for batch in &batches {
            let columns = batch.iter().map(|row| sequences[*row].len()).max();
            let padded = columns.unwrap_or(0) * batch.len();
            assert!(batch.len() == 1 || (padded <= TOKENS_MAX && batch.len() <= ROWS_MAX));
        }
        assert_eq!(batches[0], [1]);
        assert_eq!(batches[1].len(), 2);
        assert_eq!(split(&[]), Vec::<Vec<usize>>::new());
    }
}
