"""The plan of a sensor logger: which numbers `melt-sampler` reads, how often, and the header of what it writes."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict

from meltrepro.record.samples import FORMAT, Header
from meltrepro.record.series import SensorChannel
from meltrepro.targets.base import Source

SAMPLER = "melt-sampler"
WATCHED = "melt-runner"
"""Command name of the process whose memory is sampled."""


def sensor_plan(sources: Sequence[Source], rate_hz: float, *, root: str = "") -> bytes:
    """`plan.json` of the logger; a source is asked no more often than it has new values."""
    channels = tuple(
        SensorChannel(
            source.name,
            source.unit,
            source.kind,
            f"/{source.path}",
            source.refresh_s,
            source.wraps_at,
        )
        for source in sources
    )
    document = {
        "header": {"v": FORMAT, **asdict(Header(SAMPLER, rate_hz, channels, overhead=None))},
        "rate_hz": rate_hz,
        "root": root,
        "process": WATCHED,
        "channels": [
            {
                "path": source.path,
                "after": source.after,
                "index": source.index,
                "scale": source.scale,
                "every": _every(source.refresh_s, rate_hz),
            }
            for source in sources
        ],
    }
    return json.dumps(document, indent=1).encode() + b"\n"


def period_s(refresh_s: float | None, rate_hz: float) -> float:
    """Nominal seconds between two samples of a source that has new values this often."""
    return _every(refresh_s, rate_hz) / rate_hz


def _every(refresh_s: float | None, rate_hz: float) -> int:
    """In each so many sweeps a source is read."""
    return 1 if refresh_s is None else max(1, math.ceil(refresh_s * rate_hz - 1e-9))
