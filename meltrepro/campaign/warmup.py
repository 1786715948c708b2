"""When a cell is warm: decided from the warm-up trials on disk alone, so that a rerun decides the same."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

from meltrepro.campaign.trial import read_outcome
from meltrepro.errors import RecordError
from meltrepro.measure.metrics import compute
from meltrepro.record import trial as record
from meltrepro.record.events import read_trace
from meltrepro.record.trial import TrialState

_SPEED = "generation_tps"


def is_steady(cell: Path, index: int, within: float | None) -> bool:
    """Whether two warm-ups in a row before number `index` generated equally fast; never without a limit `within`.

    `cell` is the cell's folder. Raises `RecordError` for a damaged outcome.
    """
    if within is None:
        return False
    speeds = [_speed(cell / f"w{number:03d}") for number in range(index)]
    pairs = pairwise(speeds)
    return any(a is not None and b is not None and abs(b - a) <= within * max(a, b) for a, b in pairs)


def _speed(folder: Path) -> float | None:
    outcome = read_outcome(folder)
    if outcome is None or outcome.state is not TrialState.ok:
        return None
    try:
        return compute(read_trace(folder / record.EVENTS)).values.get(_SPEED)
    except RecordError:
        return None
