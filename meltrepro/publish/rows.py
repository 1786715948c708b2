"""Rows of a gallery: a cell of an entry each, with what it costs, and how often others came to the same."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from meltrepro.publish.collect import Collected, Standing
from meltrepro.publish.entry import PublicCell, PublicDevice, PublicFigure

SPEED, PREFILL, WAIT, MEMORY, ENERGY = (
    "generation_tps",
    "prefill_tps",
    "ttft_ms",
    "peak_memory_bytes",
    "energy_per_token_j",
)
_Weights = tuple[str, str, str]
_Place = tuple[str, int]
"""A record and the number of a cell in it."""


@dataclass(frozen=True)
class Reproductions:
    """What came of repeating a cell. A signer counts once, with the worst verdict of any replay."""

    reproduced: int = 0
    """Signers of the list, other than who published it, for whom it came out again."""
    differs: int = 0
    undecided: int = 0
    others: int = 0
    """Replays that nobody in the list of signers vouches for, or the publisher's own."""

    @property
    def tried(self) -> int:
        return self.reproduced + self.differs + self.undecided


@dataclass(frozen=True)
class GalleryRow:
    """A cell that somebody published."""

    source: Collected
    cell: PublicCell
    device: PublicDevice
    quality: Mapping[str, float] = field(default_factory=dict)
    """Scores of the same weights under the same engine in this entry."""
    tally: Reproductions = field(default_factory=Reproductions)

    @property
    def speed(self) -> float:
        """Of generation; 0 where it was not measured, which sorts last."""
        found = self.cell.metrics.get(SPEED)
        return found.median if found else 0.0

    @property
    def tags(self) -> tuple[str, ...]:
        """What a reader must know before comparing it with any other."""
        cell = self.cell
        found = (
            ("virtual", self.device.virtual),
            ("synthetic", cell.synthetic),
            ("GPU", cell.accelerated),
            ("software device", cell.software_device),
            ("replay", cell.replay is not None),
            ("unfinished", not self.source.entry.campaign.finished),
        )
        return tuple(name for name, holds in found if holds)

    @property
    def commands(self) -> tuple[str, ...]:
        """What to type to repeat it; none where no bundle was published."""
        bundle, cell = self.source.entry.bundle, self.cell
        if bundle is None:
            return ()
        file = f"{self.source.entry.id}.melt"
        fetch = (f"curl -fLo {file} {shlex.quote(bundle.url)}",) if bundle.url else ()
        only = shlex.quote(f"{cell.model}/{cell.quantization}/*/*/{cell.workload}")
        return (*fetch, f"echo '{bundle.sha256}  {file}' | sha256sum -c", f"meltrepro replay {file} --only {only}")

    def figure(self, name: str) -> PublicFigure | None:
        """A metric of it."""
        return self.cell.metrics.get(name)


def rows(taken: Sequence[Collected]) -> list[GalleryRow]:
    """Every cell once, of the entry that is vouched for best; the fastest first, real devices before virtual ones."""
    tallies = _tallies(taken)
    seen: set[_Place] = set()
    found = []
    for one in taken:
        scores = _scores(one)
        for cell in one.entry.cells:
            place = (one.entry.campaign.record, cell.number)
            if place in seen:
                continue
            seen.add(place)
            device = one.entry.devices[cell.device]
            quality = {} if cell.synthetic else scores.get(_weights(cell), {})
            found.append(GalleryRow(one, cell, device, quality, tallies.get(place, Reproductions())))
    return sorted(found, key=lambda row: (row.device.virtual, -row.speed, row.source.file, row.cell.number))


def _weights(cell: PublicCell) -> _Weights:
    """What a score belongs to, on whatever device it was found."""
    return cell.digests.model, cell.engine.partition("+")[0], cell.release


def _scores(one: Collected) -> Mapping[_Weights, Mapping[str, float]]:
    found: dict[_Weights, dict[str, float]] = {}
    for cell in one.entry.cells:
        for name, score in cell.scores.items():
            found.setdefault(_weights(cell), {}).setdefault(name, score.value)
    return found


def _tallies(taken: Sequence[Collected]) -> Mapping[_Place, Reproductions]:
    """What came of repeating each cell, by the entries of replays."""
    publishers = {
        (one.entry.campaign.record, cell.number): one.key for one in reversed(taken) for cell in one.entry.cells
    }
    verdicts: dict[_Place, dict[bytes, set[str]]] = {}
    others: dict[_Place, int] = {}
    for one in taken:
        if one.entry.replay is None:
            continue
        for cell in one.entry.cells:
            if cell.replay is None:
                continue
            place = (one.entry.replay.record, cell.replay.number)
            if one.standing is Standing.known and one.key is not None and one.key != publishers.get(place):
                verdicts.setdefault(place, {}).setdefault(one.key.blob, set()).add(cell.replay.verdict)
            else:
                others[place] = others.get(place, 0) + 1
    found = {}
    for place in {*verdicts, *others}:
        worst = [_worst(each) for each in verdicts.get(place, {}).values()]
        reproduced, differs, undecided = (worst.count(verdict) for verdict in ("REPRODUCED", "DIFFERS", "INCONCLUSIVE"))
        found[place] = Reproductions(reproduced, differs, undecided, others.get(place, 0))
    return found


def _worst(verdicts: set[str]) -> str:
    return next(one for one in ("DIFFERS", "REPRODUCED", "INCONCLUSIVE") if one in verdicts)
