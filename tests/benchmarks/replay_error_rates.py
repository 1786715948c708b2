"""Operating table of the replay test: how often each verdict falls, at which cost, on synthetic campaigns.

Noise as on a small shared machine: log-normal trials (CV 2-10 %), slow drift over the campaign (a slope of up to 6 %
end to end and a wave of 1 %), 3 % of trials 1.3 to 2 times slower, and sessions whose level differs (CV 1 %). A slowdown
of x % makes each trial take 1 + x/100 times as long; the metric is a rate.

    python -m tests.benchmarks.replay_error_rates [--campaigns 1000] [--reference control|recorded] ...
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections import Counter
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from meltrepro.campaign.conduct import schedule
from meltrepro.manifest.protocol import Order, Protocol
from meltrepro.stats.equivalence import Baseline, Design, ReplayDecision, ReplayVerdict, decide
from tests.benchmarks._table import figure, finish

CVS = (0.02, 0.03, 0.05, 0.08, 0.10)
SLOWDOWNS = (0.0, 0.02, 0.05, 0.075, 0.10, 0.20)


@dataclass(frozen=True)
class Noise:
    """What disturbs the trials of one session; shares of the trial's duration."""

    cv: float
    slope: float = 0.06
    wave: float = 0.01
    outliers: float = 0.03
    session_cv: float = 0.01


def session(rng: np.random.Generator, noise: Noise, trials: int) -> NDArray[np.float64]:
    """Log duration of each trial of one session, in running order, for a trial whose true log duration is 0."""
    place = np.linspace(-0.5, 0.5, trials)
    drift = rng.uniform(-1, 1) * noise.slope * place
    drift += noise.wave * np.sin(2 * math.pi * (place + rng.uniform()))
    spread = rng.normal(0, math.sqrt(math.log1p(noise.cv**2)), trials)
    late = (rng.random(trials) < noise.outliers) * np.log(rng.uniform(1.3, 2, trials))
    return np.asarray(rng.normal(0, noise.session_cv) + drift + spread + late)


def replay(
    rng: np.random.Generator, noise: Noise, slowdown: float, design: Design, recorded: int = 10
) -> tuple[ReplayDecision, int]:
    """One whole replay, round by round in the product's own order: its final decision and the trials that it ran."""
    control = design.reference is Baseline.control
    arms = ("control", "replayed") if control else ("replayed",)
    rounds = Protocol(repetitions=design.maximum, warmups=0, order=Order.interleaved, seed=design.seed)
    durations = session(rng, noise, design.maximum * len(arms))
    values: dict[str, list[float]] = {"control": [], "replayed": []}
    if not control:
        values["control"] = list(np.exp(-session(rng, noise, recorded)))
    looks = {look * len(arms) for look in design.looks}
    for ran, trial in enumerate(schedule(arms, rounds), start=1):
        slower = 1 + slowdown if trial.cell_id == "replayed" else 1
        values[trial.cell_id].append(math.exp(-durations[ran - 1]) / slower)
        if ran in looks:
            decision = decide(values["control"], values["replayed"], design)
            if decision.final:
                break
    return decision, ran


@dataclass(frozen=True)
class Row:
    """What the campaigns of one noise and one true slowdown came to."""

    share: dict[ReplayVerdict, float]
    mean_trials: float
    """Trials run per campaign, both arms together."""

    def broken_promise(self, slowdown: float, margin: float) -> str | None:
        """What must not happen in more than one campaign of twenty, and did; at the margin itself chance alone decides."""
        if slowdown == margin:
            return None
        wrong = ReplayVerdict.differs if slowdown < margin else ReplayVerdict.reproduced
        if self.share[wrong] <= 0.05:
            return None
        return f"a slowdown of {slowdown:.1%} ended {wrong} in {self.share[wrong]:.1%} of the campaigns"


def operate(noise: Noise, slowdown: float, design: Design, campaigns: int, recorded: int = 10, seed: int = 1) -> Row:
    """Replay `campaigns` synthetic campaigns, each with its own seed."""
    verdicts: Counter[ReplayVerdict] = Counter()
    ran = 0
    for campaign in range(campaigns):
        rng = np.random.default_rng([seed, campaign, round(noise.cv * 1e4), round(slowdown * 1e4)])
        decision, trials = replay(rng, noise, slowdown, replace(design, seed=campaign), recorded)
        verdicts[decision.verdict] += 1
        ran += trials
    return Row({verdict: verdicts[verdict] / campaigns for verdict in ReplayVerdict}, ran / campaigns)


def main() -> int:
    """Print the table; 1 where a promise about the error rates is broken."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--campaigns", type=int, default=1000)
    parser.add_argument("--reference", type=Baseline, default=Baseline.control, choices=list(Baseline))
    parser.add_argument("--recorded", type=int, default=10, help="trials in the record")
    parser.add_argument("--margin", type=float, default=0.05)
    parser.add_argument("--maximum", type=int, default=30)
    parser.add_argument("--rho", type=float, default=Design.rho)
    parser.add_argument("--session-cv", type=float, default=0.01, help="true and declared CV of a session's level")
    parser.add_argument("--cv", type=float, nargs="*", default=CVS)
    parser.add_argument("--slowdown", type=float, nargs="*", default=SLOWDOWNS)
    arguments = parser.parse_args()
    design = Design(
        reference=arguments.reference,
        margin=arguments.margin,
        maximum=arguments.maximum,
        rho=arguments.rho,
        session_cv=arguments.session_cv,
    )
    promises: list[str] = []
    began = time.perf_counter()
    print(f"{design}, {arguments.campaigns} campaigns a row\n")
    print("| CV % | slowdown % | REPRODUCED % | DIFFERS % | INCONCLUSIVE % | trials run |")
    print("| ---: | ---: | ---: | ---: | ---: | ---: |")
    for cv in arguments.cv:
        noise = Noise(cv, session_cv=arguments.session_cv)
        for slowdown in arguments.slowdown:
            row = operate(noise, slowdown, design, arguments.campaigns, arguments.recorded)
            shares = " | ".join(f"{100 * row.share[verdict]:.1f}" for verdict in ReplayVerdict)
            print(f"| {100 * cv:g} | {100 * slowdown:g} | {shares} | {row.mean_trials:.1f} |", flush=True)
            if broken := row.broken_promise(slowdown, design.margin):
                promises.append(f"CV {cv:.0%}: {broken}")
    print(f"\n{time.perf_counter() - began:.0f} s")
    print("\n".join(promises))
    return finish([figure("replays: cases in which a promise is broken", [len(promises)], "cases", at_most=0)])


if __name__ == "__main__":
    sys.exit(main())
