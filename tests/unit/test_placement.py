"""Where an engine computes: read from its events, and a silent fallback is found."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from meltrepro.errors import RecordError
from meltrepro.manifest.protocol import Limits
from meltrepro.measure.metrics import compute
from meltrepro.measure.records import read_campaign
from meltrepro.measure.validity import judge_trial
from meltrepro.record.campaign import MANIFEST
from meltrepro.record.events import parse_trace
from meltrepro.record.trace import Trace
from tests.support.campaigns import Cell, Trial, as_lines, build_campaign, events

LOOKUP = {"phase": "prefill", "backend": "CPU", "op": "GET_ROWS", "module": "token_embd", "n": 1, "lookup": True}
UP = {"phase": "prefill", "backend": "Vulkan0", "op": "MUL_MAT", "module": "ffn_up", "n": 30}
BYTES = {"memory": "Vulkan0", "weights": 100, "context": 10, "compute": 1}


def traced(placement: Any) -> Trace:
    return parse_trace(as_lines(events(Trial(effective={"threads": 4, "placement": placement}))))


def judged(backend: str | None, *operators: dict[str, Any]) -> str:
    trace = traced({"operators": operators, "bytes": [BYTES]})
    return str(judge_trial(trace, compute(trace), None, Limits(), backend=backend))


def test_what_an_engine_says_is_read() -> None:
    trace = traced({"operators": [LOOKUP, UP, {**UP, "phase": "generation"}], "bytes": [BYTES]})
    assert trace.effective == {"threads": 4}
    assert trace.placement is not None and trace.placement.bytes[0].weights == 100
    assert str(trace.placement) == "prefill: Vulkan0 30, CPU 1; generation: Vulkan0 30"


@pytest.mark.parametrize(
    "damaged", [7, {}, {"operators": [{**UP, "n": -1}]}, {"operators": [{**UP, "phase": "never"}]}, {"operators": 1}]
)
def test_what_is_none_is_refused(damaged: object) -> None:
    with pytest.raises(RecordError, match=r"placement.*"):
        traced(damaged)


def test_the_required_backend_computes() -> None:
    assert judged("vulkan", LOOKUP, UP) == "VALID"
    assert judged("cuda", {**UP, "backend": "CUDA12"}) == "VALID"
    assert judged(None, {**UP, "backend": "CPU"}) == "VALID"


@pytest.mark.parametrize("n", range(1, 21))
def test_a_fallback_is_found_wherever_it_is(n: int) -> None:
    """One of twenty operators is elsewhere, each in turn."""
    everything = [{**UP, "module": f"m{i}"} for i in range(1, 21)]
    everything[n - 1] |= {"backend": "CPU", "why": "its weights lie in main memory"}
    expected = f"INVALID(fallback: MUL_MAT m{n} on CPU, and vulkan is required: its weights lie in main memory)"
    assert judged("vulkan", LOOKUP, *everything) == expected


def test_many_are_counted_and_none_is_no_proof() -> None:
    verdict = judged("vulkan", *({**UP, "module": f"m{i}", "backend": "CPU"} for i in range(9)))
    assert "MUL_MAT m2 on CPU and 6 more, and vulkan is required" in verdict
    assert judged("vulkan") == "INVALID(fallback: no operator, and vulkan is required: no such device is there)"
    trace = replace(traced({"operators": []}), placement=None)
    verdict = str(judge_trial(trace, compute(trace), None, Limits(), backend="vulkan"))
    assert verdict == "INVALID(fallback: vulkan is required, and the engine does not say where it computes)"


@pytest.mark.parametrize("required", [True, False])
def test_a_manifest_requires_it(tmp_path: Path, required: bool) -> None:
    placement = {"operators": [LOOKUP, {**UP, "backend": "CPU"}]}
    folder = build_campaign(tmp_path, [Cell("q8_0", trial=Trial(effective={"placement": placement}))])
    path = folder / MANIFEST
    manifest = json.loads(path.read_text())
    (name,) = manifest["frameworks"]
    manifest["frameworks"][name] |= {"require": {"backend": "vulkan"}} if required else {}
    path.write_text(json.dumps(manifest))
    (cell,) = read_campaign(folder).cells
    assert cell.ran_as["effective.placement"] == "prefill: CPU 31"
    assert len(cell.invalid) == (3 if required else 0)
    assert ("fallback: r001 MUL_MAT ffn_up on CPU" in str(cell.validity)) == required
