"""tritonclient's asyncio clients, over HTTP and gRPC."""

import asyncio

import numpy as np
import tritonclient.grpc.aio as grpc
import tritonclient.http.aio as http
from tritonclient.utils import InferenceServerException

from harness import ADDRESS, run


async def exercise(module):
    async with module.InferenceServerClient(ADDRESS) as client:
        assert await client.is_server_live()
        assert await client.is_model_ready("identity")
        assert await client.get_model_metadata("identity")

        async def call(turn):
            array = np.full((1000,), turn, np.float32)
            given = module.InferInput("INPUT0", [1000], "FP32")
            given.set_data_from_numpy(array)
            answer = await client.infer("identity", [given])
            np.testing.assert_array_equal(answer.as_numpy("OUTPUT0"), array)

        await asyncio.gather(*(call(turn) for turn in range(16)))
        given = module.InferInput("INPUT0", [1], "FP32")
        given.set_data_from_numpy(np.zeros((1,), np.float32))
        try:
            await client.infer("nope", [given])
        except InferenceServerException as error:
            assert "'nope' is not found" in error.message(), error
        else:
            raise AssertionError("an unknown model answered")


def check_http():
    asyncio.run(exercise(http))


def check_grpc():
    asyncio.run(exercise(grpc))


run(globals())
