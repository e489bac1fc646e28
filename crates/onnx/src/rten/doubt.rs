//! Where rten is known to compute something else than the ONNX standard says, without an error. Such a model is refused
//! at load: an engine that is slower or missing is better than a wrong answer. Found with ONNX's own operator tests; a
//! new version of rten may need fewer of these.

use prost::Message;

use crate::proto::{Node, Nodes, Structure, ValueInfo};

/// From this version on, the softmax family works along one axis and -1 is its default, which is all that rten knows.
/// Before it, the axis was where the tensor was cut into a matrix, and the default was 1.
const OPSET_SOFTMAX_BY_AXIS: i64 = 13;

/// The first reason to doubt rten's answers for this model; none is the hope, not a proof.
pub(super) fn doubt(file: &[u8]) -> Result<Option<String>, prost::DecodeError> {
    let model = Structure::decode(file)?;
    let opset = model
        .opsets
        .iter()
        .find(|opset| is_standard(&opset.domain))
        .map_or(OPSET_SOFTMAX_BY_AXIS, |opset| opset.version);
    Ok(model.graph.and_then(|graph| in_graph(&graph, opset)))
}

fn is_standard(domain: &str) -> bool {
    matches!(domain, "" | "ai.onnx")
}

fn in_graph(graph: &Nodes, opset: i64) -> Option<String> {
    graph.nodes.iter().find_map(|node| {
        let subgraphs = node.attributes.iter().flat_map(|part| &part.graph);
        is_standard(&node.domain)
            .then(|| in_node(graph, node, opset))
            .flatten()
            .map(|reason| format!("rten's {} {reason}", node.operator))
            .or_else(|| {
                subgraphs
                    .into_iter()
                    .find_map(|graph| in_graph(graph, opset))
            })
    })
}

fn in_node(graph: &Nodes, node: &Node, opset: i64) -> Option<&'static str> {
    match node.operator.as_str() {
        "Softmax" | "LogSoftmax" | "Hardmax" if opset < OPSET_SOFTMAX_BY_AXIS => {
            softmax(graph, node)
        }
        "Resize" | "Upsample" => {
            let mode = attribute(node, "mode").and_then(|mode| mode.text.as_deref());
            (mode == Some(b"cubic")).then_some("interpolates linearly where cubic is asked for")
        }
        // Where the place is in a tensor, nothing here knows its sign.
        "SequenceInsert" if node.inputs.get(2).is_some_and(|place| !place.is_empty()) => {
            Some("counts a negative place from the wrong end")
        }
        // Inside a graph, one step of 255 is what the comparison with other engines judges.
        "DynamicQuantizeLinear" if gives(graph, node.outputs.first()) => {
            Some("rounds some integers to their neighbour, and here they are an output")
        }
        "Sign" => Some("gives 1 for 0"),
        "NonMaxSuppression" => Some("selects each box for one class only"),
        _ => None,
    }
}

/// Cutting into a matrix before the last axis is the same as working along it.
fn softmax(graph: &Nodes, node: &Node) -> Option<&'static str> {
    let axis = attribute(node, "axis").and_then(|axis| axis.int);
    let rank = node.outputs.first().and_then(|name| rank(graph, name));
    let last = match (axis, rank) {
        (Some(-1), _) => true,
        (axis, Some(rank)) => axis.unwrap_or(1) == rank - 1,
        // Exporters of that time wrote the axis when it was not the default, and wrote the last.
        (Some(_), None) => true,
        (None, None) => false,
    };
    (!last).then_some("does not flatten as operator sets before 13 ask")
}

fn attribute<'a>(node: &'a Node, name: &str) -> Option<&'a crate::proto::Attribute> {
    node.attributes
        .iter()
        .find(|attribute| attribute.name == name)
}

fn gives(graph: &Nodes, name: Option<&String>) -> bool {
    name.is_some_and(|name| graph.outputs.iter().any(|info| info.name == *name))
}

fn rank(graph: &Nodes, name: &str) -> Option<i64> {
    let declared = |info: &ValueInfo| {
        let tensor = info.kind.as_ref()?.tensor.as_ref()?;
        i64::try_from(tensor.shape.as_ref()?.dims.len()).ok()
    };
    graph
        .outputs
        .iter()
        .chain(&graph.values)
        .find(|info| info.name == name)
        .and_then(declared)
}
