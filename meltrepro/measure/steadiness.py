"""Whether the repetitions of a cell are what their summary takes them for; what is odd is told, nothing is dropped."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from meltrepro.stats.stability import Autocorrelation, Drift, autocorrelation, drift, outliers

WATCHED = ("prefill_tps", "generation_tps", "ttft_ms", "energy_per_token_j")
"""Metrics whose repetitions are looked at."""
_LEAST_CHANGE = 0.02
"""A drift over the campaign that is smaller is not worth a remark, established or not; nor is a value that lies nearer to
the median an outlier, though the others be the same to the last digit."""


@dataclass(frozen=True)
class Steadiness:
    """What the repetitions of one metric say about each other, in the order in which they were measured."""

    metric: str
    outliers: tuple[str, ...]
    """Names of the trials that lie far from the others."""
    autocorrelation: Autocorrelation | None
    drift: Drift | None
    """Both `None` for too few repetitions."""

    def remarks(self) -> list[str]:
        """What a reader of the summary should know; empty where nothing is odd."""
        found = []
        if self.outliers:
            are = "are outliers" if len(self.outliers) > 1 else "is an outlier"
            found.append(f"{', '.join(self.outliers)} {are}")
        if self.drift is not None and self.drift.established and abs(self.drift.change or 0.0) >= _LEAST_CHANGE:
            change = self.drift.change or 0.0
            found.append(f"{'rises' if change > 0 else 'falls'} by {abs(change):.1%} over the campaign")
        elif self.autocorrelation is not None and not self.autocorrelation.independent:
            found.append(
                f"repetitions depend on the one before (autocorrelation {self.autocorrelation.coefficient:.2f}): "
                "the interval is not to be relied on"
            )
        return [f"{self.metric}: {one}" for one in found]


def steadiness(metric: str, values: Sequence[tuple[str, float, float]]) -> Steadiness:
    """Of one metric's repetitions: name of the trial, time in seconds, value. Raises `RecordError`."""
    ordered = sorted(values, key=lambda one: one[1])
    numbers = [value for _, _, value in ordered]
    far = [i for i in outliers(numbers) if _differs(numbers[i], median(numbers))]
    return Steadiness(
        metric,
        tuple(ordered[i][0] for i in far),
        autocorrelation(numbers),
        drift([time_s for _, time_s, _ in ordered], numbers),
    )


def _differs(value: float, middle: float) -> bool:
    return abs(value - middle) >= _LEAST_CHANGE * abs(middle)
