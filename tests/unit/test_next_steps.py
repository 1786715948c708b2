"""What a run says at its end: what to do about noise, and what comes next."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest

from meltrepro.cli.summary import next_steps, noise, tell_next
from meltrepro.manifest.protocol import Limits
from meltrepro.measure.records import CellRecord, read_campaign
from meltrepro.measure.validity import Flaw, Reason, Validity
from tests.support.campaigns import build_campaign


def test_noisy_cells_are_counted_with_what_helps(tmp_path: Path) -> None:
    calm, noisy = (
        replace(cell, limits=Limits(noise=limit))
        for cell, limit in zip(read_campaign(build_campaign(tmp_path)).cells, (0.9, 0.0001), strict=True)
    )
    assert not noisy.validity.valid
    assert noise([calm]) == []
    said = noise([calm, noisy])
    assert said[0].startswith("1 of 2 cells is INVALID because the repetitions differ too much")
    assert "protocol.gates.busy_cores=0.5" in said[1] and "measure.limits.noise=0.2" in said[1]


def test_cells_that_waited_for_a_cpu_are_not_told_of_repetitions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cells = read_campaign(build_campaign(tmp_path)).cells
    monkeypatch.setattr(CellRecord, "validity", Validity((Flaw(Reason.cpu_pressure, "for half of the time"),)))
    what, helps = noise(cells)
    assert what.startswith("2 of 2 cells are INVALID because they waited for a CPU too long")
    assert "measure.limits.cpu_pressure=1" in helps


def test_what_is_invalid_for_another_reason_is_no_noise(tmp_path: Path) -> None:
    cells = [replace(cell, limits=Limits(min_tokens=10**6)) for cell in read_campaign(build_campaign(tmp_path)).cells]
    assert not any(cell.validity.valid for cell in cells)
    assert noise(cells) == []


@pytest.mark.parametrize("on_the_path", [True, False])
def test_commands_are_shown_as_they_can_be_typed(
    on_the_path: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", [".venv/bin/meltrepro", "run"])
    monkeypatch.setenv("PATH", str(tmp_path))
    if on_the_path:
        (tmp_path / "meltrepro").touch(mode=0o755)
    tell_next(read_campaign(build_campaign(tmp_path)))
    program = "meltrepro" if on_the_path else ".venv/bin/meltrepro"
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "next:"
    assert [line.split("  ")[1] for line in lines[1:-1]] == [
        f"{program} {command}" for command in ("ui", "report last -o report", "compare last OTHER", "replay last")
    ]
    assert max(map(len, lines[:-1])) <= 110
    assert not any(" ui " in line for line in next_steps(tracked=False))
