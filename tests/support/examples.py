"""How many examples a property is tried with: `QUICK=1` asks for a few, while somebody writes code."""

from __future__ import annotations

import os

QUICK = bool(os.environ.get("QUICK"))


def examples(number: int) -> int:
    """A test's own number, or what is left of it in a hurry."""
    return min(number, 10) if QUICK else number
