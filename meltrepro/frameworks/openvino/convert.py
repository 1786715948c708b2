"""A GGUF file of the Llama family as a folder that OpenVINO and the runner load.

`model.xml` is the graph and `model.bin` its weights. OpenVINO knows a model by its patterns: what is written here in many small nodes it
computes in few, as norms, rotations, products with codes and attention with a cache.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from meltrepro.errors import ModelError
from meltrepro.frameworks.llamacpp import gguf
from meltrepro.frameworks.llamacpp.header import called
from meltrepro.frameworks.openvino.ir import Attribute, Graph
from meltrepro.frameworks.prebuilt.codes import Array, Codes, GgufNumbers
from meltrepro.frameworks.prebuilt.folder import write_facts, write_vocabulary
from meltrepro.frameworks.prebuilt.llama import OUTPUT, LlamaShape, refusal, shape_of
from meltrepro.frameworks.prebuilt.rotations import rotations

GRAPH, WEIGHTS = "model.xml", "model.bin"
_LOWEST = -65504.0
"""What a position that must not be seen adds: the lowest number of 16 bits, of which precisions with few bits make no infinity."""
_BATCHES, _POSITIONS, _WIDTH = 0, 1, 2
"""The dimensions of what goes through the layers."""


def convert(source: Path, folder: Path) -> None:
    """Convert a file with its own codes or floats; raises `ModelError`."""
    header = gguf.check(source)
    if (why := refusal(header, as_is=True)) is not None:
        raise ModelError(f"{called(source)}: {why}")
    folder.mkdir()
    with (folder / WEIGHTS).open("wb") as file:
        model = _Model(Graph(file), GgufNumbers(source, header), shape_of(header))
        model.build(folder / GRAPH)
    write_vocabulary(source, header, folder)
    write_facts(header, model.shape, folder)


class _Model:
    """The graph of one model."""

    def __init__(self, graph: Graph, weights: GgufNumbers, shape: LlamaShape) -> None:
        self.graph, self.source, self.shape = graph, weights, shape
        self.whole: dict[str, str] = {}
        """Matrices that are in the graph, by name."""

    def build(self, path: Path) -> None:
        graph, shape = self.graph, self.shape
        graph.input("tokens", "i32", (1, -1))
        graph.input("positions", "i32", (1, -1))
        graph.input("length", "i32", (1,))  # with those that were computed before
        graph.input("sequence", "i32", (1,))  # which of several is gone on with: a part of the pattern of a cache
        self._rotations()
        self._mask()
        nothing = (self._number(0.0), self._integers(1, shape.kv_heads, 0, shape.head))
        graph.node("Broadcast", "empty", nothing, {"mode": "numpy"})
        stream = self._gathered("token_embd", self._matrix("token_embd"), "tokens")
        for i in range(shape.layers):
            stream = self._layer(f"blk.{i}.", stream)
        last = self._gathered("last_position", stream, self._integers(-1), _POSITIONS)
        matrix = "output" if OUTPUT in self.source.tensors else "token_embd"
        logits = self._product("output", self._normalized("output_norm", last), matrix)
        graph.node("Result", "logits", (logits,))
        graph.write(path, "llama")

    def _layer(self, name: str, stream: str) -> str:
        shape = self.shape
        normal = self._normalized(f"{name}attn_norm", stream)
        query = self._rotated(f"{name}rope_q", self._heads(f"{name}attn_q", normal, shape.heads))
        key = self._rotated(f"{name}rope_k", self._heads(f"{name}attn_k", normal, shape.kv_heads))
        value = self._heads(f"{name}attn_v", normal, shape.kv_heads)
        cached = [self._cached(name, part, new) for part, new in (("key", key), ("value", value))]
        found = self.graph.node(
            "ScaledDotProductAttention", f"{name}attention", (query, *cached, "mask"), {"causal": False}
        )
        joined = self._flat(f"{name}attended", self._turned(f"{name}attended.turned", found))
        stream = self._two("Add", f"{name}attn_residual", stream, self._product(f"{name}attn_output", joined))
        normal = self._normalized(f"{name}ffn_norm", stream)
        gate = self.graph.node("Swish", f"{name}silu", (self._product(f"{name}ffn_gate", normal),))
        gated = self._two("Multiply", f"{name}gated", gate, self._product(f"{name}ffn_up", normal))
        return self._two("Add", f"{name}ffn_residual", stream, self._product(f"{name}ffn_down", gated))

    # -- attention ------------------------------------------------------------------------------------------------

    def _rotations(self) -> None:
        """Cosines and sines of the positions, those of a half of a head twice."""
        for name, numbers in zip(("cosines", "sines"), rotations(self.shape, self.source), strict=True):
            table = self.graph.weights(f"{name}.all", numbers)
            rows = self._gathered(f"{name}.rows", table, "positions")
            whole = self.graph.node("Concat", f"{name}.whole", (rows, rows), {"axis": -1})
            self.graph.node("Unsqueeze", name, (whole, self._integers(1)))

    def _mask(self) -> None:
        """What is added of positions to each other: nothing, or where the second comes later the lowest number."""
        graph = self.graph
        bounds = (
            self._constant(np.int32(0)),
            graph.node("Squeeze", "mask.end", ("length",)),
            self._constant(np.int32(1)),
        )
        keys = graph.node("Range", "mask.keys", bounds, {"output_type": "i32"})
        queries = graph.node("Unsqueeze", "mask.queries", ("positions", self._integers(2)))
        seen = self._two("LessEqual", "mask.seen", keys, queries)
        added = (seen, self._number(0.0), self._number(_LOWEST))
        added_once = graph.node("Select", "mask.once", added, {"auto_broadcast": "numpy"})
        graph.node("Unsqueeze", "mask", (added_once, self._integers(1)))

    def _heads(self, name: str, normal: str, heads: int) -> str:
        sizes = self._integers(0, 0, heads, self.shape.head)
        halved = heads if not name.endswith("attn_v") else 0
        whole = (self._product(name, normal, halved=halved), sizes)
        return self._turned(
            f"{name}.turned", self.graph.node("Reshape", f"{name}.heads", whole, {"special_zero": True})
        )

    def _turned(self, name: str, value: str) -> str:
        """Heads before positions, or the other way round."""
        return self.graph.node("Transpose", name, (value, self._integers(0, 2, 1, 3)))

    def _flat(self, name: str, value: str) -> str:
        sizes = self._integers(0, 0, self.shape.heads * self.shape.head)
        return self.graph.node("Reshape", name, (value, sizes), {"special_zero": True})

    def _rotated(self, name: str, value: str) -> str:
        graph, half = self.graph, self.shape.head // 2
        step, axis = self._longs(1), self._longs(3)
        first = graph.node("Slice", f"{name}.first", (value, self._longs(0), self._longs(half), step, axis))
        second = graph.node("Slice", f"{name}.second", (value, self._longs(half), self._longs(2 * half), step, axis))
        negative = self._two("Multiply", f"{name}.negative", second, self._number(-1.0, 4))
        swapped = graph.node("Concat", f"{name}.swapped", (negative, first), {"axis": -1})
        along = self._two("Multiply", f"{name}.along", value, "cosines")
        return self._two("Add", name, along, self._two("Multiply", f"{name}.across", swapped, "sines"))

    def _cached(self, name: str, part: str, new: str) -> str:
        """What was there with what is new, kept for the next call; as many as there are queries."""
        graph, shape = self.graph, self.shape
        variable, sizes = f"{name}{part}", (-1, shape.kv_heads, -1, shape.head)
        kept: dict[str, Attribute] = {"variable_id": variable, "variable_type": "f32", "variable_shape": sizes}
        past = graph.node("ReadValue", f"{name}past_{part}", ("empty",), kept)
        past = self._gathered(f"{name}past_{part}.sequence", past, "sequence")
        present = graph.node("Concat", f"{name}present_{part}", (past, new), {"axis": 2})
        graph.node("Assign", f"{name}kept_{part}", (present,), {"variable_id": variable})
        each = shape.heads // shape.kv_heads
        if each == 1:
            return present
        apart = graph.node("Unsqueeze", f"{name}{part}.apart", (present, self._integers(2)))
        repeats = self._integers(1, shape.kv_heads, each, 1, shape.head)
        spread = graph.node("Broadcast", f"{name}{part}.spread", (apart, repeats), {"mode": "bidirectional"})
        all_heads = (spread, self._integers(0, shape.heads, -1, shape.head))
        return graph.node("Reshape", f"{name}{part}.heads", all_heads, {"special_zero": True})

    # -- weights --------------------------------------------------------------------------------------------------

    def _normalized(self, name: str, value: str) -> str:
        graph = self.graph
        squares = self._two("Power", f"{name}.squares", value, self._number(2.0, 3))
        mean = graph.node("ReduceMean", f"{name}.mean", (squares, self._integers(-1)), {"keep_dims": True})
        more = self._two("Add", f"{name}.more", mean, self._number(self.shape.epsilon, 3))
        root = graph.node("Sqrt", f"{name}.root", (more,))
        scaled = self._two(
            "Multiply", f"{name}.scaled", self._two("Divide", f"{name}.scale", self._number(1.0, 3), root), value
        )
        factors = self.source.numbers(f"{name}.weight").astype(np.float32)
        return self._two("Multiply", name, scaled, graph.weights(f"{name}.weight", factors.reshape(1, 1, -1)))

    def _product(self, name: str, value: str, of: str = "", halved: int = 0) -> str:
        matrix = self._matrix(of or name, halved)
        return self.graph.node("MatMul", name, (value, matrix), {"transpose_a": False, "transpose_b": True})

    def _matrix(self, name: str, halved: int = 0) -> str:
        """A matrix as 32-bit floats, of codes or of fewer bits; with so many heads, for rotations of their halves."""
        if name not in self.whole:
            found = self.source.read(f"{name}.weight")
            floats = (
                self._of_codes(name, found, halved)
                if isinstance(found, Codes)
                else self._of_floats(name, found, halved)
            )
            self.whole[name] = floats
        return self.whole[name]

    def _of_floats(self, name: str, found: Array, halved: int) -> str:
        numbers = self.graph.weights(f"{name}.weight", _in_halves(found, halved))
        return numbers if found.dtype == np.float32 else self._converted(f"{name}.wide", numbers, "f32")

    def _of_codes(self, name: str, found: Codes, halved: int) -> str:
        """(code - middle) * scale, which OpenVINO computes in its product, with scales of 32 bits."""
        graph, kind, blocks = self.graph, f"u{found.bits}", (found.rows, found.scales.shape[1])
        scales = _in_halves(found.scales, halved).reshape(*blocks, 1)
        half = scales.astype(np.float16)
        if np.array_equal(half, scales):
            scales = half
        floats = "f32" if scales.dtype == np.float32 else "f16"
        codes = graph.weights(f"{name}.codes", _in_halves(found.codes, halved), kind, (*blocks, found.block))
        middle = np.full((1, 1, 1), 1 << found.bits - 1, np.uint8)
        centre = self._converted(f"{name}.middle", graph.weights(f"{name}.middle.code", middle, kind), floats)
        centred = self._two("Subtract", f"{name}.centred", self._converted(f"{name}.numbers", codes, floats), centre)
        scaled = self._two("Multiply", f"{name}.scaled", centred, graph.weights(f"{name}.scales", scales))
        rows = (scaled, self._integers(found.rows, found.columns))
        flat = graph.node("Reshape", f"{name}.rows", rows, {"special_zero": False})
        return flat if floats == "f32" else self._converted(f"{name}.wide", flat, "f32")

    # -- small things ---------------------------------------------------------------------------------------------

    def _converted(self, name: str, value: str, kind: str) -> str:
        return self.graph.node("Convert", name, (value,), {"destination_type": kind})

    def _two(self, kind: str, name: str, first: str, second: str) -> str:
        return self.graph.node(kind, name, (first, second), {"auto_broadcast": "numpy"})

    def _gathered(self, name: str, value: str, places: str, axis: int = _BATCHES) -> str:
        return self.graph.node("Gather", name, (value, places, self._constant(np.int32(axis))), {"batch_dims": 0})

    def _constant(self, number: Any) -> str:
        return self.graph.constant(np.asarray(number))

    def _integers(self, *numbers: int) -> str:
        return self._constant(np.array(numbers, np.int32))

    def _longs(self, number: int) -> str:
        return self._constant(np.array([number], np.int64))

    def _number(self, number: float, dimensions: int = 0) -> str:
        return self._constant(np.full((1,) * dimensions, number, np.float32))


def _in_halves(rows: Array, heads: int) -> Array:
    """The rows of each head in the order of rotations of its halves; llama.cpp has them in that of rotations of neighbours."""
    if not heads:
        return rows
    found: Array = rows.reshape(heads, -1, 2, *rows.shape[1:]).swapaxes(1, 2).reshape(rows.shape)
    return found
