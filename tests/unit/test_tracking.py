"""What is logged, before MLflow sees it: points, params, tags, files, spans, ledger, links."""

from __future__ import annotations

import base64
import json
import re
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet

from meltrepro.measure.metrics import METRICS
from meltrepro.measure.records import CampaignRecord, read_campaign
from meltrepro.record.campaign import MANIFEST
from meltrepro.track import content, notes, places, view
from meltrepro.track.content import RunState
from meltrepro.track.ledger import LEDGER, RunNote, open_ledger
from meltrepro.track.places import Place
from meltrepro.track.spans import trace_of
from meltrepro.track.tokens import token_table
from tests.support.campaigns import START_WALL_NS, Cell, Trial, Turn, build_campaign

MS = 1_000_000
METRIC_KEY = re.compile(r"[/\w.\- :]{1,250}")


def made(tmp_path: Path, *cells: Cell, **options: Any) -> CampaignRecord:
    return read_campaign(build_campaign(tmp_path, cells or (Cell(),), **options))


# -- metrics ----------------------------------------------------------------------------------------------------------


def test_summary_points_hold_median_interval_count_and_every_value(tmp_path: Path) -> None:
    cell = made(tmp_path, repetitions=6).cells[0]
    points = content.summary_points(cell)
    summary = cell.summaries["generation_tps"]
    latest = {point.key: point.value for point in points}
    assert latest["generation_tps"] == summary.median
    assert latest["uncertainty/generation_tps.low"] == summary.low
    assert latest["uncertainty/generation_tps.high"] == summary.high
    assert latest["uncertainty/generation_tps.n"] == 6
    values = [(point.step, point.value) for point in points if point.key == "values/generation_tps"]
    assert values == [(t.index, t.metrics.values["generation_tps"]) for t in cell.repetitions]
    assert all(METRIC_KEY.fullmatch(point.key) for point in points)
    assert len({(point.key, point.step) for point in points}) == len(points)


def test_operator_points_hold_share_and_time_of_a_call(tmp_path: Path) -> None:
    (cell,) = read_campaign(build_campaign(tmp_path, [Cell(operators={"ffn up!": (30, 3000), "x": (1, 1000)})])).cells
    assert {point.key: point.value for point in content.operator_points(cell)} == {
        "operators.generation/coverage": 1,
        "operators.generation.time_share/MUL_MAT ffn up_": 0.75,
        "operators.generation.us_per_call/MUL_MAT ffn up_": 0.1,
        "operators.generation.time_share/MUL_MAT x": 0.25,
        "operators.generation.us_per_call/MUL_MAT x": 1,
    }


def test_a_summary_of_more_trials_is_a_later_one(tmp_path: Path) -> None:
    def point(repetitions: int) -> content.MetricPoint:
        cell = made(tmp_path / str(repetitions), Cell(repetitions=repetitions), finished=False, repetitions=5).cells[0]
        return next(point for point in content.summary_points(cell) if point.key == "generation_tps")

    assert point(2).wall_ms < point(3).wall_ms


def test_token_series_has_every_gap_at_its_true_time(tmp_path: Path) -> None:
    trial = Trial(conversations=[[Turn(gaps_ns=(3 * MS, 5 * MS)), Turn(gaps_ns=(7 * MS,))]])
    record = made(tmp_path, Cell(trial=trial), warmups=0).cells[0].repetitions[0]
    points = content.token_series(record, record.trace())
    assert [(point.key, point.step, point.value) for point in points] == [
        ("inter_token_ms/r000", 0, 3),
        ("inter_token_ms/r000", 1, 5),
        ("inter_token_ms/r000", 2, 7),
    ]
    first_token_ns = START_WALL_NS + 10 * MS + (2 + 400 + 3 + 80 + 1 + 100 + 1) * MS
    assert points[0].wall_ms == pytest.approx((first_token_ns + 3 * MS) / MS, abs=1)


@given(st.lists(st.floats(0, 1e6), max_size=400), st.integers(2, 100))
def test_thinning_keeps_the_ends_of_the_range_and_the_order(values: list[float], most: int) -> None:
    kept = content.thin(values, most)
    assert kept == sorted(set(kept))
    assert len(kept) <= max(most, 0)
    if len(values) <= most:
        assert kept == list(range(len(values)))
    else:
        assert min(values) == min(values[i] for i in kept)
        assert max(values) == max(values[i] for i in kept)


# -- how a cell stands ------------------------------------------------------------------------------------------------


