"""Real tokenizers for synthetic weights: read from the vocabularies and chat templates that the newest release's source carries.

None of them is part of this package: its files are members of a pinned archive. What stands here are their names, how many bytes come
of them, so that sizes are exact before anything is fetched, and the tokens that a family calls otherwise than the vocabulary at hand.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from meltrepro.frameworks.base import Bring
from meltrepro.frameworks.llamacpp import header
from meltrepro.frameworks.llamacpp.entries import FLOAT32, INT32, STRING, array, entry, text
from meltrepro.frameworks.llamacpp.releases import SDIST
from meltrepro.manifest.shapes import TOKENIZERS, ModelShape, TokenizerName
from meltrepro.manifest.sources import PypiSource

_NORMAL, _CONTROL, _DEFINED, _UNUSED = 1, 3, 4, 5
"""Kinds of tokens, as llama.cpp numbers them."""
_MODEL, _PRE, _TEMPLATE = "tokenizer.ggml.model", "tokenizer.ggml.pre", "tokenizer.chat_template"
_TOKENS, _SCORES, _TYPES, _MERGES = (f"tokenizer.ggml.{what}" for what in ("tokens", "scores", "token_type", "merges"))
_PAD = "[PAD{}]"
"""What rows are called that stand for no token, by the release's converter."""
_WIDTH = 4
"""Of a score and of a kind, in bytes."""
Named = Mapping[int, tuple[str, int]]
"""Text and kind of tokens, by number."""


@dataclass(frozen=True)
class RealTokenizer:
    """Files, and what is written of them."""

    vocabulary: str
    """Which of the source's vocabularies, by its name there."""
    rows: int
    """That the vocabulary has, with those that stand for no token."""
    listed_bytes: int
    """Of the tokens and merges as they are written, for so many rows."""
    merges: int
    kind: str
    """Which of the release's tokenizers it is."""
    pre: str | None
    """How text is split before pairs are joined."""
    numbers: Mapping[str, int]
    """Tokens with a job, by what it is called."""
    begins: bool
    """Whether a prompt begins with a token of its own."""
    template: str = ""
    """Which of the source's templates; empty for none."""
    template_bytes: int = 0
    scored: bool = False
    named: Named = field(default_factory=dict)
    """Tokens of the family that this vocabulary calls otherwise, or has no names for."""
    remark: str = ""
    """What is not the model's own, for the documentation; empty where all is."""


def _tokens(first: int, kind: int, *texts: str) -> dict[int, tuple[str, int]]:
    """Texts at numbers in a row."""
    return {first + i: (each, kind) for i, each in enumerate(texts)}


def _unused(first: int, last: int, number: int) -> dict[int, tuple[str, int]]:
    return _tokens(first, _NORMAL, *(f"<unused{number + i}>" for i in range(last - first + 1)))


