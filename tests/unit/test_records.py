"""Campaign folders read back: which trials count, what is refused, how a campaign is found."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from meltrepro.errors import RecordError, UsageError
from meltrepro.measure.catalog.answers import UNCHECKED
from meltrepro.measure.catalog.thinking import UNTOLD
from meltrepro.measure.metrics import METRICS
from meltrepro.measure.records import read_campaign
from meltrepro.record.campaign import CAMPAIGN
from meltrepro.record.layout import TrialKind
from meltrepro.record.reader import campaign_folders, find_campaign
from tests.support.campaigns import Cell, Trial, Turn, build_campaign

MS = 1_000_000
FAST, SLOW = Trial(), Trial(conversations=[[Turn(gaps_ns=(200 * MS,) * 9)]])


def q8(folder: Path) -> Path:
    return folder / "cells/smollm2-135m/q8_0/llama.cpp/host/chat"


def test_cells_with_their_trials(tmp_path: Path) -> None:
    campaign = read_campaign(build_campaign(tmp_path, repetitions=4, warmups=2))
    assert campaign.finished
    assert [cell.id.split("/")[1] for cell in campaign.cells] == ["q8_0", "q4_0"]
    cell = campaign.cells[0]
    assert [trial.name for trial in cell.trials] == ["w000", "w001", "r000", "r001", "r002", "r003"]
    assert [trial.kind for trial in cell.trials[:3]] == [TrialKind.warmup, TrialKind.warmup, TrialKind.repetition]
    assert cell.summaries["generation_tps"].n == 4
    assert cell.summaries["generation_tps"].median == pytest.approx(40, rel=0.1)
    assert campaign.cells[1].summaries["generation_tps"].median == pytest.approx(55, rel=0.1)
    assert campaign.manifest.protocol.repetitions == 4


def test_warm_ups_failures_attempts_and_unfinished_trials_are_in_no_summary(tmp_path: Path) -> None:
    folder = build_campaign(tmp_path, [Cell(trial=FAST)], repetitions=3)
    slow = build_campaign(tmp_path / "slow", [Cell(trial=SLOW)], repetitions=3)
    place = q8(folder)
    for name in ("w000", "r001.attempt1", "p000"):
        (place / name).mkdir(exist_ok=True)
        for file in ("events.jsonl", "outcome.json"):
            (place / name / file).write_bytes((q8(slow) / "r001" / file).read_bytes())
    outcome = json.loads((place / "r001/outcome.json").read_text()) | {"state": "failed", "reason": "crashed: it did"}
    (place / "r001/outcome.json").write_text(json.dumps(outcome))
    (place / "r003").mkdir()
    (place / "r003/events.jsonl").write_bytes((q8(slow) / "r001/events.jsonl").read_bytes())
    (place / "notes.txt").write_text("not a trial")
    cell = read_campaign(folder).cells[0]
    assert [trial.name for trial in cell.repetitions] == ["r000", "r002"]
    assert [str(trial.outcome.failure) for trial in cell.failures] == ["crashed: it did"]
    assert [trial.name for trial in cell.trials] == ["w000", "r000", "r001", "r002", "p000"]
    assert cell.summaries["generation_tps"].n == 2
    assert cell.summaries["generation_tps"].maximum == pytest.approx(50)
    assert cell.expected == 3


def test_a_metric_without_any_value_has_a_reason_instead(tmp_path: Path) -> None:
    cell = read_campaign(build_campaign(tmp_path, [Cell(trial=Trial(kv_bytes=None))])).cells[0]
    assert "kv_bytes" not in cell.summaries
    reason = "the framework does not say"
    others = dict.fromkeys(("device", "energy"), "nothing was sampled") | {
        "thinking": UNTOLD,
        "answers": UNCHECKED,
        "link": "the engine runs on the device itself",
    }
    absent = {name: others[metric.phase] for name, metric in METRICS.items() if metric.phase in others}
    absent |= {"cached_share": "the runner does not say what the page cache held"}
    unasked = {name for name, metric in METRICS.items() if metric.phase == "context"}
    assert all(cell.unavailable[name].startswith(("no context", "no token")) for name in unasked)
    told = {name: why for name, why in cell.unavailable.items() if name not in unasked}
    assert told == {"kv_bytes": reason, "bandwidth_bytes_per_s": reason, **absent}


def test_operators_of_a_profiled_trial(tmp_path: Path) -> None:
    cells = [Cell("q8_0", operators={"ffn_up": (30, 3000), "output": (1, 1000)}), Cell("q4_0")]
    profiled, plain = read_campaign(build_campaign(tmp_path, cells)).cells
    assert [(share.title, share.time_share) for share in profiled.profiles["generation"].shares] == [
        ("MUL_MAT ffn_up", 0.75),
        ("MUL_MAT output", 0.25),
    ]
    assert profiled.summaries["generation_tps"].n == 3  # without the profiled trial
    assert profiled.profile_slowdown == pytest.approx(1, rel=0.2)
    assert (plain.profiles, plain.profile_slowdown) == ({}, None)


def test_operators_that_do_not_explain_the_phase_have_a_reason_instead(tmp_path: Path) -> None:
    (cell,) = read_campaign(build_campaign(tmp_path, [Cell(operators={"x": (1, 80)}, decoding_ns=100)])).cells
    assert cell.profiles == {}
    assert "explain 80.0%" in cell.unavailable["operators.generation"]


def test_nothing_is_read_before_it_is_asked_for(tmp_path: Path) -> None:
    folder = build_campaign(tmp_path)
    (q8(folder) / "r000/events.jsonl").write_text("garbage\n")
    campaign = read_campaign(folder)
    assert campaign.cells[1].summaries["generation_tps"].n == 3
    assert len(campaign.cells[0].repetitions) == 3
    with pytest.raises(RecordError, match=r"r000/events\.jsonl:1: no event"):
        _ = campaign.cells[0].summaries


def test_an_unfinished_campaign_is_one_too(tmp_path: Path) -> None:
    cells = [Cell(repetitions=1), Cell("q4_0", repetitions=0)]
    campaign = read_campaign(build_campaign(tmp_path, cells, finished=False))
    assert not campaign.finished
    assert [len(cell.repetitions) for cell in campaign.cells] == [1, 0]
    assert campaign.cells[1].summaries == {}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"cells": 3}, "cells: Input should be a valid"),
        ({"format": 2}, "format: Input should be 1"),
        ({"surprise": 1}, "surprise: Extra inputs"),
        ({"id": "../../etc"}, "is no id of a campaign"),
    ],
)
def test_a_damaged_description_is_refused(tmp_path: Path, change: dict[str, object], message: str) -> None:
    path = build_campaign(tmp_path) / CAMPAIGN
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(RecordError, match=message):
        read_campaign(path.parent)


@pytest.mark.parametrize("id", ["../../../../../etc", "m/../f/t/w", "smollm2-135m/q8_0/llama.cpp/host/other"])
def test_a_cell_cannot_lead_out_of_its_campaign(tmp_path: Path, id: str) -> None:
    path = build_campaign(tmp_path) / CAMPAIGN
    document = json.loads(path.read_text())
    document["cells"][0]["id"] = id
    parts = id.split("/")
    if len(parts) == 5 and ".." in parts:
        names = ("model", "quantization", "framework", "target", "workload")
        document["cells"][0] |= dict(zip(names, parts, strict=True))
    path.write_text(json.dumps(document))
    with pytest.raises(RecordError, match="is no id of its cell"):
        read_campaign(path.parent)


def test_a_damaged_outcome_is_named(tmp_path: Path) -> None:
    folder = build_campaign(tmp_path)
    (q8(folder) / "r001/outcome.json").write_text('{"format": 1')
    with pytest.raises(RecordError, match=r"r001/outcome\.json is damaged"):
        _ = read_campaign(folder).cells[0].trials


def test_a_damaged_manifest_is_named(tmp_path: Path) -> None:
    folder = build_campaign(tmp_path)
    for text in ("{", "meltrepro: 1", "[1, 2]", "a: &a [*a]"):
        (folder / "manifest.yaml").write_text(text)
        with pytest.raises(RecordError, match=r"manifest\.yaml is damaged"):
            _ = read_campaign(folder).manifest


def test_a_folder_without_a_campaign(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="holds no campaign"):
        read_campaign(tmp_path)


def test_finding_a_campaign(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    records = tmp_path / "records"
    with pytest.raises(UsageError, match="there is no campaign"):
        find_campaign(records, "last")
    first = build_campaign(tmp_path, name="quickstart", number=1)
    second = build_campaign(tmp_path, name="quickstart", number=2)
    third = build_campaign(tmp_path, name="paper", number=3)
    (records / ".part-1-x").mkdir()
    assert campaign_folders(records) == [first, second, third]
    assert find_campaign(records, "last") == third
    assert find_campaign(records, first.name) == first
    assert find_campaign(records, "000002") == second
    assert find_campaign(records, "paper") == third
    assert find_campaign(records, str(second)) == second
    monkeypatch.chdir(records)
    assert find_campaign(records, first.name) == first
    with pytest.raises(UsageError, match="2 campaigns match 'quickstart'"):
        find_campaign(records, "quickstart")
    with pytest.raises(UsageError, match="no campaign matches 'nope'"):
        find_campaign(records, "nope")
