"""tritonclient over HTTP, gRPC and asyncio: shared memory, streams, compression, raw bodies, generate."""

import asyncio
import json
import os
import queue
import urllib.error
import urllib.request

import numpy as np
import tritonclient.grpc as grpc
import tritonclient.grpc.aio as grpc_aio
import tritonclient.http as http
import tritonclient.http.aio as http_aio
import tritonclient.utils.shared_memory as shm
from tritonclient.utils import InferenceServerException

from harness import ADDRESS, URL, raises, run

ARRAY = np.arange(6, dtype=np.float32)
PREFIX = f"kapok-e2e-{os.getpid()}"


def tensor(api, array=ARRAY):
    given = api.InferInput("INPUT0", list(array.shape), "FP32")
    given.set_data_from_numpy(array)
    return given


def placed(api, region):
    given = api.InferInput("INPUT0", list(ARRAY.shape), "FP32")
    given.set_shared_memory(region, ARRAY.nbytes)
    output = api.InferRequestedOutput("OUTPUT0")
    output.set_shared_memory(region, ARRAY.nbytes, offset=ARRAY.nbytes)
    return [given], [output]


def through_a_region(api, client, regions):
    name = f"{PREFIX}-{api.__name__}"
    handle = shm.create_shared_memory_region(name, f"/{name}", 2 * ARRAY.nbytes)
    try:
        shm.set_shared_memory_region(handle, [ARRAY])
        client.register_system_shared_memory(name, f"/{name}", 2 * ARRAY.nbytes)
        assert name in regions(), regions()
        again = raises(
            InferenceServerException,
            lambda: client.register_system_shared_memory(name, f"/{name}", 8),
        )
        assert "already in manager" in str(again), again
        inputs, outputs = placed(api, name)
        client.infer("identity", inputs, outputs=outputs)
        found = shm.get_contents_as_numpy(handle, np.float32, ARRAY.shape, offset=ARRAY.nbytes)
        np.testing.assert_array_equal(found, ARRAY)
        client.unregister_system_shared_memory(name)
        assert name not in regions()
        gone = raises(
            InferenceServerException,
            lambda: client.infer("identity", inputs, outputs=outputs),
        )
        assert "Unable to find shared memory region" in str(gone), gone
    finally:
        shm.destroy_shared_memory_region(handle)


def check_shared_memory_over_http():
    client = http.InferenceServerClient(ADDRESS)
    through_a_region(
        http,
        client,
        lambda: [region["name"] for region in client.get_system_shared_memory_status()],
    )
    assert client.get_cuda_shared_memory_status() == []
    client.unregister_cuda_shared_memory()


def check_shared_memory_over_grpc():
    client = grpc.InferenceServerClient(ADDRESS)
    through_a_region(
        grpc, client, lambda: list(client.get_system_shared_memory_status().regions)
    )
    assert not client.get_cuda_shared_memory_status().regions
    client.unregister_cuda_shared_memory()


def check_shared_memory_on_asyncio():
    async def over(module, api):
        async with module.InferenceServerClient(ADDRESS) as client:
            name = f"{PREFIX}-aio-{api.__name__}"
            handle = shm.create_shared_memory_region(name, f"/{name}", 2 * ARRAY.nbytes)
            try:
                shm.set_shared_memory_region(handle, [ARRAY])
                await client.register_system_shared_memory(name, f"/{name}", 2 * ARRAY.nbytes)
                inputs, outputs = placed(api, name)
                await client.infer("identity", inputs, outputs=outputs)
                at = ARRAY.nbytes
                found = shm.get_contents_as_numpy(handle, np.float32, ARRAY.shape, offset=at)
                np.testing.assert_array_equal(found, ARRAY)
                await client.unregister_system_shared_memory(name)
            finally:
                shm.destroy_shared_memory_region(handle)

    asyncio.run(over(http_aio, http))
    asyncio.run(over(grpc_aio, grpc))


def check_compression():
    client = http.InferenceServerClient(ADDRESS)
    large = np.arange(200_000, dtype=np.float32)
    for algorithm in ("gzip", "deflate"):
        for array in (ARRAY, large):
            answer = client.infer(
                "identity",
                [tensor(http, array)],
                request_compression_algorithm=algorithm,
                response_compression_algorithm=algorithm,
            )
            np.testing.assert_array_equal(answer.as_numpy("OUTPUT0"), array)
        over_grpc = grpc.InferenceServerClient(ADDRESS)
        answer = over_grpc.infer("identity", [tensor(grpc)], compression_algorithm=algorithm)
        np.testing.assert_array_equal(answer.as_numpy("OUTPUT0"), ARRAY)


def check_a_stream_answers_in_order():
    answers = queue.Queue()
    client = grpc.InferenceServerClient(ADDRESS)
    client.start_stream(lambda result, error: answers.put((result, error)))
    for number in range(20):
        client.async_stream_infer("identity", [tensor(grpc)], request_id=str(number))
    client.async_stream_infer("nope", [tensor(grpc)], request_id="20")
    for number in range(20):
        result, error = answers.get(timeout=30)
        assert error is None, error
        assert result.get_response().id == str(number)
        np.testing.assert_array_equal(result.as_numpy("OUTPUT0"), ARRAY)
    _, error = answers.get(timeout=30)
    assert "unknown model: 'nope'" in str(error), error
    client.stop_stream()


