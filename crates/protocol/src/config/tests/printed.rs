//! What another implementation prints, ours reads.

use proptest::prelude::*;
use prost_reflect::DynamicMessage;

use super::super::parse::descriptor;
use super::*;
use crate::oip::proto::{
    ModelInput, ModelMetrics, ModelParameter, ModelTensorReshape, model_metrics,
};

fn config() -> impl Strategy<Value = ModelConfig> {
    let input = (
        any::<String>(),
        0..15_i32,
        proptest::collection::vec(any::<i64>(), 0..4),
        proptest::option::of(proptest::collection::vec(any::<i64>(), 0..3)),
        any::<bool>(),
    )
        .prop_map(|(name, data_type, dims, shape, optional)| ModelInput {
            name,
            data_type,
            dims,
            reshape: shape.map(|shape| ModelTensorReshape { shape }),
            optional,
            ..ModelInput::default()
        });
    let parameter = any::<String>().prop_map(|string_value| ModelParameter { string_value });
    (
        any::<i32>(),
        proptest::collection::vec(input, 0..3),
        proptest::collection::btree_map(any::<String>(), parameter, 0..3),
        proptest::collection::vec(-1e300..1e300_f64, 0..4),
    )
        .prop_map(|(max_batch_size, input, parameters, buckets)| ModelConfig {
            max_batch_size,
            input,
            parameters,
            model_metrics: Some(histogram(buckets)),
            ..ModelConfig::default()
        })
}

fn histogram(buckets: Vec<f64>) -> ModelMetrics {
    use model_metrics::metric_control::{HistogramOptions, MetricOptions};
    let control = model_metrics::MetricControl {
        metric_identifier: None,
        metric_options: Some(MetricOptions::HistogramOptions(HistogramOptions {
            buckets,
        })),
    };
    ModelMetrics {
        metric_control: vec![control],
    }
}

proptest! {
    #[test]
    fn a_printed_configuration_is_read_back(config in config()) {
        let mut message = DynamicMessage::new(descriptor());
        message.transcode_from(&config).expect("same type");
        let text = message.to_string();
        let read = parse("config.pbtxt", &text);
        prop_assert_eq!(read.map(|file| file.config), Ok(config.clone()), "{}", text);
        let text = to_pbtxt(&config);
        let read = parse("config.pbtxt", &text);
        prop_assert_eq!(read.map(|file| file.config), Ok(config.clone()), "{}", text);
        let text = to_json(&config);
        let read = from_json(&text);
        prop_assert_eq!(read.map(|file| file.config), Ok(config), "{}", text);
    }
}
