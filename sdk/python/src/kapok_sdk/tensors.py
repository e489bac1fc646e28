"""Tensors on the wire: the Open Inference Protocol's JSON for Python lists, raw bytes for NumPy arrays."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    import numpy
    import numpy.typing

#: A number, text, bytes, or lists of them, as deep as the tensor has dimensions; or a NumPy array.
TensorLike: TypeAlias = "Tensor | Sequence[Any] | numpy.typing.NDArray[Any] | int | float | bool | str | bytes"

_NUMPY_OF = {
    "BOOL": "bool",
    "UINT8": "uint8",
    "UINT16": "uint16",
    "UINT32": "uint32",
    "UINT64": "uint64",
    "INT8": "int8",
    "INT16": "int16",
    "INT32": "int32",
    "INT64": "int64",
    "FP16": "float16",
    "FP32": "float32",
    "FP64": "float64",
}
_DATATYPE_OF = {name: datatype for datatype, name in _NUMPY_OF.items()}
_HEADER_LENGTH = "inference-header-content-length"


@dataclass(frozen=True)
class Tensor:
    """A tensor's type, shape and elements. ``data`` is flat, or the raw little-endian bytes."""

    datatype: str
    shape: tuple[int, ...]
    data: Sequence[Any] | bytes

    def tolist(self) -> Any:
        """The elements as nested lists. Raw bytes need NumPy, except of ``BYTES``."""
        flat = self._flat()
        for size in reversed(self.shape[1:]):
            flat = [flat[start : start + size] for start in range(0, len(flat), size or 1)]
        return flat if self.shape else flat[0]

    def numpy(self) -> numpy.typing.NDArray[Any]:
        """The elements as an array (needs NumPy)."""
        import numpy as np

        if self.datatype == "BYTES":
            return np.array(self._flat(), dtype=object).reshape(self.shape)
        dtype = _NUMPY_OF.get(self.datatype)
        if dtype is None:
            raise TypeError(f"NumPy has no type for {self.datatype}")
        if isinstance(self.data, bytes):
            return np.frombuffer(self.data, dtype=dtype).reshape(self.shape)
        return np.array(self.data, dtype=dtype).reshape(self.shape)

    def _flat(self) -> list[Any]:
        if not isinstance(self.data, bytes):
            return list(self.data)
        if self.datatype == "BYTES":
            return _texts(self.data)
        return list(self.numpy().ravel().tolist())


@dataclass(frozen=True)
class Inference:
    """What a model answered."""

    model: str
    version: str | None
    outputs: dict[str, Tensor]

    def __getitem__(self, name: str) -> Tensor:
        return self.outputs[name]


def tensor(value: TensorLike, datatype: str | None = None) -> Tensor:
    """The tensor that a Python value means.

    Without a ``datatype``, ints are INT64, floats FP32, text and bytes BYTES; an array has its own.
    """
    if isinstance(value, Tensor):
        return value
    if hasattr(value, "__array_interface__"):
        return _of_array(value)
    shape, flat = _flatten(value)
    return Tensor(datatype or _datatype(flat), shape, flat)


def _of_array(value: Any) -> Tensor:
    import numpy as np

    array = np.ascontiguousarray(value)
    shape = tuple(int(size) for size in np.shape(value))
    if array.dtype.kind in "OSU":
        return Tensor("BYTES", shape, array.ravel().tolist())
    datatype = _DATATYPE_OF.get(array.dtype.name)
    if datatype is None:
        raise TypeError(f"the protocol has no type for {array.dtype}; use one of {', '.join(_DATATYPE_OF)}")
    return Tensor(datatype, shape, array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes())


def _flatten(value: Any) -> tuple[tuple[int, ...], list[Any]]:
    if isinstance(value, (str, bytes)) or not isinstance(value, Sequence):
        return (), [value]
    shapes: list[tuple[int, ...]] = []
    flat: list[Any] = []
    for item in value:
        shape, elements = _flatten(item)
        shapes.append(shape)
        flat.extend(elements)
    if any(shape != shapes[0] for shape in shapes):
        raise ValueError(f"rows differ in length: {shapes[0]} and {next(s for s in shapes if s != shapes[0])}")
    return (len(value), *(shapes[0] if shapes else ())), flat


def _datatype(flat: list[Any]) -> str:
    kinds = {type(element) for element in flat}
    if kinds <= {bool}:
        return "BOOL" if kinds else "FP32"
    if kinds <= {int}:
        return "INT64"
    if kinds <= {int, float}:
        return "FP32"
    if kinds <= {str, bytes}:
        return "BYTES"
    names = ", ".join(sorted(kind.__name__ for kind in kinds))
    raise TypeError(f"one tensor cannot hold {names}; convert them to one type")


def _texts(raw: bytes) -> list[bytes]:
    found = []
    at = 0
    while at < len(raw):
        (length,) = struct.unpack_from("<I", raw, at)
        found.append(raw[at + 4 : at + 4 + length])
        at += 4 + length
    return found


def _packed(elements: Sequence[Any]) -> bytes:
    encoded = (element.encode() if isinstance(element, str) else bytes(element) for element in elements)
    return b"".join(struct.pack("<I", len(element)) + element for element in encoded)


def encode(inputs: Mapping[str, TensorLike], outputs: Sequence[str] | None) -> tuple[dict[str, str], bytes]:
    """Headers and body of a request. Arrays and bytes travel raw, and then so do the outputs."""
    described = []
    blobs = []
    for name, value in inputs.items():
        given = tensor(value)
        data = given.data
        if given.datatype == "BYTES" and not isinstance(data, bytes):
            if any(isinstance(element, bytes) for element in data):
                data = _packed(data)
        one: dict[str, Any] = {"name": name, "datatype": given.datatype, "shape": list(given.shape)}
        if isinstance(data, bytes):
            one["parameters"] = {"binary_data_size": len(data)}
            blobs.append(data)
        else:
            one["data"] = list(data)
        described.append(one)
    document: dict[str, Any] = {"inputs": described}
    if outputs is not None:
        document["outputs"] = [{"name": name, "parameters": {"binary_data": bool(blobs)}} for name in outputs]
    elif blobs:
        document["parameters"] = {"binary_data_output": True}
    head = json.dumps(document, separators=(",", ":")).encode()
    if not blobs:
        return {"content-type": "application/json"}, head
    headers = {"content-type": "application/octet-stream", _HEADER_LENGTH: str(len(head))}
    return headers, b"".join([head, *blobs])


def decode(headers: Mapping[str, str], body: bytes) -> Inference:
    """The answer to a request that :func:`encode` made."""
    length = headers.get(_HEADER_LENGTH)
    head, rest = (body, b"") if length is None else (body[: int(length)], body[int(length) :])
    document = json.loads(head)
    outputs = {}
    at = 0
    for one in document["outputs"]:
        data: Sequence[Any] | bytes
        size = one.get("parameters", {}).get("binary_data_size")
        if size is None:
            data = one["data"]
        else:
            data = rest[at : at + size]
            at += size
            if len(data) != size:
                raise ValueError(f"the answer ends inside of `{one['name']}`")
        outputs[one["name"]] = Tensor(one["datatype"], tuple(one["shape"]), data)
    return Inference(document["model_name"], document.get("model_version"), outputs)
