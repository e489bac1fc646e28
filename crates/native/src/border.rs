//! What a library gives, checked before it is used: null, alignment, wrap-around, size, overlap.

use std::ops::Range;

use bytes::Bytes;
use protocol::tensor::element_count;
use protocol::{DataType, Tensor, TensorSpec};

use crate::abi;

/// More is a slip, or a length that is none.
const PORTS_MAX: u64 = 1024;
const RANK_MAX: u32 = 16;
const NAME_BYTES_MAX: u64 = 512;

/// `length` elements at `start`, if that can be memory at all. `what` names it in the error.
///
/// # Safety
/// If `start` and `length` pass the checks here, that many elements must be readable, and stay unchanged, for `'a`: the
/// library's promise, which nobody can check.
#[expect(unsafe_code, reason = "memory of a library")]
pub(crate) unsafe fn slice<'a, T>(
    start: *const T,
    length: u64,
    what: &str,
) -> Result<&'a [T], String> {
    if length == 0 {
        return Ok(&[]);
    }
    let length = extent(start, length, what)?;
    // SAFETY: not null, aligned, and the extent neither wraps nor exceeds what a slice may have; that it is readable is
    // the caller's word.
    Ok(unsafe { std::slice::from_raw_parts(start, length) })
}

/// The number of elements, if they can be there.
fn extent<T>(start: *const T, length: u64, what: &str) -> Result<usize, String> {
    if start.is_null() {
        return Err(format!("{what} is null"));
    }
    if !start.is_aligned() {
        let needed = align_of::<T>();
        return Err(format!("{what} is not aligned to {needed} bytes"));
    }
    let bytes = usize::try_from(length)
        .ok()
        .and_then(|length| length.checked_mul(size_of::<T>()))
        .filter(|bytes| *bytes <= isize::MAX as usize);
    bytes
        .filter(|bytes| start.addr().checked_add(*bytes).is_some())
        .map(|bytes| bytes / size_of::<T>())
        .ok_or_else(|| format!("{what} claims {length} elements, more than memory holds"))
}

/// The library's inputs or outputs.
///
/// # Safety
/// As for [`slice`], for `ports` and every pointer in them, for the time of the call.
#[expect(unsafe_code, reason = "memory of a library")]
pub(crate) unsafe fn specs(
    ports: *const abi::Port,
    count: u64,
    side: &str,
) -> Result<Vec<TensorSpec>, String> {
    if !(1..=PORTS_MAX).contains(&count) {
        return Err(format!("{count} {side}s; 1 to {PORTS_MAX} are allowed"));
    }
    // SAFETY: passed on from the caller.
    let ports = unsafe { slice(ports, count, &format!("the list of {side}s")) }?;
    let mut specs: Vec<TensorSpec> = Vec::with_capacity(ports.len());
    for (index, port) in ports.iter().enumerate() {
        // SAFETY: passed on from the caller.
        let spec = unsafe { spec(port) }.map_err(|fault| format!("{side} {index}: {fault}"))?;
        if specs.iter().any(|known| known.name == spec.name) {
            return Err(format!("two {side}s are called `{}`", spec.name));
        }
        specs.push(spec);
    }
    Ok(specs)
}

/// # Safety
/// As for [`slice`].
#[expect(unsafe_code, reason = "memory of a library")]
unsafe fn spec(port: &abi::Port) -> Result<TensorSpec, String> {
    let length = port.name.length;
    if !(1..=NAME_BYTES_MAX).contains(&length) {
        return Err(format!(
            "a name of {length} bytes; 1 to {NAME_BYTES_MAX} are allowed"
        ));
    }
    // SAFETY: passed on from the caller.
    let name = unsafe { slice(port.name.data.cast::<u8>(), length, "the name") }?;
    let name = std::str::from_utf8(name).map_err(|_| "its name is not UTF-8")?;
    let dtype = dtype(port.dtype)?;
    if port.rank > RANK_MAX {
        return Err(format!(
            "`{name}` has {} dimensions, at most {RANK_MAX} are allowed",
            port.rank
        ));
    }
    // SAFETY: passed on from the caller.
    let shape = unsafe { slice(port.shape, u64::from(port.rank), "the shape") }?;
    if let Some(dim) = shape.iter().find(|dim| **dim < -1 || **dim == 0) {
        return Err(format!(
            "`{name}` has a dimension of {dim}; -1 or at least 1 is allowed"
        ));
    }
    Ok(TensorSpec::new(name, dtype, shape.to_vec()))
}

