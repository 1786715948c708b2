"""Was a measured result reproduced? A three-way sequential test on the ratio replayed / reference of one metric.

**The question.** With a margin m declared before (default 5 %), ratios from 1 / (1 + m) to 1 + m count as the same.

- REPRODUCED: the interval of the ratio lies wholly inside that region (two one-sided tests, Schuirmann 1987).
- DIFFERS: the interval lies wholly outside it; a difference larger than the margin is established.
- INCONCLUSIVE: the interval crosses a border of the region.

Both errors are held at `alpha`, over all looks together: a true difference of at least the margin ends REPRODUCED with
probability at most alpha, and one of at most the margin, none included, ends DIFFERS with probability at most alpha. A
true difference of exactly the margin therefore mostly ends INCONCLUSIVE, and so it should. A difference inside the
margin can be established and the result be REPRODUCED all the same; the reason then says both.

**The reference** is one of two things, and the design says which before the first trial:

- `control`: the recorded artifact runs again, in this session, on this machine, in pairs with the replayed one. Machine,
  session and drift are common to both and cancel. It answers "do these two artifacts perform alike?", on any machine;
  recorded values are context.
- `recorded`: the values in the record. It answers "does the recorded figure come out again?", machine and session
  included. Two sessions differ even on one machine; how much is no part of either sample, so the device's calibration or
  the design says it (`session_cv`), and it widens the interval, however many trials are added. On another machine
  a DIFFERS is a statement about machine and artifact together; the changed context stands beside it.

**Looks.** Trials are added in batches; the test looks at `minimum`, then every `step`, last at `maximum` trials per arm,
each time at the level that `sequential` allots. The first look that decides stands: `decide` walks all looks that the
data reach, so that a resumed replay, or a cell which goes on for another metric's sake, gives the same answer.

**Many metrics.** `alpha` holds per cell and metric. "All metrics of the cell reproduced" needs no correction
(intersection-union test, Berger 1982). "Some metric differs" does: of k metrics it errs with probability at most
k * alpha; who wants that held too declares alpha / k.

Imports numpy and scipy: import this module only where a comparison is made.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from scipy.special import ndtri, stdtrit

from meltrepro.errors import UsageError
from meltrepro.stats.ratio import Location, LogRatio, Vector, exp, locate, logarithms, paired, unpaired
from meltrepro.stats.sequential import nominal_levels
from meltrepro.stats.summary import TO_JUDGE, TOO_FEW
from meltrepro.words import counted

FEWEST = TO_JUDGE
"""Trials per arm below which nothing is decided."""
MAX_LOOKS = 100
_POWER = 0.8
"""Probability of a decision for which `Decision.more_needed` is computed."""
_HOPELESS = 1000
"""More further trials than this per arm are not proposed."""


class ReplayVerdict(StrEnum):
    """Answer of a replay for one metric."""

    reproduced = "REPRODUCED"
    differs = "DIFFERS"
    inconclusive = "INCONCLUSIVE"

    @property
    def certain(self) -> bool:
        """Whether it is an answer."""
        return self is not ReplayVerdict.inconclusive


class Baseline(StrEnum):
    """What the replayed trials are compared with."""

    control = "control"
    recorded = "recorded"


@dataclass(frozen=True)
class Design:
    """Everything about the test that must be declared before its first trial; raises `UsageError`."""

    reference: Baseline = Baseline.recorded
    margin: float = 0.05
    """Ratios from 1 / (1 + margin) to 1 + margin count as the same."""
    alpha: float = 0.05
    """Probability of each of the two errors, over all looks."""
    minimum: int = 5
    maximum: int = 30
    step: int = 5
    """Trials per arm at the first look, at the last, and between two."""
    rho: float = 2.0
    """Error spending t**rho: 1 spends evenly, 3 keeps nearly everything for the last look."""
    session_cv: float = 0.01
    """Standard deviation of the level of a session, as a share; used with recorded references alone."""
    session_df: float = math.inf
    """Degrees of freedom of `session_cv`; infinite where it was declared and not measured."""
    seed: int = 0

    def __post_init__(self) -> None:
        rules = (
            (0 < self.margin < 1, "margin", "above 0 and below 1"),
            (0 < self.alpha <= 0.25, "alpha", "above 0 and at most 0.25"),
            (self.minimum >= FEWEST, "minimum", f"at least {FEWEST} trials"),
            (self.maximum >= self.minimum, "maximum", f"at least the minimum, {self.minimum}"),
            (self.step >= 1, "step", "at least 1 trial"),
            (1 <= self.rho <= 5, "rho", "from 1 to 5"),
            (0 <= self.session_cv < 1, "session_cv", "from 0 to below 1"),
            (self.session_df > 0, "session_df", "above 0"),
            (self.seed >= 0, "seed", "at least 0"),
        )
        for kept, field, expected in rules:
            if not kept:
                raise UsageError(f"replay design: {field} must be {expected}, got {getattr(self, field)}")
        if len(self.looks) > MAX_LOOKS:
            raise UsageError(
                f"replay design: {len(self.looks)} looks, at most {MAX_LOOKS} are supported",
                hint=f"use a step of at least {math.ceil((self.maximum - self.minimum) / (MAX_LOOKS - 1))} trials",
            )

    @property
    def looks(self) -> tuple[int, ...]:
        """Trials per arm at each look."""
        return (*range(self.minimum, self.maximum, self.step), self.maximum)

    @property
    def region(self) -> tuple[float, float]:
        """Lowest and highest ratio that count as the same."""
        return 1 / (1 + self.margin), 1 + self.margin

    def levels(self, n_recorded: int | None) -> tuple[float, ...]:
        """One-sided level of each look; with a recorded reference its size sets how fast information grows."""
        if n_recorded is None:
            information = tuple(map(float, self.looks))
        else:
            information = tuple(1 / (1 / n_recorded + 1 / n) for n in self.looks)
        return nominal_levels(information, self.alpha, self.rho)


@dataclass(frozen=True)
class ReplayDecision:
    """Answer for one metric of one cell."""

    verdict: ReplayVerdict
    ratio: float
    """Replayed over reference; an early stop favours estimates that lie far from the region's borders."""
    low: float
    high: float
    """Interval of the ratio that the verdict rests on; 0 and infinite before there is one."""
    confidence: float
    """Two-sided, of this look's interval; the intervals of all looks together hold with 1 - 2 * alpha."""
    n_reference: int
    n_replayed: int
    """Values that the answer rests on."""
    look: int
    """Number of the look that gave the answer, from 1; 0 before the first."""
    looks: int
    final: bool
    """Whether no further trial of this design can change the answer."""
    more_needed: int | None
    """Trials per arm beyond `n_replayed` after which a verdict has probability 0.8, if the ratio is what it seems to be.
    0 with a verdict; None where no number of trials will do, or where it cannot be said yet."""
    reason: str


