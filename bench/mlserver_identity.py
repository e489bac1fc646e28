"""`identity` for MLServer: what comes in goes out (`cargo xtask bench serve-identity`)."""

from mlserver import MLModel
from mlserver.types import InferenceRequest, InferenceResponse, ResponseOutput


class Identity(MLModel):
    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        given = payload.inputs[0]
        output = ResponseOutput(
            name="OUTPUT0",
            datatype=given.datatype,
            shape=given.shape,
            data=given.data,
        )
        return InferenceResponse(model_name=self.name, outputs=[output])
