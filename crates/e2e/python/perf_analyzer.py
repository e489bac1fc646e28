"""Triton's own load generator as published: every transport, model and concurrency completes, and no request fails."""

import os
import re
import subprocess
import time

import tritonclient.http as http

from harness import ADDRESS, run

FOLDER = os.environ["KAPOK_PERF_ANALYZER"]
TRANSPORTS = {
    "http": ([1, 16, 64], []),
    "grpc": ([1, 16, 64], ["-i", "grpc"]),
    "shared memory over http": ([1, 16, 64], ["--shared-memory=system"]),
    "shared memory over grpc": ([16], ["-i", "grpc", "--shared-memory=system"]),
}
# What fills a free dimension; zeros are valid token ids.
TOKENS = [f"--shape={name}:16" for name in ("input_ids", "attention_mask", "token_type_ids")]
# Each with its measuring window in milliseconds: an answer must come within it even from a debug build on a busy machine.
MODELS = {
    "identity": (300, ["--shape=INPUT0:16"]),
    "magika": (700, ["--input-data=zero"]),
    "all-minilm-l6-v2": (1000, [*TOKENS, "--input-data=zero", "--output-shared-memory-size=65536"]),
}


def measure(model, flags, concurrency):
    """How many requests it counted. All three windows it takes are stable enough: it is not here for its figures.

    Not with `--request-count`: it then waits for that many answers within its window, which a fast model has already given
    when the window starts, and so now and then never ends.
    """
    window, inputs = MODELS[model]
    command = [os.path.join(FOLDER, "perf_analyzer"), "-m", model, "-u", ADDRESS, *inputs, *flags]
    command += [f"--concurrency-range={concurrency}", "-p", str(window), "-s", "999", "-r", "6"]
    environment = {**os.environ, "LD_LIBRARY_PATH": FOLDER}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=90)
    said = done.stdout + done.stderr
    # A worker whose request fails ends with an error.
    assert done.returncode == 0 and "error" not in said.lower() and "failed" not in said.lower(), (command, said)
    sent, served = (
        int(re.search(rf"^ +{name}: (\d+)", said, re.MULTILINE)[1])
        for name in ("Request count", "Successful request count")
    )
    assert sent > 0 and served > 0, said
    return sent


def failures(model):
    statistics = http.InferenceServerClient(ADDRESS).get_inference_statistics(model)
    return statistics["model_stats"][0]["inference_stats"]["fail"]["count"]


def check_every_model_transport_and_concurrency():
    for model in MODELS:
        for transport, (concurrencies, flags) in TRANSPORTS.items():
            for concurrency in concurrencies:
                started = time.monotonic()
                sent = measure(model, flags, concurrency)
                took = time.monotonic() - started
                print(f"   {model}, {transport}, {concurrency} at once: {sent} requests, {took:.1f} s in all")
        assert failures(model) == 0, model


run(globals())
