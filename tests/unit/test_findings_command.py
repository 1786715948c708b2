"""`meltrepro findings`, and what `meltrepro run` says of it at its end."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from meltrepro.cli import app, findings
from meltrepro.errors import RecordError, TrackingError, UsageError
from meltrepro.track import logged as tracked_runs
from meltrepro.track.places import Place
from tests.support.campaigns import Cell, Trial, Turn, build_campaign

FAST = Trial(conversations=[[Turn(prompt_tokens=40, prefill_ns=40_000_000)] * 2])
"""Prefill at 1000 tokens/s, generation at 50."""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MELTREPRO_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def test_the_last_campaign_as_text(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = build_campaign(home, study="melt", cells=[Cell(trial=FAST)])
    assert app.main(["findings"]) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"{folder.name}: 1 holds, 0 fail, 21 not testable here\n")
    assert "F2   HOLDS: Prefill is much faster" in out


def test_a_finding_that_fails_is_no_error(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    slow = Trial(conversations=[[Turn(prompt_tokens=40, prefill_ns=4_000_000_000)] * 2])
    build_campaign(home, study="melt", cells=[Cell(trial=slow)])
    assert app.main(["findings", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    (second,) = (one for one in document["findings"] if one["id"] == "F2")
    assert second["verdict"] == "FAILS"
    assert second["numbers"]["ratio_median"]["value"] == pytest.approx(0.2)


def test_several_campaigns_are_one_table_and_the_same_bytes_every_time(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folders = [
        build_campaign(home, study="melt", cells=[Cell(trial=FAST)], number=number, name=f"n{number}")
        for number in (0, 1)
    ]
    shown = []
    for names in ([f.name for f in folders], [str(f) for f in folders], ["n0", "last", "last"]):
        assert app.main(["findings", *names, "--json"]) == 0
        shown.append(capsys.readouterr().out)
    elsewhere = [shutil.copytree(folder, home.parent / "elsewhere" / folder.name) for folder in folders]
    assert app.main(["findings", *map(str, elsewhere), "--json"]) == 0
    shown.append(capsys.readouterr().out)
    assert len(set(shown)) == 1, "records alone decide, wherever they lie"
    assert list(json.loads(shown[0])["campaigns"]) == [folder.name for folder in folders]


def test_virtual_devices_alone(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    build_campaign(home, study="melt", cells=[Cell(trial=FAST)], number=0, name="real")
    build_campaign(home, study="melt", cells=[Cell(trial=FAST)], number=1, name="lab", virtual=True)
    assert app.main(["findings", "real", "--virtual-only"]) == 0
    assert ": 0 hold, 0 fail, 22 not testable here\n" in capsys.readouterr().out
    assert app.main(["findings", "real", "lab", "--virtual-only"]) == 0
    assert "F2   HOLDS (virtual): " in capsys.readouterr().out
    assert app.main(["findings", "real", "lab"]) == 0
    assert "F2   HOLDS: " in capsys.readouterr().out


def test_invalid_repetitions_only_when_asked_for(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cut = Trial(conversations=[[*FAST.conversations[0], Turn(fits=False)]])
    build_campaign(home, study="melt", cells=[Cell(trial=cut)])
    assert app.main(["findings"]) == 0
    out = capsys.readouterr().out
    assert ": 0 hold, " in out
    assert "cells that are INVALID and give no figures: 1; meltrepro show says why" in out
    assert app.main(["findings", "--with-invalid"]) == 0
    assert ": 1 holds, " in capsys.readouterr().out


def test_no_such_campaign(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    build_campaign(home, study="melt", cells=[Cell()])
    assert app.main(["findings", "nobody"]) == UsageError.exit_code
    assert "no campaign matches 'nobody'" in capsys.readouterr().err


def test_a_damaged_record(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = build_campaign(home, study="melt", cells=[Cell()])
    folder.joinpath("cells", *Cell().id.split("/"), "r000", "events.jsonl").write_text("{}\n")
    assert app.main(["findings"]) == RecordError.exit_code
    assert "events.jsonl" in capsys.readouterr().err


def test_the_line_at_the_end_of_a_run(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = build_campaign(home, study="melt", cells=[Cell(trial=FAST)])
    logged: list[tuple[Sequence[Path], Mapping[str, str]]] = []
    monkeypatch.setattr(tracked_runs, "attach", lambda folders, files, place: logged.append((folders, files)))
    findings.tell([folder], "last", None)
    line = "findings of melt: 1 holds, 0 fail, 21 not testable here; see them with: meltrepro findings last\n"
    assert capsys.readouterr().out == line
    assert not logged
    findings.tell([folder], "last", Place("sqlite:///x.db"))
    ((folders, files),) = logged
    assert folders == [folder]
    assert list(files) == ["findings.json"]
    assert json.loads(files["findings.json"])["tally"] == "1 holds, 0 fail, 21 not testable here"


def test_mlflow_that_went_away_meanwhile_is_no_failure(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def gone(*_: object) -> None:
        raise TrackingError("no answer")

    folder = build_campaign(home, study="melt", cells=[Cell(trial=FAST)])
    monkeypatch.setattr(tracked_runs, "attach", gone)
    findings.tell([folder], "last", Place("sqlite:///x.db"))
    assert capsys.readouterr().err == "findings not logged to MLflow: no answer\n"


def test_a_campaign_of_no_study_has_no_claims(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = build_campaign(home, [Cell(trial=FAST)])
    findings.tell([folder], "last", Place("sqlite:///x.db"))
    assert capsys.readouterr().out == ""
    assert app.main(["findings"]) == UsageError.exit_code
    assert "belongs to no study" in (err := capsys.readouterr().err) and "--study" in err
    assert app.main(["findings", "--study", "melt"]) == 0
    assert ": 1 holds, " in capsys.readouterr().out
    assert app.main(["findings", "--study", "mlet"]) == UsageError.exit_code
    assert "there is no study 'mlet'" in (err := capsys.readouterr().err) and "melt" in err


def test_only_campaigns_of_the_study_count(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mine = build_campaign(home, [Cell(trial=FAST)], name="mine", study="melt")
    build_campaign(home, [Cell(trial=FAST)], name="other", number=1)
    assert app.main(["findings", "mine", "other", "--json"]) == 0
    assert list(json.loads(capsys.readouterr().out)["campaigns"]) == [mine.name]


def test_a_study_that_is_not_installed_says_nothing(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = build_campaign(home, [Cell(trial=FAST)], study="elsewhere")
    findings.tell([folder], "last", None)
    assert capsys.readouterr().out == ""
    assert app.main(["report", "-o", str(home / "report"), "--no-track"]) == 0
    assert app.main(["findings"]) == UsageError.exit_code
