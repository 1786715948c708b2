"""The chat templates that a model brings, and the one that a manifest chooses."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import JsonValue

from meltrepro.chat.template import ChatTemplate, TemplateError
from meltrepro.manifest.base import is_name

USUAL = "default"
"""What the one is called that is meant where nobody names another."""
SPECIAL = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
_FILES = ("tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja", "tokenizer.json")
_CONFIG, _MAP, _TEMPLATE, _TOKENIZER = _FILES
FOLDER = "additional_chat_templates"
"""Below a checkpoint's: templates by name, each a file in Jinja."""
_NAMED = re.compile(rf"{FOLDER}/(.+)\.jinja")


@dataclass(frozen=True)
class OwnTemplates:
    """What the files of a model say of its chat templates."""

    texts: Mapping[str, str] = field(default_factory=dict)
    """Jinja by name."""
    tokens: Mapping[str, str] = field(default_factory=dict)
    """The special tokens, by what templates call them."""
    begins: bool = False
    """Whether a runner puts BOS before a text by itself."""

    def template(self, model: str, name: str = USUAL, arguments: Mapping[str, JsonValue] | None = None) -> ChatTemplate:
        """The template of that name; raises `TemplateError` where there is none."""
        text = self.texts.get(name)
        if text is None:
            raise TemplateError(
                f"model {model} brings no chat template {name!r}, but {', '.join(map(repr, sorted(self.texts)))}"
                if self.texts
                else f"model {model} brings no chat template"
            )
        label = f"of model {model}" if name == USUAL else f"{name} of model {model}"
        return self.of(label, text, arguments)

    def of(self, label: str, text: str, arguments: Mapping[str, JsonValue] | None = None) -> ChatTemplate:
        """A template from elsewhere, with this model's tokens."""
        begin = self.tokens.get("bos_token", "") if self.begins else ""
        return ChatTemplate(label, text, {**self.tokens, **(arguments or {})}, begin)


def in_own_file(name: str) -> str | None:
    """Which chat template a file of a checkpoint is, by the file's name; `None` for none that a manifest can name."""
    if name == _TEMPLATE:
        return USUAL
    found = _NAMED.fullmatch(name)
    return found[1] if found is not None and is_name(found[1]) else None


def says(name: str) -> bool:
    """Whether a file of a checkpoint says something of chat templates, by its name."""
    return name in _FILES or in_own_file(name) is not None


def of_checkpoint(documents: Mapping[str, bytes]) -> OwnTemplates:
    """What the small files of a checkpoint say, by name; what is no JSON is left to those who say so."""
    config, tokens = _json(documents.get(_CONFIG)), _json(documents.get(_MAP))
    written = config.get("chat_template")
    texts = {USUAL: written} if isinstance(written, str) else {}
    if isinstance(written, list):  # several, each with a name
        pairs = [(each.get("name"), each.get("template")) for each in written if isinstance(each, dict)]
        texts = {name: text for name, text in pairs if isinstance(name, str) and isinstance(text, str)}
    # Files of their own are the later way: where there is one, what the configuration has does not count.
    later = {which: name for name in sorted(documents, reverse=True) if (which := in_own_file(name)) is not None}
    texts = {which: documents[name].decode("utf-8", "replace") for which, name in later.items()} or texts
    special = {name: _token(config.get(name) or tokens.get(name)) for name in SPECIAL}
    known = {name: text for name, text in special.items() if text is not None}
    adds = config.get("add_bos_token")
    begins = adds if isinstance(adds, bool) else _puts_first(_json(documents.get(_TOKENIZER)), known.get("bos_token"))
    return OwnTemplates(texts, known, begins)


def _puts_first(tokenizer: Mapping[str, Any], bos: str | None) -> bool:
    """Whether a tokenizer's last step puts BOS before a text."""
    steps = tokenizer.get("post_processor")
    inside = steps.get("processors") if isinstance(steps, dict) else None
    for step in inside if isinstance(inside, list) else [steps]:
        single = step.get("single") if isinstance(step, dict) else None
        first = single[0] if isinstance(single, list) and single else None
        special = first.get("SpecialToken") if isinstance(first, dict) else None
        if isinstance(special, dict) and bos is not None and special.get("id") == bos:
            return True
    return False


def _token(value: Any) -> str | None:
    """A token as it is written: as a text, or with how it is matched."""
    text = value.get("content") if isinstance(value, dict) else value
    return text if isinstance(text, str) else None


def _json(content: bytes | None) -> Mapping[str, Any]:
    try:
        found = json.loads(content or b"{}")
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