def test_standing_of_cells_and_campaign(tmp_path: Path) -> None:
    campaign = made(
        tmp_path,
        Cell("q8_0"),
        Cell("q4_0", failing={1: "crashed: the runner died of SIGSEGV"}),
        Cell("q3_K", failing={0: "timeout: a", 1: "timeout: b", 2: "timeout: c"}),
    )
    statuses = [content.status_of(campaign, cell) for cell in campaign.cells]
    assert [s.state for s in statuses] == [RunState.ok, RunState.partial, RunState.failed]
    assert statuses[1].reason == "1 of 3 repetitions failed; r001: crashed: the runner died of SIGSEGV"
    assert content.overall(campaign, statuses) is RunState.partial
    assert content.overall(campaign, statuses[:1]) is RunState.ok
    assert content.overall(campaign, statuses[2:]) is RunState.failed


def test_standing_of_a_cell_whose_record_is_damaged(tmp_path: Path) -> None:
    campaign = made(tmp_path)
    (campaign.cells[0].folder / "r001/events.jsonl").write_text("{}\n")
    status = content.status_of(campaign, campaign.cells[0])
    assert (status.state, status.damaged) == (RunState.failed, True)
    assert "r001/events.jsonl:1" in (status.reason or "")


def test_standing_while_the_campaign_runs(tmp_path: Path) -> None:
    campaign = made(tmp_path, Cell("q8_0"), Cell("q4_0", repetitions=1), Cell("q3_K", repetitions=0), finished=False)
    statuses = [content.status_of(campaign, cell) for cell in campaign.cells]
    assert [s.state for s in statuses] == [RunState.ok, RunState.unfinished, RunState.unfinished]
    assert content.overall(campaign, statuses) is RunState.unfinished


# -- params, tags, files ----------------------------------------------------------------------------------------------


def test_params_fit_into_the_limits_and_none_gets_lost(tmp_path: Path) -> None:
    cell = made(tmp_path).cells[0]
    cell.entry.params.update({"device.a$b": 1, "device.a%b": 2, "device.flags": "x" * 2000, "../up": "y"})
    params = content.cell_params(cell)
    assert params["device.a_b"] == "1"
    assert params["device.a_b_2"] == "2"
    assert len(params["device.flags"]) <= 500
    assert params["device.flags"].endswith("(2000 chars)")
    assert params["quantization"] == "q8_0"
    assert len(params) == 8 + len(cell.entry.params)
    assert all(METRIC_KEY.fullmatch(key) and not key.startswith((".", "/")) for key in params)


def test_tags_name_identities_and_what_is_missing(tmp_path: Path) -> None:
    campaign = made(tmp_path, Cell(trial=Trial(kv_bytes=None)), virtual=True)
    cell = campaign.cells[0]
    tags = content.cell_tags(campaign, cell, content.status_of(campaign, cell), "host")
    assert tags["meltrepro.campaign"] == campaign.id
    assert tags["meltrepro.cell"] == cell.id
    assert (tags["meltrepro.virtual"], tags["meltrepro.synthetic"]) == ("true", "false")
    assert tags["meltrepro.model_digest"] == cell.entry.model_digest
    assert tags["meltrepro.bundle_digest"] == cell.entry.bundle_digest
    assert tags["meltrepro.runner_digest"] == cell.entry.runner_digest
    assert tags["meltrepro.commit"] == cell.entry.commit
    assert tags["meltrepro.isa"] == "x86_64_v3"
    assert tags["meltrepro.target_kind"] == "host"
    assert tags["meltrepro.state"] == "ok"
    assert tags["meltrepro.unavailable"] == str(len(cell.unavailable))
    assert not any(key.startswith("meltrepro.unavailable.") for key in tags)


def test_synthetic_weights_are_a_tag_of_cells_and_campaigns(tmp_path: Path) -> None:
    campaign = made(tmp_path, Cell(), synthetic=True)
    cell = campaign.cells[0]
    status = content.status_of(campaign, cell)
    assert content.cell_tags(campaign, cell, status, "host")["meltrepro.synthetic"] == "true"
    assert content.campaign_tags(campaign, status.state)["meltrepro.synthetic"] == "true"


