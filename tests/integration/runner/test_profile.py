"""What real runners tell besides tokens: operators, pauses, sync marks."""

from __future__ import annotations

import resource
from itertools import pairwise

import pytest

from meltrepro.manifest.meters import SyncMark
from meltrepro.measure.operators import breakdown
from meltrepro.record.trace import OperatorPhase
from tests.integration.runner.contract import FIRST, SECOND, STORY, Runner

pytestmark = pytest.mark.integration

BUSY = 0.5
"""Least part of the time that is asked for here: beside other tests, the process waits between operators too."""


def test_operator_profile(runner: Runner) -> None:
    trace = runner(profile="operators", ignore_eos=True, max_tokens=9, conversations=[[STORY], [FIRST]]).trace
    measured: tuple[tuple[OperatorPhase, int, int], ...] = (
        ("prefill", 2, sum(turn.prefill.end_ns - turn.prefill.begin_ns for turn in trace.turns if turn.prefill)),
        ("generation", 16, sum(turn.end_ns - turn.prefill.end_ns for turn in trace.turns if turn.prefill)),
    )
    for phase, calls, spent in measured:
        found = breakdown(trace, phase, least_coverage=BUSY)
        assert found.calls == calls
        assert BUSY * spent < found.ns <= spent
        calls_of = {(share.name, share.module): share.calls for share in found.shares}
        # Thirty layers, once a layer, for each time that the model was walked: 2 prompts, 8 + 8 tokens.
        for module in ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"):
            assert calls_of["MUL_MAT", module] == 30 * calls
        assert calls_of["RMS_NORM", "norm"] == 61 * calls
        assert {calls for (name, module), calls in calls_of.items() if module in ("output", "token_embd")} == {calls}
        nodes = [node for node in trace.nodes if node.phase == phase]
        assert len(nodes) == sum(share.calls for share in found.shares) // calls
        assert all(before.span.end_ns <= after.span.begin_ns for before, after in pairwise(nodes))
    assert not runner().trace.operators


def test_weights_are_mapped_or_read(runner: Runner) -> None:
    """Read, they are memory of the process's own and of no file; the text stays the same."""
    mapped, read = (runner(mmap=mmap, context=256, batch=32, max_tokens=4).trace for mmap in (True, False))
    weights = mapped.load.model_bytes
    of_file = [trace.memory[-1].rss_file or 0 for trace in (mapped, read)]
    own = [trace.memory[-1].rss_anon or 0 for trace in (mapped, read)]
    assert of_file[0] > 0.9 * weights > 0.1 * weights > of_file[1] > 0
    assert own[1] - own[0] > 0.9 * weights
    assert [turn.text for turn in mapped.turns] == [turn.text for turn in read.turns]


def test_pauses_lie_between_turns_and_between_conversations(runner: Runner) -> None:
    trace = runner(
        conversations=[[FIRST, SECOND], [FIRST]], max_tokens=2, turn_pause_ms=150, conversation_pause_ms=300
    ).trace
    (first, second), (other,) = (conversation.turns for conversation in trace.conversations)
    assert second.begin_ns - first.end_ns >= 150e6
    assert other.begin_ns - second.end_ns >= 300e6
    assert trace.done_ns - other.end_ns < 150e6


def test_a_sync_mark_before_and_after(runner: Runner) -> None:
    """The pulses take the planned times, with every thread busy, and rests are between them."""
    before_s = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    mark = SyncMark(pulses_ms=[300, 100], rest_ms=50)
    trace = runner(sync_mark=mark, warmup_tokens=0, max_tokens=1, threads=1).trace
    used_s = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before_s
    lengths_ms = [(pulse.end_ns - pulse.begin_ns) / 1e6 for pulse in trace.pulses]
    assert len(lengths_ms) == 4
    for planned, length_ms in zip((300, 100, 300, 100), lengths_ms, strict=True):
        assert planned <= length_ms < planned + 200
    assert all(after.begin_ns - before.end_ns >= 50e6 for before, after in pairwise(trace.pulses))
    assert trace.context.t_ns < trace.pulses[0].begin_ns
    assert trace.pulses[1].end_ns < trace.conversations[0].begin_ns
    assert trace.conversations[-1].end_ns < trace.pulses[2].begin_ns
    assert used_s > 0.4
