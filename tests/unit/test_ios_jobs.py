"""How a trial on an iPhone ended, by witnesses of whom any may be missing."""

from __future__ import annotations

import pytest

from meltrepro.targets.ios.jobs import Status, Verdict, Witnesses, is_done, judge, parse_status
from meltrepro.targets.ios.link import Exit
from meltrepro.targets.ios.reports import Report

JETSAM = Report("jetsam", 1, 9, "per-process-limit", b"")
CRASH = Report("crash", 1, 11, "SIGSEGV", b"")


@pytest.mark.parametrize(
    ("seen", "verdict"),
    [
        (Witnesses(Exit(0), Status(0, False), True, None), Verdict(0)),
        (Witnesses(Exit(4), Status(4, False), False, None), Verdict(4)),
        (Witnesses(Exit(4), None, False, None), Verdict(4)),
        (Witnesses(Exit(signal=11), None, False, CRASH), Verdict(128 + 11)),
        (Witnesses(Exit(signal=9), None, False, None), Verdict(128 + 9)),
        (Witnesses(Exit(signal=9), None, False, JETSAM), Verdict(128 + 9, out_of_memory=True)),
        # A report of an earlier shortage makes no crash of this one a shortage.
        (Witnesses(Exit(signal=11), None, False, JETSAM), Verdict(128 + 11)),
        # The link was lost when it ended.
        (Witnesses(None, Status(3, False), False, None), Verdict(3)),
        (Witnesses(None, None, True, None), Verdict(0)),
        (Witnesses(None, None, False, JETSAM), Verdict(128 + 9, out_of_memory=True)),
        (Witnesses(None, None, False, CRASH), Verdict(128 + 11)),
        (Witnesses(Exit(), None, False, None), None),
        (Witnesses(None, None, False, None), None),
        # Ended at its deadline, by whom ever.
        (Witnesses(Exit(signal=9), None, False, None, timed_out=True), Verdict(137, timed_out=True)),
        (Witnesses(Exit(137), Status(137, True), False, None), Verdict(137, timed_out=True)),
        (Witnesses(None, Status(137, True), True, None), Verdict(137, timed_out=True)),
    ],
)
def test_the_best_witness_counts(seen: Witnesses, verdict: Verdict | None) -> None:
    assert judge(seen) == verdict


def test_a_status() -> None:
    assert parse_status(b'{"exit": 3}') == Status(3, False)
    assert parse_status(b'{"exit": 137, "timed_out": true}') == Status(137, True)


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