def test_files_of_campaign_and_trials(tmp_path: Path) -> None:
    campaign = made(tmp_path)
    files = {(file.folder, file.path.name) for file in content.campaign_files(campaign)}
    build = "builds/llama.cpp-run-x86_64_v3"
    assert {(None, "manifest.yaml"), (None, "lock.yaml"), (None, "plan.json"), (None, "campaign.json")} <= files
    assert {(build, "Dockerfile"), (build, "build.sh"), (build, "build.log")} <= files
    cell = campaign.cells[0]
    (cell.folder / "r000").rename(cell.folder / "r000.attempt1")
    (cell.folder / "r001/outcome.json").unlink()
    trials = {name: sorted(file.path.name for file in files) for name, files in content.trial_files(cell)}
    assert sorted(trials) == ["r000.attempt1", "r002", "w000"]
    names = ["device.json", "events.jsonl", "outcome.json", "request.json", "stderr.log", "stdout.log"]
    assert trials["r002"] == names


def test_no_link_is_followed(tmp_path: Path) -> None:
    """A record may come out of somebody's bundle; what it links to is nobody's business."""
    secret = tmp_path / "secret"
    secret.write_text("password")
    campaign = made(tmp_path)
    events = campaign.cells[0].folder / "r000/events.jsonl"
    events.unlink()
    events.symlink_to(secret)
    (campaign.folder / "lock.yaml").unlink()
    (campaign.folder / "lock.yaml").symlink_to(secret)
    (campaign.folder / "builds/elsewhere").symlink_to(tmp_path)
    paths = [file.path for file in content.campaign_files(campaign)]
    paths += [file.path for _, files in content.trial_files(campaign.cells[0]) for file in files]
    assert not [path for path in paths if path.resolve() == secret or "elsewhere" in path.parts]


# -- spans ------------------------------------------------------------------------------------------------------------


def test_spans_nest_and_stand_at_their_true_times(tmp_path: Path) -> None:
    trial = Trial(conversations=[[Turn(), Turn(fits=False)], [Turn(gaps_ns=())]])
    campaign = made(tmp_path, Cell(trial=trial), warmups=0)
    cell = campaign.cells[0]
    trace = trace_of(campaign.id, cell.id, "q8_0", cell.repetitions[0], cell.repetitions[0].trace())
    by_id = {span.id: span for span in trace.spans}

    def path(id: str | None) -> str:
        return "" if id is None else f"{path(by_id[id].parent_id)}/{by_id[id].name}"

    root = "/q8_0 · r000 · 3 turns"
    assert [path(span.id).removeprefix(root) for span in trace.spans] == [
        "",
        "/load",
        "/warm-up",
        "/conversation 0",
        "/conversation 0/conversation 0, turn 0",
        "/conversation 0/conversation 0, turn 0/prefill",
        "/conversation 0/conversation 0, turn 0/generate",
        "/conversation 0/conversation 0, turn 1",
        "/conversation 1",
        "/conversation 1/conversation 1, turn 0",
        "/conversation 1/conversation 1, turn 0/prefill",
        "/conversation 1/conversation 1, turn 0/generate",
    ]
    for span in trace.spans[1:]:
        parent = by_id[span.parent_id or ""]
        assert parent.begin_ns <= span.begin_ns <= span.end_ns <= parent.end_ns
    prefill, generate = trace.spans[5], trace.spans[6]
    assert prefill.end_ns - prefill.begin_ns == 100 * MS
    assert generate.end_ns - generate.begin_ns == 1 * MS + 9 * 20 * MS
    assert generate.begin_ns == prefill.end_ns
    assert trace.spans[0].begin_ns == START_WALL_NS + 10 * MS
    assert trace.spans[4].inputs.startswith("<|im_start|>user\nSay a word.")
    assert trace.spans[4].outputs == "word " * 10
    assert trace.spans[9].inputs is None  # the request on disk has no second conversation
    assert trace.asked is not None
    assert len(by_id) == len(trace.spans)


def test_identity_of_a_trace_follows_from_what_it_stands_for(tmp_path: Path) -> None:
    campaign = made(tmp_path)
    cell = campaign.cells[0]
    first, second = (trace_of(campaign.id, cell.id, "q8_0", trial, trial.trace()) for trial in cell.repetitions[:2])
    assert first == trace_of(campaign.id, cell.id, "q8_0", cell.repetitions[0], cell.repetitions[0].trace())
    assert first.id != second.id
    assert re.fullmatch(r"[0-9a-f]{32}", first.id)


@pytest.mark.parametrize("text", ["", "[]", '{"conversations": [1]}', '{"conversations": "abc"}', "{"])
def test_a_trace_does_without_a_request_that_cannot_be_read(tmp_path: Path, text: str) -> None:
    campaign = made(tmp_path)
    trial = campaign.cells[0].repetitions[0]
    (trial.folder / "request.json").write_text(text)
    trace = trace_of(campaign.id, campaign.cells[0].id, "q8_0", trial, trial.trace())
    assert trace.asked is None
    assert trace.answered is not None


