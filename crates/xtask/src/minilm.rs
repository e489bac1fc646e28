//! Writes all-MiniLM-L6-v2 as ONNX, from its safetensors and nothing else.
//!
//! The world's exports of this model differ from each other and none ships in a package registry. The network is a plain
//! BERT encoder (6 layers, 12 heads of 32, width 384, inner width 1536), so its graph is written out here: opset 17,
//! inputs `input_ids`, `attention_mask`, `token_type_ids` (int64, [batch, sequence]), output `last_hidden_state`. The
//! same input gives the same bytes, which `models.toml` pins.
//! Architecture: <https://arxiv.org/abs/1810.04805>; field numbers: `onnx.proto` at
//! <https://github.com/onnx/onnx/blob/main/onnx/onnx.proto>.

mod graph;
mod safetensors;
#[cfg(test)]
mod tests;

use anyhow::{Context, Result};

use graph::{Attribute, Dim, F32, Graph, I64};
use safetensors::Safetensors;

/// What the network looks like; one value in production, a tiny one in tests.
#[derive(Debug, Clone, Copy)]
struct Shape {
    layers: usize,
    heads: usize,
    width: usize,
    inner: usize,
    vocabulary: usize,
    positions: usize,
    segments: usize,
}

const MINILM: Shape = Shape {
    layers: 6,
    heads: 12,
    width: 384,
    inner: 1536,
    vocabulary: 30_522,
    positions: 512,
    segments: 2,
};

/// `layer_norm_eps` of the model's config.json.
const EPSILON: f32 = 1e-12;

/// Added to the scores of padding. exp(-10000) is 0 in every float format, and the value fits them all.
const MASKED: f32 = -10_000.0;

/// The ONNX file for the contents of `model.safetensors`.
pub(crate) fn build(safetensors: &[u8]) -> Result<Vec<u8>> {
    build_with(safetensors, MINILM)
}

fn build_with(safetensors: &[u8], shape: Shape) -> Result<Vec<u8>> {
    let weights = Safetensors::parse(safetensors).context("not a safetensors file")?;
    let mut writer = Writer {
        graph: Graph::default(),
        weights,
        shape,
    };
    writer.constants();
    let mut hidden = writer.embeddings()?;
    let mask = writer.mask();
    for layer in 0..shape.layers {
        hidden = writer.layer(layer, &hidden, &mask)?;
    }
    writer.graph.rename_output(&hidden, "last_hidden_state");
    let open = [Dim::Named("batch"), Dim::Named("sequence")];
    for name in ["input_ids", "attention_mask", "token_type_ids"] {
        writer.graph.input(name, I64, &open);
    }
    let [batch, sequence] = open;
    let width = Dim::Fixed(shape.width);
    writer
        .graph
        .output("last_hidden_state", F32, &[batch, sequence, width]);
    Ok(writer.graph.into_model("kapok", 17))
}

struct Writer<'a> {
    graph: Graph,
    weights: Safetensors<'a>,
    shape: Shape,
}

