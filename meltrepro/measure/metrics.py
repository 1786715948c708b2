"""Every metric has one definition, and it is here: name, unit, formula, source and the function that computes it.

`docs/metrics.md` is generated from this registry (`python -m meltrepro.measure.metrics > docs/metrics.md`). A metric
that cannot be had is absent with a reason; it is never zero, infinite or a guess.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import median
from typing import Literal

from meltrepro.measure.traces import Memory, Span, Trace, Turn

Better = Literal["higher", "lower"]
Phase = Literal["load", "prefill", "generation", "turn", "memory", "work"]


@dataclass(frozen=True)
class Metric:
    """One metric of a trial."""

    name: str
    unit: str
    phase: Phase
    better: Better | None
    """Which direction is an improvement; `None` where neither is."""
    meaning: str
    formula: str
    source: str
    """Events of docs/runner.md that it is computed from."""
    invalid_when: str
    """When there is no value."""
    compute: Callable[[_Facts], float]
    """Raises `_UnavailableError`."""


@dataclass(frozen=True)
class Metrics:
    """The metrics of one trial."""

    values: Mapping[str, float]
    unavailable: Mapping[str, str]
    """Metric name -> why there is no value."""


def compute(trace: Trace) -> Metrics:
    """Every metric of a trial; each name is either in `values` or in `unavailable`."""
    facts = _Facts(trace)
    values: dict[str, float] = {}
    unavailable: dict[str, str] = {}
    for metric in METRICS.values():
        try:
            values[metric.name] = metric.compute(facts)
        except _UnavailableError as error:
            unavailable[metric.name] = str(error)
    return Metrics(values, unavailable)


def token_gaps_ns(turn: Turn) -> list[int]:
    """Nanoseconds from each token of a turn to the next; one fewer than there are tokens."""
    return [after - before for before, after in zip(turn.token_ns, turn.token_ns[1:], strict=False)]


def percentile(ordered: Sequence[float], share: float) -> float:
    """Value below which a share of sorted values lies, by linear interpolation between the two nearest ranks."""
    position = share * (len(ordered) - 1)
    below = int(position)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (position - below)


class _UnavailableError(Exception):
    """A metric has no value; the text says why."""


class _Facts:
    """What several metrics of one trial are made of, worked out once."""

    def __init__(self, trace: Trace) -> None:
        self.trace = trace
        self.turns = trace.turns

    @cached_property
    def answered(self) -> Sequence[Turn]:
        """Turns with at least one token."""
        turns = [turn for turn in self.turns if turn.token_ns]
        if not turns:
            raise _UnavailableError("no turn has a token")
        return turns

    @cached_property
    def flowing(self) -> Sequence[Turn]:
        """Turns with at least two tokens, between which time passed."""
        turns = [turn for turn in self.answered if len(turn.token_ns) > 1]
        if not turns:
            raise _UnavailableError("no turn has a second token")
        if all(_generation_ns(turn) == 0 for turn in turns):
            raise _UnavailableError("no time passed between tokens")
        return turns

    @cached_property
    def gaps_ms(self) -> Sequence[float]:
        """All times between two tokens of a turn, sorted."""
        return sorted(gap / 1e6 for turn in self.flowing for gap in token_gaps_ns(turn))

    @cached_property
    def prefills(self) -> Sequence[tuple[int, Span]]:
        """Prompt length and prefill of every turn that has one."""
        found = [(turn.n_prompt, turn.prefill) for turn in self.turns if turn.prefill is not None]
        if not found:
            raise _UnavailableError("no turn has a prefill")
        return found

    def memory(self, read: Callable[[Memory], int | None], phase: str | None = None) -> list[int]:
        """Readings of one kind of memory, in order, of one phase or of all."""
        found = [read(memory) for memory in self.trace.memory if phase in (None, memory.phase)]
        known = [value for value in found if value is not None]
        if not known:
            raise _UnavailableError("the runner could not read it" if found else "the runner read no memory")
        return known


def _generation_ns(turn: Turn) -> int:
    return turn.token_ns[-1] - turn.token_ns[0]


def _load_s(facts: _Facts) -> float:
    return (facts.trace.load.end_ns - facts.trace.load.begin_ns) / 1e9


def _prefill_tps(facts: _Facts) -> float:
    duration_ns = sum(span.end_ns - span.begin_ns for _, span in facts.prefills)
    if duration_ns == 0:
        raise _UnavailableError("no time passed in prefill")
    return sum(n for n, _ in facts.prefills) / duration_ns * 1e9


def _generation_tps(facts: _Facts) -> float:
    tokens = sum(turn.n_gen - 1 for turn in facts.flowing)
    return tokens / sum(map(_generation_ns, facts.flowing)) * 1e9


def _ttft_ms(facts: _Facts) -> float:
    return median((turn.token_ns[0] - turn.begin_ns) / 1e6 for turn in facts.answered)


def _tpot_ms(facts: _Facts) -> float:
    return median(_generation_ns(turn) / (turn.n_gen - 1) / 1e6 for turn in facts.flowing)


def _gap_percentile(share: float) -> Callable[[_Facts], float]:
    return lambda facts: percentile(facts.gaps_ms, share)


def _turn_accounted_share(facts: _Facts) -> float:
    wall_ns = sum(turn.end_ns - turn.begin_ns for turn in facts.answered)
    if wall_ns == 0:
        raise _UnavailableError("no time passed in any turn")
    return sum(turn.token_ns[-1] - turn.begin_ns for turn in facts.answered) / wall_ns


def _kv_bytes(facts: _Facts) -> float:
    if facts.trace.context.kv_bytes is None:
        raise _UnavailableError("the framework does not say")
    return float(facts.trace.context.kv_bytes)


def _gap_metric(percent: int) -> Metric:
    return Metric(
        name=f"itl_p{percent}_ms",
        unit="ms",
        phase="generation",
        better="lower",
        meaning=f"inter-token latency, {percent}th percentile",
        formula=f"{percent}th percentile of t(token i+1) - t(token i) over all gaps within turns, linear interpolation",
        source="token",
        invalid_when="no turn has two tokens with time between them",
        compute=_gap_percentile(percent / 100),
    )


_ALL = (
    Metric(
        name="generation_tps",
        unit="tokens/s",
        phase="generation",
        better="higher",
        meaning="speed of writing answers",
        formula="sum of n_gen - 1 over turns / sum of t(last token) - t(first token); the first token is ttft_ms's",
        source="token",
        invalid_when="no turn has two tokens with time between them",
        compute=_generation_tps,
    ),
    Metric(
        name="prefill_tps",
        unit="tokens/s",
        phase="prefill",
        better="higher",
        meaning="speed of reading prompts",
        formula="sum of n over turns / sum of t(prefill_end) - t(prefill_begin)",
        source="prefill_begin, prefill_end",
        invalid_when="no turn has a prefill, or it took no time",
        compute=_prefill_tps,
    ),
    Metric(
        name="ttft_ms",
        unit="ms",
        phase="turn",
        better="lower",
        meaning="time to first token",
        formula="median over turns of t(first token) - t(turn_begin); tokenizing the prompt is included",
        source="turn_begin, token",
        invalid_when="no turn has a token",
        compute=_ttft_ms,
    ),
    Metric(
        name="tpot_ms",
        unit="ms",
        phase="generation",
        better="lower",
        meaning="time per output token",
        formula="median over turns of (t(last token) - t(first token)) / (n_gen - 1)",
        source="token",
        invalid_when="no turn has two tokens with time between them",
        compute=_tpot_ms,
    ),
    _gap_metric(50),
    _gap_metric(90),
    _gap_metric(99),
    Metric(
        name="load_s",
        unit="s",
        phase="load",
        better="lower",
        meaning="loading the weights",
        formula="t(load_end) - t(load_begin)",
        source="load_begin, load_end",
        invalid_when="never",
        compute=_load_s,
    ),
    Metric(
        name="turn_accounted_share",
        unit="share",
        phase="turn",
        better="higher",
        meaning="part of the turns' wall time that is explained",
        formula="sum over turns of tokenizing (turn_begin to prefill_begin), prefill, sampling the first token"
        " (prefill_end to first token) and generation (first to last token) / sum of t(turn_end) - t(turn_begin)",
        source="turn_begin, token, turn_end",
        invalid_when="no turn has a token, or the turns took no time",
        compute=_turn_accounted_share,
    ),
    Metric(
        name="peak_memory_bytes",
        unit="bytes",
        phase="memory",
        better="lower",
        meaning="most resident memory at any time, weights included",
        formula="largest hwm",
        source="mem",
        invalid_when="the device does not say",
        compute=lambda facts: float(max(facts.memory(lambda memory: memory.hwm))),
    ),
    Metric(
        name="rss_anon_bytes",
        unit="bytes",
        phase="memory",
        better="lower",
        meaning="steady memory of the process's own (KV cache, buffers, weights that are not mapped)",
        formula="rss_anon after the last turn",
        source="mem with phase turn",
        invalid_when="no turn was held, or the device does not say",
        compute=lambda facts: float(facts.memory(lambda memory: memory.rss_anon, "turn")[-1]),
    ),
    Metric(
        name="rss_file_bytes",
        unit="bytes",
        phase="memory",
        better="lower",
        meaning="steady memory that files back (mapped weights, program)",
        formula="rss_file after the last turn",
        source="mem with phase turn",
        invalid_when="no turn was held, or the device does not say",
        compute=lambda facts: float(facts.memory(lambda memory: memory.rss_file, "turn")[-1]),
    ),
    Metric(
        name="swap_bytes",
        unit="bytes",
        phase="memory",
        better="lower",
        meaning="memory of the process that was swapped out",
        formula="largest swap",
        source="mem",
        invalid_when="the device does not say",
        compute=lambda facts: float(max(facts.memory(lambda memory: memory.swap))),
    ),
    Metric(
        name="model_bytes",
        unit="bytes",
        phase="memory",
        better="lower",
        meaning="size of the model file",
        formula="model_bytes",
        source="load_end",
        invalid_when="never",
        compute=lambda facts: float(facts.trace.load.model_bytes),
    ),
    Metric(
        name="kv_bytes",
        unit="bytes",
        phase="memory",
        better="lower",
        meaning="size of the KV cache for the whole context",
        formula="kv_bytes",
        source="context",
        invalid_when="the framework does not say",
        compute=_kv_bytes,
    ),
    Metric(
        name="prompt_tokens",
        unit="tokens",
        phase="work",
        better=None,
        meaning="tokens of all prompts that were read",
        formula="sum of n over turns",
        source="prefill_begin",
        invalid_when="never",
        compute=lambda facts: float(sum(turn.n_prompt for turn in facts.turns if turn.prefill is not None)),
    ),
    Metric(
        name="generated_tokens",
        unit="tokens",
        phase="work",
        better=None,
        meaning="sampled tokens, those that end an answer included",
        formula="sum of n_gen over turns",
        source="token",
        invalid_when="never",
        compute=lambda facts: float(sum(turn.n_gen for turn in facts.turns)),
    ),
    Metric(
        name="turns",
        unit="turns",
        phase="work",
        better=None,
        meaning="turns that were held; those whose prompt did not fit into the context are left out",
        formula="number of turns with a prefill",
        source="turn_end",
        invalid_when="never",
        compute=lambda facts: float(sum(turn.prefill is not None for turn in facts.turns)),
    ),
)

METRICS: Mapping[str, Metric] = {metric.name: metric for metric in _ALL}
"""Every metric by name, in the order in which tables show them."""


def document() -> str:
    """The text of docs/metrics.md."""
    rows = [
        "| name | unit | phase | better | meaning | formula | source | no value when |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for m in METRICS.values():
        cells = (f"`{m.name}`", m.unit, m.phase, m.better or "-", m.meaning, m.formula, m.source, m.invalid_when)
        rows.append(f"| {' | '.join(cells)} |")
    return _DOCUMENT.format(table="\n".join(rows))


_DOCUMENT = """\
# Metrics

