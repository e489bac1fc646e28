"""A gRPC call that is cancelled, and a connection that is closed, give the model's one lane back."""

import os
import time
import urllib.request

import grpc
import numpy as np
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc import service_pb2_grpc

from harness import ADDRESS, run


def request():
    message = pb.ModelInferRequest(model_name="slow")
    message.inputs.add(name="INPUT0", datatype="FP32", shape=[1])
    message.raw_input_contents.append(np.array([1], np.float32).tobytes())
    return message


def in_flight():
    with urllib.request.urlopen(os.environ["KAPOK_URL"] + "/metrics") as answer:
        lines = answer.read().decode().splitlines()
    return max(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith("kapok_gateway_in_flight"))


def begin(channel):
    call = service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelInfer.future(request())
    deadline = time.monotonic() + 20
    # The scrape itself is one.
    while in_flight() < 2:
        assert time.monotonic() < deadline, "never in flight"
    return call


def check_a_cancelled_call_and_a_closed_connection():
    channel = grpc.insecure_channel(ADDRESS)
    begin(channel).cancel()
    other = grpc.insecure_channel(ADDRESS, [("grpc.use_local_subchannel_pool", 1)])
    begin(other)
    other.close()
    answer = service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelInfer(request(), timeout=30)
    assert np.frombuffer(answer.raw_output_contents[0], np.float32).tolist() == [1]


run(globals())
