"""A campaign that only MLflow has, brought back to the disk."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest

from meltrepro.errors import TrackingError
from meltrepro.measure.records import read_campaign
from meltrepro.record.campaign import BUILDS, IMPORTED
from meltrepro.replay.locate import Located, locate
from meltrepro.settings import Settings
from meltrepro.steps import silent
from meltrepro.track import environment
from meltrepro.track.ledger import LEDGER
from meltrepro.track.mlflow_tracker import sync
from tests.support.campaigns import Cell, build_campaign

with environment.importing():
    from mlflow import MlflowClient

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    folder = tmp_path_factory.mktemp("mlflow")
    return Settings(folder / "cache", folder / "home", offline=True, mirrors=None, jobs=1)


@pytest.fixture(autouse=True)
def no_other_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


def contents(folder: Path) -> Mapping[str, bytes]:
    paths = (path for path in folder.rglob("*") if path.is_file())
    return {
        str(path.relative_to(folder)): path.read_bytes() for path in paths if path.name not in (LEDGER, "tracking.lock")
    }


def test_runs_give_back_their_campaign(settings: Settings) -> None:
    folder = build_campaign(settings.home, [Cell("q8_0"), Cell("q4_0")], repetitions=2)
    (folder / BUILDS / "f-run-any").mkdir(parents=True, exist_ok=True)
    (folder / BUILDS / "f-run-any" / "Dockerfile").write_text("FROM scratch\n")
    tracked = sync(folder, settings.tracking_uri)
    before = contents(folder)
    cell = read_campaign(folder).cells[1].id

    shutil.rmtree(folder)
    assert locate(tracked.parent_run_id, settings, silent) == Located(folder)
    assert contents(folder) == {**before, IMPORTED: b""}

    shutil.rmtree(folder)
    assert locate(tracked.cell_run_ids[cell], settings, silent) == Located(folder, cell)
    assert contents(folder) == {**before, IMPORTED: b""}
    assert [path.name for path in settings.records.iterdir()] == [folder.name]


def test_what_mlflow_lacks_is_said_and_leaves_nothing(settings: Settings) -> None:
    folder = build_campaign(settings.home, [Cell("q8_0"), Cell("q4_0")], name="other")
    tracked = sync(folder, settings.tracking_uri)
    shutil.rmtree(folder)
    MlflowClient(tracking_uri=settings.tracking_uri).delete_run(next(iter(tracked.cell_run_ids.values())))
    left = sorted(settings.records.iterdir())
    with pytest.raises(TrackingError, match="has no records of the cell"):
        locate(tracked.parent_run_id, settings, silent)
    with pytest.raises(TrackingError, match="not found"):
        locate("0" * 32, settings, silent)
    client = MlflowClient(tracking_uri=settings.tracking_uri)
    stranger = client.create_run(tracked.experiment_id)
    with pytest.raises(TrackingError, match="is not one of meltrepro's"):
        locate(stranger.info.run_id, settings, silent)
    assert sorted(settings.records.iterdir()) == left
