"""Builds that tests of real runners will need, begun while other tests run: with what these leave of the CPUs."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[2]


class Prebuild:
    """One release of llama.cpp for this machine and for aarch64, by the engine that needs no daemon.

    The other one is built when it is asked for, by Docker: both engines are to be seen at work. What goes wrong here goes
    wrong again then.
    """

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._folder = Path()

    def start(self) -> None:
        """Begin, at the lowest priority."""
        self._folder = Path(tempfile.mkdtemp(prefix="meltrepro-prebuild-"))
        specs = shutil.copytree(ROOT / "specs", self._folder / "specs")
        command = [sys.executable, "-m", "meltrepro", "build", str(specs / "drift.yaml"), "--engine", "process"]
        chosen = ["--only", "*2026*", "--set=frameworks.llama.cpp-2026.options.isas=[armv8_2]"]
        self._process = subprocess.Popen(
            ["nice", "-n", "19", *command, *chosen],
            cwd=ROOT,
            env={**os.environ, "MELTREPRO_HOME": str(self._folder / "home")},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def wait(self) -> None:
        """Until it has ended, one way or another."""
        if self._process is not None:
            self._process.wait()

    def stop(self) -> None:
        """End it, and leave nothing of it behind but what it has built."""
        if self._process is not None and self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGINT)
            try:
                self._process.wait(timeout=30)
            except subprocess.TimeoutExpired:
                os.killpg(self._process.pid, signal.SIGKILL)
                self._process.wait()
        if self._process is not None:
            shutil.rmtree(self._folder)


PREBUILD = Prebuild()
