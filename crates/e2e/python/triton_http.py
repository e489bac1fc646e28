"""tritonclient.http: health, metadata, configuration, index, statistics; inference in JSON and binary; errors."""

import numpy as np
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException

from harness import ADDRESS, raises, run

client = triton.InferenceServerClient(ADDRESS, concurrency=4)


def tensor(name, array, datatype, binary=True):
    given = triton.InferInput(name, list(array.shape), datatype)
    given.set_data_from_numpy(array, binary_data=binary)
    return given


def check_health_and_metadata():
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("identity")
    assert client.is_model_ready("identity", "1")
    assert not client.is_model_ready("nope")
    server = client.get_server_metadata()
    assert server["name"] == "kapok" and server["version"], server
    model = client.get_model_metadata("batched")
    assert model["inputs"] == [{"name": "INPUT0", "datatype": "FP32", "shape": [-1, 3]}], model
    config = client.get_model_config("batched")
    assert config["max_batch_size"] == 8, config
    index = client.get_model_repository_index()
    assert {entry["name"] for entry in index} >= {"identity", "batched", "strings"}, index
    assert all(entry["state"] == "READY" for entry in index), index


def check_json_and_binary_agree():
    array = np.array([0.1, -1.5, 3e38, 0.0], np.float32)
    for binary_in in (False, True):
        for binary_out in (False, True):
            answer = client.infer(
                "identity",
                [tensor("INPUT0", array, "FP32", binary_in)],
                outputs=[triton.InferRequestedOutput("OUTPUT0", binary_data=binary_out)],
                request_id="mine",
            )
            assert answer.get_response()["id"] == "mine"
            assert answer.get_response()["model_name"] == "identity"
            np.testing.assert_array_equal(answer.as_numpy("OUTPUT0"), array)


def check_special_values_survive_in_binary():
    array = np.array([np.nan, np.inf, -np.inf, -0.0], np.float32)
    answer = client.infer("identity", [tensor("INPUT0", array, "FP32")])
    assert answer.as_numpy("OUTPUT0").tobytes() == array.tobytes()


def check_other_types():
    integers = np.array([[2**62, -(2**62)], [0, -1]], np.int64)
    for binary in (False, True):
        wanted = [triton.InferRequestedOutput("OUTPUT0", binary_data=binary)]
        answer = client.infer("integers", [tensor("INPUT0", integers, "INT64", binary)], outputs=wanted)
        np.testing.assert_array_equal(answer.as_numpy("OUTPUT0"), integers)
    halves = np.array([1.5, -65504, 6e-8], np.float16)
    answer = client.infer("halves", [tensor("INPUT0", halves, "FP16")])
    np.testing.assert_array_equal(answer.as_numpy("OUTPUT0"), halves)
    empty = np.zeros((0,), np.float32)
    answer = client.infer("identity", [tensor("INPUT0", empty, "FP32")])
    assert answer.as_numpy("OUTPUT0").shape == (0,)


def check_strings():
    array = np.array(["one", "木棉", "", "new\nline", "\U0001f333"], object)
    for binary in (False, True):
        wanted = [triton.InferRequestedOutput("OUTPUT0", binary_data=binary)]
        answer = client.infer("strings", [tensor("INPUT0", array, "BYTES", binary)], outputs=wanted)
        found = [item.decode() if isinstance(item, bytes) else item for item in answer.as_numpy("OUTPUT0")]
        assert found == list(array), found
    raw = np.array([b"\xff\x00\xfe", b""], object)
    answer = client.infer("strings", [tensor("INPUT0", raw, "BYTES")])
    assert list(answer.as_numpy("OUTPUT0")) == list(raw)


def check_batches():
    array = np.arange(24, dtype=np.float32).reshape(8, 3)
    answer = client.infer("batched", [tensor("INPUT0", array, "FP32")])
    np.testing.assert_array_equal(answer.as_numpy("OUTPUT0"), array)
    too_many = np.zeros((9, 3), np.float32)
    error = raises(InferenceServerException, lambda: client.infer("batched", [tensor("INPUT0", too_many, "FP32")]))
    assert "8" in error.message() and error.status() == "400", error


def check_async_calls():
    arrays = [np.full((100,), turn, np.float32) for turn in range(8)]
    calls = [client.async_infer("identity", [tensor("INPUT0", array, "FP32")]) for array in arrays]
    for call, array in zip(calls, arrays):
        np.testing.assert_array_equal(call.get_result().as_numpy("OUTPUT0"), array)


def check_statistics_count_calls():
    def successes():
        statistics = client.get_inference_statistics("batched")
        return statistics["model_stats"][0]["inference_stats"]["success"]["count"]

    before = successes()
    array = np.zeros((1, 3), np.float32)
    client.infer("batched", [tensor("INPUT0", array, "FP32")])
    assert successes() == before + 1


def check_errors_have_status_and_message():
    array = np.zeros((1,), np.float32)
    error = raises(InferenceServerException, lambda: client.infer("nope", [tensor("INPUT0", array, "FP32")]))
    assert error.message().startswith("Request for unknown model: 'nope' is not found"), error.message()
    assert error.status() == "404", error.status()
    error = raises(InferenceServerException, lambda: client.infer("identity", [tensor("WRONG", array, "FP32")]))
    assert "WRONG" in error.message() and error.status() == "400", error
    whole = np.zeros((1,), np.int32)
    error = raises(InferenceServerException, lambda: client.infer("identity", [tensor("INPUT0", whole, "INT32")]))
    assert "INPUT0" in error.message() and error.status() == "400", error


run(globals())
