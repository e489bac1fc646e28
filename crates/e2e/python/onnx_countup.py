"""Writes an ONNX model that counts up to its input: it adds 1 to a state and asks for another run until it is there."""

import os

import onnx
from onnx import TensorProto, helper


def tensor(name, kind):
    return helper.make_tensor_value_info(name, kind, ["rows", 1])


graph = helper.make_graph(
    [
        helper.make_node("Add", ["n", "one"], ["next"]),
        helper.make_node("Identity", ["next"], ["OUTPUT"]),
        helper.make_node("Less", ["next", "INPUT"], ["RESCHEDULE"]),
    ],
    "countup",
    [tensor("INPUT", TensorProto.INT32), tensor("n", TensorProto.INT32)],
    [
        tensor("OUTPUT", TensorProto.INT32),
        tensor("next", TensorProto.INT32),
        tensor("RESCHEDULE", TensorProto.BOOL),
    ],
    [helper.make_tensor("one", TensorProto.INT32, [1], [1])],
)
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
model.ir_version = 8
onnx.checker.check_model(model)
onnx.save(model, os.environ["MODEL_PATH"])
print("written")