# -- ledger -----------------------------------------------------------------------------------------------------------


def test_a_piece_is_missing_until_it_was_logged_with_this_content(tmp_path: Path) -> None:
    ledger = open_ledger(tmp_path)
    note = ledger.begin(Place("http://x"), "1", "run").campaign

    def missing(content: dict[str, str]) -> bool:
        with ledger.piece(note, "params", content) as wanted:
            return wanted

    assert missing({"a": "1"})
    assert not missing({"a": "1"})
    assert missing({"a": "2"})
    with pytest.raises(OSError, match="gone"), ledger.piece(note, "tags", {}):
        raise OSError("gone")
    with ledger.piece(note, "tags", {}) as wanted:
        assert wanted


HERE = Place("http://here")


def test_the_ledger_survives_the_process_and_keeps_places_apart(tmp_path: Path) -> None:
    ledger = open_ledger(tmp_path)
    here = ledger.begin(HERE, "1", "a")
    here.cells["cell"] = RunNote(run_id="b", pieces={"params": "1"})
    ledger.begin(Place("http://there"), "7", "c")
    ledger.save()
    again = open_ledger(tmp_path)
    place = again.place(HERE)
    assert place == here
    assert again.begin(HERE, "1", "a") is place
    assert again.begin(HERE, "1", "other run").cells == {}
    assert again.place(Place("http://there")) is not None
    assert again.place(Place("http://elsewhere")) is None


@pytest.mark.parametrize("text", ["", "{", "[]", '{"format": 1, "places": [{}]}'])
def test_a_damaged_ledger_is_an_empty_one(tmp_path: Path, text: str) -> None:
    (tmp_path / LEDGER).write_text(text)
    assert open_ledger(tmp_path).document.places == []


# -- places -----------------------------------------------------------------------------------------------------------


def test_the_environment_wins_over_the_manifest_and_that_over_the_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    default = "sqlite:////d/mlflow.db"
    assert places.choose({}, None, default) == Place(default, trusted=True)
    assert places.choose({}, "http://m", default) == Place("http://m")
    assert places.choose({"MLFLOW_TRACKING_URI": "http://e"}, "http://m", default) == Place("http://e", trusted=True)
    assert places.choose({"MLFLOW_TRACKING_URI": ""}, "sqlite:///x.db", default).uri == f"sqlite:///{tmp_path}/x.db"


def test_a_campaign_on_disk_is_logged_where_the_user_says_or_beside_the_users_own_database(tmp_path: Path) -> None:
    default = f"sqlite:///{tmp_path}/home/mlflow.db"
    (tmp_path / "home").mkdir()
    (tmp_path / "home/out.db").symlink_to(tmp_path / "elsewhere.db")

    def own(uri: str) -> bool:
        return places.is_own(places.choose({}, uri, default), default)

    assert own(f"sqlite:///{tmp_path}/home/other.db")
    for uri in ("http://m", "sqlite:////etc/x.db", f"sqlite:///{tmp_path}/home/../x.db", "file:///home", "./mlruns"):
        assert not own(uri), uri
    assert not own(f"sqlite:///{tmp_path}/home/out.db")
    assert places.is_own(places.choose({"MLFLOW_TRACKING_URI": "http://m"}, "http://m", default), default)


def test_local_databases() -> None:
    database = places.local_database("sqlite:////home/mlflow.db")
    assert database is not None
    assert database.artifacts == Path("/home/mlartifacts")
    assert places.local_database("http://host") is None
    assert places.local_database("postgresql://db/x") is None


def test_the_view_of_an_experiment_is_one_that_mlflow_reads() -> None:
    """As its pages do: the envelope of a saved view, its state packed, within what older servers take."""
    assert len(view.value()) < 5000
    saved = json.loads(view.value())
    assert isinstance(saved["name"], str) and isinstance(saved["createdAt"], int)
    state = json.loads(zlib.decompress(base64.b64decode(saved["state"].removeprefix("deflate;"))))
    sections = {section["uuid"] for section in state["compareRunSections"]}
    assert {chart["metricSectionId"] for chart in state["compareRunCharts"]} <= sections
    columns = [column.partition(".") for column in state["selectedColumns"]]
    assert {name.strip("`") for kind, _, name in columns if kind == "metrics"} <= METRICS.keys()
    link = view.link("http://127.0.0.1:5000/", "7")
    assert parse_qs(urlsplit(link).fragment.partition("?")[2])["viewStateShareKey"] == [view.KEY]
    assert view.TAG.endswith(f".{view.KEY}")


