use protocol::sidecar::Pooling;

use crate::Error;

/// A model's hidden states: `rows` texts of `columns` tokens of `width` values, in that order of nesting.
#[derive(Debug, Clone, Copy)]
pub struct Hidden<'a> {
    pub values: &'a [f32],
    pub rows: usize,
    /// 1 when the model has pooled already.
    pub columns: usize,
    pub width: usize,
}

/// One vector per text. `mask` is the batch's attention mask: 1 where a token is, 0 where padding is.
pub fn pool(hidden: Hidden<'_>, mask: &[i64], pooling: Pooling) -> Result<Vec<Vec<f32>>, Error> {
    let Hidden {
        values,
        rows,
        columns,
        width,
    } = hidden;
    let expected = rows.saturating_mul(columns).saturating_mul(width);
    let masked = pooling != Pooling::None;
    if values.len() != expected || (masked && mask.len() != rows * columns) {
        return Err(Error::Shape {
            found: values.len(),
            expected,
        });
    }
    if !masked && columns != 1 {
        // Not an average that nobody asked for: the sidecar says that the model pools.
        return Err(Error::Shape {
            found: values.len(),
            expected: rows * width,
        });
    }
    if expected == 0 {
        return Ok(vec![vec![0.0; width]; rows]);
    }
    let mut vectors = Vec::with_capacity(rows);
    for (row, tokens) in values.chunks_exact(columns * width).enumerate() {
        let mask = if masked {
            &mask[row * columns..(row + 1) * columns]
        } else {
            &[]
        };
        let token = |index: usize| tokens[index * width..(index + 1) * width].to_vec();
        vectors.push(match pooling {
            Pooling::Mean => mean(tokens, mask, width),
            Pooling::Cls | Pooling::None => token(0),
            Pooling::Last => token(mask.iter().rposition(|seen| *seen != 0).unwrap_or(0)),
        });
    }
    Ok(vectors)
}

fn mean(tokens: &[f32], mask: &[i64], width: usize) -> Vec<f32> {
    let mut sum = vec![0.0_f32; width];
    let mut count = 0.0_f32;
    for (token, seen) in tokens.chunks_exact(width).zip(mask) {
        if *seen != 0 {
            count += 1.0;
            for (sum, value) in sum.iter_mut().zip(token) {
                *sum += value;
            }
        }
    }
    for sum in &mut sum {
        *sum /= count.max(1.0);
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two texts of three tokens of two values; the second text has one token and two of padding.
    const VALUES: [f32; 12] = [
        1.0, 2.0, 3.0, 4.0, 5.0, 9.0, 7.0, 8.0, 100.0, 100.0, 100.0, 100.0,
    ];
    const MASK: [i64; 6] = [1, 1, 1, 1, 0, 0];

    fn hidden(columns: usize) -> Hidden<'static> {
        Hidden {
            values: &VALUES,
            rows: VALUES.len() / columns / 2,
            columns,
            width: 2,
        }
    }

    #[test]
    fn padding_never_counts() {
        for (pooling, expected) in [
            (Pooling::Mean, [[3.0, 5.0], [7.0, 8.0]]),
            (Pooling::Cls, [[1.0, 2.0], [7.0, 8.0]]),
            (Pooling::Last, [[5.0, 9.0], [7.0, 8.0]]),
        ] {
            let vectors = pool(hidden(3), &MASK, pooling).expect("fits");
            assert_eq!(vectors, expected, "{pooling:?}");
        }
    }

    #[test]
    fn a_model_that_pools_is_taken_at_its_word() {
        let vectors = pool(hidden(1), &MASK, Pooling::None).expect("fits");
        assert_eq!(vectors.len(), 6);
        assert_eq!(vectors[5], [100.0, 100.0]);
        assert!(pool(hidden(3), &MASK, Pooling::None).is_err());
    }

    #[test]
    fn an_output_that_contradicts_the_batch_is_an_error() {
        let short = Hidden {
            values: &VALUES[1..],
            ..hidden(3)
        };
        for (hidden, mask) in [(short, &MASK[..]), (hidden(3), &MASK[1..])] {
            assert!(pool(hidden, mask, Pooling::Mean).is_err());
        }
        let empty = Hidden {
            values: &[],
            rows: 0,
            columns: 0,
            width: 2,
        };
        assert_eq!(pool(empty, &[], Pooling::Mean), Ok(vec![]));
    }
}
