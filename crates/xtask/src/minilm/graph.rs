//! An ONNX graph under construction. Message and field numbers are those of `onnx.proto`.

use crate::protobuf::Message;

/// `TensorProto.DataType`.
pub(crate) const F32: i64 = 1;
pub(crate) const I64: i64 = 7;

/// `AttributeProto.AttributeType`.
const FLOAT: i64 = 1;
const INT: i64 = 2;
const INTS: i64 = 7;

/// The first release of the format that carries opset 17.
const IR_VERSION: i64 = 8;

#[derive(Debug, Default)]
pub(crate) struct Graph {
    nodes: Vec<Node>,
    initializers: Vec<Message>,
    inputs: Vec<Message>,
    outputs: Vec<Message>,
}

#[derive(Debug)]
struct Node {
    operator: &'static str,
    inputs: Vec<String>,
    output: String,
    attributes: Vec<Attribute>,
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Attribute {
    Int(&'static str, i64),
    Float(&'static str, f32),
    Ints(&'static str, &'static [i64]),
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Dim {
    Named(&'static str),
    Fixed(usize),
}

impl Graph {
    /// Adds a node with one output and names that output.
    pub(crate) fn node(
        &mut self,
        operator: &'static str,
        inputs: &[&str],
        attributes: &[Attribute],
    ) -> String {
        let output = format!("{operator}_{}", self.nodes.len());
        self.nodes.push(Node {
            operator,
            inputs: inputs.iter().map(|&name| name.to_owned()).collect(),
            output: output.clone(),
            attributes: attributes.to_vec(),
        });
        output
    }

    /// Gives a node's output the name that callers see. Nothing may read it under the old one.
    pub(crate) fn rename_output(&mut self, old: &str, new: &str) {
        for node in self.nodes.iter_mut().filter(|node| node.output == old) {
            new.clone_into(&mut node.output);
        }
    }

    pub(crate) fn floats(&mut self, name: &str, shape: &[usize], data: &[u8]) {
        self.initializer(name, F32, shape, data);
    }

    pub(crate) fn float(&mut self, name: &str, value: f32) {
        self.initializer(name, F32, &[], &value.to_le_bytes());
    }

    pub(crate) fn ints(&mut self, name: &str, shape: &[usize], values: &[i64]) {
        let data: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        self.initializer(name, I64, shape, &data);
    }

    fn initializer(&mut self, name: &str, dtype: i64, shape: &[usize], data: &[u8]) {
        let tensor = shape
            .iter()
            .fold(Message::new(), |tensor, dim| tensor.int(1, *dim as i64));
        self.initializers
            .push(tensor.int(2, dtype).text(8, name).bytes(9, data));
    }

    pub(crate) fn input(&mut self, name: &str, dtype: i64, dims: &[Dim]) {
        self.inputs.push(value_info(name, dtype, dims));
    }

    pub(crate) fn output(&mut self, name: &str, dtype: i64, dims: &[Dim]) {
        self.outputs.push(value_info(name, dtype, dims));
    }

    /// The whole file.
    pub(crate) fn into_model(self, producer: &str, opset: i64) -> Vec<u8> {
        let graph = Message::new()
            .messages(1, self.nodes.iter().map(Node::encode))
            .text(2, "main")
            .messages(5, self.initializers)
            .messages(11, self.inputs)
            .messages(12, self.outputs);
        Message::new()
            .int(1, IR_VERSION)
            .text(2, producer)
            .message(7, graph)
            .message(8, Message::new().text(1, "").int(2, opset))
            .into_bytes()
    }
}

impl Node {
    fn encode(&self) -> Message {
        let node = self
            .inputs
            .iter()
            .fold(Message::new(), |node, input| node.text(1, input));
        node.text(2, &self.output)
            .text(3, &self.output)
            .text(4, self.operator)
            .messages(5, self.attributes.iter().map(|a| a.encode()))
    }
}

impl Attribute {
    fn encode(self) -> Message {
        let message = Message::new();
        match self {
            Self::Int(name, value) => message.text(1, name).int(3, value).int(20, INT),
            Self::Float(name, value) => message.text(1, name).float(2, value).int(20, FLOAT),
            Self::Ints(name, values) => values
                .iter()
                .fold(message.text(1, name), |message, value| {
                    message.int(8, *value)
                })
                .int(20, INTS),
        }
    }
}

fn value_info(name: &str, dtype: i64, dims: &[Dim]) -> Message {
    let dims = dims.iter().map(|dim| match dim {
        Dim::Fixed(value) => Message::new().int(1, *value as i64),
        Dim::Named(name) => Message::new().text(2, name),
    });
    let shape = Message::new().messages(1, dims);
    let tensor = Message::new().int(1, dtype).message(2, shape);
    Message::new()
        .text(1, name)
        .message(2, Message::new().message(1, tensor))
}
