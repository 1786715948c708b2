"""Ctrl-C, SIGTERM and SIGHUP as one `KeyboardInterrupt`, raised only where it does no harm.

Inside `raising()` the first signal raises `KeyboardInterrupt` in the main thread, and what leaves the block is
`Interrupted`; inside `held()` a signal waits until the block ends. Signals that follow while things are put in order
are dropped for `PATIENCE_S`, so that an impatient second Ctrl-C cannot break the clean-up; after that they raise again.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from meltrepro.errors import Interrupted, MeltreproError

_Handler = Callable[[int, FrameType | None], Any] | int | None
PATIENCE_S = 10.0
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class _State:
    """Of the process: signals have no other scope."""

    held = 0
    pending = False
    raised_at: float | None = None


@contextmanager
def raising() -> Iterator[None]:
    """Let the signals raise while the block runs; raises `Interrupted` where one did.

    Only the main thread can be interrupted; elsewhere this does nothing, nor does it inside itself.
    """
    nested = signal.getsignal(signal.SIGINT) is _handle
    if nested or threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in _SIGNALS}
    after = before
    _State.raised_at, _State.pending = None, False
    try:
        for number in _SIGNALS:
            signal.signal(number, _handle)
        yield
    except (KeyboardInterrupt, Exception) as error:
        # A library may swallow the interrupt (pydantic does while it matches a pattern) and raise what follows from that.
        swallowed = _dealing_with_it() and not isinstance(error, MeltreproError)
        if not isinstance(error, KeyboardInterrupt) and not swallowed:
            raise
        after = {number: _patient(handler) for number, handler in before.items()}
        raise Interrupted(
            "stopped; everything that was finished is kept",
            hint="run the same command again: it goes on where this one stopped",
        ) from None
    finally:
        for number, handler in after.items():
            signal.signal(number, handler)


@contextmanager
def held() -> Iterator[None]:
    """Hold back an interrupt until the block is over: for steps that must happen whole or not at all.

    Only the main thread can be interrupted; elsewhere this does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    _State.held += 1
    try:
        yield
    finally:
        _State.held -= 1
        if _State.held == 0 and _State.pending:
            _State.pending = False
            _interrupt()


def _patient(before: _Handler) -> _Handler:
    """A handler for the time after an interrupt, while a program says its last words; later it steps aside."""

    def handle(number: int, _frame: FrameType | None) -> None:
        if not _dealing_with_it():
            signal.signal(number, before)
            signal.raise_signal(number)

    return handle


def _dealing_with_it() -> bool:
    return _State.raised_at is not None and time.monotonic() - _State.raised_at < PATIENCE_S


def _handle(_number: int, _frame: FrameType | None) -> None:
    if _dealing_with_it():
        return
    if _State.held:
        _State.pending = True
    else:
        _interrupt()


def _interrupt() -> None:
    _State.raised_at = time.monotonic()
    raise KeyboardInterrupt
