"""Waiting for a device that went away, in the middle of things too."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from meltrepro.errors import TargetLost

T = TypeVar("T")
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.2, 3.0


def patiently(action: Callable[[], T], reconnect_s: float) -> T:
    """Repeat what a lost link interrupts, until the device is back or has been away for `reconnect_s`."""
    until: float | None = None
    pause_s = _FIRST_PAUSE_S
    while True:
        tried = time.monotonic()
        try:
            return action()
        except TargetLost:
            # The time counts from the loss, however long the action had gone on before.
            now = time.monotonic()
            until = now + reconnect_s if until is None or now - tried > reconnect_s else until
            if now + pause_s > until:
                raise
        time.sleep(pause_s)
        pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