def decide(reference: Sequence[float], replayed: Sequence[float], design: Design) -> ReplayDecision:
    """Answer from the trials so far, in the order in which they ran; raises `RecordError` for values <= 0.

    With a control, `reference[i]` and `replayed[i]` are a pair; a trial whose partner failed is left out by the caller.
    Trials past the last look that they reach wait for the next one.
    """
    a, b = logarithms(reference), logarithms(replayed)
    if design.reference is Baseline.control:
        pairs = min(a.size, b.size)
        differences = b[:pairs] - a[:pairs]
        return _walk(lambda n: paired(locate(differences[:n], design.seed, stream=0)), None, pairs, design)
    recorded = locate(a, design.seed, stream=0)
    if 0 < a.size < FEWEST:
        n = min(b.size, design.maximum)
        estimate = _between_sessions(recorded, b[:n], design)
        early = _too_early(estimate, a.size, n, design)
        return replace(early, final=True, reason=too_few(a.size))  # no trial adds to what was recorded
    return _walk(lambda n: _between_sessions(recorded, b[:n], design), a.size, b.size, design)


def _between_sessions(recorded: Location, replayed: Vector, design: Design) -> LogRatio:
    return unpaired(recorded, locate(replayed, design.seed, stream=1), design.session_cv, design.session_df)


def identical(decision: ReplayDecision) -> ReplayDecision:
    """The answer where both sides are the same trials: there is nothing to be decided."""
    return replace(
        decision,
        verdict=ReplayVerdict.reproduced,
        ratio=1.0,
        low=1.0,
        high=1.0,
        look=decision.look or 1,
        final=True,
        more_needed=0,
        reason="both sides are the same trials",
    )


def too_few(recorded: int) -> str:
    """Why nothing is decided by so few recorded values."""
    there = "a single value was recorded" if recorded == 1 else f"{counted(recorded, 'value')} were recorded"
    return f"{TOO_FEW}: {there}, {FEWEST} are needed, or a control"


def trials_to_show_sameness(reference: Sequence[float], replayed: Sequence[float], design: Design) -> int | None:
    """Trials on each side after which two results that are the same end REPRODUCED with probability 0.8, in one look.

    From the spread of both samples and the uncertainty of two sessions; None where a side has one value, where the
    sessions alone are too uncertain, or where it would take more than 1000. Two one-sided tests at a ratio of 1: the
    standard error must be log(1 + margin) / (z(1 - alpha) + z(0.9)), after Phillips 1990, J. Pharmacokinet. Biopharm. 18.
    """
    samples = [locate(logarithms(values), design.seed, stream=i) for i, values in enumerate((reference, replayed))]
    if min(sample.n for sample in samples) < 2:
        return None
    allowed = (math.log1p(design.margin) / float(ndtri(1 - design.alpha) + ndtri((1 + _POWER) / 2))) ** 2
    allowed -= 2 * design.session_cv**2
    if allowed <= 0:
        return None
    needed = max(FEWEST, math.ceil(sum(sample.variance * sample.n for sample in samples) / allowed))
    return needed if needed <= _HOPELESS else None


