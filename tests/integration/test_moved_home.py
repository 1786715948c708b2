"""A home that was moved, copied or is seen by another path: its database keeps working, and nothing is written elsewhere."""

from __future__ import annotations

import json
import shutil
import sqlite3
import urllib.request
from pathlib import Path

import pytest
from mlflow import MlflowClient

from meltrepro import workflow
from meltrepro.cli.app import main
from meltrepro.settings import load
from meltrepro.track import environment
from meltrepro.track.mlflow_tracker import sync
from meltrepro.track.places import LocalDatabase
from tests.support.campaigns import Cell, build_campaign
from tests.support.database import artifacts, contents, run_names


def uri(home: Path) -> str:
    return f"sqlite:///{home / 'mlflow.db'}"


def tree(folder: Path) -> dict[str, tuple[bytes, int]]:
    """Every file with its content and time of change."""
    return {
        str(path.relative_to(folder)): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.fixture(scope="module")
def logged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with a campaign in its database."""
    home = tmp_path_factory.mktemp("logged") / "old home ü"
    sync(build_campaign(home, [Cell()]), uri(home))
    return home


@pytest.fixture
def old(logged: Path, tmp_path: Path) -> Path:
    """The same at a place of its own, used there once."""
    old = tmp_path / "old home ü"
    shutil.copytree(logged, old)
    sync(next((old / "records").iterdir()), uri(old))
    return old


@pytest.mark.parametrize("how", ["copied", "moved", "seen by another path"])
def test_a_home_elsewhere_goes_on_and_writes_nothing_where_it_was(
    how: str, old: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    new = tmp_path / "new plàce" / "home"
    new.parent.mkdir()
    if how == "copied":
        shutil.copytree(old, new)
    elif how == "moved":
        old.rename(new)
    else:
        new.symlink_to(old)
    before = tree(old) if how == "copied" else {}
    monkeypatch.setenv("MELTREPRO_HOME", str(new))
    assert main(["sync", "-q"]) == 0
    assert "nothing to log: 1 campaign" in capsys.readouterr().out, "what is there is known by the way to it"
    build_campaign(new, [Cell()], number=1)
    assert main(["sync", "-q"]) == 0
    assert main(["report", "-o", str(tmp_path / "report")]) == 0
    assert "logged to 1 MLflow run" in capsys.readouterr().out
    files = artifacts(new / "mlartifacts", {})
    runs = run_names(new / "mlflow.db")
    assert {name.split("/")[1] for name in files} == set(runs)
    assert any("/report/index.html" in name for name in files)
    client = MlflowClient(tracking_uri=uri(new))
    for run_id in runs:
        beginning = f"synthetic/{run_id}/artifacts/"
        expected = {name.removeprefix(beginning).split("/")[0] for name in files if name.startswith(beginning)}
        assert {file.path for file in client.list_artifacts(run_id)} == expected
    dump = "\n".join(sqlite3.connect(new / "mlflow.db").iterdump())
    assert (tmp_path / "old home ü").as_uri() not in dump
    if how == "copied":
        assert tree(old) == before
    elif how == "moved":
        assert not old.exists()


def test_the_pages_of_a_copy_show_its_own_files(old: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    new = tmp_path / "new"
    shutil.copytree(old, new)
    lock = next((new / "mlartifacts").rglob("lock.yaml"))
    lock.write_text("of the copy")
    before = tree(old)
    settings = load({"MELTREPRO_HOME": str(new), "MELTREPRO_CACHE": str(tmp_path / "cache")})
    with workflow.browse(settings=settings) as pages:
        assert pages.runs and pages.experiment_id
        run_id = lock.parent.parent.name
        with urllib.request.urlopen(f"{pages.url}/get-artifact?path=lock.yaml&run_uuid={run_id}") as answer:
            assert answer.read() == b"of the copy"
    assert tree(old) == before


def test_a_campaigns_folder_that_was_copied_alone_is_logged_where_it_is_now(
    old: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    new = tmp_path / "new"
    environment.ensure_database(LocalDatabase(new / "mlflow.db"))
    shutil.copytree(old / "records", new / "records")
    monkeypatch.setenv("MELTREPRO_HOME", str(new))
    assert main(["sync", "-q"]) == 0
    assert contents(new / "mlflow.db")["runs"] == contents(old / "mlflow.db")["runs"]


def test_a_note_of_an_earlier_version_counts_where_the_home_is_still(
    old: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (ledger,) = (old / "records").glob("*/tracking.json")
    document = json.loads(ledger.read_text())
    document["places"][0]["uri"] = uri(old)
    ledger.write_text(json.dumps(document))
    monkeypatch.setenv("MELTREPRO_HOME", str(old))
    assert main(["sync", "-q"]) == 0
    assert "nothing to log" in capsys.readouterr().out


def test_the_files_of_others_stay_where_they_are(old: Path, tmp_path: Path) -> None:
    """A database may hold experiments that somebody else made, with folders of their own."""
    client = MlflowClient(tracking_uri=uri(old))
    theirs = [
        (tmp_path / "big/mlartifacts/17").as_uri(),
        "s3://bucket/mlartifacts/theirs",
        (tmp_path / "synthetic").as_uri(),
    ]
    for number, location in enumerate(theirs):
        client.create_run(client.create_experiment(f"theirs {number}", location))
    new = tmp_path / "new"
    shutil.copytree(old, new)
    environment.rebind(LocalDatabase(new / "mlflow.db"))
    found = {each.name: each for each in MlflowClient(tracking_uri=uri(new)).search_experiments()}
    assert [found[f"theirs {number}"].artifact_location for number in range(3)] == theirs
    assert found["synthetic"].artifact_location == (new / "mlartifacts/synthetic").as_uri()
    assert found["Default"].artifact_location == (new / "mlartifacts/0").as_uri()


def test_no_file_of_a_home_names_the_place_that_it_lies_in(old: Path) -> None:
    found = [path for path in old.rglob("*") if path.is_file() and path.name != "mlflow.db"]
    named = [path for path in found if str(old).encode() in path.read_bytes()]
    assert named == []
