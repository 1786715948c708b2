"""MLC's own options and files, for real; what it has in common with other engines is in test_prebuilt_engines.py."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.integration import prebuilt
from tests.integration.prebuilt import Engines
from tests.integration.runner.contract import FIRST, STORY, Runner

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def engines(engine: None, tmp_path_factory: pytest.TempPathFactory) -> Engines:
    return prebuilt.build(tmp_path_factory.mktemp("specs"))


@pytest.fixture
def runner(engines: Engines, tmp_path: Path) -> Runner:
    return engines.runner("mlc", tmp_path)


def test_a_model_is_made_for_the_variant_that_loads_it(engines: Engines) -> None:
    (bundle,) = (name for name in engines.artifacts if name.startswith("mlc/run/"))
    models = [name for name in engines.artifacts if "/mlc/" in name and name.startswith("smollm2")]
    assert {name.rpartition("/")[2] for name in models} == {bundle.rpartition("/")[2]}
    assert len(models) == 2


def test_batches_and_threads_change_no_token(runner: Runner) -> None:
    """A prompt in pieces is computed alike, one that ends with a single token too."""
    changes: list[dict[str, Any]] = [{}, {"batch": 5}, {"batch": 1}, {"spinning": False}, {"threads": 2}]
    found = []
    for each in changes:
        run = runner.run({**runner.request(max_tokens=12, conversations=[[STORY, FIRST]]), **each})
        found.append([turn.token_ids for turn in run.trace.turns])
    assert all(each == found[0] for each in found)


def test_what_is_used_is_told(runner: Runner) -> None:
    run = runner.run({**runner.request(max_tokens=2), "spinning": False})
    said = next(event for event in run.events if event["e"] == "effective")
    assert (said["version"], said["threads"], said["spinning"]) == ("0.27.0.post1", 1, False)
    assert (said["cache_types"], said["computed_in"], said["tokenizer"]) == ("f32/f32", "f32", "llama.cpp 2026-10-01")


def test_a_field_that_is_wrong_is_refused(runner: Runner) -> None:
    run = runner.run({**runner.request(), "spinning": 3})
    assert (run.status, run.error["code"]) == (2, 2)
    assert "expected true or false" in run.error["message"]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"byteOffset": 0', '"byteOffset": 99999999'),
        ('"dtype": "uint32"', '"dtype": "float64"'),
        ('"dataPath": "params', '"dataPath": "../params'),
        ('"shape": [576]', '"shape": [144, 4]'),
    ],
)
def test_an_index_that_says_otherwise_is_refused(runner: Runner, old: str, new: str) -> None:
    copy = shutil.copytree(runner.model, runner.folder / "model")
    index = copy / "tensor-cache.json"
    content = index.read_text()
    assert old in content
    index.chmod(0o644)
    index.write_text(content.replace(old, new, 1))
    assert runner(model=str(copy)).status in (3, 5)