fn dtype(number: u32) -> Result<DataType, String> {
    abi::data_type(number).ok_or_else(|| format!("no element type has the number {number}"))
}

/// What one call gave, copied: nothing of the library's memory is kept. `None` where the output is not wanted.
///
/// # Safety
/// As for [`slice`], for every pointer in `outputs`, for the time of the call.
#[expect(unsafe_code, reason = "memory of a library")]
pub(crate) unsafe fn outputs(
    outputs: &[abi::Tensor],
    specs: &[TensorSpec],
    wanted: &[usize],
) -> Result<Vec<Tensor>, String> {
    let mut places: Vec<(Range<usize>, &str)> = Vec::with_capacity(outputs.len());
    for (output, spec) in outputs.iter().zip(specs) {
        let start = output.data.addr();
        let place = usize::try_from(output.bytes)
            .ok()
            .and_then(|bytes| start.checked_add(bytes))
            .map(|end| start..end)
            .ok_or_else(|| {
                format!(
                    "output `{}` claims {} bytes, more than memory holds",
                    spec.name, output.bytes
                )
            })?;
        let overlaps =
            |(other, _): &&(Range<usize>, &str)| place.start < other.end && other.start < place.end;
        if let Some((_, other)) = places.iter().find(overlaps) {
            return Err(format!(
                "outputs `{other}` and `{}` overlap in memory",
                spec.name
            ));
        }
        places.push((place, &spec.name));
    }
    wanted
        .iter()
        .map(|index| {
            let (output, spec) = outputs
                .get(*index)
                .zip(specs.get(*index))
                .ok_or_else(|| format!("there is no output {index}"))?;
            // SAFETY: passed on from the caller.
            unsafe { tensor(output, spec) }
                .map_err(|fault| format!("output `{}`: {fault}", spec.name))
        })
        .collect()
}

/// # Safety
/// As for [`slice`].
#[expect(unsafe_code, reason = "memory of a library")]
unsafe fn tensor(output: &abi::Tensor, spec: &TensorSpec) -> Result<Tensor, String> {
    let dtype = dtype(output.dtype)?;
    if dtype != spec.dtype {
        return Err(format!("{dtype} is given, {} is declared", spec.dtype));
    }
    if output.rank > RANK_MAX {
        return Err(format!(
            "{} dimensions, at most {RANK_MAX} are allowed",
            output.rank
        ));
    }
    // SAFETY: passed on from the caller.
    let dims = unsafe { slice(output.shape, u64::from(output.rank), "the shape") }?;
    let shape: Vec<usize> = dims
        .iter()
        .map(|dim| usize::try_from(*dim).map_err(|_| format!("a dimension of {dim}")))
        .collect::<Result<_, _>>()?;
    if !spec.accepts(&shape) {
        return Err(format!(
            "shape {shape:?} is given, {:?} is declared",
            spec.shape
        ));
    }
    if let Some(size) = dtype.size() {
        let needed = element_count(&shape)
            .and_then(|count| count.checked_mul(size))
            .ok_or("its shape has more elements than can be addressed")?;
        if usize::try_from(output.bytes) != Ok(needed) {
            return Err(format!(
                "{} bytes are given, shape and type need {needed}",
                output.bytes
            ));
        }
        if output.bytes > 0 && !output.data.addr().is_multiple_of(size) {
            return Err(format!("its data is not aligned to {size} bytes"));
        }
    }
    // SAFETY: passed on from the caller.
    let data = unsafe { slice(output.data.cast::<u8>(), output.bytes, "its data") }?;
    Tensor::new(&spec.name, dtype, shape, Bytes::copy_from_slice(data))
        .map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests;
