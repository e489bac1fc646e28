"""PyTorch in eager mode behind FastAPI: what a model is served with before it has a model server
(`cargo xtask bench serve-models`).

    python torch_eager.py PORT CALLS

CALLS run at the same time, each on one thread of its own; more wait. The layers are those of the measured files, their
weights are random: the time is the same, the numbers are not. Tensors go in and out as the Open Inference Protocol's
binary extension has them, so that nothing is spent on decimal numbers.
"""

import asyncio
import concurrent.futures
import json
import sys

import fastapi
import numpy
import torch
import torchvision
import transformers
import uvicorn

TYPES = {"FP32": numpy.float32, "INT64": numpy.int64}


def minilm() -> tuple[torch.nn.Module, str]:
    """`all-MiniLM-L6-v2`: six layers of 384, twelve heads."""
    shape = transformers.BertConfig(
        hidden_size=384, num_hidden_layers=6, num_attention_heads=12, intermediate_size=1536, vocab_size=30522
    )
    encoder = transformers.BertModel(shape, add_pooling_layer=False)

    class LastHiddenState(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = encoder

        def forward(self, input_ids, attention_mask, token_type_ids):
            return self.encoder(input_ids, attention_mask, token_type_ids).last_hidden_state

    return LastHiddenState(), "last_hidden_state"


def resnet50() -> tuple[torch.nn.Module, str]:
    return torch.nn.Sequential(torchvision.models.resnet50(weights=None), torch.nn.Softmax(1)), "gpu_0/softmax_1"


MODELS = {"all-minilm-l6-v2": minilm, "resnet50-light": resnet50}


def main() -> None:
    port, calls = int(sys.argv[1]), int(sys.argv[2])
    torch.set_num_threads(1)
    models = {}
    for name, make in MODELS.items():
        module, output = make()
        models[name] = (module.eval(), output)
    pool = concurrent.futures.ThreadPoolExecutor(calls)
    app = fastapi.FastAPI()

    def infer(name: str, body: bytes, length: int) -> tuple[bytes, int]:
        module, output = models[name]
        head, at, tensors = json.loads(body[:length]), length, []
        for given in head["inputs"]:
            size = given["parameters"]["binary_data_size"]
            values = numpy.frombuffer(body[at : at + size], TYPES[given["datatype"]]).reshape(given["shape"])
            tensors.append(torch.from_numpy(values.copy()))
            at += size
        with torch.inference_mode():
            answer = module(*tensors).numpy()
        raw = answer.tobytes()
        said = {"name": output, "datatype": "FP32", "shape": answer.shape, "parameters": {"binary_data_size": len(raw)}}
        head = json.dumps({"model_name": name, "outputs": [said]}).encode()
        return head + raw, len(head)

    @app.get("/v2/health/ready")
    def ready() -> None:
        return None

    @app.post("/v2/models/{name}/infer")
    async def answer(name: str, request: fastapi.Request) -> fastapi.Response:
        length = int(request.headers["inference-header-content-length"])
        body = await request.body()
        content, length = await asyncio.get_running_loop().run_in_executor(pool, infer, name, body, length)
        headers = {"inference-header-content-length": str(length)}
        return fastapi.Response(content, headers=headers, media_type="application/octet-stream")

    uvicorn.run(app, host="127.0.0.1", port=port, log_level="warning", access_log=False)


if __name__ == "__main__":
    main()