Generated from `meltrepro/measure/metrics.py`; to change a definition, change it there and run
`python -m meltrepro.measure.metrics > docs/metrics.md`.

Each value below belongs to one trial and comes from that trial's `events.jsonl` alone ([runner.md](runner.md)): times
are the device's monotonic clock, tokens are counted, never estimated. The untimed warm-up inside a trial is part of no
metric. A metric that cannot be had is absent, with the reason; it is never zero in its place.

{table}

## From trials to a cell

A cell's figure is the **median over its repetitions** that ended well; warm-up trials, profiled trials and failed ones
are left out. Beside it stand `n` (repetitions with a value), `low` and `high`: the BCa bootstrap interval of the median
at 95 %, computed exactly, from five values on; smallest and largest value for two to four; of one value, that value.

In MLflow, for a metric `generation_tps`:

| metric | value |
| --- | --- |
| `generation_tps` | median over repetitions |
| `uncertainty/generation_tps.low`, `.high` | interval |
| `uncertainty/generation_tps.n` | repetitions with a value |
| `values/generation_tps` | value of each repetition; step = number of the repetition |
| `inter_token_ms/r000` | every gap between two tokens of that repetition; step = number of the gap |

A series longer than 10,000 points is thinned: of each stretch of neighbours the smallest and the largest stay, at
their true place. The run's artifacts hold all events.
"""


if __name__ == "__main__":
    print(document(), end="")
