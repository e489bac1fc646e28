use std::sync::Arc;

use base::ErrorKind;
use parking_lot::Mutex;
use protocol::{ApiError, DataType, EmbedInputs, EmbedRequest, Embeddings, Tensor, TensorSpec};

use super::TextPipeline;
use crate::Runtime;
use crate::engine::{Engine, EngineError, Lane, LoadOptions, Loaded, Run, Source};
use crate::testing::{config, far, repository, start};

/// A transformer whose hidden state of a token is [id, segment + 1, 0]; it remembers the shapes it was given.
#[derive(Debug, Clone)]
struct Transformer {
    inputs: Vec<TensorSpec>,
    outputs: Vec<TensorSpec>,
    shapes: Arc<Mutex<Vec<Vec<usize>>>>,
    /// Added to the first number of each state; what a model file holds after `plus`.
    shift: f32,
}

impl Transformer {
    fn new(inputs: &[(&str, DataType)]) -> Self {
        let input = |(name, dtype): &(&str, DataType)| TensorSpec::new(*name, *dtype, vec![-1, -1]);
        Self {
            inputs: inputs.iter().map(input).collect(),
            outputs: vec![
                TensorSpec::new("pooled", DataType::Fp32, vec![-1, 3]),
                TensorSpec::new("last_hidden_state", DataType::Fp32, vec![-1, -1, 3]),
            ],
            shapes: Arc::default(),
            shift: 0.0,
        }
    }
}

impl Engine for Transformer {
    fn name(&self) -> &'static str {
        "rten"
    }

    fn version(&self) -> String {
        "1".to_owned()
    }

    fn accepts(&self, source: &Source) -> bool {
        source.backend == "onnxruntime"
    }

    fn load(&self, source: &Source, _: LoadOptions) -> Result<Arc<dyn Loaded>, EngineError> {
        let file = std::fs::read_to_string(&source.path).expect("readable");
        let shift = file
            .strip_prefix("plus ")
            .map_or(0.0, |number| number.parse().expect("a number"));
        Ok(Arc::new(Self {
            shift,
            ..self.clone()
        }))
    }
}

impl Loaded for Transformer {
    fn inputs(&self) -> &[TensorSpec] {
        &self.inputs
    }

    fn outputs(&self) -> &[TensorSpec] {
        &self.outputs
    }

    fn lane(&self) -> Result<Box<dyn Lane>, EngineError> {
        Ok(Box::new(self.clone()))
    }
}

impl Lane for Transformer {
    fn run(&mut self, call: &Run<'_>) -> Result<Vec<Tensor>, EngineError> {
        let Run { inputs, wanted, .. } = *call;
        let ids = inputs.iter().find(|input| input.name == "input_ids");
        let ids = ids.expect("given");
        assert!(inputs.iter().all(|input| input.shape == ids.shape));
        self.shapes.lock().push(ids.shape.clone());
        #[expect(clippy::cast_possible_truncation, reason = "ids of a small vocabulary")]
        let values: Vec<f32> = crate::agree::numbers(ids)
            .into_iter()
            .map(|id| id as f32)
            .collect();
        let output = |index: &usize| {
            let (shape, values) = if *index == 0 {
                let rows = values.chunks(ids.shape[1]);
                let first = rows.flat_map(|row| [row[0], 0.0, 4.0]).collect::<Vec<_>>();
                (vec![ids.shape[0], 3], first)
            } else {
                let hidden = values
                    .iter()
                    .flat_map(|id| [*id + self.shift, 1.0, 0.0])
                    .collect();
                (vec![ids.shape[0], ids.shape[1], 3], hidden)
            };
            let name = &self.outputs[*index].name;
            Tensor::from_elements(name, DataType::Fp32, shape, values).expect("as large")
        };
        Ok(wanted.iter().map(output).collect())
    }
}

const TOKENIZER: &str = r#"{
  "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
  "pre_tokenizer": {"type": "Whitespace"}, "decoder": null,
  "post_processor": {"type": "BertProcessing", "sep": ["[SEP]", 2], "cls": ["[CLS]", 1]},
  "model": {"type": "WordLevel", "unk_token": "[UNK]", "vocab":
    {"[UNK]": 0, "[CLS]": 1, "[SEP]": 2, "[PAD]": 3, "three": 4, "six": 6, "nine": 9,
     "a": 5, "b": 7, "c": 8, "d": 10}}
}"#;

