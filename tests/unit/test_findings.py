"""Rules for all findings, on tables where each holds, where it fails, and that cannot tell."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meltrepro.report.results import CellResult
from meltrepro.studies.melt.findings.model import Ruling
from meltrepro.studies.melt.findings.registry import DEFINITIONS, document
from tests.support.examples import examples
from tests.support.findings import (
    CASES,
    CHARGE,
    ENERGY,
    found,
    powers,
)
from tests.support.results import OTHER, PHONE, cell, scores, virtual


def test_there_are_all_of_them() -> None:
    assert [one.id for one in DEFINITIONS] == [f"F{n}" for n in range(1, 23)]
    assert set(CASES) == {one.id for one in DEFINITIONS}


@pytest.mark.parametrize("id", CASES)
def test_holds(id: str) -> None:
    finding = found(id, *CASES[id].holds)
    assert finding.verdict is Ruling.holds, finding.reason
    assert finding.numbers
    assert {one.cell for one in finding.evidence} <= {one.cell for one in CASES[id].holds}
    assert finding.evidence
    assert finding.marks == ()


@pytest.mark.parametrize("id", CASES)
def test_fails(id: str) -> None:
    finding = found(id, *CASES[id].fails)
    assert finding.verdict is Ruling.fails, finding.reason
    assert finding.evidence


@pytest.mark.parametrize("id", CASES)
def test_cannot_tell(id: str) -> None:
    finding = found(id, *CASES[id].lacks)
    assert finding.verdict is Ruling.not_testable, finding.reason
    assert CASES[id].missing in finding.reason


@pytest.mark.parametrize("id", CASES)
def test_nothing_to_go_by(id: str) -> None:
    assert found(id).verdict is Ruling.not_testable
    unbelieved = [replace(one, state="invalid", operators={}, scores=(), parameters=None) for one in CASES[id].holds]
    if id != "F22":  # which asks whether something ran, not how fast
        assert found(id, *unbelieved).verdict is Ruling.not_testable


@pytest.mark.parametrize("id", CASES)
def test_virtual_devices_decide_alone_and_are_told(id: str) -> None:
    pretended = [replace(one, device=virtual(one.device)) for one in CASES[id].holds]
    finding = found(id, *pretended)
    assert (finding.verdict, finding.virtual) == (Ruling.holds, True)
    both = found(id, *pretended, *CASES[id].fails)
    assert (both.verdict, both.virtual) == (Ruling.fails, False), "real devices go first"
    assert found(id, *pretended, *CASES[id].fails, virtual_only=True).verdict is Ruling.holds
    assert found(id, *CASES[id].holds, virtual_only=True).verdict is Ruling.not_testable


@pytest.mark.parametrize("id", CASES)
def test_made_up_weights_are_told_and_never_have_accuracy(id: str) -> None:
    finding = found(id, *(replace(one, synthetic=True) for one in CASES[id].holds))
    if id in ("F6", "F7"):
        assert finding.verdict is Ruling.not_testable
    else:
        assert (finding.verdict, finding.synthetic) == (Ruling.holds, True)


@pytest.mark.parametrize("id", CASES)
@pytest.mark.parametrize("kind", ["holds", "fails"])
def test_the_order_of_cells_does_not_matter(id: str, kind: str) -> None:
    cells = list(getattr(CASES[id], kind))
    first = found(id, *cells)
    for seed in range(3):
        random.Random(seed).shuffle(cells)
        again = found(id, *cells)
        assert again.verdict is first.verdict
        assert {name: pytest.approx(q.value) for name, q in first.numbers.items()} == {
            name: q.value for name, q in again.numbers.items()
        }


def scaled(one: CellResult, speed: float, size: float, energy: float) -> CellResult:
    """The same cell in other units: times, bytes and joules are multiplied."""
    factors = {"generation_tps": speed, "prefill_tps": speed, ENERGY: energy}
    summaries = {
        name: replace(found, median=found.median * factors.get(name, 1.0)) for name, found in one.metrics.items()
    }
    held = [
        replace(turn, prefill_tps=(turn.prefill_tps or 0) * speed, generation_tps=(turn.generation_tps or 0) * speed)
        for turn in one.turns
    ]
    bytes_ = None if one.model_bytes is None else round(one.model_bytes * size)
    return replace(one, metrics=summaries, turns=tuple(held), model_bytes=bytes_)


@settings(max_examples=examples(30))
@given(*(st.floats(0.01, 100) for _ in range(3)))
def test_units_do_not_matter(speed: float, size: float, energy: float) -> None:
    size = max(1.0, size)  # bytes are whole numbers
    for id in ("F1", "F2", "F3", "F4", "F10", "F11", "F16", "F17", "F18", "F19", "F20"):
        for cells in (CASES[id].holds, CASES[id].fails):
            assert (
                found(id, *(scaled(one, speed, size, energy) for one in cells)).verdict is found(id, *cells).verdict
            ), id


def test_a_later_campaign_replaces_an_earlier_one() -> None:
    earlier = [replace(one, campaign="earlier") for one in CASES["F4"].fails]
    finding = found("F4", *earlier, *CASES["F4"].holds)
    assert finding.verdict is Ruling.holds
    assert {one.campaign for one in finding.evidence} == {"c"}


def test_real_and_virtual_devices_are_never_set_beside_each_other() -> None:
    real, other = CASES["F3"].holds
    finding = found("F3", real, replace(other, device=virtual(OTHER)))
    assert finding.verdict is Ruling.not_testable


def test_nothing_is_divided_by_zero() -> None:
    assert found("F21", powers(0, 0, idle_power_w=0)).verdict is Ruling.not_testable
    none_right = [replace(one, scores=scores(0, tasks=["arc_easy"])) for one in CASES["F6"].holds]
    assert found("F6", *none_right).verdict is Ruling.not_testable
    no_charge = {**CHARGE, "generation_charge_mah": 0.0, "prefill_charge_mah": 0.0}
    for id in ("F12", "F13"):
        assert found(id, cell(device=PHONE, speed=1, metrics=no_charge)).verdict is Ruling.not_testable
    same_size = [replace(one, model_bytes=10**9) for one in CASES["F1"].holds]
    assert found("F1", *same_size).verdict is Ruling.not_testable


def test_the_page_is_what_the_code_says() -> None:
    page = Path(__file__).parents[2] / "docs" / "findings.md"
    assert page.read_text() == document(), "run: python -m meltrepro.studies.melt.findings.registry > docs/findings.md"
