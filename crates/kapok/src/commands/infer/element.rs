//! JSON scalars to and from the wire's little-endian elements.

use half::{bf16, f16};
use protocol::DataType;
use protocol::tensor::{BytesElements, encode_bytes_elements};
use serde_json::{Number, Value};

pub(super) fn encode(items: &[&Value], dtype: DataType) -> Result<Vec<u8>, String> {
    if dtype == DataType::Bytes {
        let texts = items
            .iter()
            .map(|item| item.as_str().map(str::as_bytes))
            .collect::<Option<Vec<_>>>()
            .ok_or("BYTES needs strings")?;
        return encode_bytes_elements(texts).ok_or_else(|| "a string is too long".to_owned());
    }
    let mut bytes = Vec::with_capacity(items.len() * dtype.size().unwrap_or(1));
    for item in items {
        one(item, dtype, &mut bytes)
            .ok_or_else(|| format!("{item} does not fit {}", dtype.name()))?;
    }
    Ok(bytes)
}

fn one(item: &Value, dtype: DataType, bytes: &mut Vec<u8>) -> Option<()> {
    macro_rules! integer {
        ($kind:ty, $read:ident) => {
            bytes.extend(<$kind>::try_from(item.$read()?).ok()?.to_le_bytes())
        };
    }
    match dtype {
        DataType::Bool => bytes.push(u8::from(item.as_bool()?)),
        DataType::Uint8 => integer!(u8, as_u64),
        DataType::Uint16 => integer!(u16, as_u64),
        DataType::Uint32 => integer!(u32, as_u64),
        DataType::Uint64 => integer!(u64, as_u64),
        DataType::Int8 => integer!(i8, as_i64),
        DataType::Int16 => integer!(i16, as_i64),
        DataType::Int32 => integer!(i32, as_i64),
        DataType::Int64 => integer!(i64, as_i64),
        DataType::Fp16 => bytes.extend(f16::from_f64(item.as_f64()?).to_le_bytes()),
        DataType::Bf16 => bytes.extend(bf16::from_f64(item.as_f64()?).to_le_bytes()),
        #[expect(clippy::cast_possible_truncation, reason = "nearest single is meant")]
        DataType::Fp32 => bytes.extend((item.as_f64()? as f32).to_le_bytes()),
        DataType::Fp64 => bytes.extend(item.as_f64()?.to_le_bytes()),
        DataType::Bytes => return None,
    }
    Some(())
}

/// A flat array of the elements; bytes that are no UTF-8 are shown with replacement characters.
pub(super) fn decode(bytes: &[u8], dtype: DataType) -> Option<Vec<Value>> {
    macro_rules! each {
        ($kind:ty, $show:expr) => {{
            let (chunks, rest) = bytes.as_chunks::<{ size_of::<$kind>() }>();
            if !rest.is_empty() {
                return None;
            }
            let show: fn($kind) -> Value = $show;
            chunks
                .iter()
                .map(|chunk| show(<$kind>::from_le_bytes(*chunk)))
                .collect()
        }};
    }
    Some(match dtype {
        DataType::Bool => bytes.iter().map(|byte| Value::Bool(*byte != 0)).collect(),
        DataType::Uint8 => each!(u8, Value::from),
        DataType::Uint16 => each!(u16, Value::from),
        DataType::Uint32 => each!(u32, Value::from),
        DataType::Uint64 => each!(u64, Value::from),
        DataType::Int8 => each!(i8, Value::from),
        DataType::Int16 => each!(i16, Value::from),
        DataType::Int32 => each!(i32, Value::from),
        DataType::Int64 => each!(i64, Value::from),
        DataType::Fp16 => each!(f16, |x| real(x.to_f64())),
        DataType::Bf16 => each!(bf16, |x| real(x.to_f64())),
        DataType::Fp32 => each!(f32, |x| real(f64::from(x))),
        DataType::Fp64 => each!(f64, real),
        DataType::Bytes => {
            let elements = BytesElements::new(bytes);
            elements
                .map(|element| Some(String::from_utf8_lossy(element.ok()?).into()))
                .collect::<Option<_>>()?
        }
    })
}

/// JSON has no infinities: they are shown as words.
fn real(number: f64) -> Value {
    Number::from_f64(number).map_or_else(|| Value::String(number.to_string()), Value::Number)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_type_survives_the_wire_and_what_does_not_fit_is_refused() {
        for dtype in DataType::ALL {
            let (good, bad) = match dtype {
                DataType::Bool => (json!([true, false]), json!(1)),
                DataType::Bytes => (json!(["", "größe"]), json!(1)),
                DataType::Fp16 | DataType::Fp32 | DataType::Fp64 | DataType::Bf16 => {
                    (json!([0.5, -2.0]), json!("x"))
                }
                DataType::Int8 | DataType::Int16 | DataType::Int32 | DataType::Int64 => {
                    (json!([-1, 7]), json!(0.5))
                }
                DataType::Uint8 | DataType::Uint16 | DataType::Uint32 | DataType::Uint64 => {
                    (json!([0, 255]), json!(-1))
                }
            };
            let items: Vec<&Value> = good.as_array().expect("a list").iter().collect();
            let bytes = encode(&items, dtype).expect("it fits");
            let back = decode(&bytes, dtype).expect("whole elements");
            assert_eq!(json!(back), good, "{dtype}");
            assert!(encode(&[&bad], dtype).is_err(), "{dtype}");
        }
        assert!(decode(&[1, 2, 3], DataType::Fp32).is_none());
        assert_eq!(
            decode(&f32::INFINITY.to_le_bytes(), DataType::Fp32),
            Some(vec![json!("inf")])
        );
    }
}
