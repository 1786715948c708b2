"""A GGUF file of the Llama family as a folder that ONNX Runtime and the runner load.

`model.onnx` is the graph, `weights.bin` its weights, `vocabulary.gguf` the metadata of the source with its tokens, and `model.json` what
the runner wants to know. llama.cpp orders the rows of queries and keys for rotations of neighbours, and so they stay: the
operator for attention knows that order.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from meltrepro.errors import ModelError
from meltrepro.frameworks.llamacpp import gguf
from meltrepro.frameworks.llamacpp.header import ARCHITECTURE, VERSION, GgufHeader, called
from meltrepro.frameworks.onnxruntime.codes import BLOCK, TYPES, Codes, GgufNumbers, quantized, refused_type
from meltrepro.frameworks.onnxruntime.onnx import MICROSOFT, Array, Graph

GRAPH, WEIGHTS, VOCABULARY, FACTS = "model.onnx", "weights.bin", "vocabulary.gguf", "model.json"
FILES = (GRAPH, WEIGHTS, VOCABULARY, FACTS)
ARCHITECTURES = ("llama",)
_EMBEDDING, _OUTPUT, _NORM, _FACTORS = "token_embd.weight", "output.weight", "output_norm.weight", "rope_freqs.weight"
_LAYER = ("attn_norm", "attn_q", "attn_k", "attn_v", "attn_output", "ffn_norm", "ffn_gate", "ffn_up", "ffn_down")
_ACCURACY = 4
"""Of products with codes: activations as codes of 8 bits, as llama.cpp has them."""


@dataclass(frozen=True)
class LlamaShape:
    """What a header says of a model's size."""

    layers: int
    heads: int
    kv_heads: int
    head: int
    """Numbers of a head."""
    vocabulary: int
    context: int
    base: float
    """Of the rotations' frequencies."""
    epsilon: float


def refusal(header: GgufHeader, *, as_is: bool = False) -> str | None:
    """Why a model cannot be converted, by its header; with `as_is` its codes are to be kept."""
    kind = header.architecture
    if kind not in ARCHITECTURES:
        return f"models of architecture {kind or 'that they do not name'} are not converted for ONNX Runtime, those of {', '.join(ARCHITECTURES)} are"
    for key in ("expert_count", "rope.scaling.type"):
        value = header.values.get(f"{kind}.{key}")
        if value is not None and value.content not in (0, "none"):
            return f"its {kind}.{key} is {value.content}, which is not converted for ONNX Runtime"
    names = {each.name: each for each in header.tensors}
    layers = header.number(f"{kind}.block_count") or 0
    wanted = {_EMBEDDING, _NORM, *(f"blk.{i}.{part}.weight" for i in range(layers) for part in _LAYER)}
    if layers and not wanted <= names.keys():
        return f"it has no tensor {min(wanted - names.keys())}"
    odd = names.keys() - wanted - {_OUTPUT, _FACTORS}
    if layers and odd:
        return f"its tensor {min(odd)} is not converted for ONNX Runtime"
    unknown = next((each for each in header.tensors if each.type_name not in TYPES), None)
    return refused_type(unknown) if as_is and unknown is not None else None


def shape_of(header: GgufHeader) -> LlamaShape:
    """Raises `ModelError` for sizes that are missing or do not fit together."""
    kind = header.architecture

    def number(key: str, absent: float | None = None) -> float:
        value = header.values.get(f"{kind}.{key}")
        if value is None and absent is not None:
            return absent
        if value is None or isinstance(value.content, str | None) or not value.content > 0:
            raise ModelError(f"the header has no {kind}.{key}", hint="get the file again from where it came from")
        return value.content

    embedding = next(each for each in header.tensors if each.name == _EMBEDDING)
    width, heads = embedding.dimensions[0], int(number("attention.head_count"))
    kv_heads, head = int(number("attention.head_count_kv", heads)), int(number("attention.key_length", width // heads))
    rotated = int(number("rope.dimension_count", head))
    columns = {each.dimensions[0] for each in header.tensors if len(each.dimensions) == 2}
    if head * heads != width or heads % kv_heads or rotated != head or any(each % BLOCK for each in columns):
        raise ModelError(
            f"a width of {width} with {heads} heads of {head} ({kv_heads} for keys, {rotated} rotated) is not converted for ONNX Runtime"
        )
    return LlamaShape(
        *(int(number("block_count")), heads, kv_heads, head, embedding.dimensions[1], int(number("context_length"))),
        *(float(number("rope.freq_base", 10000.0)), float(number("attention.layer_norm_rms_epsilon"))),
    )


def converter(bits: int | None) -> Callable[[Path, Path], bool]:
    """What converts a file: with its own codes or floats, or, of floats, with codes of so many bits."""

    def run(source: Path, destination: Path) -> bool:
        header = gguf.check(source)
        if (why := refusal(header, as_is=True)) is not None:
            raise ModelError(f"{called(source)}: {why}")
        destination.mkdir()
        with (destination / WEIGHTS).open("wb") as file:
            model = _Model(Graph(file, WEIGHTS), GgufNumbers(source, header), shape_of(header), bits)
            model.build(destination / GRAPH)
        _write_vocabulary(source, header, destination / VOCABULARY)
        _write_facts(header, model.shape, destination / FACTS)
        return True

    return run


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
        self._rotations()
        stream, added = self._embed(), ""
        for i in range(shape.layers):
            stream, added = self._layer(i, stream, added)
        final, _ = self._normalized("output_norm", stream, added)
        graph.constant("end", np.array([-1], np.int64))
        last = graph.node("Gather", "last_position", (final, "end"), attributes={"axis": 1})
        tied = _OUTPUT not in self.source.tensors
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
        found = self.source.read(_EMBEDDING)
        if not isinstance(found, Codes):
            numbers = self.graph.weights(_EMBEDDING, found)
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

    def _rotations(self) -> None:
        """Cosines and sines of every position, by the C library: numpy's own differ from one CPU to the next."""
        half = self.shape.head // 2
        steps = [self.shape.base ** (-2 * i / self.shape.head) for i in range(half)]
        if _FACTORS in self.source.tensors:
            steps = [step / float(factor) for step, factor in zip(steps, self.source.numbers(_FACTORS), strict=True)]
        angles = [position * step for position in range(self.shape.context) for step in steps]
        for name, function in (("cosines", math.cos), ("sines", math.sin)):
            numbers = np.fromiter(map(function, angles), np.float32, len(angles))
            self.graph.weights(name, numbers.reshape(self.shape.context, half))


def _write_vocabulary(source: Path, header: GgufHeader, path: Path) -> None:
    """The metadata byte by byte, without a tensor: what llama.cpp's tokenizer reads."""
    first = header.values[ARCHITECTURE]
    others = [each for each in header.values.values() if each is not first]
    with source.open("rb") as file, path.open("wb") as out:
        head: Sequence[int] = (VERSION, 0, len(header.values))
        out.write(b"GGUF" + head[0].to_bytes(4, "little") + b"".join(each.to_bytes(8, "little") for each in head[1:]))
        for value in (first, *others):
            file.seek(value.begin)
            out.write(file.read(value.end - value.begin))
        out.write(bytes(-out.tell() % header.alignment))


def _write_facts(header: GgufHeader, shape: LlamaShape, path: Path) -> None:
    facts = {
        "layers": shape.layers,
        "kv_heads": shape.kv_heads,
        "head": shape.head,
        "vocabulary": shape.vocabulary,
        "context": shape.context,
        "parameters": sum(each.elements for each in header.tensors if each.name != _FACTORS),
    }
    path.write_text(json.dumps(facts) + "\n", encoding="utf-8")
