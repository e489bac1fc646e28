"""Raw ONNX Runtime in a loop: the limit for whoever serves the same file (`cargo xtask bench serve-models`).

    python onnx_loop.py MODEL INPUTS ANSWER

INPUTS is a JSON list of {"name", "datatype", "shape", "path"}; each path holds the tensor's bytes. The outputs of one call
are written to ANSWER, one after the other. Then each line on stdin is one measurement, {"callers": N, "seconds": S}: so many
threads call one session, each call on its caller's thread alone. Each is answered with one line.
"""

import json
import pathlib
import sys
import threading
import time

import numpy
import onnxruntime

TYPES = {"FP32": numpy.float32, "INT32": numpy.int32, "INT64": numpy.int64}


def open_session(path: str) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    # One thread per call, and calls beside each other: the most items per second that these cores can do.
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def main() -> None:
    model, inputs, answer = sys.argv[1:]
    session = open_session(model)
    names = [output.name for output in session.get_outputs()]
    given = {
        tensor["name"]: numpy.frombuffer(pathlib.Path(tensor["path"]).read_bytes(), TYPES[tensor["datatype"]]).reshape(
            tensor["shape"]
        )
        for tensor in json.loads(pathlib.Path(inputs).read_text())
    }
    outputs = session.run(names, given)
    pathlib.Path(answer).write_bytes(b"".join(output.tobytes() for output in outputs))
    print(json.dumps({"ready": True}), flush=True)

    def call(until: float, took: list[float]) -> None:
        while (began := time.perf_counter()) < until:
            session.run(names, given)
            took.append(time.perf_counter() - began)

    for line in sys.stdin:
        request = json.loads(line)
        took: list[float] = []
        started = time.perf_counter()
        callers = [
            threading.Thread(target=call, args=(started + request["seconds"], took)) for _ in range(request["callers"])
        ]
        for caller in callers:
            caller.start()
        for caller in callers:
            caller.join()
        elapsed = time.perf_counter() - started
        p50, p99 = numpy.percentile(took, [50, 99]) * 1e6
        print(json.dumps({"requests": len(took), "seconds": elapsed, "p50_us": p50, "p99_us": p99}), flush=True)


if __name__ == "__main__":
    main()
