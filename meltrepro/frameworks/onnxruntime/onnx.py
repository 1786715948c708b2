"""ONNX files, written field by field: the graph as protobuf, the weights beside it, where ONNX Runtime maps them.

A graph needs a dozen fields of four messages. Written by hand they are the same bytes wherever and whenever they are written.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np

from meltrepro.frameworks.prebuilt.codes import Array

MICROSOFT = "com.microsoft"
"""The domain of ONNX Runtime's own operators."""
_IR, _OPSET = 10, 21
_TYPES = {"float32": 1, "uint8": 2, "int32": 6, "int64": 7, "float16": 10}
_ALIGNMENT = 4096
"""Of weights in their file: a page, so that they can be mapped."""
_FLOAT, _INT = 1, 2


def _number(value: int) -> bytes:
    value &= (1 << 64) - 1
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes((*out, value))


def _field(number: int, value: int | str | bytes) -> bytes:
    if isinstance(value, int):
        return _number(number << 3) + _number(value)
    content = value.encode() if isinstance(value, str) else value
    return _number(number << 3 | 2) + _number(len(content)) + content


def _attribute(name: str, value: int | float) -> bytes:
    if isinstance(value, float):
        return _field(1, name) + _number(2 << 3 | 5) + struct.pack("<f", value) + _field(20, _FLOAT)
    return _field(1, name) + _field(3, value) + _field(20, _INT)


def _port(name: str, kind: str, shape: Sequence[int | str]) -> bytes:
    """An input or output of the graph; a dimension that a session learns has a name."""
    sizes = b"".join(_field(1, _field(1, size) if isinstance(size, int) else _field(2, size)) for size in shape)
    return _field(1, name) + _field(2, _field(1, _field(1, _TYPES[kind]) + _field(2, sizes)))


class Graph:
    """A graph while it is made: nodes in the order in which they compute, weights written as they come."""

    def __init__(self, weights: BinaryIO, file: str) -> None:
        """`file` is what the file of the weights is called beside the graph."""
        self._weights, self._file = weights, file
        self._nodes: list[bytes] = []
        self._tensors: list[bytes] = []
        self._inputs: list[bytes] = []
        self._outputs: list[bytes] = []
        self._places: dict[str, tuple[int, int]] = {}

    def input(self, name: str, kind: str, shape: Sequence[int | str]) -> str:
        self._inputs.append(_port(name, kind, shape))
        return name

    def output(self, name: str, kind: str, shape: Sequence[int | str]) -> None:
        self._outputs.append(_port(name, kind, shape))

    def node(
        self,
        operator: str,
        name: str,
        inputs: Sequence[str],
        outputs: Sequence[str] = (),
        domain: str = "",
        attributes: Mapping[str, int | float] | None = None,
    ) -> str:
        """Add a node; its first output, which has its own name where none are named."""
        found = outputs or (name,)
        content = b"".join(_field(1, each) for each in inputs) + b"".join(_field(2, each) for each in found)
        content += _field(3, name) + _field(4, operator)
        content += b"".join(_field(5, _attribute(key, value)) for key, value in (attributes or {}).items())
        self._nodes.append(content + (_field(7, domain) if domain else b""))
        return found[0]

    def weights(self, name: str, array: Array) -> str:
        """Add weights, written to their file."""
        begin = self._weights.tell()
        place = -(-begin // _ALIGNMENT) * _ALIGNMENT
        self._weights.write(bytes(place - begin))
        self._weights.write(np.ascontiguousarray(array).data)
        self._places[name] = (place, array.nbytes)
        return self._tensor(name, array.dtype.name, array.shape, name)

    def again(self, name: str, of: str, kind: str, shape: Sequence[int]) -> str:
        """Weights that are there already, by another name and in another shape: the same bytes of their file."""
        return self._tensor(name, kind, shape, of)

    def constant(self, name: str, array: Array) -> str:
        """A few numbers, which stand in the graph itself."""
        sizes = b"".join(_field(1, size) for size in array.shape)
        self._tensors.append(sizes + _field(2, _TYPES[array.dtype.name]) + _field(8, name) + _field(9, array.tobytes()))
        return name

    def _tensor(self, name: str, kind: str, shape: Sequence[int], written: str) -> str:
        place, size = self._places[written]
        pairs = (("location", self._file), ("offset", str(place)), ("length", str(size)))
        where = b"".join(_field(13, _field(1, key) + _field(2, value)) for key, value in pairs)
        sizes = b"".join(_field(1, each) for each in shape)
        self._tensors.append(sizes + _field(2, _TYPES[kind]) + _field(8, name) + where + _field(14, 1))
        return name

    def write(self, path: Path, name: str) -> None:
        """Write the graph, with the weights as far as they are in it."""
        parts = ((1, self._nodes), (5, self._tensors), (11, self._inputs), (12, self._outputs))
        graph = b"".join(_field(number, each) for number, content in parts for each in content) + _field(2, name)
        sets = (("", _OPSET), (MICROSOFT, 1))
        domains = b"".join(_field(8, _field(1, domain) + _field(2, version)) for domain, version in sets)
        path.write_bytes(_field(1, _IR) + _field(2, "meltrepro") + _field(7, graph) + domains)
