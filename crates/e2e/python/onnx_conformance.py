"""ONNX's own tests through the public REST door, on each engine.

The nine light models and the node tests that ship inside onnx 1.17 become model repositories without a `config.pbtxt`. One
server per engine loads them; each test's inputs are sent, and its outputs compared. Prints engines against results.
"""

import collections
import contextlib
import glob
import http.client
import json
import os
import signal
import subprocess
import sys
import tempfile
import time

import ml_dtypes
import numpy as np
import onnx
from onnx import numpy_helper

KAPOK = os.environ["KAPOK"]
DATA = os.path.join(os.path.dirname(onnx.__file__), "backend", "test", "data")
RTOL, ATOL = 1e-3, 1e-5
# Debug builds of two busy cores load about ten of these small models a second.
LOAD_SECONDS_MAX = 240
ENGINES = ("rten", "onnxruntime", "auto")
# Models with other elements (8-bit floats, 4-bit integers) cannot be said in the protocol.
DATATYPES = {
    onnx.TensorProto.BOOL: "BOOL",
    onnx.TensorProto.UINT8: "UINT8",
    onnx.TensorProto.UINT16: "UINT16",
    onnx.TensorProto.UINT32: "UINT32",
    onnx.TensorProto.UINT64: "UINT64",
    onnx.TensorProto.INT8: "INT8",
    onnx.TensorProto.INT16: "INT16",
    onnx.TensorProto.INT32: "INT32",
    onnx.TensorProto.INT64: "INT64",
    onnx.TensorProto.FLOAT16: "FP16",
    onnx.TensorProto.FLOAT: "FP32",
    onnx.TensorProto.DOUBLE: "FP64",
    onnx.TensorProto.BFLOAT16: "BF16",
    onnx.TensorProto.STRING: "BYTES",
}
KINDS = {
    "BOOL": np.bool_, "UINT8": np.uint8, "UINT16": np.uint16, "UINT32": np.uint32, "UINT64": np.uint64,
    "INT8": np.int8, "INT16": np.int16, "INT32": np.int32, "INT64": np.int64,
    "FP16": np.float16, "FP32": np.float32, "FP64": np.float64, "BF16": ml_dtypes.bfloat16,
}

Case = collections.namedtuple("Case", "name model inputs outputs light")


def read_tensor(path, kind=""):
    """The array. Half of the BF16 files are written as UINT16, which is its bits."""
    with open(path, "rb") as file:
        array = numpy_helper.to_array(onnx.load_tensor_from_string(file.read()))
    return array.view(ml_dtypes.bfloat16) if kind == "BF16" and array.dtype == np.uint16 else array


def datatypes(values):
    kinds = []
    for value in values:
        if not value.type.HasField("tensor_type") or value.type.tensor_type.elem_type not in DATATYPES:
            return None
        kinds.append(DATATYPES[value.type.tensor_type.elem_type])
    return kinds


def node_cases():
    for folder in sorted(glob.glob(f"{DATA}/node/*")):
        model = onnx.load(f"{folder}/model.onnx")
        taken, given = datatypes(model.graph.input), datatypes(model.graph.output)
        if taken is None or given is None:
            continue
        data = f"{folder}/test_data_set_0"
        if len(glob.glob(f"{data}/input_*.pb")) != len(taken):
            continue
        inputs = [
            (value.name, kind, read_tensor(f"{data}/input_{n}.pb", kind))
            for n, (value, kind) in enumerate(zip(model.graph.input, taken))
        ]
        outputs = [
            (value.name, read_tensor(f"{data}/output_{n}.pb", kind))
            for n, (value, kind) in enumerate(zip(model.graph.output, given))
        ]
        yield Case(os.path.basename(folder), f"{folder}/model.onnx", inputs, outputs, False)


