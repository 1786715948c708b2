"""What a device's calibration says: how much its sessions differ, which differences can be shown, drift, the cost of sensors."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from statistics import median

from meltrepro.record.calibrations import Calibration
from meltrepro.stats.equivalence import Design
from meltrepro.stats.ratio import RatioInterval, comparable, ratio_interval
from meltrepro.stats.sessions import Spread, spread
from meltrepro.stats.stability import Drift, drift

SPEED = "generation_tps"


def spread_of(calibration: Calibration | None, metric: str) -> Spread | None:
    """The spread of a metric; `None` where the device was not calibrated, or for a metric that its work does not have."""
    return spread(_arms(calibration, metric)) if calibration is not None else None


def spreads(calibration: Calibration) -> Iterator[tuple[str, Spread]]:
    """Every metric of a calibration that has a spread."""
    for metric in dict.fromkeys(name for session in calibration.sessions for name in session.values):
        found = spread_of(calibration, metric)
        if found is not None:
            yield metric, found


def with_sessions(design: Design, known: Spread | None) -> Design:
    """A design that allows for what is known of sessions, where anything is."""
    if known is None:
        return design
    return replace(design, session_cv=min(known.between, 0.99), session_df=known.df)


def drift_of(calibration: Calibration, metric: str = SPEED) -> Drift | None:
    """How a metric moved over all trials of the newest day of sessions; `None` for too few."""
    last = max(session.started_wall_ns for session in calibration.sessions)
    points = [
        (session.started_wall_ns / 1e9 + time_s, value)
        for session in calibration.sessions
        if last - session.started_wall_ns < _DAY_NS
        for time_s, value in zip(session.times_s, session.values.get(metric, ()), strict=False)
    ]
    return drift([time for time, _ in points], [value for _, value in points])


def sampling_cost(calibration: Calibration, metric: str = SPEED) -> RatioInterval | None:
    """The metric while sensors are read over the same while they are not, session by session; `None` without both."""
    arms = _arms(calibration, metric)
    levels = [[median(values) for values in arms.get(name, ()) if comparable(values)] for name in (_BARE, _SAMPLED)]
    return ratio_interval(levels[0], levels[1]) if all(map(comparable, levels)) else None


_BARE, _SAMPLED = "bare", "sampled"
_DAY_NS = 86_400 * 10**9


def _arms(calibration: Calibration, metric: str) -> dict[str, list[list[float]]]:
    arms: dict[str, list[list[float]]] = {}
    for session in calibration.sessions:
        arms.setdefault(_SAMPLED if session.sampled else _BARE, []).append(session.values.get(metric, []))
    return arms
