"""Where things are in a campaign folder. Others read these folders: names here are a format, not a habit."""

from __future__ import annotations

import re
from dataclasses import astuple, dataclass
from enum import StrEnum
from pathlib import Path

from meltrepro.record.campaign import BUILDS, CELLS
from meltrepro.record.ids import CellId

PART = ".part-"
"""Prefix of a campaign folder that is still being set up; its owner's process id follows."""


class TrialKind(StrEnum):
    """What a trial is for; only repetitions are summarised."""

    warmup = "warmup"
    repetition = "repetition"
    profile = "profile"


@dataclass(frozen=True)
class Trial:
    """One trial to run."""

    cell_id: str
    kind: TrialKind
    index: int

    @property
    def folder(self) -> str:
        """Name of its folder below the cell's: `w000`, `r000`, `p000`."""
        return f"{self.kind[0]}{self.index:03d}"

    def __str__(self) -> str:
        return f"{self.cell_id} {self.folder}"


def cell_folder(campaign: Path, cell_id: str) -> Path:
    """Folder of a cell; its parts are names that the manifest has checked."""
    return campaign.joinpath(CELLS, *astuple(CellId.parse(cell_id)))


def trial_folder(campaign: Path, trial: Trial) -> Path:
    """Folder of a trial's final attempt."""
    return cell_folder(campaign, trial.cell_id) / trial.folder


def attempt_folder(folder: Path, attempt: int) -> Path:
    """Where a failed attempt is kept when the trial is run again."""
    return folder.with_name(f"{folder.name}.attempt{attempt}")


def attempts(folder: Path) -> int:
    """The highest number of the attempts that are kept beside a trial's folder; 0 for none."""
    if not folder.parent.is_dir():
        return 0
    kept = re.compile(re.escape(folder.name) + r"\.attempt(\d+)")
    numbers = (kept.fullmatch(path.name) for path in folder.parent.iterdir())
    return max((int(match.group(1)) for match in numbers if match), default=0)


def unfinished_folder(folder: Path) -> Path:
    """Where a trial runs until it has an outcome: nobody takes for a record what its program could still write."""
    return folder.with_name(f".{folder.name}.tmp")


def build_folder(campaign: Path, node_id: str) -> Path:
    """Folder of the recipe and the log of a build node."""
    return campaign / BUILDS / node_id.replace("/", "-")
