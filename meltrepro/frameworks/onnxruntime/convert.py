"""A GGUF file of the Llama family as a folder that ONNX Runtime and the runner load.

`model.onnx` is the graph and `weights.bin` its weights. llama.cpp orders the rows of queries and keys for rotations of neighbours, and so they stay: the
operator for attention knows that order.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from meltrepro.errors import ModelError
from meltrepro.frameworks.llamacpp import gguf
from meltrepro.frameworks.llamacpp.header import called
from meltrepro.frameworks.onnxruntime.onnx import MICROSOFT, Graph
from meltrepro.frameworks.prebuilt.codes import Array, Codes, GgufNumbers, paired
from meltrepro.frameworks.prebuilt.folder import write_facts, write_vocabulary
from meltrepro.frameworks.prebuilt.llama import BLOCK, EMBEDDING, OUTPUT, LlamaShape, refusal, shape_of
from meltrepro.frameworks.prebuilt.rotations import rotations

GRAPH, WEIGHTS = "model.onnx", "weights.bin"

_ACCURACY = 4
"""Of products with codes: activations as codes of 8 bits, as llama.cpp has them."""


def convert(source: Path, folder: Path, bits: int | None = None) -> None:
    """Convert a file with its own codes or floats, or, of floats, with codes of so many bits; raises `ModelError`."""
    header = gguf.check(source)
    if (why := refusal(header, as_is=True)) is not None:
        raise ModelError(f"{called(source)}: {why}")
    folder.mkdir()
    with (folder / WEIGHTS).open("wb") as file:
        model = _Model(Graph(file, WEIGHTS), GgufNumbers(source, header), shape_of(header), bits)
        model.build(folder / GRAPH)
    write_vocabulary(source, header, folder)
    write_facts(header, model.shape, folder)


class _Model:
    """The graph of one model."""

    def __init__(self, graph: Graph, weights: GgufNumbers, shape: LlamaShape, bits: int | None) -> None:
        self.graph, self.source, self.shape, self.bits = graph, weights, shape, bits

    def build(self, path: Path) -> None:
        graph, shape = self.graph, self.shape
        cache = ("batch", shape.kv_heads, "positions", shape.head)
        graph.input("tokens", "int64", ("batch", "count"))
        graph.input("last", "int32", ("batch",))
        graph.input("length", "int32", ())
        for i in range(shape.layers):
            for part in ("key", "value"):
                graph.input(f"past.{i}.{part}", "float32", cache)
                graph.output(f"present.{i}.{part}", "float32", cache)
        for name, numbers in zip(("cosines", "sines"), rotations(shape, self.source), strict=True):
            graph.weights(name, numbers)
        stream, added = self._embed(), ""
        for i in range(shape.layers):
            stream, added = self._layer(i, stream, added)
        final, _ = self._normalized("output_norm", stream, added)
        graph.constant("end", np.array([-1], np.int64))
        last = graph.node("Gather", "last_position", (final, "end"), attributes={"axis": 1})
        tied = OUTPUT not in self.source.tensors
        self._product("output", last, of="token_embd" if tied else "output", to="logits")
        graph.output("logits", "float32", ("batch", 1, shape.vocabulary))
        graph.write(path, "llama")

    def _layer(self, i: int, stream: str, added: str) -> tuple[str, str]:
        """One layer; where its input and what is to be added to it come from, and the same for the next."""
        graph, shape, name = self.graph, self.shape, f"blk.{i}."
        normal, stream = self._normalized(f"{name}attn_norm", stream, added)
        parts = [self._product(f"{name}attn_{part}", normal) for part in "qkv"]
        attended = graph.node(
            "GroupQueryAttention",
            f"{name}attention",
            (*parts, f"past.{i}.key", f"past.{i}.value", "last", "length", "cosines", "sines"),
            (f"{name}attended", f"present.{i}.key", f"present.{i}.value"),
            MICROSOFT,
            {
                "num_heads": shape.heads,
                "kv_num_heads": shape.kv_heads,
                "scale": shape.head**-0.5,
                "do_rotary": 1,
                "rotary_interleaved": 1,
            },
        )
        normal, stream = self._normalized(f"{name}ffn_norm", stream, self._product(f"{name}attn_output", attended))
        gate, up = self._product(f"{name}ffn_gate", normal), self._product(f"{name}ffn_up", normal)
        gated = graph.node("Mul", f"{name}silu", (gate, graph.node("Sigmoid", f"{name}sigmoid", (gate,))))
        return stream, self._product(f"{name}ffn_down", graph.node("Mul", f"{name}gated", (gated, up)))

    def _normalized(self, name: str, stream: str, added: str) -> tuple[str, str]:
        """The stream with what is added, normalized and as it goes on."""
        factors = self.graph.weights(f"{name}.weight", self.source.numbers(f"{name}.weight").astype(np.float32))
        if not added:
            attributes: dict[str, int | float] = {"epsilon": self.shape.epsilon, "axis": -1, "stash_type": 1}
            return self.graph.node(
                "SimplifiedLayerNormalization", name, (stream, factors), attributes=attributes
            ), stream
        outputs = (f"{name}.normal", "", "", f"{name}.stream")
        self.graph.node(
            "SkipSimplifiedLayerNormalization",
            name,
            (stream, added, factors),
            outputs if name != "output_norm" else outputs[:1],
            MICROSOFT,
            {"epsilon": self.shape.epsilon},
        )
        return outputs[0], outputs[3]

    def _embed(self) -> str:
        found = self.source.read(EMBEDDING)
        if not isinstance(found, Codes):
            numbers = self.graph.weights(EMBEDDING, found)
            rows = self.graph.node("Gather", "token_embd", (numbers, "tokens"), ("embedded",))
            return self._widened(rows, found)
        codes = self.graph.weights("token_embd.codes", found.codes.reshape(found.rows, -1))
        scales = self.graph.weights("token_embd.scales", found.scales)
        attributes = {"bits": found.bits, "block_size": found.block, "gather_axis": 0, "quantize_axis": 1}
        inputs = (codes, "tokens", scales)
        return self.graph.node("GatherBlockQuantized", "token_embd", inputs, ("embedded",), MICROSOFT, attributes)

    def _product(self, name: str, value: str, of: str = "", to: str = "") -> str:
        """The product with a matrix, which is that of another name where `of` has one."""
        matrix = of or name
        found = self.source.read(f"{matrix}.weight")
        if self.bits is not None and not isinstance(found, Codes):
            found = quantized(found, self.bits)
        outputs = (to or f"{name}.product",)
        if not isinstance(found, Codes):
            numbers = self.graph.weights(f"{name}.weight", found.T)
            return self.graph.node("MatMul", name, (value, self._widened(numbers, found)), outputs)
        if of == "token_embd" and self.bits is None:
            shape, flat = found.codes.shape, (found.rows * found.scales.shape[1],)
            codes = self.graph.again(f"{name}.codes", f"{of}.codes", "uint8", shape)
            scales = self.graph.again(f"{name}.scales", f"{of}.scales", "float32", flat)
        else:
            codes = self.graph.weights(f"{name}.codes", found.codes)
            scales = self.graph.weights(f"{name}.scales", found.scales.reshape(-1))
        attributes = {"K": found.columns, "N": found.rows, "bits": found.bits, "block_size": found.block}
        return self.graph.node(
            "MatMulNBits", name, (value, codes, scales), outputs, MICROSOFT, {**attributes, "accuracy_level": _ACCURACY}
        )

    def _widened(self, name: str, numbers: Array) -> str:
        """32-bit floats of 16-bit ones: the CPU computes with nothing else."""
        if numbers.dtype == np.float32:
            return name
        return self.graph.node("Cast", f"{name}.wide", (name,), attributes={"to": 1})


def quantized(numbers: Array, bits: int) -> Codes:
    """ONNX Runtime's own scheme: 32 numbers share a scale, by which the largest of them is the lowest code.

    Without zero points, with which 1.29 computes wrong products of 4 bits on CPUs with AVX2 alone. Only quotients and roundings of
    32-bit floats, so that every machine gets the same codes.
    """
    middle = 1 << bits - 1
    rows, columns = numbers.shape
    blocks = numbers.astype(np.float32).reshape(rows, columns // BLOCK, BLOCK)
    largest = np.take_along_axis(blocks, np.abs(blocks).argmax(axis=2)[..., None], axis=2)
    scales = largest / np.float32(-middle)
    steps = np.where(scales == 0, np.float32(1), scales)
    codes = np.clip(np.rint(blocks / steps) + middle, 0, 2 * middle - 1).astype(np.uint8)
    return Codes(paired(codes) if bits == 4 else codes, scales[..., 0], bits, BLOCK)
