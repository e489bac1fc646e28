use crate::Error;

/// Scales a vector to length 1 (L2). A zero vector stays as it is.
pub fn normalize(vector: &mut [f32]) {
    // f64: the sum of a thousand squares in f32 loses the last two digits.
    let length = vector
        .iter()
        .map(|value| f64::from(*value).powi(2))
        .sum::<f64>()
        .sqrt();
    if length > 0.0 {
        for value in vector {
            #[expect(
                clippy::cast_possible_truncation,
                reason = "back to the precision it came in"
            )]
            let scaled = (f64::from(*value) / length) as f32;
            *value = scaled;
        }
    }
}

/// Keeps the first `dimensions` values, as models trained with Matryoshka loss allow; the caller normalises again.
pub fn shorten(vector: &mut Vec<f32>, dimensions: usize) -> Result<(), Error> {
    if dimensions == 0 || dimensions > vector.len() {
        return Err(Error::Dimensions {
            asked: dimensions,
            width: vector.len(),
        });
    }
    vector.truncate(dimensions);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vectors_get_length_one_and_zero_stays_zero() {
        for (given, expected) in [
            (vec![3.0, 4.0], vec![0.6, 0.8]),
            (vec![0.0, -2.0], vec![0.0, -1.0]),
            (vec![0.0, 0.0], vec![0.0, 0.0]),
            (vec![], vec![]),
        ] {
            let mut vector = given.clone();
            normalize(&mut vector);
            assert_eq!(vector, expected, "{given:?}");
        }
    }

    #[test]
    fn shortening_keeps_the_head_and_never_lengthens() {
        let mut vector = vec![1.0, 2.0, 3.0];
        assert_eq!(shorten(&mut vector, 2), Ok(()));
        assert_eq!(vector, [1.0, 2.0]);
        for asked in [0, 3] {
            assert_eq!(
                shorten(&mut vector, asked),
                Err(Error::Dimensions { asked, width: 2 })
            );
        }
    }
}
