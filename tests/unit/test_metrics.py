"""Metrics of synthetic trials against the truth that they were made from."""

from __future__ import annotations

import math
import re
import statistics
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from meltrepro.measure import metrics
from meltrepro.measure.catalog.experience import READING_TPS
from meltrepro.measure.metric import percentile
from meltrepro.measure.metrics import METRICS, Metrics, compute
from meltrepro.record.events import parse_trace
from tests.support.campaigns import MS, Trial, Turn, as_lines, events

DOCUMENT = Path(__file__).parents[2] / "docs" / "metrics.md"

turns = st.builds(
    Turn,
    prompt_tokens=st.integers(1, 500),
    tokenize_ns=st.integers(0, 10**7),
    prefill_ns=st.integers(0, 10**10),
    first_ns=st.integers(0, 10**7),
    gaps_ns=st.lists(st.integers(0, 10**9), max_size=12).map(tuple),
    tail_ns=st.integers(0, 10**7),
    fits=st.booleans(),
)
conversations = st.lists(st.lists(turns, max_size=3), max_size=3)


def measure(trial: Trial) -> Metrics:
    return compute(parse_trace(as_lines(events(trial))))


def one(turn: Turn) -> Metrics:
    return measure(Trial(conversations=[[turn]]))


def test_thinking_and_answer_have_their_own_tokens_and_times() -> None:
    thinks = Turn(thinking=(0, 4), gaps_ns=(20 * MS,) * 9)
    values = measure(Trial(conversations=[[thinks, replace(thinks, thinking=(1, 7))]])).values
    # 1 ms to tokenize, 100 of prefill, 1 to the first token; then 4 and 7 times 20.
    assert values["ttfat_ms"] == pytest.approx(statistics.median([102 + 4 * 20, 102 + 7 * 20]))
    assert values["ttft_ms"] == pytest.approx(102)
    assert values["thinking_tokens"] == 5
    assert values["answer_tokens"] == 4.5
    untold = measure(Trial())
    for name in ("ttfat_ms", "thinking_tokens", "answer_tokens"):
        assert "models.NAME.thinking" in untold.unavailable[name]


def test_two_plain_turns() -> None:
    values = measure(Trial()).values
    assert values["load_s"] == pytest.approx(0.4)
    assert values["prefill_tps"] == pytest.approx(30 / 0.150)
    assert values["generation_tps"] == pytest.approx(50)
    assert values["ttft_ms"] == pytest.approx((102 + 52) / 2)
    assert values["tpot_ms"] == pytest.approx(20)
    assert values["itl_p50_ms"] == values["itl_p99_ms"] == pytest.approx(20)
    assert values["prompt_tokens"] == 30
    assert values["generated_tokens"] == 20
    assert values["turns"] == 2
    assert values["turn_accounted_share"] == 1
    assert values["peak_memory_bytes"] == 180_000_000
    assert values["rss_anon_bytes"] == 60_000_000
    assert values["rss_file_bytes"] == values["model_bytes"] == 98_000_000
    assert values["kv_bytes"] == 23_000_000
    assert values["swap_bytes"] == 0
    assert (values["reading_met_share"], values["stall_share"], values["stalled_s"]) == (1, 0, 0)
    assert set(values) == {
        name
        for name, metric in METRICS.items()
        if metric.phase not in ("context", "link", "thinking", "device", "energy", "answers")
    }


@given(conversations)
def test_every_metric_against_the_truth(held: list[list[Turn]]) -> None:
    measured = measure(Trial(conversations=held))
    all_turns = [turn for conversation in held for turn in conversation]
    read = [turn for turn in all_turns if turn.fits]
    flowing = [turn for turn in read if turn.gaps_ns]
    gaps = [gap / 1e6 for turn in flowing for gap in turn.gaps_ns]
    prompted = [turn for turn in read if turn.prompt_tokens > 1]
    prefill_ns = sum(turn.prefill_ns for turn in prompted)
    wall_ns = sum(t.tokenize_ns + t.prefill_ns + t.first_ns + sum(t.gaps_ns) + t.tail_ns for t in read)
    truth: dict[str, float] = {
        "prompt_tokens": sum(turn.prompt_tokens for turn in read),
        "generated_tokens": sum(turn.count for turn in read),
        "turns": len(read),
    }
    if prefill_ns:
        truth["prefill_tps"] = sum(turn.prompt_tokens for turn in prompted) / (prefill_ns / 1e9)
    if sum(gaps):
        truth["generation_tps"] = len(gaps) / (sum(gaps) / 1e3)
        truth["tpot_ms"] = statistics.median(statistics.fmean(turn.gaps_ns) / 1e6 for turn in flowing)
        truth |= {f"itl_p{p}_ms": float(np.percentile(gaps, p)) for p in (1, 50, 90, 99)}
        # All that a reader has waited is how late the latest token was, for one who never had to wait.
        late_s = [[sum(t.gaps_ns[:k]) / 1e9 - k / READING_TPS for k in range(len(t.gaps_ns) + 1)] for t in flowing]
        truth["stalled_s"] = statistics.fmean(max(each) for each in late_s)
        truth["reading_met_share"] = statistics.fmean(max(each) <= 1e-12 for each in late_s)
    if prompted:
        truth["ttft_ms"] = statistics.median((t.tokenize_ns + t.prefill_ns + t.first_ns) / 1e6 for t in prompted)
    if wall_ns:
        truth["turn_accounted_share"] = 1 - sum(t.tail_ns for t in read) / wall_ns
    elsewhere = {"load_s", "stall_share", "bandwidth_bytes_per_s"} | {n for n in METRICS if n.endswith("_bytes")}
    for name in truth.keys() | measured.values.keys() - elsewhere:
        assert measured.values[name] == pytest.approx(truth[name], rel=1e-9, abs=1e-9), name
    assert measured.values.keys() | measured.unavailable.keys() == METRICS.keys()
    assert not measured.values.keys() & measured.unavailable.keys()
    assert all(map(math.isfinite, measured.values.values()))
    assert all(measured.unavailable.values())


