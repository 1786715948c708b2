"""A GGUF file of the Llama family or a relative as MLC has its weights: its names, its files, and codes in its layout.

A matrix of codes is words of 32 bits, `q_weight`, each with the codes of neighbours, the lowest first, and the scales of groups,
`q_scale`. Codes of llama.cpp have that very order within their bytes. Its order of the rows of Llama's queries and keys is undone, for
the rotations of MLC's models are those of Hugging Face's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from meltrepro.errors import ModelError
from meltrepro.frameworks.llamacpp import gguf
from meltrepro.frameworks.llamacpp.header import called
from meltrepro.frameworks.mlc.shards import Shards
from meltrepro.frameworks.prebuilt.codes import Array, Codes, GgufNumbers
from meltrepro.frameworks.prebuilt.families import FAMILIES, Family
from meltrepro.frameworks.prebuilt.folder import write_facts, write_vocabulary
from meltrepro.frameworks.prebuilt.llama import EMBEDDING, FACTORS, OUTPUT, LlamaShape, refusal, shape_of


@dataclass(frozen=True)
class Grouped:
    """One of MLC's own schemes: a group's largest number is its largest code, and 0 is in the middle."""

    bits: int
    group: int
    number: str
    """Type of the scales, and of all else."""


@dataclass(frozen=True)
class Form:
    """How a matrix is stored; the compiler asks for it (images/mlc/compiler/kernels.py)."""

    rows: int
    columns: int
    number: str
    bits: int = 0
    group: int = 0
    middle: int = 0


@dataclass(frozen=True)
class Stored:
    """A matrix as it is written."""

    form: Form
    tensors: dict[str, Array]
    """By what its name ends with."""


def convert(source: Path, folder: Path, own: Grouped | None = None) -> None:
    """Convert a file with its own codes or floats, or, of floats, with codes of MLC's; raises `ModelError`."""
    header = gguf.check(source)
    if (why := refusal(header, FAMILIES, as_is=True)) is not None:
        raise ModelError(f"{called(source)}: {why}")
    folder.mkdir()
    shape, family = shape_of(header, whole=False), FAMILIES[str(header.architecture)]
    model = _Model(GgufNumbers(source, header), shape, family, Shards(folder), own)
    model.write()
    write_vocabulary(source, header, folder)
    write_facts(
        header,
        shape,
        folder,
        heads=shape.heads,
        rotated=shape.rotated,
        width=shape.width,
        inner=model.forms["model.layers.0.mlp.down_proj"].columns,
        epsilon=shape.epsilon,
        number=model.number,
        centred=family.centred,
        gelu=family.gelu,
        embedding_scale=math.sqrt(shape.width) if family.scaled else 1.0,
        qkv_bias=model.has("attn_q.bias"),
        qk_norm=model.has("attn_q_norm.weight"),
        parallel=not model.has("ffn_norm.weight"),
        matrices={name: asdict(form) for name, form in model.forms.items()},
    )


