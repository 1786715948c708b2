"""Records of strangers: whatever a value in them is, reading, comparing and showing them ends in a result or a typed error."""

from __future__ import annotations

import hashlib
import io
import json
import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from meltrepro.cli.summary import show_results
from meltrepro.errors import MeltreproError, RecordError
from meltrepro.measure.clocks import Anchor, join
from meltrepro.measure.perfetto import perfetto_trace
from meltrepro.measure.records import CampaignRecord, read_campaign
from meltrepro.record import trial as record
from meltrepro.record.capabilities import load, path_of
from meltrepro.record.study import read_study
from meltrepro.replay.context import context_differences
from meltrepro.report.read import read_results
from meltrepro.track.ledger import open_ledger
from tests.support.campaigns import START_NS, Cell, build_campaign
from tests.support.strange import strange

DIGEST = "0" * 64
CHANNELS = [
    {"name": name, "unit": unit, "kind": kind, "source": "s", "refresh_s": 0.25, "wraps_at": None}
    for name, unit, kind in (
        ("battery.power", "W", "gauge"),
        ("temperature.cpu", "degC", "gauge"),
        ("battery.charge", "C", "counter"),
        ("battery.level", "percent", "gauge"),
    )
]
HEADER: dict[str, Any] = {
    "v": 1,
    "sampler": "s",
    "clock": "monotonic",
    "rate_hz": 10.0,
    "overhead": 0.01,
    "channels": CHANNELS,
}
READINGS = [[1, 2, 3], [10**10, 10**10, 10**10 + 1]]
DEVICE = {
    "facts": {"kind": "host", "model": "m", "memory_bytes": 10**9, "virtual": False},
    "before": {
        "temperatures_c": {"cpu": 40.0},
        "frequencies_khz": {"cpu0": 10**6},
        "governors": {"cpu0": "performance"},
        "load_1min": 0.5,
        "conditions": {"power_mode": "x"},
    },
}


@dataclass(frozen=True)
class Folder:
    """A campaign that has all there can be, and one of its trials."""

    campaign: Path
    trial: Path

    def place(self, name: str) -> Path:
        return next(path for path in (self.campaign / name, self.trial / name) if path.exists())


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    campaign = build_campaign(
        tmp_path_factory.mktemp("home"), [Cell(operators={"a": (10, 1000), "b": (5, 300)})], repetitions=3
    )
    trial = next(campaign.rglob("r000"))
    rows = [[START_NS + n * 10**8, place, float(50 + n % 7)] for n in range(30) for place in range(len(CHANNELS))]
    lines = [HEADER, *rows, {"end": START_NS + 31 * 10**8, "cpu_s": 0.1}]
    meter: list[Any] = [{**HEADER, "clock": "host", "channels": CHANNELS[:1]}, *[row for row in rows if row[1] == 0]]
    for name, entries in ((record.SAMPLES, lines), (record.METER, meter)):
        (trial / name).write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    clocks = {f"{clock}_{when}": READINGS for clock in ("device", "wall") for when in ("before", "after")}
    (trial / record.CLOCKS).write_text(json.dumps({"v": 1, **clocks}))
    (trial / record.DEVICE).write_text(json.dumps(DEVICE))
    place = {"uri": "http://h", "experiment_id": "1", "campaign": {"run_id": "a"}, "cells": {}}
    (campaign / "tracking.json").write_text(json.dumps({"format": 1, "places": [place]}))
    return Folder(campaign, trial)


def read_all(campaign: CampaignRecord) -> None:
    """Everything that reports, comparisons, traces and tracking take from a campaign."""
    show_results(read_campaign(campaign.folder, with_invalid=True), Console(file=io.StringIO(), width=100))
    read_results([campaign])
    open_ledger(campaign.folder)
    for cell in campaign.cells:
        context_differences((campaign, cell), (campaign, cell))
        for trial in cell.trials:
            trial.validity(cell.limits)
            if trial.ok:
                perfetto_trace(trial.trace(), trial.recordings(), trial.name)


WITH_DIGEST = (record.METER, record.CLOCKS)
FILES = (
    *("campaign.json", "manifest.yaml", "tracking.json", record.OUTCOME, record.REQUEST, record.DEVICE, record.CLOCKS),
    *(record.EVENTS, record.SAMPLES, record.METER),
)


