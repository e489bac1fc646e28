"""Every public method of tritonclient's four clients, and of what they take and answer, called at least once.

The methods are found by introspection: one that a release adds fails the last check until a check calls it. A call counts
when a check makes it, not when tritonclient makes it itself.
"""

import asyncio
import functools
import inspect
import json
import os
import queue
import sys
import urllib.request

import numpy as np
import onnx
import tritonclient.grpc as grpc
import tritonclient.grpc.aio as grpc_aio
import tritonclient.grpc.auth as grpc_auth
import tritonclient.http as http
import tritonclient.http.aio as http_aio
import tritonclient.http.auth as http_auth
import tritonclient.utils.shared_memory as shm
from tritonclient.grpc import _client as grpc_client
from tritonclient.utils import InferenceServerException

from harness import ADDRESS, URL, raises, run, within

ARRAY = np.arange(3, dtype=np.float32).reshape(1, 3)
BYTES = ARRAY.nbytes

# Whose public methods are all to be called.
CLASSES = {
    "http": http.InferenceServerClient,
    "grpc": grpc.InferenceServerClient,
    "http.aio": http_aio.InferenceServerClient,
    "grpc.aio": grpc_aio.InferenceServerClient,
    "http InferInput": http.InferInput,
    "grpc InferInput": grpc.InferInput,
    "http InferRequestedOutput": http.InferRequestedOutput,
    "grpc InferRequestedOutput": grpc.InferRequestedOutput,
    "http InferResult": http.InferResult,
    "grpc InferResult": grpc.InferResult,
    "http InferAsyncRequest": http.InferAsyncRequest,
    "grpc CallContext": grpc_client.CallContext,
    "InferenceServerException": InferenceServerException,
}
FUNCTIONS = ["create_shared_memory_region", "destroy_shared_memory_region", "get_contents_as_numpy"]
FUNCTIONS += ["mapped_shared_memory_regions", "set_shared_memory_region"]

wanted, called = set(), set()


def count(holder, name, label, bound):
    """Has the calls of `holder.name` that a check makes counted under `label`."""
    wanted.add(label)

    @functools.wraps(bound)
    def counted(*args, **kwargs):
        if sys._getframe(1).f_globals is globals():
            called.add(label)
        return bound(*args, **kwargs)

    static = isinstance(inspect.getattr_static(holder, name), (staticmethod, classmethod))
    setattr(holder, name, staticmethod(counted) if static else counted)


for of, kind in CLASSES.items():
    for name, method in inspect.getmembers(kind, callable):
        ours = any(name in base.__dict__ for base in kind.__mro__ if base.__module__.startswith("tritonclient"))
        if ours and not name.startswith("_"):
            count(kind, name, f"{of}.{name}", method)
for name in FUNCTIONS:
    count(shm, name, f"shared_memory.{name}", getattr(shm, name))


class Blocking:
    """An asyncio client, each call awaited."""

    def __init__(self, module):
        self.loop = asyncio.new_event_loop()

        async def connect():
            return module.InferenceServerClient(ADDRESS)

        self.client = self.loop.run_until_complete(connect())

    def __getattr__(self, name):
        method = getattr(self.client, name)

        def call(*args, **kwargs):
            answer = method(*args, **kwargs)
            return self.loop.run_until_complete(answer) if inspect.isawaitable(answer) else answer

        return call


class Side:
    """One client, and its answers in one form: as JSON, gRPC's envelopes taken off."""

    def __init__(self, label, api, client):
        self.label, self.api, self.client, self.is_grpc = label, api, client, api is grpc
        self.json = {"as_json": True} if self.is_grpc else {}

    def ask(self, name, *args, **kwargs):
        return getattr(self.client, name)(*args, **self.json, **kwargs)

    def tensor(self, array=ARRAY, datatype="FP32"):
        given = self.api.InferInput("INPUT0", list(array.shape), datatype)
        given.set_data_from_numpy(array)
        return given

    def infer(self, model="batched", array=ARRAY, **kwargs):
        return self.client.infer(model, [self.tensor(array)], **kwargs)

    def index(self):
        answer = self.ask("get_model_repository_index")
        models = answer["models"] if self.is_grpc else answer
        return {model["name"]: model for model in models}

    def config(self, model):
        answer = self.ask("get_model_config", model)
        return answer["config"] if self.is_grpc else answer

    def settings(self, answer):
        if not self.is_grpc:
            return answer
        said = answer["settings"]
        plain = {key: value.get("value", list(value.values())) for key, value in said.items()}
        return {key: value[0] if len(value) == 1 and key != "trace_level" else value for key, value in plain.items()}

    def regions(self, kind):
        answer = self.ask(f"get_{kind}_shared_memory_status")
        if self.is_grpc:
            return answer.get("regions", {})
        return {region["name"]: region for region in answer}


