"""Why a trial failed, from how its program ended and what it said last."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from meltrepro import untrusted
from meltrepro.record import trial as record
from meltrepro.record.outcomes import FailureKind, TrialFailure
from meltrepro.targets.base import TrialResult
from meltrepro.untrusted import load_json

EVENTS_UNWRITABLE = 6
"""Exit status of a runner that cannot write its events (docs/runner.md)."""
_MEANINGS = {
    2: "the request cannot be read or is wrong",
    3: "the model cannot be loaded",
    4: "the context cannot be created",
    5: "decoding failed",
    EVENTS_UNWRITABLE: "the events cannot be written",
}
_NOT_STARTED = (126, 127)
_FROM_OUTSIDE = frozenset({signal.SIGHUP, signal.SIGINT, signal.SIGKILL, signal.SIGTERM})
"""Signals that a runner does not bring on itself."""
_TAIL_BYTES = 4096
_TAIL_LINES = 5
_UNPRINTABLE = re.compile(r"[^ -~\u00a0-\U0010ffff]")


def of_result(result: TrialResult, folder: Path, timeout_s: float, who: str = "runner") -> TrialFailure | None:
    """What went wrong in a trial that ran; `None` where `who` ended well: the runner, or the scorer."""
    said = _said(_last_event(folder / record.EVENTS), folder)
    status = result.exit_code
    if result.timed_out:
        return TrialFailure(FailureKind.timeout, f"stopped after {timeout_s:g} s{said}")
    if result.out_of_memory:
        return TrialFailure(FailureKind.out_of_memory, f"the kernel killed the {who} for lack of memory{said}")
    if status in _NOT_STARTED:
        return TrialFailure(FailureKind.not_started, f"the {who} cannot be started{said}")
    if status > 128:
        return _signalled(status - 128, said, who)
    if status != 0:
        meaning = _MEANINGS.get(status, "unknown reason") if who == "runner" else "the scorer failed"
        return TrialFailure(FailureKind.runner, f"exit status {status}, {meaning}{said}")
    return None


def of_missing(missing: Mapping[str, str]) -> TrialFailure | None:
    """What went wrong where metrics that the manifest requires cannot be had: name -> why."""
    reasons = "; ".join(f"{name} is required, but {why}" for name, why in missing.items())
    return TrialFailure(FailureKind.unmeasured, reasons) if missing else None


def _signalled(number: int, said: str, who: str) -> TrialFailure:
    try:
        name = signal.Signals(number).name
    except ValueError:
        name = f"signal {number}"
    if number in _FROM_OUTSIDE:
        return TrialFailure(FailureKind.killed, f"something else stopped the {who} with {name}{said}", transient=True)
    return TrialFailure(FailureKind.crashed, f"the {who} died of {name}{said}")


def _said(last: Mapping[str, Any], folder: Path) -> str:
    """The runner's own error event and the end of its standard error, made safe to show."""
    parts = []
    if last.get("e") == "error":
        parts.append(f"{last.get('code')}: {last.get('message')}")
    lines = _tail(folder / record.STDERR).decode("utf-8", "replace").splitlines()
    parts += [line for line in lines if line.strip()][-_TAIL_LINES:]
    return "".join("\n  " + _UNPRINTABLE.sub("?", part)[:300] for part in parts)


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