impl Writer<'_> {
    fn constants(&mut self) {
        let head = self.shape.width / self.shape.heads;
        let graph = &mut self.graph;
        for (name, value) in [("zero", 0), ("one", 1)] {
            graph.ints(name, &[], &[value]);
        }
        graph.ints("mask_axes", &[2], &[1, 2]);
        // 0 keeps the dimension of the input.
        graph.ints(
            "split_heads",
            &[4],
            &[0, 0, self.shape.heads as i64, head as i64],
        );
        graph.ints("join_heads", &[3], &[0, 0, self.shape.width as i64]);
        graph.float("masked", MASKED);
        graph.float("one_f32", 1.0);
        graph.float("half", 0.5);
        graph.float("sqrt_two", std::f32::consts::SQRT_2);
        graph.float("score_scale", 1.0 / (head as f32).sqrt());
    }

    /// Word + position + segment, normalised.
    fn embeddings(&mut self) -> Result<String> {
        let Shape {
            vocabulary,
            positions,
            segments,
            width,
            ..
        } = self.shape;
        let words = self.weight("embeddings.word_embeddings.weight", &[vocabulary, width])?;
        let places = self.weight("embeddings.position_embeddings.weight", &[positions, width])?;
        let kinds = self.weight(
            "embeddings.token_type_embeddings.weight",
            &[segments, width],
        )?;
        let graph = &mut self.graph;
        let word = graph.node("Gather", &[&words, "input_ids"], &[]);
        let dims = graph.node("Shape", &["input_ids"], &[]);
        let length = graph.node("Gather", &[&dims, "one"], &[]);
        let indices = graph.node("Range", &["zero", &length, "one"], &[]);
        let place = graph.node("Gather", &[&places, &indices], &[]);
        let kind = graph.node("Gather", &[&kinds, "token_type_ids"], &[]);
        let sum = graph.node("Add", &[&word, &kind], &[]);
        let sum = graph.node("Add", &[&sum, &place], &[]);
        self.normalise("embeddings.LayerNorm", &sum)
    }

    /// 1 and 0 become 0 and [`MASKED`], shaped to be added to the scores [batch, head, query, key].
    fn mask(&mut self) -> String {
        let graph = &mut self.graph;
        let keep = graph.node("Cast", &["attention_mask"], &[Attribute::Int("to", F32)]);
        let keep = graph.node("Unsqueeze", &[&keep, "mask_axes"], &[]);
        let drop = graph.node("Sub", &["one_f32", &keep], &[]);
        graph.node("Mul", &[&drop, "masked"], &[])
    }

    fn layer(&mut self, layer: usize, hidden: &str, mask: &str) -> Result<String> {
        let Shape { width, inner, .. } = self.shape;
        let at = |part: &str| format!("encoder.layer.{layer}.{part}");
        let attended = self.attention(&at("attention.self"), hidden, mask)?;
        let attended = self.linear(&at("attention.output.dense"), &attended, (width, width))?;
        let sum = self.graph.node("Add", &[&attended, hidden], &[]);
        let middle = self.normalise(&at("attention.output.LayerNorm"), &sum)?;
        let wide = self.linear(&at("intermediate.dense"), &middle, (width, inner))?;
        let wide = self.gelu(&wide);
        let narrow = self.linear(&at("output.dense"), &wide, (inner, width))?;
        let sum = self.graph.node("Add", &[&narrow, &middle], &[]);
        self.normalise(&at("output.LayerNorm"), &sum)
    }

    fn attention(&mut self, prefix: &str, hidden: &str, mask: &str) -> Result<String> {
        let width = self.shape.width;
        let mut heads = |part: &str, order: &'static [i64]| -> Result<String> {
            let flat = self.linear(&format!("{prefix}.{part}"), hidden, (width, width))?;
            let split = self.graph.node("Reshape", &[&flat, "split_heads"], &[]);
            Ok(self
                .graph
                .node("Transpose", &[&split], &[Attribute::Ints("perm", order)]))
        };
        let query = heads("query", &[0, 2, 1, 3])?;
        let key = heads("key", &[0, 2, 3, 1])?;
        let value = heads("value", &[0, 2, 1, 3])?;
        let graph = &mut self.graph;
        let scores = graph.node("MatMul", &[&query, &key], &[]);
        let scores = graph.node("Mul", &[&scores, "score_scale"], &[]);
        let scores = graph.node("Add", &[&scores, mask], &[]);
        let share = graph.node("Softmax", &[&scores], &[Attribute::Int("axis", -1)]);
        let mixed = graph.node("MatMul", &[&share, &value], &[]);
        let mixed = graph.node(
            "Transpose",
            &[&mixed],
            &[Attribute::Ints("perm", &[0, 2, 1, 3])],
        );
        Ok(graph.node("Reshape", &[&mixed, "join_heads"], &[]))
    }

    /// x/2 · (1 + erf(x/√2)), in the order of operations that engines know how to fuse.
    fn gelu(&mut self, x: &str) -> String {
        let graph = &mut self.graph;
        let scaled = graph.node("Div", &[x, "sqrt_two"], &[]);
        let erf = graph.node("Erf", &[&scaled], &[]);
        let shifted = graph.node("Add", &[&erf, "one_f32"], &[]);
        let product = graph.node("Mul", &[x, &shifted], &[]);
        graph.node("Mul", &[&product, "half"], &[])
    }

    fn normalise(&mut self, prefix: &str, x: &str) -> Result<String> {
        let width = [self.shape.width];
        let scale = self.weight(&format!("{prefix}.weight"), &width)?;
        let shift = self.weight(&format!("{prefix}.bias"), &width)?;
        let how = [
            Attribute::Int("axis", -1),
            Attribute::Float("epsilon", EPSILON),
        ];
        Ok(self
            .graph
            .node("LayerNormalization", &[x, &scale, &shift], &how))
    }

    /// x · Wᵀ + b. The file holds W as [out, in]; MatMul wants [in, out], so it is turned here, once.
    fn linear(&mut self, prefix: &str, x: &str, (from, to): (usize, usize)) -> Result<String> {
        let name = format!("{prefix}.weight");
        let turned = transpose(self.weights.f32(&name, &[to, from])?, to, from);
        self.graph.floats(&name, &[from, to], &turned);
        let bias = self.weight(&format!("{prefix}.bias"), &[to])?;
        let product = self.graph.node("MatMul", &[x, &name], &[]);
        Ok(self.graph.node("Add", &[&product, &bias], &[]))
    }

    /// Puts a tensor of the file into the graph under its own name.
    fn weight(&mut self, name: &str, shape: &[usize]) -> Result<String> {
        let data = self.weights.f32(name, shape)?;
        self.graph.floats(name, shape, data);
        Ok(name.to_owned())
    }
}

/// A row-major [rows, columns] matrix of four-byte elements, turned.
fn transpose(data: &[u8], rows: usize, columns: usize) -> Vec<u8> {
    let (elements, _) = data.as_chunks::<4>();
    let mut out = Vec::with_capacity(data.len());
    for column in 0..columns {
        for element in elements.iter().skip(column).step_by(columns).take(rows) {
            out.extend_from_slice(element);
        }
    }
    out
}
