use crate::DataType;
use crate::oip::proto;

/// None for `TYPE_INVALID` and for numbers that no release has given a meaning.
pub fn data_type(number: i32) -> Option<DataType> {
    use proto::DataType as P;
    Some(match P::try_from(number).ok()? {
        P::TypeInvalid => return None,
        P::TypeBool => DataType::Bool,
        P::TypeUint8 => DataType::Uint8,
        P::TypeUint16 => DataType::Uint16,
        P::TypeUint32 => DataType::Uint32,
        P::TypeUint64 => DataType::Uint64,
        P::TypeInt8 => DataType::Int8,
        P::TypeInt16 => DataType::Int16,
        P::TypeInt32 => DataType::Int32,
        P::TypeInt64 => DataType::Int64,
        P::TypeFp16 => DataType::Fp16,
        P::TypeFp32 => DataType::Fp32,
        P::TypeFp64 => DataType::Fp64,
        P::TypeString => DataType::Bytes,
        P::TypeBf16 => DataType::Bf16,
    })
}

pub fn proto_data_type(dtype: DataType) -> proto::DataType {
    use proto::DataType as P;
    match dtype {
        DataType::Bool => P::TypeBool,
        DataType::Uint8 => P::TypeUint8,
        DataType::Uint16 => P::TypeUint16,
        DataType::Uint32 => P::TypeUint32,
        DataType::Uint64 => P::TypeUint64,
        DataType::Int8 => P::TypeInt8,
        DataType::Int16 => P::TypeInt16,
        DataType::Int32 => P::TypeInt32,
        DataType::Int64 => P::TypeInt64,
        DataType::Fp16 => P::TypeFp16,
        DataType::Fp32 => P::TypeFp32,
        DataType::Fp64 => P::TypeFp64,
        DataType::Bf16 => P::TypeBf16,
        DataType::Bytes => P::TypeString,
    }
}
