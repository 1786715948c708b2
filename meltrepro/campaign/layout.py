"""Where things are in a campaign folder. Others read these folders: names here are a format, not a habit."""

from __future__ import annotations

import re
from pathlib import Path

from meltrepro.campaign.schedule import Trial
from meltrepro.spec.campaign import BUILDS, CELLS

PART = ".part-"
"""Prefix of a campaign folder that is still being set up; its owner's process id follows."""


def cell_folder(campaign: Path, cell_id: str) -> Path:
    """Folder of a cell; its parts are names that the manifest has checked."""
    return campaign.joinpath(CELLS, *cell_id.split("/"))


def trial_folder(campaign: Path, trial: Trial) -> Path:
    """Folder of a trial's final attempt."""
    return cell_folder(campaign, trial.cell_id) / trial.folder


def attempt_folder(folder: Path, attempt: int) -> Path:
    """Where a failed attempt is kept when the trial is tried again."""
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