def test_a_turn_without_tokens_has_no_speed_and_no_zero() -> None:
    measured = one(Turn(tokens=0))
    for name in ("generation_tps", "ttft_ms", "tpot_ms", "itl_p50_ms", "turn_accounted_share"):
        assert name not in measured.values
        assert measured.unavailable[name] == "no turn has a token"
    assert measured.values["generated_tokens"] == 0
    assert measured.values["prefill_tps"] == pytest.approx(200)


def test_a_single_token_has_a_first_token_and_no_speed() -> None:
    measured = one(Turn(gaps_ns=()))
    assert measured.values["ttft_ms"] == pytest.approx(102)
    assert measured.values["generated_tokens"] == 1
    assert measured.unavailable["generation_tps"] == "no turn has a second token"
    assert "tpot_ms" not in measured.values


def test_the_first_token_is_no_part_of_the_generation_speed() -> None:
    slow_start, quick_start = one(Turn(first_ns=900 * MS)), one(Turn(first_ns=0))
    assert slow_start.values["generation_tps"] == quick_start.values["generation_tps"] == pytest.approx(50)
    assert slow_start.values["ttft_ms"] - quick_start.values["ttft_ms"] == pytest.approx(900)


def test_tokens_at_one_moment_have_no_speed() -> None:
    measured = one(Turn(gaps_ns=(0, 0, 0)))
    assert measured.unavailable["generation_tps"] == "no time passed between tokens"


def test_a_prompt_that_does_not_fit_is_no_turn() -> None:
    measured = measure(Trial(conversations=[[Turn(), Turn(fits=False, prompt_tokens=5000)]]))
    assert measured.values["turns"] == 1
    assert measured.values["prompt_tokens"] == 20
    assert measured.values["prefill_tps"] == pytest.approx(200)
    nothing = one(Turn(fits=False))
    assert nothing.unavailable["prefill_tps"] == "no turn has a prefill"
    assert nothing.values["turns"] == 0


def test_time_after_the_last_token_is_unaccounted() -> None:
    measured = one(Turn(tokenize_ns=0, prefill_ns=600 * MS, first_ns=0, gaps_ns=(300 * MS,), tail_ns=100 * MS))
    assert measured.values["turn_accounted_share"] == pytest.approx(0.9)


def test_speed_weighs_turns_by_their_time() -> None:
    """A trial's speed is tokens over time; the mean of the turns' speeds would be 55."""
    fast, slow = Turn(gaps_ns=(10 * MS,) * 10), Turn(gaps_ns=(100 * MS,) * 10)
    values = measure(Trial(conversations=[[fast, slow]])).values
    assert values["generation_tps"] == pytest.approx(20 / 1.1)


def test_the_time_between_turns_is_in_no_gap() -> None:
    values = measure(Trial(conversations=[[Turn(gaps_ns=(MS, MS)), Turn(gaps_ns=(MS, MS))]])).values
    assert values["itl_p99_ms"] == pytest.approx(1)


def test_memory_that_the_device_hides_is_unavailable() -> None:
    measured = measure(Trial(hwm=None, rss_anon=None, rss_file=None, swap=None, kv_bytes=None))
    for name in ("peak_memory_bytes", "rss_anon_bytes", "rss_file_bytes", "swap_bytes"):
        assert measured.unavailable[name] == "the runner could not read it"
    assert measured.unavailable["kv_bytes"] == "the framework does not say"
    no_turn = measure(Trial(conversations=[]))
    assert no_turn.unavailable["rss_anon_bytes"] == "the runner read no memory"
    assert no_turn.values["peak_memory_bytes"] == 180_000_000


