"""Which of several settings is best: all of them with few repetitions, then the better half with twice as many.

That is successive halving (Karnin, Koren and Somekh 2013, ICML; Jamieson and Talwalkar 2016, AISTATS), with two additions: a
setting that is told apart from the best one is out at once, and the setting that others are held against runs along in every
round, so that both are measured side by side, and is among those to choose from where nothing is told apart from it. A round is judged by its own values alone.

Imports numpy and scipy where values are compared.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from itertools import product
from statistics import median
from typing import Any

Setting = tuple[int, ...]
"""The place of each key's value among those that it may have; 0 is the one that it has."""
FIRST = 3
"""Repetitions of the first round."""


class Fate(StrEnum):
    best = "best"
    equal = "equal"
    """Not told apart from the best, which is simpler."""
    worse = "worse"
    """Told apart from the best of its round: the interval of their ratio does not hold 1."""
    half = "half"
    """Not in the better half of its round."""
    out = "out"
    """Not to be had, or not to be believed, or beyond a limit."""


@dataclass(frozen=True)
class Tried:
    """What came of a setting in the last round that it was in."""

    values: Sequence[float] = ()
    why_out: str | None = None
    """Why it is out whatever its values are."""
    fate: Fate = Fate.half
    round: int = 0
    """Number of that round, from 1; 0 for a setting that was in none."""


def rounds(settings: int) -> list[tuple[int, int]]:
    """How many settings each round has at most, and repetitions of each; none where there is nothing to choose."""
    found = [(settings, FIRST)]
    while found[-1][0] > 2 or len(found) == 1:
        found.append((max(2, -(-found[-1][0] // 2)), 2 * found[-1][1]))
    return found if settings > 1 else []


def settings_of(sizes: Sequence[int]) -> list[Setting]:
    """Every combination of so many values of each key, the first one being what all keys have."""
    return list(product(*map(range, sizes)))


def most_trials(sizes: Sequence[int], *, whole: bool, warmups: int) -> int:
    """The most trials that a search of so many values of each key takes: of all combinations, or of one key at a time."""

    def line(settings: int, own: int) -> int:
        return sum(
            (count + (own if count == settings else 1)) * (repetitions + warmups)
            for count, repetitions in rounds(settings)
        )

    if whole:
        return line(len(settings_of(sizes)), 0)
    return sum(line(size, min(number, 1)) for number, size in enumerate(size for size in sizes if size > 1))


@dataclass
class Search:
    """A search under way."""

    sizes: Sequence[int]
    """How many values each key may have."""
    higher: bool
    """Whether higher values are better."""
    measure: Callable[[Sequence[Setting], int], Mapping[Setting, Tried]]
    """Measures settings side by side, each so many times."""
    simpler: Callable[[Setting], Any]
    """What of several equal settings is least of the one to take."""
    tried: dict[Setting, Tried] = field(default_factory=dict)
    done: int = 0
    """Rounds so far."""

    @property
    def own(self) -> Setting:
        """The setting that others are held against."""
        return (0,) * len(self.sizes)

    def run(self, *, whole: bool) -> Setting | None:
        """The best setting of all combinations, or of those that one key after the other leads to; `None` where all are out."""
        if whole:
            return self._best_of(settings_of(self.sizes))
        best = None
        for place, size in enumerate(self.sizes):
            at = best or self.own
            if size > 1:
                best = self._best_of([(*at[:place], value, *at[place + 1 :]) for value in range(size)]) or best
        return best

    def _best_of(self, settings: Sequence[Setting]) -> Setting | None:
        race = [each for each in settings if not self._is_out(each)]
        for _, repetitions in rounds(len(settings)):
            if not (race := self._round(race, repetitions)):
                return None
            if len(race) == 1:
                break
        if (
            self.own in self.tried
            and self.tried[self.own].round == self.done
            and self.tried[self.own].fate is Fate.equal
        ):
            race = [self.own, *race]  # it ran along, and nothing is better
        best = min(race, key=self.simpler)
        for each in race:
            self._note(each, Fate.best if each == best else Fate.equal)
        return best

    def _round(self, race: Sequence[Setting], repetitions: int) -> list[Setting]:
        """Those that go on, the best one first."""
        along = [] if self.own in race or self._is_out(self.own) else [self.own]
        if not race:
            return []
        self.done += 1
        for each, result in self.measure([*race, *along], repetitions).items():
            self.tried[each] = replace(result, round=self.done, fate=Fate.out if result.why_out else Fate.half)
        fit = [each for each in race if not self._is_out(each)]
        fit.sort(key=lambda each: median(self.tried[each].values), reverse=self.higher)
        alike = [each for each in fit if not told_apart(self.tried[fit[0]].values, self.tried[each].values)]
        for each in fit:
            self._note(each, Fate.half if each in alike else Fate.worse)
        for each in (own for own in along if fit and not self._is_out(own)):
            apart = told_apart(self.tried[fit[0]].values, self.tried[each].values)
            self._note(each, Fate.worse if apart else Fate.equal)
        half = fit[: max(2, -(-len(race) // 2))]
        return [each for each in half if each in alike]

    def _is_out(self, setting: Setting) -> bool:
        return setting in self.tried and self.tried[setting].fate is Fate.out

    def _note(self, setting: Setting, fate: Fate) -> None:
        self.tried[setting] = replace(self.tried[setting], fate=fate)


def told_apart(one: Sequence[float], other: Sequence[float]) -> bool:
    """Whether two samples differ: the interval of their ratio does not hold 1, or, where values have no ratio, they do not overlap."""
    from meltrepro.stats.ratio import comparable, ratio_interval

    if comparable(one) and comparable(other):
        interval = ratio_interval(one, other)
        return not interval.low <= 1 <= interval.high
    return max(one) < min(other) or max(other) < min(one)
