"""How many of all questions would be answered right, told from those that were asked so far; valid however often one looks.

Questions are asked in a random order, none twice. A number of right answers is kept as long as what was seen is not much
less probable under it than under all numbers alike: the prior-posterior-ratio confidence sequence for sampling without
replacement (Waudby-Smith and Ramdas 2020, NeurIPS 33, theorem 2.1), with a uniform prior. That ratio is a martingale, so
that by Ville's inequality (1939) the truth is outside at any look whatever with probability alpha at most; asking may stop
for any reason. It rests on the random order alone and on no distribution.
"""

from __future__ import annotations

import math
from functools import lru_cache

ALPHA = 0.05


@lru_cache(maxsize=4096)
def share_interval(asked: int, right: int, total: int, alpha: float = ALPHA) -> tuple[float, float]:
    """Least and largest share of right answers among `total` questions, of which so many were asked and answered right."""
    least = math.log(alpha) - math.log(asked + 1)
    every = _log_choices(total, asked)

    def kept(whole: int) -> bool:
        """Whether P(right | whole of total are right), hypergeometric, is more than alpha / (asked + 1)."""
        return _log_choices(whole, right) + _log_choices(total - whole, asked - right) - every > least

    numbers = [whole for whole in range(right, total - (asked - right) + 1) if kept(whole)]
    return numbers[0] / total, numbers[-1] / total


def known_within(asked: int, right: int, total: int, within: float) -> bool:
    """Whether the share of right answers so far is no farther than `within` from that of all questions, for sure enough."""
    if not asked:
        return False
    low, high = share_interval(asked, right, total)
    share = right / asked
    return max(share - low, high - share) <= within


def _log_choices(n: int, k: int) -> float:
    """Logarithm of the number of ways to choose `k` of `n`."""
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
