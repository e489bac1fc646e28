//! The classification extension: an output said as its best classes instead of its numbers.

use std::cmp::Ordering;
use std::fmt::Display;
use std::fs;
use std::path::Path;

use protocol::oip::proto::ModelConfig;
use protocol::tensor::encode_bytes_elements;
use protocol::{DataType, Parameter, RequestedOutput, Tensor};

use crate::error::Error;

/// In one row, as with Triton: ranking is work that a request asks for with one number.
const CLASSES_MAX: usize = 1_000_000;

/// The names of each output's classes, in the configuration's order of outputs; empty where there are none.
#[derive(Debug, Clone, Default)]
pub(crate) struct Labels(Vec<Vec<String>>);

impl Labels {
    /// Reads each output's `label_filename`, one name a line. The error is for people.
    pub(crate) fn read(folder: &Path, config: &ModelConfig) -> Result<Self, String> {
        let mut all = Vec::with_capacity(config.output.len());
        for output in &config.output {
            let file = &output.label_filename;
            if file.is_empty() {
                all.push(Vec::new());
                continue;
            }
            let text = fs::read_to_string(folder.join(file)).map_err(|error| {
                format!(
                    "cannot read `{file}`, the labels of output `{}`: {error}",
                    output.name
                )
            })?;
            all.push(text.lines().map(str::to_owned).collect());
        }
        Ok(Self(all))
    }

    fn of(&self, output: usize) -> &[String] {
        self.0.get(output).map_or(&[], Vec::as_slice)
    }
}

/// How many classes of an output are wanted; none for the output itself.
pub(crate) fn asked(output: &RequestedOutput) -> Result<Option<usize>, Error> {
    let count = match output.parameters.get("classification") {
        None => return Ok(None),
        Some(Parameter::Int(count)) => u64::try_from(*count).ok(),
        Some(Parameter::Uint(count)) => Some(*count),
        Some(Parameter::Bool(_) | Parameter::Double(_) | Parameter::Text(_)) => None,
    };
    let Some(count) = count else {
        let message = format!(
            "output `{}`: parameter `classification` must be an unsigned integer",
            output.name
        );
        return Err(Error::request("outputs", message));
    };
    let count = usize::try_from(count).unwrap_or(usize::MAX);
    Ok((count > 0).then_some(count))
}

/// Triton's own words.
pub(crate) fn supported(dtype: DataType) -> Result<(), Error> {
    if !matches!(
        dtype,
        DataType::Bool | DataType::Fp16 | DataType::Bf16 | DataType::Bytes
    ) {
        return Ok(());
    }
    let message =
        format!("class result not available for output due to unsupported type '{dtype}'");
    Err(Error::request("outputs", message))
}

/// The best `count` classes of each row, best first, as `score:index` or `score:index:label`; all when there are fewer.
/// Equal scores are in the order of their classes.
pub(crate) fn classify(
    tensor: &Tensor,
    count: usize,
    batched: bool,
    (labels, output): (&Labels, usize),
) -> Result<Tensor, Error> {
    let labels = labels.of(output);
    supported(tensor.dtype)?;
    let rows = match tensor.shape.first() {
        Some(rows) if batched => *rows,
        _ => 1,
    };
    let classes = tensor.element_count().checked_div(rows).unwrap_or(0);
    if classes > CLASSES_MAX {
        let message = format!(
            "classification output tensor too large: output `{}` has {classes} classes, at most {CLASSES_MAX} are ranked",
            tensor.name
        );
        return Err(Error::request("outputs", message));
    }
    let best = match tensor.dtype {
        DataType::Uint8 => best::<u8>,
        DataType::Uint16 => best::<u16>,
        DataType::Uint32 => best::<u32>,
        DataType::Uint64 => best::<u64>,
        DataType::Int8 => best::<i8>,
        DataType::Int16 => best::<i16>,
        DataType::Int32 => best::<i32>,
        DataType::Int64 => best::<i64>,
        DataType::Fp32 => best::<f32>,
        _ => best::<f64>,
    };
    let texts = best(&tensor.data, classes, count, labels);
    let mut shape = vec![count.min(classes)];
    if batched {
        shape.insert(0, rows);
    }
    let data = encode_bytes_elements(texts).unwrap_or_default();
    Tensor::new(tensor.name.clone(), DataType::Bytes, shape, data.into()).map_err(|error| {
        let message = format!("output `{}` cannot be classified: {error}", tensor.name);
        Error::request("outputs", message)
    })
}