/// A runtime with one text model `m`, set up by this sidecar.
async fn serve(transformer: &Transformer, sidecar: &str) -> (Runtime, tempfile::TempDir) {
    let root = repository(&[
        ("m/1/model.onnx", "a graph"),
        ("m/tokenizer.json", TOKENIZER),
        ("m/kapok.toml", sidecar),
    ]);
    let engine: Arc<dyn Engine> = Arc::new(transformer.clone());
    let (runtime, _) = start(config(&[root.path()]), [engine]).await;
    transformer.shapes.lock().clear();
    (runtime, root)
}

fn both() -> Transformer {
    Transformer::new(&[
        ("attention_mask", DataType::Int64),
        ("input_ids", DataType::Int64),
    ])
}

async fn embed(
    runtime: &Runtime,
    inputs: EmbedInputs,
    dimensions: Option<usize>,
) -> Result<Embeddings, ApiError> {
    let request = EmbedRequest {
        model: "m".to_owned(),
        inputs,
        dimensions,
    };
    Ok(runtime.embed(request, far()).await?.0)
}

fn texts(texts: &[&str]) -> EmbedInputs {
    EmbedInputs::Texts(texts.iter().map(|text| (*text).to_owned()).collect())
}

#[tokio::test]
async fn texts_become_pooled_vectors_in_the_order_given() {
    let (runtime, _root) = serve(&both(), "[text]\nnormalize = false").await;
    assert!(runtime.embeds("m") && runtime.describe()[0].text);
    let long = ["six"; 60].join(" ");
    let found = embed(&runtime, texts(&["six", &long, "", "nine six"]), None).await;
    let found = found.expect("embeds");
    // Means over [CLS] 1, the words, [SEP] 2.
    let means: Vec<f32> = found.vectors.iter().map(|vector| vector[0]).collect();
    assert_eq!(means, [3.0, 363.0 / 62.0, 1.5, 4.5]);
    assert!(found.vectors.iter().all(|vector| vector[1..] == [1.0, 0.0]));
    assert_eq!(found.tokens, 3 + 62 + 2 + 4);
}

#[tokio::test]
async fn many_texts_run_in_sub_batches_of_similar_length() {
    let transformer = both();
    let (runtime, _root) = serve(&transformer, "[text]\nnormalize = false").await;
    let words = ["a", "b", "c", "d"];
    let texts: Vec<String> = (0..200)
        .map(|index| vec![words[index % 4]; 1 + index % 7].join(" "))
        .collect();
    let found = embed(&runtime, EmbedInputs::Texts(texts), None)
        .await
        .expect("embeds");
    for (index, vector) in found.vectors.iter().enumerate() {
        let count = 1 + index % 7;
        let id = [5, 7, 8, 10][index % 4];
        let expected = (3 + id * count) as f32 / (count + 2) as f32;
        assert!((vector[0] - expected).abs() < 1e-5, "{index}: {vector:?}");
    }
    let shapes = transformer.shapes.lock().clone();
    assert!(shapes.iter().all(|shape| shape[0] <= 32 && shape[1] <= 9));
    assert_eq!(shapes.iter().map(|shape| shape[0]).sum::<usize>(), 200);
    assert_eq!(shapes.len(), 7);
    let statistics = runtime.statistics(Some("m"), None).expect("known");
    assert_eq!(statistics[0].inference_count, 200);
    assert_eq!(statistics[0].execution_count, 7);
    assert_eq!(counts(&runtime), (1, 0));
}

/// Requests that succeeded and failed, as the statistics say.
fn counts(runtime: &Runtime) -> (u64, u64) {
    let statistics = runtime.statistics(Some("m"), None).expect("known");
    let requests = statistics[0].inference_stats.as_ref().expect("always");
    let count = |sum: &Option<protocol::oip::proto::StatisticDuration>| {
        sum.as_ref().map_or(0, |sum| sum.count)
    };
    (count(&requests.success), count(&requests.fail))
}

#[tokio::test]
async fn a_request_that_cannot_be_tokenised_counts_as_one_failure() {
    let transformer = both();
    let (runtime, _root) = serve(&transformer, "[text]").await;
    let huge = "six ".repeat(20_000);
    let error = embed(&runtime, texts(&["six", &huge]), None).await;
    let error = error.expect_err("too large");
    assert_eq!(
        (error.kind, error.param.as_deref()),
        (ErrorKind::Invalid, Some("input"))
    );
    assert!(
        error
            .message
            .starts_with("`input[1]`: the text has 80000 bytes"),
        "{error}"
    );
    assert_eq!(counts(&runtime), (0, 1));
    embed(&runtime, texts(&["six"]), None)
        .await
        .expect("embeds");
    assert_eq!(counts(&runtime), (1, 1));
}

