"""What was recovered of MELT's figures (MobiCom'24, arXiv 2403.12844), as typed rows; `reference/*.csv` holds them.

Each row names its source. `artifact:` or a file's name: read from a public repository of the study; `derived:`:
computed from such numbers; `secondhand:`: quoted by others, never checked against the paper, and no target. Rows in
which a defect was found carry flags. The paper's figures per device could not be recovered.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TypeVar

from meltrepro.errors import RecordError

_FOLDER = Path(__file__).parent / "reference"
_Row = TypeVar("_Row")

SPLITS: Mapping[str, int] = {
    "winogrande": 1267,
    "arc_easy": 2376,
    "arc_challenge": 1172,
    "hellaswag": 10042,
    "truthfulqa_mc1": 817,
}
"""Questions of each task whose score is a count of right answers: whole splits, as k/n proves."""
UNQUANTISED = "unquantised"


@dataclass(frozen=True)
class AccuracyRow:
    """One published score of one task."""

    model: str
    quantization: str
    framework: str
    """`paper`: a number that the authors took from a model's own paper."""
    task: str
    value: float | None
    """A share; plain accuracy, not normalised by length. `None` where it was left out."""
    stderr: float | None
    kind: str
    """`reported`, `composite`, `external_reference`, or `recomputed` here."""
    flags: tuple[str, ...]
    """Defects found in the row; empty where there are none."""
    source: str
    decimals: int
    """Digits after the point that were published; of the standard error below."""
    stderr_decimals: int

    @property
    def sound(self) -> bool:
        """Whether the row may serve as a reference."""
        return self.value is not None and not set(self.flags) - {"replaces_suspect_row"}


@dataclass(frozen=True)
class SizeRow:
    """Published sizes of one model in one quantization."""

    model: str
    quantization: str
    framework: str
    parameters: float
    disk_gb: float
    published_memory_gb: float
    """As the study prints it; in no row a measured footprint."""
    flags: tuple[str, ...]
    source: str


@dataclass(frozen=True)
class FigureRow:
    """One figure of speed, time, memory, energy, power, battery or temperature."""

    device: str
    framework: str
    model: str
    quantization: str
    metric: str
    value: float
    unit: str
    source: str

    @property
    def secondhand(self) -> bool:
        """Whether it was only quoted by others: a rough range, and no target."""
        return self.source.startswith("secondhand:")


@dataclass(frozen=True)
class OperatorRow:
    """One operator of a profile."""

    device: str
    framework: str
    model: str
    quantization: str
    module: str
    name: str
    role: str
    """What it computes, where its name tells; empty otherwise."""
    plotted_share: float | None
    """Of the sum of mean times of one call: what the study plots."""
    time_share: float | None
    """Of the module's time, with the calls per pass that the model's shape implies."""
    source: str


@cache
def accuracy() -> tuple[AccuracyRow, ...]:
    """All scores; raises `RecordError` where the file is damaged, as do the others here."""
    return _load(
        "accuracy",
        lambda row: AccuracyRow(
            model=row["model"],
            quantization=row["quantization"],
            framework=row["framework"],
            task=row["task"],
            value=_optional(row["metric_value"]),
            stderr=_optional(row["stderr"]),
            kind=row["row_kind"],
            flags=_flags(row["flags"]),
            source=row["source"],
            decimals=_digits(row["metric_value"]),
            stderr_decimals=_digits(row["stderr"]),
        ),
    )


@cache
def sizes() -> tuple[SizeRow, ...]:
    """Sizes of all models."""
    return _load(
        "model_sizes",
        lambda row: SizeRow(
            model=row["model"],
            quantization=row["quantization"],
            framework=row["framework"],
            parameters=float(row["parameters"]),
            disk_gb=float(row["size_on_disk_gb"]),
            published_memory_gb=float(row["size_in_memory_as_published"]),
            flags=_flags(row["flags"]),
            source=row["source"],
        ),
    )


@cache
def throughput() -> tuple[FigureRow, ...]:
    """Speeds, times and memory."""
    return _load("throughput", _figure)


@cache
def energy() -> tuple[FigureRow, ...]:
    """Energy, power, batteries and temperatures."""
    return _load("energy", _figure)


@cache
def operators() -> tuple[OperatorRow, ...]:
    """Profiles of two systems."""
    return _load(
        "per_op",
        lambda row: OperatorRow(
            device=row["device"],
            framework=row["framework"],
            model=row["model"],
            quantization=row["quantization"],
            module=row["module"],
            name=row["op_name"],
            role=row["role_inferred"],
            plotted_share=_optional(row["share_of_mean_call_durations_as_plotted"]),
            time_share=_optional(row["share_of_module_time_derived"]),
            source=row["source"],
        ),
    )


def figure(rows: tuple[FigureRow, ...], metric: str, device: str | None = None) -> FigureRow:
    """The one row of a metric, of a device where there are several; raises `KeyError` where it is not one."""
    found = [row for row in rows if row.metric == metric and device in (None, row.device)]
    if len(found) != 1:
        raise KeyError(f"{len(found)} rows of {metric}")
    return found[0]


def _figure(row: Mapping[str, str]) -> FigureRow:
    return FigureRow(
        device=row["device"],
        framework=row["framework"],
        model=row["model"],
        quantization=row["quantization"],
        metric=row["metric"],
        value=float(row["value"]),
        unit=row["unit"],
        source=row["source"],
    )


def _load(name: str, read: Callable[[Mapping[str, str]], _Row]) -> tuple[_Row, ...]:
    path = _FOLDER / f"{name}.csv"
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return tuple(read(row) for row in csv.DictReader(file, strict=True))
    except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
        raise RecordError(
            f"{path} cannot be used: {error}", hint="it is part of the package: install it anew"
        ) from error


def _optional(text: str) -> float | None:
    return float(text) if text else None


def _digits(text: str) -> int:
    return len(text.partition(".")[2])


def _flags(text: str) -> tuple[str, ...]:
    return tuple(flag for flag in text.split(";") if flag)
