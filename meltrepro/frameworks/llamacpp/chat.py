"""The chat templates in a GGUF file, with the special tokens that they write."""

from __future__ import annotations

import struct
from pathlib import Path

from meltrepro.chat.own import USUAL, OwnTemplates
from meltrepro.frameworks.llamacpp import header
from meltrepro.frameworks.llamacpp.header import STRING, GgufHeader

_TEMPLATE, _TOKENS = "tokenizer.chat_template", "tokenizer.ggml.tokens"
_IDS = {
    "bos_token": "bos",
    "eos_token": "eos",
    "unk_token": "unknown",
    "sep_token": "seperator",  # as llama.cpp spells it
    "pad_token": "padding",
    "mask_token": "mask",
}
"""What templates call special tokens, and what their keys in a header begin with."""
_BEGINNING = (
    "llama3",
    "llama-v3",
    "llama-bpe",
    "falcon3",
    "falcon-h1",
    "pixtral",
    "midm-2.0",
    "lfm2",
    "viking",
    "tekken",
)
"""Pre-tokenizers that put BOS before a text where the header does not say whether they do."""
_MOST = 1 << 20
"""Bytes of the longest template that is read."""


def own(path: Path, found: GgufHeader) -> OwnTemplates:
    """What a file says of its chat templates."""
    texts = {}
    for key, value in found.values.items():
        if value.kind == STRING and (key == _TEMPLATE or key.startswith(f"{_TEMPLATE}.")):
            text = value.content if isinstance(value.content, str) else header.read_text(path, key, value, _MOST)
            if text is not None:
                texts[key[len(_TEMPLATE) + 1 :] or USUAL] = text
    adds = found.values.get("tokenizer.ggml.add_bos_token")
    begins = adds is not None and bool(adds.content)
    if adds is None:
        pre = found.text("tokenizer.ggml.pre")
        begins = found.text("tokenizer.ggml.model") == "llama" or pre in _BEGINNING
    return OwnTemplates(texts, _special(path, found), begins)


def _special(path: Path, found: GgufHeader) -> dict[str, str]:
    """The special tokens by what templates call them."""
    tokens = found.values.get(_TOKENS)
    ids = {name: found.number(f"tokenizer.ggml.{key}_token_id") for name, key in _IDS.items()}
    known = {name: id for name, id in ids.items() if id is not None}
    if tokens is None or tokens.inner != STRING or not known:
        return {}
    with path.open("rb") as file:
        file.seek(tokens.begin)
        content = file.read(tokens.end - tokens.begin)
    place = 8 + len(_TOKENS) + 16  # behind the key, what it is an array of and how many
    texts: dict[int, str] = {}
    for id in range(min(max(known.values()) + 1, tokens.count or 0)):
        length = struct.unpack_from("<Q", content, place)[0]
        if id in known.values():
            texts[id] = content[place + 8 : place + 8 + length].decode("utf-8", "replace")
        place += 8 + length
    return {name: texts[id] for name, id in known.items() if id in texts}
