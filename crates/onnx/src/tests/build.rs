//! Writes tiny ONNX models: the messages that reading does not need, and a few words to put them together.

use crate::proto::{
    Attribute, Dimension, Node, Nodes, Opaque, Opset, Shape, TensorType, Type, ValueInfo, element,
};

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Model {
    #[prost(int64, tag = "1")]
    pub(crate) ir_version: i64,
    #[prost(message, optional, tag = "7")]
    pub(crate) graph: Option<Graph>,
    #[prost(message, repeated, tag = "8")]
    pub(crate) opsets: Vec<Opset>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Graph {
    #[prost(message, repeated, tag = "1")]
    pub(crate) nodes: Vec<Node>,
    #[prost(string, tag = "2")]
    pub(crate) name: String,
    #[prost(message, repeated, tag = "5")]
    pub(crate) initializers: Vec<Initializer>,
    #[prost(message, repeated, tag = "11")]
    pub(crate) inputs: Vec<ValueInfo>,
    #[prost(message, repeated, tag = "12")]
    pub(crate) outputs: Vec<ValueInfo>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Initializer {
    /// Not packed: the format is of protobuf's second version, and rten reads it strictly.
    #[prost(int64, repeated, packed = "false", tag = "1")]
    pub(crate) dims: Vec<i64>,
    #[prost(int32, tag = "2")]
    pub(crate) element: i32,
    #[prost(string, tag = "8")]
    pub(crate) name: String,
    #[prost(bytes = "vec", tag = "9")]
    pub(crate) raw: Vec<u8>,
}

/// A model of this graph, in the format's version 8 with opset 17.
pub(crate) fn model(nodes: Vec<Node>, inputs: Vec<ValueInfo>, outputs: Vec<ValueInfo>) -> Model {
    Model {
        ir_version: 8,
        graph: Some(Graph {
            nodes,
            name: "test".to_owned(),
            initializers: Vec::new(),
            inputs,
            outputs,
        }),
        opsets: vec![Opset {
            domain: String::new(),
            version: 17,
        }],
    }
}

impl Model {
    pub(crate) fn with_floats(mut self, name: &str, dims: &[i64], values: &[f32]) -> Self {
        if let Some(graph) = &mut self.graph {
            graph.initializers.push(Initializer {
                dims: dims.to_vec(),
                element: element::FLOAT,
                name: name.to_owned(),
                raw: values
                    .iter()
                    .flat_map(|value| value.to_le_bytes())
                    .collect(),
            });
        }
        self
    }
}

pub(crate) fn node(operator: &str, inputs: &[&str], outputs: &[&str]) -> Node {
    let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    Node {
        inputs: owned(inputs),
        outputs: owned(outputs),
        operator: operator.to_owned(),
        ..Node::default()
    }
}

impl Node {
    pub(crate) fn with_int(mut self, name: &str, int: i64) -> Self {
        self.attributes.push(Attribute {
            name: name.to_owned(),
            int: Some(int),
            kind: 2,
            ..Attribute::default()
        });
        self
    }

    pub(crate) fn with_text(mut self, name: &str, text: &str) -> Self {
        self.attributes.push(Attribute {
            name: name.to_owned(),
            text: Some(text.as_bytes().to_vec()),
            kind: 3,
            ..Attribute::default()
        });
        self
    }

    pub(crate) fn with_graph(mut self, name: &str, graph: Nodes) -> Self {
        self.attributes.push(Attribute {
            name: name.to_owned(),
            graph: Some(graph),
            kind: 5,
            ..Attribute::default()
        });
        self
    }
}

/// A tensor of which a dimension of -1 is called `batch`.
pub(crate) fn tensor(name: &str, element: i32, dims: &[i64]) -> ValueInfo {
    let dims = dims.iter().map(|dim| Dimension {
        value: (*dim >= 0).then_some(*dim),
        param: (*dim < 0).then(|| "batch".to_owned()),
    });
    let shape = Some(Shape {
        dims: dims.collect(),
    });
    value(
        name,
        Type {
            tensor: Some(TensorType { element, shape }),
            ..Type::default()
        },
    )
}

pub(crate) fn unranked(name: &str, element: i32) -> ValueInfo {
    let tensor = Some(TensorType {
        element,
        shape: None,
    });
    value(
        name,
        Type {
            tensor,
            ..Type::default()
        },
    )
}

pub(crate) fn sequence(name: &str) -> ValueInfo {
    value(
        name,
        Type {
            sequence: Some(Opaque {}),
            ..Type::default()
        },
    )
}

fn value(name: &str, kind: Type) -> ValueInfo {
    ValueInfo {
        name: name.to_owned(),
        kind: Some(kind),
    }
}
