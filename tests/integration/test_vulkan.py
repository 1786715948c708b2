"""llama.cpp with Vulkan on Mesa's software device, in a trial's sandbox: the CPU's tokens, and a fallback that is not silent.

A cold build compiles 1,800 shaders, a quarter of an hour of CPU time, so that `make test-costly` alone runs this.
"""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from meltrepro.measure.records import CampaignRecord, CellRecord, read_campaign
from meltrepro.measure.validity import Reason
from meltrepro.record.reader import campaign_folders
from tests.integration.conftest import meltrepro
from tests.integration.prebuilt import Engines, build

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.costly, pytest.mark.timeout(1800)]

TINY = {
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 256,
    "num_hidden_layers": 2,
    "intermediate_size": 512,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 2048,
    "max_position_embeddings": 1024,
}
"""A model that the software device is quick with."""
SOFTWARE: dict[str, Any] = {"vulkan": {"driver": "software"}}
FALLBACKS: dict[str, tuple[dict[str, Any], str, str]] = {
    "no-layer": ({"gpu_layers": 0}, "FLASH_ATTN_EXT on CPU", "its weights lie in main memory"),
    "one-layer": ({"gpu_layers": 1}, "FLASH_ATTN_EXT on CPU", "what it computes with lies in main memory"),
}
"""Options that leave something to the CPU, what is left to it, and why."""


def framework(**options: Any) -> dict[str, Any]:
    entry = {"kind": "llama.cpp", "release": "2026-10-01", "require": {"backend": "vulkan"}}
    return {**entry, "options": {**SOFTWARE, **options}}


SPEC: dict[str, Any] = {
    "meltrepro": 1,
    "name": "vulkan",
    "include": ["common/models.yaml"],
    "models": {
        "smollm2-135m": {"quantizations": ["f16"]},
        "tiny": {
            "source": {"synthetic": {"config": "config.json"}},
            "chat_template": "plain",
            "quantizations": ["f16"],
        },
    },
    "frameworks": {
        "cpu": {"kind": "llama.cpp", "release": "2026-10-01"},
        "vulkan": framework(),
        **{name: framework(**options) for name, (options, _, _) in FALLBACKS.items()},
    },
    "targets": {"host": {"kind": "host", "threads": 1}},
    "workloads": {
        "chat": {
            "conversations": [["What is the capital of France?"]],
            "context": 128,
            "max_tokens": 8,
            "ignore_eos": True,
            "sampling": {"greedy": True},
        }
    },
    "protocol": {"repetitions": 2, "warmups": 0},
    "measure": {"limits": {"cpu_pressure": 1}},  # a machine that runs tests is busy
}


@pytest.fixture(scope="module")
def engines(engine: None, tmp_path_factory: pytest.TempPathFactory) -> Engines:
    folder = tmp_path_factory.mktemp("specs")
    (folder / "config.json").write_text(json.dumps(TINY))
    return build(folder, json.dumps(SPEC))


def campaign(engines: Engines, home: Path, *arguments: str) -> CampaignRecord:
    done = meltrepro("run", engines.spec, "--no-track", *arguments, home=home, MELTREPRO_LOCKS=str(home / "locks"))
    assert done.returncode in (0, 4), done.stdout + done.stderr
    (folder,) = campaign_folders(home / "records")
    return read_campaign(folder, with_invalid=True)


def cells(record: CampaignRecord) -> dict[str, CellRecord]:
    return {cell.entry.framework: cell for cell in record.cells}


def flaws(cell: CellRecord) -> list[list[str]]:
    """What is said of fallbacks, by trial."""
    judged = [trial.validity(cell.limits, cell.backend) for trial in cell.repetitions]
    return [[flaw.detail for flaw in each.findings if flaw.reason is Reason.fallback] for each in judged]


def test_a_real_models_tokens_are_those_of_the_cpu(engines: Engines, tmp_path: Path) -> None:
    once = ["--set=protocol.repetitions=1"]
    record = campaign(
        engines, tmp_path, "--only", "smollm2-135m/f16/cpu/*", "--only", "smollm2-135m/f16/vulkan/*", *once
    )
    found = cells(record)
    traces = {name: cell.repetitions[0].trace() for name, cell in found.items()}
    tokens = {name: [turn.token_ids for turn in trace.turns] for name, trace in traces.items()}
    assert tokens["vulkan"] == tokens["cpu"] and len(tokens["cpu"][0]) == 8

    assert flaws(found["vulkan"]) == [[]]
    placement = traces["vulkan"].placement
    assert placement is not None
    computed = {each.backend for each in placement.operators if not each.lookup}
    assert computed == {"Vulkan0"} and not placement.elsewhere("vulkan")
    assert any(lying.memory == "Vulkan0" and lying.weights > 200e6 for lying in placement.bytes)

    done = meltrepro("report", "last", "--no-track", "-o", tmp_path / "report", home=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    with (tmp_path / "report" / "tables" / "cells.csv").open(newline="", encoding="utf-8") as file:
        rows = {row["framework"]: " ".join(map(str, row.values())) for row in csv.DictReader(file)}
    assert "software device" in rows["vulkan"] and "software device" not in rows["cpu"]


def test_what_falls_back_to_the_cpu_is_invalid_with_what_and_why(engines: Engines, tmp_path: Path) -> None:
    """With tiny weights, which the software device is quick with; each of them twice, and all together in one campaign."""
    only = [word for name in FALLBACKS for word in ("--only", f"tiny/f16/{name}/*")]
    found = cells(campaign(engines, tmp_path, *only))
    for name, (_, what, why) in FALLBACKS.items():
        said = flaws(found[name])
        assert len(said) == 2 and all(len(each) == 1 for each in said), (name, said)
        for (detail,) in said:
            assert what in detail and why in detail and "vulkan is required" in detail, (name, detail)