/// A number that classes are ranked by; engines' bytes need not be aligned for it.
trait Score: bytemuck::Pod + PartialOrd {
    /// As C's `printf` has it: whole numbers plain, others with six decimals.
    fn text(self) -> String;
}

macro_rules! scores {
    ($($kind:ty => $text:expr),*) => {
        $(impl Score for $kind {
            fn text(self) -> String {
                let text: fn(Self) -> String = $text;
                text(self)
            }
        })*
    };
}

scores!(
    u8 => whole, u16 => whole, u32 => whole, u64 => whole,
    i8 => whole, i16 => whole, i32 => whole, i64 => whole,
    f32 => |score| real(score.into()), f64 => real
);

fn whole(score: impl Display) -> String {
    score.to_string()
}

fn real(score: f64) -> String {
    if score.is_nan() {
        return "nan".to_owned();
    }
    format!("{score:.6}")
}

fn best<T: Score>(data: &[u8], classes: usize, count: usize, labels: &[String]) -> Vec<String> {
    let elements = data.chunks_exact(size_of::<T>());
    let scores: Vec<T> = elements.map(bytemuck::pod_read_unaligned).collect();
    let mut texts = Vec::new();
    for row in scores.chunks_exact(classes.max(1)) {
        let mut ranked: Vec<(usize, T)> = row.iter().copied().enumerate().collect();
        let order = |(one, score): &(usize, T), (other, rival): &(usize, T)| {
            rank(*score, *rival).then(one.cmp(other))
        };
        if count < ranked.len() {
            // Sorting all of a wide output for its best five would cost more than the model.
            ranked.select_nth_unstable_by(count, order);
            ranked.truncate(count);
        }
        ranked.sort_unstable_by(order);
        for (class, score) in ranked {
            let mut text = format!("{}:{class}", score.text());
            if let Some(label) = labels.get(class) {
                text.push(':');
                text.push_str(label);
            }
            texts.push(text);
        }
    }
    texts
}

/// Highest first; what is no number comes last.
fn rank<T: PartialOrd>(score: T, rival: T) -> Ordering {
    let number = |score: &T| score.partial_cmp(score).is_some();
    rival
        .partial_cmp(&score)
        .unwrap_or_else(|| number(&rival).cmp(&number(&score)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(tensor: &Tensor) -> Vec<String> {
        protocol::tensor::BytesElements::new(&tensor.data)
            .map(|text| String::from_utf8_lossy(text.expect("whole")).into_owned())
            .collect()
    }

    #[test]
    fn the_best_classes_of_each_row_come_first_with_their_labels() {
        let scores = vec![0.25_f32, f32::NAN, 1.5, 0.25, -1.0, 0.0, 2.0, 1.0];
        let tensor = Tensor::from_elements("y", DataType::Fp32, vec![2, 4], scores);
        let tensor = tensor.expect("eight");
        let labels = Labels(vec![vec![
            "cat".to_owned(),
            "dog".to_owned(),
            "ant".to_owned(),
        ]]);
        for (count, batched, shape, expected) in [
            (
                2,
                true,
                &[2, 2][..],
                &[
                    "1.500000:2:ant",
                    "0.250000:0:cat",
                    "2.000000:2:ant",
                    "1.000000:3",
                ][..],
            ),
            (1, false, &[1], &["2.000000:6"]),
            (
                9,
                true,
                &[2, 4],
                &[
                    "1.500000:2:ant",
                    "0.250000:0:cat",
                    "0.250000:3",
                    "nan:1:dog",
                    "2.000000:2:ant",
                    "1.000000:3",
                    "0.000000:1:dog",
                    "-1.000000:0:cat",
                ],
            ),
        ] {
            let answer = classify(&tensor, count, batched, (&labels, 0)).expect("numbers");
            assert_eq!((answer.dtype, &answer.shape[..]), (DataType::Bytes, shape));
            assert_eq!(texts(&answer), expected);
        }
    }

    #[test]
    fn whole_numbers_are_plain_and_texts_have_no_rank() {
        let tensor = Tensor::from_elements("y", DataType::Int64, vec![3], vec![-5_i64, 7, 7]);
        let answer = classify(&tensor.expect("three"), 2, false, (&Labels::default(), 0));
        assert_eq!(texts(&answer.expect("numbers")), ["7:1", "7:2"]);
        let half = Tensor::from_elements("y", DataType::Fp16, vec![1], vec![0_u16]);
        let error = classify(&half.expect("one"), 1, false, (&Labels::default(), 0));
        assert_eq!(
            error.expect_err("no rank").to_string(),
            "class result not available for output due to unsupported type 'FP16'"
        );
    }
}
