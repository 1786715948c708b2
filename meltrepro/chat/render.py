"""Texts of conversations by a chat template; one that came with a model is a stranger's program, and gets a process with limits."""

from __future__ import annotations

import contextlib
import resource
import subprocess
import sys
from collections.abc import Sequence
from datetime import date
from functools import lru_cache
from pathlib import Path

from pydantic import TypeAdapter
from pydantic.dataclasses import dataclass

import meltrepro
from meltrepro.chat.template import DATE, ChatTemplate, Marked, Rendered, TemplateError
from meltrepro.words import shorten, visible

_CPU_S, _WALL_S, _MEMORY = 10, 300, 2 << 30
"""Far more than any template takes for a study's conversations; a machine may be busy."""


@dataclass(frozen=True)
class _Wish:
    template: ChatTemplate
    system: str | None
    conversations: tuple[tuple[str, ...], ...]
    day: date


@dataclass(frozen=True)
class _Refusal:
    message: str
    marked: tuple[Marked, ...]


_WISH, _ANSWER = TypeAdapter(_Wish), TypeAdapter[Rendered | _Refusal](Rendered | _Refusal)


def render(
    template: ChatTemplate, system: str | None, conversations: Sequence[Sequence[str]], day: date = DATE
) -> Rendered:
    """The texts to append, by conversation and turn; `system` of `None` takes the template's own, if it has any.

    Raises `TemplateError` where the template is wrong or does not end, or a text contains a marker of it.
    """
    return _rendered(_WISH.dump_json(_Wish(template, system, tuple(map(tuple, conversations)), day)))


def ends(template: ChatTemplate) -> tuple[str, ...]:
    """The markers that end an answer; raises `TemplateError`."""
    return render(template, None, ()).ends


@lru_cache(maxsize=64)
def _rendered(asked: bytes) -> Rendered:
    wish = _WISH.validate_json(asked)
    found = _answered(wish) if wish.template.trusted else _bounded(wish.template.label, asked)
    if isinstance(found, _Refusal):
        raise TemplateError(found.message, found.marked)
    return found


def _answered(wish: _Wish) -> Rendered | _Refusal:
    from meltrepro.chat import jinja  # slow to import

    try:
        return jinja.render(wish.template, wish.system, wish.conversations, wish.day)
    except TemplateError as error:
        return _Refusal(str(error), error.marked)


def _bounded(label: str, asked: bytes) -> Rendered | _Refusal:
    try:
        ended = subprocess.run(
            [sys.executable, "-P", "-m", __name__],
            input=asked,
            capture_output=True,
            timeout=_WALL_S,
            env={"PYTHONPATH": str(Path(meltrepro.__file__).parent.parent)},
            check=False,
        )
    except subprocess.TimeoutExpired:
        return _Refusal(f"{label} does not end within {_WALL_S} s", ())
    if ended.returncode < 0:
        return _Refusal(f"{label} takes more than {_CPU_S} s of computing or {_MEMORY >> 30} GiB of memory", ())
    if ended.returncode:
        said = ended.stderr.decode("utf-8", "replace").strip().rpartition("\n")[2]
        return _Refusal(f"{label} cannot be rendered: {shorten(visible(said), 120)}", ())
    return _ANSWER.validate_json(ended.stdout)


def _main() -> None:
    """The process with limits: reads what is wished from its input, and writes what comes of it."""
    with contextlib.suppress(OSError, ValueError):  # a system that knows no such limit, or has a lower one
        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    resource.setrlimit(resource.RLIMIT_CPU, (_CPU_S, _CPU_S))
    found = _answered(_WISH.validate_json(sys.stdin.buffer.read()))
    sys.stdout.buffer.write(_ANSWER.dump_json(found))


if __name__ == "__main__":
    _main()
