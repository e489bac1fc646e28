"""Answers every call with what it was asked, after so many milliseconds: echo.py PORT DELAY-MS."""

import asyncio
import sys

import grpc

# Without these, grpcio refuses most of 10,000 calls that come at one moment.
LIMITS = [("grpc.server.max_pending_requests", 100_000), ("grpc.server.max_pending_requests_hard_limit", 100_000)]


async def main(port: str, delay: float) -> None:
    async def infer(message: bytes, _) -> bytes:
        if delay:
            await asyncio.sleep(delay)
        return message

    server = grpc.aio.server(options=LIMITS)
    method = grpc.unary_unary_rpc_method_handler(infer)
    handler = grpc.method_handlers_generic_handler("inference.GRPCInferenceService", {"ModelInfer": method})
    server.add_generic_rpc_handlers((handler,))
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    await server.wait_for_termination()


asyncio.run(main(sys.argv[1], int(sys.argv[2]) / 1000))
