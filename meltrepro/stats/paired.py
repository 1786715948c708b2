"""Two shares of right answers to the same questions: their difference with an interval, and an exact test of sameness.

Only questions count that one side answers right and the other does not: what both know, or neither, says nothing of a
difference, and that is what pairing gains over two samples. Test: McNemar (1947, Psychometrika 12), exact: of those
questions each side has half, binomially. Interval: Wald's with one such question added to either side (Bonett and Price 2012, J. Educ.
Behav. Stat. 37), which Fagerland, Lydersen and Laake (2014, Stat. Med. 33) recommend for any number of questions.

Imports scipy: import this module only where a report is made.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from scipy.special import ndtri
from scipy.stats import binomtest


@dataclass(frozen=True)
class Pairs:
    """What two sides made of the questions that both were asked."""

    n: int
    lost: int
    """Questions that the first alone answered right."""
    won: int
    """Questions that the second alone answered right."""

    @property
    def difference(self) -> float:
        """Share of right answers of the second less that of the first."""
        return (self.won - self.lost) / self.n

    @property
    def p(self) -> float:
        """How probable so unequal a split is where neither is better; 1 where both answered alike."""
        if self.lost + self.won == 0:
            return 1.0
        return float(binomtest(self.won, self.lost + self.won, 0.5).pvalue)

    def interval(self, confidence: float = 0.95) -> tuple[float, float]:
        """Of the difference that other questions of the same kind would show."""
        n, lost, won = self.n + 2, self.lost + 1, self.won + 1
        middle = (won - lost) / n
        off = float(ndtri((1 + confidence) / 2)) * math.sqrt(((lost + won) / n - middle * middle) / n)
        return max(-1.0, middle - off), min(1.0, middle + off)


def paired(first: Mapping[str, bool], second: Mapping[str, bool]) -> Pairs | None:
    """Both sides on the questions that both were asked, by whatever names these; `None` where there are none."""
    common = first.keys() & second.keys()
    if not common:
        return None
    lost = sum(first[key] and not second[key] for key in common)
    return Pairs(len(common), lost, sum(second[key] and not first[key] for key in common))