def light_cases():
    for path in sorted(glob.glob(f"{DATA}/light/*.onnx")):
        model = onnx.load(path)
        known = {tensor.name for tensor in model.graph.initializer}
        inputs = []
        for value in model.graph.input:
            if value.name not in known:
                shape = [dim.dim_value or 1 for dim in value.type.tensor_type.shape.dim]
                # The same input as onnx's own runner makes for these models.
                count = int(np.prod(shape))
                inputs.append((value.name, "FP32", (np.arange(count).reshape(shape) / count).astype(np.float32)))
        outputs = [
            (value.name, read_tensor(f"{path.removesuffix('.onnx')}_output_{n}.pb"))
            for n, value in enumerate(model.graph.output)
        ]
        yield Case(os.path.basename(path).removesuffix(".onnx"), path, inputs, outputs, True)


def write_repository(folder, cases, engine):
    for case in cases:
        os.makedirs(f"{folder}/{case.name}/1")
        os.symlink(case.model, f"{folder}/{case.name}/1/model.onnx")
        with open(f"{folder}/{case.name}/kapok.toml", "w") as file:
            # One lane: a thousand models share this process.
            file.write(f'engine = "{engine}"\nlanes = 1\n')


class Server:
    def __init__(self, repository):
        self.log = open(f"{repository}.log", "w+")
        command = [KAPOK, "up", "--model-repo", repository, "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"]
        self.process = subprocess.Popen(
            [*command, "--output", "json"], stdout=subprocess.PIPE, stderr=self.log, cwd=os.path.dirname(repository)
        )
        address = json.loads(self.process.stdout.readline())["listening"]["public"]
        self.connection = http.client.HTTPConnection(address, timeout=120)

    def call(self, method, path, body=b"", headers=None):
        self.connection.request(method, path, body, headers or {})
        answer = self.connection.getresponse()
        return answer.status, answer.headers, answer.read()

    def index(self):
        """Every model's entry, once each is loaded or refused."""
        deadline = time.monotonic() + LOAD_SECONDS_MAX
        while True:
            entries = json.loads(self.call("POST", "/v2/repository/index")[2])
            if entries and all(entry["state"] in ("READY", "UNAVAILABLE") for entry in entries):
                return {entry["name"]: entry for entry in entries}
            assert time.monotonic() < deadline, "models are still loading"
            time.sleep(0.1)

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(timeout=60)
        self.log.seek(0)
        return code, self.log.read()

    def kill(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()
        self.log.close()


def to_bytes(array, kind):
    if kind == "BYTES":
        items = [item if isinstance(item, bytes) else str(item).encode() for item in array.ravel()]
        return b"".join(len(item).to_bytes(4, "little") + item for item in items)
    return np.ascontiguousarray(array).astype(KINDS[kind]).tobytes()


def from_bytes(data, kind, shape):
    if kind != "BYTES":
        return np.frombuffer(data, KINDS[kind]).reshape(shape)
    items, at = [], 0
    while at < len(data):
        size = int.from_bytes(data[at : at + 4], "little")
        items.append(data[at + 4 : at + 4 + size].decode())
        at += 4 + size
    return np.array(items, object).reshape(shape)


def plain(array, kind):
    """Whether JSON can say it: half floats and what is not finite go in binary only."""
    return kind not in ("FP16", "BF16") and (array.dtype.kind != "f" or bool(np.isfinite(array).all()))


def infer(server, case, index):
    """Every second test goes in JSON, where JSON can say it; the others in binary."""
    in_json = index % 2 == 0 and all(plain(array, kind) for _, kind, array in case.inputs) and sum(
        array.size for _, _, array in case.inputs
    ) < 10_000
    inputs, tail = [], b""
    for name, kind, array in case.inputs:
        entry = {"name": name, "datatype": kind, "shape": list(array.shape)}
        if in_json:
            entry["data"] = array.ravel().tolist()
        else:
            data = to_bytes(array, kind)
            entry["parameters"] = {"binary_data_size": len(data)}
            tail += data
        inputs.append(entry)
    head = json.dumps({"inputs": inputs, "parameters": {"binary_data_output": True}}).encode()
    headers = {"content-type": "application/json"} if in_json else {"Inference-Header-Content-Length": str(len(head))}
    status, headers, body = server.call("POST", f"/v2/models/{case.name}/infer", head + tail, headers)
    if status != 200:
        raise AssertionError(f"{status}: {body[:300].decode(errors='replace')}")
    size = int(headers["Inference-Header-Content-Length"])
    answer, at, found = json.loads(body[:size]), size, {}
    for output in answer["outputs"]:
        length = output["parameters"]["binary_data_size"]
        found[output["name"]] = from_bytes(body[at : at + length], output["datatype"], output["shape"])
        at += length
    assert at == len(body), "bytes after the last tensor"
    return found


def compare(case, found):
    for name, wanted in case.outputs:
        got = found[name]
        if wanted.shape == () and got.shape == (1,):
            # Triton's protocol has no scalars: they travel as one element.
            got = got.reshape(())
        assert got.shape == wanted.shape, f"{name}: shape {got.shape}, expected {wanted.shape}"
        if wanted.dtype.kind in "OSU":
            assert [str(x) for x in got.ravel()] == [str(x) for x in wanted.ravel()], f"{name}: other strings"
        elif wanted.dtype.kind == "b":
            np.testing.assert_array_equal(got, wanted)
        else:
            np.testing.assert_allclose(got.astype(np.float64), wanted.astype(np.float64), rtol=RTOL, atol=ATOL)


def judge(server, cases):
    """One result per test: `passed`, `failed` with a reason, or `unsupported` with the index's reason."""
    index = server.index()
    for number, case in enumerate(cases):
        entry = index[case.name]
        if entry["state"] != "READY":
            yield case, "unsupported", entry["reason"]
            continue
        try:
            compare(case, infer(server, case, number))
        except (AssertionError, KeyError) as error:
            yield case, "failed", " ".join(str(error).split())[:160]
        else:
            yield case, "passed", ""


def try_engine(engine, cases, folder):
    repository = f"{folder}/{engine}"
    write_repository(repository, cases, engine)
    started = time.monotonic()
    with contextlib.ExitStack() as cleanup:
        server = Server(repository)
        cleanup.callback(server.kill)
        results = list(judge(server, cases))
        assert server.process.poll() is None, "the server died"
        code, log = server.stop()
    assert code == 0, f"it ended with {code}"
    panics = [line for line in log.splitlines() if "panicked at" in line]
    return results, panics, time.monotonic() - started


def table(rows):
    widths = [max(len(row[n]) for row in rows) for n in range(len(rows[0]))]
    for row in rows:
        print("  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths)))


def main():
    cases = [*light_cases(), *node_cases()]
    light = sum(case.light for case in cases)
    print(f"{light} light models, {len(cases) - light} node tests with tensors only")
    rows = [("engine", "light passed", "node passed", "failed", "unsupported", "panics caught", "seconds")]
    auto = None
    details = []
    with tempfile.TemporaryDirectory() as folder:
        for engine in ENGINES:
            results, panics, seconds = try_engine(engine, cases, folder)
            count = lambda verdict, light: str(sum(r[1] == verdict and r[0].light in light for r in results))
            both = (False, True)
            rows.append(
                (engine, count("passed", (True,)), count("passed", (False,)), count("failed", both))
                + (count("unsupported", both), str(len(panics)), f"{seconds:.0f}")
            )
            details += [f"  {engine} {case.name}: {why}" for case, verdict, why in results if verdict == "failed"]
            details += [f"  {engine} {line}" for line in panics]
            if engine == "auto":
                auto = results
    table(rows)
    print("failed:", *details, sep="\n")
    passed = {case.name for case, verdict, _ in auto if verdict == "passed"}
    missing = [case.name for case in cases if case.light and case.name not in passed]
    assert not missing, f"light models that do not pass: {missing}"
    assert light == 9, light
    assert len(passed) - light >= 200, f"only {len(passed) - light} node tests pass"
    print(f"engine = \"auto\" passes {len(passed)} of {len(cases)}")


sys.exit(main())
