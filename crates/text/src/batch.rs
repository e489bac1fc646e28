/// The tokens of one text, special tokens included.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sequence {
    pub ids: Vec<u32>,
    /// Segment of each token; as long as `ids`.
    pub types: Vec<u32>,
}

impl Sequence {
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }
}

/// Sequences padded on the right to one length, row after row, in the type that models take.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Batch {
    pub input_ids: Vec<i64>,
    /// 1 where a token is, 0 where padding is.
    pub attention_mask: Vec<i64>,
    pub token_type_ids: Vec<i64>,
    pub rows: usize,
    pub columns: usize,
}

impl Batch {
    /// Pads to the longest of the given sequences, and to `columns_min`.
    pub fn pad<'a>(
        sequences: impl IntoIterator<Item = &'a Sequence, IntoIter: Clone>,
        columns_min: usize,
        pad: u32,
    ) -> Self {
        let sequences = sequences.into_iter();
        let longest = sequences.clone().map(Sequence::len).max().unwrap_or(0);
        let columns = longest.max(columns_min);
        let mut batch = Self {
            columns,
            ..Self::default()
        };
        for sequence in sequences {
            let missing = columns - sequence.len();
            batch.rows += 1;
            fill(&mut batch.input_ids, &sequence.ids, missing, pad);
            fill(&mut batch.token_type_ids, &sequence.types, missing, 0);
            let mask = std::iter::repeat_n(1, sequence.len());
            batch.attention_mask.extend(mask);
            let mask = std::iter::repeat_n(0, missing);
            batch.attention_mask.extend(mask);
        }
        batch
    }
}

fn fill(row: &mut Vec<i64>, values: &[u32], missing: usize, pad: u32) {
    row.extend(values.iter().copied().map(i64::from));
    row.extend(std::iter::repeat_n(i64::from(pad), missing));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shorter_rows_are_padded_and_masked() {
        let sequences = [
            Sequence {
                ids: vec![5, 6, 7],
                types: vec![0, 0, 1],
            },
            Sequence {
                ids: vec![8],
                types: vec![0],
            },
        ];
        let batch = Batch::pad(&sequences, 0, 9);
        assert_eq!(
            batch,
            Batch {
                input_ids: vec![5, 6, 7, 8, 9, 9],
                attention_mask: vec![1, 1, 1, 1, 0, 0],
                token_type_ids: vec![0, 0, 1, 0, 0, 0],
                rows: 2,
                columns: 3,
            }
        );
        assert_eq!(Batch::pad(&[], 0, 0), Batch::default());
        let wide = Batch::pad(&sequences[1..], 3, 9);
        assert_eq!((wide.rows, wide.columns), (1, 3));
        assert_eq!(wide.attention_mask, [1, 0, 0]);
    }
}
