"""Real files through magika, by tritonclient: the model names what each is."""

import gzip
import json
import os
import sqlite3
import struct
import tarfile
import tempfile
import zipfile
import zlib

import numpy as np
import tritonclient.http as triton

from harness import ADDRESS, run

with open(os.environ["CONFIG"]) as file:
    CONFIG = json.load(file)
ROOT = os.environ["ROOT"]


def features(content):
    """The first and the last bytes of a file without the white space around it, padded towards the middle."""
    begin, end, block, pad = (CONFIG[key] for key in ("beg_size", "end_size", "block_size", "padding_token"))
    first = content[:block].lstrip()[:begin] if len(content) > block else content.strip()[:begin]
    last = content[-block:].rstrip()[-end:] if len(content) > block else content.strip()[-end:]
    head = list(first) + [pad] * (begin - len(first))
    return head + [pad] * (end - len(last)) + list(last)


def png():
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(b"\0" + bytes((x * y) % 256 for x in range(96)) for y in range(32))
    head = struct.pack(">IIBBBBB", 32, 32, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def samples():
    """Label and content. What is not in this repository is written by the standard library."""

    def read(path):
        with open(path, "rb") as file:
            return file.read()

    yield "rust", read(f"{ROOT}/crates/e2e/src/client.rs")
    yield "python", read(f"{ROOT}/crates/e2e/python/triton_grpc.py")
    yield "markdown", read(f"{ROOT}/ARCHITECTURE.md")
    yield "toml", read(f"{ROOT}/Cargo.toml")
    yield "onnx", read(os.path.join(os.path.dirname(os.environ["CONFIG"]), "1", "model.onnx"))
    yield "elf", read(os.path.realpath("/proc/self/exe"))
    yield "pythonbytecode", read(pyc())
    yield "json", json.dumps(CONFIG, indent=1).encode()
    yield "png", png()
    yield "gzip", gzip.compress(read(f"{ROOT}/ARCHITECTURE.md"))
    with tempfile.TemporaryDirectory() as folder:
        with zipfile.ZipFile(f"{folder}/a.zip", "w") as archive:
            archive.write(f"{ROOT}/ARCHITECTURE.md")
        yield "zip", read(f"{folder}/a.zip")
        with tarfile.open(f"{folder}/a.tar", "w") as archive:
            archive.add(f"{ROOT}/ARCHITECTURE.md")
        yield "tar", read(f"{folder}/a.tar")
        base = sqlite3.connect(f"{folder}/a.db")
        base.execute("create table trees (name text, height real)")
        base.executemany("insert into trees values (?, ?)", [(f"tree {n}", n * 1.5) for n in range(200)])
        base.commit()
        base.close()
        yield "sqlite", read(f"{folder}/a.db")


def pyc():
    import py_compile

    folder = tempfile.mkdtemp()
    source = f"{ROOT}/crates/e2e/python/triton_grpc.py"
    return py_compile.compile(source, cfile=f"{folder}/a.pyc", doraise=True)


def check_types_of_real_files():
    client = triton.InferenceServerClient(ADDRESS)
    model = client.get_model_metadata("magika")
    given, wanted = model["inputs"][0], model["outputs"][0]["name"]
    right, lines = 0, []
    for label, content in samples():
        kind = np.int64 if given["datatype"] == "INT64" else np.int32
        array = np.array([features(content)], kind)
        tensor = triton.InferInput(given["name"], list(array.shape), given["datatype"])
        tensor.set_data_from_numpy(array)
        scores = client.infer("magika", [tensor]).as_numpy(wanted)[0]
        found = CONFIG["target_labels_space"][int(scores.argmax())]
        right += found == label
        lines.append(f"  {label:16} {found:16} {scores.max():.3f}")
    print("\n".join(lines))
    assert right >= 10, f"only {right} right"


run(globals())
