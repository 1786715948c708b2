"""`meltrepro show`: which campaigns there are, and what is in one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from meltrepro.cli import app
from meltrepro.targets.ios.options import UNPROVEN
from tests.support.campaigns import Cell, build_campaign


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MELTREPRO_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def test_no_campaign_yet(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert app.main(["show", "--list"]) == 0
    assert "there is no campaign" in capsys.readouterr().out


def test_campaigns_by_name_also_damaged_ones(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = (build_campaign(home, [Cell()], number=number, repetitions=2, warmups=1) for number in (0, 1))
    (second / "campaign.json").write_text("{")
    assert app.main(["show", "--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == [first.name, second.name]
    assert lines[0].endswith("finished    1 cell, 3 trials")
    assert "damaged: " in lines[1]


def test_a_campaign_that_was_stopped_says_so_and_what_goes_on(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    build_campaign(home, [Cell("q8_0", failing={1: "crashed"}), Cell("q4_0", repetitions=1)], finished=False)
    assert app.main(["show"]) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith("unfinished: 4 of 6 repetitions have ended; ")
    assert "meltrepro run SPEC, with the same --set" in last
    build_campaign(home, [Cell()], number=1)
    assert app.main(["show"]) == 0
    assert "unfinished" not in capsys.readouterr().out


def test_columns_that_nothing_filled_are_left_out(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    build_campaign(home, [Cell()], repetitions=2, warmups=0)
    assert app.main(["show"]) == 0
    shown = capsys.readouterr().out
    assert "generation tok/s" in shown
    assert "J/token" not in shown
    assert "virtual" not in shown


def test_a_campaign_without_answers_says_so(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    build_campaign(home, [Cell()], repetitions=1, warmups=0)
    assert app.main(["show", "--answers"]) == 0
    assert "no answer of it is checked" in capsys.readouterr().out


def test_a_virtual_device_is_told(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    build_campaign(home, [Cell()], repetitions=1, warmups=0, virtual=True)
    assert app.main(["show"]) == 0
    assert "a virtual device; its numbers say nothing of real ones" in capsys.readouterr().out


def test_synthetic_weights_are_told(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    build_campaign(home, [Cell()], repetitions=1, warmups=0, synthetic=True)
    assert app.main(["show"]) == 0
    assert "synthetic weights; its answers mean nothing" in capsys.readouterr().out
    assert app.main(["show", "--list"]) == 0
    assert capsys.readouterr().out.endswith("1 cell, 1 trial, synthetic\n")


def test_a_device_that_nobody_has_proven_is_told(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = build_campaign(home, [Cell()], repetitions=1, warmups=0) / "campaign.json"
    document = json.loads(path.read_bytes())
    document["cells"][0]["params"]["device.proof"] = UNPROVEN
    path.write_text(json.dumps(document))
    assert app.main(["show"]) == 0
    assert "not yet run on Apple hardware: nothing stands behind these numbers yet" in capsys.readouterr().out
