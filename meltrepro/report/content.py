"""What a report is made of: results, findings, the paper's figures, and where everything came from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from meltrepro.record.study import StudyDocument
from meltrepro.report.keys import DeviceKey, device_key
from meltrepro.report.results import CellResult, Device, Results
from meltrepro.studies.melt.findings.model import Finding


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
    findings: Sequence[Finding] = ()
    references: Sequence[Reference] = ()
    provenance: Sequence[Provenance] = ()
    study: StudyDocument | None = None
    """The study that the campaigns belong to, with what it had to leave out."""

    @property
    def measured(self) -> tuple[CellResult, ...]:
        """The cells with figures that are believed."""
        return tuple(cell for cell in self.results.cells if cell.metrics or cell.scores)

    def title(self, device: Device) -> str:
        """The name of a device with its power mode, and with its hardware or a number where the name alone is not unique."""
        return self._titles[device_key(device)]

    @cached_property
    def _titles(self) -> Mapping[DeviceKey, str]:
        devices = {device_key(cell.device): cell.device for cell in self.results.cells}
        names = {key: one.name + (f" [{one.power_mode}]" if one.power_mode else "") for key, one in devices.items()}
        longer = {key: f"{name} ({devices[key].model})" for key, name in names.items()}
        number = Counter[str]()
        found = {}
        for key, name in sorted(names.items()):
            if list(names.values()).count(name) > 1:
                name = longer[key]
                number[name] += 1
                if list(longer.values()).count(name) > 1:
                    name += f" #{number[name]}"
            found[key] = name
        return found
