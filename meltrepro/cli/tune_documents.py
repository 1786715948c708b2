"""What `meltrepro tune` prints with `--json`, like all `documents`."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import JsonValue

from meltrepro.cli.documents import Document


class TunePlanDocument(Document):
    """What `meltrepro tune` will do."""

    cell: str
    """The cell, its framework without options."""
    metric: str
    """What is to be best."""
    within: dict[str, float]
    """Limits, by metric in its unit."""
    keys: dict[str, list[JsonValue]]
    """Keys of the manifest, and the values of each; the first is what it has."""
    search: Literal["all", "one-by-one"]
    """All combinations, or one key after the other."""
    trials: int
    """The most that there will be, warm-ups too."""


class SettingDocument(Document):
    """A setting that was tried."""

    values: dict[str, JsonValue]
    """By key of the manifest."""
    fate: Literal["best", "equal", "worse", "half", "out"]
    """`equal`: not told apart from the best; `worse`: told apart; `half`: not in the better half of its last round."""
    why_out: str | None
    """Why it is out."""
    round: int
    """The last round that it was in; 0 for none."""
    n: int
    """Repetitions of that round."""
    median: float | None
    """Of the metric in that round."""
    low: float | None
    """Lower end of the interval of the median."""
    high: float | None
    """Upper end."""


class TuneDocument(Document):
    """What `meltrepro tune` found."""

    plan: TunePlanDocument
    """What was searched."""
    settings: list[SettingDocument]
    """All that was tried, the best first."""
    gain: list[float] | None
    """The best over the manifest's own setting, and the interval of that; `null` where they are the same or cannot be compared."""
    path: Path
    """The manifest that was written."""
    campaigns: list[str]
    """Ids of the rounds."""
