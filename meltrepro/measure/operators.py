"""Where decoding time goes, operator by operator, from a profiled trial.

A profiler stops after every operator, so its trial is slower than the others and only its shares mean something. Two
shares are given, because they answer different questions and are easily mistaken for each other: an operator that runs
once per token beside one that runs in each of 32 layers looks large by the time of one call and is small in the sum.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from meltrepro.errors import RecordError
from meltrepro.record.trace import Operator, OperatorPhase, Trace

LEAST_COVERAGE = 0.9
"""Part of the decoder's time that operators must explain; below it, the shares are not published."""


@dataclass(frozen=True)
class Share:
    """One operator of one module in one phase."""

    name: str
    module: str
    calls: int
    ns: int
    time_share: float
    """Its time over the decoder's time."""
    call_share: float
    """Mean time of one of its calls over the sum of these means: what a table of single calls would show."""

    @property
    def mean_us(self) -> float:
        return self.ns / self.calls / 1e3

    @property
    def title(self) -> str:
        """`MUL_MAT ffn_up`."""
        return f"{self.name} {self.module}".rstrip()


@dataclass(frozen=True)
class Breakdown:
    """The decoder's time in one phase."""

    phase: OperatorPhase
    calls: int
    """Of the decoder: one per prompt, one per generated token but the last."""
    ns: int
    shares: tuple[Share, ...]
    """Longest time first."""
    coverage: float
    """Sum of the operators' times over the decoder's; the rest is preparing graphs, and the profiler's own."""


def breakdown(trace: Trace, phase: OperatorPhase, *, least_coverage: float = LEAST_COVERAGE) -> Breakdown:
    """The operators of one phase; raises `RecordError` where they cannot be had or do not explain the phase."""
    decoding = next((each for each in trace.decoding if each.phase == phase), None)
    operators = [each for each in trace.operators if each.phase == phase and each.count]
    if decoding is None or not operators or decoding.ns == 0:
        raise RecordError(f"the trial has no operators of {phase}", hint="ask for them: measure: {operators: true}")
    total_ns = sum(operator.ns for operator in operators)
    if total_ns > decoding.ns:
        raise RecordError(
            f"operators of {phase} take {total_ns} ns, more than the {decoding.ns} ns of the decoder that runs them"
        )
    coverage = total_ns / decoding.ns
    if coverage < least_coverage:
        raise RecordError(
            f"operators explain {coverage:.1%} of the decoder's time in {phase}, needed {least_coverage:.0%}"
        )
    return Breakdown(phase, decoding.count, decoding.ns, _shares(operators, decoding.ns), coverage)


def _shares(operators: Sequence[Operator], decoding_ns: int) -> tuple[Share, ...]:
    means = sum(operator.ns / operator.count for operator in operators)
    shares = (
        Share(
            name=operator.name,
            module=operator.module,
            calls=operator.count,
            ns=operator.ns,
            time_share=operator.ns / decoding_ns,
            call_share=operator.ns / operator.count / means if means else 0.0,
        )
        for operator in operators
    )
    return tuple(sorted(shares, key=lambda share: (-share.ns, share.title)))
