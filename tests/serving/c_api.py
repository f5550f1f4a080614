"""Answers requests with TensorFlow's C library, as a server does: `c_api.py MODEL CALLS` prints the answers as JSON.

No Python module of TensorFlow is imported; its wheel only gives the path of the library.
"""

from __future__ import annotations

import ctypes
import importlib.util
import json
import math
import pathlib
import sys
from collections.abc import Iterator
from ctypes import POINTER, c_char_p, c_int, c_int64, c_size_t, c_void_p
from typing import Any

Flat = dict[str, Any]
"""A tensor as in `wire.py`."""

STRING = 7
TYPES = {1: ("float32", ctypes.c_float), 3: ("int32", ctypes.c_int32), 9: ("int64", c_int64), STRING: ("string", None)}
STRING_SIZE = 24  # sizeof(TF_TString)


class Output(ctypes.Structure):
    """TF_Output: an output of an operation."""

    _fields_ = (("operation", c_void_p), ("index", c_int))


class Buffer(ctypes.Structure):
    """TF_Buffer."""

    _fields_ = (("data", c_void_p), ("length", c_size_t), ("deallocator", c_void_p))


PROTOTYPES: dict[str, tuple[Any, list[Any]]] = {
    "TF_NewStatus": (c_void_p, []),
    "TF_GetCode": (c_int, [c_void_p]),
    "TF_Message": (c_char_p, [c_void_p]),
    "TF_NewGraph": (c_void_p, []),
    "TF_NewBuffer": (POINTER(Buffer), []),
    "TF_NewSessionOptions": (c_void_p, []),
    "TF_LoadSessionFromSavedModel": (
        c_void_p,
        [c_void_p, c_void_p, c_char_p, POINTER(c_char_p), c_int, c_void_p, POINTER(Buffer), c_void_p],
    ),
    "TF_GraphOperationByName": (c_void_p, [c_void_p, c_char_p]),
    "TF_AllocateTensor": (c_void_p, [c_int, POINTER(c_int64), c_int, c_size_t]),
    "TF_TensorData": (c_void_p, [c_void_p]),
    "TF_TensorType": (c_int, [c_void_p]),
    "TF_NumDims": (c_int, [c_void_p]),
    "TF_Dim": (c_int64, [c_void_p, c_int]),
    "TF_StringInit": (None, [c_void_p]),
    "TF_StringCopy": (None, [c_void_p, c_char_p, c_size_t]),
    "TF_StringGetDataPointer": (c_void_p, [c_void_p]),
    "TF_StringGetSize": (c_size_t, [c_void_p]),
    "TF_SessionRun": (
        None,
        [
            c_void_p, c_void_p, POINTER(Output), POINTER(c_void_p), c_int, POINTER(Output), POINTER(c_void_p), c_int,
            c_void_p, c_int, c_void_p, c_void_p,
        ],
    ),
}  # fmt: skip


class Library:
    """The C functions of this script, with their types."""

    def __init__(self) -> None:
        spec = importlib.util.find_spec("tensorflow")
        assert spec is not None
        assert spec.submodule_search_locations
        folder = pathlib.Path(spec.submodule_search_locations[0])
        names = ("libtensorflow_framework.so.2", "libtensorflow_cc.so.2")
        libraries = [ctypes.CDLL(str(folder / name), mode=ctypes.RTLD_GLOBAL) for name in names]
        for name, (result, arguments) in PROTOTYPES.items():
            function = next(getattr(library, name) for library in libraries if hasattr(library, name))
            function.restype, function.argtypes = result, arguments
            setattr(self, name, function)
        self.status = self.TF_NewStatus()

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"{name} is not in PROTOTYPES")

    def check(self) -> None:
        """Raise the error of the last call, if it failed."""
        if self.TF_GetCode(self.status):
            raise RuntimeError(self.TF_Message(self.status).decode())


