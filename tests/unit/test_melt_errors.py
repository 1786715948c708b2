"""Errors in MELT's published data, each met again with its inputs: our figure is the right one.

The numbers are those of the project's notes on MELT's artifact, section 8: items 2 to 7 and 11.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from meltrepro.measure.energy import energy, supply_of
from meltrepro.measure.integrals import SampleLimits
from meltrepro.measure.metrics import Metrics, compute
from meltrepro.measure.operators import breakdown
from meltrepro.measure.records import read_campaign
from meltrepro.record.events import parse_trace
from meltrepro.record.samples import Header, Recording
from meltrepro.record.trace import Trace
from meltrepro.record.trial import Request
from tests.support.campaigns import MS, Cell, Trial, Turn, as_lines, build_campaign, events, noisy, profile
from tests.support.power import sampled, span, steps
from tests.unit.test_results_table import shown


def trace(trial: Trial) -> Trace:
    return parse_trace(as_lines(events(trial)))


def measure(*turns: Turn, load_ns: int = 400 * MS) -> Metrics:
    return compute(trace(Trial(conversations=[list(turns)], load_ns=load_ns)))


def test_item_2_the_length_cap_counts_tokens() -> None:
    """LLMFarm compared the cap with characters. Ours is a number of tokens, and what was generated is counted so."""
    assert Request.model_fields["max_tokens"].annotation is int
    many_characters = measure(Turn(gaps_ns=(20 * MS,) * 63))
    assert many_characters.values["generated_tokens"] == 64


def test_item_3_a_pause_before_the_first_prompt_is_no_load_time() -> None:
    """The scripts slept for 5 s after starting the program and counted it: 5.9 s for a load of 0.9 s."""
    slept = measure(Turn(tokenize_ns=0), load_ns=900 * MS)
    assert slept.values["load_s"] == pytest.approx(0.9)
    entries = events(Trial(load_ns=900 * MS))
    first = next(i for i, entry in enumerate(entries) if entry["e"] == "conversation_begin")
    for entry in entries[first:]:
        entry["t"] += 5_000 * MS
    late = compute(parse_trace(as_lines(entries)))
    assert late.values["load_s"] == pytest.approx(0.9)
    assert late.values["generation_tps"] == pytest.approx(compute(trace(Trial())).values["generation_tps"])


def test_item_4_every_token_has_an_event_of_its_own_in_nanoseconds() -> None:
    """MLC's decode events overwrote each other, and Android's were whole milliseconds."""
    gaps = (20_500_123, 19_499_877, 20_000_001)
    (turn,) = trace(Trial(conversations=[[Turn(gaps_ns=gaps)]])).turns
    assert tuple(after - before for before, after in zip(turn.token_ns, turn.token_ns[1:], strict=False)) == gaps
    assert len(set(turn.token_ns)) == turn.n_gen == 4


def test_item_5_energy_is_divided_by_tokens_once() -> None:
    """12 s at 5 W for 100 tokens are 0.6 J per token; the notebook divided once more and had 0.006."""
    power = sampled(steps([(2, 1.0), (12, 5.0), (2, 1.0)]), 16, 50.0)
    recording = Recording(Header("x", 50.0, (power.channel,), None), (power,), (), None, None, torn=False)
    found = energy(supply_of(recording), [span(2, 14)], SampleLimits(gap_s=1))
    assert found.total.value == pytest.approx(60, rel=0.01)
    assert found.total.scaled(1 / 100).value == pytest.approx(0.6, rel=0.01)


def test_item_5_a_run_of_many_prompts_is_weighed_by_its_tokens() -> None:
    """Per-token values of the prompts were summed, whatever their lengths: a ratio of sums is what is meant."""
    short, long = Turn(gaps_ns=(10 * MS,) * 2), Turn(gaps_ns=(100 * MS,) * 200)
    assert measure(short, long).values["generation_tps"] == pytest.approx(202 / (0.02 + 20.0))


def test_item_5_energy_of_many_prompts_is_a_ratio_of_sums() -> None:
    """5 W throughout: 2 s for 10 tokens, then 10 s for 200. Their 1 and 0.25 J per token were added up to 1.25."""
    power = sampled(steps([(2, 1.0), (2, 5.0), (2, 1.0), (10, 5.0), (2, 1.0)]), 18, 50.0)
    recording = Recording(Header("x", 50.0, (power.channel,), None), (power,), (), None, None, torn=False)
    found = energy(supply_of(recording), [span(2, 4), span(6, 16)], SampleLimits(gap_s=1))
    assert found.total.value == pytest.approx(60, rel=0.01)
    assert found.total.scaled(1 / 210).value == pytest.approx(60 / 210, rel=0.01)


def test_item_6_shares_of_operators_are_of_time() -> None:
    """Means of calls were taken for shares of time: an LM head that runs once a token had 45 %. It has 2.5 %."""
    per_call_us = {"LM head": 45.0, "attention": 22.5, "feed-forward": 32.5}
    calls = {"LM head": 1, "attention": 32, "feed-forward": 32}
    operators = {name: (calls[name], round(1000 * calls[name] * us)) for name, us in per_call_us.items()}
    trial = events(Trial())
    trial[-1:-1] = profile(Cell("q", operators=operators), trial[-1]["t"])
    shares = {share.module: share for share in breakdown(parse_trace(as_lines(trial)), "generation").shares}
    assert shares["LM head"].time_share == pytest.approx(0.025, abs=0.001)
    assert shares["LM head"].mean_us == pytest.approx(45)


def test_item_7_rows_that_were_copied_are_named(tmp_path: Path) -> None:
    """Zephyr's row was TinyLlama's, and nobody saw it: two campaigns of chance are never equal to the last bit."""
    twin, other = noisy(40), noisy(55)
    cells = [Cell("tinyllama", trial=twin), Cell("zephyr", trial=twin), Cell("gemma", trial=other)]
    folder = build_campaign(tmp_path, cells)
    assert read_campaign(folder).copied == (), "one value three times may be a clock that is too coarse"
    for cell in cells:
        place = folder / "cells" / cell.id
        for index in range(3):
            truth = noisy(55 if cell.quantization == "gemma" else 40, seed=index)
            (place / f"r{index:03d}" / "events.jsonl").write_bytes(b"".join(as_lines(events(truth))))
    ((first, second),) = read_campaign(folder).copied
    assert ("tinyllama" in first, "zephyr" in second) == (True, True)
    assert "equally fast to the last bit" in shown(folder)


def test_item_11_a_prompt_without_an_answer_leaves_no_stale_figure() -> None:
    """Of a prompt without a token, the figure of the one before was kept."""
    metrics = measure(Turn(gaps_ns=(20 * MS,) * 10, prefill_ns=100 * MS, prompt_tokens=10), Turn(fits=False))
    assert metrics.values["turns"] == 1
    assert metrics.values["prefill_tps"] == pytest.approx(100)
    nothing = measure(Turn(fits=False))
    assert "generation_tps" in nothing.unavailable
    assert "prefill_tps" in nothing.unavailable
