"""Chat templates: in Jinja, as tokenizers of Hugging Face hold them, and those that every model can be measured with by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date

from pydantic import JsonValue

DATE = date(2026, 1, 1)
"""The day that templates are told which ask for it, where a workload names none: the same prompt tomorrow."""


@dataclass(frozen=True)
class ChatTemplate:
    """A chat template and what it is given besides the messages."""

    name: str
    """A built-in's own, or where it comes from: `of model qwen3`, `mine.jinja`."""
    text: str
    variables: Mapping[str, JsonValue] = field(default_factory=dict, hash=False)
    """Special tokens by what tokenizers call them (`eos_token`), and the arguments of a manifest."""
    begin: str = ""
    """BOS, where a runner puts it before the first text by itself, so that the text shall not have it too."""
    trusted: bool = False
    """Whether it is one of ours, which ends by itself."""

    @property
    def label(self) -> str:
        """What messages call it."""
        return f"chat template {self.name}"


@dataclass(frozen=True)
class Rendered:
    """The texts of all conversations of a workload, and what is to be said of their template."""

    texts: tuple[tuple[str, ...], ...]
    """By conversation and turn: what is appended to the context."""
    first: int
    """Bytes that the template itself puts into a first text, without a system prompt."""
    later: int
    """The same of later ones."""
    ends: tuple[str, ...]
    """Markers that end an answer: where one is no token of a model, its answers do not end."""
    thinking: tuple[str, str] | None
    """Marks around thinking, where the template knows any."""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Marked:
    """A text that contains a marker of the template: it would speak for the model."""

    message: str
    conversation: int | None = None
    """From 0; `None` for the system prompt."""
    turn: int | None = None
    """From 0."""


class TemplateError(ValueError):
    """A template is wrong, or texts would break out of their turns: those that are `marked`."""

    def __init__(self, message: str, marked: Sequence[Marked] = ()) -> None:
        super().__init__(message)
        self.marked = tuple(marked)


def _roles(end: str) -> str:
    """The `<|role|>` family of Zephyr, whose members differ by the token that ends a turn."""
    return (
        "{% for message in messages if message.role != 'system' or message.content %}"
        "{{ '<|' ~ message.role ~ '|>\n' ~ message.content ~ '" + end + "\n' }}{% endfor %}{{ '<|assistant|>\n' }}"
    )


_FIRST = "{% set first = messages[0].content if messages[0].role == 'system' else '' %}"
_TURNS = "{% for message in messages if message.role != 'system' %}{% if message.role == 'user' %}"
_MERGED = "{{ first ~ '\n\n' if first and loop.first }}{{ message.content }}"
"""The first prompt of a template that has no place for a system prompt of its own."""
_CHATML = (
    "{% for message in messages if message.role != 'system' or message.content %}"
    "{{ '<|im_start|>' ~ message.role ~ '\n' ~ message.content ~ '<|im_end|>\n' }}{% endfor %}{{ '<|im_start|>assistant\n' }}"
)
_SMOLLM = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"
_BUILT_IN = {
    "chatml": (_CHATML, "<|endoftext|>"),
    "smollm2": (
        "{% if messages[0].role != 'system' %}{{ '<|im_start|>system\n"
        + _SMOLLM
        + "<|im_end|>\n' }}{% endif %}"
        + _CHATML,
        "<|endoftext|>",
    ),
    "llama-2": (
        _FIRST
        + _TURNS
        + "[INST] {{ '<<SYS>>\n' ~ first ~ '\n<</SYS>>\n\n' if first and loop.first }}{{ message.content }} [/INST]"
        "{% else %}{{ message.content }} </s><s>{% endif %}{% endfor %}",
        "",
    ),
    "mistral": (
        _FIRST + _TURNS + "[INST] " + _MERGED + " [/INST]{% else %}{{ message.content }}</s> {% endif %}{% endfor %}",
        "<s>",
    ),
    "zephyr": (_roles("<|endoftext|>"), ""),
    "tinyllama": (_roles("</s>"), ""),
    "gemma": (
        _FIRST + _TURNS + "{{ '<start_of_turn>user\n' }}" + _MERGED + "{{ '<end_of_turn>\n<start_of_turn>model\n' }}"
        "{% else %}{{ message.content ~ '<end_of_turn>\n' }}{% endif %}{% endfor %}",
        "<eos>",
    ),
    "plain": (_FIRST + _TURNS + _MERGED + "{% else %}{{ message.content ~ '\n' }}{% endif %}{% endfor %}", ""),
}
"""By name, with a token that ends a text besides those in it."""
BUILT_IN: Mapping[str, ChatTemplate] = {
    name: ChatTemplate(name, text, {"eos_token": end} if end else {}, trusted=True)
    for name, (text, end) in _BUILT_IN.items()
}
