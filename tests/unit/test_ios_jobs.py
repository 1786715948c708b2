"""How a trial on an iPhone ended, by witnesses of whom any may be missing."""

from __future__ import annotations

import pytest

from meltrepro.targets.ios.jobs import JobStatus, Observed, ended, is_done, parse_status
from meltrepro.targets.ios.link import ProcessExit
from meltrepro.targets.ios.reports import Report
from meltrepro.targets.remote.jobs import Ended

JETSAM = Report("jetsam", 1, 9, "per-process-limit", b"")
CRASH = Report("crash", 1, 11, "SIGSEGV", b"")


@pytest.mark.parametrize(
    ("seen", "verdict"),
    [
        (Observed(ProcessExit(0), JobStatus(0, False), True, None), Ended(0)),
        (Observed(ProcessExit(4), JobStatus(4, False), False, None), Ended(4)),
        (Observed(ProcessExit(4), None, False, None), Ended(4)),
        (Observed(ProcessExit(signal=11), None, False, CRASH), Ended(128 + 11)),
        (Observed(ProcessExit(signal=9), None, False, None), Ended(128 + 9)),
        (Observed(ProcessExit(signal=9), None, False, JETSAM), Ended(128 + 9, out_of_memory=True)),
        # A report of an earlier shortage makes no crash of this one a shortage.
        (Observed(ProcessExit(signal=11), None, False, JETSAM), Ended(128 + 11)),
        # The link was lost when it ended.
        (Observed(None, JobStatus(3, False), False, None), Ended(3)),
        (Observed(None, None, True, None), Ended(0)),
        (Observed(None, None, False, JETSAM), Ended(128 + 9, out_of_memory=True)),
        (Observed(None, None, False, CRASH), Ended(128 + 11)),
        (Observed(ProcessExit(), None, False, None), None),
        (Observed(None, None, False, None), None),
        # Ended at its deadline, by whom ever.
        (Observed(ProcessExit(signal=9), None, False, None, timed_out=True), Ended(137, timed_out=True)),
        (Observed(ProcessExit(137), JobStatus(137, True), False, None), Ended(137, timed_out=True)),
        (Observed(None, JobStatus(137, True), True, None), Ended(137, timed_out=True)),
    ],
)
def test_the_best_witness_counts(seen: Observed, verdict: Ended | None) -> None:
    assert ended(seen) == verdict


def test_a_status() -> None:
    assert parse_status(b'{"exit": 3}') == JobStatus(3, False)
    assert parse_status(b'{"exit": 137, "timed_out": true}') == JobStatus(137, True)


@pytest.mark.parametrize(
    "content",
    [
        None,
        b"",
        b"{",
        b"[]",
        b"3",
        b'{"exit": "0"}',
        b'{"exit": 256}',
        b'{"exit": -1}',
        b'{"exit": true}',
        b'{"exit": 0, "timed_out": 1}',
        b"\xff",
        b"[" * 100000,
    ],
)
def test_a_status_that_means_nothing(content: bytes | None) -> None:
    assert parse_status(content) is None


@pytest.mark.parametrize(
    ("events", "done"),
    [
        (b'{"e":"hello"}\n{"e":"done","t":1}\n', True),
        (b'{"e":"done"}\n', True),
        (b'{"e":"done"}', False),
        (b'{"e":"done"}\n{"e":"hello"}\n', False),
        (b'"done"\n', False),
        (b'{"e":"error","message":"done"}\n', False),
        (b"", False),
    ],
)
def test_complete_events(events: bytes, done: bool) -> None:
    assert is_done(events) is done
