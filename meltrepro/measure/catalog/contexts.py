"""What is done with a context besides reading prompts and writing answers: files of it, and tokens that were foreseen."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from meltrepro.measure.integrals import NoValue
from meltrepro.measure.metric import Facts, Metric, generation_ns
from meltrepro.record.trace import Drafted, Turn


def _restore_ms(facts: Facts) -> float:
    spans = [turn.restored for turn in facts.turns if turn.restored is not None]
    if not spans:
        raise NoValue("no context was read from a file")
    return median((span.end_ns - span.begin_ns) / 1e6 for span in spans)


def _context_file_bytes(facts: Facts) -> float:
    sizes = [each.fill.saved_bytes for each in facts.trace.conversations if each.fill and each.fill.saved_bytes]
    if not sizes:
        raise NoValue("no context was written to a file")
    return float(max(sizes))


def _drafted(facts: Facts) -> Sequence[tuple[Turn, Drafted]]:
    found = [(turn, turn.drafted) for turn in facts.flowing if turn.drafted is not None]
    if not found:
        raise NoValue("no token was drafted: the workload does not ask for it")
    return found


def _accepted_share(facts: Facts) -> float:
    drafts = [drafted for _, drafted in _drafted(facts)]
    if not any(each.tokens for each in drafts):
        raise NoValue("nothing in the texts could be foreseen")
    return sum(each.accepted for each in drafts) / sum(each.tokens for each in drafts)


def _step_tokens(facts: Facts) -> float:
    turns = [turn for turn, _ in _drafted(facts)]
    steps = sum(turn.steps for turn in turns)
    if steps == 0:
        raise NoValue("every token was foreseen with the first")
    return sum(turn.n_gen - 1 for turn in turns) / steps


def _draft_time_share(facts: Facts) -> float:
    found = _drafted(facts)
    return sum(drafted.ns for _, drafted in found) / sum(generation_ns(turn) for turn, _ in found)


CONTEXTS = (
    Metric(
        name="restore_ms",
        unit="ms",
        phase="context",
        better="lower",
        meaning="reading a filled context from a file; part of ttft_ms",
        formula="median over turns of t(restore_end) - t(restore_begin)",
        source="restore_begin, restore_end",
        invalid_when="the workload does not ask for it",
        compute=_restore_ms,
    ),
    Metric(
        name="context_file_bytes",
        unit="bytes",
        phase="context",
        better="lower",
        meaning="size of the file of a filled context",
        formula="largest bytes of any save_end",
        source="save_end",
        invalid_when="the workload does not ask for it",
        compute=_context_file_bytes,
    ),
    Metric(
        name="accepted_share",
        unit="share",
        phase="context",
        better="higher",
        meaning="part of the drafted tokens that the model had chosen too",
        formula="sum of accepted over turns / sum of drafted",
        source="turn_end",
        invalid_when="the workload does not speculate, or nothing could be foreseen",
        compute=_accepted_share,
    ),
    Metric(
        name="step_tokens",
        unit="tokens",
        phase="context",
        better="higher",
        meaning="tokens of an answer that one step of the model gives, with those that were foreseen",
        formula="sum of n_gen - 1 over turns / sum of n_gen - 1 - accepted",
        source="turn_end",
        invalid_when="the workload does not speculate",
        compute=_step_tokens,
    ),
    Metric(
        name="draft_time_share",
        unit="share",
        phase="context",
        better="lower",
        meaning="part of the time of writing that drafting took",
        formula="sum of draft_ns over turns / sum of t(last token) - t(first token)",
        source="turn_end, token",
        invalid_when="the workload does not speculate",
        compute=_draft_time_share,
    ),
)
