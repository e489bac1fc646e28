use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

/// An element count and the type it is written in.
fn tensor() -> impl Strategy<Value = (InferInputTensor, Vec<u8>)> {
    let dtype = proptest::sample::select(DataType::ALL.to_vec());
    (dtype, "[a-z]{0,8}", 0_usize..300, parameters()).prop_flat_map(
        |(dtype, name, count, parameters)| {
            let bytes = match dtype.size() {
                Some(size) => proptest::collection::vec(any::<u8>(), count * size).boxed(),
                None => proptest::collection::vec("[ -~]{0,12}", count)
                    .prop_map(|texts| {
                        crate::tensor::encode_bytes_elements(texts).expect("short elements")
                    })
                    .boxed(),
            };
            let count = i64::try_from(count).expect("small");
            bytes.prop_map(move |bytes| {
                let described = InferInputTensor {
                    parameters: parameters.clone(),
                    ..input(&name, dtype.name(), &[1, count])
                };
                (described, bytes)
            })
        },
    )
}

fn parameters() -> impl Strategy<Value = BTreeMap<String, InferParameter>> {
    let choice = prop_oneof![
        any::<bool>().prop_map(ParameterChoice::BoolParam),
        any::<i64>().prop_map(ParameterChoice::Int64Param),
        any::<u64>().prop_map(ParameterChoice::Uint64Param),
        (-1e30..1e30_f64).prop_map(ParameterChoice::DoubleParam),
        ".{0,8}".prop_map(ParameterChoice::StringParam),
    ];
    let parameter = choice.prop_map(|choice| InferParameter {
        parameter_choice: Some(choice),
    });
    proptest::collection::btree_map("[a-z_]{1,8}", parameter, 0..4)
}

fn message() -> impl Strategy<Value = ModelInferRequest> {
    let output = ("[a-z]{1,8}", parameters())
        .prop_map(|(name, parameters)| InferRequestedOutputTensor { name, parameters });
    (
        proptest::collection::vec(tensor(), 0..4),
        proptest::collection::vec(output, 0..3),
        parameters(),
        "[ -~]{0,20}",
    )
        .prop_map(|(tensors, outputs, parameters, id)| {
            let (inputs, raw): (Vec<_>, Vec<_>) = tensors.into_iter().unzip();
            let raw: Vec<&[u8]> = raw.iter().map(Vec::as_slice).collect();
            ModelInferRequest {
                id,
                parameters,
                outputs,
                ..request(inputs, &raw)
            }
        })
}

proptest! {
    #[test]
    fn a_request_is_the_same_however_it_was_cut(
        message in message(),
        sizes in proptest::collection::vec(1_usize..5_000, 1..6),
    ) {
        let wire = message.encode_to_vec();
        let decoded = crate::oip::grpc::decode_infer(Frames::cut(&wire, &sizes), &BufferPool::default());
        prop_assert_eq!(decoded.as_ref(), Ok(&message));
        let request = infer_request(message.clone()).expect("the bytes fit the shapes");
        for (tensor, raw) in request.inputs.iter().zip(&message.raw_input_contents) {
            prop_assert_eq!(&tensor.data, raw);
        }
    }

    #[test]
    fn a_cut_request_is_refused_or_smaller(message in message(), keep in 0.0..1.0_f64) {
        let wire = message.encode_to_vec();
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share of a length")]
        let cut = (wire.len() as f64 * keep) as usize;
        let decoded: Result<_, ApiError> = crate::oip::grpc::decode_infer(&wire[..cut], &BufferPool::new(0));
        if let Ok(decoded) = decoded {
            prop_assert!(decoded.encoded_len() <= cut);
        }
    }
}
