"""kserve's InferenceRESTClient and InferenceGRPCClient as published.

The package's own `__init__` imports Kubernetes and a web server, which its clients do not use; so the clients are imported
beside it.
"""

import asyncio
import importlib.util
import sys
import types

spec = importlib.util.find_spec("kserve")
package = types.ModuleType("kserve")
package.__path__ = list(spec.submodule_search_locations)
sys.modules["kserve"] = package

import grpc  # noqa: E402
import httpx  # noqa: E402
import numpy as np  # noqa: E402
from kserve.inference_client import InferenceGRPCClient, InferenceRESTClient, RESTConfig  # noqa: E402
from kserve.protocol.infer_type import InferInput, InferRequest  # noqa: E402

from harness import ADDRESS, URL, run  # noqa: E402


def request(model, array, datatype, binary):
    given = InferInput("INPUT0", list(array.shape), datatype)
    given.set_data_from_numpy(array, binary_data=binary)
    return InferRequest(model, [given], request_id="mine")


async def rest():
    client = InferenceRESTClient(RESTConfig(protocol="v2", retries=0))
    assert await client.is_server_live(URL) is True
    assert await client.is_server_ready(URL) is True
    assert await client.is_model_ready(URL, "identity") is True
    assert await client.is_model_ready(URL, "nope") is False
    array = np.array([[1, -2], [3, 2**40]], np.int64)
    for binary in (False, True):
        answer = await client.infer(URL, request("integers", array, "INT64", binary), model_name="integers")
        assert answer.model_name == "integers" and answer.id == "mine", answer
        np.testing.assert_array_equal(answer.outputs[0].as_numpy(), array)
    strings = np.array(["木棉", "kapok"], object)
    answer = await client.infer(URL, request("strings", strings, "BYTES", True), model_name="strings")
    assert list(answer.outputs[0].as_numpy()) == list(strings), answer
    try:
        await client.infer(URL, request("nope", array, "INT64", False), model_name="nope")
    except httpx.HTTPStatusError as error:
        assert error.response.status_code == 404 and "nope" in str(error), error
    else:
        raise AssertionError("an unknown model answered")
    await client.close()


async def over_grpc():
    async with InferenceGRPCClient(ADDRESS) as client:
        assert await client.is_server_live()
        assert await client.is_server_ready()
        assert await client.is_model_ready("identity")
        array = np.array([0.5, -1], np.float32)
        for binary in (False, True):
            answer = await client.infer(request("identity", array, "FP32", binary))
            np.testing.assert_array_equal(answer.outputs[0].as_numpy(), array)
        try:
            await client.infer(request("nope", array, "FP32", False))
        except grpc.RpcError as error:
            assert error.code() == grpc.StatusCode.NOT_FOUND, error
        else:
            raise AssertionError("an unknown model answered")


def check_rest():
    asyncio.run(rest())


def check_grpc():
    asyncio.run(over_grpc())


run(globals())
