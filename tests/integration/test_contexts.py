"""The manifest of depths, prefixes, sessions, answers abreast, speculation and page caches, with a real model."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from meltrepro.measure.records import CellRecord, read_campaign
from tests.integration.conftest import ROOT, meltrepro

pytestmark = pytest.mark.machine

FEWER = (
    "--set=measure.limits.cpu_pressure=1",  # a machine that runs tests is busy
    *("--set=protocol.repetitions=1", "--set=protocol.warmups=0", "--set=targets.host.threads=1"),
)


def test_each_workload_does_what_it_says(engine: None, tmp_path: Path) -> None:
    shutil.copytree(ROOT / "specs", tmp_path / "specs")
    done = meltrepro("run", tmp_path / "specs/contexts.yaml", "--no-track", *FEWER, home=tmp_path / "home")
    assert done.returncode == 0, done.stdout + done.stderr
    (folder,) = (tmp_path / "home/records").iterdir()
    cells: dict[str, CellRecord] = {cell.entry.workload: cell for cell in read_campaign(folder).cells}
    assert len(cells) == 13
    traces = {name: cell.believed[0].trace() for name, cell in cells.items()}
    values = {name: cell.believed[0].metrics.values for name, cell in cells.items()}

    for depth in (0, 512, 2048):
        fills = [each.fill.n if each.fill else 0 for each in traces[f"bench-depth{depth}"].conversations]
        assert fills == [depth, depth]
        assert [turn.n_past for turn in traces[f"bench-depth{depth}"].turns] == [depth + 128, depth + 32 + 1]
    assert values["bench-depth2048"]["kv_bytes"] > values["bench-depth0"]["kv_bytes"]

    assert [traces[f"prefix-hit{rate}"].turns[0].n_prompt for rate in ("0", "0.9")] == [256, 26]
    assert values["prefix-hit0.9"]["ttft_ms"] < values["prefix-hit0"]["ttft_ms"], "a tenth of the work"
    assert values["session"]["context_file_bytes"] > 230 * 30 * 3 * 64 * 2 * 2
    assert traces["session"].turns[0].n_past == traces["prefix-hit0.9"].turns[0].n_past == 256

    assert values["abreast-seq4"]["generated_tokens"] == 4 * values["abreast-seq1"]["generated_tokens"]
    assert values["cold"]["cached_share"] < 0.01 and values["warm"]["cached_share"] == 1

    plain, lookup, itself = (traces[name].turns[0] for name in ("plain", "lookup", "itself"))
    assert plain.token_ids == lookup.token_ids == itself.token_ids
    assert values["itself"]["accepted_share"] > 0.9 and values["itself"]["step_tokens"] > 5
    assert 0 < values["lookup"]["accepted_share"] <= 1
    assert cells["itself"].entry.params["speculate.digest"] == cells["itself"].entry.model_digest
