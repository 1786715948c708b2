"""OpenVINO's files, written node by node: the graph as XML, and its constants beside it in one file, which OpenVINO maps.

Types and sizes of what nodes compute are left to OpenVINO. The same nodes are the same bytes wherever and whenever they are written.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import BinaryIO
from xml.sax.saxutils import quoteattr

import numpy as np

from meltrepro.frameworks.prebuilt.codes import Array

_VERSION = 11
_SETS = {
    "Assign": 6,
    "Broadcast": 3,
    "Gather": 8,
    "Range": 4,
    "ReadValue": 6,
    "ScaledDotProductAttention": 13,
    "Slice": 8,
    "Swish": 4,
}
"""The set of operators that a kind of node is taken from, where that is not the first."""
_TYPES = {"float32": "f32", "float16": "f16", "int32": "i32", "int64": "i64", "uint8": "u8"}
_ALIGNMENT = 64
"""Of constants in their file: a line of a cache."""

Attribute = str | int | Sequence[int]


def _shown(value: Attribute) -> str:
    """As attributes are written; a size that is not known yet is -1."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str | int):
        return str(value)
    return ",".join("?" if size < 0 else str(size) for size in value)


class Graph:
    """A graph while it is made: nodes in the order in which they compute, constants written as they come."""

    def __init__(self, constants: BinaryIO) -> None:
        self._constants = constants
        self._layers: list[str] = []
        self._edges: list[str] = []
        self._places: dict[str, tuple[int, int]] = {}
        """Number and port of each node's output."""
        self._small: dict[tuple[str, tuple[int, ...], bytes], str] = {}

    def node(
        self, kind: str, name: str, inputs: Sequence[str], attributes: Mapping[str, Attribute] | None = None
    ) -> str:
        """Add a node, whose one output has its name."""
        number, last = len(self._layers), len(inputs)
        for port, (layer, output) in enumerate(self._places[each] for each in inputs):
            self._edges.append(
                f'<edge from-layer="{layer}" from-port="{output}" to-layer="{number}" to-port="{port}"/>'
            )
        self._places[name] = number, last
        data = "".join(f" {key}={quoteattr(_shown(value))}" for key, value in (attributes or {}).items())
        ports = [f'<port id="{port}" precision="dynamic"/>' for port in range(last + (kind != "Result"))]
        self._layers.append(
            f'<layer id="{number}" name={quoteattr(name)} type="{kind}" version="opset{_SETS.get(kind, 1)}"><data{data}/>'
            f"<input>{''.join(ports[:last])}</input><output>{''.join(ports[last:])}</output></layer>"
        )
        return name

    def input(self, name: str, kind: str, shape: Sequence[int]) -> str:
        return self.node("Parameter", name, (), {"element_type": kind, "shape": shape})

    def weights(self, name: str, array: Array, kind: str = "", shape: Sequence[int] = ()) -> str:
        """Add weights; those of 4 bits, two to a byte, by their kind and shape."""
        begin = -(-self._constants.tell() // _ALIGNMENT) * _ALIGNMENT
        self._constants.write(bytes(begin - self._constants.tell()))
        self._constants.write(np.ascontiguousarray(array).data)
        what = {"element_type": kind or _TYPES[array.dtype.name], "shape": shape or array.shape}
        return self.node("Const", name, (), {**what, "offset": begin, "size": array.nbytes})

    def constant(self, array: Array) -> str:
        """A few numbers; those that are there already are not added again."""
        key = array.dtype.name, array.shape, array.tobytes()
        if key not in self._small:
            self._small[key] = self.weights(f"constant.{len(self._small)}", array)
        return self._small[key]

    def write(self, path: Path, name: str) -> None:
        head = f'<?xml version="1.0"?>\n<net name={quoteattr(name)} version="{_VERSION}">'
        lines = (head, "<layers>", *self._layers, "</layers>", "<edges>", *self._edges, "</edges>", "</net>")
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