def test_names_of_runs_tell_apart_what_differs(tmp_path: Path) -> None:
    campaign = made(tmp_path, Cell("q8_0"), Cell("q4_0"))
    release = campaign.cells[0].entry.release
    assert list(notes.cell_names(campaign).values()) == [f"{q} · llama.cpp {release} · host" for q in ("q8_0", "q4_0")]


def test_a_cell_that_nobody_may_believe_is_invalid_in_state_and_name(tmp_path: Path) -> None:
    folder = build_campaign(tmp_path, [Cell("q8_0"), Cell("q4_0", trial=Trial(conversations=[[Turn(gaps_ns=())]]))])
    manifest = json.loads((folder / MANIFEST).read_text())
    manifest["measure"]["limits"]["min_tokens"] = 5
    (folder / MANIFEST).write_text(json.dumps(manifest))
    campaign = read_campaign(folder)
    statuses = {cell.id: content.status_of(campaign, cell) for cell in campaign.cells}
    assert [how.state for how in statuses.values()] == [RunState.ok, RunState.invalid]
    cell = campaign.cells[1]
    tags = content.cell_tags(campaign, cell, statuses[cell.id], "host")
    assert notes.run_name("q4_0", tags) == "INVALID · q4_0"
    assert "too-few-tokens" in notes.cell_note(cell, statuses[cell.id])
    note = notes.campaign_note(campaign, statuses, notes.Links("run", "#charts", "#report", ["report/figures/a.svg"]))
    assert "**INVALID: 1 of 2 cells**" in note
    assert re.search(r"q4\\_0 .* host \| \*\*INVALID\*\* \|", note)
    assert f"meltrepro replay {campaign.id}" in note
    assert "(#report)" in note and "(#charts)" in note
    assert "![a](get-artifact?path=report/figures/a.svg&run_uuid=run)" in note


def test_a_note_shows_results_and_stays_within_what_servers_take(tmp_path: Path) -> None:
    campaign = made(tmp_path, *(Cell(f"q{i}_0") for i in range(60)))
    statuses = {cell.id: content.status_of(campaign, cell) for cell in campaign.cells}
    note = notes.campaign_note(campaign, statuses, notes.Links("run", "#charts"))
    summary = campaign.cells[0].summaries["generation_tps"]
    assert f"{summary.median:.4g} ({summary.low:.4g} to {summary.high:.4g}, n = 3)" in note
    assert len(note) <= 5000
    assert re.search(r"\.\.\. and \d+ more", note) and "meltrepro replay" in note


def test_every_token_is_in_the_table(tmp_path: Path) -> None:
    turns = [Turn(gaps_ns=(20 * MS, 30 * MS)), Turn(tokens=0, gaps_ns=()), Turn(gaps_ns=(10 * MS,))]
    campaign = made(tmp_path, Cell(trial=Trial(conversations=[turns])), warmups=0)
    trace = campaign.cells[0].repetitions[0].trace()
    rows = parquet.read_table(pa.BufferReader(token_table(trace))).to_pylist()
    assert [(row["turn"], row["token"], row["gap_ms"]) for row in rows] == [
        *((0, 0, None), (0, 1, 20.0), (0, 2, 30.0)),
        *((2, 0, None), (2, 1, 10.0)),
    ]
    assert [row["time_ns"] for row in rows] == [trace.wall_ns(t) for turn in trace.turns for t in turn.token_ns]


def test_compare_link_is_json_in_the_fragment() -> None:
    link = places.compare_link("http://127.0.0.1:5000/", "7", ["a1", "b2"])
    assert link.startswith("http://127.0.0.1:5000/#/compare-runs?")
    query = parse_qs(urlsplit(link).fragment.partition("?")[2])
    assert json.loads(query["runs"][0]) == ["a1", "b2"]
    assert json.loads(query["experiments"][0]) == ["7"]


# -- weight -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("module", ["cli.sync", "cli.ui", "track.server", "track.ledger", "measure.records"])
def test_commands_start_without_mlflow(module: str) -> None:
    heavy = {"mlflow", "numpy", "scipy", "sqlalchemy", "requests"}
    code = f"import sys, meltrepro.{module}; print(sorted({heavy} & sys.modules.keys()))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "[]"
