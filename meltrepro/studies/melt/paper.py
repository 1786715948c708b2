"""What was recovered of MELT's figures (MobiCom'24, arXiv 2403.12844), as typed rows; `reference/*.csv` holds them.

Each row names its source. `artifact:` or a file's name: read from a public repository of the study; `derived:`:
computed from such numbers; `secondhand:`: quoted by others, never checked against the paper, and no target. Rows in
which a defect was found carry flags. The paper's figures per device could not be recovered.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, TypeVar

from pydantic import BeforeValidator, Field, TypeAdapter, ValidationError

from meltrepro.errors import RecordError
from meltrepro.untrusted import first_fault

_FOLDER = Path(__file__).parent / "reference"
_Row = TypeVar("_Row")
_Optional = BeforeValidator(lambda text: text or None)
_Flags = Annotated[tuple[str, ...], BeforeValidator(lambda text: tuple(filter(None, text.split(";"))))]
"""Defects found in a row; empty where there are none."""
_Digits = BeforeValidator(lambda text: len(text.partition(".")[2]))

SPLITS = {
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
    value: Annotated[float | None, _Optional, Field(alias="metric_value")]
    """A share; plain accuracy, not normalised by length. `None` where it was left out."""
    stderr: Annotated[float | None, _Optional]
    kind: Annotated[str, Field(alias="row_kind")]
    """`reported`, `composite`, `external_reference`, or `recomputed` here."""
    flags: _Flags
    source: str
    decimals: Annotated[int, _Digits, Field(alias="metric_value")]
    """Digits after the point that were published; of the standard error below."""
    stderr_decimals: Annotated[int, _Digits, Field(alias="stderr")]

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
    disk_gb: Annotated[float, Field(alias="size_on_disk_gb")]
    published_memory_gb: Annotated[float, Field(alias="size_in_memory_as_published")]
    """As the study prints it; in no row a measured footprint."""
    flags: _Flags
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
    name: Annotated[str, Field(alias="op_name")]
    role: Annotated[str, Field(alias="role_inferred")]
    """What it computes, where its name tells; empty otherwise."""
    plotted_share: Annotated[float | None, _Optional, Field(alias="share_of_mean_call_durations_as_plotted")]
    """Of the sum of mean times of one call: what the study plots."""
    time_share: Annotated[float | None, _Optional, Field(alias="share_of_module_time_derived")]
    """Of the module's time, with the calls per pass that the model's shape implies."""
    source: str


@cache
def accuracy() -> tuple[AccuracyRow, ...]:
    """All scores; raises `RecordError` where the file is damaged, as do the others here."""
    return _load("accuracy", AccuracyRow)


@cache
def sizes() -> tuple[SizeRow, ...]:
    return _load("model_sizes", SizeRow)


@cache
def throughput() -> tuple[FigureRow, ...]:
    """Speeds, times and memory."""
    return _load("throughput", FigureRow)


@cache
def energy() -> tuple[FigureRow, ...]:
    """Energy, power, batteries and temperatures."""
    return _load("energy", FigureRow)


@cache
def operators() -> tuple[OperatorRow, ...]:
    """Profiles of two systems."""
    return _load("per_op", OperatorRow)


def figure(rows: tuple[FigureRow, ...], metric: str, device: str | None = None) -> FigureRow:
    """The one row of a metric, of a device where there are several; raises `KeyError` where it is not one."""
    found = [row for row in rows if row.metric == metric and device in (None, row.device)]
    if len(found) != 1:
        raise KeyError(f"{len(found)} rows of {metric}")
    return found[0]


def _load(name: str, kind: type[_Row]) -> tuple[_Row, ...]:
    path = _FOLDER / f"{name}.csv"
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return tuple(map(TypeAdapter(kind).validate_python, csv.DictReader(file, strict=True)))
    except (OSError, ValueError, AttributeError, csv.Error) as error:
        fault = first_fault(error) if isinstance(error, ValidationError) else error
        raise RecordError(
            f"{path} cannot be used: {fault}", hint="it is part of the package: install it anew"
        ) from error
