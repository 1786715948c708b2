"""Findings of what quantization makes of size and speed."""

from __future__ import annotations

from dataclasses import replace

import pytest

from meltrepro.studies.melt.findings.cells import unquantised
from meltrepro.studies.melt.findings.model import Ruling
from tests.support.findings import (
    CASES,
    found,
    seven,
)
from tests.support.results import HOST, OTHER, cell


def test_f4_pairs_quantizations_of_one_scheme() -> None:
    other = cell(quantization="q4_0", speed=1, size=4000)
    assert found("F4", *CASES["F4"].holds, other).numbers["pairs"].value == 1
    assert found("F4", CASES["F4"].holds[0], replace(other, model_bytes=400)).numbers["pairs"].value == 1


def test_f5_goes_by_sixteen_bits_where_nobody_tried() -> None:
    alone = seven("q4_0", size=3_800_000_000)
    finding = found("F5", alone)
    assert finding.verdict is Ruling.holds, "13.5 GB exceed 8 GB"
    assert finding.numbers["weight_ratio_median"].value == pytest.approx(3.547, abs=0.01)
    roomy = replace(alone, device=OTHER)
    assert found("F5", roomy).verdict is Ruling.fails
    tried_in_32 = seven("f32", device=OTHER, state="skipped", cause="memory")
    assert found("F5", roomy, tried_in_32).verdict is Ruling.fails, "32 bits that do not fit say nothing of 16"
    other_reason = seven("f16", state="failed", cause="timeout")
    assert found("F5", alone, other_reason).verdict is Ruling.holds, "a timeout is no lack of memory; the sum decides"


def test_f5_a_small_model_that_does_not_fit_speaks_for_the_claim() -> None:
    tiny = replace(HOST, memory_bytes=2 * 10**9)
    finding = found("F5", cell("gemma-2b", parameters=2.5e9, size=1_400_000_000, device=tiny))
    assert finding.verdict is Ruling.holds
    assert "7 billion" in finding.notes[0]


def test_f5_computes_whether_a_model_fits_in_4_bits_where_another_ran_so() -> None:
    roomy = replace(HOST, memory_bytes=24 * 10**9)
    other = cell("tinyllama", size=640_000_000, parameters=1.1e9, device=roomy)
    skipped = cell("llama-2-13b", "as-is", parameters=13e9, device=roomy, state="skipped", cause="memory")
    finding = found("F5", other, skipped)
    assert finding.verdict is Ruling.holds, finding.reason
    assert finding.numbers["weight_ratio_median"].value == pytest.approx(16 / (8 * 0.64 / 1.1))
    assert "llama-2-13b did not run in 4 bits" in finding.notes[-1]
    small = [replace(one, device=HOST) for one in (other, skipped)]
    assert found("F5", *small).verdict is Ruling.not_testable, "7.6 of 8 GB are too much"
    tried = replace(skipped, quantization="q4_0")
    assert found("F5", other, skipped, tried).verdict is Ruling.not_testable, "it was tried, and does not fit"


def test_a_file_as_it_came_is_unquantized_unless_it_says_otherwise() -> None:
    assert unquantised(cell(quantization="as-is"))
    assert unquantised(cell(quantization="as-is", size=200, parameters=100))
    assert not unquantised(cell(quantization="as-is", size=60, parameters=100))
    assert not unquantised(cell(quantization="as-is", source=("m.Q4_1.gguf",)))
    assert [unquantised(cell(quantization=q)) for q in ("f16", "f32", "q0f16", "q8_0", "odd")] == [True] * 3 + [
        False
    ] * 2