class Session:
    """A loaded SavedModel."""

    def __init__(self, path: str) -> None:
        self.library = c = Library()
        self.graph, buffer = c.TF_NewGraph(), c.TF_NewBuffer()
        options, tags = c.TF_NewSessionOptions(), (c_char_p * 1)(b"serve")
        self.session = c.TF_LoadSessionFromSavedModel(
            options, None, path.encode(), tags, 1, self.graph, buffer, c.status
        )
        c.check()
        self.signatures = read_signatures(ctypes.string_at(buffer.contents.data, buffer.contents.length))

    def run(self, signature: str, inputs: dict[str, Flat]) -> dict[str, Flat]:
        """Answer one request."""
        takes, gives = self.signatures[signature]["inputs"], self.signatures[signature]["outputs"]
        assert set(takes) == set(inputs)
        fed = (c_void_p * len(takes))(*[self._tensor(inputs[name], dtype) for name, (_, dtype) in takes.items()])
        fetched = (c_void_p * len(gives))()
        c = self.library
        c.TF_SessionRun(
            self.session, None, self._outputs(takes), fed, len(takes), self._outputs(gives), fetched, len(gives),
            None, 0, None, c.status,
        )  # fmt: skip
        c.check()
        return {name: self._plain(tensor) for name, tensor in zip(gives, fetched, strict=True)}

    def _outputs(self, tensors: dict[str, tuple[str, int]]) -> Any:
        names = [name.partition(":") for name, _ in tensors.values()]
        found = [self.library.TF_GraphOperationByName(self.graph, name.encode()) for name, _, _ in names]
        return (Output * len(names))(
            *[Output(f, int(index or 0)) for f, (_, _, index) in zip(found, names, strict=True)]
        )

    def _tensor(self, flat: Flat, dtype: int) -> Any:
        c, shape, values = self.library, flat["shape"], flat["values"]
        name, kind = TYPES[dtype]
        assert name == flat["dtype"]
        size = STRING_SIZE if kind is None else ctypes.sizeof(kind)
        tensor = c.TF_AllocateTensor(dtype, (c_int64 * len(shape))(*shape), len(shape), size * len(values))
        data = c.TF_TensorData(tensor)
        if kind is not None:
            ctypes.memmove(data, (kind * len(values))(*values), size * len(values))
            return tensor
        for i, value in enumerate(values):
            c.TF_StringInit(data + size * i)
            c.TF_StringCopy(data + size * i, value.encode(), len(value.encode()))
        return tensor

    def _plain(self, tensor: Any) -> Flat:
        c = self.library
        shape = [c.TF_Dim(tensor, i) for i in range(c.TF_NumDims(tensor))]
        name, kind = TYPES[c.TF_TensorType(tensor)]
        data, count = c.TF_TensorData(tensor), math.prod(shape)
        if kind is not None:
            values = list((kind * count).from_address(data)) if count else []
        else:
            items = [data + STRING_SIZE * i for i in range(count)]
            values = [ctypes.string_at(c.TF_StringGetDataPointer(p), c.TF_StringGetSize(p)).decode() for p in items]
        return {"dtype": name, "shape": shape, "values": values}


def _varint(data: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[position]
        value |= (byte & 127) << shift
        position, shift = position + 1, shift + 7
        if byte < 128:
            return value, position


def fields(message: bytes) -> Iterator[tuple[int, Any]]:
    """Yield (field number, value) of a protocol buffer message; numbers as int, other values as bytes."""
    position = 0
    while position < len(message):
        key, position = _varint(message, position)
        value: Any
        if key & 7 == 0:
            value, position = _varint(message, position)
        else:
            size, position = _varint(message, position) if key & 7 == 2 else ({5: 4, 1: 8}[key & 7], position)
            value, position = message[position : position + size], position + size
        yield key >> 3, value


def read_signatures(meta_graph: bytes) -> dict[str, dict[str, dict[str, tuple[str, int]]]]:
    """Return {signature: {"inputs" | "outputs": {name: (graph tensor, dtype)}}} of a MetaGraphDef (its field 5)."""
    signatures = {}
    for number, entry in fields(meta_graph):
        if number == 5:
            pair = dict(fields(entry))
            sides: dict[str, dict[str, tuple[str, int]]] = {"inputs": {}, "outputs": {}}
            for side, item in fields(pair[2]):
                if side in (1, 2):
                    named = dict(fields(item))
                    info = dict(fields(named[2]))  # TensorInfo: 1 name, 2 dtype
                    sides["inputs" if side == 1 else "outputs"][named[1].decode()] = (info[1].decode(), info.get(2, 0))
            signatures[pair[1].decode()] = sides
    return signatures


def main(model: str, calls: str) -> None:
    """Load the model, answer the calls and check that no Python module of TensorFlow was loaded."""
    session = Session(model)
    answers = [session.run(**call) for call in json.loads(pathlib.Path(calls).read_text())]
    assert "tensorflow" not in sys.modules
    print(json.dumps(answers))  # noqa: T201 - read by the parent process


if __name__ == "__main__":
    main(*sys.argv[1:])
