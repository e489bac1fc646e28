"""gRPC's own services with gRPC's own clients: reflection, and health with its watch. Then packed answers."""

import grpc
import numpy as np
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc import service_pb2_grpc

from harness import ADDRESS, raises, run

SERVICE = "inference.GRPCInferenceService"
SERVICES = [
    "grpc.health.v1.Health",
    "grpc.reflection.v1.ServerReflection",
    "grpc.reflection.v1alpha.ServerReflection",
    SERVICE,
]
channel = grpc.insecure_channel(ADDRESS)


def check_reflection_lists_the_services():
    assert sorted(ProtoReflectionDescriptorDatabase(channel).get_services()) == SERVICES


def check_a_client_without_our_files_can_call():
    pool = DescriptorPool(ProtoReflectionDescriptorDatabase(channel))
    service = pool.FindServiceByName(SERVICE)
    assert len(service.methods) == 20, [method.name for method in service.methods]
    method = service.FindMethodByName("ModelInfer")
    message = GetMessageClass(method.input_type)(model_name="identity")
    message.inputs.add(name="INPUT0", datatype="FP32", shape=[2])
    message.raw_input_contents.append(np.float32([1, 2]).tobytes())
    call = channel.unary_unary(
        f"/{SERVICE}/ModelInfer",
        request_serializer=lambda message: message.SerializeToString(),
        response_deserializer=GetMessageClass(method.output_type).FromString,
    )
    answer = call(message, timeout=20)
    assert np.frombuffer(answer.raw_output_contents[0], np.float32).tolist() == [1, 2], answer


def check_reflection_describes_every_service():
    pool = DescriptorPool(ProtoReflectionDescriptorDatabase(channel))
    for name in SERVICES:
        assert pool.FindServiceByName(name).methods, name
    raises(KeyError, lambda: pool.FindServiceByName("nope.Service"))
    extensions = ProtoReflectionDescriptorDatabase(channel).FindAllExtensionNumbers("inference.ModelConfig")
    assert list(extensions) == [], extensions


def check_health_of_a_service():
    stub = health_pb2_grpc.HealthStub(channel)
    for name in ("", *SERVICES):
        answer = stub.Check(health_pb2.HealthCheckRequest(service=name), timeout=20)
        assert answer.status == health_pb2.HealthCheckResponse.SERVING, name
    call = lambda: stub.Check(health_pb2.HealthCheckRequest(service="nope"), timeout=20)
    assert raises(grpc.RpcError, call).code() == grpc.StatusCode.NOT_FOUND


def check_health_is_watched():
    stub = health_pb2_grpc.HealthStub(channel)
    for name, status in ((SERVICE, "SERVING"), ("nope", "SERVICE_UNKNOWN")):
        watch = stub.Watch(health_pb2.HealthCheckRequest(service=name), timeout=20)
        assert next(watch).status == health_pb2.HealthCheckResponse.ServingStatus.Value(status), name
        watch.cancel()
    late = stub.Watch(health_pb2.HealthCheckRequest(service=SERVICE), timeout=1)
    next(late)
    assert raises(grpc.RpcError, lambda: next(late)).code() == grpc.StatusCode.DEADLINE_EXCEEDED


def check_packed_both_ways():
    stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
    data = np.zeros(100_000, np.float32)
    request = pb.ModelInferRequest(model_name="identity")
    request.inputs.add(name="INPUT0", datatype="FP32", shape=[len(data)])
    request.raw_input_contents.append(data.tobytes())
    for compression in (grpc.Compression.Gzip, grpc.Compression.Deflate, grpc.Compression.NoCompression):
        answer = stub.ModelInfer(request, timeout=20, compression=compression)
        assert answer.raw_output_contents[0] == data.tobytes(), compression
        answers = stub.ModelStreamInfer(iter([request] * 3), timeout=20, compression=compression)
        found = [answer.infer_response.raw_output_contents[0] for answer in answers]
        assert found == [data.tobytes()] * 3, compression


run(globals())
