"""gRPC below the client library: broken messages, typed contents instead of raw bytes, unknown calls, health."""

import grpc
import numpy as np
from tritonclient.grpc import service_pb2 as pb

from harness import ADDRESS, raises, run

channel = grpc.insecure_channel(ADDRESS)
SERVICE = "/inference.GRPCInferenceService/"


def call(name, message, answer=None, timeout=20, metadata=None):
    """One unary call whose message is sent as it is."""
    method = channel.unary_unary(
        name if name.startswith("/") else SERVICE + name,
        request_serializer=lambda data: data,
        response_deserializer=answer.FromString if answer else lambda data: data,
    )
    return method(message, timeout=timeout, metadata=metadata)


def refused(code, *args, **kwargs):
    error = raises(grpc.RpcError, lambda: call(*args, **kwargs))
    assert error.code() == code, (error.code(), error.details())
    return error.details()


def still_serves():
    assert call("ServerReady", b"", pb.ServerReadyResponse).ready


def infer_request(**fields):
    request = pb.ModelInferRequest(model_name="identity")
    tensor = request.inputs.add(name="INPUT0", datatype="FP32", shape=[3])
    for name, value in fields.items():
        setattr(tensor, name, value)
    return request


def check_messages_that_are_no_protobuf():
    for garbage in (b"\xff" * 40, b"\x0a\xff\xff\xff\xff\x0f", b"\x0b", bytes(range(256))):
        refused(grpc.StatusCode.INVALID_ARGUMENT, "ModelInfer", garbage)
        still_serves()
    # A claim of 1 GiB in a length prefix.
    refused(grpc.StatusCode.INVALID_ARGUMENT, "ModelInfer", b"\x3a\x80\x80\x80\x80\x04")
    still_serves()


def check_unknown_calls():
    refused(grpc.StatusCode.UNIMPLEMENTED, "Nope", b"")
    refused(grpc.StatusCode.UNIMPLEMENTED, "/nope.Service/Nope", b"")
    still_serves()


def check_typed_contents():
    request = infer_request()
    request.inputs[0].contents.fp32_contents.extend([1.5, -2, 0.25])
    answer = call("ModelInfer", request.SerializeToString(), pb.ModelInferResponse)
    assert np.frombuffer(answer.raw_output_contents[0], np.float32).tolist() == [1.5, -2, 0.25], answer
    request = pb.ModelInferRequest(model_name="strings")
    tensor = request.inputs.add(name="INPUT0", datatype="BYTES", shape=[2])
    tensor.contents.bytes_contents.extend([b"\xff\x00", b""])
    answer = call("ModelInfer", request.SerializeToString(), pb.ModelInferResponse)
    assert answer.raw_output_contents[0] == b"\x02\0\0\0\xff\x00\0\0\0\0", answer


def check_wrong_contents_name_the_input():
    truncated = infer_request()
    truncated.raw_input_contents.append(b"\0" * 8)
    extra = infer_request()
    extra.raw_input_contents.append(b"\0" * 16)
    missing = infer_request()
    both = infer_request()
    both.inputs[0].contents.fp32_contents.extend([1, 2, 3])
    both.raw_input_contents.append(b"\0" * 12)
    negative = infer_request()
    negative.inputs[0].shape[0] = -3
    negative.raw_input_contents.append(b"\0" * 12)
    claim = infer_request()
    claim.inputs[0].shape[0] = 1 << 28
    claim.raw_input_contents.append(b"\0" * 12)
    overflow = infer_request()
    del overflow.inputs[0].shape[:]
    overflow.inputs[0].shape.extend([1 << 40, 1 << 40])
    overflow.raw_input_contents.append(b"\0" * 12)
    for request in (truncated, extra, missing, both, negative, claim, overflow):
        details = refused(grpc.StatusCode.INVALID_ARGUMENT, "ModelInfer", request.SerializeToString())
        assert "INPUT0" in details or "raw_input_contents" in details, details
        still_serves()
    spare = infer_request()
    spare.raw_input_contents.extend([b"\0" * 12, b"\0" * 12])
    refused(grpc.StatusCode.INVALID_ARGUMENT, "ModelInfer", spare.SerializeToString())
    unknown = infer_request(datatype="FP99")
    unknown.raw_input_contents.append(b"\0" * 12)
    assert "FP99" in refused(grpc.StatusCode.INVALID_ARGUMENT, "ModelInfer", unknown.SerializeToString())


def check_answers_carry_the_request_id():
    method = channel.unary_unary(
        SERVICE + "ServerLive", request_serializer=lambda data: data, response_deserializer=lambda data: data
    )
    _, finished = method.with_call(b"", timeout=20)
    names = [name for name, _ in (*finished.initial_metadata(), *finished.trailing_metadata())]
    assert "x-request-id" in names, names


def check_standard_health_service():
    # grpc.health.v1: field 1 of the answer is the status, 1 is SERVING.
    assert call("/grpc.health.v1.Health/Check", b"") == b"\x08\x01"


run(globals())