def check_a_stream_on_asyncio():
    async def stream():
        async with grpc_aio.InferenceServerClient(ADDRESS) as client:

            async def requests():
                for number in range(3):
                    yield {
                        "model_name": "identity",
                        "inputs": [tensor(grpc)],
                        "request_id": str(number),
                    }

            ids = []
            async for result, error in client.stream_infer(requests()):
                assert error is None, error
                ids.append(result.get_response().id)
            assert ids == ["0", "1", "2"], ids

    asyncio.run(stream())


def repeated(values, delays, wait=0):
    """One request to `repeat`: one answer a value, each after its delay."""
    inputs = []
    for name, kind, given in (
        ("IN", "INT32", np.array(values, np.int32)),
        ("DELAY", "UINT32", np.array(delays, np.uint32)),
        ("WAIT", "UINT32", np.array([wait], np.uint32)),
    ):
        put = grpc.InferInput(name, list(given.shape), kind)
        put.set_data_from_numpy(given)
        inputs.append(put)
    return inputs


def check_a_decoupled_model_answers_as_often_as_it_likes():
    answers = queue.Queue()
    client = grpc.InferenceServerClient(ADDRESS)
    client.start_stream(lambda result, error: answers.put((result, error)))
    client.async_stream_infer(
        "repeat",
        repeated([4, 8, 2], [0, 1, 2]),
        request_id="r",
        enable_empty_final_response=True,
    )
    for index, value in enumerate([4, 8, 2]):
        result, error = answers.get(timeout=30)
        assert error is None, error
        assert result.as_numpy("OUT")[0] == value
        assert result.as_numpy("IDX")[0] == index
        assert not result.get_response().parameters["triton_final_response"].bool_param
    last, error = answers.get(timeout=30)
    assert error is None, error
    assert last.get_response().parameters["triton_final_response"].bool_param
    assert not last.get_response().outputs
    # No values, no answers but the last.
    client.async_stream_infer("repeat", repeated([], []), enable_empty_final_response=True)
    last, error = answers.get(timeout=30)
    assert error is None and not last.get_response().outputs, error
    client.stop_stream()
    refused = raises(
        InferenceServerException,
        lambda: client.infer("repeat", repeated([1], [0])),
    )
    assert "decoupled transaction policy" in str(refused), refused


def check_leaving_a_stream_frees_the_model():
    client = grpc.InferenceServerClient(ADDRESS)
    client.start_stream(lambda result, error: None)
    # A minute of answers, and one instance.
    client.async_stream_infer("repeat", repeated([1] * 60, [1000] * 60))
    client.stop_stream(cancel_requests=True)
    answers = queue.Queue()
    other = grpc.InferenceServerClient(ADDRESS)
    other.start_stream(lambda result, error: answers.put((result, error)))
    other.async_stream_infer("repeat", repeated([7], [0]))
    result, error = answers.get(timeout=30)
    assert error is None and result.as_numpy("OUT")[0] == 7, error
    other.stop_stream()


def post(path, body, headers=None):
    request = urllib.request.Request(URL + path, data=body, headers=headers or {})
    with urllib.request.urlopen(request, timeout=30) as answer:
        return answer.headers, answer.read()


def check_a_raw_body():
    headers, body = post(
        "/v2/models/identity/infer",
        ARRAY.tobytes(),
        {"Inference-Header-Content-Length": "0"},
    )
    border = int(headers["Inference-Header-Content-Length"])
    assert json.loads(body[:border])["outputs"][0]["shape"] == [6]
    np.testing.assert_array_equal(np.frombuffer(body[border:], np.float32), ARRAY)


def check_generate():
    body = json.dumps({"INPUT0": ["hello", "there"], "id": "7"}).encode()
    _, answer = post("/v2/models/strings/generate", body)
    answer = json.loads(answer)
    assert answer["OUTPUT0"] == ["hello", "there"] and answer["id"] == "7", answer
    headers, events = post("/v2/models/strings/generate_stream", body)
    assert headers["Content-Type"].startswith("text/event-stream")
    assert events.startswith(b"data: {") and events.endswith(b"}\n\n"), events
    refused = raises(
        urllib.error.HTTPError, lambda: post("/v2/models/strings/generate", b'{"other": []}')
    )
    assert refused.code == 400


def check_classification():
    client = http.InferenceServerClient(ADDRESS)
    output = http.InferRequestedOutput("OUTPUT0", class_count=2)
    array = np.array([[0.25, 3.5, 1.0]], np.float32)
    answer = client.infer("batched", [tensor(http, array)], outputs=[output])
    classes = [text.decode().split(":") for text in answer.as_numpy("OUTPUT0").reshape(-1)]
    assert [index for _, index, *_ in classes] == ["1", "2"], classes


run(globals())