#[test]
fn a_tokenise_job_ends_by_texts_and_by_bytes() {
    let ends = |sizes: &[usize]| {
        let texts = sizes.iter().map(|size| "x".repeat(*size)).collect();
        let inputs = EmbedInputs::Texts(texts);
        let mut ends = vec![0];
        while ends.last() != Some(&sizes.len()) {
            ends.push(super::job_end(&inputs, ends[ends.len() - 1]));
        }
        ends
    };
    assert_eq!(ends(&[1; 130]), [0, 64, 128, 130]);
    assert_eq!(ends(&[65_536; 9]), [0, 4, 8, 9]);
    assert_eq!(ends(&[1 << 20, 1, 1 << 20]), [0, 1, 2, 3]);
}

#[tokio::test]
async fn requests_beyond_lanes_and_queue_are_refused_before_they_are_tokenised() {
    let transformer = both();
    let (runtime, _root) = serve(&transformer, "[text]").await;
    let model = runtime.model("m", None).expect("ready");
    // Two lanes and a queue of two.
    let others = model
        .by_engine()
        .expect("an engine")
        .embeds
        .try_acquire_many(4)
        .expect("four places");
    // A text that tokenising would refuse: not looked at.
    let huge = "six ".repeat(20_000);
    let error = embed(&runtime, texts(&[&huge]), None).await;
    assert_eq!(error.expect_err("full").code, Some("queue_full"));
    drop(others);
    embed(&runtime, texts(&["six"]), None)
        .await
        .expect("embeds");
}

#[tokio::test]
async fn a_model_of_fixed_shape_gets_that_shape() {
    let mut fixed = both();
    fixed.inputs[0].shape = vec![3, 6];
    fixed.inputs[1].shape = vec![3, 6];
    let (runtime, _root) = serve(&fixed, "[text]\nnormalize = false").await;
    let long = ["nine"; 60].join(" ");
    let found = embed(&runtime, texts(&["six", &long, "", "three", "nine"]), None).await;
    let found = found.expect("embeds");
    let means: Vec<f32> = found.vectors.iter().map(|vector| vector[0]).collect();
    assert_eq!(means, [3.0, 6.5, 1.5, 7.0 / 3.0, 4.0]);
    assert_eq!(*fixed.shapes.lock(), [[3, 6], [3, 6]]);
    let statistics = runtime.statistics(Some("m"), None).expect("known");
    assert_eq!(statistics[0].inference_count, 5);
    let tokens = embed(&runtime, EmbedInputs::Tokens(vec![vec![4; 7]]), None).await;
    let error = tokens.expect_err("longer than the model");
    assert!(error.message.contains("at most 6"), "{error}");
}

#[test]
fn token_inputs_that_are_no_rectangle_do_not_suit_texts() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    for (shapes, named) in [
        ([vec![-1], vec![-1, -1]], "1 dimensions"),
        ([vec![-1, -1, -1], vec![-1, -1]], "3 dimensions"),
        ([vec![2, -1], vec![3, -1]], "`input_ids` has shape [3, -1]"),
        ([vec![-1, -1], vec![-1, 0]], "`input_ids` has shape [-1, 0]"),
    ] {
        let mut transformer = both();
        for (input, shape) in transformer.inputs.iter_mut().zip(shapes) {
            input.shape = shape;
        }
        let settings = protocol::sidecar::Text::default();
        let refused = TextPipeline::load(folder.path(), &settings, &transformer, None);
        let reason = refused.expect_err("no rectangle");
        assert!(reason.contains(named), "{reason}");
    }
}

