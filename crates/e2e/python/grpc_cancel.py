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


def gauge(name):
    with urllib.request.urlopen(os.environ["KAPOK_URL"] + "/metrics") as answer:
        lines = answer.read().decode().splitlines()
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(name))


def wait(name, expected):
    began = time.monotonic()
    while gauge(name) != expected:
        assert time.monotonic() < began + 30, f"{name} is not {expected}"
    return time.monotonic() - began


def begin():
    channel = grpc.insecure_channel(ADDRESS, [("grpc.use_local_subchannel_pool", 1)])
    return channel, service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelInfer.future(request())


def leaves(how, leave):
    leaving = begin()
    # The scrape itself is one.
    wait("kapok_gateway_in_flight", 2)
    behind = begin()
    wait("kapok_runtime_queue_depth", 1)
    leave(*leaving)
    took = wait("kapok_runtime_queue_depth", 0)
    print(f"gRPC: the lane was free within {took * 1e3:.1f} ms of {how}")
    assert took < 5, "the lane stayed with who is gone"
    behind[1].cancel()
    wait("kapok_gateway_in_flight", 1)


def check_a_cancelled_call():
    leaves("the cancellation", lambda _, call: call.cancel())


def check_a_closed_connection():
    leaves("the connection's end", lambda channel, _: channel.close())


run(globals())
