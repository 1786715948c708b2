"""The search for the best setting, on settings whose truth is known."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

import pytest

from meltrepro.stats.halving import Fate, Search, Setting, Tried, most_trials, settings_of

SIZES = (4, 4)


class Machine:
    """Settings of which one is 15 % faster than the next, measured with noise of 3 %."""

    def __init__(self, seed: int, sizes: Sequence[int] = SIZES, warmups: int = 1) -> None:
        self.random = random.Random(seed)
        self.best: Setting = tuple(self.random.randrange(size) for size in sizes)
        self.warmups = warmups
        self.trials = 0
        self.broken: dict[Setting, str] = {}

    def measure(self, settings: Sequence[Setting], repetitions: int) -> Mapping[Setting, Tried]:
        self.trials += len(settings) * (repetitions + self.warmups)
        return {
            each: Tried(why_out=self.broken[each])
            if each in self.broken
            else Tried([self.speed(each) * self.random.gauss(1, 0.03) for _ in range(repetitions)])
            for each in settings
        }

    def speed(self, setting: Setting) -> float:
        return 100 * 0.85 ** sum(abs(a - b) for a, b in zip(setting, self.best, strict=True))


def search(machine: Machine, sizes: Sequence[int] = SIZES, *, higher: bool = True) -> Search:
    return Search(sizes, higher, machine.measure, lambda setting: setting)


@pytest.mark.parametrize("whole", [True, False], ids=["all combinations", "one key at a time"])
def test_a_planted_optimum_is_found_within_the_bound(whole: bool) -> None:
    found = 0
    for seed in range(20):
        machine = Machine(seed)
        found += search(machine).run(whole=whole) == machine.best
        assert machine.trials <= most_trials(SIZES, whole=whole, warmups=1)
    assert found >= 19


def test_one_key_at_a_time_takes_fewer_trials() -> None:
    whole, lines = (most_trials(SIZES, whole=each, warmups=1) for each in (True, False))
    assert whole == (16 + 0) * 4 + (8 + 1) * 7 + (4 + 1) * 13 + (2 + 1) * 25
    assert lines == 4 * 4 + (2 + 1) * 7 + (4 + 1) * 4 + (2 + 1) * 7
    assert most_trials((1, 1), whole=True, warmups=1) == 0


def test_equal_settings_are_chosen_by_what_is_simpler() -> None:
    def measure(settings: Sequence[Setting], repetitions: int) -> Mapping[Setting, Tried]:
        return {each: Tried([10 + (n + each[0]) % 3 for n in range(repetitions)]) for each in settings}

    tuned = Search((4,), False, measure, lambda setting: -setting[0])
    best = tuned.run(whole=True)
    finalists = [each for each, result in tuned.tried.items() if result.fate in (Fate.best, Fate.equal)]
    assert best == max(finalists) and len(finalists) == 2
    assert {result.fate for each, result in tuned.tried.items() if each not in finalists} == {Fate.half}


def test_what_the_manifest_has_stays_where_nothing_is_better() -> None:
    """Whatever order chance puts equal settings into."""
    for seed in range(20):
        chance = random.Random(seed)

        def measure(
            settings: Sequence[Setting], repetitions: int, chance: random.Random = chance
        ) -> Mapping[Setting, Tried]:
            return {each: Tried([chance.gauss(100, 3) for _ in range(repetitions)]) for each in settings}

        tuned = Search((8,), True, measure, lambda setting: setting != (0,))
        best = tuned.run(whole=True)
        assert best == (0,) or tuned.tried[0,].fate is Fate.worse


def test_lower_is_better_where_it_is() -> None:
    machine = Machine(1, (3,))
    slowest = min(settings_of((3,)), key=machine.speed)
    assert search(machine, (3,), higher=False).run(whole=True) == slowest


def test_what_cannot_be_had_is_out_and_measured_no_more() -> None:
    machine = Machine(3)
    machine.broken = {(0, 0): "INVALID", machine.best: "failed"}
    tuned = search(machine)
    best = tuned.run(whole=True)
    assert best is not None and machine.speed(best) == 85
    assert tuned.tried[machine.best] == Tried((), "failed", Fate.out, 1)
    assert tuned.tried[0, 0].round == 1, "what others are held against is out too"
    machine.broken = dict.fromkeys(settings_of(SIZES), "failed")
    assert search(machine).run(whole=True) is None
    assert search(machine).run(whole=False) is None


def test_values_without_a_ratio_are_told_apart_where_they_do_not_overlap() -> None:
    def measure(settings: Sequence[Setting], repetitions: int) -> Mapping[Setting, Tried]:
        return {each: Tried([float(each[0] - 1) * 5 + 0.1 * n for n in range(repetitions)]) for each in settings}

    tuned = Search((3,), False, measure, lambda setting: setting)
    assert tuned.run(whole=True) == (0,)
    assert [tuned.tried[n,].fate for n in range(3)] == [Fate.best, Fate.worse, Fate.worse]