@pytest.mark.parametrize("name", FILES)
@given(seed=st.integers(0, 2**32))
@settings(max_examples=8, deadline=None)
def test_a_changed_file_is_read_or_refused(whole: Folder, name: str, seed: int) -> None:
    rng = random.Random(seed)
    path = whole.place(name)
    before = path.read_bytes()
    if path.suffix == ".jsonl":
        lines = before.decode().splitlines()
        place = rng.choice([0, rng.randrange(len(lines))])
        lines[place] = strange(json.loads(lines[place]), rng, rng.choice([1, 1, 3]))
        text = "\n".join(lines) + "\n"
    else:
        text = strange(json.loads(before), rng, rng.choice([1, 1, 3]))
    path.write_text(text, encoding="utf-8")
    outcome = whole.trial / record.OUTCOME
    sealed = outcome.read_bytes()
    if name != record.OUTCOME:  # whoever forges a record forges its digests too, and these files count with one alone
        files = {each: hashlib.sha256((whole.trial / each).read_bytes()).hexdigest() for each in WITH_DIGEST}
        changed(outcome, files=files)
    try:
        campaign = read_campaign(whole.campaign)
        campaign.verify()
        read_all(campaign)
    except MeltreproError as error:
        assert str(error)
    finally:
        outcome.write_bytes(sealed)
        path.write_bytes(before)


# -- what attempts to break in found ------------------------------------------------------------------------------


def changed(path: Path, **values: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_bytes()), **values}))


@pytest.fixture
def campaign(whole: Folder, tmp_path: Path) -> Folder:
    there = tmp_path / whole.campaign.name
    shutil.copytree(whole.campaign, there)
    return Folder(there, there / whole.trial.relative_to(whole.campaign))


@pytest.mark.parametrize("value", [10**30, 2**63, -1, 1.5, "x", None])
def test_a_time_that_no_clock_shows(campaign: Folder, value: object) -> None:
    changed(campaign.campaign / "campaign.json", started_wall_ns=value)
    with pytest.raises(RecordError, match=r"campaign\.json is damaged: "):
        read_campaign(campaign.campaign)
    changed(campaign.trial / record.OUTCOME, started_wall_ns=value)
    changed(campaign.campaign / "campaign.json", started_wall_ns=1)
    with pytest.raises(RecordError, match=r"outcome\.json is damaged: "):
        _ = read_campaign(campaign.campaign).cells[0].trials


@pytest.mark.parametrize("value", ["1" + "0" * 400, "9" * 5000, "-1", "1e30", "NaN", str(2**62)])
def test_a_size_that_no_model_has(campaign: Folder, value: str) -> None:
    path = campaign.campaign / "campaign.json"
    path.write_text(path.read_text().replace('"model_bytes": 98000000', f'"model_bytes": {value}'))
    with pytest.raises(RecordError, match=r"campaign\.json is damaged: .*(model_bytes|too large|no number)"):
        read_campaign(campaign.campaign)


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "a\0b", "a/./b", "x" * 300, "a\\b", ""])
def test_files_that_lie_elsewhere(campaign: Folder, name: str) -> None:
    changed(campaign.campaign / "campaign.json", files={name: DIGEST})
    with pytest.raises(RecordError, match=r"campaign\.json is damaged: files"):
        read_campaign(campaign.campaign)


@pytest.mark.parametrize(
    "value", ["2024-99-99", "!!int x", "!!bool x", "!!timestamp x", "9" * 5000, "[" * 5000, "&a [*a]"]
)
def test_a_manifest_of_odd_tags(campaign: Folder, value: str) -> None:
    (campaign.campaign / "manifest.yaml").write_text(f"meltrepro: {value}\n")
    with pytest.raises(RecordError, match=r"manifest\.yaml is damaged: manifest\.yaml:1:\d+: "):
        _ = read_campaign(campaign.campaign).manifest


def test_bits_that_no_weight_has(campaign: Folder) -> None:
    document = json.loads((campaign.campaign / "campaign.json").read_bytes())
    for value, expected in ((4.5, 4.5), (0, None), (1e-20, None), (1e9, None), ("4", None)):
        document["cells"][0]["params"]["bits_per_weight"] = value
        (campaign.campaign / "campaign.json").write_text(json.dumps(document))
        assert read_campaign(campaign.campaign).cells[0].bits_per_weight == expected


def test_clocks_that_run_backwards() -> None:
    uncertain = Anchor(0, 0, 1e12), Anchor(1000, -1000, 1e12)
    with pytest.raises(RecordError, match="moved apart"):
        join(*uncertain)


@pytest.mark.parametrize(
    "content", ["{}", "[" * 5000, "9" * 5000, '{"format": 1, "name": "\\ud800", "entries": []}', "\0"]
)
@pytest.mark.parametrize("read", [read_study, lambda path: load(path.parent.parent, "d")])
def test_studies_and_capabilities(tmp_path: Path, read: Callable[[Path], object], content: str) -> None:
    path = path_of(tmp_path, "d")
    path.parent.mkdir()
    path.write_text(content)
    with pytest.raises(RecordError, match="is damaged"):
        read(path)
