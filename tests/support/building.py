"""Tools for building whose engine is the test's own."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from meltrepro.build.model import Engine
from meltrepro.build.tools import Tools
from meltrepro.manifest.lock import Lock
from meltrepro.settings import Settings
from meltrepro.steps import Sink, silent


class NoEngineError(Exception):
    """Building was tried."""


@dataclass
class GivenTools(Tools):
    """Tools with this engine, or with none."""

    given: Engine | None = None

    def engine(self) -> Engine:
        if self.given is None:
            raise NoEngineError
        return self.given


def tools(folder: Path, lock: Lock | None = None, engine: Engine | None = None, sink: Sink = silent) -> Any:
    """Tools in a folder, offline, whose manifest stands there too."""
    settings = Settings(folder / "cache", folder / "home", offline=True, mirrors=None, jobs=1)
    return GivenTools(settings, sink, lock or Lock(lock=1, manifest="0" * 64), base_dir=folder, given=engine)
