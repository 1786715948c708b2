"""Findings of speed, of lasting load and of operators."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from meltrepro.measure.operators import Share
from meltrepro.report.derive import is_attention
from meltrepro.report.results import TurnResult
from meltrepro.studies.melt.findings.model import Ruling
from meltrepro.studies.melt.findings.operators import is_weight_matmul
from meltrepro.studies.melt.findings.registry import evaluate
from tests.support.findings import (
    CASES,
    FLAT,
    found,
)
from tests.support.results import cell, table, turns


def test_gpu_cells_decide_f2_where_there_are_any() -> None:
    (slow,), (fast,) = CASES["F2"].fails, CASES["F2"].holds
    finding = found("F2", slow, replace(fast, accelerated=True))
    assert finding.verdict is Ruling.holds
    assert finding.notes == ()
    assert "GPU" in found("F2", fast).notes[0]


def test_f14_takes_out_what_the_context_costs() -> None:
    """Speed falls by the context alone: 50 ms a token, and 0.05 ms more for each token in the context."""

    def speed(position: float, heat: float = 1.0) -> float:
        return 1 / (heat * (0.05 + 0.00005 * position))

    def held(conversation: int, count: int, *, heats: bool = False) -> tuple[TurnResult, ...]:
        plain = turns([1.0] * count, conversation=conversation, n_gen=60, grow=80)
        return tuple(
            replace(
                t,
                generation_tps=speed(t.n_past - 30, 1.5 if heats and t.turn >= count // 2 else 1.0),
                began_s=t.turn * 3.5,
            )
            for t in plain
        )

    macro = cell(workload="macro", speed=10, turns=held(0, 8) + held(1, 8))
    cool = cell(workload="sustained", speed=10, turns=held(0, 48))
    hot = cell(workload="sustained", speed=10, turns=held(0, 48, heats=True))
    assert found("F14", cool).verdict is Ruling.not_testable
    finding = found("F14", cool, macro)
    assert finding.verdict is Ruling.fails, finding.numbers
    assert finding.numbers["last_over_first_lowest"].value < 0.5
    assert finding.numbers["corrected_lowest"].value == pytest.approx(1, abs=0.02)
    assert found("F14", hot, macro).verdict is Ruling.holds


def test_f14_needs_load_that_lasts() -> None:
    quick = cell(speed=10, turns=turns([20.0] * 8 + [10.0] * 8, grow=0, n_gen=4))
    assert "30 s" in found("F14", quick).reason
    paused = turns([20.0] * 16 + [10.0] * 16, grow=0, n_gen=60)
    idle = cell(speed=10, turns=tuple(replace(turn, began_s=turn.turn * 100) for turn in paused))
    assert found("F14", idle).verdict is Ruling.not_testable
    brief = found("F14", cell(speed=10, turns=paused))
    assert brief.verdict is Ruling.holds
    assert "minutes" in brief.notes[0]


def test_f20_tells_where_heat_may_be_the_cause() -> None:
    alone = cell("other", speed=10, turns=turns(FLAT))
    finding = found("F20", *CASES["F20"].holds, alone)
    assert (finding.verdict, finding.numbers["cells"].value) == (Ruling.fails, 2)
    assert "1 of 2 cells had one conversation" in finding.notes[0]
    assert found("F20", *CASES["F20"].holds).notes == ()


@pytest.mark.parametrize("id", ["F8", "F9"])
def test_a_profile_that_is_mostly_the_profiler_decides_nothing(id: str) -> None:
    slow = [replace(one, profile_slowdown=6.3) for one in CASES[id].holds]
    finding = next(one for one in evaluate(table(*slow)) if one.definition.id == id)
    assert finding.verdict is Ruling.not_testable
    assert "slowed generation 6.3 times" in finding.reason
    swift = [replace(one, profile_slowdown=1.4) for one in CASES[id].holds]
    assert next(one for one in evaluate(table(*swift)) if one.definition.id == id).verdict is Ruling.holds


@pytest.mark.parametrize(
    ("name", "module", "kind"),
    [
        ("MUL_MAT", "ffn_up", is_weight_matmul),
        ("MUL_MAT", "kqv", is_attention),
        ("FLASH_ATTN_EXT", "", is_attention),
        ("MatMulNBits", "attn_q", is_weight_matmul),
        ("GroupQueryAttention", "attention", is_attention),
        ("FullyConnectedCompressed", "attn_output", is_weight_matmul),
        ("ScaledDotProductAttentionWithKVCache", "attention", is_attention),
        ("vector_product_q4_0", "attn_qkv", is_weight_matmul),
        ("matrix_product_q4_0", "ffn_down", is_weight_matmul),
        ("attend", "attention", is_attention),
        ("RMS_NORM", "attn_norm", None),
    ],
)
def test_operators_are_known_by_the_names_of_each_engine(
    name: str, module: str, kind: Callable[[Share], bool] | None
) -> None:
    share = Share(name, module, 1, 1, 1.0, 1.0)
    assert [rule for rule in (is_weight_matmul, is_attention) if rule(share)] == ([kind] if kind else [])
