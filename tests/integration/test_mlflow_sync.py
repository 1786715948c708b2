"""Campaigns in a real MLflow database: what is there, and that it is there once."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from pyarrow import parquet

from meltrepro import workflow
from meltrepro.cli.app import main
from meltrepro.errors import RecordError, TrackingError
from meltrepro.measure.records import read_campaign
from meltrepro.record.campaign import CAMPAIGN
from meltrepro.steps import Step
from meltrepro.track import environment, places, view
from meltrepro.track.ledger import LEDGER, open_ledger
from meltrepro.track.logged import attach
from meltrepro.track.mlflow_tracker import TrackedCampaign, sync
from tests.support.campaigns import LOCK_TEXT, START_WALL_NS, Cell, Trial, Turn, build_campaign
from tests.support.database import artifacts, contents, run_names

with environment.importing():
    from mlflow import MlflowClient

pytestmark = pytest.mark.integration
MS = 1_000_000


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with its tables, made once: it takes seconds."""
    path = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    environment.ensure_database(places.LocalDatabase(path))
    return path


@pytest.fixture
def home(tmp_path: Path, empty_database: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home with an empty database; the working folder is elsewhere, and nothing may appear there."""
    home = tmp_path / "home"
    home.mkdir()
    shutil.copy(empty_database, home / "mlflow.db")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    return home


@pytest.fixture
def log(home: Path) -> Callable[[Path], TrackedCampaign]:
    return lambda folder: sync(folder, uri(home))


def uri(home: Path) -> str:
    return f"sqlite:///{home / 'mlflow.db'}"


def test_everything_of_a_campaign_is_there(home: Path, log: Callable[[Path], TrackedCampaign]) -> None:
    turns = [Turn(), Turn(prompt_tokens=10, prefill_ns=50 * MS, gaps_ns=(30 * MS,) * 4)]
    folder = build_campaign(home, [Cell("q8_0"), Cell("q4_0", trial=Trial(conversations=[turns]))], repetitions=3)
    campaign = read_campaign(folder)
    tracked = log(folder)
    client = MlflowClient(tracking_uri=uri(home))

    parent = client.get_run(tracked.parent_run_id)
    assert parent.info.run_name == campaign.id
    assert parent.info.status == "FINISHED"
    note = parent.data.tags["mlflow.note.content"]
    assert "Made by a test." in note and f"meltrepro replay {campaign.id}" in note
    assert parent.data.metrics == {"trials_ok": 6, "trials_failed": 0}
    assert {file.path for file in client.list_artifacts(parent.info.run_id)} == {
        *("campaign.json", "manifest.yaml", "lock.yaml", "plan.json", "journal.jsonl", "builds"),
    }
    assert client.get_experiment(tracked.experiment_id).name == "synthetic"

    cell = campaign.cells[1]
    run = client.get_run(tracked.cell_run_ids[cell.id])
    assert run.info.run_name == f"q4_0 · llama.cpp {cell.entry.release} · host"
    assert run.info.status == "FINISHED"
    assert run.data.tags["mlflow.parentRunId"] == parent.info.run_id
    assert run.data.tags["meltrepro.bundle_digest"] == cell.entry.bundle_digest
    assert run.data.tags["meltrepro.target_kind"] == "host"
    assert run.data.params["quantization"] == "q4_0"
    assert run.data.params["sampling.greedy"] == "true"
    summary = cell.summaries["prefill_tps"]
    assert run.data.metrics["prefill_tps"] == pytest.approx(200)
    assert run.data.metrics["uncertainty/prefill_tps.n"] == 3
    assert run.data.metrics["uncertainty/prefill_tps.low"] == pytest.approx(summary.low)
    assert {name.rpartition("/")[2] for name in run.data.metrics if name.startswith("values/")} == set(cell.summaries)
    history = client.get_metric_history(run.info.run_id, "values/generation_tps")
    assert [point.step for point in history] == [0, 1, 2]
    series = client.get_metric_history(run.info.run_id, "inter_token_ms/r000")
    assert [point.value for point in series] == pytest.approx([20.0] * 9 + [30.0] * 4)
    events = client.download_artifacts(run.info.run_id, "trials/r002/events.jsonl", str(home))
    assert Path(events).read_bytes() == (cell.folder / "r002/events.jsonl").read_bytes()
    assert {file.path for file in client.list_artifacts(run.info.run_id, "trials")} == {
        f"trials/{name}" for name in ("w000", "r000", "r001", "r002")
    }
    assert not list(Path.cwd().iterdir())
    tokens = client.download_artifacts(run.info.run_id, "tokens/r000.parquet", str(home))
    assert parquet.read_metadata(tokens).num_rows == 10 + 5
    (perfetto,) = client.list_artifacts(run.info.run_id, "perfetto")
    assert perfetto.path == "perfetto/r000.perfetto-trace"
    metrics = run.data.metrics
    assert metrics["uncertainty/inter_token_ms.within_cv"] == pytest.approx(0.208, abs=0.001)
    assert metrics["uncertainty/inter_token_ms.between_cv"] == 0
    assert metrics["uncertainty/generation_tps.outliers"] == 0
    assert (home / "mlartifacts").is_dir()


def test_the_trace_has_the_true_times(home: Path, log: Callable[[Path], TrackedCampaign]) -> None:
    folder = build_campaign(home, [Cell(trial=Trial())], warmups=0)
    tracked = log(folder)
    run_id = next(iter(tracked.cell_run_ids.values()))
    client = MlflowClient(tracking_uri=uri(home))
    (trace,) = client.search_traces(locations=[tracked.experiment_id], run_id=run_id)
    spans = {span.name: span for span in trace.data.spans if not span.name.endswith(" 1")}
    assert spans["conversation 0, turn 0"].inputs.startswith("<|im_start|>user\nSay a word.")
    assert spans["conversation 0, turn 0"].outputs == "word " * 10
    begin_ns = START_WALL_NS + 10 * MS + (2 + 400 + 3 + 80 + 1) * MS
    first_prefill = min((s for s in trace.data.spans if s.name == "prefill"), key=lambda span: span.start_time_ns)
    # The runner's own bookkeeping between the events adds a few microseconds.
    assert first_prefill.start_time_ns == pytest.approx(begin_ns, abs=100_000)
    assert first_prefill.end_time_ns - first_prefill.start_time_ns == 100 * MS
    assert spans["load"].end_time_ns - spans["load"].start_time_ns == 400 * MS
    assert trace.info.request_time == (START_WALL_NS + 10 * MS) // MS
    assert trace.info.token_usage == {"input_tokens": 30, "output_tokens": 20, "total_tokens": 50}


def test_detail_all_logs_every_repetition(home: Path) -> None:
    folder = build_campaign(home, [Cell()], repetitions=3)
    first = sync(folder, uri(home))
    every = sync(folder, uri(home), detail="all")
    assert first.cell_run_ids == every.cell_run_ids
    run_id = next(iter(every.cell_run_ids.values()))
    client = MlflowClient(tracking_uri=uri(home))
    series = [key for key in client.get_run(run_id).data.metrics if key.startswith("inter_token_ms/")]
    assert sorted(series) == [f"inter_token_ms/r{i:03d}" for i in range(3)]
    assert len(client.search_traces(locations=[every.experiment_id], run_id=run_id)) == 3


@pytest.mark.parametrize("forget", [False, True])
def test_a_second_sync_changes_nothing(home: Path, log: Callable[[Path], TrackedCampaign], forget: bool) -> None:
    """Nor does one that has lost its memory of the first."""
    folder = build_campaign(home, [Cell("q8_0"), Cell("q4_0", failing={0: "crashed: x"})])
    tracked = log(folder)
    before = contents(home / "mlflow.db")
    if forget:
        (folder / LEDGER).unlink()
    assert log(folder) == tracked
    assert contents(home / "mlflow.db") == before
    assert len(before["runs"]) == 3


def test_records_are_left_as_they_are(home: Path, log: Callable[[Path], TrackedCampaign]) -> None:
    folder = build_campaign(home)

    def state() -> dict[Path, tuple[int, bytes]]:
        files = (path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("tracking."))
        return {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in files}

    before = state()
    log(folder)
    assert state() == before


def test_failed_cells_are_failed_runs_with_a_reason(home: Path, log: Callable[[Path], TrackedCampaign]) -> None:
    reason = "out-of-memory: the kernel killed the runner for lack of memory"
    broken = dict.fromkeys(range(3), reason)
    folder = build_campaign(home, [Cell("q8_0"), Cell("f32", failing=broken), Cell("q4_0", failing={1: reason})])
    tracked = log(folder)
    client = MlflowClient(tracking_uri=uri(home))
    runs = [client.get_run(run_id) for run_id in tracked.cell_run_ids.values()]
    assert [run.info.status for run in runs] == ["FINISHED", "FAILED", "FINISHED"]
    assert [run.data.tags["meltrepro.state"] for run in runs] == ["ok", "failed", "partial"]
    assert runs[1].data.tags["meltrepro.reason"] == f"3 of 3 repetitions failed; r000: {reason}"
    assert runs[2].data.metrics["uncertainty/generation_tps.n"] == 2
    assert "generation_tps" not in runs[1].data.metrics
    assert client.get_run(tracked.parent_run_id).data.tags["meltrepro.state"] == "partial"


def test_a_damaged_record_fails_its_cell_and_no_other(home: Path, log: Callable[[Path], TrackedCampaign]) -> None:
    folder = build_campaign(home)
    (folder / "cells/smollm2-135m/q8_0/llama.cpp/host/chat/r001/outcome.json").write_text("{")
    tracked = log(folder)
    client = MlflowClient(tracking_uri=uri(home))
    damaged, sound = (client.get_run(run_id) for run_id in tracked.cell_run_ids.values())
    assert damaged.info.status == "FAILED"
    assert "outcome.json is damaged" in damaged.data.tags["meltrepro.reason"]
    assert sound.data.metrics["uncertainty/generation_tps.n"] == 3


def test_an_unfinished_campaign_is_completed_later(home: Path, log: Callable[[Path], TrackedCampaign]) -> None:
    cells = [Cell("q8_0", repetitions=2), Cell("q4_0", repetitions=0)]
    early = log(build_campaign(home, cells, repetitions=5, finished=False))
    assert not early.complete
    client = MlflowClient(tracking_uri=uri(home))
    runs = [client.get_run(run_id) for run_id in early.cell_run_ids.values()]
    assert [run.info.status for run in runs] == ["RUNNING", "RUNNING"]
    assert runs[0].data.metrics["uncertainty/generation_tps.n"] == 2
    folder = build_campaign(home, [Cell("q8_0"), Cell("q4_0")], repetitions=5)
    late = log(folder)
    assert late.complete
    assert late.cell_run_ids == early.cell_run_ids
    runs = [client.get_run(run_id) for run_id in late.cell_run_ids.values()]
    assert [run.info.status for run in runs] == ["FINISHED", "FINISHED"]
    medians = [cell.summaries["generation_tps"].median for cell in read_campaign(folder).cells]
    assert [run.data.metrics["generation_tps"] for run in runs] == medians
    assert [run.data.metrics["uncertainty/generation_tps.n"] for run in runs] == [5, 5]


def test_virtual_devices_are_marked(home: Path, log: Callable[[Path], TrackedCampaign]) -> None:
    tracked = log(build_campaign(home, [Cell()], virtual=True))
    client = MlflowClient(tracking_uri=uri(home))
    for run_id in (tracked.parent_run_id, *tracked.cell_run_ids.values()):
        run = client.get_run(run_id)
        assert run.data.tags["meltrepro.virtual"] == "true"
        assert run.info.run_name.endswith(" (virtual)")


def test_a_long_series_is_thinned_and_the_events_are_whole(home: Path, log: Callable[[Path], TrackedCampaign]) -> None:
    gaps = tuple(MS + i % 7 for i in range(25_000))
    gaps = (*gaps[:12_345], 500 * MS, *gaps[12_346:])
    folder = build_campaign(home, [Cell(trial=Trial(conversations=[[Turn(gaps_ns=gaps)]]))], repetitions=1, warmups=0)
    tracked = log(folder)
    (run_id,) = tracked.cell_run_ids.values()
    client = MlflowClient(tracking_uri=uri(home))
    series = client.get_metric_history(run_id, "inter_token_ms/r000")
    assert 500 <= len(series) <= 1000
    assert (12_345, 500.0) in {(point.step, point.value) for point in series}
    events = client.download_artifacts(run_id, "trials/r000/events.jsonl", str(home))
    assert len(Path(events).read_bytes().splitlines()) > 25_000


def test_what_is_missing_is_one_file_and_tags_of_earlier_versions_go(
    home: Path, log: Callable[[Path], TrackedCampaign]
) -> None:
    folder = build_campaign(home, [Cell(trial=Trial(kv_bytes=None))])
    tracked = log(folder)
    (run_id,) = tracked.cell_run_ids.values()
    client = MlflowClient(tracking_uri=uri(home))
    missing = json.loads(Path(client.download_artifacts(run_id, "unavailable.json", str(home))).read_text())
    assert missing["kv_bytes"] == "the framework does not say"
    before = contents(home / "mlflow.db")
    client.set_tag(run_id, "meltrepro.unavailable.kv_bytes", "the framework does not say")
    client.update_run(run_id, name="smollm2-135m/q8_0/llama.cpp/host/chat")
    (folder / LEDGER).unlink()
    log(folder)
    assert contents(home / "mlflow.db") == before


def test_the_reader_s_own_view_of_an_experiment_stays(home: Path, log: Callable[[Path], TrackedCampaign]) -> None:
    tracked = log(build_campaign(home, [Cell()]))
    client = MlflowClient(tracking_uri=uri(home))
    assert client.get_experiment(tracked.experiment_id).tags[view.TAG] == view.value()
    client.set_experiment_tag(tracked.experiment_id, view.TAG, "mine")
    log(build_campaign(home, [Cell()], number=1))
    assert client.get_experiment(tracked.experiment_id).tags[view.TAG] == "mine"


def test_two_databases_are_two_places(home: Path, log: Callable[[Path], TrackedCampaign], empty_database: Path) -> None:
    folder = build_campaign(home, [Cell()])
    log(folder)
    other = home / "other"
    other.mkdir()
    shutil.copy(empty_database, other / "mlflow.db")
    sync(folder, uri(other))
    assert contents(other / "mlflow.db") == contents(home / "mlflow.db")
    assert len(open_ledger(folder).document.places) == 2


def test_what_was_deleted_in_mlflow_is_logged_anew(home: Path, log: Callable[[Path], TrackedCampaign]) -> None:
    folder = build_campaign(home)
    tracked = log(folder)
    client = MlflowClient(tracking_uri=uri(home))
    gone = next(iter(tracked.cell_run_ids))
    client.delete_run(tracked.cell_run_ids[gone])
    again = log(folder)
    assert again.parent_run_id == tracked.parent_run_id
    assert again.cell_run_ids[gone] != tracked.cell_run_ids[gone]
    assert client.get_run(again.cell_run_ids[gone]).data.metrics["uncertainty/generation_tps.n"] == 3
    client.delete_run(tracked.parent_run_id)
    renewed = log(folder)
    assert renewed.parent_run_id != tracked.parent_run_id
    for run_id in renewed.cell_run_ids.values():
        assert client.get_run(run_id).data.tags["mlflow.parentRunId"] == renewed.parent_run_id


def test_a_deleted_experiment_is_not_brought_back_silently(home: Path, log: Callable[[Path], TrackedCampaign]) -> None:
    folder = build_campaign(home, [Cell()])
    tracked = log(folder)
    MlflowClient(tracking_uri=uri(home)).delete_experiment(tracked.experiment_id)
    with pytest.raises(TrackingError, match="'synthetic' was deleted") as caught:
        log(folder)
    assert "experiments restore" in (caught.value.hint or "")


def test_two_syncs_at_once_log_everything_once(home: Path, log: Callable[[Path], TrackedCampaign]) -> None:
    folder = build_campaign(home)
    code = "import sys; from pathlib import Path; from meltrepro.track.mlflow_tracker import sync\n"
    code += "sync(Path(sys.argv[1]), sys.argv[2])"
    others = [subprocess.Popen([sys.executable, "-c", code, str(folder), uri(home)]) for _ in range(2)]
    assert [other.wait(120) for other in others] == [0, 0]
    before = contents(home / "mlflow.db")
    log(folder)
    assert contents(home / "mlflow.db") == before
    assert len(before["runs"]) == 3


def test_steps_tell_what_happens(home: Path) -> None:
    steps: list[Step] = []
    folder = build_campaign(home)
    sync(folder, uri(home), steps.append)
    assert [(step.name, step.phase) for step in steps] == [
        ("track", "begin"),
        ("track", "progress"),
        ("track", "progress"),
        ("track", "end"),
    ]


def test_a_new_database_is_made_beside_its_artifacts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder = build_campaign(tmp_path / "home", [Cell()])
    sync(folder, "sqlite:///made/here/mlflow.db")
    made = tmp_path / "made/here"
    assert sorted(path.name for path in made.iterdir()) == [".mlflow.db.lock", "mlartifacts", "mlflow.db"]
    files = artifacts(made / "mlartifacts", run_names(made / "mlflow.db"))
    name = json.loads((folder / CAMPAIGN).read_text())["id"]
    assert files[f"synthetic/{name}/artifacts/lock.yaml"] == LOCK_TEXT.encode()
    assert {path.name for path in tmp_path.iterdir()} == {"home", "made"}


def test_a_report_is_among_the_artifacts_of_its_campaign(
    home: Path, log: Callable[[Path], TrackedCampaign], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("MELTREPRO_HOME", str(home))
    folder = build_campaign(home, [Cell()], repetitions=2)
    tracked = log(folder)
    written = tmp_path / "report"
    assert main(["report", "-o", str(written)]) == 0
    logged = artifacts(home / "mlartifacts" / "synthetic" / tracked.parent_run_id / "artifacts" / "report", {})
    assert logged == artifacts(written, {})
    assert "index.html" in logged
    assert main(["report", "--from-records", "-o", str(written)]) == 0


def test_a_folder_without_campaign_is_refused(
    home: Path, log: Callable[[Path], TrackedCampaign], tmp_path: Path
) -> None:
    with pytest.raises(RecordError, match="holds no campaign"):
        log(tmp_path)
    assert contents(home / "mlflow.db")["runs"] == []


def test_a_comparison_is_logged_to_both_campaigns(
    home: Path, log: Callable[[Path], TrackedCampaign], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """And is the page that `--format html` writes; a campaign that was never logged keeps nobody from comparing."""
    monkeypatch.setenv("MELTREPRO_HOME", str(home))
    slow = Trial(conversations=[[Turn(gaps_ns=(60 * MS,) * 8)]])
    first, second = (
        build_campaign(home, [Cell(trial=each, runner=str(number))], number=number, repetitions=5)
        for number, each in enumerate((Trial(), slow))
    )
    unlogged = build_campaign(home, [Cell()], number=2, repetitions=5)
    tracked = [log(first), log(second)]
    page = tmp_path / "page.html"
    assert main(["compare", str(first), str(second), str(unlogged), "--format", "html", "-o", str(page)]) == 0
    client = MlflowClient(tracking_uri=uri(home))
    names = [f"comparison/{first.name}--{other.name}.html" for other in (second, unlogged)]
    for each, expected in zip(tracked, (names, names[:1]), strict=True):
        assert [file.path for file in client.list_artifacts(each.parent_run_id, "comparison")] == sorted(expected)
        logged = Path(client.download_artifacts(each.parent_run_id, names[0], str(tmp_path))).read_text(
            encoding="utf-8"
        )
        assert main(["compare", str(first), str(second), "--format", "html", "--no-track", "-o", str(page)]) == 0
        assert logged == page.read_text(encoding="utf-8")
        assert "DIFFERS" in logged and first.name in logged and second.name in logged
    assert main(["compare", str(first), str(second), "--format", "json", "--no-track", "-o", str(page)]) == 0
    (comparison,) = json.loads(page.read_text(encoding="utf-8"))
    assert (comparison["first"], comparison["second"]) == (first.name, second.name)


def test_further_files_stand_where_they_belong(tmp_path: Path) -> None:
    folder = build_campaign(tmp_path / "home", [Cell()])
    place = places.Place(f"sqlite:///{tmp_path}/mlflow.db", trusted=True)
    sync(folder, place)
    before = artifacts(tmp_path / "mlartifacts", run_names(tmp_path / "mlflow.db"))
    assert attach([folder], {"findings.json": "{}", "comparison/a.html": "<p>"}, place) == 1
    after = artifacts(tmp_path / "mlartifacts", run_names(tmp_path / "mlflow.db"))
    new = {name.partition("/artifacts/")[2]: after[name] for name in after.keys() - before.keys()}
    assert new == {"findings.json": b"{}", "comparison/a.html": b"<p>"}


def test_a_history_is_a_run_with_a_step_for_each_release(
    home: Path, log: Callable[[Path], TrackedCampaign], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MELTREPRO_HOME", str(home))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    releases = ("0.3.9", "0.3.20", "0.3.21", "0.3.22", "0.3.23")
    folders = [
        build_campaign(home, [Cell("q4_0", 55 if place < 3 else 40, release=release)], number=place, repetitions=5)
        for place, release in enumerate(releases)
    ]
    assert workflow.history(metrics=["generation_tps"]).runs == 0  # no campaign is in MLflow: this is for them
    tracked = log(folders[-1])
    assert workflow.history(metrics=["generation_tps"]).runs == 1
    assert workflow.history(metrics=["generation_tps"]).runs == 1
    client = MlflowClient(tracking_uri=uri(home))
    (run,) = client.search_runs([tracked.experiment_id], "tags.`meltrepro.kind` = 'history'")  # once
    assert run.info.run_name == "history: smollm2-135m/q4_0/llama.cpp/host/chat"
    assert run.info.status == "FINISHED"
    assert run.data.params["places"] == "0 0.3.9, 1 0.3.20, 2 0.3.21, 3 0.3.22, 4 0.3.23"
    assert "from 0.3.21 to 0.3.22" in run.data.tags["mlflow.note.content"]
    points = client.get_metric_history(run.info.run_id, "generation_tps")
    assert [point.step for point in points] == [0, 1, 2, 3, 4]
    assert [point.value < 50 for point in points] == [False] * 3 + [True] * 2
    files = {file.path for file in client.list_artifacts(run.info.run_id, "history")}
    assert files == {"history/history.html", "history/history-generation-tps.svg"}
    before = {run.info.run_id}
    build_campaign(home, [Cell("q4_0", 40, release="0.3.24")], number=5, repetitions=5)
    assert workflow.history(metrics=["generation_tps"]).runs == 1
    now = client.search_runs([tracked.experiment_id], "tags.`meltrepro.kind` = 'history'")
    assert len(now) == 2 and before < {each.info.run_id for each in now}  # a longer history is another one
