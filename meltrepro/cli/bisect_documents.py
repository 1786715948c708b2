"""What `meltrepro bisect` prints with `--json`, like all `documents`."""

from __future__ import annotations

from pathlib import Path

from meltrepro.cli.documents import Document
from meltrepro.workflow.bisecting import BisectStep


class BisectDocument(Document):
    """Which release made a metric worse."""

    metric: str
    """The metric."""
    releases: list[str]
    """All of them, from the good one to the bad one."""
    steps: list[BisectStep]
    """What was tried, in order; the bad end first."""
    suspects: list[str]
    """The first bad release; several, where some could not be tried or the time was up."""
    ended: bool
    """Whether everything was tried that can be."""
    path: Path
    """What is kept, so that the same command goes on."""
