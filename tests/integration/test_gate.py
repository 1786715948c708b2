"""`meltrepro gate` with a real engine and a real model: what did not change passes, what got slower fails."""

from __future__ import annotations

import shutil
from pathlib import Path
from xml.etree import ElementTree

import pytest

from meltrepro.measure.records import read_campaign
from tests.integration.conftest import ROOT, meltrepro

pytestmark = pytest.mark.machine

CHOSEN = (
    *("--metric=generation_tps", "--margin=0.15", "--maximum=20", "--wait", "--json"),
    *("--set=measure.limits.cpu_pressure=1", "--set=measure.limits.noise=1"),  # a machine that runs tests is busy
    *("--set=workloads.chat.first=1", "--set=workloads.chat.turns=1"),
)
ONE_THREAD = "{kind: host, threads: 1}"


@pytest.mark.parametrize(
    ("against", "changes", "status", "failures"),
    [
        (
            "before=after",
            (f"targets={{before: {ONE_THREAD}, after: {ONE_THREAD}}}", "models.smollm2-135m.quantizations=[q4_0]"),
            0,
            0,
        ),
        ("q4_0=f16", (f"targets.host={ONE_THREAD}", "models.smollm2-135m.quantizations=[q4_0, f16]"), 60, 1),
    ],
    ids=["unchanged", "three-times-the-bytes"],
)
def test_a_gate_on_this_machine(
    engine: None, tmp_path: Path, against: str, changes: tuple[str, ...], status: int, failures: int
) -> None:
    shutil.copytree(ROOT / "specs", tmp_path / "specs")
    report = tmp_path / "junit.xml"
    arguments = (f"--against={against}", f"--junit={report}", *CHOSEN, *(f"--set={each}" for each in changes))
    done = meltrepro("gate", tmp_path / "specs/quickstart.yaml", *arguments, home=tmp_path / "home")
    assert done.returncode == status, done.stdout + done.stderr
    metrics, *remarks = ElementTree.parse(report).getroot().iter("testsuite")
    assert (metrics.attrib["tests"], metrics.attrib["failures"]) == ("1", str(failures))
    assert len(remarks) == failures  # other weights may write other tokens
    (folder,) = (tmp_path / "home/records").iterdir()
    first, second = (cell.believed for cell in read_campaign(folder).cells)
    assert len(first) == len(second) >= 5
