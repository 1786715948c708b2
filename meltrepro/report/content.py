"""What a report is made of: results, findings, the paper's figures, and where everything came from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from meltrepro.report.results import CellResult, Results


class FindingRow(Protocol):
    """One claim of the paper and what these results say of it."""

    @property
    def id(self) -> str:
        """`F1`."""

    @property
    def claim(self) -> str:
        """In plain words."""

    @property
    def verdict(self) -> str:
        """`HOLDS`, `FAILS` or `NOT TESTABLE HERE`."""

    @property
    def reason(self) -> str | None:
        """Why it is not testable, or what the verdict rests on."""

    @property
    def numbers(self) -> Mapping[str, float | int | str]:
        """The figures behind the verdict, by name."""


@dataclass(frozen=True)
class Reference:
    """One figure of the paper's study."""

    table: str
    """`accuracy`, `sizes`, `speed`, `energy` or `operators`."""
    device: str
    framework: str
    model: str
    quantization: str
    metric: str
    value: float | None
    """`None` where the published table has a gap."""
    unit: str
    source: str
    stderr: float | None = None
    flags: tuple[str, ...] = ()
    """What is known to be wrong with the published row."""
    secondhand: bool = False
    """Quoted by others, the paper itself unread: a rough range, never a target."""


@dataclass(frozen=True)
class Provenance:
    """Where the cells of one campaign came from; all of it stands in the campaign's records."""

    campaign: str
    name: str
    started: str
    """UTC, to the second."""
    version: str
    """Of the meltrepro that ran it."""
    engine: str
    seed: int
    order: str
    manifest_digest: str
    plan_digest: str
    cells: tuple[CellProvenance, ...]


@dataclass(frozen=True)
class CellProvenance:
    """What one cell ran, by digest."""

    cell: str
    release: str
    commit: str
    isa: str
    model: str
    bundle: str
    runner: str
    source: str


@dataclass(frozen=True)
class Content:
    """Everything that a report shows."""

    results: Results
    findings: Sequence[FindingRow] = ()
    references: Sequence[Reference] = ()
    provenance: Sequence[Provenance] = ()

    @property
    def measured(self) -> tuple[CellResult, ...]:
        """The cells with figures that are believed."""
        return tuple(cell for cell in self.results.cells if cell.metrics or cell.scores)
