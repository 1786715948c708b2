"""Findings of energy, batteries and heat."""

from __future__ import annotations

from dataclasses import replace

import pytest

from meltrepro.studies.melt.findings.energy import watts
from meltrepro.studies.melt.findings.model import Ruling
from tests.support.findings import (
    CASES,
    found,
    powers,
)
from tests.support.results import PHONE, cell


def test_f10_tells_that_sizes_are_of_one_model() -> None:
    four = [replace(one, model="m", quantization=f"q{i + 2}_0") for i, one in enumerate(CASES["F10"].holds)]
    assert "one model" in found("F10", *four).notes[0]
    assert found("F10", *four[:3]).verdict is Ruling.not_testable


def test_f21_needs_rest_to_be_low_where_it_was_measured() -> None:
    assert found("F21", powers(8, 5, idle_power_w=4.9)).verdict is Ruling.fails
    untold = found("F21", powers(8, 5))
    assert untold.verdict is Ruling.holds
    assert "idle_s" in untold.notes[0]


@pytest.mark.parametrize(
    ("name", "budget"),
    [("15W", 15), ("MODE_30W", 30), ("MAXN", float("inf")), ("MAXN_SUPER", float("inf")), ("EDP", None), (None, None)],
)
def test_budgets_of_power_modes(name: str | None, budget: float | None) -> None:
    assert watts(name) == budget


@pytest.mark.parametrize("id", ["F12", "F13"])
def test_batteries_quote_what_cells_say(id: str) -> None:
    why = {"prefill_charge_mah": "the unit of the battery's current is not known: meltrepro devices probe"}
    silent = [cell(name, device=PHONE, speed=1, unavailable=why) for name in ("a", "b")]
    assert found(id, *silent).reason == f"needs the charge that prompts draw: {why['prefill_charge_mah']}"
    other = cell("c", device=PHONE, speed=1, unavailable={"generation_charge_mah": "the sampler died"})
    reason = found(id, *silent, other).reason
    assert f"{why['prefill_charge_mah']} (2 of 3 cells); the sampler died (1 of 3 cells)" in reason
    noisy = cell(device=PHONE, speed=1, state="invalid", cause="noisy")
    assert found(id, noisy).reason.startswith("no cell of a phone was measured: invalid (noisy)")
    assert found(id, cell(speed=1)).reason == "needs a phone: no cell is of one"


def test_power_and_heat_quote_what_cells_say() -> None:
    why = "the meter's file has no power"
    lacking = {"energy_per_token_j": why, "prefill_power_w": why, "temperature_max_c": "no thermometer"}
    silent = cell(device=PHONE, speed=1, unavailable=lacking)
    assert found("F10", silent).reason == f"needs energy per token: {why}"
    assert found("F21", silent).reason == f"needs the power of both phases: {why}"
    assert found("F15", silent).reason == "needs a phone that shows a temperature: no thermometer"
