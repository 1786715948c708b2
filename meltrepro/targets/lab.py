"""Which virtual devices run now, as `meltrepro lab` has written it down."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from meltrepro.settings import Settings

T = TypeVar("T")


def running(settings: Settings, kind: str, read: Callable[[str, Mapping[str, Any]], T]) -> list[T]:
    """What `read` makes of each device of a kind, from its name and its place; one that is garbled is left out."""
    found = []
    for path in sorted((settings.run / "lab").glob("*.json")):
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            known = json.loads(path.read_text(encoding="utf-8"))
            if known.get("kind") == kind:
                found.append(read(path.stem, known))
    return found
