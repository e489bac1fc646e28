"""The other side of `cargo xtask bench embed`: Python's onnxruntime on the same model, one thread.

    python embed_peer.py FOLDER

FOLDER is a repository entry (`1/model.onnx`, `tokenizer.json`). Each line on stdin is one measurement,
{"texts": [...], "seconds": S}; each is answered with one line.
"""

import json
import pathlib
import sys
import time

import numpy
import onnxruntime
import tokenizers


def open_session(path: pathlib.Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def main() -> None:
    folder = pathlib.Path(sys.argv[1])
    session = open_session(folder / "1" / "model.onnx")
    tokenizer = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    # The file asks for a fixed length of 128; what is measured here is the text's own length, cut where kapok cuts.
    tokenizer.enable_padding(pad_id=0, pad_token="[PAD]")
    tokenizer.enable_truncation(max_length=256)

    def embed(texts: list[str]) -> tuple[numpy.ndarray, int]:
        encoded = tokenizer.encode_batch(texts)
        mask = numpy.array([e.attention_mask for e in encoded], numpy.int64)
        inputs = {
            "input_ids": numpy.array([e.ids for e in encoded], numpy.int64),
            "attention_mask": mask,
            "token_type_ids": numpy.array([e.type_ids for e in encoded], numpy.int64),
        }
        hidden = session.run(["last_hidden_state"], inputs)[0]
        weights = mask[:, :, None].astype(numpy.float32)
        pooled = (hidden * weights).sum(1) / weights.sum(1)
        return pooled / numpy.linalg.norm(pooled, axis=1, keepdims=True), int(mask.sum())

    for line in sys.stdin:
        request = json.loads(line)
        texts = request["texts"]
        _, tokens = embed(texts)
        done = 0
        started = time.perf_counter()
        while (elapsed := time.perf_counter() - started) < request["seconds"]:
            vectors, _ = embed(texts)
            done += len(vectors)
        answer = {"embeddings": done, "seconds": elapsed, "tokens": tokens // len(texts)}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
