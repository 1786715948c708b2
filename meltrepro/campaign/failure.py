"""Why a trial failed, from how its program ended and what it said last."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from meltrepro import untrusted
from meltrepro.record import trial as record
from meltrepro.record.outcomes import FailureKind, TrialFailure
from meltrepro.targets.base import TrialResult
from meltrepro.untrusted import load_json

MODEL_UNLOADABLE, EVENTS_UNWRITABLE = 3, 6
"""Exit statuses of a runner that cannot load its model, and of one that cannot write its events (docs/runner.md)."""
_MEANINGS = {
    2: "the request cannot be read or is wrong",
    MODEL_UNLOADABLE: "the model cannot be loaded",
    4: "the context cannot be created",
    5: "decoding failed",
    EVENTS_UNWRITABLE: "the events cannot be written",
}
_NOT_STARTED = (126, 127)
_FROM_OUTSIDE = frozenset({signal.SIGHUP, signal.SIGINT, signal.SIGKILL, signal.SIGTERM})
"""Signals that a runner does not bring on itself."""
_TAIL_BYTES = 4096
_TAIL_LINES = 5
_LONGEST = 300
_HEAD_BYTES = 16 << 10
_COMPLAINT = re.compile(r"\b(error|unknown|unsupported|invalid|not found|missing|wrong|mismatch)\b|ASSERT|abort", re.I)
_NO_REASON = re.compile(r"failed to load model|error loading model\W*$", re.I)
"""What an engine says in any case, after the line that says why."""
_UNPRINTABLE = re.compile(r"[^ -~\u00a0-\U0010ffff]")


def _nothing() -> None:
    return None


def of_result(
    result: TrialResult, folder: Path, timeout_s: float, who: str = "runner", about: Callable[[], str | None] = _nothing
) -> TrialFailure | None:
    """What went wrong in a trial that ran; `None` where `who` ended well: the runner, or the scorer.

    `about` says what its model is; it is asked where that may be the reason.
    """
    event, lines = _error_event(folder / record.EVENTS), _last_lines(folder / record.STDERR)
    status, model = result.exit_code, None
    on_signal = status > 128 and status - 128 not in _FROM_OUTSIDE
    if (status == MODEL_UNLOADABLE or (on_signal and not _loaded(folder))) and (what := about()):
        model = f"the model: {_UNPRINTABLE.sub('?', what)}"

    def failed(kind: FailureKind, what: str, telling: str | None = None, *, transient: bool = False) -> TrialFailure:
        rest = [each for each in (model, event, *lines) if each is not None and each != telling]
        first = what if telling is None else f"{what}: {telling}"
        return TrialFailure(kind, "\n  ".join([first, *rest]), transient)

    if result.timed_out:
        return failed(FailureKind.timeout, f"stopped after {timeout_s:g} s")
    if result.out_of_memory:
        return failed(FailureKind.out_of_memory, f"the kernel killed the {who} for lack of memory")
    said = _complaint(lines) or (lines[-1] if lines else None)
    if status in _NOT_STARTED:
        return failed(FailureKind.not_started, f"the {who} cannot be started", said)
    if status > 128:
        name = _name_of(status - 128)
        if status - 128 in _FROM_OUTSIDE:
            return failed(FailureKind.killed, f"something else stopped the {who} with {name}", transient=True)
        # Its own event says no more than the signal; the framework's last words say why.
        return failed(FailureKind.crashed, f"the {who} died of {name}", said)
    if status != 0:
        meaning = _MEANINGS.get(status, "unknown reason") if who == "runner" else "the scorer failed"
        telling = _complaint(lines) if status == MODEL_UNLOADABLE else None
        return failed(FailureKind.runner, f"exit status {status}, {meaning}", telling or event or said)
    return None


def of_missing(missing: Mapping[str, str]) -> TrialFailure | None:
    """What went wrong where metrics that the manifest requires cannot be had: name -> why."""
    reasons = "; ".join(f"{name} is required, but {why}" for name, why in missing.items())
    return TrialFailure(FailureKind.unmeasured, reasons) if missing else None


def _name_of(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _error_event(path: Path) -> str | None:
    """The runner's own error, where that was its last event, made safe to show."""
    last = _last_event(path)
    return _safe(f"{last.get('code')}: {last.get('message')}") if last.get("e") == "error" else None


def _last_lines(path: Path) -> list[str]:
    """The end of a program's standard error, made safe to show."""
    lines = _tail(path).decode("utf-8", "replace").splitlines()
    return [_safe(line) for line in lines if line.strip()][-_TAIL_LINES:]


def _complaint(lines: Sequence[str]) -> str | None:
    """The last line that says what is wrong."""
    return next((each for each in reversed(lines) if _COMPLAINT.search(each) and not _NO_REASON.search(each)), None)


def _loaded(folder: Path) -> bool:
    """Whether a runner had loaded its model; that stands at the beginning of its events."""
    try:
        with untrusted.opened(folder / record.EVENTS) as file:
            return b'"load_end"' in file.read(_HEAD_BYTES)
    except OSError:
        return False


def _safe(text: str) -> str:
    return _UNPRINTABLE.sub("?", text)[:_LONGEST]


def _last_event(path: Path) -> Mapping[str, Any]:
    """The last line that a runner wrote whole; empty where there is none or it is no event."""
    lines = _tail(path).split(b"\n")
    if len(lines) < 2 or lines[-1]:  # a line without its end was cut off
        return {}
    try:
        event = load_json(lines[-2])
    except ValueError:
        return {}
    return event if isinstance(event, dict) else {}


def _tail(path: Path) -> bytes:
    try:
        with untrusted.opened(path) as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL_BYTES))
            return file.read(_TAIL_BYTES)
    except OSError:
        return b""
