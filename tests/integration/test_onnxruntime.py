"""ONNX Runtime's own options, for real; what it has in common with other engines is in test_prebuilt_engines.py."""

from __future__ import annotations

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
    return engines.runner("onnxruntime", tmp_path)


def test_batches_and_levels_of_optimization_change_no_token(runner: Runner) -> None:
    """A prompt in pieces, and a graph as it is written, are computed alike."""
    changes: list[dict[str, Any]] = [{}, {"batch": 5}, {"graph_optimization": "off"}, {"spinning": False, "threads": 2}]
    found = []
    for each in changes:
        run = runner.run({**runner.request(max_tokens=12, conversations=[[STORY, FIRST]]), **each})
        found.append([turn.token_ids for turn in run.trace.turns])
    assert all(each == found[0] for each in found)


def test_what_is_used_is_told(runner: Runner) -> None:
    run = runner.run({**runner.request(max_tokens=2), "graph_optimization": "basic", "spinning": False})
    said = next(event for event in run.events if event["e"] == "effective")
    assert (said["version"], said["graph_optimization"], said["spinning"]) == ("1.29.0", "basic", False)
    assert (said["cache_types"], said["tokenizer"]) == ("f32/f32", "llama.cpp 2026-10-01")


@pytest.mark.parametrize(
    ("field", "value", "why"),
    [
        ("graph_optimization", "some", "expected off, basic, extended or all"),
        ("spinning", 3, "expected true or false"),
    ],
)
def test_fields_that_are_wrong_are_refused(runner: Runner, field: str, value: object, why: str) -> None:
    run = runner.run({**runner.request(), field: value})
    assert (run.status, run.error["code"]) == (2, 2)
    assert why in run.error["message"]
