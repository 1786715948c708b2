"""Synthetic weights of every architecture through the real quantizers and runners of both releases."""

from __future__ import annotations

import json
import re
import tarfile
from pathlib import Path

import pytest

from meltrepro.frameworks.llamacpp.mixtures import model_bytes
from meltrepro.manifest.shapes import SHAPES, ShapeName
from meltrepro.measure.records import read_campaign
from meltrepro.record.reader import campaign_folders
from tests.integration.conftest import meltrepro

pytestmark = pytest.mark.machine

MODELS: dict[ShapeName, str] = {"tiny-llama": "chatml", "tiny-gemma": "gemma", "tiny-stablelm": "zephyr"}
MADE = ("as-is", "q3_K", "q4_K", "q4_0")
MANIFEST = {
    "meltrepro": 1,
    "name": "synthetic",
    "models": {
        name: {"source": {"synthetic": name, "seed": 7}, "chat_template": template, "quantizations": [*MADE]}
        for name, template in MODELS.items()
    },
    "frameworks": {
        "old": {"kind": "llama.cpp", "release": "2024-02-27"},
        "new": {"kind": "llama.cpp", "release": "2026-10-01"},
    },
    "targets": {"host": {"kind": "host", "threads": 1}},
    "workloads": {
        "chat": {
            "conversations": [["What is the difference between a recipe and a plan?", "Äpfel, 3 of them:\n\tplease!"]],
            "context": 256,
            "max_tokens": 12,
            "ignore_eos": True,
        }
    },
    "protocol": {"repetitions": 1, "warmups": 0},
    "measure": {"limits": {"cpu_pressure": 1}},  # a machine that runs tests is busy
}


@pytest.fixture(scope="module")
def spec(engine: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("synthetic") / "spec.yaml"
    path.write_text(json.dumps(MANIFEST, ensure_ascii=False))  # JSON is YAML
    return path


def test_the_quantizers_of_both_releases_make_what_was_predicted(spec: Path) -> None:
    done = meltrepro("build", spec, "--json")
    assert done.returncode == 0, done.stderr
    made = {row["id"]: Path(row["path"]) for row in json.loads(done.stdout)}
    for name in MODELS:
        for framework, release in (("old", "2024-02-27"), ("new", "2026-10-01")):
            sizes = {kind: made[f"{name}/{kind}/{framework}"].stat().st_size for kind in MADE}
            assert sizes == {kind: model_bytes(SHAPES[name], kind, release) for kind in MADE}


def test_the_runners_of_both_releases_read_and_continue_them(spec: Path, tmp_path: Path) -> None:
    done = meltrepro("run", spec, "--only", "*/q4_0/*", "--only", "tiny-gemma/as-is/*", home=tmp_path)
    assert done.returncode == 0, done.stderr
    (folder,) = campaign_folders(tmp_path / "records")
    campaign = read_campaign(folder)
    assert len(campaign.cells) == 8 and campaign.document.synthetic
    cache: dict[str, int] = {name: SHAPES[name].kv_bytes(256) for name in MODELS}
    prompts: dict[str, set[int]] = {}
    for cell in campaign.cells:
        (trial,) = cell.repetitions
        assert cell.synthetic and trial.outcome.synthetic
        attention = {"old": "off", "new": "on"}[cell.entry.framework]
        assert cell.ran_as["effective.flash_attention"] == attention, "the releases decide it for themselves"
        assert "CPU" in str(cell.ran_as["effective.weights"]) and cell.ran_as["process.scheduler"] == "other"
        turns = trial.trace().turns
        assert [turn.n_gen for turn in turns] == [12, 12]
        prompts.setdefault(cell.entry.model, set()).add(sum(turn.n_prompt for turn in turns))
        assert cell.summaries["kv_bytes"].median == cache[cell.entry.model]
    # They cut text into the same tokens, but for a space that the old one puts before a first marker.
    assert all(max(counts) - min(counts) <= 1 for counts in prompts.values())
    shown = done.stdout + done.stderr
    assert len(re.findall("synthetic weights; its answers mean nothing", shown)) == 8

    out = tmp_path / "bundle.tar"
    packed = meltrepro("bundle", "export", folder, "--output", out, home=tmp_path)
    assert packed.returncode == 0, packed.stderr
    with tarfile.open(out) as bundle:
        inside = {Path(name).name for name in bundle.getnames()}
    gemma = {cell.entry.model_digest for cell in campaign.cells if cell.entry.quantization == "as-is"}
    others = {cell.entry.model_digest for cell in campaign.cells if cell.entry.quantization != "as-is"}
    assert others <= inside and not gemma & inside, "weights that any machine can make again are left out"
