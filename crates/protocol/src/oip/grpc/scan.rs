use bytes::Buf;
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};

use crate::ApiError;

/// Every request of the protocol that is about a model has its name first, and its version behind it.
const MODEL: u32 = 1;

/// More fields than any request has that is meant: tensors are a few hundred at most, and each of their fields is inside
/// its own. It bounds what a message of empty fields can cost whoever only wants its model.
const FIELDS_MAX: usize = 65_536;

/// Longer than any name; the gateway refuses a long one with its own words.
const NAME_BYTES_MAX: usize = 64 << 10;

/// The model that a message is about, found without decoding the message: what it carries is stepped over, wherever its
/// frames end. Of a field given twice the last counts, as in every protobuf parser.
pub fn scan_model(mut message: impl Buf) -> Result<String, ApiError> {
    let mut name = Vec::new();
    for _ in 0..FIELDS_MAX {
        if !message.has_remaining() {
            return String::from_utf8(name).map_err(|_| malformed("its model's name is not UTF-8"));
        }
        let (tag, wire) = decode_key(&mut message).map_err(malformed)?;
        if tag == MODEL {
            if wire != WireType::LengthDelimited {
                return Err(malformed("its first field is not a model's name"));
            }
            name = text(&mut message)?;
        } else {
            skip_field(wire, tag, &mut message, DecodeContext::default()).map_err(malformed)?;
        }
    }
    Err(malformed(format!("it has more than {FIELDS_MAX} fields")))
}

fn text(message: &mut impl Buf) -> Result<Vec<u8>, ApiError> {
    let claimed = decode_varint(message).map_err(malformed)?;
    let left = message.remaining();
    let bytes = usize::try_from(claimed)
        .ok()
        .filter(|bytes| *bytes <= left.min(NAME_BYTES_MAX));
    let bytes = bytes.ok_or_else(|| {
        malformed(format!(
            "its model's name claims {claimed} bytes, {left} are left and {NAME_BYTES_MAX} allowed"
        ))
    })?;
    let mut text = vec![0; bytes];
    message.copy_to_slice(&mut text);
    Ok(text)
}

fn malformed(why: impl std::fmt::Display) -> ApiError {
    ApiError::invalid(format!("malformed message: {why}"))
}

/// For the fuzzer: agrees with the whole decoder about every message that it takes, however the message is cut.
pub fn fuzz_grpc_scan(data: &[u8]) {
    use prost::Message as _;

    use crate::oip::proto::ModelReadyRequest;

    let whole = scan_model(data);
    let (left, right) = data.split_at(data.len() / 2);
    let cut = scan_model(left.chain(right));
    assert_eq!(whole.is_ok(), cut.is_ok(), "framing changed the outcome");
    if let (Ok(whole), Ok(cut)) = (&whole, &cut) {
        assert_eq!(whole, cut, "framing changed the name");
    }
    // A name beyond the limit, or too many fields, is refused here alone.
    if data.len() > NAME_BYTES_MAX {
        return;
    }
    if let Ok(request) = ModelReadyRequest::decode(data) {
        let name = whole.expect("the decoder takes it");
        assert_eq!(name, request.name, "another model was found");
    }
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;
    use crate::oip::proto::ModelInferRequest;

    fn field(tag: u8, wire: u8, payload: &[u8]) -> Vec<u8> {
        let mut bytes = vec![tag << 3 | wire];
        if wire == 2 {
            bytes.push(u8::try_from(payload.len()).expect("short"));
        }
        bytes.extend_from_slice(payload);
        bytes
    }

    #[test]
    fn the_model_is_found_wherever_it_stands_and_however_the_message_is_cut() {
        for (fields, expected) in [
            (vec![field(1, 2, b"m"), field(2, 2, b"7")], "m"),
            (
                vec![
                    field(3, 2, b"id"),
                    field(7, 2, &[9; 90]),
                    field(1, 2, b"late"),
                ],
                "late",
            ),
            (vec![field(1, 2, b"first"), field(1, 2, b"last")], "last"),
            (vec![field(2, 2, b"7")], ""),
            // A field that nobody knows yet: a number, eight bytes, four bytes, a group.
            (
                vec![
                    field(15, 0, &[0x80, 1]),
                    field(14, 1, &[0; 8]),
                    field(13, 5, &[0; 4]),
                    field(12, 3, &[8, 1, 12 << 3 | 4]),
                    field(1, 2, "märz".as_bytes()),
                ],
                "märz",
            ),
        ] {
            let message = fields.concat();
            for at in 0..=message.len() {
                let (left, right) = message.split_at(at);
                assert_eq!(
                    scan_model(left.chain(right)).as_deref(),
                    Ok(expected),
                    "{at}"
                );
            }
        }
    }

    #[test]
    fn what_is_no_message_about_a_model_is_refused() {
        let many = field(4, 0, &[1]).repeat(FIELDS_MAX);
        for (message, part) in [
            (vec![0xff], "varint"),
            (field(1, 0, &[7]), "not a model's name"),
            (field(1, 2, &[0xff, 0xfe]), "UTF-8"),
            (vec![1 << 3 | 2, 200], "varint"),
            (vec![1 << 3 | 2, 100, b'x'], "claims 100 bytes, 1 are left"),
            (vec![7 << 3 | 2, 100, b'x'], "underflow"),
            (many, "more than 65536 fields"),
        ] {
            let refused = scan_model(message.as_slice()).expect_err(part);
            assert!(
                refused.message.contains(part),
                "{part}: {}",
                refused.message
            );
        }
    }

    #[test]
    fn a_large_tensor_is_stepped_over() {
        let message = ModelInferRequest {
            model_name: "identity".into(),
            raw_input_contents: vec![vec![1; 1 << 20].into()],
            ..ModelInferRequest::default()
        };
        let bytes = message.encode_to_vec();
        assert_eq!(scan_model(bytes.as_slice()).as_deref(), Ok("identity"));
    }
}