SIDES = [
    Side("http", http, http.InferenceServerClient(ADDRESS)),
    Side("grpc", grpc, grpc.InferenceServerClient(ADDRESS)),
    Side("http_aio", http, Blocking(http_aio)),
    Side("grpc_aio", grpc, Blocking(grpc_aio)),
]


def health_and_metadata(side):
    client = side.client
    assert client.is_server_live() and client.is_server_ready()
    assert client.is_model_ready("batched") and not client.is_model_ready("batched", "7")
    server = side.ask("get_server_metadata")
    assert server["name"] and server["version"], server
    for extension in ("model_repository", "system_shared_memory", "statistics", "trace", "logging"):
        assert extension in server["extensions"], server
    model = side.ask("get_model_metadata", "batched")
    assert model["platform"] and model["versions"] == ["1"], model
    assert [int(size) for size in model["inputs"][0]["shape"]] == [-1, 3], model
    assert side.config("batched")["max_batch_size"] == 8
    assert side.index()["batched"]["state"] == "READY"


def inference_and_its_parts(side):
    given = side.api.InferInput("WRONG", [3], "FP32")
    assert (given.name(), given.datatype(), list(given.shape())) == ("WRONG", "FP32", [3])
    given.set_shape([1, 3])
    given.set_data_from_numpy(ARRAY)
    error = raises(InferenceServerException, lambda: side.client.infer("batched", [given]))
    assert error.status() == ("StatusCode.INVALID_ARGUMENT" if side.is_grpc else "400"), error
    assert "WRONG" in error.message() and "WRONG" in str(error.debug_details() or error), error
    output = side.api.InferRequestedOutput("OUTPUT0")
    assert output.name() == "OUTPUT0"
    answer = side.infer(outputs=[output], request_id="mine", model_version="1", priority=1, timeout=60_000_000)
    np.testing.assert_array_equal(answer.as_numpy("OUTPUT0"), ARRAY)
    assert answer.as_numpy("OTHER") is None
    said = answer.get_output("OUTPUT0")
    found = (said.datatype, list(said.shape)) if side.is_grpc else (said["datatype"], said["shape"])
    assert found == ("FP32", [1, 3]), said
    whole = answer.get_response(**side.json)
    assert whole["id"] == "mine" and whole["model_name"] == "batched", whole


def statistics(side):
    def success():
        answer = side.ask("get_inference_statistics", "batched", "1")
        return int(answer["model_stats"][0]["inference_stats"]["success"]["count"])

    side.infer()
    before = success()
    for _ in range(3):
        side.infer()
    assert success() == before + 3
    every = side.ask("get_inference_statistics")["model_stats"]
    assert {"batched", "strings"} <= {model["name"] for model in every}, every


def load_with_a_configuration_and_unload(side):
    client = side.client
    config = side.config("batched")
    config["max_batch_size"] = 4
    client.load_model("batched", config=json.dumps(config))
    assert side.config("batched")["max_batch_size"] == 4
    raises(InferenceServerException, lambda: side.infer(array=np.zeros((5, 3), np.float32)))
    # Without one the configuration on disk counts again.
    client.load_model("batched")
    assert side.config("batched")["max_batch_size"] == 8
    error = raises(InferenceServerException, lambda: client.load_model("batched", config="{"))
    assert side.client.is_model_ready("batched"), error
    raises(InferenceServerException, lambda: client.load_model("never-heard-of"))
    client.unload_model("batched")
    assert not client.is_model_ready("batched")
    # As with Triton it answers before the last request in flight has ended and the model is gone.
    unloaded = within(30, lambda: side.index()["batched"], lambda model: model["state"] == "UNAVAILABLE")
    assert unloaded["reason"] == "unloaded", unloaded
    error = raises(InferenceServerException, side.infer)
    assert "batched" in error.message(), error
    client.unload_model("integers", unload_dependents=True)
    assert not client.is_model_ready("integers")
    for name in ("batched", "integers"):
        client.load_model(name)
        assert client.is_model_ready(name)
    np.testing.assert_array_equal(side.infer().as_numpy("OUTPUT0"), ARRAY)


