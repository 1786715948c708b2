"""Files of records, each in the place where it belongs in a campaign that is otherwise whole."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from rich.console import Console

from meltrepro.cli.summary import show_results
from meltrepro.errors import MeltreproError
from meltrepro.measure.perfetto import perfetto_trace
from meltrepro.measure.records import CampaignRecord, read_campaign
from meltrepro.record import journal
from meltrepro.record import trial as record
from meltrepro.record.capabilities import load, path_of
from meltrepro.record.study import read_study
from meltrepro.replay.context import context_differences
from meltrepro.report.read import read_results
from meltrepro.track.ledger import open_ledger
from tests.support.campaigns import START_NS, Cell, build_campaign

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


def make(home: Path) -> Folder:
    """Such a campaign, below a home."""
    campaign = build_campaign(home, [Cell(operators={"a": (10, 1000), "b": (5, 300)})], repetitions=3)
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


def changed(path: Path, **values: Any) -> None:
    """Other values in a JSON file."""
    path.write_text(json.dumps({**json.loads(path.read_bytes()), **values}))


WITH_DIGEST = (record.METER, record.CLOCKS)
FILES = (
    *("campaign.json", "manifest.yaml", "tracking.json", record.OUTCOME, record.REQUEST, record.DEVICE, record.CLOCKS),
    *(record.EVENTS, record.SAMPLES, record.METER),
)


@cache
def _whole() -> Folder:
    return make(Path(tempfile.mkdtemp(prefix="meltrepro-fuzz-")))


def _read(name: str) -> Callable[[bytes, Path], None]:
    def read(data: bytes, _: Path) -> None:
        whole = _whole()
        path, outcome = whole.place(name), whole.trial / record.OUTCOME
        before, sealed = path.read_bytes(), outcome.read_bytes()
        path.write_bytes(data)
        if name != record.OUTCOME:  # whoever forges a record forges its digests too; these files count with one alone
            files = {each: hashlib.sha256((whole.trial / each).read_bytes()).hexdigest() for each in WITH_DIGEST}
            changed(outcome, files=files)
        try:
            campaign = read_campaign(whole.campaign)
            campaign.verify()
            read_all(campaign)
        finally:
            outcome.write_bytes(sealed)
            path.write_bytes(before)

    return read


def _sample(name: str) -> Callable[[], Sequence[bytes]]:
    return lambda: [_whole().place(name).read_bytes()]


def _other(data: bytes, folder: Path) -> object:
    """Journals, studies and what a probe found, which lie beside campaigns."""
    path = path_of(folder, "d")
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(data)
    for read in (lambda: list(journal.read(path)), lambda: load(folder, "d")):
        with contextlib.suppress(MeltreproError):
            read()
    return read_study(path)


KINDS: dict[str, tuple[Callable[[bytes, Path], object], Callable[[], Sequence[bytes]], str]] = {
    **{f"record-{name.partition('.')[0]}": (_read(name), _sample(name), "json") for name in FILES},
    "record-other": (
        _other,
        lambda: [b'{"format": 1, "name": "n", "entries": []}', b'{"at": 1, "step": "x"}\n{"at": 2, "step": "y"}\n'],
        "json",
    ),
}
