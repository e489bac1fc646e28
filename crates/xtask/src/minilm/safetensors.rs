//! Reading a safetensors file: eight bytes of header length, a JSON header, raw little-endian data
//! (<https://github.com/huggingface/safetensors#format>).

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;

#[derive(Debug)]
pub(crate) struct Safetensors<'a> {
    tensors: BTreeMap<String, Described>,
    data: &'a [u8],
}

#[derive(Debug, Deserialize)]
struct Described {
    dtype: String,
    shape: Vec<usize>,
    data_offsets: (usize, usize),
}

impl<'a> Safetensors<'a> {
    pub(crate) fn parse(file: &'a [u8]) -> Result<Self> {
        let (length, rest) = file
            .split_first_chunk()
            .context("shorter than eight bytes")?;
        let length = usize::try_from(u64::from_le_bytes(*length))?;
        let (header, data) = rest
            .split_at_checked(length)
            .context("the header is longer than the file")?;
        let mut header: BTreeMap<String, serde_json::Value> =
            serde_json::from_slice(header).context("in the header")?;
        header.remove("__metadata__");
        let tensors = header
            .into_iter()
            .map(|(name, value)| Ok((name, serde_json::from_value(value)?)))
            .collect::<Result<_>>()
            .context("in the header")?;
        Ok(Self { tensors, data })
    }

    /// The raw little-endian f32 data of a tensor that must have this shape.
    pub(crate) fn f32(&self, name: &str, shape: &[usize]) -> Result<&'a [u8]> {
        let Some(tensor) = self.tensors.get(name) else {
            bail!("no tensor `{name}`");
        };
        ensure!(
            tensor.dtype == "F32" && tensor.shape == shape,
            "`{name}` is {} {:?}, not F32 {shape:?}",
            tensor.dtype,
            tensor.shape
        );
        let (from, to) = tensor.data_offsets;
        let data = self
            .data
            .get(from..to)
            .with_context(|| format!("`{name}` lies outside the file"))?;
        ensure!(
            data.len() == shape.iter().product::<usize>() * 4,
            "`{name}` has {} bytes",
            data.len()
        );
        Ok(data)
    }
}
