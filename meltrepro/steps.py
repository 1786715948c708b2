"""One stream of step events: console, journal, MLflow trace and Perfetto file are views of it.

A stage that does something worth telling emits `Step` values into a `Sink`. A sink is any callable; `fan_out` joins
several. A sink must not raise: what cannot be shown must not stop the work.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

Phase = Literal["begin", "progress", "end", "fail", "note"]


@dataclass(frozen=True)
class Step:
    """One thing that happened. `name` is dotted (`fetch`, `build.compile`, `trial`), `subject` what it happened to."""

    name: str
    phase: Phase
    subject: str = ""
    done: float | None = None
    total: float | None = None
    unit: str = ""
    detail: Mapping[str, Any] = field(default_factory=dict)
    wall_ns: int = field(default_factory=time.time_ns)
    monotonic_ns: int = field(default_factory=time.monotonic_ns)


Sink = Callable[[Step], None]


def silent(_: Step) -> None:
    """A sink that drops everything."""


def fan_out(*sinks: Sink) -> Sink:
    """One sink that feeds several, in order."""

    def emit(step: Step) -> None:
        for sink in sinks:
            sink(step)

    return emit


def one_at_a_time(sink: Sink) -> Sink:
    """A sink for several threads, which hears one of them at a time."""
    guard = threading.Lock()

    def emit(step: Step) -> None:
        with guard:
            sink(step)

    return emit


@contextmanager
def step(sink: Sink, name: str, subject: str = "", **detail: Any) -> Iterator[None]:
    """Emit `begin`, then `end` or, where the body raises, `fail` with the reason."""
    sink(Step(name, "begin", subject, detail=detail))
    try:
        yield
    except BaseException as error:
        sink(Step(name, "fail", subject, detail={**detail, "error": f"{type(error).__name__}: {error}"}))
        raise
    sink(Step(name, "end", subject, detail=detail))
