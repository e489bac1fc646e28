import json

import numpy as np
import pytest

from kapok_sdk import Tensor, tensor
from kapok_sdk.tensors import decode, encode


@pytest.mark.parametrize(
    ("value", "datatype", "shape"),
    [
        ([1, 2, 3], "INT64", (3,)),
        ([[1.0, 2], [3, 4.5]], "FP32", (2, 2)),
        ([True, False], "BOOL", (2,)),
        (["a", "b"], "BYTES", (2,)),
        ("text", "BYTES", ()),
        (7, "INT64", ()),
        ([], "FP32", (0,)),
        (np.zeros((2, 3), dtype=np.float16), "FP16", (2, 3)),
        (np.array(1, dtype=np.uint8), "UINT8", ()),
        (np.array([["a"], ["bc"]]), "BYTES", (2, 1)),
    ],
)
def test_python_values_are_tensors(value, datatype, shape):
    made = tensor(value)
    assert (made.datatype, made.shape) == (datatype, shape)


@pytest.mark.parametrize(
    ("value", "error", "words"),
    [
        ([[1, 2], [3]], ValueError, "rows differ"),
        ([1, "a"], TypeError, "int, str"),
        ([True, 1], TypeError, "bool, int"),
        ([None], TypeError, "NoneType"),
        (np.zeros(2, dtype=np.complex64), TypeError, "complex64"),
    ],
)
def test_what_is_no_tensor_is_refused_before_it_is_sent(value, error, words):
    with pytest.raises(error, match=words):
        tensor(value)


def answer(headers, body):
    """What a model that gives back its inputs answers to this request."""
    length = headers.get("inference-header-content-length")
    head, rest = (body, b"") if length is None else (body[: int(length)], body[int(length) :])
    document = json.loads(head)
    head = json.dumps({"model_name": "m", "outputs": document["inputs"]}).encode()
    told = {} if length is None else {"inference-header-content-length": str(len(head))}
    return told, head + rest


@pytest.mark.parametrize(
    "value",
    [
        [[1, 2, 3], [4, 5, 6]],
        [0.5, -1.5],
        ["ä", ""],
        [[[1]], [[2]]],
        [],
        5,
    ],
)
def test_lists_come_back_as_they_went(value):
    headers, body = encode({"a": value, "b": [1]}, None)
    assert headers["content-type"] == "application/json"
    assert decode(*answer(headers, body))["a"].tolist() == value


@pytest.mark.parametrize(
    "array",
    [
        np.arange(6, dtype=np.float32).reshape(2, 3),
        np.arange(6, dtype=np.int64).reshape(2, 3).T,
        np.array([True, False]),
        np.zeros((0, 3), dtype=np.float64),
        np.array([1, 2], dtype=">i4"),
        np.array(3, dtype=np.int8),
    ],
)
def test_arrays_travel_raw_and_come_back_as_they_went(array):
    headers, body = encode({"list": [1, 2], "array": array}, None)
    assert int(headers["inference-header-content-length"]) + array.nbytes == len(body)
    found = decode(*answer(headers, body))
    assert np.array_equal(found["array"].numpy(), array)
    assert found["array"].tolist() == array.tolist()
    assert found["list"].tolist() == [1, 2]


def test_bytes_travel_raw_and_text_as_json():
    raw = [b"\xff\x00", b""]
    headers, body = encode({"raw": raw}, None)
    found = decode(*answer(headers, body))["raw"]
    assert found.tolist() == raw
    assert found.numpy().tolist() == raw
    assert json.loads(encode({"text": ["a"]}, None)[1])["inputs"][0]["data"] == ["a"]


def test_chosen_outputs_are_asked_for_in_the_form_of_the_inputs():
    for value, raw in [([1], False), (np.zeros(1), True)]:
        headers, body = encode({"a": value}, ["x"])
        head = json.loads(body[: int(headers.get("inference-header-content-length", len(body)))])
        assert head["outputs"] == [{"name": "x", "parameters": {"binary_data": raw}}]


def test_an_answer_that_ends_early_is_no_answer():
    head = (
        b'{"model_name":"m","outputs":[{"name":"a","datatype":"INT8","shape":[4],"parameters":{"binary_data_size":4}}]}'
    )
    with pytest.raises(ValueError, match="ends inside of `a`"):
        decode({"inference-header-content-length": str(len(head))}, head + b"abc")


def test_a_tensor_of_a_given_type_stays_of_it():
    given = Tensor("FP64", (1,), [1])
    assert json.loads(encode({"a": given}, None)[1])["inputs"][0]["datatype"] == "FP64"
    assert tensor([1, 2], "FP32").datatype == "FP32"