def test_loading_contains_nothing_but_loading() -> None:
    assert measure(Trial(load_ns=123 * MS, warmup_tokens=64)).values["load_s"] == pytest.approx(0.123)


def test_a_reader_waits_for_slow_tokens_only() -> None:
    """5.29 tokens/s are read: one gap of 1 s after a quick start leaves less of a wait than one at the beginning."""
    read_s = 1 / READING_TPS
    late = one(Turn(gaps_ns=(MS, MS, 1000 * MS, MS))).values
    assert late["stalled_s"] == pytest.approx(1.002 - 3 * read_s)
    assert late["stall_share"] == pytest.approx(1 / 4)
    assert late["reading_met_share"] == 0
    early = one(Turn(gaps_ns=(1000 * MS, MS, MS, MS))).values
    assert early["stalled_s"] == pytest.approx(1.0 - read_s)
    slow = one(Turn(gaps_ns=(500 * MS,) * 4)).values
    assert slow["stall_share"] == 1
    assert slow["stalled_s"] == pytest.approx(4 * (0.5 - read_s))
    fast = one(Turn(gaps_ns=(round(0.99e9 * read_s),) * 50)).values
    assert (fast["reading_met_share"], fast["stalled_s"]) == (1, 0)


def test_bandwidth_counts_weights_and_the_keys_and_values_before_each_token() -> None:
    trace = parse_trace(as_lines(events(Trial(conversations=[[Turn(prompt_tokens=100, gaps_ns=(20 * MS,) * 10)]]))))
    (turn,) = trace.turns
    positions = [turn.n_past - 10 + i for i in range(10)]
    per_position = (trace.context.kv_bytes or 0) / trace.context.n_ctx
    moved = sum(trace.load.model_bytes + (position + 0.5) * per_position for position in positions)
    assert compute(trace).values["bandwidth_bytes_per_s"] == pytest.approx(moved / 0.2)


def test_bandwidth_by_hand() -> None:
    """Three tokens after a prompt of 4: two decodings, before which 4 and 5 positions are filled; 100 bytes a position.

    2 x 1000 + 100 x (4.5 + 5.5) = 3000 bytes in 0.1 s.
    """
    trace = parse_trace(as_lines(events(Trial(conversations=[[Turn(prompt_tokens=4, gaps_ns=(60 * MS, 40 * MS))]]))))
    (turn,) = trace.turns
    assert (turn.n_gen, turn.n_past) == (3, 6)
    context = replace(trace.context, n_ctx=64, kv_bytes=6400)
    found = compute(replace(trace, context=context, load=replace(trace.load, model_bytes=1000)))
    assert found.values["bandwidth_bytes_per_s"] == pytest.approx(30_000)


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=50), st.floats(0, 1))
def test_percentile_interpolates_between_ranks(values: list[float], share: float) -> None:
    expected = float(np.percentile(values, share * 100, method="linear"))
    assert percentile(sorted(values), share) == pytest.approx(expected, rel=1e-9, abs=1e-6)


@given(conversations, st.integers(2, 5))
def test_slower_by_a_factor_is_slower_by_that_factor(held: list[list[Turn]], factor: int) -> None:
    def stretched(turn: Turn) -> Turn:
        return Turn(
            prompt_tokens=turn.prompt_tokens,
            tokenize_ns=turn.tokenize_ns * factor,
            prefill_ns=turn.prefill_ns * factor,
            first_ns=turn.first_ns * factor,
            gaps_ns=tuple(gap * factor for gap in turn.gaps_ns),
            tail_ns=turn.tail_ns * factor,
            fits=turn.fits,
        )

    before = measure(Trial(conversations=held)).values
    after = measure(Trial(conversations=[[stretched(turn) for turn in turns] for turns in held])).values
    assume("generation_tps" in before)
    assert before.keys() == after.keys()
    for name in ("generation_tps", "prefill_tps"):
        if name in before:
            assert before[name] / after[name] == pytest.approx(factor)
    for name in ("ttft_ms", "tpot_ms", "itl_p90_ms"):
        if name in before:
            assert after[name] == pytest.approx(before[name] * factor)


def test_the_document_is_generated_from_the_registry() -> None:
    assert DOCUMENT.read_text() == metrics.document(), "run: python -m meltrepro.measure.metrics > docs/metrics.md"


def test_every_definition_is_complete() -> None:
    units = {"s": "_s", "ms": "_ms", "tokens/s": "_tps", "bytes": "_bytes", "share": "_share"}
    for name, metric in METRICS.items():
        assert re.fullmatch(r"[a-z][a-z0-9_]*", name)
        assert name.endswith(units.get(metric.unit, name))
        assert all((metric.meaning, metric.formula, metric.source, metric.invalid_when))
        assert "|" not in metric.formula + metric.meaning
