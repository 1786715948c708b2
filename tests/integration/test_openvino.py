"""OpenVINO's own options, for real; what it has in common with other engines is in test_prebuilt_engines.py."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.integration import prebuilt
from tests.integration.prebuilt import Engines
from tests.integration.runner.contract import FIRST, SECOND, STORY, Run, Runner

pytestmark = pytest.mark.integration
EXACT: dict[str, Any] = {"kv_cache_precision": "f32", "dynamic_quantization_group_size": 0}
"""With which nothing is rounded to fewer bits."""


@pytest.fixture(scope="module")
def engines(engine: None, tmp_path_factory: pytest.TempPathFactory) -> Engines:
    return prebuilt.build(tmp_path_factory.mktemp("specs"))


@pytest.fixture
def runner(engines: Engines, tmp_path: Path) -> Runner:
    return engines.runner("openvino", tmp_path)


def run(runner: Runner, changes: dict[str, Any], **request: Any) -> Run:
    return runner.run({**runner.request(**request), **changes})


def effective(found: Run) -> dict[str, Any]:
    return next(event for event in found.events if event["e"] == "effective")


def test_batches_threads_and_what_was_before_change_no_token(runner: Runner) -> None:
    """A prompt in pieces is computed alike, and nothing of a conversation is left in the next."""
    found = []
    for each in ({}, {"batch": 5}, {"threads": 2}):
        made = run(runner, {**EXACT, **each}, max_tokens=12, conversations=[[STORY, SECOND], [FIRST], [STORY, SECOND]])
        found.append([turn.token_ids for turn in made.trace.turns])
        assert found[-1][:2] == found[-1][3:]
    assert all(each == found[0] for each in found)


def test_what_is_used_is_told(runner: Runner) -> None:
    said = effective(run(runner, {}, max_tokens=2))
    assert said["version"].startswith("2026.4.1-22982-")
    assert (said["inference_precision"], said["cache_types"]) == ("f32", "f16/f16")
    assert said["dynamic_quantization_group_size"] == 32
    assert (said["threads"], said["num_streams"], said["enable_cpu_pinning"]) == (1, 1, False)
    assert said["tokenizer"] == "llama.cpp 2026-10-01"
    said = effective(run(runner, EXACT, max_tokens=2))
    assert (said["cache_types"], said["dynamic_quantization_group_size"]) == ("f32/f32", 0)


def test_floats_that_a_cpu_lacks_are_refused(runner: Runner) -> None:
    """Or it computes with them; never with others than were asked for."""
    made = run(runner, {"inference_precision": "bf16"}, max_tokens=2)
    if made.status == 0:
        assert effective(made)["inference_precision"] == "bf16"
    else:
        assert made.status == 3 and "computes with f32, not with bf16" in made.error["message"]


@pytest.mark.parametrize(
    ("field", "value", "why"),
    [
        ("inference_precision", "f64", "expected f32, bf16 or f16"),
        ("kv_cache_precision", 8, "expected f32, f16 or u8"),
        ("dynamic_quantization_group_size", -1, "dynamic_quantization_group_size"),
    ],
)
def test_fields_that_are_wrong_are_refused(runner: Runner, field: str, value: object, why: str) -> None:
    made = run(runner, {field: value})
    assert (made.status, made.error["code"]) == (2, 2)
    assert why in made.error["message"]


def test_it_leaves_no_file(runner: Runner, tmp_path: Path) -> None:
    """Neither a cache nor what it did: all that is new are the runner's events."""
    request = tmp_path / "request.json"
    made = runner(max_tokens=2)
    assert made.status == 0 and request.is_file()
    home = tmp_path / "home"
    home.mkdir()
    command = [*runner.bundle.command("melt-runner"), str(request), str(tmp_path / "again.jsonl")]
    before = set(tmp_path.iterdir())
    subprocess.run(command, check=True, cwd=home, env={**os.environ, "HOME": str(home), "TMPDIR": str(home)})
    assert set(tmp_path.iterdir()) - before == {tmp_path / "again.jsonl"}
    assert not [*home.iterdir()]