def sessions_decide(within: float, recorded: int, design: Design) -> bool:
    """Whether the values of another session could be shown to be those of this one, by what is known of the device.

    `within` is the standard deviation of its trials in a session, as a share, `recorded` how many values there are; this
    session has the design's maximum.
    """
    if recorded < FEWEST:
        return False
    reach = -float(stdtrit(design.session_df, design.alpha)) + float(ndtri((1 + _POWER) / 2))
    variance = within**2 * (1 / recorded + 1 / design.maximum) + 2 * design.session_cv**2
    return reach * math.sqrt(variance) <= math.log1p(design.margin)


def _walk(
    estimate: Callable[[int], LogRatio], n_recorded: int | None, available: int, design: Design
) -> ReplayDecision:
    """Answer of the first look that decides, else of the last that the data reach."""
    reached = [n for n in design.looks if n <= available]
    if not reached:
        return _too_early(estimate(available), n_recorded, available, design)
    levels = design.levels(n_recorded)
    for look, n in enumerate(reached, start=1):
        decision = _judge(estimate(n), levels, look, n_recorded, design)
        if decision.final:
            break
    return decision


def _judge(
    estimate: LogRatio, levels: Sequence[float], look: int, n_recorded: int | None, design: Design
) -> ReplayDecision:
    margin = math.log1p(design.margin)
    n = design.looks[look - 1]
    low, high = estimate.bounds(levels[look - 1])
    interval = f"interval {_show(low)} to {_show(high)}"
    border_low, border_high = (f"{border:.3f}" for border in design.region)
    more: int | None = 0
    if -margin < low and high < margin:
        verdict = ReplayVerdict.reproduced
        reason = f"{interval} lies within {border_low} to {border_high}"
        if low > 0 or high < 0:
            reason += "; a difference is established, but it is smaller than the margin"
    elif low > margin or high < -margin:
        verdict = ReplayVerdict.differs
        reason = f"{interval} lies {f'above {border_high}' if low > margin else f'below {border_low}'}"
    else:
        verdict = ReplayVerdict.inconclusive
        more = _more_needed(estimate, levels[-1], n, margin)
        crossed = [text for text, x in ((border_low, -margin), (border_high, margin)) if low <= x <= high]
        reason = f"{interval} crosses {' and '.join(crossed)}; {_outlook(estimate, more, n_recorded)}"
    return ReplayDecision(
        verdict=verdict,
        ratio=estimate.ratio,
        low=exp(low),
        high=exp(high),
        confidence=1 - 2 * levels[look - 1],
        n_reference=n if n_recorded is None else n_recorded,
        n_replayed=n,
        look=look,
        looks=len(levels),
        final=verdict is not ReplayVerdict.inconclusive or look == len(levels),
        more_needed=more,
        reason=reason,
    )


def _too_early(estimate: LogRatio, n_recorded: int | None, n: int, design: Design) -> ReplayDecision:
    return ReplayDecision(
        verdict=ReplayVerdict.inconclusive,
        ratio=estimate.ratio,
        low=0.0,
        high=math.inf,
        confidence=1.0,
        n_reference=n if n_recorded is None else n_recorded,
        n_replayed=n,
        look=0,
        looks=len(design.looks),
        final=False,
        more_needed=None,
        reason=(f"{TOO_FEW}: " if n < TO_JUDGE else "")
        + f"{n} of the {counted(design.minimum, 'trial')} that the first look needs",
    )


def _more_needed(estimate: LogRatio, level: float, n: int, margin: float) -> int | None:
    """Further trials per arm until the interval at the last look's level probably leaves the nearer border."""
    distance = abs(abs(estimate.estimate) - margin)
    allowed = (distance / float(ndtri(1 - level) + ndtri(_POWER))) ** 2 - estimate.fixed_variance
    if allowed <= 0:
        return None
    more = max(1, math.ceil(n * estimate.shrinking_variance / allowed) - n)
    return more if more <= _HOPELESS else None


def _outlook(estimate: LogRatio, more: int | None, n_recorded: int | None) -> str:
    if more is not None:
        return f"about {counted(more, 'more trial')} per arm would decide"
    if n_recorded is not None and estimate.fixed_variance > estimate.shrinking_variance:
        share = math.expm1(2 * math.sqrt(estimate.fixed_variance))
        return (
            f"the {n_recorded} recorded values and the change of session alone leave {share:.1%} of uncertainty (two "
            "standard errors): more trials hardly help; run the recorded artifact beside it (--reference control), calibrate "
            "the device on several days (meltrepro calibrate), or declare a larger margin"
        )
    return "the ratio seems to lie at the margin itself: no sensible number of trials decides"


def _show(bound: float) -> str:
    return f"{exp(bound):.3f}"
