"""GGUF files written by hand, byte by byte, so that what no library writes can be tried too."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence

F32, Q4_0 = 0, 2
U8, I8, U16, I16, U32, I32, REAL, BOOL, STRING, ARRAY, U64, I64, DOUBLE = range(13)
_LAYOUTS = {
    U8: "B",
    I8: "b",
    U16: "H",
    I16: "h",
    U32: "I",
    I32: "i",
    REAL: "f",
    BOOL: "?",
    U64: "Q",
    I64: "q",
    DOUBLE: "d",
}

Value = tuple[int, object]
"""Type and content: a number, a text, its bytes, or (of an array) the type within and a list."""


def text(content: str | bytes, order: str = "<") -> bytes:
    raw = content.encode() if isinstance(content, str) else content
    return struct.pack(f"{order}Q", len(raw)) + raw


def payload(kind: int, content: object, order: str = "<") -> bytes:
    if kind == STRING:
        assert isinstance(content, str | bytes)
        return text(content, order)
    if kind == ARRAY:
        assert isinstance(content, tuple)
        inner, entries = content
        return struct.pack(f"{order}IQ", inner, len(entries)) + b"".join(
            payload(inner, each, order) for each in entries
        )
    return struct.pack(order + _LAYOUTS[kind], content)


def gguf(
    values: Mapping[str, Value] | None = None,
    tensors: Sequence[tuple[str, tuple[int, ...], int, bytes]] = (),
    *,
    alignment: int = 32,
    version: int = 3,
    order: str = "<",
    architecture: str | None = "llama",
) -> bytes:
    """A whole file; `tensors` are name, dimensions, type and bytes of each. `alignment` is written where it is not the usual one."""
    pairs: dict[str, Value] = {} if architecture is None else {"general.architecture": (STRING, architecture)}
    pairs |= values or {}
    if alignment != 32:
        pairs.setdefault("general.alignment", (U32, alignment))
    head = b"GGUF" + struct.pack(f"{order}IQQ", version, len(tensors), len(pairs))
    for key, (kind, content) in pairs.items():
        head += text(key, order) + struct.pack(f"{order}I", kind) + payload(kind, content, order)
    offset, data = 0, b""
    for name, shape, kind, content in tensors:
        head += text(name, order) + struct.pack(f"{order}I{len(shape)}Q", len(shape), *shape)
        head += struct.pack(f"{order}IQ", kind, offset)
        data += content + bytes(-len(content) % alignment)
        offset = len(data)
    return head + bytes(-len(head) % alignment) + data


def numbers(count: int, begin: int = 0) -> bytes:
    """As many float32, each another."""
    return struct.pack(f"<{count}f", *(begin + each for each in range(count)))


TIED = (
    ("token_embd.weight", (8, 3), F32, numbers(24)),
    ("blk.0.attn_norm.weight", (9,), F32, numbers(9, 100)),
    ("blk.0.attn_q.weight", (8, 5), F32, numbers(40, 200)),
)
"""Tensors of a model without an output matrix; the second one ends at no round place."""


def whole(
    architecture: str = "llama",
    *,
    kind: int = F32,
    without: Sequence[str] = (),
    tokens: Sequence[str] = ("a", "<|im_end|>", "<|im_start|>", "</s>"),
    extra: Mapping[str, Value] | None = None,
    **changes: Value,
) -> bytes:
    """A file that says all that a release asks of a header; `changes` are values of `tokenizer.ggml`."""
    values: dict[str, Value] = {
        f"{architecture}.block_count": (U32, 1),
        "tokenizer.ggml.model": (STRING, "gpt2"),
        "tokenizer.ggml.pre": (STRING, "default"),
        "tokenizer.ggml.tokens": (ARRAY, (STRING, list(tokens))),
        "tokenizer.ggml.merges": (ARRAY, (STRING, ["a b"])),
        **{f"tokenizer.ggml.{key}": value for key, value in changes.items()},
        **(extra or {}),
    }
    kept = {key: value for key, value in values.items() if key.rpartition(".")[2] not in without}
    return gguf(kept, [*TIED, ("output.weight", (256, 1), kind, bytes(1024))], architecture=architecture)


def model(text: str = "") -> bytes:
    """A small file that is a model as far as its header says; `text` makes it another one."""
    name: dict[str, Value] = {"general.name": (STRING, text)} if text else {}
    return gguf(name, [*TIED, ("output.weight", (8, 3), F32, numbers(24, 300))])


Matrices = Mapping[str, tuple[tuple[int, ...], bytes, tuple[int, ...], bytes]]
"""By weight: dimensions and numbers of A and of B."""


def adapter(pairs: Matrices, *, alpha: float = 1.0, architecture: str | None = "llama", **values: Value) -> bytes:
    """A LoRA adapter as llama.cpp's converter writes it; `values` are others of `adapter`, dots written as `__`."""
    said: dict[str, Value] = {
        "general.type": (STRING, "adapter"),
        "adapter.type": (STRING, "lora"),
        "adapter.lora.alpha": (REAL, alpha),
        **{key.replace("__", "."): value for key, value in values.items()},
    }
    tensors = []
    for name, (shape_a, a, shape_b, b) in pairs.items():
        tensors += [(f"{name}.lora_a", shape_a, F32, a), (f"{name}.lora_b", shape_b, F32, b)]
    return gguf(said, tensors, architecture=architecture)


def part(
    number: int,
    count: int,
    tensors: Sequence[tuple[str, tuple[int, ...], int, bytes]],
    of: int = 3,
    extra: Mapping[str, Value] | None = None,
) -> bytes:
    """A file of a split model, numbered from 0, as llama-gguf-split writes it: the first has the metadata."""
    said: dict[str, Value] = {
        "split.no": (U16, number),
        "split.count": (U16, count),
        "split.tensors.count": (I32, of),
        **(extra or {}),
    }
    return gguf(said, tensors, architecture=None if number else "llama")
