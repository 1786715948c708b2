"""Prompts by their length alone, as llama-bench names its tests: `pp512/tg128` reads 512 tokens, then writes 128 from the same depth."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

_LENGTHS = re.compile(r"pp(?P<prompt>[1-9][0-9]{0,6})(/tg(?P<answer>[1-9][0-9]{0,6}))?|tg(?P<alone>[1-9][0-9]{0,6})")
_LEAST_CONTEXT = 16


@dataclass(frozen=True)
class Lengths:
    """Tokens of a prompt that is read, and of an answer that is written; `None` for what is not measured."""

    prompt: int | None
    answer: int | None

    def context(self, depth: int) -> int:
        """Positions that both take beyond what the context holds already."""
        return max(depth + max((self.prompt or 0) + 1, (self.answer or 0) + 1), _LEAST_CONTEXT)


def lengths_in(written: Any) -> Lengths | None:
    """What a workload's `conversations` says, where it says lengths."""
    found = _LENGTHS.fullmatch(written) if isinstance(written, str) else None
    if found is None:
        return None
    prompt, answer = found["prompt"], found["answer"] or found["alone"]
    return Lengths(int(prompt) if prompt else None, int(answer) if answer else None)