#[tokio::test]
async fn vectors_are_shortened_and_normalised_again() {
    let transformer = both();
    let (runtime, _root) = serve(&transformer, "[text]\npooling = \"cls\"").await;
    let found = embed(&runtime, texts(&["six"]), Some(1)).await;
    assert_eq!(found.expect("embeds").vectors, [[1.0]]);
    let full = embed(&runtime, texts(&["six"]), None)
        .await
        .expect("embeds");
    let half = 0.5_f32.sqrt();
    assert!(
        full.vectors[0]
            .iter()
            .zip([half, half, 0.0])
            .all(|(a, b)| (a - b).abs() < 1e-6)
    );
    let ran = transformer.shapes.lock().len();
    for dimensions in [0, 4] {
        let error = embed(&runtime, texts(&["six"]), Some(dimensions)).await;
        let error = error.expect_err("no such length");
        assert_eq!(
            (error.kind, error.param.as_deref()),
            (ErrorKind::Invalid, Some("dimensions"))
        );
    }
    assert_eq!(transformer.shapes.lock().len(), ran);
}

#[tokio::test]
async fn models_differ_in_inputs_types_and_pooling() {
    let three = Transformer::new(&[
        ("input_ids", DataType::Int32),
        ("token_type_ids", DataType::Int32),
        ("attention_mask", DataType::Int32),
    ]);
    let sidecar = "[text]\noutput = \"pooled\"\npooling = \"none\"\nnormalize = false";
    let (runtime, _root) = serve(&three, sidecar).await;
    let found = embed(&runtime, texts(&["nine", "six six"]), None).await;
    assert_eq!(found.expect("embeds").vectors, [[1.0, 0.0, 4.0]; 2]);
    let tokens = EmbedInputs::Tokens(vec![vec![9, 2], vec![6]]);
    let found = embed(&runtime, tokens, None).await.expect("embeds");
    assert_eq!(found.vectors, [[9.0, 0.0, 4.0], [6.0, 0.0, 4.0]]);
    assert_eq!(found.tokens, 3);
    let tokens = EmbedInputs::Tokens(vec![vec![9], vec![11]]);
    let error = embed(&runtime, tokens, None)
        .await
        .expect_err("no such token");
    assert!(
        error.message.starts_with("`input[1]`: token id 11"),
        "{error}"
    );
}

#[tokio::test]
async fn a_sidecar_that_does_not_fit_the_model_keeps_it_from_loading() {
    let positions = Transformer::new(&[
        ("input_ids", DataType::Int64),
        ("position_ids", DataType::Int64),
    ]);
    let floats = Transformer::new(&[("input_ids", DataType::Fp32)]);
    for (transformer, sidecar, named) in [
        (positions, "[text]", "position_ids"),
        (floats, "[text]", "FP32"),
        (
            both(),
            "[text]\noutput = \"hidden\"",
            "`pooled`, `last_hidden_state`",
        ),
        (both(), "[text]\noutput = \"pooled\"", "2 dimensions"),
        (both(), "[text]\ntokenizer = \"vocab.json\"", "vocab.json"),
        (both(), "[text]\nmax_tokens = 2", "max_tokens"),
    ] {
        let (runtime, _root) = serve(&transformer, sidecar).await;
        let reason = runtime.index()[0].reason.clone();
        assert!(reason.contains(named), "{sidecar}: {reason}");
        assert!(!runtime.embeds("m"));
    }
}

#[tokio::test]
async fn a_model_without_a_text_section_takes_no_text() {
    let (runtime, _root) = serve(&both(), "").await;
    let error = embed(&runtime, texts(&["six"]), None).await;
    let error = error.expect_err("no text");
    assert_eq!(error.kind, ErrorKind::Invalid);
    assert!(error.message.contains("[text]"), "{error}");
}

#[tokio::test]
async fn a_version_that_gives_other_vectors_for_the_last_texts_is_refused() {
    let toml = "[text]\nnormalize = false\n[swap]\ncompare = 4";
    let (runtime, root) = serve(&both(), toml).await;
    let six = async || {
        let found = embed(&runtime, texts(&["six"]), None).await;
        found.expect("embeds").vectors[0][0]
    };
    assert!((six().await - 3.0).abs() < 1e-6);
    let load = async |content: &str| {
        let folder = root.path().join("m/2");
        std::fs::create_dir_all(&folder).expect("creates");
        std::fs::write(folder.join("model.onnx"), content).expect("writes");
        let request = protocol::LoadRequest {
            model: "m".to_owned(),
            ..protocol::LoadRequest::default()
        };
        runtime.load(request).await
    };
    let error = load("plus 5").await.expect_err("other vectors");
    assert!(error.message.contains("disagrees"), "{}", error.message);
    assert!((six().await - 3.0).abs() < 1e-6);
    load("plus 0.0001").await.expect("agrees");
    assert!((six().await - 3.0).abs() < 1e-2);
}
