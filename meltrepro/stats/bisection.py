"""Which of many versions in a row is the first that is worse: halving, where some cannot be tried."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from enum import StrEnum


class Side(StrEnum):
    """What a version was found to be like."""

    good = "good"
    bad = "bad"
    skipped = "skipped"


@dataclass
class Bisection:
    """A search between a first version that is good and a last one that is bad, of `count` in a row."""

    count: int
    known: dict[int, Side] = field(default_factory=dict)
    """What was tried, by place; the ends are known from the start."""

    def __post_init__(self) -> None:
        self.known = {**self.known, 0: Side.good, self.count - 1: Side.bad}

    @property
    def good(self) -> int:
        """The last place that is good, below the first that is bad."""
        return max(place for place, side in self.known.items() if side is Side.good and place < self.bad)

    @property
    def bad(self) -> int:
        """The first place that is bad."""
        return min(place for place, side in self.known.items() if side is Side.bad)

    @property
    def suspects(self) -> range:
        """The places of which one is the first bad one: those after the good one, to the bad one."""
        return range(self.good + 1, self.bad + 1)

    @property
    def next(self) -> int | None:
        """The place to try next: that nearest to the middle which was not tried; `None` where none is left."""
        middle = (self.good + self.bad) / 2
        left = [place for place in self.suspects if place not in self.known]
        return min(left, key=lambda place: (abs(place - middle), place)) if left else None

    @property
    def found(self) -> bool:
        """Whether one place alone is left."""
        return len(self.suspects) == 1

    @property
    def steps_left(self) -> int:
        """How many tries there will be at most, if all can be tried."""
        return math.ceil(math.log2(len(self.suspects))) if self.next is not None else 0