REAL: Mapping[TokenizerName, RealTokenizer] = {
    "qwen3": RealTokenizer(
        *("qwen2", 151936, 5319796, 151387, "gpt2", "qwen2"),
        numbers={"bos": 151643, "eos": 151645, "padding": 151643},
        begins=False,
        template="Qwen-Qwen3-0.6B",
        template_bytes=4116,
        named=_tokens(151646, _CONTROL, "<|object_ref_start|>", "<|object_ref_end|>", "<|box_start|>", "<|box_end|>")
        | _tokens(151650, _CONTROL, "<|quad_start|>", "<|quad_end|>", "<|vision_start|>", "<|vision_end|>")
        | _tokens(151654, _CONTROL, "<|vision_pad|>", "<|image_pad|>", "<|video_pad|>")
        | _tokens(151657, _DEFINED, "<tool_call>", "</tool_call>", "<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>")
        | _tokens(151662, _DEFINED, "<|fim_pad|>", "<|repo_name|>", "<|file_sep|>", "<tool_response>")
        | _tokens(151666, _DEFINED, "</tool_response>", "<think>", "</think>"),
    ),
    "llama-3.2": RealTokenizer(
        *("llama-bpe", 128256, 7304223, 280147, "gpt2", "llama-bpe"),
        numbers={"bos": 128000, "eos": 128009},
        begins=True,
        template="meta-llama-Llama-3.2-3B-Instruct",
        template_bytes=3827,
        named=_tokens(128004, _CONTROL, "<|finetune_right_pad_id|>")
        | _tokens(128008, _CONTROL, "<|eom_id|>", "<|eot_id|>", "<|python_tag|>"),
    ),
    "gemma-3": RealTokenizer(
        *("gemma-4", 262144, 13665227, 514906, "gemma4", None),
        numbers={"bos": 2, "eos": 1, "unknown": 3, "padding": 0},
        begins=True,
        template="google-gemma-2-2b-it",
        template_bytes=591,
        scored=True,
        named=_unused(6, 104, 0)
        | _tokens(105, _CONTROL, "<start_of_turn>", "<end_of_turn>")
        | _tokens(255999, _CONTROL, "<start_of_image>", "<end_of_image>")
        | _unused(256001, 262143, 99),
        remark="Gemma 4's pieces with Gemma 3's marks of turns; Gemma 2's template",
    ),
    "phi-4-mini": RealTokenizer(
        *("llama-bpe", 128256, 7304258, 280147, "gpt2", "llama-bpe"),
        numbers={"bos": 199999, "eos": 199999, "padding": 199999},
        begins=False,
        template="microsoft-Phi-3.5-mini-instruct",
        template_bytes=430,
        named=_tokens(199999, _CONTROL, "<|endoftext|>")
        | _tokens(200018, _CONTROL, "<|endofprompt|>", "<|assistant|>", "<|end|>", "<|user|>", "<|system|>"),
        remark="Llama 3's pieces, which are fewer, with Phi 4's marks of turns; Phi 3.5's template",
    ),
    "smollm3": RealTokenizer(
        *("llama-bpe", 128256, 7304183, 280147, "gpt2", "smaug-bpe"),
        numbers={"bos": 128000, "eos": 128012, "padding": 128012},
        begins=False,
        template="HuggingFaceTB-SmolLM3-3B",
        template_bytes=3795,
        named=_tokens(128002, _DEFINED, "<think>", "</think>")
        | _tokens(128011, _CONTROL, "<|im_start|>", "<|im_end|>"),
    ),
    "olmoe": RealTokenizer(
        *("gpt-neox", 50432, 1568957, 50009, "gpt2", "olmo"),
        numbers={"bos": 50279, "eos": 50279, "padding": 1},
        begins=False,
        named=_tokens(0, _DEFINED, "|||IP_ADDRESS|||")
        | _tokens(50277, _DEFINED, "|||EMAIL_ADDRESS|||", "|||PHONE_NUMBER|||")
        | _tokens(50279, _CONTROL, "<|endoftext|>"),
        remark="no template: name one, such as `zephyr`",
    ),
}


def of(shape: ModelShape) -> RealTokenizer | None:
    """The real tokenizer of a shape; `None` where its is made up."""
    return REAL[shape.tokenizer] if shape.tokenizer is not None else None


def entries(shape: ModelShape, bring: Bring) -> list[bytes]:
    """What the header of a shape with a real tokenizer says of it; `bring` fetches what that is read from."""
    real = _real(shape)
    lists = _Lists(bring(_member(real, shape, template=False), SDIST), real, shape.vocabulary)
    found = [
        *_plain(real),
        array(_TOKENS, STRING, [text(each) for each in lists.tokens]),
        array(_TYPES, INT32, [struct.pack("<i", each) for each in lists.types]),
        lists.merges,
    ]
    if real.scored:
        found.append(array(_SCORES, FLOAT32, lists.scores))
    if real.template:
        template = bring(_member(real, shape, template=True), SDIST).read_text(encoding="utf-8")
        found.append(entry(_TEMPLATE, template))
    return found


