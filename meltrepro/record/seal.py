"""Seals: a document holds the sha256 of everything else in it, so that a later change of any value is noticed.

A seal tells of accidents and of careless edits. Who means to deceive writes a new one; against that, keep a bundle and
the sha256 of it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from meltrepro.untrusted import load_json

SEAL = "seal"


def sealed(document: Mapping[str, Any]) -> bytes:
    """A document as JSON text with its seal."""
    return json.dumps({**document, SEAL: _digest(document)}, indent=2, ensure_ascii=False).encode() + b"\n"


def check(content: bytes, seal: str | None) -> None:
    """Compare a document with its seal; raises `ValueError` where they differ, never for one without a seal."""
    if seal is not None:
        found = _digest(load_json(content))
        if found != seal:
            raise ValueError(f"it was changed: its seal expects sha256 {seal}, its content has {found}")


def _digest(document: Mapping[str, Any]) -> str:
    rest = {name: value for name, value in document.items() if name != SEAL}
    return hashlib.sha256(json.dumps(rest, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
