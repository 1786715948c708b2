"""The real parts that integration tests share: a Docker engine, and the quickstart's artifacts."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from meltrepro import settings
from meltrepro.build import daemon
from meltrepro.errors import EngineError

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def engine() -> Iterator[None]:
    """A Docker engine that answers: the one that runs, or a private one for as long as the tests take."""
    here = settings.load()
    try:
        daemon.connect(here).close()
    except EngineError:
        daemon.start(here, print)
        yield
        daemon.stop(here)
        return
    yield


def meltrepro(*arguments: str | Path, home: Path | None = None, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run the real program from the checkout's root; `home` is where its records go."""
    environment = {**os.environ, **variables}
    if home is not None:
        environment["MELTREPRO_HOME"] = str(home)
    command: Sequence[str] = [sys.executable, "-m", "meltrepro", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=1700)