class _Model:
    """Writes one model, in the order in which MLC's modules have their weights."""

    def __init__(
        self, source: GgufNumbers, shape: LlamaShape, family: Family, shards: Shards, own: Grouped | None
    ) -> None:
        self.source, self.shape, self.family, self.shards, self.own = source, shape, family, shards, own
        self.number = own.number if own is not None else "float32"
        self.forms: dict[str, Form] = {}

    def has(self, part: str) -> bool:
        """Whether layers have it."""
        return f"blk.0.{part}" in self.source.tensors

    def write(self) -> None:
        shape = self.shape
        turned = (shape.heads, shape.kv_heads, 0) if self.family.neighbours else ()
        self._matrix("model.embed_tokens", (EMBEDDING,))
        for i in range(shape.layers):
            theirs, ours = f"blk.{i}", f"model.layers.{i}"
            parts = [f"{theirs}.attn_{part}" for part in "qkv"]
            self._matrix(f"{ours}.self_attn.qkv_proj", [f"{part}.weight" for part in parts], heads=turned)
            if self.has("attn_q.bias"):
                self._vector(f"{ours}.self_attn.qkv_proj.bias", *(f"{part}.bias" for part in parts))
            self._matrix(f"{ours}.self_attn.o_proj", (f"{theirs}.attn_output.weight",))
            if self.has("attn_q_norm.weight"):
                self._heads(f"{ours}.self_attn.qk_norm", [f"{theirs}.attn_{part}_norm.weight" for part in "qk"])
            self._matrix(f"{ours}.mlp.gate_up_proj", [f"{theirs}.ffn_{part}.weight" for part in ("gate", "up")])
            self._matrix(f"{ours}.mlp.down_proj", (f"{theirs}.ffn_down.weight",))
            self._norm(f"{ours}.input_layernorm", f"{theirs}.attn_norm")
            if self.has("ffn_norm.weight"):
                self._norm(f"{ours}.post_attention_layernorm", f"{theirs}.ffn_norm")
        self._norm("model.norm", "output_norm")
        self.shards.add("model.inv_freq", self._steps())
        if OUTPUT in self.source.tensors:
            self._matrix("lm_head", (OUTPUT,))
        self.shards.finish()

    def _norm(self, name: str, theirs: str) -> None:
        for part in ("weight", "bias") if self.family.centred else ("weight",):
            self._vector(f"{name}.{part}", f"{theirs}.{part}")

    def _vector(self, name: str, *theirs: str) -> None:
        found = [self.source.numbers(each) for each in theirs]
        self.shards.add(name, np.concatenate(found).astype(self.number))

    def _heads(self, name: str, theirs: Sequence[str]) -> None:
        """Factors of each head of queries and keys, which some models have once for all heads."""
        counts, head = (self.shape.heads, self.shape.kv_heads), self.shape.head
        found = [
            np.broadcast_to(self.source.numbers(each).reshape(-1, head), (count, head))
            for each, count in zip(theirs, counts, strict=True)
        ]
        self.shards.add(name, np.concatenate(found).astype(self.number))

    def _matrix(self, name: str, parts: Sequence[str], heads: Sequence[int] = ()) -> None:
        """One matrix of several, whose rows follow each other."""
        counts = heads or [0] * len(parts)
        found = [self._stored(part, count) for part, count in zip(parts, counts, strict=True)]
        first = found[0].form
        form = replace(first, rows=sum(each.form.rows for each in found))
        if any(replace(each.form, rows=form.rows) != form for each in found):
            what = f"{', '.join(parts)} are of different types, and {name} has them all"
            raise ModelError(what, hint="name a quantization: it is then quantized anew")
        self.forms[name] = form
        for ending in found[0].tensors:
            self.shards.add(f"{name}.{ending}", np.concatenate([each.tensors[ending] for each in found]))

    def _stored(self, name: str, heads: int) -> Stored:
        found = self.source.read(name)
        if isinstance(found, Codes):
            words = found.codes.reshape(found.rows, -1).view("<u4")
            # What Q6_K makes of two scales has more digits than 16 bits hold.
            number = "float16" if found.block == 32 else "float32"
            tensors = {"q_weight": words, "q_scale": found.scales.astype(number)}
            form = Form(found.rows, found.columns, number, found.bits, found.block, 1 << found.bits - 1)
        elif self.own is not None and self.own.bits:
            tensors = grouped(found, self.own)
            own, (rows, columns) = self.own, found.shape
            form = Form(rows, columns, own.number, own.bits, own.group, (1 << own.bits - 1) - 1)
        else:
            tensors = {"weight": found.astype(self.own.number) if self.own is not None else found}
            rows, columns = found.shape
            form = Form(rows, columns, tensors["weight"].dtype.name)
        return Stored(
            form,
            {key: _in_halves(rows, heads, self.shape.rotated) for key, rows in tensors.items()} if heads else tensors,
        )

    def _steps(self) -> Array:
        """By how much each pair of numbers is turned from one position to the next."""
        half = self.shape.rotated // 2
        steps = np.array([self.shape.base ** (-i / half) for i in range(half)])
        if FACTORS in self.source.tensors:
            steps = steps / self.source.numbers(FACTORS)
        found: Array = steps.astype(np.float32)
        return found


def _in_halves(rows: Array, heads: int, rotated: int) -> Array:
    """Rows of neighbours that turn together, as two halves of what turns of a head."""
    found: Array = rows.reshape(heads, rows.shape[0] // heads, -1).copy()
    halves = found[:, :rotated].reshape(heads, rotated // 2, 2, -1).swapaxes(1, 2)
    found[:, :rotated] = halves.reshape(heads, rotated, -1)
    return found.reshape(rows.shape)


def grouped(numbers: Array, scheme: Grouped) -> dict[str, Array]:
    """MLC's codes of floats: quotients and roundings of the scheme's own type, so that every machine gets the same."""
    per, top = 32 // scheme.bits, (1 << scheme.bits - 1) - 1
    rows, columns = numbers.shape
    groups = -(-columns // scheme.group)
    kind: Callable[[float], Array] = np.dtype(scheme.number).type
    whole = np.zeros((rows, groups * scheme.group), scheme.number)
    whole[:, :columns] = numbers
    blocks = whole.reshape(rows, groups, scheme.group)
    scales = np.abs(blocks).max(axis=2) / kind(top)
    steps = np.where(scales == 0, kind(1), scales)
    codes = np.clip(np.rint(blocks / steps[..., None] + kind(top)), 0, 2 * top).astype(np.uint32)
    shifts = np.arange(per, dtype=np.uint32) * np.uint32(scheme.bits)
    words = np.bitwise_or.reduce(codes.reshape(rows, -1, per) << shifts, axis=2)
    return {"q_weight": words, "q_scale": scales}