def adding(amount):
    """An ONNX model that adds this to its input."""
    tensor = functools.partial(onnx.helper.make_tensor_value_info, elem_type=onnx.TensorProto.FLOAT, shape=["n", 3])
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Add", ["INPUT0", "amount"], ["OUTPUT0"])],
        "adding",
        [tensor("INPUT0")],
        [tensor("OUTPUT0")],
        [onnx.numpy_helper.from_array(np.array([amount], np.float32), "amount")],
    )
    opset = [onnx.helper.make_opsetid("", 13)]
    return onnx.helper.make_model(graph, opset_imports=opset, ir_version=8).SerializeToString()


def load_from_files(side):
    name = f"brought-{side.label}"
    config = json.dumps({"backend": "onnxruntime"})
    side.client.load_model(name, config=config, files={"file:1/model.onnx": adding(1)})
    np.testing.assert_array_equal(side.infer(name).as_numpy("OUTPUT0"), ARRAY + 1)
    files = {"file:1/model.onnx": adding(1), "file:2/model.onnx": adding(2)}
    side.client.load_model(name, config=config, files=files)
    np.testing.assert_array_equal(side.infer(name).as_numpy("OUTPUT0"), ARRAY + 2)
    # Files alone are not a model, nor is a path outside of it.
    raises(InferenceServerException, lambda: side.client.load_model(name, files=files))
    outside = {"file:../model.onnx": adding(3)}
    raises(InferenceServerException, lambda: side.client.load_model(name, config=config, files=outside))
    np.testing.assert_array_equal(side.infer(name).as_numpy("OUTPUT0"), ARRAY + 2)
    side.client.unload_model(name)
    raises(InferenceServerException, lambda: side.infer(name))


def trace_settings(side):
    def get(model=None):
        return side.settings(side.ask("get_trace_settings", model))

    def update(model=None, **settings):
        return side.settings(side.ask("update_trace_settings", model, settings))

    assert get()["trace_level"] == ["OFF"], get()
    assert update(trace_rate="500")["trace_rate"] == "500"
    assert get("batched")["trace_rate"] == "500"
    assert update("batched", trace_rate="20", trace_count="7")["trace_rate"] == "20"
    assert (get("batched")["trace_rate"], get("batched")["trace_count"]) == ("20", "7")
    assert (get()["trace_rate"], get()["trace_count"]) == ("500", "-1")
    # None gives a model's settings back to everybody's.
    assert update("batched", trace_rate=None, trace_count=None)["trace_rate"] == "500"
    assert update(trace_rate=None)["trace_rate"] == "1000"
    raises(InferenceServerException, lambda: update(trace_rate="often"))
    raises(InferenceServerException, lambda: get("nope"))


def log_settings(side):
    before = side.settings(side.ask("get_log_settings"))
    assert before["log_info"] is True and before["log_format"], before
    try:
        changed = side.settings(side.ask("update_log_settings", {"log_verbose_level": 1, "log_info": False}))
        assert (int(changed["log_verbose_level"]), changed["log_info"]) == (1, False), changed
        now = side.settings(side.ask("get_log_settings"))
        assert now["log_info"] is False and now["log_error"] is True, now
        raises(InferenceServerException, lambda: side.client.update_log_settings({"log_colour": True}))
    finally:
        side.client.update_log_settings({"log_verbose_level": 0, "log_info": True})


def system_shared_memory(side):
    name = f"kapok-calls-{os.getpid()}-{side.label}"
    handle = shm.create_shared_memory_region(name, f"/{name}", 2 * BYTES)
    try:
        assert f"/{name}" in shm.mapped_shared_memory_regions(), shm.mapped_shared_memory_regions()
        shm.set_shared_memory_region(handle, [ARRAY])
        side.client.register_system_shared_memory(name, f"/{name}", 2 * BYTES)
        assert int(side.regions("system")[name]["byte_size"]) == 2 * BYTES
        given = side.api.InferInput("INPUT0", [1, 3], "FP32")
        given.set_shared_memory(name, BYTES)
        output = side.api.InferRequestedOutput("OUTPUT0")
        output.set_shared_memory(name, BYTES, offset=BYTES)
        answer = side.client.infer("batched", [given], outputs=[output])
        assert answer.get_output("OUTPUT0") is not None
        np.testing.assert_array_equal(shm.get_contents_as_numpy(handle, np.float32, [1, 3], BYTES), ARRAY)
        output.unset_shared_memory()
        answer = side.client.infer("batched", [given], outputs=[output])
        np.testing.assert_array_equal(answer.as_numpy("OUTPUT0"), ARRAY)
        side.client.unregister_system_shared_memory(name)
        assert name not in side.regions("system")
    finally:
        shm.destroy_shared_memory_region(handle)


