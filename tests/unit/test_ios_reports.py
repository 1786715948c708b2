"""Reports of an iPhone on what died, and why."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meltrepro.targets.ios.reports import parse_report, report_time

APP, PROGRAMS = "org.meltrepro.runner", frozenset({"MeltRunner"})
OTHER = {"name": "SpringBoard", "pid": 60, "rpages": 9000}
OURS = {"name": "MeltRunner", "pid": 712, "rpages": 131072, "reason": "per-process-limit"}
JETSAM = {"memoryStatus": {"pageSize": 16384}, "largestProcess": "MeltRunner", "processes": [OTHER, OURS]}
CRASH = {
    "pid": 712,
    "procName": "MeltRunner",
    "bundleInfo": {"CFBundleIdentifier": APP},
    "exception": {"type": "EXC_BAD_ACCESS", "signal": "SIGSEGV"},
    "termination": {"namespace": "SIGNAL", "code": 11},
}


def report(kind: str, body: object) -> bytes:
    return (
        json.dumps({"bug_type": kind, "timestamp": "2026-11-25 17:00:00.00 +0000"}).encode()
        + b"\n"
        + json.dumps(body, indent=1).encode()
    )


def test_jetsam() -> None:
    found = parse_report(report("298", JETSAM), APP, PROGRAMS)
    assert found is not None
    assert (found.kind, found.pid, found.signal) == ("jetsam", 712, 9)
    assert found.detail == "per-process-limit, 2147 MB"


def test_jetsam_of_somebody_else() -> None:
    """Every process is listed, killed or not."""
    spared = {**OURS}
    del spared["reason"]
    for processes in ([{**OTHER, "reason": "vm-pageshortage"}, spared], [OTHER], "none", [1, None]):
        assert parse_report(report("298", {**JETSAM, "processes": processes}), APP, PROGRAMS) is None


def test_a_crash() -> None:
    found = parse_report(report("309", CRASH), APP, PROGRAMS)
    assert found is not None
    assert (found.kind, found.signal, found.detail) == ("crash", 11, "EXC_BAD_ACCESS, SIGSEGV")


def test_a_crash_of_somebody_else() -> None:
    other = {**CRASH, "procName": "Other", "bundleInfo": {"CFBundleIdentifier": "org.example"}}
    assert parse_report(report("309", other), APP, PROGRAMS) is None


@pytest.mark.parametrize(
    "content", [b"", b"{", b"{}\n", b"[]\n[]", b'{"bug_type": "298"}\n[]', b"[" * 100000, report("225", CRASH)]
)
def test_what_means_nothing(content: bytes) -> None:
    assert parse_report(content, APP, PROGRAMS) is None


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from([*CRASH, *JETSAM, *OURS]), inner),
    )
)
def test_any_body(body: Any) -> None:
    for kind in ("298", "309"):
        parse_report(report(kind, body), APP, PROGRAMS)


@pytest.mark.parametrize(
    ("name", "mine"),
    [
        ("JetsamEvent-2026-11-25-170000.ips", True),
        ("MeltRunner-2026-11-25-170000.ips", True),
        ("MeltRunner-2026-11-25-170000.002.ips", True),
        ("Other-2026-11-25-170000.ips", False),
        ("MeltRunner.ips", False),
        ("Retired", False),
    ],
)
def test_names(name: str, mine: bool) -> None:
    assert (report_time(name, PROGRAMS) == "2026-11-25-170000") is mine
