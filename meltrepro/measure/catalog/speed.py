"""How fast, and how much of it: loading, reading prompts, writing answers."""

from __future__ import annotations

from collections.abc import Callable
from statistics import median

from meltrepro.measure.integrals import NoValue
from meltrepro.measure.metric import Facts, Metric, generation_ns, percentile


def _load_s(facts: Facts) -> float:
    return (facts.trace.load.end_ns - facts.trace.load.begin_ns) / 1e9


def _prefill_tps(facts: Facts) -> float:
    duration_ns = sum(span.end_ns - span.begin_ns for _, span in facts.prefills)
    if duration_ns == 0:
        raise NoValue("no time passed in prefill")
    return sum(n for n, _ in facts.prefills) / duration_ns * 1e9


def _generation_tps(facts: Facts) -> float:
    tokens = sum(turn.n_written for turn in facts.flowing)
    return tokens / sum(map(generation_ns, facts.flowing)) * 1e9


def _ttft_ms(facts: Facts) -> float:
    return median((turn.token_ns[0] - turn.begin_ns) / 1e6 for turn in facts.prompted)


def _tpot_ms(facts: Facts) -> float:
    return median(generation_ns(turn) / (turn.n_gen - 1) / 1e6 for turn in facts.flowing)


def _gap_percentile(share: float) -> Callable[[Facts], float]:
    return lambda facts: percentile(facts.gaps_ms, share)


def _undisturbed_gap_ms(facts: Facts) -> float:
    if any(turn.drafted is not None for turn in facts.flowing):
        raise NoValue("tokens were drafted: several come at once")
    return percentile(facts.gaps_ms, 0.01)


def _turn_accounted_share(facts: Facts) -> float:
    wall_ns = sum(turn.end_ns - turn.begin_ns for turn in facts.answered)
    if wall_ns == 0:
        raise NoValue("no time passed in any turn")
    return sum(turn.token_ns[-1] - turn.begin_ns for turn in facts.answered) / wall_ns


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


SPEED = (
    Metric(
        name="generation_tps",
        unit="tokens/s",
        phase="generation",
        better="higher",
        meaning="speed of writing answers",
        formula="sum of n_gen - 1 over turns, of all sequences / sum of t(last token) - t(first token); the first token is"
        " ttft_ms's",
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
        formula="sum of n over turns, of all sequences that read it / sum of t(prefill_end) - t(prefill_begin)",
        source="prefill_begin, prefill_end",
        invalid_when="no turn has a prefill of two tokens, or it took no time",
        compute=_prefill_tps,
    ),
    Metric(
        name="ttft_ms",
        unit="ms",
        phase="turn",
        better="lower",
        meaning="time to first token",
        formula="median over turns of t(first token) - t(turn_begin); tokenizing the prompt is included, and reading a context"
        " from a file",
        source="turn_begin, token",
        invalid_when="no turn with a prompt of two tokens has a token",
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
    Metric(
        name="itl_p1_ms",
        unit="ms",
        phase="generation",
        better="lower",
        meaning="inter-token latency where nothing disturbs, 1st percentile",
        formula="1st percentile of t(token i+1) - t(token i) over all gaps within turns, linear interpolation; what disturbs only adds"
        " time, so that the shortest gaps vary least (Chen and Revels 2016, arXiv:1608.04295)",
        source="token",
        invalid_when="no turn has two tokens with time between them, or tokens were drafted",
        compute=_undisturbed_gap_ms,
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
)

WORK = (
    Metric(
        name="prompt_tokens",
        unit="tokens",
        phase="work",
        better=None,
        meaning="tokens of all prompts that were read",
        formula="sum of n over turns, of all sequences that read it",
        source="prefill_begin",
        invalid_when="never",
        compute=lambda facts: float(sum(turn.n_read for turn in facts.turns if turn.was_read)),
    ),
    Metric(
        name="generated_tokens",
        unit="tokens",
        phase="work",
        better=None,
        meaning="sampled tokens, those that end an answer included",
        formula="sum of n_gen over turns, of all sequences",
        source="token",
        invalid_when="never",
        compute=lambda facts: float(sum(turn.n_gen * turn.sequences for turn in facts.turns)),
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
        compute=lambda facts: float(sum(turn.was_read for turn in facts.turns)),
    ),
)
