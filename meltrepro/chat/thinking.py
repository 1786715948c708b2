"""The marks around a model's thinking, by what its template writes around the thinking of an answer that was given."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from meltrepro.chat.template import TemplateError

Message = Mapping[str, Any]
MARKER = r"(?:<+/?[^<>\s]+>+|\[/?[A-Z_]+\])"
"""What templates write around turns: `<|im_end|>`, `<end_of_turn>`, `</s>`, `[/INST]`, `<<SYS>>`."""
_FIRST, _LAST = re.compile(rf"{MARKER}(?:\w+{MARKER})?"), re.compile(rf"(?:{MARKER}\w+)?{MARKER}\s*$")
"""A mark that a text begins or ends with; of one that is made of two markers (`<|open|>think<|sep|>`), all."""
_PROMPT, _THOUGHT, _ANSWER = "prompt-of-5f2d81c0e7", "thought-of-5f2d81c0e7", "answer-of-5f2d81c0e7"
_KEYS = ("reasoning_content", "reasoning", "thinking", "thought")
"""What templates call the thinking of a message."""
_CALL = {"type": "function", "id": "call00001", "function": {"name": "f", "arguments": {}}}
"""Some templates write thinking only where a tool was called after it."""


def speaks_of_thinking(text: str) -> bool:
    """Whether a template seems to be that of a model that thinks."""
    return re.search(r"thinking|thoughts?\b|</think", text) is not None


class Write(Protocol):
    """Renders messages, up to where the next answer begins or no further; raises `TemplateError`."""

    def __call__(self, messages: Sequence[Message], begins: bool = True) -> str: ...


def marks_of_thinking(write: Write) -> tuple[str, str] | None:
    """What a template begins and ends thinking with; `None` where it writes none before an answer."""

    def written(**answer: Any) -> str:
        turn = [{"role": "assistant", "content": _ANSWER, **answer}] if answer else []
        try:
            return write([{"role": "user", "content": _PROMPT}, *turn], not turn)
        except TemplateError:
            return ""

    opened, plain = written(), written(content=_ANSWER).partition(_ANSWER)[0]
    for more in ({}, {"tool_calls": [_CALL]}):
        before, found, after = written(**dict.fromkeys(_KEYS, _THOUGHT), **more).partition(_THOUGHT)
        end = _end(re.split(f"{_ANSWER}|{_THOUGHT}", after)[0].strip())
        if found and end and _ANSWER not in before:
            begin = _begin(before, [text for text in (opened, plain) if text], opened, end)
            return (begin, end) if begin else None
    return None


def _end(after: str) -> str:
    """The marker that comes first, or else the line."""
    marker = _FIRST.match(after)
    return marker[0] if marker is not None else after.partition("\n")[0].strip()


def _begin(before: str, others: Sequence[str], opened: str, end: str) -> str:
    """What comes where other answers begin; where all of them begin so, what is put into their mouth, or the last mark."""
    head = min((_common(before, other) for other in others), default=len(before))
    head = next((each.start() for each in re.finditer(MARKER, before) if each.start() < head < each.end()), head)
    rest, last = opened[head:], _LAST.search(before)
    return before[head:].strip() or ("" if end in rest else rest.strip()) or (last[0].strip() if last else "")


def _common(one: str, other: str) -> int:
    """How many characters two texts begin with alike."""
    return next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
