"""Shares of operators: of the time, not of single calls, and only where they explain the decoder's time."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meltrepro.errors import RecordError
from meltrepro.measure.operators import breakdown
from meltrepro.record.events import parse_trace
from meltrepro.record.trace import Decoding, Operator, OperatorPhase, Trace
from tests.support.campaigns import Trial, as_lines, events

LAYERS, TOKENS = 32, 93
US = 1000
PER_CALL = {"lm_head": 4069, "gate_up": 2035, "qkv": 1139, "down": 1022, "output": 389, "attention": 389}
"""Microseconds of one call: the shape of MELT's table for Llama-2-7B (its published shares: 45, 22.5, 12.6, ...)."""
PHASE: OperatorPhase = "generation"


def profiled(operators: list[Operator], decoding_ns: int) -> Trace:
    trace = parse_trace(as_lines(events(Trial())))
    return replace(trace, decoding=(Decoding(PHASE, TOKENS, decoding_ns),), operators=tuple(operators))


def test_an_operator_that_runs_once_a_token_does_not_look_like_one_of_every_layer() -> None:
    """MELT averaged the calls before it took shares: its LM head had 45 %; of the time, it has 2.5 %."""
    calls = {name: TOKENS * (1 if name == "lm_head" else LAYERS) for name in PER_CALL}
    operators = [Operator(PHASE, "MUL_MAT", name, calls[name], calls[name] * us * US) for name, us in PER_CALL.items()]
    total = sum(operator.ns for operator in operators)
    shares = {share.module: share for share in breakdown(profiled(operators, total), PHASE).shares}
    assert shares["lm_head"].call_share == pytest.approx(0.45, abs=0.001)
    assert shares["lm_head"].time_share == pytest.approx(0.025, abs=0.001)
    assert shares["gate_up"].time_share == pytest.approx(0.40, abs=0.01)
    assert shares["lm_head"].mean_us == pytest.approx(4069)
    assert sum(share.time_share for share in shares.values()) == pytest.approx(1)
    assert sum(share.call_share for share in shares.values()) == pytest.approx(1)


@given(st.lists(st.tuples(st.integers(1, 1000), st.integers(1, 10**9)), min_size=1, max_size=20), st.integers(0, 10**6))
def test_shares_sum_to_the_coverage(times: list[tuple[int, int]], rest: int) -> None:
    operators = [Operator(PHASE, "ADD", f"m{i}", count, ns) for i, (count, ns) in enumerate(times)]
    total = sum(ns for _, ns in times)
    decoding_ns = total + min(rest, total // 20)
    found = breakdown(profiled(operators, decoding_ns), PHASE)
    assert sum(share.time_share for share in found.shares) == pytest.approx(found.coverage) == total / decoding_ns
    assert [share.ns for share in found.shares] == sorted((ns for _, ns in times), reverse=True)


@pytest.mark.parametrize(
    ("operators", "decoding_ns", "message"),
    [
        ([Operator(PHASE, "ADD", "", 1, 89)], 100, "explain 89.0% of the decoder's time in generation, needed 90%"),
        ([Operator(PHASE, "ADD", "", 1, 101)], 100, "more than the 100 ns"),
        ([], 100, "no operators of generation"),
        ([Operator("prefill", "ADD", "", 1, 100)], 100, "no operators of generation"),
    ],
)
def test_what_does_not_explain_the_phase_is_refused(operators: list[Operator], decoding_ns: int, message: str) -> None:
    with pytest.raises(RecordError, match=message):
        breakdown(profiled(operators, decoding_ns), PHASE)


def test_a_trial_without_profile_has_no_operators() -> None:
    with pytest.raises(RecordError, match="no operators of prefill"):
        breakdown(parse_trace(as_lines(events(Trial()))), "prefill")
