"""Models with and without an adapter, from the manifest to metrics and scores, with a real model in the engine's sandbox."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from meltrepro.measure.records import CellRecord, read_campaign
from meltrepro.record.trial import Request
from tests.integration.conftest import ROOT, meltrepro
from tests.support.lora import lora

pytestmark = pytest.mark.machine

WEIGHTS = [f"blk.{layer}.{name}.weight" for layer in (2, 20) for name in ("attn_v", "ffn_down")]


def test_an_adapter_changes_what_a_model_says(engine: None, smollm2: Path, tmp_path: Path) -> None:
    model = yaml.safe_load((ROOT / "specs/common/models.yaml").read_text())["models"]["smollm2-135m"]
    models = {"plain": {**model, "quantizations": ["q8_0"]}}
    for name, size in (("nothing", 0.0), ("tuned", 0.3)):
        (tmp_path / f"{name}.gguf").write_bytes(lora(smollm2, WEIGHTS, size=size).file())
        models[name] = {**models["plain"], "lora": {"source": {"file": f"{name}.gguf"}, "scale": 0.5}}
    document = {
        "meltrepro": 1,
        "name": "adapters",
        "models": models,
        "frameworks": {"llama.cpp": {"release": "2026-10-01"}},
        "targets": {"host": {"kind": "host", "threads": 1}},
        "workloads": {
            "chat": {"conversations": [["Tell me of the sea."]], "max_tokens": 24, "context": 256, "ignore_eos": True},
            "text": {
                "task": "perplexity",
                "text": {"file": str(ROOT / "specs/texts/harbour.txt")},
                "context": 64,
                "chunks": 2,
            },
        },
        "protocol": {"order": "as-written", "repetitions": 1, "warmups": 0},
        "measure": {"limits": {"cpu_pressure": 1}},  # a machine that runs tests is busy
    }
    (tmp_path / "spec.yaml").write_text(yaml.safe_dump(document))
    done = meltrepro("run", tmp_path / "spec.yaml", "--no-track", home=tmp_path / "home")
    assert done.returncode == 0, done.stdout + done.stderr
    (folder,) = (tmp_path / "home/records").iterdir()
    record = read_campaign(folder)
    record.verify()
    cells: dict[tuple[str, str], CellRecord] = {(cell.entry.model, cell.entry.workload): cell for cell in record.cells}
    assert len({cell.entry.model_digest for cell in record.cells}) == 1, "the base is made once"

    said = {name: cells[name, "chat"].believed[0].trace() for name in models}
    tokens = {name: trace.turns[0].token_ids for name, trace in said.items()}
    assert tokens["nothing"] == tokens["plain"] != tokens["tuned"]
    assert said["tuned"].effective["lora_scale"] == 0.5 and "lora_scale" not in said["plain"].effective
    asked = cells["tuned", "chat"].believed[0].request
    assert isinstance(asked, Request) and asked.lora is not None
    assert cells["tuned", "chat"].entry.params["lora.digest"] == asked.lora.digest

    scores = {name: cells[name, "text"].repetitions[0].scores[0].value for name in models}
    assert scores["nothing"] == scores["plain"] < scores["tuned"]
