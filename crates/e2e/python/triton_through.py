"""tritonclient in front of one server that passes everything on to another: HTTP, gRPC, a stream, and how errors come back."""

import os
import queue

import numpy as np
import tritonclient.grpc as triton_grpc
import tritonclient.http as triton_http
from tritonclient.utils import InferenceServerException

from harness import ADDRESS, raises, run

ARRAY = np.array([0.1, -1.5, 3e38, 0.0], np.float32)
TEXTS = np.array(["", "a", "ä\n\0"], np.object_)

http = triton_http.InferenceServerClient(ADDRESS, concurrency=4)
grpc = triton_grpc.InferenceServerClient(ADDRESS)


def given(module, array, datatype):
    tensor = module.InferInput("INPUT0", list(array.shape), datatype)
    tensor.set_data_from_numpy(array)
    return [tensor]


def check_metadata_and_readiness():
    for client in (http, grpc):
        assert client.is_model_ready("identity")
        assert not client.is_model_ready("nope")
    assert http.get_model_metadata("batched")["inputs"][0]["shape"] == [-1, 3]
    assert grpc.get_model_metadata("batched").inputs[0].shape == [-1, 3]
    assert http.get_model_config("batched")["max_batch_size"] == 8
    assert grpc.get_model_config("batched").config.max_batch_size == 8


def check_inference():
    for module, client in ((triton_http, http), (triton_grpc, grpc)):
        answer = client.infer("identity", given(module, ARRAY, "FP32"), request_id="7")
        assert (answer.as_numpy("OUTPUT0") == ARRAY).all()
        answer = client.infer("strings", given(module, TEXTS, "BYTES"))
        assert [text.decode() for text in answer.as_numpy("OUTPUT0")] == list(TEXTS)


def check_a_large_tensor():
    large = np.arange(4 << 20, dtype=np.float32)
    for module, client in ((triton_http, http), (triton_grpc, grpc)):
        answer = client.infer("identity", given(module, large, "FP32"))
        assert (answer.as_numpy("OUTPUT0") == large).all()


def check_errors_come_back():
    for module, client in ((triton_http, http), (triton_grpc, grpc)):
        wrong = given(module, np.zeros((1, 4), np.float32), "FP32")
        for model in ("batched", "nope"):
            raises(InferenceServerException, lambda: client.infer(model, wrong))


def check_a_stream():
    answers = queue.Queue()
    grpc.start_stream(lambda result, error: answers.put((result, error)))
    try:
        streamed(answers)
    finally:
        # Its threads would keep the interpreter from ending.
        grpc.stop_stream(cancel_requests=True)


def streamed(answers):
    if "NO_STREAMS" in os.environ:
        grpc.async_stream_infer("identity", given(triton_grpc, ARRAY, "FP32"))
        result, error = answers.get(timeout=20)
        assert result is None and "speaks REST alone" in str(error), (result, error)
        assert error.status() == "StatusCode.UNIMPLEMENTED", error.status()
        return
    for number in range(20):
        tensor = given(triton_grpc, np.full(3, number, np.float32), "FP32")
        grpc.async_stream_infer("identity", tensor, request_id=str(number))
    for number in range(20):
        result, error = answers.get(timeout=20)
        assert error is None, error
        assert result.get_response().id == str(number)
        assert (result.as_numpy("OUTPUT0") == number).all()


run(globals())
