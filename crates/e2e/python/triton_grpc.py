"""tritonclient.grpc: the same calls over gRPC, on the same port."""

import queue

import numpy as np
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

from harness import ADDRESS, raises, run

client = triton.InferenceServerClient(ADDRESS)


def tensor(name, array, datatype):
    given = triton.InferInput(name, list(array.shape), datatype)
    given.set_data_from_numpy(array)
    return given


def check_health_and_metadata():
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("identity")
    assert client.is_model_ready("identity", "1")
    assert not client.is_model_ready("identity", "7")
    assert not client.is_model_ready("nope")
    server = client.get_server_metadata()
    assert server.name == "kapok" and server.version, server
    model = client.get_model_metadata("batched")
    assert (model.inputs[0].name, model.inputs[0].datatype) == ("INPUT0", "FP32"), model
    assert list(model.inputs[0].shape) == [-1, 3], model
    assert client.get_model_config("batched").config.max_batch_size == 8
    index = client.get_model_repository_index()
    assert {entry.name for entry in index.models} >= {"identity", "batched", "strings"}, index
    assert all(entry.state == "READY" for entry in index.models), index


def check_inference():
    array = np.array([0.1, -1.5, np.nan, np.inf], np.float32)
    answer = client.infer("identity", [tensor("INPUT0", array, "FP32")], request_id="mine")
    assert answer.get_response().id == "mine"
    assert answer.get_response().model_version == "1"
    assert answer.as_numpy("OUTPUT0").tobytes() == array.tobytes()
    wanted = [triton.InferRequestedOutput("OUTPUT0")]
    answer = client.infer("identity", [tensor("INPUT0", array, "FP32")], outputs=wanted, model_version="1")
    assert answer.as_numpy("OUTPUT0").tobytes() == array.tobytes()


def check_other_types():
    integers = np.array([[2**62, -(2**62)], [0, -1]], np.int64)
    answer = client.infer("integers", [tensor("INPUT0", integers, "INT64")])
    np.testing.assert_array_equal(answer.as_numpy("OUTPUT0"), integers)
    halves = np.array([1.5, -65504, 6e-8], np.float16)
    answer = client.infer("halves", [tensor("INPUT0", halves, "FP16")])
    np.testing.assert_array_equal(answer.as_numpy("OUTPUT0"), halves)
    strings = np.array(["木棉".encode(), b"", b"\xff\x00"], object)
    answer = client.infer("strings", [tensor("INPUT0", strings, "BYTES")])
    assert list(answer.as_numpy("OUTPUT0")) == list(strings)


def check_large_tensors():
    # gRPC's customary limit is 4 MB a message; a picture is larger.
    array = np.arange(4 << 20, dtype=np.float32)
    answer = client.infer("identity", [tensor("INPUT0", array, "FP32")])
    np.testing.assert_array_equal(answer.as_numpy("OUTPUT0"), array)


def check_async_calls():
    answers = queue.Queue()
    for turn in range(8):
        array = np.full((100,), turn, np.float32)
        client.async_infer(
            "identity", [tensor("INPUT0", array, "FP32")], lambda result, error: answers.put((result, error))
        )
    seen = set()
    for _ in range(8):
        result, error = answers.get(timeout=30)
        assert error is None, error
        seen.add(float(result.as_numpy("OUTPUT0")[0]))
    assert seen == set(range(8)), seen


def check_errors_have_status_and_message():
    array = np.zeros((1,), np.float32)
    error = raises(InferenceServerException, lambda: client.infer("nope", [tensor("INPUT0", array, "FP32")]))
    assert error.message().startswith("Request for unknown model: 'nope' is not found"), error.message()
    assert error.status() == "StatusCode.NOT_FOUND", error.status()
    error = raises(InferenceServerException, lambda: client.infer("identity", [tensor("WRONG", array, "FP32")]))
    assert "WRONG" in error.message() and error.status() == "StatusCode.INVALID_ARGUMENT", error
    wide = np.zeros((1, 4), np.float32)
    error = raises(InferenceServerException, lambda: client.infer("batched", [tensor("INPUT0", wide, "FP32")]))
    assert "INPUT0" in error.message() and error.status() == "StatusCode.INVALID_ARGUMENT", error
    # `slow` takes 1.5 s.
    call = lambda: client.infer("slow", [tensor("INPUT0", array, "FP32")], client_timeout=0.3)
    error = raises(InferenceServerException, call)
    assert error.status() == "StatusCode.DEADLINE_EXCEEDED", error.status()


def check_http_and_grpc_share_the_port():
    import tritonclient.http as http

    assert http.InferenceServerClient(ADDRESS).is_server_ready()
    assert client.is_server_ready()


run(globals())
