"""How often `meltrepro history` finds a change that is not there, and one that is, on synthetic histories.

Repetitions are log-normal (CV 2 %), those of one session share a level (CV 1 %), and some are 1.3 to 2 times slower. A planted
step makes all positions behind it 5 % slower; it is found where a change is reported within one position of it.

    python -m tests.benchmarks.history_changes [--histories 1000] [--cv 0.02] [--step 0.05] [--repetitions 5]
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from meltrepro.history.changes import LevelChange, Measured, find_steps
from tests.benchmarks._table import figure, finish

LENGTHS = (4, 9, 17, 40)
SESSION_CV = 0.01


@dataclass(frozen=True)
class Shape:
    """How a history is measured."""

    positions: int
    """Releases or days."""
    per_session: int
    """Positions of one campaign."""
    repetitions: int = 5
    cv: float = 0.02
    strays: float = 0.0
    """Share of repetitions that something disturbs."""


def history(rng: np.random.Generator, shape: Shape, step: float = 0.0, after: int = 0) -> list[Measured]:
    """A history whose speed falls by `step`, a share of it, behind position `after`."""
    found, level = [], 0.0
    for position in range(shape.positions):
        if position % shape.per_session == 0:
            level = rng.normal(0, SESSION_CV)
        logs = level + rng.normal(0, math.sqrt(math.log1p(shape.cv**2)), shape.repetitions)
        logs -= (rng.random(shape.repetitions) < shape.strays) * np.log(rng.uniform(1.3, 2, shape.repetitions))
        logs += math.log1p(-step) if position > after else 0.0
        found.append(Measured(position, f"s{position // shape.per_session}", np.exp(logs).tolist()))
    return found


def histories(
    shape: Shape, count: int, step: float = 0.0, after: int = 0, seed: int = 1
) -> Iterator[list[LevelChange]]:
    """What is found in each of `count` histories, each with its own seed."""
    for number in range(count):
        rng = np.random.default_rng([seed, number, shape.positions, shape.per_session, round(step * 1e4)])
        yield find_steps(history(rng, shape, step, after), SESSION_CV)


def main() -> int:
    """Print the table; 1 where a promise about the error rates is broken."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--histories", type=int, default=1000)
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--cv", type=float, default=0.02)
    parser.add_argument("--step", type=float, default=0.05)
    parser.add_argument("--positions", type=int, nargs="*", default=LENGTHS)
    given = parser.parse_args()
    alarms, misses = [], []
    began = time.perf_counter()
    print(
        "| positions | sessions | false alarms % | with strays % | found % | alone and in place % | found behind the last but one % |"
    )
    print("| ---: | --- | ---: | ---: | ---: | ---: | ---: |")
    for positions in given.positions:
        for per_session, said in ((positions, "one"), (1, "one a position")):
            shape = Shape(positions, per_session, given.repetitions, given.cv)
            disturbed = Shape(positions, per_session, given.repetitions, given.cv, strays=0.03)
            wrong, stray = (
                sum(map(bool, histories(each, given.histories))) / given.histories for each in (shape, disturbed)
            )
            after = positions // 2 - 1
            seen = list(histories(shape, given.histories, given.step, after))
            found = sum(any(abs(step.after - after) <= 1 for step in steps) for steps in seen) / given.histories
            exact = sum([step.after for step in steps] == [after] for steps in seen) / given.histories
            late = list(histories(shape, given.histories, given.step, positions - 2))
            last = sum(any(step.after >= positions - 3 for step in steps) for steps in late) / given.histories
            shares = " | ".join(f"{100 * share:.1f}" for share in (wrong, stray, found, exact, last))
            print(f"| {positions} | {said} | {shares} |", flush=True)
            alarms.append(wrong)
            misses += [1 - found] if per_session > 1 else []
    print(f"\n{time.perf_counter() - began:.0f} s")
    return finish(
        [
            figure("history: largest share of false alarms", [max(alarms)], "", at_most=0.05),
            figure("history: largest share of missed steps, in one session", [max(misses)], "", at_most=0.05),
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
