use text::Sequence;

/// Beyond this a larger batch gains nothing on a CPU: per text, 32 short ones cost two thirds of one alone, and the
/// curve is flat from there (MiniLM, measured).
const ROWS_MAX: usize = 32;

/// Padded tokens of one call: about a quarter of a second of MiniLM on one core, so that calls of others get their turn.
const TOKENS_MAX: usize = 1024;

/// What a model's token inputs leave open.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Form {
    /// Rows of every call, where the model fixes them.
    pub(super) rows: Option<usize>,
    /// Columns of every call, where the model fixes them.
    pub(super) columns: Option<usize>,
    /// Rows that the configuration allows.
    pub(super) rows_max: Option<usize>,
}

/// Rows of each sub-batch. Sorted by length, so that little is padding; a text longer than the bound goes alone.
pub(super) fn split(sequences: &[Sequence], form: Form) -> Vec<Vec<usize>> {
    let mut order: Vec<usize> = (0..sequences.len()).collect();
    // Longest first: when lanes run side by side, the last ones to finish are short.
    order.sort_by_key(|row| std::cmp::Reverse(sequences[*row].len()));
    let mut batches: Vec<Vec<usize>> = Vec::new();
    for row in order {
        match batches.last_mut() {
            Some(batch) if fits(batch, sequences, form) => batch.push(row),
            _ => batches.push(vec![row]),
        }
    }
    batches
}

/// Whether one more row, no longer than the first, stays within the bounds.
fn fits(batch: &[usize], sequences: &[Sequence], form: Form) -> bool {
    if let Some(rows) = form.rows {
        // A row left empty costs what a text costs.
        return batch.len() < rows;
    }
    let longest = batch.first().map_or(0, |row| sequences[*row].len());
    let columns = form.columns.unwrap_or(longest);
    let rows_max = form.rows_max.unwrap_or(ROWS_MAX).min(ROWS_MAX);
    batch.len() < rows_max && (batch.len() + 1).saturating_mul(columns) <= TOKENS_MAX
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
        let batches = split(&sequences, Form::default());
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
        assert_eq!(split(&[], Form::default()), Vec::<Vec<usize>>::new());
    }

    #[test]
    fn what_the_model_fixes_bounds_a_batch() {
        let sequences = vec![
            Sequence {
                ids: vec![1; 3],
                types: vec![0; 3],
            };
            70
        ];
        let form = |rows, columns, rows_max| Form {
            rows,
            columns,
            rows_max,
        };
        for (form, largest) in [
            (Form::default(), 32),
            (form(None, None, Some(4)), 4),
            (form(None, None, Some(64)), 32),
            (form(Some(1), None, None), 1),
            (form(Some(50), Some(512), None), 50),
            (form(None, Some(128), None), 8),
            (form(None, Some(4096), None), 1),
        ] {
            let batches = split(&sequences, form);
            assert_eq!(batches[0].len(), largest, "{form:?}");
            assert_eq!(batches.iter().map(Vec::len).sum::<usize>(), 70);
        }
    }
}
