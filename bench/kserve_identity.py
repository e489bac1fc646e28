"""`identity` for KServe's Python server: what comes in goes out (`cargo xtask bench serve-identity`).

    python kserve_identity.py --http_port PORT --grpc_port PORT
"""

from kserve import InferOutput, InferRequest, InferResponse, Model, ModelServer, model_server


class Identity(Model):
    def __init__(self) -> None:
        super().__init__("identity")
        self.ready = True

    async def predict(self, payload: InferRequest, headers=None, response_headers=None) -> InferResponse:
        given = payload.inputs[0]
        output = InferOutput(name="OUTPUT0", shape=given.shape, datatype=given.datatype)
        output.set_data_from_numpy(given.as_numpy(), binary_data=payload.use_binary_outputs)
        return InferResponse(
            response_id=payload.id or "",
            model_name=self.name,
            infer_outputs=[output],
            use_binary_outputs=payload.use_binary_outputs,
        )


if __name__ == "__main__":
    arguments = model_server.parser.parse_known_args()[0]
    ModelServer(
        http_port=arguments.http_port,
        grpc_port=arguments.grpc_port,
        enable_latency_logging=False,
    ).start([Identity()])