def cuda_shared_memory(side):
    # A handle is 64 bytes in base64; there is no device to open it on.
    handle = b"A" * 86 + b"=="
    error = raises(InferenceServerException, lambda: side.client.register_cuda_shared_memory("gpu", handle, 0, 64))
    assert "gpu" in error.message() or "GPU" in error.message() or "CUDA" in error.message(), error
    assert side.regions("cuda") == {}
    side.client.unregister_cuda_shared_memory()
    side.client.unregister_cuda_shared_memory("gpu")


def plugins(side):
    plugin = (grpc_auth if side.is_grpc else http_auth).BasicAuth("user", "password")
    seen = []

    class Watching(type(plugin)):
        def __call__(self, request):
            super().__call__(request)
            seen.append(request.headers["authorization"])

    watching = Watching("user", "password")
    side.client.register_plugin(watching)
    assert side.client.plugin() is watching
    assert side.client.is_server_live()
    side.client.unregister_plugin()
    assert side.client.is_server_live() and side.client.plugin() is None
    assert len(seen) == 1 and seen[0].startswith("Basic "), seen


def body_without_a_connection(side):
    if side.is_grpc:
        return
    body, length = side.client.generate_request_body([side.tensor()])
    headers = {"Inference-Header-Content-Length": str(length)}
    request = urllib.request.Request(f"{URL}/v2/models/batched/infer", data=body, headers=headers)
    with urllib.request.urlopen(request, timeout=30) as answer:
        border, content = answer.headers["Inference-Header-Content-Length"], answer.read()
    border = int(border) if border else None
    for parse in (side.client.parse_response_body, http.InferResult.from_response_body):
        parsed = parse(content, header_length=border)
        np.testing.assert_array_equal(parsed.as_numpy("OUTPUT0"), ARRAY)


CHECKS = [
    health_and_metadata,
    inference_and_its_parts,
    statistics,
    load_with_a_configuration_and_unload,
    load_from_files,
    trace_settings,
    log_settings,
    system_shared_memory,
    cuda_shared_memory,
    plugins,
    body_without_a_connection,
]
checks = {f"check_{check.__name__}_{side.label}": functools.partial(check, side) for check in CHECKS for side in SIDES}


def check_async_over_http():
    call = SIDES[0].client.async_infer("batched", [SIDES[0].tensor()])
    np.testing.assert_array_equal(call.get_result(timeout=30).as_numpy("OUTPUT0"), ARRAY)


def check_async_and_cancel_over_grpc():
    answers = queue.Queue()
    put = lambda result, error: answers.put((result, error))
    given = [SIDES[1].tensor()]
    SIDES[1].client.async_infer("batched", given, put)
    result, error = answers.get(timeout=30)
    assert error is None, error
    np.testing.assert_array_equal(result.as_numpy("OUTPUT0"), ARRAY)
    one = np.zeros((1,), np.float32)
    SIDES[1].client.async_infer("slow", [SIDES[1].tensor(one)], put).cancel()
    result, error = answers.get(timeout=30)
    assert result is None and "CANCELLED" in error.status(), error


def check_stream_over_grpc():
    answers = queue.Queue()
    client = SIDES[1].client
    client.start_stream(lambda result, error: answers.put((result, error)))
    client.async_stream_infer("batched", [SIDES[1].tensor()], request_id="s")
    result, error = answers.get(timeout=30)
    assert error is None and result.get_response().id == "s", error
    np.testing.assert_array_equal(result.as_numpy("OUTPUT0"), ARRAY)
    client.stop_stream()


def check_stream_and_cancel_on_asyncio():
    client = SIDES[3].client

    async def stream():
        hold = asyncio.Event()

        async def requests():
            yield {"model_name": "batched", "inputs": [SIDES[3].tensor()]}
            # The stream stays open until it is cancelled.
            await hold.wait()

        answers = client.client.stream_infer(requests())
        async for result, error in answers:
            assert error is None, error
            np.testing.assert_array_equal(result.as_numpy("OUTPUT0"), ARRAY)
            assert answers.cancel()
            break

    client.loop.run_until_complete(stream())


def check_clients_close():
    for side in SIDES:
        side.client.close()
    missing = sorted(wanted - called)
    assert len(wanted) > 120, len(wanted)
    assert not missing, f"no check calls {missing}"
    print(f"{len(wanted)} public methods, all called")


others = {name: check for name, check in list(globals().items()) if name.startswith("check_")}
# Closing comes last, and with it the count.
run({**checks, **others})
