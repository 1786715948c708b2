"""The manifest of options as axes, with a real model: what was asked is in effect, and cells share what is built."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from meltrepro.measure.records import read_campaign
from tests.integration.conftest import ROOT, meltrepro

pytestmark = pytest.mark.machine

FEWER = (
    "--set=measure.limits.cpu_pressure=1",  # a machine that runs tests is busy
    *("--set=protocol.repetitions=1", "--set=protocol.warmups=0", "--set=workloads.chat.max_tokens=8"),
    "--set=targets.host.threads=1",
)


def test_options_of_each_cell_are_in_effect(engine: None, tmp_path: Path) -> None:
    shutil.copytree(ROOT / "specs", tmp_path / "specs")
    done = meltrepro("run", tmp_path / "specs/knobs.yaml", "--no-track", *FEWER, home=tmp_path / "home")
    assert done.returncode == 0, done.stdout + done.stderr
    (folder,) = (tmp_path / "home/records").iterdir()
    record = read_campaign(folder)
    assert (len(record.cells), len(record.document.skipped)) == (10, 2)
    assert all("with flash attention alone" in skip.reason for skip in record.document.skipped)
    sizes: dict[str, set[int | None]] = {}
    for cell in record.cells:
        asked = cell.entry.params
        keys, _, values = str(asked["kv_type"]).partition("-")
        (trial,) = cell.believed
        trace = trial.trace()
        assert trace.effective["flash_attention"] == asked["flash_attention"]
        assert trace.effective["n_ubatch"] == asked["ubatch"]
        assert trace.effective["cache_types"] == f"{keys}/{values or keys}"
        assert f"+kv_type={asked['kv_type']}" in cell.id
        sizes.setdefault(str(asked["kv_type"]), set()).add(trace.context.kv_bytes)
    assert [len(each) for each in sizes.values()] == [1, 1, 1]
    f16, keys_q8, q8 = ((next(iter(each)) or 0) for each in sizes.values())
    assert q8 / f16 == pytest.approx(34 / 64) and keys_q8 == (f16 + q8) / 2
    assert len({cell.entry.bundle_digest for cell in record.cells}) == 1
