//! A tensor's `data` in JSON, read from its text straight into an aligned buffer.

use bytes::Bytes;

use crate::json::{Fault, Lone, Reader};
use crate::tensor::element_count;
use crate::{BufferPool, DataType, PooledBuffer, shown};

use super::DEPTH_MAX;
use super::number::Number;

/// Reads what [`super::parse_header`] has checked for being JSON; the error is the rest of a sentence about the input.
pub(super) fn parse(
    text: &str,
    name: &str,
    dtype: DataType,
    shape: &[usize],
    pool: &BufferPool,
) -> Result<Bytes, String> {
    if matches!(dtype, DataType::Fp16 | DataType::Bf16) {
        return Err(format!(
            "receiving {dtype} data via JSON is not supported. Please use the binary data format for input {}",
            shown::name(name)
        ));
    }
    let count = element_count(shape).unwrap_or(usize::MAX);
    if !text.starts_with('[') && !shape.is_empty() {
        return Err("Unable to parse 'data': expected an array".to_owned());
    }
    // Each element is at least one character and a comma or bracket: a claim that the text cannot hold is refused
    // before anything is allocated for it.
    if count > text.len() / 2 + 1 {
        return Err(mismatch(shape, "has fewer"));
    }
    let walk = Walk { text, shape, count };
    let size = dtype.size().unwrap_or(size_of::<u32>());
    let mut buffer = pool.take(
        count * size
            + if dtype.size().is_none() {
                text.len()
            } else {
                0
            },
    );
    match dtype {
        DataType::Bool => walk.tokens(|token| bool(token, &mut buffer))?,
        DataType::Uint8 => walk.numbers::<u8>(dtype, &mut buffer)?,
        DataType::Uint16 => walk.numbers::<u16>(dtype, &mut buffer)?,
        DataType::Uint32 => walk.numbers::<u32>(dtype, &mut buffer)?,
        DataType::Uint64 => walk.numbers::<u64>(dtype, &mut buffer)?,
        DataType::Int8 => walk.numbers::<i8>(dtype, &mut buffer)?,
        DataType::Int16 => walk.numbers::<i16>(dtype, &mut buffer)?,
        DataType::Int32 => walk.numbers::<i32>(dtype, &mut buffer)?,
        DataType::Int64 => walk.numbers::<i64>(dtype, &mut buffer)?,
        DataType::Fp32 => walk.numbers::<f32>(dtype, &mut buffer)?,
        DataType::Fp64 => walk.numbers::<f64>(dtype, &mut buffer)?,
        DataType::Fp16 | DataType::Bf16 | DataType::Bytes => {
            walk.tokens(|token| string(token, &mut buffer))?;
        }
    }
    Ok(buffer.freeze())
}

/// Triton's sentence, and then the figures.
fn mismatch(shape: &[usize], data: &str) -> String {
    let count = element_count(shape).unwrap_or(usize::MAX);
    format!(
        "Unable to parse 'data': Shape does not match true shape of 'data' field: \
         shape {} needs {count} elements, the data {data}",
        shown::shape(shape)
    )
}

struct Walk<'a> {
    text: &'a str,
    shape: &'a [usize],
    count: usize,
}

