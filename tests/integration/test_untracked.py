"""Campaigns that were run without tracking: `sync` says so, leaves them alone, and logs them once they are named."""

from __future__ import annotations

import shutil
import socket
from pathlib import Path

import pytest

from meltrepro import workflow
from meltrepro.cli.app import main
from meltrepro.errors import TrackingError
from meltrepro.record.campaign import TrackingEntry
from meltrepro.track import environment
from meltrepro.track.places import LocalDatabase
from tests.support.campaigns import Cell, build_campaign
from tests.support.database import run_names

UNWANTED = TrackingEntry(experiment="x", uri=None, enabled=False)


@pytest.fixture(scope="module")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    environment.ensure_database(LocalDatabase(path))
    return path


@pytest.fixture
def home(tmp_path: Path, empty_database: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    home = tmp_path / "home"
    home.mkdir()
    shutil.copy(empty_database, home / "mlflow.db")
    monkeypatch.setenv("MELTREPRO_HOME", str(home))
    return home


def made(home: Path, number: int, *, wanted: bool, **options: bool) -> str:
    tracking = {} if wanted else {"tracking": UNWANTED}
    return build_campaign(home, [Cell()], number=number, repetitions=1, warmups=0, **tracking, **options).name  # type: ignore[arg-type]


def said(capsys: pytest.CaptureFixture[str]) -> tuple[str, str]:
    captured = capsys.readouterr()
    return captured.out, captured.err


@pytest.mark.parametrize("again", [[], ["--all"], ["--detail", "all"]])
def test_what_was_not_wanted_is_said_and_left(again: list[str], home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wanted, unwanted = made(home, 0, wanted=True), made(home, 1, wanted=False)
    assert main(["sync", "-q", *again]) == 0
    out, err = said(capsys)
    assert f"logged {wanted}" in out
    assert f"not logged, as they were run without tracking: {unwanted}" in out
    assert f"to log them all the same: meltrepro sync {unwanted}" in err
    assert run_names(home / "mlflow.db") and unwanted not in run_names(home / "mlflow.db").values()
    if not again:
        assert main(["sync", "-q"]) == 0
        out, _ = said(capsys)
        assert "nothing to log: 2 campaigns" in out
        assert out.rstrip().endswith("1 in MLflow, 1 not wanted there")


def test_a_campaign_that_is_named_is_logged_and_stays_so(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    unwanted = made(home, 0, wanted=False)
    assert main(["sync", "-q", unwanted]) == 0
    assert f"logged {unwanted}" in said(capsys)[0]
    assert main(["sync", "-q"]) == 0
    assert said(capsys)[0].rstrip().endswith("all in MLflow")


def test_one_that_was_named_while_it_ran_is_owed_the_rest(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    unfinished = made(home, 0, wanted=False, finished=False)
    assert main(["sync", "-q", unfinished]) == 0
    assert made(home, 0, wanted=False) == unfinished
    capsys.readouterr()
    assert main(["sync", "-q"]) == 0
    assert f"logged {unfinished}" in said(capsys)[0]


def test_what_waits_is_named_where_the_server_is_not_there(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{taken.getsockname()[1]}")
    first, unwanted, third = (made(home, number, wanted=number != 1) for number in range(3))
    assert main(["sync", "-q"]) == TrackingError.exit_code
    out, err = said(capsys)
    assert f"still to be logged: {first}, {third}" in err
    assert err.count("does not take the results") == 1
    assert unwanted in out


def test_a_damaged_record_is_named_beside_what_waits(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    damaged, sound, unwanted = (made(home, number, wanted=number != 2) for number in range(3))
    (home / "records" / damaged / "campaign.json").write_text("{")
    assert main(["sync", "-q"]) != 0
    out, err = said(capsys)
    assert f"logged {sound}" in out and unwanted in out
    assert damaged in err and sound not in err


def test_the_report_of_one_says_how_to_log_it(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    unwanted = made(home, 0, wanted=False)
    assert main(["report", "-o", str(tmp_path / "report")]) == 0
    assert f"meltrepro sync {unwanted}" in said(capsys)[1]


def test_from_python(home: Path) -> None:
    unwanted = made(home, 0, wanted=False)
    heard: list[str] = []
    assert workflow.sync(unwanted=heard.extend).unwanted == [unwanted] == heard
