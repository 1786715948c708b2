"""Trials on an iPhone: a folder among the documents of the runner app, one launch of the app, and how it ended.

    <root>/jobs/<name>/request.json     what the host asks; sampling.json where it wants samples
                      /started          made by the app before anything else: it never works on a job twice
                      /events.jsonl, stdout.log, stderr.log, samples.jsonl
                      /status.json      {"exit": ..., "timed_out": ...}, the app's last word

A link may break at any moment, so nothing rests on one sign: the phone tells how the process ended, the app leaves
its status, the runner ends its events with `done`, and the phone writes reports on what it killed.
"""

from __future__ import annotations

import json
import re
import secrets
from dataclasses import dataclass

from meltrepro.record import trial as record
from meltrepro.targets.ios.files import Files
from meltrepro.targets.ios.link import ProcessExit
from meltrepro.targets.ios.reports import Report
from meltrepro.targets.remote.jobs import Ended

JOB, DEADLINE = "MELTREPRO_JOB", "MELTREPRO_TIMEOUT_S"
"""Environment of the app: the job's folder below its documents, and when it is to give up by itself."""
STARTED, STATUS = "started", "status.json"
_NAME = re.compile(r"trial-[0-9a-f]{16}")
_KILL = 9
_STATUS_BYTES = 1 << 16


@dataclass(frozen=True)
class JobStatus:
    """What the app said when it ended by itself."""

    exit: int
    timed_out: bool


@dataclass(frozen=True)
class Observed:
    """Everything that is known of how a trial ended."""

    exit: ProcessExit | None
    """What the phone told; `None` where the link was lost when it did."""
    status: JobStatus | None
    done: bool
    """Whether the events are complete."""
    report: Report | None
    timed_out: bool = False
    """Whether this machine ended it."""


def ended(seen: Observed) -> Ended | None:
    """How a trial ended, by the best sign; `None` where there is none: the app vanished without a word."""
    if seen.timed_out or (seen.status is not None and seen.status.timed_out):
        return Ended(128 + _KILL, timed_out=True)
    jetsam = seen.report is not None and seen.report.kind == "jetsam"
    if seen.exit is not None and seen.exit.signal:
        return Ended(128 + seen.exit.signal, out_of_memory=jetsam and seen.exit.signal == _KILL)
    if seen.exit is not None and seen.exit.code is not None:
        return Ended(seen.exit.code & 0xFF)
    if seen.status is not None:
        return Ended(seen.status.exit)
    if seen.done:
        return Ended(0)
    if seen.report is not None:
        return Ended(128 + (seen.report.signal or _KILL), out_of_memory=jetsam)
    return None


class PhoneJob:
    """The folder of one trial, by its path below the root."""

    def __init__(self, name: str | None = None) -> None:
        self.path = f"jobs/{name or f'trial-{secrets.token_hex(8)}'}"

    def create(self, files: Files, request: bytes, sampling: bytes | None) -> None:
        """Make the folder with what the app reads."""
        files.make_folder(self.path)
        if sampling is not None:
            files.write(f"{self.path}/{record.SENSOR_PLAN}", sampling)
        files.write(f"{self.path}/{record.REQUEST}", request)

    def was_started(self, files: Files) -> bool:
        """Whether the app has begun, or has ended."""
        return any(files.stat(f"{self.path}/{name}") is not None for name in (STARTED, STATUS))

    def status(self, files: Files) -> JobStatus | None:
        """The app's last word; `None` where there is none, or where it means nothing."""
        return parse_status(files.read(f"{self.path}/{STATUS}", _STATUS_BYTES))

    def remove(self, files: Files) -> None:
        files.remove_folder(self.path)


def old_jobs(files: Files) -> list[PhoneJob]:
    """Every job that has a folder."""
    return [PhoneJob(name) for name in files.names("jobs") if _NAME.fullmatch(name)]


def parse_status(content: bytes | None) -> JobStatus | None:
    """A status as the app writes it."""
    try:
        known = json.loads(content or b"")
        code, timed_out = known["exit"], known.get("timed_out", False)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    if type(code) is not int or not 0 <= code <= 255 or type(timed_out) is not bool:
        return None
    return JobStatus(code, timed_out)


def is_done(events: bytes) -> bool:
    """Whether events end as complete ones do."""
    lines = events[-4096:].split(b"\n")
    if len(lines) < 2 or lines[-1]:
        return False
    try:
        last = json.loads(lines[-2])
    except (ValueError, RecursionError):
        return False
    return isinstance(last, dict) and last.get("e") == "done"