impl Walk<'_> {
    /// Calls back with each scalar's place, in order, and is told its end.
    ///
    /// Brackets may follow the shape, be left out, or add levels (Triton reads elements and ignores brackets); but a
    /// nested list that holds another number of elements than some row of the shape does is a slip that would shift
    /// every element behind it, and is refused.
    fn run(&self, mut scalar: impl FnMut(usize) -> Result<usize, String>) -> Result<(), String> {
        let bytes = self.text.as_bytes();
        let rows = row_sizes(self.shape);
        // Elements seen when each open bracket opened; as deep as the reader allows.
        let mut open: Vec<usize> = Vec::new();
        let (mut at, mut found) = (0, 0);
        while let Some(byte) = bytes.get(at) {
            match byte {
                b',' | b' ' | b'\n' | b'\r' | b'\t' => at += 1,
                b'[' => {
                    open.push(found);
                    at += 1;
                }
                b']' => {
                    let inside = found - open.pop().unwrap_or_default();
                    if !open.is_empty() && !rows.contains(&inside) {
                        return Err(self.ragged(inside, found));
                    }
                    at += 1;
                }
                _ => {
                    if found == self.count {
                        return Err(mismatch(self.shape, "has more"));
                    }
                    at = scalar(at)
                        .map_err(|reason| format!("element {found} of `data`: {reason}"))?;
                    found += 1;
                }
            }
        }
        if found == self.count {
            Ok(())
        } else {
            Err(mismatch(self.shape, &format!("has {found}")))
        }
    }

    fn tokens(&self, mut scalar: impl FnMut(&str) -> Result<(), String>) -> Result<(), String> {
        self.run(|at| {
            let token = self.token(at);
            scalar(token).map(|()| at + token.len())
        })
    }

    /// The scalar that begins there.
    fn token(&self, at: usize) -> &str {
        let end = token_end(self.text.as_bytes(), at);
        self.text.get(at..end).unwrap_or_default()
    }

    fn ragged(&self, inside: usize, found: usize) -> String {
        let end = format!("has a nested list of {inside} that ends before element {found}");
        mismatch(self.shape, &end)
    }

    fn numbers<T: Number>(&self, dtype: DataType, buffer: &mut PooledBuffer) -> Result<(), String> {
        let mut stage = Vec::with_capacity(STAGE_BYTES);
        let bytes = self.text.as_bytes();
        self.run(|at| {
            let (number, end) = match T::scan(bytes.get(at..).unwrap_or_default()) {
                Some((number, length)) => (number, at + length),
                None => {
                    let token = self.token(at);
                    let number = T::read(token).ok_or_else(|| misfit(token, dtype))?;
                    (number, at + token.len())
                }
            };
            stage.extend_from_slice(number.bytes().as_ref());
            if stage.len() >= STAGE_BYTES {
                buffer.extend_from_slice(&stage);
                stage.clear();
            }
            Ok(end)
        })?;
        buffer.extend_from_slice(&stage);
        Ok(())
    }
}

/// Elements are handed to the buffer in parts of this size, because a call for each costs more than the element. A
/// multiple of every element's size.
const STAGE_BYTES: usize = 4096;

/// Elements in a row of each level, the whole tensor included.
fn row_sizes(shape: &[usize]) -> Vec<usize> {
    let mut sizes = vec![1];
    let mut size = 1_usize;
    for dim in shape.iter().rev() {
        // The whole product was checked with the shape.
        size = size.saturating_mul(*dim);
        sizes.push(size);
    }
    sizes
}

/// Where the scalar that begins at `at` ends; an object ends at once and is refused as a scalar.
fn token_end(bytes: &[u8], at: usize) -> usize {
    let rest = bytes.get(at..).unwrap_or_default();
    match rest.first() {
        Some(b'"') => crate::json::string_end(bytes, at),
        Some(b'{' | b'}' | b':') => at + 1,
        _ => {
            let inside = |byte: &&u8| !matches!(**byte, b',' | b']' | b' ' | b'\n' | b'\r' | b'\t');
            at + rest.iter().take_while(inside).count().max(1)
        }
    }
}

/// Why a scalar is not a number of this type.
fn misfit(token: &str, dtype: DataType) -> String {
    let shown: String = token.chars().take(40).collect();
    if !token.starts_with(|first: char| first == '-' || first.is_ascii_digit()) {
        return format!("`{shown}` is not a number");
    }
    let fraction = token.contains(['.', 'e', 'E']);
    if fraction && !matches!(dtype, DataType::Fp32 | DataType::Fp64) {
        return format!("`{shown}` is not an integer, and the datatype is {dtype}");
    }
    format!("`{shown}` does not fit {dtype}")
}

fn bool(token: &str, buffer: &mut PooledBuffer) -> Result<(), String> {
    let value = match token {
        "true" | "1" => 1,
        "false" | "0" => 0,
        _ => {
            let shown: String = token.chars().take(40).collect();
            return Err(format!(
                "attempt to access JSON non-boolean as boolean: `{shown}` is not true or false"
            ));
        }
    };
    buffer.extend_from_slice(&[value]);
    Ok(())
}

fn string(token: &str, buffer: &mut PooledBuffer) -> Result<(), String> {
    let text = Reader::over(token, DEPTH_MAX)
        .text()
        .and_then(|text| text.unescape(Lone::Refuse))
        .map_err(|fault| match fault {
            Fault::Type { .. } => format!("attempt to access JSON non-string as string: {fault}"),
            fault => fault.to_string(),
        })?;
    let length = u32::try_from(text.len()).map_err(|_| "the string is too long".to_owned())?;
    buffer.extend_from_slice(&length.to_le_bytes());
    buffer.extend_from_slice(text.as_bytes());
    Ok(())
}
