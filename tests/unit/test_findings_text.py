"""What findings say: reasons, counts, texts for people and for programs."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from meltrepro.report.results import CellResult
from meltrepro.studies.melt.findings.model import Ruling
from meltrepro.studies.melt.findings.registry import DEFINITIONS, evaluate, tally
from meltrepro.studies.melt.study import as_json, as_text
from tests.support.findings import (
    CASES,
    LONG,
    MICRO,
    found,
)
from tests.support.results import HOST, cell, operators, scores, table, turns, virtual


def test_reasons_cannot_steer_a_terminal() -> None:
    skipped = replace(CASES["F22"].holds[-1], reason="needs \x1b[2J\x9b more")
    results = table(*CASES["F22"].holds[:-1], skipped)
    findings = evaluate(results)
    for shown in (as_text(findings, results), as_json(findings, results)):
        assert "more" in shown
        assert not set(shown) & {"\x1b", "\x9b"}


def laptop() -> list[CellResult]:
    """What the smoke profile of the study gives on a machine without gated weights, lab and power sensors."""
    found: list[CellResult] = []
    roomy = replace(HOST, memory_bytes=24 * 10**9)
    models = {"tinyllama-1.1b": (1.1e9, 1.0), "zephyr-3b": (2.8e9, 2.5), "gemma-2b": (2.5e9, 2.3)}
    for model, (parameters, factor) in models.items():
        for quantization, gb in {"q3_K": 0.55, "q4_K": 0.67, "q4_0": 0.64}.items():
            size = round(gb * factor * 1e9)
            speed = 6e9 / size
            found.append(
                cell(
                    model,
                    quantization,
                    device=roomy,
                    workload="short",
                    synthetic=True,
                    parameters=parameters,
                    size=size,
                    speed=speed,
                    metrics={"prefill_tps": 5 * speed},
                    turns=turns([speed, speed], prefill=5 * speed),
                )
            )
    found.append(
        cell(
            "llama-2-13b",
            "as-is",
            device=roomy,
            workload="short",
            synthetic=True,
            parameters=13e9,
            state="skipped",
            cause="memory",
        )
    )
    small: dict[str, Any] = {"model": "smollm2-135m", "device": roomy, "parameters": 1.3e8, "speed": 60.0}
    for quantization, k in {"f16": 700, "q8_0": 699, "q6_K": 698, "q4_K": 680, "q4_0": 670, "q3_K": 640}.items():
        falling = turns([60.0 * f for f in (1, 0.97, 0.95, 0.9, 0.88, 0.87)])
        found.append(cell(quantization=quantization, workload="macro", size=10**8, turns=falling, **small))
        found.append(cell(quantization=quantization, workload="accuracy", scores=scores(k), **small))
    held = [turn for i in range(12) for turn in turns([60.0] * 4, conversation=i, n_gen=48, began_s=i * 3.7)]
    found.append(cell(workload="sustained", turns=tuple(held), **small))
    for workload, past, kq in (("near", MICRO, 0.03), ("far", LONG, 0.12)):
        found.append(cell(workload=workload, operators=operators(ffn_up=0.87, kq=kq), turns=past, **small))
    return found


def test_one_laptop_decides_ten_findings() -> None:
    decided = {one.definition.id for one in evaluate(table(*laptop())) if one.held is not None}
    assert decided == {"F1", "F2", "F4", "F5", "F6", "F8", "F9", "F14", "F20", "F22"}


def test_as_text_and_as_json() -> None:
    results = table(*laptop())
    findings = evaluate(results)
    text = as_text(findings, results)
    assert text.splitlines()[0] == f"c: {tally(findings)}"
    assert all(len(line) <= 116 for line in text.splitlines())
    assert "F1   HOLDS (synthetic): " in text
    assert "F12  NOT TESTABLE HERE: " in text
    assert "(quoted by others)" in text
    loaded = json.loads(as_json(findings, results))
    assert [one["id"] for one in loaded["findings"]] == [one.id for one in DEFINITIONS]
    assert as_json(evaluate(results), results) == as_json(findings, results)


def test_cells_that_are_too_few_to_judge_are_counted() -> None:
    cells = laptop()
    few = table(replace(cells[0], too_few=True), *cells[1:])
    assert "1 cell of fewer than 3 repetitions: too few to judge" in as_text(evaluate(few), few)
    assert "too few" not in as_text(evaluate(table(*cells)), table(*cells))


def test_f22_names_causes() -> None:
    finding = found("F22", *CASES["F22"].holds)
    assert finding.numbers["failed_memory"].value == 1
    assert "needs 9 GB" in finding.notes[0]


def test_f22_what_ran_in_a_later_campaign_has_run() -> None:
    again = [replace(one, state="measured", cause=None) for one in CASES["F22"].holds]
    assert found("F22", *CASES["F22"].holds, *again).verdict is Ruling.fails


@pytest.mark.parametrize("id", ["F6", "F7"])
def test_what_is_there_and_what_would_be_needed(id: str) -> None:
    needs = next(one for one in DEFINITIONS if one.id == id).needs
    made_up = [cell(name, speed=1, synthetic=True) for name in ("a", "b")]
    said = "of made-up (synthetic) weights, whose answers mean nothing; needs"
    assert found(id, *made_up).reason == f"all 2 cells are {said} {needs}"
    assert found(id, made_up[0]).reason == f"the only cell is {said} {needs}"
    assert found(id).reason == f"there are no cells; needs {needs}"
    assert found(id, cell(speed=1), virtual_only=True).reason == (
        f"none of 1 cell ran on a virtual device with weights that count here; needs {needs}"
    )


def test_nothing_measured_is_told_with_its_causes() -> None:
    lost = [cell(name, state="invalid", cause="noisy") for name in ("a", "b")]
    failed = cell("c", state="failed", cause="out-of-memory")
    reason = found("F2", *lost, failed).reason
    assert reason.endswith(
        "; no cell was measured: invalid (noisy) (2 of 3 cells); failed (out-of-memory) (1 of 3 cells)"
    )
    assert "no cell was measured" not in found("F2", *lost, cell("d", speed=1)).reason


def test_the_tally_tells_what_verdicts_rest_on() -> None:
    holds = CASES["F2"].holds
    assert tally(evaluate(table(*holds))) == "1 holds, 0 fail, 21 not testable here"
    made_up = [replace(one, synthetic=True) for one in holds]
    assert tally(evaluate(table(*made_up))) == "1 holds (1 synthetic), 0 fail, 21 not testable here"
    pretended = [replace(one, device=virtual(one.device)) for one in CASES["F2"].fails]
    assert tally(evaluate(table(*pretended))) == "0 hold, 1 fails (1 virtual), 21 not testable here"