def size(shape: ModelShape) -> tuple[int, int]:
    """How many entries there are for a shape with a real tokenizer, and their bytes together; reads nothing."""
    real = _real(shape)
    rows = shape.vocabulary
    plain = [*_plain(real), array(_TOKENS, STRING, []), array(_TYPES, INT32, []), array(_MERGES, STRING, [])]
    listed = real.listed_bytes + _WIDTH * rows
    beyond = range(min(rows, real.rows), max(rows, real.rows))
    listed += (1 if rows > real.rows else -1) * sum(len(text(_text(real, number))) for number in beyond)
    if real.scored:
        plain.append(array(_SCORES, FLOAT32, []))
        listed += _WIDTH * rows
    if real.template:
        plain.append(entry(_TEMPLATE, ""))
        listed += real.template_bytes
    return len(plain), listed + sum(map(len, plain))


def facts(shape: ModelShape) -> Iterator[tuple[str, str | int]]:
    """What a header says of it, with the numbers of what is in its lists: for whoever asks before there is a file."""
    real = _real(shape)
    yield _MODEL, real.kind
    if real.pre is not None:
        yield _PRE, real.pre
    yield _TOKENS, shape.vocabulary
    yield _MERGES, real.merges


class _Lists:
    """The lists of a vocabulary file, as so many rows have them."""

    def __init__(self, path: Path, real: RealTokenizer, rows: int) -> None:
        found = header.read(path)
        with path.open("rb") as file:

            def content(key: str) -> bytes:
                value = found.values[key]
                file.seek(value.begin)
                return file.read(value.end - value.begin)

            tokens, types, self.merges = (content(key) for key in (_TOKENS, _TYPES, _MERGES))
            scores = content(_SCORES) if real.scored else b""
        self.tokens = _strings(tokens[len(array(_TOKENS, STRING, [])) :])[:rows]
        kinds = len(self.tokens)
        numbers = types[len(array(_TYPES, INT32, [])) :]
        self.types = list(struct.unpack(f"<{kinds}i", numbers[: _WIDTH * kinds]))
        values = scores[len(array(_SCORES, FLOAT32, [])) :] if scores else b""
        self.scores = [values[i : i + _WIDTH] for i in range(0, min(len(values), _WIDTH * rows), _WIDTH)]
        for number in range(len(self.tokens), rows):
            self.tokens.append(_text(real, number))
            self.types.append(_UNUSED)
            self.scores.append(struct.pack("<f", 0.0))
        for number, each in enumerate(self.tokens):
            if each == _PAD.format(number).encode():  # whatever the file takes it for
                self.types[number] = _UNUSED
        for number, (name, kind) in real.named.items():
            if number < rows:
                self.tokens[number], self.types[number] = name.encode(), kind


def _plain(real: RealTokenizer) -> Iterator[bytes]:
    yield entry(_MODEL, real.kind)
    if real.pre is not None:
        yield entry(_PRE, real.pre)
    for job, number in real.numbers.items():
        yield entry(f"tokenizer.ggml.{job}_token_id", number)
    yield entry("tokenizer.ggml.add_bos_token", real.begins)
    yield entry("tokenizer.ggml.add_eos_token", False)
    yield entry("tokenizer.ggml.add_space_prefix", False)


def _strings(content: bytes) -> list[bytes]:
    found, at = [], 0
    while at < len(content):
        length = int.from_bytes(content[at : at + 8], "little")
        found.append(content[at + 8 : at + 8 + length])
        at += 8 + length
    return found


def _text(real: RealTokenizer, number: int) -> bytes:
    """Of a row beyond a vocabulary's own tokens."""
    return (real.named[number][0] if number in real.named else _PAD.format(number)).encode()


def _real(shape: ModelShape) -> RealTokenizer:
    real = of(shape)
    assert real is not None, f"{shape.name} has a made-up tokenizer"
    return real


def _member(real: RealTokenizer, shape: ModelShape, *, template: bool) -> PypiSource:
    assert shape.tokenizer is not None
    pinned = TOKENIZERS[shape.tokenizer]
    name = f"templates/{real.template}.jinja" if template else f"ggml-vocab-{real.vocabulary}.gguf"
    digest = pinned.template if template else pinned.vocabulary
    return SDIST.model_copy(update={"member": f"*/vendor/llama.cpp/models/{name}", "digest": digest})
